//! One run of a node: from the start of its process to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use standin_wal::{Group, Replicable, TimeSource};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A run of a node.
pub struct Run<M: Replicable> {
    /// Whether it has ended.
    pub gone: Arc<Gone>,
    held: Arc<dyn Holds<M>>,
}

/// What holds a node's log.
pub trait Holds<M: Replicable>: Send + Sync {
    /// The log.
    fn group(&self) -> &Group<M>;
}

impl<M: Replicable> Holds<M> for Group<M> {
    fn group(&self) -> &Group<M> {
        self
    }
}

/// Whether a run has ended. What is left of it then changes nothing any more: its disk, its network
/// and its clients do not serve it.
#[derive(Debug)]
pub struct Gone {
    /// Whose run.
    pub node: u64,
    /// Which one.
    pub number: u64,
    /// Cancelled at its end.
    pub token: CancellationToken,
    /// Cancelled when its process has to end.
    pub failed: CancellationToken,
}

/// A node's clocks: the wall clock may be wrong and may jump, the monotonic one only goes on.
#[derive(Clone, Debug)]
pub struct Clocks {
    began: Instant,
    wall_ms: Arc<AtomicI64>,
}

impl<M: Replicable> Run<M> {
    /// A run whose log is held so.
    pub fn new(gone: Arc<Gone>, held: Arc<dyn Holds<M>>) -> Self {
        Self { gone, held }
    }

    /// Its log.
    pub fn group(&self) -> &Group<M> {
        self.held.group()
    }

    /// Which node it is.
    pub fn node(&self) -> u64 {
        self.gone.node
    }
}

// === impl Clocks ===

impl Clocks {
    /// Clocks of which the wall clock is off by so much.
    pub fn new(off_ms: i64) -> Self {
        Self {
            began: Instant::now(),
            wall_ms: Arc::new(AtomicI64::new(1_700_000_000_000_i64.saturating_add(off_ms))),
        }
    }

    /// The wall clock jumps.
    pub fn jump(&self, by_ms: i64) {
        self.wall_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// What the wall clock shows.
    pub fn wall(&self) -> i64 {
        let passed = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.wall_ms.load(Ordering::Relaxed).saturating_add(passed)
    }
}

impl TimeSource for Clocks {
    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn wall_ms(&self) -> u64 {
        u64::try_from(self.wall()).unwrap_or(0)
    }
}
