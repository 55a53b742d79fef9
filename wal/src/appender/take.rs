//! Waiting for work.

use std::sync::PoisonError;
use std::time::Duration;

use super::Appender;
use crate::files::locked;
use crate::shared::Pending;
use crate::wal::StateMachine;

/// What there is to do.
pub(super) enum Taken<O> {
    Batch(Vec<Pending<O>>),
    Idle,
    Closed,
}

impl<M: StateMachine> Appender<M> {
    /// Waits for work: all that is queued, inside the caps of a batch.
    pub(super) fn take(&self) -> Taken<M::Outcome> {
        let mut queue = locked(&self.shared.queue);
        loop {
            if !queue.items.is_empty() {
                let config = &self.shared.config;
                return Taken::Batch(
                    queue.take(config.batch_bytes_max, config.batch_proposals_max),
                );
            }
            if queue.closed.is_some() {
                return Taken::Closed;
            }
            queue.idle = true;
            let (guard, timed_out) = match self.idle_wait() {
                Some(wait) => {
                    let waited = self.shared.ready.wait_timeout(queue, wait);
                    let (guard, result) = waited.unwrap_or_else(PoisonError::into_inner);
                    (guard, result.timed_out())
                }
                None => {
                    let waited = self.shared.ready.wait(queue);
                    (waited.unwrap_or_else(PoisonError::into_inner), false)
                }
            };
            queue = guard;
            queue.idle = false;
            if timed_out && queue.items.is_empty() && queue.closed.is_none() {
                return Taken::Idle;
            }
        }
    }

    /// The same without a thread.
    pub(super) async fn take_here(&mut self) -> Taken<M::Outcome> {
        loop {
            {
                let mut queue = locked(&self.shared.queue);
                if !queue.items.is_empty() {
                    let config = &self.shared.config;
                    return Taken::Batch(
                        queue.take(config.batch_bytes_max, config.batch_proposals_max),
                    );
                }
                if queue.closed.is_some() {
                    return Taken::Closed;
                }
                queue.idle = true;
            }
            let ready = self.shared.ready_here.notified();
            match self.idle_wait() {
                None => ready.await,
                Some(wait) => {
                    if tokio::time::timeout(wait, ready).await.is_err() {
                        return Taken::Idle;
                    }
                }
            }
        }
    }

    fn idle_wait(&self) -> Option<Duration> {
        self.shared
            .config
            .mark_after
            .filter(|_| self.tape.wants_mark())
    }
}
