//! What follows an answer: the approval is written through to the trip cache.
//!
//! Nobody waits for it. The queue is bounded; at the bound the write is dropped and counted, since
//! the log's applied state and the primary count the approval anyway.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use standin_core::answer::Verdict;
use standin_core::clock::{Clock, Timestamp};
use standin_core::id::TripId;
use standin_core::trip::Approval;
use standin_core::trip_cache::TripCache;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::path::Given;

/// Most write-throughs waiting.
const WAITING_MAX: usize = 4_096;
/// How long one write may take.
const WRITE_MAX: Duration = Duration::from_millis(200);
/// Writes under way at once.
const WRITERS: usize = 4;

/// Hands answers to the write-through.
#[derive(Clone)]
pub struct Afterwards {
    queue: mpsc::Sender<(TripId, Approval)>,
    clock: Arc<dyn Clock>,
    dropped: Arc<AtomicU64>,
}

// === impl Afterwards ===

impl Afterwards {
    /// Starts the writers; they end when `stop` is cancelled.
    pub fn start(
        cache: Arc<dyn TripCache>,
        clock: Arc<dyn Clock>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        let waiting = Arc::new(tokio::sync::Mutex::new(waiting));
        for _ in 0..WRITERS {
            let (waiting, cache, stop) = (Arc::clone(&waiting), Arc::clone(&cache), stop.clone());
            tasks.spawn(async move {
                loop {
                    let next = tokio::select! {
                        biased;
                        () = stop.cancelled() => return,
                        next = async { waiting.lock().await.recv().await } => next,
                    };
                    let Some((trip, approval)) = next else { return };
                    write(cache.as_ref(), trip, approval).await;
                }
            });
        }
        Self {
            queue,
            clock,
            dropped: Arc::default(),
        }
    }

    /// Hears of an answer.
    pub fn answered(&self, given: &Given) {
        let answer = given.answer();
        if given.is_replayed() || answer.verdict != Verdict::Approved {
            return;
        }
        let Some(trip) = answer.trip else { return };
        if answer.amount.minor() == 0 {
            // A verification spends nothing.
            return;
        }
        let at: Timestamp = self.clock.now();
        let approval = Approval {
            transaction_id: answer.transaction_id,
            amount: answer.amount.minor(),
            at,
        };
        self.counts(trip, approval);
    }

    /// Hears what an approval counts from now on.
    pub fn counts(&self, trip: TripId, approval: Approval) {
        if self.queue.try_send((trip, approval)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Approvals that were not written through because too many waited.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

async fn write(cache: &dyn TripCache, trip: TripId, approval: Approval) {
    match tokio::time::timeout(WRITE_MAX, cache.approve(trip, approval)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "approval was not written through"),
        Err(_elapsed) => tracing::debug!("approval was not written through in time"),
    }
}
