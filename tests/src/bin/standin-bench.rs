//! `standin-bench`: measures one edge and its two peers on this machine, in one run.
//!
//! `standin-bench --seconds 10 --rounds 5 --json bench.json > bench.md`; see `docs/benchmarks.md`.

use clap::Parser;
use standin_tests::bench::children::Folder;
use standin_tests::bench::plan::{Plan, Stage, note};
use standin_tests::bench::serve::Server;
use standin_tests::bench::summary::{Machine, Summary};

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
        None => Box::pin(measure(plan)).await,
    }
}

async fn measure(plan: Plan) -> anyhow::Result<()> {
    let temporary = tempfile::Builder::new()
        .prefix("standin-bench-")
        .tempdir()?;
    let folder = plan
        .dir
        .clone()
        .unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&folder)?;
    let machine = Machine::look(&folder)?;
    let stage = Stage::set(&plan, Folder(folder)).await?;
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
