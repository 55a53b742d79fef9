//! The deterministic simulator: real logs, the real state machine and whole edges on one thread, on
//! simulated disks, networks and clocks, with everything drawn from one seed.
//!
//! Time is tokio's paused clock: it moves on when nothing can run. The same seed gives the same trace.

use std::cell::RefCell;
use std::sync::{Arc, Once};

use standin_wal::testing::{bring_witness, seed_elections};

pub mod books;
pub mod disk;
pub mod edge;
pub mod faults;
pub mod ledger;
pub mod log;
pub mod net;
pub mod oracle;
pub mod planted;
pub mod region;
pub mod run;
pub mod scene;
pub mod till;
pub mod well;
pub mod world;

use oracle::Counts;
use planted::Bug;
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
    /// What is simulated.
    pub what: What,
    /// A bug to be found.
    pub planted: Option<Bug>,
}

/// What is simulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum What {
    /// The log alone, with a small state machine.
    #[default]
    Log,
    /// Whole edges with banks, a primary that fails over, and a trip cache.
    Edges,
}

thread_local! {
    static SCENE: RefCell<Option<Arc<Scene>>> = const { RefCell::new(None) };
}

/// A panic in a simulation is one more thing that must not be: tokio and the library catch it.
fn hear_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let scene = SCENE.with(|scene| scene.borrow().clone());
            match scene {
                Some(scene) => scene.wrong(|| format!("a panic: {panic}")),
                None => before(panic),
            }
        }));
    });
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
    hear_panics();
    seed_elections(Some(seed));
    Bug::plant(options.planted);
    let report = runtime.block_on(async {
        let scene = Arc::new(Scene::new(seed, options.told));
        SCENE.set(Some(Arc::clone(&scene)));
        let counts = match options.what {
            What::Log => log::simulate(Arc::clone(&scene)).await.close(),
            What::Edges => region::simulate(Arc::clone(&scene)).await.close(),
        };
        Report {
            seed,
            wrong: scene.verdict(),
            trace: scene.hash(),
            counts,
            simulated_ms: scene.now_ms(),
            lines: scene.lines(),
        }
    });
    SCENE.set(None);
    bring_witness(None);
    Bug::plant(None);
    seed_elections(None);
    report
}
