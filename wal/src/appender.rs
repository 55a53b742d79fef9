//! The one thread that writes.
//!
//! It takes everything that is queued, writes it as one frame, syncs once, applies it in order, and
//! only then tells the waiters: the running write is the batching window, there is no timer. One
//! write is under way at a time, which is what makes the torn-tail rule exact. After a failed write
//! or sync the log is poisoned; nothing is tried again.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crate::format::{
    BLOCK, FrameMeta, SegmentHeader, Trailer, TrailerKind, encode_frame, encode_mark, frame_bytes,
    record_bytes,
};
use crate::recovery::{End, salt_of};
use crate::segment::Segment;
use crate::shared::{Pending, Phase, Shared, locked};
use crate::spare::Spare;
use crate::state::State;
use crate::status::SLOW_SYNC_US;
use crate::time::LogClock;
use crate::wal::{Applied, Committed, ProposeError, StateMachine, Why};

mod take;

use take::Taken;

/// A group of one keeper never has an election.
const ONLY_TERM: u64 = 1;

pub(crate) struct Appender<M: StateMachine> {
    pub(crate) shared: Arc<Shared<M>>,
    active: Arc<Segment>,
    offset: u64,
    writes: u64,
    next_index: u64,
    clock: LogClock,
    buffer: Vec<u8>,
    /// A batch was written since the last mark.
    unmarked: bool,
    random: Random,
    spare: Spare,
    /// Held until the thread ends.
    _lock: Box<dyn Send>,
}

/// Random bits for salts.
pub(crate) type Random = Box<dyn FnMut() -> u128 + Send>;

/// The disk failed; the log must not be written again.
#[derive(Debug)]
pub(crate) struct Poison;

