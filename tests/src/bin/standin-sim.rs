//! Runs the deterministic simulator over many seeds.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use standin_tests::sim::{Options, What, run};
use standin_wal::testing::Planted;

/// Runs the deterministic simulator over many seeds.
#[derive(Debug, Parser)]
#[command(name = "standin-sim")]
struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Replays one seed and tells what happens.
    #[arg(long)]
    seed: Option<u64>,
    /// Simulates the log alone; else whole edges.
    #[arg(long)]
    log: bool,
    /// Plants every bug, or this one, and says how many seeds it takes to find it.
    #[arg(long, num_args = 0..=1, default_missing_value = "all")]
    planted: Option<String>,
}

#[allow(clippy::disallowed_methods, reason = "measures how fast seeds run")]
fn main() -> ExitCode {
    let args = Args::parse();
    let what = if args.log { What::Log } else { What::Edges };
    let named = args.planted.as_deref();
    if let Some(seed) = args.seed {
        let mut bugs = Planted::ALL.into_iter();
        let planted = bugs.find(|bug| named == Some(&format!("{bug:?}")));
        let report = run(
            seed,
            Options {
                told: true,
                what,
                planted,
            },
        );
        for line in &report.lines {
            println!("{line}");
        }
        println!(
            "{:?}",
            (report.seed, &report.wrong, report.trace, report.counts)
        );
        return if report.wrong.is_some() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        };
    }
    if let Some(name) = args.planted {
        for bug in Planted::ALL {
            if name != "all" && name != format!("{bug:?}") {
                continue;
            }
            let began = Instant::now();
            let found = (args.start..args.start.saturating_add(args.seeds)).find_map(|seed| {
                let options = Options {
                    planted: Some(bug),
                    what,
                    ..Options::default()
                };
                run(seed, options).wrong.map(|wrong| (seed, wrong))
            });
            println!("{bug:?} {:?}: {found:?}", began.elapsed());
        }
        return ExitCode::SUCCESS;
    }
    let began = Instant::now();
    let mut failed = 0_u64;
    for seed in args.start..args.start.saturating_add(args.seeds) {
        let report = run(
            seed,
            Options {
                what,
                ..Options::default()
            },
        );
        if let Some(wrong) = report.wrong {
            failed += 1;
            println!("seed {seed}: {wrong}");
        }
    }
    println!(
        "{} seeds in {:?}, {failed} failed",
        args.seeds,
        began.elapsed()
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
