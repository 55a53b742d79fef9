//! `standin-bench`: measures one edge and its two peers on this machine, in one run.
//!
//! `standin-bench --seconds 10 --rounds 5 --json bench.json > bench.md`; see `docs/benchmarks.md`.

use std::path::PathBuf;

use clap::Parser;
use standin_tests::bench::abuse::Abuse;
use standin_tests::bench::children::Folder;
use standin_tests::bench::door::DoorRun;
use standin_tests::bench::plan::{Plan, Stage, note};
use standin_tests::bench::serve::Server;
use standin_tests::bench::summary::{Machine, Summary};
use tempfile::TempDir;

#[derive(Debug, Parser)]
#[command(name = "standin-bench", version)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    plan: Plan,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Abuse an edge, and see what an honest bank gets.
    Abuse(Abuse),
    /// What the door costs, beside a bare server.
    Door(DoorRun),
    /// Be one of the servers that are measured.
    #[command(hide = true)]
    Serve {
        #[command(subcommand)]
        server: Server,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Args { command, plan } = Args::parse();
    match command {
        Some(Command::Serve { server }) => Box::pin(server.run()).await,
        Some(Command::Abuse(abuse)) => {
            let (folder, _kept) = folder(abuse.dir.as_ref())?;
            Box::pin(abuse.run(folder)).await
        }
        Some(Command::Door(door)) => {
            let (folder, _kept) = folder(door.dir.as_ref())?;
            Box::pin(door.run(folder)).await
        }
        None => Box::pin(measure(plan)).await,
    }
}

/// Where things are kept; what is temporary is gone once it is dropped.
fn folder(given: Option<&PathBuf>) -> anyhow::Result<(Folder, Option<TempDir>)> {
    if let Some(given) = given {
        std::fs::create_dir_all(given)?;
        return Ok((Folder(given.clone()), None));
    }
    let temporary = tempfile::Builder::new()
        .prefix("standin-bench-")
        .tempdir()?;
    Ok((Folder(temporary.path().to_owned()), Some(temporary)))
}

async fn measure(plan: Plan) -> anyhow::Result<()> {
    let (folder, _kept) = folder(plan.dir.as_ref())?;
    let machine = Machine::look(&folder.0)?;
    let stage = Stage::set(&plan, folder).await?;
    let mut all = Vec::new();
    for round in 1..=plan.rounds {
        note(&format!("round {round} of {}", plan.rounds));
        all.extend(stage.round(round).await?);
        // What is known so far survives a run that is cut short.
        if let Some(file) = &plan.json {
            let found = serde_json::json!({ "machine": machine, "measurements": all });
            std::fs::write(file, serde_json::to_vec_pretty(&found)?)?;
        }
    }
    print!("{}", Summary::new(&machine, &all).markdown());
    Ok(())
}
