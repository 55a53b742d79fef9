//! Runs the deterministic simulator over many seeds.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use standin_tests::sim::planted::Bug;
use standin_tests::sim::{Options, What, run};

/// Runs the deterministic simulator over many seeds.
#[derive(Debug, Parser)]
#[command(name = "standin-sim")]
struct Args {
    /// How many seeds; of a planted bug, how many at most.
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

fn main() -> ExitCode {
    let args = Args::parse();
    let passed = match (&args.planted, args.seed) {
        (_, Some(seed)) => replay(&args, seed),
        (Some(name), None) => hunt(&args, name),
        (None, None) => sweep(&args),
    };
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

// === impl Args ===

impl Args {
    fn what(&self) -> What {
        if self.log { What::Log } else { What::Edges }
    }
}

fn replay(args: &Args, seed: u64) -> bool {
    let planted = args.planted.as_deref().and_then(Bug::named);
    let options = Options {
        told: true,
        what: planted.map_or(args.what(), Bug::what),
        planted,
    };
    let report = run(seed, options);
    for line in &report.lines {
        println!("{line}");
    }
    let (hash, events) = report.trace;
    println!("trace {hash:016x}, {events} events, {:?}", report.counts);
    match &report.wrong {
        Some(wrong) => println!("wrong {wrong}"),
        None => println!("nothing is wrong"),
    }
    report.wrong.is_none()
}

#[allow(clippy::disallowed_methods, reason = "says how long it took")]
fn hunt(args: &Args, name: &str) -> bool {
    let mut missed = 0_u32;
    println!("| bug | seeds until it was found | by |");
    println!("|---|---|---|");
    for bug in Bug::all().filter(|bug| name == "all" || bug.name() == name) {
        let began = Instant::now();
        let found = bug.hunt(args.start, args.seeds);
        let took = began.elapsed().as_secs();
        match found.after {
            Some((seeds, report)) => {
                let by = report.wrong.unwrap_or_default();
                let by: String = by.chars().take(110).collect();
                println!("| {} | {seeds} ({took} s) | {by} |", found.name);
            }
            None => {
                missed = missed.saturating_add(1);
                println!("| {} | not in {} ({took} s) | |", found.name, args.seeds);
            }
        }
    }
    missed == 0
}

#[allow(clippy::disallowed_methods, reason = "says how long it took")]
fn sweep(args: &Args) -> bool {
    let began = Instant::now();
    let (mut failed, mut faults, mut answered, mut applied, mut simulated_ms) =
        (0_u64, 0_u64, 0_u64, 0_u64, 0_u64);
    let options = Options {
        what: args.what(),
        ..Options::default()
    };
    for seed in args.start..args.start.saturating_add(args.seeds) {
        let report = run(seed, options);
        faults = faults.saturating_add(report.counts.faults);
        answered = answered.saturating_add(report.counts.answered);
        applied = applied.saturating_add(report.counts.applied);
        simulated_ms = simulated_ms.saturating_add(report.simulated_ms);
        if let Some(wrong) = report.wrong {
            failed = failed.saturating_add(1);
            let log = if args.log { " --log" } else { "" };
            println!("standin-sim --seed {seed}{log}: {wrong}");
        }
    }
    println!(
        "{} seeds, {failed} failed; {faults} faults, {answered} answers, {applied} entries applied, \
         {} simulated seconds in {:?}",
        args.seeds,
        simulated_ms.div_euclid(1_000),
        began.elapsed()
    );
    failed == 0
}
