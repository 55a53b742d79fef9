//! The files of an open log, as everyone who touches them shares them.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::SegmentDir;
use crate::places::Places;
use crate::segment::Segment;
use crate::state::{Identity, Slots};
use crate::status::Counters;
use crate::time::TimeSource;
use crate::wal::Config;

/// Segments and the small files beside them.
pub(crate) struct Files {
    pub(crate) config: Config,
    pub(crate) identity: Identity,
    pub(crate) dir: Arc<dyn SegmentDir>,
    pub(crate) time: Box<dyn TimeSource>,
    /// In order; the last one is appended to.
    pub(crate) segments: Mutex<Vec<Arc<Segment>>>,
    pub(crate) places: Mutex<Places>,
    pub(crate) slots: Mutex<Slots>,
    /// A copy of what the slots say, so that appending never waits for a trim.
    pub(crate) trim_index: AtomicU64,
    /// When the write under way began, by the monotonic clock in microseconds plus 1; 0: none is.
    pub(crate) writing_since: AtomicU64,
    pub(crate) counters: Mutex<Counters>,
    pub(crate) torn_tails_cut: u64,
}

/// Takes a lock whatever became of its last holder: a panic of the disk thread poisons the log
/// itself, which is what tells everyone.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Files ===

impl Files {
    pub(crate) fn bytes_used(&self) -> u64 {
        let bytes = |segment: &Arc<Segment>| segment.header.segment_bytes;
        locked(&self.segments)
            .iter()
            .map(bytes)
            .fold(0, u64::saturating_add)
    }

    /// Whether so many more bytes are within the space budget.
    pub(crate) fn may_grow_by(&self, bytes: u64) -> bool {
        self.bytes_used().saturating_add(bytes) <= self.config.budget_bytes
    }
}
