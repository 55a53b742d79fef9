//! The one thread that writes.
//!
//! It takes everything that is queued, writes it as one frame, syncs once, applies it in order, and
//! only then tells the waiters: the running write is the batching window, there is no timer. One
//! write is under way at a time, which is what makes the torn-tail rule exact. After a failed write
//! or sync the log is poisoned; nothing is tried again.

use std::io;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;

use crate::files::locked;
use crate::format::{FrameKind, record_bytes};
use crate::shared::{Pending, Phase, Shared};
use crate::state::State;
use crate::tape::{Draft, Room, Tape};
use crate::time::LogClock;
use crate::wal::{Applied, Committed, ProposeError, StateMachine, Why};

mod take;

use take::Taken;

/// A group of one keeper never has an election.
const ONLY_TERM: u64 = 1;

pub(crate) struct Appender<M: StateMachine> {
    pub(crate) shared: Arc<Shared<M>>,
    tape: Tape,
    clock: LogClock,
}

/// The disk failed; the log must not be written again.
#[derive(Debug)]
pub(crate) struct Poison;

/// Poisons the log if the thread ends in any way but its last line.
struct Watch<M: StateMachine>(Option<Arc<Shared<M>>>);

impl<M: StateMachine> Drop for Watch<M> {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            shared.poison();
        }
    }
}

// === impl Appender ===

impl<M: StateMachine> Appender<M> {
    pub(crate) fn new(shared: Arc<Shared<M>>, tape: Tape, log_time_ms: u64) -> Self {
        let clock = LogClock::new(log_time_ms, shared.time.as_ref());
        Self {
            shared,
            tape,
            clock,
        }
    }

    /// The life of the disk thread.
    pub(crate) fn run(mut self) {
        let mut watch = Watch(Some(Arc::clone(&self.shared)));
        while self.serve(self.take()) {}
        watch.0 = None;
    }

    /// The same life without a thread, on a simulated disk.
    pub(crate) async fn run_here(mut self) {
        let mut watch = Watch(Some(Arc::clone(&self.shared)));
        loop {
            let taken = self.take_here().await;
            tokio::time::sleep(self.shared.dir.pace().unwrap_or_default()).await;
            if !self.serve(taken) {
                break;
            }
        }
        watch.0 = None;
    }

    /// Does what there is to do, and says whether there is more to come.
    fn serve(&mut self, taken: Taken<M::Outcome>) -> bool {
        let ended = match taken {
            Taken::Batch(batch) => match self.commit(batch) {
                Ok(()) => {
                    self.tape.think_ahead();
                    return true;
                }
                Err(Poison) => Err(Poison),
            },
            Taken::Idle => match self.mark() {
                Ok(()) => return true,
                Err(Poison) => Err(Poison),
            },
            Taken::Closed if self.shared.is_poisoned() => Err(Poison),
            Taken::Closed => self.finish(),
        };
        if let Err(Poison) = ended {
            self.shared.poison();
        }
        false
    }