/// Whether the active segment has room for a frame now.
enum Room {
    Yes,
    /// The space budget, or the disk, is full.
    No,
}

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
    pub(crate) fn new(
        shared: Arc<Shared<M>>,
        active: Arc<Segment>,
        end: End,
        random: Random,
        lock: Box<dyn Send>,
    ) -> Self {
        let spare = Spare::new(Arc::clone(&shared.dir));
        let clock = LogClock::new(end.log_time_ms, shared.time.as_ref());
        Self {
            shared,
            active,
            offset: end.offset,
            writes: end.writes,
            next_index: end.next_index,
            clock,
            buffer: Vec::new(),
            unmarked: false,
            random,
            spare,
            _lock: lock,
        }
    }

    /// The life of the disk thread.
    pub(crate) fn run(mut self) {
        let mut watch = Watch(Some(Arc::clone(&self.shared)));
        let ended = loop {
            match self.take() {
                Taken::Batch(batch) => {
                    if self.commit(batch).is_err() {
                        break Err(Poison);
                    }
                    self.think_ahead();
                }
                Taken::Idle => {
                    if self.mark().is_err() {
                        break Err(Poison);
                    }
                }
                Taken::Closed if self.shared.is_poisoned() => break Err(Poison),
                Taken::Closed => break self.finish(),
            }
        };
        if let Err(Poison) = ended {
            self.shared.poison();
        }
        watch.0 = None;
    }

    /// Writes one batch, syncs it, applies it, and tells its waiters.
    pub(crate) fn commit(&mut self, mut batch: Vec<Pending<M::Outcome>>) -> Result<(), Poison> {
        let room = match self.make_room(&batch) {
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
        if let Err(error) = self.write(&batch, log_time_ms) {
            return Err(self.fail(&error, batch));
        }
        if self.shared.is_poisoned() {
            let error = io::Error::other("poisoned while a batch was being written");
            return Err(self.fail(&error, batch));
        }
        self.publish(batch, log_time_ms);
        Ok(())
    }

    /// Writes a mark behind the last batch, so that the batch cannot be taken for torn later.
    pub(crate) fn mark(&mut self) -> Result<(), Poison> {
        let end = self.offset.saturating_add(BLOCK);
        if !self.unmarked || end > self.active.header.segment_bytes {
            return Ok(());
        }
        let trailer = self.trailer(TrailerKind::Mark);
        let block = encode_mark(self.active.header.salt, self.offset, &trailer);
        let written = self
            .active
            .file
            .write_at(&block, self.offset)
            .and_then(|()| self.active.file.sync_data());
        if let Err(error) = written {
            return Err(self.fail(&error, Vec::new()));
        }
        self.offset = end;
        self.writes = trailer.write;
        self.unmarked = false;
        let mut counters = locked(&self.shared.counters);
        counters.marks = counters.marks.saturating_add(1);
        Ok(())
    }

    /// Marks the log as cleanly stopped.
    pub(crate) fn finish(&mut self) -> Result<(), Poison> {
        let mut slots = locked(&self.shared.slots);
        if self.shared.is_poisoned() {
            return Err(Poison);
        }
        let clean_at = Some(self.next_index.saturating_sub(1));
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

    /// Begins to make the next segment once half of this one is used.
    pub(crate) fn think_ahead(&mut self) {
        let half = self.active.header.segment_bytes.checked_div(2).unwrap_or(0);
        let bytes = self.shared.config.segment_bytes;
        if self.offset > half && self.may_grow_by(bytes) {
            self.spare.begin(bytes);
        }
    }

    /// What `think_ahead` does, to its end.
    #[cfg(test)]
    pub(crate) fn wait_for_spare(&mut self) {
        self.think_ahead();
        self.spare.wait();
    }

    fn may_grow_by(&self, bytes: u64) -> bool {
        self.shared.bytes_used().saturating_add(bytes) <= self.shared.config.budget_bytes
    }

    fn trailer(&self, kind: TrailerKind) -> Trailer {
        Trailer {
            kind,
            write: self.writes.saturating_add(1),
            durable_before: self.next_index.saturating_sub(1),
        }
    }

    /// Sees to it that the batch fits into the active segment, by going to a new one if need be.
    fn make_room(&mut self, batch: &[Pending<M::Outcome>]) -> io::Result<Room> {
        if self.fits(payload_bytes(batch)) {
            return Ok(Room::Yes);
        }
        if !self.may_grow_by(self.shared.config.segment_bytes) {
            return Ok(Room::No);
        }
        match self.rotate() {
            Ok(()) => Ok(Room::Yes),
            // Nothing was written to the log: the old segment is whole, the new one has no name.
            Err(error) if is_full(&error) => {
                tracing::error!(%error, "the disk is full inside the log's budget");
                Ok(Room::No)
            }
            Err(error) => Err(error),
        }
    }

    fn fits(&self, payload: usize) -> bool {
        frame_bytes(payload)
            .and_then(|bytes| u64::try_from(bytes).ok())
            .and_then(|bytes| self.offset.checked_add(bytes))
            .is_some_and(|end| end <= self.active.header.segment_bytes)
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
                self.fits(payload)
            })
            .count();
        batch.split_off(fitting)
    }

    /// Goes to a new segment. Everything in the old one is durable already.
    fn rotate(&mut self) -> io::Result<()> {
        let shared = &self.shared;
        let header = SegmentHeader {
            segment_bytes: shared.config.segment_bytes,
            number: self.active.header.number.saturating_add(1),
            first_index: self.next_index,
            salt: salt_of((self.random)()),
            ..self.active.header.clone()
        };
        let number = header.number;
        let segment = Arc::new(self.spare.make_segment(header)?);
        let mut slots = locked(&shared.slots);
        let state = State {
            last_segment: number,
            ..slots.state()
        };
        slots.store(state)?;
        drop(slots);
        locked(&shared.segments).push(Arc::clone(&segment));
        let mut counters = locked(&shared.counters);
        counters.rotations = counters.rotations.saturating_add(1);
        drop(counters);
        self.active = segment;
        self.offset = BLOCK;
        self.writes = 0;
        Ok(())
    }

    fn write(&mut self, batch: &[Pending<M::Outcome>], log_time_ms: u64) -> io::Result<()> {
        let trailer = self.trailer(TrailerKind::Frame);
        let trim_hint = self.shared.trim_index.load(Ordering::Relaxed);
        let index = self.next_index;
        let meta = FrameMeta {
            term: ONLY_TERM,
            index,
            log_time_ms,
            trim_hint,
            trailer,
        };
        let salt = self.active.header.salt;
        let proposals = batch.iter().map(|pending| pending.proposal.as_ref());
        encode_frame(&mut self.buffer, salt, self.offset, &meta, proposals)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let bytes = u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
        let end = self.offset.saturating_add(bytes);
        assert!(
            end <= self.active.header.segment_bytes && bytes % BLOCK == 0,
            "a frame must be whole blocks inside its segment"
        );
        let started_us = self.shared.time.monotonic_us();
        self.shared
            .writing_since
            .store(started_us.saturating_add(1), Ordering::Relaxed);
        self.active.file.write_at(&self.buffer, self.offset)?;
        self.active.file.sync_data()?;
        self.shared.writing_since.store(0, Ordering::Relaxed);
        let took_us = self.shared.time.monotonic_us().saturating_sub(started_us);
        self.active.note(index, self.offset);
        self.offset = end;
        self.writes = trailer.write;
        self.unmarked = true;
        let mut counters = locked(&self.shared.counters);
        counters.syncs = counters.syncs.saturating_add(1);
        counters.written_bytes = counters.written_bytes.saturating_add(bytes);
        counters.sync_latency.record(took_us);
        if took_us > SLOW_SYNC_US {
            counters.slow_syncs = counters.slow_syncs.saturating_add(1);
        }
        Ok(())
    }

    /// Applies a durable batch, moves the position, and wakes everyone.
    fn publish(&mut self, batch: Vec<Pending<M::Outcome>>, log_time_ms: u64) {
        let index = self.next_index;
        self.next_index = index.saturating_add(1);
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

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
