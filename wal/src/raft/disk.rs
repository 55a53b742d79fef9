//! The one thread that writes a group's log on this keeper.
//!
//! Tasks come one after the other and each is durable before its waiter hears of it. After the first
//! failure everything fails: the log is poisoned, and the process has to end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::files::{Files, locked};
use crate::format::{FrameKind, frame_bytes, record_bytes};
use crate::news::News;
use crate::planted::{Planted, planted};
use crate::segment::{Entry, Segment};
use crate::shared::Phase;
use crate::state::{State, StoredVote};
use crate::sync::atomic::Ordering;
use crate::sync::mpsc::{Receiver, RecvTimeoutError};
use crate::tape::{Draft, Room, Tape};

/// Most bytes put down by one write.
const WRITE_BYTES_MAX: u64 = 4 << 20;
/// A thread that is not asked to mark wakes up so seldom.
const LONG: Duration = Duration::from_secs(3_600);

/// Hears how a task went, once it is durable.
pub(crate) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

pub(crate) enum Task {
    /// Entries that follow the last one.
    Append {
        entries: Vec<Entry>,
        /// Highest index known committed.
        committed: u64,
        done: Done,
    },
    /// The entries from here on are no more.
    Truncate {
        from: u64,
        done: Done,
    },
    /// The entries below here are given up. Past the end, the log goes on from here.
    Purge {
        next: u64,
        term: u64,
        done: Done,
    },
    /// The log is empty and begins at this index.
    BeginAt {
        index: u64,
        done: Done,
    },
    Vote {
        vote: StoredVote,
        done: Done,
    },
    Stop {
        done: Done,
    },
}

pub(crate) struct DiskThread {
    tape: Tape,
    files: Arc<Files>,
    phase: News<Phase>,
}

// === impl DiskThread ===

impl DiskThread {
    pub(crate) fn new(tape: Tape, files: Arc<Files>, phase: News<Phase>) -> Self {
        Self { tape, files, phase }
    }

