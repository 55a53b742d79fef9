//! The deterministic simulator: real logs, the real state machine and whole edges on one thread, on
//! simulated disks, networks and clocks, with everything drawn from one seed.
//!
//! Time is tokio's paused clock: it moves on when nothing can run. The same seed gives the same trace.

use std::sync::Arc;

use standin_wal::testing::{Planted, plant, seed_elections};

pub mod disk;
pub mod faults;
pub mod log;
pub mod net;
pub mod oracle;
pub mod run;
pub mod scene;
pub mod till;
pub mod world;

use oracle::Counts;
use scene::Scene;

/// What one seed came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The first thing that was wrong.
    pub wrong: Option<String>,
    /// The trace as one number, and its length.
    pub trace: (u64, u64),
    /// What happened.
    pub counts: Counts,
    /// Simulated milliseconds.
    pub simulated_ms: u64,
    /// The trace in words, if it was asked for.
    pub lines: Vec<String>,
}

/// How a seed is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Keep the trace in words.
    pub told: bool,
    /// A bug to be found.
    pub planted: Option<Planted>,
}

/// Runs one seed.
///
/// # Panics
/// When no runtime can be made.
pub fn run(seed: u64, options: Options) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
    seed_elections(Some(seed));
    plant(options.planted);
    let report = runtime.block_on(async {
        let scene = Arc::new(Scene::new(seed, options.told));
        let world = log::simulate(Arc::clone(&scene)).await;
        Report {
            seed,
            wrong: scene.verdict(),
            trace: scene.hash(),
            counts: world.oracle.counts(),
            simulated_ms: scene.now_ms(),
            lines: scene.lines(),
        }
    });
    plant(None);
    seed_elections(None);
    report
}
