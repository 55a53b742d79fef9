//! What the platform counts, for `/metrics` and status pages. Reading them stops nothing.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only the platform changes.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

/// The platform's counters since the process began; `*_now` are levels.
#[derive(Debug, Default)]
pub struct Counters {
    /// Events acknowledged to a client.
    pub appended: Count,
    /// Events that were taken from the queue and applied to the trip cache (or had nothing to say
    /// to it).
    pub fed: Count,
    /// Events that the ledger has.
    pub booked: Count,
    /// Events that name a trip or a line that is not there, or came too late.
    pub refused: Count,
    /// Events seen before: fed once, counted here on each repeat.
    pub duplicates: Count,
    /// Events that passed the cache by, because it did not hold the trip and the ledger was away;
    /// the cache follows once they are booked.
    pub passed_by: Count,
    /// Tries of the cache, the ledger or the queue that failed and are tried again.
    pub retries: Count,
    /// Events fed and not yet booked.
    pub backlog_now: Count,
    /// Trips whose cache copy is behind the ledger and waits for a repair.
    pub repairs_now: Count,
    /// Trips repaired.
    pub repaired: Count,
    /// Repairs that were not remembered because too many were waiting.
    pub repairs_dropped: Count,
    /// Heartbeats that the cache took.
    pub beats: Count,
    /// Heartbeats that it did not take.
    pub beats_missed: Count,
    /// Requests refused for their signature.
    pub unauthenticated: Count,
}

// === impl Count ===

impl Count {
    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, more: usize) {
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, less: usize) {
        let less = u64::try_from(less).unwrap_or(u64::MAX);
        // Two tasks meet here; a level that would go below zero stays at zero.
        let down = |now: u64| Some(now.saturating_sub(less));
        let _before = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, down);
    }

    pub(crate) fn set(&self, now: usize) {
        self.0
            .store(u64::try_from(now).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
