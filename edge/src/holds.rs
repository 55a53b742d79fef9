//! Holds: one pipelined transaction for everything that is waiting on a connection.
//!
//! A transaction costs the primary much the same whether it holds one payment or ten. So each is begun
//! a *pace* after the one before at the soonest, and what came meanwhile goes together; whoever comes
//! after a quiet moment waits for nothing. One that takes long keeps nobody waiting: the next is begun
//! beside it, as long as there are workers. The queue is bounded; at the bound a request is told so at
//! once and stands in.

use std::sync::Arc;
use std::time::Duration;

use standin_core::answer::Why;
use standin_core::entry::Proposal;
use standin_core::ledger::{Fate, HOLD_ROWS_MAX, HoldReply, Ledger, LedgerError, Retry};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::Metrics;

/// How holds are batched.
#[derive(Clone, Copy, Debug)]
pub struct HoldsConfig {
    /// Transactions under way at once; one connection each.
    pub workers: usize,
    /// Most holds in one transaction, at most [`HOLD_ROWS_MAX`].
    pub rows_max: usize,
    /// Shortest time from the beginning of one transaction to that of the next; also what a hold may
    /// wait longer than it must.
    pub pace: Duration,
    /// Most requests waiting.
    pub waiting_max: usize,
    /// How long one transaction may take before its connection is given up.
    pub transaction_max: Duration,
}

/// Asks the primary for holds.
#[derive(Clone, Debug)]
pub struct Holds {
    queue: mpsc::Sender<Waiting>,
}

struct Waiting {
    proposal: Proposal,
    deadline: Instant,
    reply: oneshot::Sender<Result<HoldReply, LedgerError>>,
}

// === impl Holds ===

impl Holds {
    /// Starts the workers; they end when `stop` is cancelled.
    pub fn start(
        ledger: Arc<dyn Ledger>,
        config: HoldsConfig,
        metrics: Arc<Metrics>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(config.waiting_max.max(1));
        let shared = Arc::new(Mutex::new(Queue {
            waiting,
            next: Instant::now(),
        }));
        for _ in 0..config.workers.max(1) {
            let worker = Worker {
                ledger: Arc::clone(&ledger),
                queue: Arc::clone(&shared),
                rows_max: config.rows_max,
                pace: config.pace,
                transaction_max: config.transaction_max,
                metrics: Arc::clone(&metrics),
            };
            let stop = stop.clone();
            tasks.spawn(async move { worker.run(stop).await });
        }
        Self { queue }
    }

    /// Asks for a hold and waits for the primary's word until `deadline`.
    pub async fn hold(
        &self,
        proposal: Proposal,
        deadline: Instant,
    ) -> Result<HoldReply, LedgerError> {
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting {
            proposal,
            deadline,
            reply,
        };
        self.queue
            .try_send(waiting)
            .map_err(|refused| match refused {
                mpsc::error::TrySendError::Full(_) => LedgerError {
                    fate: Fate::NotDone,
                    retry: Retry::Later,
                    why: Why::Timeout,
                    detail: "the queue of holds is full".to_owned(),
                },
                mpsc::error::TrySendError::Closed(_) => {
                    LedgerError::unreachable("the edge is stopping")
                }
            })?;
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(replied)) => replied,
            Ok(Err(_dropped)) => Err(LedgerError::timeout("the hold was given up")),
            Err(_elapsed) => Err(LedgerError::timeout("the budget for the primary ran out")),
        }
    }
}

/// What workers take from, one at a time.
struct Queue {
    waiting: mpsc::Receiver<Waiting>,
    /// When the next transaction may begin.
    next: Instant,
}

struct Worker {
    ledger: Arc<dyn Ledger>,
    queue: Arc<Mutex<Queue>>,
    rows_max: usize,
    pace: Duration,
    transaction_max: Duration,
    metrics: Arc<Metrics>,
}

// === impl Worker ===

impl Worker {
    async fn run(self, stop: CancellationToken) {
        loop {
            let batch = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                batch = self.next_batch() => batch,
            };
            if batch.is_empty() {
                return;
            }
            self.hold(batch).await;
        }
    }

    /// Everything that waits, or the next to come, when the pace allows it; empty when no more will.
    async fn next_batch(&self) -> Vec<Waiting> {
        let mut queue = self.queue.lock().await;
        let mut batch = Vec::new();
        let Some(first) = queue.waiting.recv().await else {
            return batch;
        };
        batch.push(first);
        sleep_until(queue.next).await;
        let rows_max = self.rows_max.clamp(1, HOLD_ROWS_MAX);
        while batch.len() < rows_max {
            match queue.waiting.try_recv() {
                Ok(next) => batch.push(next),
                Err(_none_now) => break,
            }
        }
        let now = Instant::now();
        queue.next = now.checked_add(self.pace).unwrap_or(now);
        batch
    }

    async fn hold(&self, mut batch: Vec<Waiting>) {
        let now = Instant::now();
        // Expired work is dropped before it has effects, not after.
        batch.retain(|waiting| waiting.deadline > now && !waiting.reply.is_closed());
        if batch.is_empty() {
            return;
        }
        let (proposals, replies): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|waiting| (waiting.proposal, waiting.reply))
            .unzip();
        let size = proposals.len();
        let outcome = tokio::time::timeout(self.transaction_max, self.ledger.hold(proposals)).await;
        self.metrics.held(size, now.elapsed());
        let outcome =
            outcome.unwrap_or_else(|_| Err(LedgerError::timeout("the primary is silent")));
        match outcome {
            Ok(words) => {
                for (reply, word) in replies.into_iter().zip(words) {
                    // A requester that gave up meanwhile left a hold: harmless, it is not an answer.
                    drop(reply.send(Ok(word)));
                }
            }
            Err(error) => {
                for reply in replies {
                    drop(reply.send(Err(error.clone())));
                }
            }
        }
    }
}