    /// The life of the thread: until it is told to stop, or nobody is left to tell it.
    pub(crate) fn run(mut self, tasks: &Receiver<Task>) {
        // A panic poisons the log too.
        let watch = PoisonOnDrop(self.phase.clone());
        self.tape.think_ahead();
        loop {
            match tasks.recv_timeout(self.idle()) {
                Ok(task) => {
                    if !self.run_one_of_more(task) {
                        break;
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.mark(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        watch.disarm();
    }

    /// The same life without a thread, on a simulated disk.
    pub(crate) async fn run_here(mut self, mut tasks: mpsc::Receiver<Task>) {
        let watch = PoisonOnDrop(self.phase.clone());
        self.tape.think_ahead();
        loop {
            match tokio::time::timeout(self.idle(), tasks.recv()).await {
                Ok(Some(task)) => {
                    let takes = self.files.dir.pace().unwrap_or_default();
                    tokio::time::sleep(takes).await;
                    if !self.run_one_of_more(task) {
                        break;
                    }
                }
                Ok(None) => break,
                Err(_elapsed) => self.mark(),
            }
        }
        watch.disarm();
    }

    /// How long to wait for a task before a mark is written.
    fn idle(&self) -> Duration {
        let idle = self.files.config.mark_after.unwrap_or(LONG);
        if self.tape.wants_mark() { idle } else { LONG }
    }

    fn mark(&mut self) {
        if let Err(error) = self.tape.mark() {
            self.poison(&error);
        }
    }

    /// Says whether there is more to come: nothing comes after a stop.
    fn run_one_of_more(&mut self, task: Task) -> bool {
        if let Task::Stop { done } = task {
            done(self.guarded(Self::finish));
            return false;
        }
        self.run_one(task);
        true
    }

    fn run_one(&mut self, task: Task) {
        match task {
            Task::Append {
                entries,
                committed,
                done,
            } => done(self.guarded(|this| this.append(&entries, committed))),
            Task::Truncate { from, done } => done(self.guarded(|this| this.truncate(from))),
            Task::Purge { next, term, done } => {
                done(self.guarded(|this| this.purge(next, term)));
            }
            Task::BeginAt { index, done } => done(self.guarded(|this| this.begin_at(index))),
            Task::Vote { vote, done } => done(self.guarded(|this| this.vote(vote))),
            Task::Stop { done } => done(Ok(())),
        }
    }

    /// Nothing is tried any more once something has failed.
    fn guarded(&mut self, task: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        if self.phase.get() != Phase::Running {
            return Err(io::Error::other("the log is poisoned or has stopped"));
        }
        let done = task(self);
        if planted(Planted::FailedSyncForgotten) {
            return Ok(());
        }
        done.inspect_err(|error| self.poison(error))
    }

    fn poison(&self, error: &io::Error) {
        tracing::error!(%error, "the log's disk failed; nothing is written any more");
        self.phase.set(Phase::Poisoned);
    }

    fn append(&mut self, entries: &[Entry], committed: u64) -> io::Result<()> {
        let expected = self.tape.next_index();
        if let Some(first) = entries.first().filter(|first| first.index != expected) {
            let gap = format!("entry {} where {expected} must follow", first.index);
            return Err(io::Error::other(gap));
        }
        let mut left = entries;
        while let Some(first) = left.first() {
            if self.tape.make_room(payload_bytes(first))? == Room::No {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let mut taken = 0_u64;
            let fitting = left.iter().take_while(|entry| {
                let payload = payload_bytes(entry);
                let fits =
                    taken == 0 || (taken < WRITE_BYTES_MAX && self.tape.fits(taken, payload));
                let bytes = frame_bytes(payload).and_then(|bytes| u64::try_from(bytes).ok());
                taken = taken.saturating_add(bytes.unwrap_or(u64::MAX));
                fits
            });
            let (now, later) = left.split_at(fitting.count().min(left.len()));
            let drafts: Vec<Draft<'_, Bytes>> = now
                .iter()
                .map(|entry| Draft {
                    kind: entry.kind(),
                    term: entry.term,
                    index: entry.index,
                    log_time_ms: entry.log_time_ms,
                    committed,
                    records: entry.records(),
                })
                .collect();
            self.tape.write(&drafts)?;
            left = later;
        }
        self.tape.think_ahead();
        Ok(())
    }

    fn truncate(&mut self, from: u64) -> io::Result<()> {
        if from >= self.tape.next_index() {
            return Ok(());
        }
        if planted(Planted::TruncationNotDurable) {
            self.tape.forget_from(from);
            return Ok(());
        }
        if self.tape.make_room(0)? == Room::No {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.tape.write::<Bytes>(&[Draft {
            kind: FrameKind::Truncation,
            term: 0,
            index: from,
            log_time_ms: 0,
            committed: 0,
            records: &[],
        }])
    }

    fn purge(&mut self, next: u64, term: u64) -> io::Result<()> {
        let trim = |state| State {
            trim_index: next,
            trim_term: term,
            trimmed: true,
            ..state
        };
        if next > self.tape.next_index() {
            self.tape.begin_at(next, trim)?;
        } else {
            let mut slots = locked(&self.files.slots);
            let state = trim(slots.state());
            slots.store(state)?;
        }
        self.give_up_below(next)
    }

    fn begin_at(&mut self, index: u64) -> io::Result<()> {
        if index == self.tape.next_index() {
            return Ok(());
        }
        let trim_index = index;
        self.tape.begin_at(index, |state| State {
            trim_index,
            ..state
        })?;
        self.give_up_below(index)
    }

    /// Removes the segments before the last one that begins at or below `index`.
    fn give_up_below(&self, index: u64) -> io::Result<()> {
        let files = &self.files;
        files.trim_index.store(index, Ordering::Relaxed);
        let gone: Vec<Arc<Segment>> = {
            let mut segments = locked(&files.segments);
            let begins = |segment: &Arc<Segment>| segment.header.first_index <= index;
            let first = segments.iter().rposition(begins).unwrap_or(0);
            segments.drain(..first).collect()
        };
        locked(&files.places).trim(index);
        if gone.is_empty() {
            return Ok(());
        }
        files.give_up(gone)
    }

    fn vote(&mut self, vote: StoredVote) -> io::Result<()> {
        if planted(Planted::VoteNotDurable) {
            return Ok(());
        }
        let mut slots = locked(&self.files.slots);
        let state = State {
            vote: Some(vote),
            ..slots.state()
        };
        slots.store(state)
    }

    fn finish(&mut self) -> io::Result<()> {
        let mut slots = locked(&self.files.slots);
        let state = State {
            clean_at: Some(self.tape.next_index().saturating_sub(1)),
            ..slots.state()
        };
        slots.store(state)?;
        self.phase.set(Phase::Stopped);
        Ok(())
    }
}

struct PoisonOnDrop(News<Phase>);

impl PoisonOnDrop {
    fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for PoisonOnDrop {
    fn drop(&mut self) {
        self.0.set(Phase::Poisoned);
    }
}

fn payload_bytes(entry: &Entry) -> usize {
    entry
        .records()
        .iter()
        .map(|record| record_bytes(record.len()))
        .fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests;
