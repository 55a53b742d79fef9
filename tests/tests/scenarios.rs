//! Faults on real processes. Each test is named by its row of the fault matrix and a sentence; it
//! prints what it injected and fails when the injection did not happen.

#![allow(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::large_futures,
    clippy::too_many_lines,
    reason = "test code"
)]

mod abuse;
mod anycast;
mod bank_side;
mod commit_cut;
mod console;
mod crash;
mod deployed_drills;
mod disks;
mod door;
mod failover;
mod integrators;
mod keepers;
mod lifecycle;
mod operators;
mod partitions;
mod platforms;
mod policies;
mod primary;
mod reconciles;
mod secrets;
mod trip_cache;

use std::time::Duration;

use standin_tests::harness::Programs;

/// The programs under test.
const PROGRAMS: Programs = Programs {
    edge: env!("CARGO_BIN_EXE_standin-edge-under-test"),
    standin: env!("CARGO_BIN_EXE_standin-under-test"),
};

/// For things that take a moment on an idle machine.
const SOON: Duration = Duration::from_secs(30);

/// The seed of this run: `STANDIN_TEST_SEED`, else a new one. Printed, so that it can be replayed.
fn seed() -> u64 {
    let seed = match std::env::var("STANDIN_TEST_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => uuid::Uuid::new_v4().as_u128() as u64,
    };
    println!("STANDIN_TEST_SEED={seed}");
    seed
}

/// SplitMix64: the same numbers from the same seed, everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
