//! Runs the deterministic simulator over many seeds.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use standin_tests::sim::{Options, run};

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
}

#[allow(clippy::disallowed_methods, reason = "measures how fast seeds run")]
fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(seed) = args.seed {
        let report = run(
            seed,
            Options {
                told: true,
                ..Options::default()
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
    let began = Instant::now();
    let mut failed = 0_u64;
    for seed in args.start..args.start.saturating_add(args.seeds) {
        let report = run(seed, Options::default());
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
