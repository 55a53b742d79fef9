//! What the handle and the disk thread have in common: the queue in, the tail out.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot, watch};

use crate::files::{Files, locked};
use crate::format::record_bytes;
use crate::sync::atomic::Ordering;
use crate::sync::{Condvar, Mutex, RwLock};
use crate::wal::{Answer, ProposeError, StateMachine, Why};

/// A proposal and who waits for it.
pub(crate) struct Pending<O> {
    pub(crate) proposal: Bytes,
    pub(crate) done: oneshot::Sender<Answer<O>>,
    pub(crate) queued_us: u64,
}

pub(crate) struct Queue<O> {
    pub(crate) items: VecDeque<Pending<O>>,
    pub(crate) bytes: usize,
    /// Set once; after it nothing is accepted.
    pub(crate) closed: Option<Why>,
    /// The disk thread waits for `ready`. Kept so that a busy disk costs proposers no system call.
    pub(crate) idle: bool,
}

/// Where the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// Last batch that is durable and applied.
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) log_time_ms: u64,
    pub(crate) phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Running,
    Poisoned,
    Stopped,
}

impl Phase {
    pub(crate) fn is_running(self) -> bool {
        self == Self::Running
    }
}

pub(crate) struct Shared<M: StateMachine> {
    pub(crate) files: Arc<Files>,
    pub(crate) queue: Mutex<Queue<M::Outcome>>,
    pub(crate) ready: Condvar,
    /// The same for an appender without a thread.
    pub(crate) ready_here: Notify,
    pub(crate) machine: RwLock<M>,
    pub(crate) position: watch::Sender<Position>,
}

impl<M: StateMachine> std::ops::Deref for Shared<M> {
    type Target = Files;
    fn deref(&self) -> &Files {
        &self.files
    }
}

impl<O> Queue<O> {
    /// Takes proposals from the front while they fit one batch; at least one.
    pub(crate) fn take(&mut self, bytes_max: usize, proposals_max: usize) -> Vec<Pending<O>> {
        let mut bytes = 0_usize;
        let count = self
            .items
            .iter()
            .take(proposals_max)
            .take_while(|pending| {
                bytes = bytes.saturating_add(record_bytes(pending.proposal.len()));
                bytes <= bytes_max
            })
            .count()
            .max(1)
            .min(self.items.len());
        let batch: Vec<_> = self.items.drain(..count).collect();
        let taken = batch.iter().map(|pending| pending.proposal.len()).sum();
        self.bytes = self.bytes.saturating_sub(taken);
        batch
    }
}

impl<M: StateMachine> Shared<M> {
    pub(crate) fn is_poisoned(&self) -> bool {
        self.position.borrow().phase == Phase::Poisoned
    }

    /// Ends the log because the disk (or the disk thread) failed: first the flag, then the waiters.
    pub(crate) fn poison(&self) {
        let queued = {
            let mut queue = locked(&self.queue);
            queue.closed = Some(Why::Poisoned);
            queue.bytes = 0;
            std::mem::take(&mut queue.items)
        };
        self.position.send_if_modified(|position| {
            let first = position.phase == Phase::Running;
            if first {
                position.phase = Phase::Poisoned;
            }
            first
        });
        self.wake();
        for pending in queued {
            // A waiter whose deadline passed has gone; there is nobody to tell.
            drop(
                pending
                    .done
                    .send(Err(ProposeError::Unknown { why: Why::Poisoned })),
            );
        }
    }

    /// Whether the disk has held a write for longer than may be.
    pub(crate) fn is_stalled(&self, now_us: u64) -> bool {
        let since = self.writing_since.load(Ordering::Relaxed);
        let took_us = u128::from(now_us.saturating_add(1).saturating_sub(since));
        since != 0 && took_us > self.config.stall_max.as_micros()
    }

    /// Stops accepting; what is queued will still be finished.
    pub(crate) fn close(&self) {
        let mut queue = locked(&self.queue);
        queue.closed.get_or_insert(Why::Stopped);
        drop(queue);
        self.wake();
    }

    /// There is news for the appender.
    pub(crate) fn wake(&self) {
        self.ready.notify_all();
        self.ready_here.notify_one();
    }
}
