//! `standin-peers`: the log of Standin beside its peers, on one disk, in one run.
//!
//! `standin-peers --dir DIR --json FILE`; `--help` and `docs/benchmarks.md` have the rest. A package of
//! its own, with its own lock file, so that no build of Standin ever meets the peers.
//!
//! Every measurement is a child process: [`logs`] has the programs, [`load`] the writers, [`recorder`]
//! what they saw, [`reopen`] the kill and what comes after, [`group`] and [`keeper`] the three keepers
//! and the three etcds, [`plan`] the order, [`summary`] the tables.

#![allow(
    clippy::disallowed_methods,
    reason = "what is measured here is time itself, in threads that block"
)]

mod certificates;
mod child;
// The same eyes as those of the edge's benchmark.
#[path = "../../src/bench/cpu.rs"]
mod cpu;
mod group;
mod keeper;
mod load;
mod logs;
mod machine;
mod plan;
mod recorder;
mod reopen;
mod summary;

use clap::Parser;

use crate::keeper::Keeper;
use crate::logs::Task;
use crate::machine::Machine;
use crate::plan::{Measurements, Plan};
use crate::recorder::say;
use crate::reopen::Place;

#[derive(Debug, Parser)]
#[command(name = "standin-peers", version, subcommand_negates_reqs = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    plan: Plan,
}

/// What a child of this program does.
#[derive(Debug, clap::Subcommand)]
enum Command {
    #[command(hide = true)]
    Append(Task),
    #[command(hide = true)]
    Fill(Place),
    #[command(hide = true)]
    Reopen(Place),
    #[command(hide = true)]
    Keeper(Keeper),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Args { command, plan } = Args::parse();
    match command {
        None => Box::pin(measure(plan)).await,
        Some(Command::Append(task)) => {
            let found = Box::pin(task.run()).await?;
            say(&serde_json::to_string(&found)?);
            Ok(())
        }
        Some(Command::Fill(place)) => reopen::fill(&place).await,
        Some(Command::Reopen(place)) => {
            say(&serde_json::to_string(&reopen::reopen(&place)?)?);
            Ok(())
        }
        Some(Command::Keeper(keeper)) => Box::pin(keeper.run()).await,
    }
}

async fn measure(plan: Plan) -> anyhow::Result<()> {
    let dir = plan.dir.clone().unwrap_or_default();
    std::fs::create_dir_all(&dir)?;
    let dir = dir.canonicalize()?;
    // The servers' folders are temporary ones: they belong on the same disk.
    tempfile::env::override_temp_dir(&dir)
        .map_err(|other| anyhow::anyhow!("temporary files go to {}", other.display()))?;
    note("trying the disk");
    let machine = Machine::look(&dir)?;
    let mut all = Measurements::default();
    for round in 1..=plan.rounds {
        note(&format!("round {round} of {}", plan.rounds));
        let done = plan.round(&dir, round, &mut all).await;
        // What is known so far survives a run that is cut short.
        if let Some(file) = &plan.json {
            let found = serde_json::json!({ "machine": machine, "measurements": all });
            std::fs::write(file, serde_json::to_vec_pretty(&found)?)?;
        }
        done?;
    }
    print!("{}", summary::markdown(&machine, &all));
    Ok(())
}

/// One line of progress for who watches.
fn note(line: &str) {
    eprintln!("# {line}");
}