    /// Writes one batch, syncs it, applies it, and tells its waiters.
    pub(crate) fn commit(&mut self, mut batch: Vec<Pending<M::Outcome>>) -> Result<(), Poison> {
        let room = match self.tape.make_room(payload_bytes(&batch)) {
            Ok(room) => room,
            Err(error) => return Err(self.fail(&error, batch)),
        };
        if let Room::No = room {
            let refused = self.split_off_what_does_not_fit(&mut batch);
            let mut counters = locked(&self.shared.counters);
            let count = u64::try_from(refused.len()).unwrap_or(u64::MAX);
            counters.refused_full = counters.refused_full.saturating_add(count);
            drop(counters);
            for pending in refused {
                drop(pending.done.send(Err(ProposeError::Full)));
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        let log_time_ms = self.clock.stamp(self.shared.time.as_ref());
        let index = self.tape.next_index();
        if let Err(error) = self.write(&batch, index, log_time_ms) {
            return Err(self.fail(&error, batch));
        }
        if self.shared.is_poisoned() {
            let error = io::Error::other("poisoned while a batch was being written");
            return Err(self.fail(&error, batch));
        }
        self.publish(batch, index, log_time_ms);
        Ok(())
    }

    /// Writes a mark behind the last batch, so that the batch cannot be taken for torn later.
    pub(crate) fn mark(&mut self) -> Result<(), Poison> {
        self.tape
            .mark()
            .map_err(|error| self.fail(&error, Vec::new()))
    }

    /// Marks the log as cleanly stopped.
    pub(crate) fn finish(&mut self) -> Result<(), Poison> {
        let mut slots = locked(&self.shared.slots);
        if self.shared.is_poisoned() {
            return Err(Poison);
        }
        let clean_at = Some(self.tape.next_index().saturating_sub(1));
        let state = State {
            clean_at,
            ..slots.state()
        };
        if let Err(error) = slots.store(state) {
            tracing::error!(%error, "marking the log as stopped failed");
            return Err(Poison);
        }
        // Still under the lock of the slots: whoever changes them next sees the phase.
        self.shared
            .position
            .send_modify(|position| position.phase = Phase::Stopped);
        Ok(())
    }

    /// What `think_ahead` does, to its end.
    #[cfg(test)]
    pub(crate) fn wait_for_spare(&mut self) {
        self.tape.wait_for_spare();
    }

    /// Takes the proposals from the first one that does not fit out of the batch.
    fn split_off_what_does_not_fit(
        &self,
        batch: &mut Vec<Pending<M::Outcome>>,
    ) -> Vec<Pending<M::Outcome>> {
        let mut payload = 0_usize;
        let fitting = batch
            .iter()
            .take_while(|pending| {
                payload = payload.saturating_add(record_bytes(pending.proposal.len()));
                self.tape.fits(0, payload)
            })
            .count();
        batch.split_off(fitting)
    }

    fn write(
        &mut self,
        batch: &[Pending<M::Outcome>],
        index: u64,
        log_time_ms: u64,
    ) -> io::Result<()> {
        let records: Vec<Bytes> = batch
            .iter()
            .map(|pending| pending.proposal.clone())
            .collect();
        self.tape.write(&[Draft {
            kind: FrameKind::Proposals,
            term: ONLY_TERM,
            index,
            log_time_ms,
            // With one keeper, durable is committed.
            committed: index.saturating_sub(1),
            records: &records,
        }])
    }

    /// Applies a durable batch, moves the position, and wakes everyone.
    fn publish(&mut self, batch: Vec<Pending<M::Outcome>>, index: u64, log_time_ms: u64) {
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut machine = self
            .shared
            .machine
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        for (slot, pending) in (0_u32..).zip(&batch) {
            let at = Applied {
                term: ONLY_TERM,
                index,
                slot,
                log_time_ms,
            };
            outcomes.push((at, machine.apply(at, &pending.proposal)));
        }
        drop(machine);
        self.count(&batch);
        self.shared.position.send_modify(|position| {
            position.index = index;
            position.term = ONLY_TERM;
            position.log_time_ms = log_time_ms;
        });
        for (pending, (at, outcome)) in batch.into_iter().zip(outcomes) {
            // A waiter whose deadline passed has gone; its entry stands all the same.
            drop(pending.done.send(Ok(Committed::new(at, outcome))));
        }
    }

    fn count(&self, batch: &[Pending<M::Outcome>]) {
        let now_us = self.shared.time.monotonic_us();
        let mut counters = locked(&self.shared.counters);
        counters.batches = counters.batches.saturating_add(1);
        for pending in batch {
            let bytes = u64::try_from(pending.proposal.len()).unwrap_or(u64::MAX);
            counters.proposals = counters.proposals.saturating_add(1);
            counters.proposal_bytes = counters.proposal_bytes.saturating_add(bytes);
            counters
                .append_latency
                .record(now_us.saturating_sub(pending.queued_us));
        }
    }

    /// The end of the log in this process: the flag first, then everyone who waits.
    fn fail(&self, error: &io::Error, batch: Vec<Pending<M::Outcome>>) -> Poison {
        tracing::error!(%error, "the log's disk failed; the fate of what is queued is unknown");
        self.shared.poison();
        for pending in batch {
            drop(
                pending
                    .done
                    .send(Err(ProposeError::Unknown { why: Why::Poisoned })),
            );
        }
        Poison
    }
}

fn payload_bytes<O>(batch: &[Pending<O>]) -> usize {
    let record = |pending: &Pending<O>| record_bytes(pending.proposal.len());
    batch.iter().map(record).fold(0, usize::saturating_add)
}
