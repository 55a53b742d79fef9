//! The deterministic simulator, over the seeds that once found something and many new ones.

use standin_tests::sim::planted::Bug;
use standin_tests::sim::{Options, What, run};

/// Seeds that found a defect, or a hole in the oracle: `log 60` or `edges 168`, one a line.
const REGRESSIONS: &str = include_str!("../data/sim-seeds.txt");

fn options(what: What) -> Options {
    Options {
        what,
        ..Options::default()
    }
}

fn sweep(what: What, seeds: std::ops::Range<u64>) {
    let flag = if what == What::Log { " --log" } else { "" };
    let failed: Vec<String> = seeds
        .filter_map(|seed| {
            let wrong = run(seed, options(what)).wrong?;
            Some(format!("standin-sim --seed {seed}{flag}: {wrong}"))
        })
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn seeds_that_once_found_something_find_nothing() {
    let known = REGRESSIONS.lines().filter(|line| !line.starts_with('#'));
    for line in known.filter(|line| !line.trim().is_empty()) {
        let (what, seed) = line.split_once(' ').expect("a simulation and a seed");
        let seed: u64 = seed.trim().parse().expect("a seed");
        let what = match what {
            "log" => What::Log,
            "edges" => What::Edges,
            other => panic!("no simulation is called {other}"),
        };
        sweep(what, seed..seed + 1);
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for what in [What::Log, What::Edges] {
        for seed in 0..40 {
            let first = run(seed, options(what));
            let second = run(seed, options(what));
            assert_eq!(first, second, "{what:?}, seed {seed}");
            assert!(
                first.trace.1 > 100,
                "{what:?}, seed {seed}: nothing happened"
            );
        }
    }
}

#[test]
fn the_log_holds_over_seeds_0() {
    sweep(What::Log, 0..600);
}

#[test]
fn the_log_holds_over_seeds_1() {
    sweep(What::Log, 600..1_200);
}

#[test]
fn edges_hold_over_seeds_0() {
    sweep(What::Edges, 0..500);
}

#[test]
fn edges_hold_over_seeds_1() {
    sweep(What::Edges, 500..1_000);
}

/// Those that take few seeds; `standin-sim --planted` looks for all of them.
#[test]
fn planted_bugs_are_found() {
    let quick = [
        "NoSync",
        "ToldBeforeWritten",
        "VoteNotDurable",
        "TruncationNotDurable",
        "DamageIsCut",
        "AckUnread",
        "DiskIsCommitted",
        "FailedSyncForgotten",
        "LogTimeGoesBack",
    ];
    for name in quick {
        let bug = Bug::named(name).expect("a bug of this name");
        assert!(bug.hunt(0, 200).after.is_some(), "{name} was not found");
    }
}
