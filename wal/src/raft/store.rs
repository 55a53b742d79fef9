//! A group's log on this keeper, as the library asks for it.
//!
//! What was appended can be read at once; it counts when it is durable, and the library hears of that
//! by the callback. The last entries are kept in memory, so that a follower that keeps up costs no
//! read of the disk.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, OnceLock};

use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{LeaderId, LogId, OptionalSend, RaftLogReader, StorageError, StorageIOError, Vote};
use tokio::sync::{mpsc, oneshot};

use super::disk::{DiskThread, Done, Task};
use super::machine::Kept;
use super::{RaftEntry, RaftLogId, Types, from_disk, log_id, to_disk};
use crate::disk::SegmentDir;
use crate::files::{Files, locked};
use crate::hands::off_runtime;
use crate::news::News;
use crate::planted::{Planted, planted};
use crate::reader::{EntryReader, ReadFault};
use crate::recovery::{End, OpenError, during};
use crate::segment::{Entry, Frame};
use crate::shared::Phase;
use crate::state::{Kind, State, StoredVote};
use crate::sync::Mutex;
use crate::sync::mpsc::{SyncSender, sync_channel};
use crate::sync::thread::{self, JoinHandle};
use crate::tape::{Random, Tape};
use crate::time::TimeSource;
use crate::wal::{Config, StateMachine};

/// How often entries are read again because some were taken back or given up meanwhile.
const READS_MAX: usize = 16;
/// Bytes of the entries kept in memory.
const RECENT_BYTES_MAX: usize = 64 << 20;
/// Bytes of entries given to one replication at once.
const READ_BYTES_MAX: usize = 1 << 20;
/// Tasks that may wait for the disk thread. The library has one under way at a time.
const TASKS_MAX: usize = 16;

/// A group's log. Cloned, it is the same log.
pub(crate) struct Store<M>(Arc<Inner>, PhantomData<fn() -> M>);

struct Inner {
    files: Arc<Files>,
    tasks: Tasks,
    tail: Mutex<Tail>,
    changes: News<Changes>,
    phase: News<Phase>,
    snapshots: OnceLock<News<Kept>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The way to whoever writes.
enum Tasks {
    Thread(SyncSender<Task>),
    /// A task of the runtime, on a disk that does not block.
    Here(mpsc::Sender<Task>),
}

/// Index and term.
type At = (u64, u64);

/// What is known without reading.
#[derive(Default)]
struct Tail {
    /// The last entries, without a gap; ends with the last one, or is empty.
    recent: VecDeque<Entry>,
    recent_bytes: usize,
    next_index: u64,
    first_index: u64,
    last: Option<At>,
    purged: Option<At>,
    vote: Option<StoredVote>,
    committed: Option<At>,
    log_time_ms: u64,
}

/// How often entries were taken back or given up since the log was opened. Whoever reads while it
/// changes may find half of it done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Changes {
    begun: u64,
    ended: u64,
}

/// A change under way; over when dropped.
struct Changing(News<Changes>);

// === impl Store ===

impl<M> Clone for Store<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0), PhantomData)
    }
}

impl<M: StateMachine> Store<M> {
    /// Opens or creates the log and starts its disk thread. Blocks meanwhile.
    pub(crate) fn open_on(
        dir: Arc<dyn SegmentDir>,
        config: Config,
        time: Box<dyn TimeSource>,
        random: Random,
    ) -> Result<Self, OpenError> {
        // Terms by index, to know the last one's after a truncation, and the committed one's.
        let mut terms: VecDeque<At> = VecDeque::new();
        let mut note = |frame| match frame {
            Frame::Entry { entry, .. } => terms.push_back((entry.index, entry.term)),
            Frame::Truncation { from } => {
                while terms.back().is_some_and(|(index, _)| *index >= from) {
                    terms.pop_back();
                }
            }
        };
        let (tape, end) = Tape::open(dir, config, time, random, Kind::Replicated, &mut note)?;
        let files = Arc::clone(&tape.files);
        let tail = Tail::recovered(locked(&files.slots).state(), end, &terms);
        let phase = News::new(Phase::Running);
        let hand = DiskThread::new(tape, Arc::clone(&files), phase.clone());
        let (tasks, thread) = if files.dir.pace().is_some() {
            let (tasks, waiting) = mpsc::channel(TASKS_MAX);
            // It ends when the last task is done and nobody is left to give another.
            drop(tokio::spawn(hand.run_here(waiting)));
            (Tasks::Here(tasks), None)
        } else {
            let (tasks, waiting) = sync_channel(TASKS_MAX);
            let thread = thread::Builder::new()
                .name("wal-disk".to_owned())
                .spawn(move || hand.run(&waiting))
                .map_err(during("starting the disk thread"))?;
            (Tasks::Thread(tasks), Some(thread))
        };
        let inner = Inner {
            files,
            tasks,
            tail: Mutex::new(tail),
            changes: News::default(),
            phase,
            snapshots: OnceLock::new(),
            thread: Mutex::new(thread),
        };
        Ok(Self(Arc::new(inner), PhantomData))
    }

    pub(crate) fn files(&self) -> &Arc<Files> {
        &self.0.files
    }

    /// Whether the disk thread runs, has stopped, or was poisoned.
    pub(crate) fn phase(&self) -> &News<Phase> {
        &self.0.phase
    }

    /// From now on nothing is given up before a snapshot holds it durably. The library gives up what
    /// a snapshot from the leader covers while that snapshot is still being written.
    pub(crate) fn give_up_behind(&self, snapshots: News<Kept>) {
        if self.0.snapshots.set(snapshots).is_err() {
            tracing::error!("a log has one machine");
        }
    }

    /// The library has ended by itself: so must the process.
    pub(crate) fn poison(&self) {
        if self.0.phase.get() == Phase::Running {
            tracing::error!("the group's library has failed");
            self.0.phase.set(Phase::Poisoned);
        }
    }

    /// The first entry that may still be here.
    pub(crate) fn first_index(&self) -> u64 {
        locked(&self.0.tail).first_index
    }

    /// The last entry here; 0 before the first.
    pub(crate) fn last_index(&self) -> u64 {
        locked(&self.0.tail).last.map_or(0, |(index, _)| index)
    }

    /// How many of these entries, from the first one on, are here already, as far as memory tells.
    pub(crate) fn count_held(&self, entries: impl Iterator<Item = At>) -> usize {
        let tail = locked(&self.0.tail);
        let first = tail.recent.front().map_or(u64::MAX, |first| first.index);
        let held = |(index, term): &At| {
            let at = index
                .checked_sub(first)
                .and_then(|at| usize::try_from(at).ok());
            let here = at.and_then(|at| tail.recent.get(at));
            here.is_some_and(|here| (here.index, here.term) == (*index, *term))
        };
        entries.take_while(held).count()
    }

    /// Log time of the last entry that has one.
    pub(crate) fn log_time_ms(&self) -> u64 {
        locked(&self.0.tail).log_time_ms
    }

    /// Marks the log as cleanly stopped and waits for the thread. Never returns while a disk hangs.
    pub(crate) async fn stop(&self) {
        if let Err(error) = self.run(|done| Task::Stop { done }).await {
            tracing::error!(%error, "the log was not marked as stopped");
        }
        let Some(thread) = locked(&self.0.thread).take() else {
            return;
        };
        let joined = off_runtime(self.0.files.dir.as_ref(), move || thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the log's disk thread panicked");
        }
    }

    /// Appends entries; `done` hears when they are durable.
    pub(crate) async fn put(
        &mut self,
        entries: Vec<Entry>,
        done: Done,
    ) -> Result<(), StorageError<u64>> {
        let Some(first) = entries.first().map(|first| first.index) else {
            done(Ok(()));
            return Ok(());
        };
        // The library truncates before it appends elsewhere; should it ever not, what is on disk must
        // still be what it believes.
        if first < locked(&self.0.tail).next_index {
            self.truncate(log_id(0, first)).await?;
        }
        let (next_index, is_empty, committed) = {
            let tail = locked(&self.0.tail);
            let committed = tail.committed.map_or(0, |(index, _)| index);
            (tail.next_index, tail.last.is_none(), committed)
        };
        if first != next_index && is_empty {
            let _changing = self.changing();
            self.run(|done| Task::BeginAt { index: first, done })
                .await
                .map_err(writing)?;
            locked(&self.0.tail).first_index = first;
        }
        let task = Task::Append {
            entries: entries.clone(),
            committed,
            done,
        };
        {
            let mut tail = locked(&self.0.tail);
            for entry in entries {
                tail.push(entry);
            }
        }
        self.send(task).map_err(writing)
    }

    async fn run(&self, task: impl FnOnce(Done) -> Task) -> io::Result<()> {
        let (done, told) = oneshot::channel();
        self.send(task(tell(done)))?;
        told.await
            .unwrap_or_else(|_gone| Err(io::Error::other("the disk thread has ended")))
    }

    fn send(&self, task: Task) -> io::Result<()> {
        let sent = match &self.0.tasks {
            Tasks::Thread(tasks) => tasks.try_send(task).map_err(|error| error.to_string()),
            Tasks::Here(tasks) => tasks.try_send(task).map_err(|error| error.to_string()),
        };
        sent.map_err(io::Error::other)
    }

    /// Entries from `from` up to, not including, `end`, as far as they are there; of more than
    /// `bytes_max` only the first ones, at least one. All are of one moment: what was taken back
    /// meanwhile would be followed by what came in its place, in a log that never was, and what was given
    /// up meanwhile would seem damaged.
    pub(crate) async fn entries(
        &self,
        from: u64,
        end: u64,
        bytes_max: usize,
    ) -> io::Result<Vec<Entry>> {
        for _ in 0..READS_MAX {
            let changes = &self.0.changes;
            changes.wait_for(|now| now.begun == now.ended).await;
            let before = changes.get();
            let entries = self.entries_once(from, end, bytes_max).await;
            if before.begun == before.ended && changes.get() == before {
                return entries;
            }
        }
        Err(io::Error::other("the log changed at every read"))
    }

    /// Entries are about to be taken back or given up.
    fn changing(&self) -> Changing {
        let changes = self.0.changes.clone();
        changes.update(|now| now.begun = now.begun.saturating_add(1));
        Changing(changes)
    }

    async fn entries_once(&self, from: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let (from, end, kept) = {
            let tail = locked(&self.0.tail);
            let from = from.max(tail.first_index);
            let end = end.min(tail.next_index);
            (from, end, tail.kept(from, end))
        };
        let on_disk = kept.first().map_or(end, |first| first.index);
        let mut entries = Vec::new();
        if from < on_disk {
            let files = Arc::clone(&self.0.files);
            let reading = move || read(&files, from, on_disk, bytes_max);
            entries = off_runtime(self.0.files.dir.as_ref(), reading).await??;
            if entries.last().map(|last| last.index.saturating_add(1)) != Some(on_disk) {
                return Ok(entries);
            }
        }
        let bytes = |entry: &Entry| entry.records().iter().map(bytes::Bytes::len).sum::<usize>();
        let mut left = bytes_max.saturating_sub(entries.iter().map(bytes).sum());
        for entry in kept {
            let bytes = bytes(&entry);
            if bytes > left && !entries.is_empty() {
                break;
            }
            left = left.saturating_sub(bytes);
            entries.push(entry);
        }
        Ok(entries)
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        self.0.update(|now| now.ended = now.ended.saturating_add(1));
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Without a task the thread ends; what was not marked as stopped is a killed run.
        let (tasks, _nobody) = mpsc::channel(1);
        self.tasks = Tasks::Here(tasks);
        if let Some(thread) = locked(&self.thread).take() {
            drop(thread.join());
        }
    }
}

fn tell(done: oneshot::Sender<io::Result<()>>) -> Done {
    Box::new(move |result| drop(done.send(result)))
}

fn read(files: &Files, from: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
    let segments = locked(&files.segments).clone();
    let find = |index| locked(&files.places).find(index);
    let mut reader = EntryReader::new(segments, find, from, end);
    let mut entries = Vec::new();
    let mut bytes = 0_usize;
    while let Some(entry) = reader.next().map_err(|fault| match fault {
        ReadFault::Io(error) => error,
        ReadFault::Damaged { segment, offset } => io::Error::new(
            io::ErrorKind::InvalidData,
            format!("segment {segment} does not read back at byte {offset}"),
        ),
    })? {
        bytes = entry
            .records()
            .iter()
            .map(bytes::Bytes::len)
            .fold(bytes, usize::saturating_add);
        if bytes > bytes_max && !entries.is_empty() {
            break;
        }
        entries.push(entry);
    }
    Ok(entries)
}

// === impl Tail ===

impl Tail {
    /// Of a log that ends so and holds entries of these terms.
    fn recovered(state: State, end: End, terms: &VecDeque<At>) -> Self {
        let purged = state
            .trimmed
            .then(|| (state.trim_index.saturating_sub(1), state.trim_term));
        // What lies below the trim index in the first segment is given up.
        let last = terms
            .back()
            .copied()
            .filter(|(index, _)| *index >= state.trim_index);
        let hinted = |at: &&At| end.committed > 0 && at.0 <= end.committed;
        let committed = if planted(Planted::DiskIsCommitted) {
            terms.back().copied()
        } else {
            terms.iter().rev().find(hinted).copied()
        };
        Self {
            next_index: end.next_index.max(state.trim_index),
            first_index: state.trim_index,
            last: last.or(purged),
            purged,
            vote: state.vote,
            // What was given up had been committed.
            committed: committed.max(purged),
            log_time_ms: end.log_time_ms,
            ..Self::default()
        }
    }

    fn push(&mut self, entry: Entry) {
        self.last = Some((entry.index, entry.term));
        self.next_index = entry.index.saturating_add(1);
        self.log_time_ms = self.log_time_ms.max(entry.log_time_ms);
        self.recent_bytes = self.recent_bytes.saturating_add(weight(&entry));
        self.recent.push_back(entry);
        while self.recent_bytes > RECENT_BYTES_MAX && self.recent.len() > 1 {
            if let Some(oldest) = self.recent.pop_front() {
                self.recent_bytes = self.recent_bytes.saturating_sub(weight(&oldest));
            }
        }
    }

    /// Forgets the entries from `from` on; `before` is the one before it, if there is one.
    fn truncate(&mut self, from: u64, before: Option<At>) {
        while self.recent.back().is_some_and(|last| last.index >= from) {
            if let Some(last) = self.recent.pop_back() {
                self.recent_bytes = self.recent_bytes.saturating_sub(weight(&last));
            }
        }
        self.next_index = self.next_index.min(from);
        self.last = before;
    }

    fn purge(&mut self, upto: At) {
        let next = upto.0.saturating_add(1);
        while self.recent.front().is_some_and(|first| first.index < next) {
            if let Some(first) = self.recent.pop_front() {
                self.recent_bytes = self.recent_bytes.saturating_sub(weight(&first));
            }
        }
        self.first_index = next;
        self.next_index = self.next_index.max(next);
        self.purged = Some(upto);
        if self.last.is_none_or(|last| last.0 < upto.0) {
            self.last = Some(upto);
        }
    }

    fn kept(&self, from: u64, end: u64) -> Vec<Entry> {
        let Some(first) = self.recent.front().map(|first| first.index) else {
            return Vec::new();
        };
        let place = |index: u64| {
            usize::try_from(index.saturating_sub(first))
                .unwrap_or(usize::MAX)
                .min(self.recent.len())
        };
        let (start, stop) = (place(from), place(end));
        self.recent.range(start.min(stop)..stop).cloned().collect()
    }
}

/// What an entry weighs in memory.
fn weight(entry: &Entry) -> usize {
    let records = entry.records().iter().map(bytes::Bytes::len);
    records.fold(128, usize::saturating_add)
}

fn at((index, term): At) -> RaftLogId {
    log_id(term, index)
}

fn vote_of(stored: StoredVote) -> Vote<u64> {
    Vote {
        leader_id: LeaderId {
            term: stored.term,
            voted_for: stored.node,
        },
        committed: stored.committed,
    }
}

fn reading(error: io::Error) -> StorageError<u64> {
    StorageIOError::read_logs(&error).into()
}

fn writing(error: io::Error) -> StorageError<u64> {
    StorageIOError::write_logs(&error).into()
}

impl<M: StateMachine> RaftLogReader<Types<M>> for Store<M> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<RaftEntry<M>>, StorageError<u64>> {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let entries = self.entries(from, end, usize::MAX).await.map_err(reading)?;
        decode(entries).ok_or_else(undecoded)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<RaftEntry<M>>, StorageError<u64>> {
        let mut entries = self
            .entries(start, end, READ_BYTES_MAX)
            .await
            .map_err(reading)?;
        // Given up meanwhile: whoever lacks them gets a snapshot. What follows must not be sent in their
        // place; of nothing the library makes a heartbeat, and looks again.
        if entries.first().is_some_and(|first| first.index != start) {
            entries.clear();
        }
        decode(entries).ok_or_else(undecoded)
    }
}

fn decode<M: StateMachine>(entries: Vec<Entry>) -> Option<Vec<RaftEntry<M>>> {
    entries.into_iter().map(from_disk).collect()
}

fn undecoded() -> StorageError<u64> {
    reading(io::Error::other("an entry's members do not decode"))
}

impl<M: StateMachine> RaftLogStorage<Types<M>> for Store<M> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types<M>>, StorageError<u64>> {
        let tail = locked(&self.0.tail);
        Ok(LogState {
            last_purged_log_id: tail.purged.map(at),
            last_log_id: tail.last.map(at),
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), StorageError<u64>> {
        let vote = StoredVote {
            term: vote.leader_id.term,
            node: vote.leader_id.voted_for,
            committed: vote.committed,
        };
        self.run(|done| Task::Vote { vote, done })
            .await
            .map_err(|error| StorageIOError::write_vote(&error))?;
        locked(&self.0.tail).vote = Some(vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, StorageError<u64>> {
        Ok(locked(&self.0.tail).vote.map(vote_of))
    }

    async fn save_committed(
        &mut self,
        committed: Option<LogId<u64>>,
    ) -> Result<(), StorageError<u64>> {
        // Made durable as a hint in the next write; what it says is only that there is no need to wait
        // for a leader before applying so far again.
        let committed = committed.map(|id| (id.index, id.leader_id.term));
        locked(&self.0.tail).committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<u64>>, StorageError<u64>> {
        Ok(locked(&self.0.tail).committed.map(at))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<Types<M>>,
    ) -> Result<(), StorageError<u64>>
    where
        I: IntoIterator<Item = RaftEntry<M>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(to_disk).collect();
        let done: Done = if planted(Planted::ToldBeforeWritten) {
            callback.log_io_completed(Ok(()));
            Box::new(drop)
        } else {
            Box::new(|result| callback.log_io_completed(result))
        };
        self.put(entries, done).await
    }

    async fn truncate(&mut self, log_id: LogId<u64>) -> Result<(), StorageError<u64>> {
        let from = log_id.index;
        let before = match from.checked_sub(1) {
            None => None,
            Some(before) => {
                let found = self.entries(before, from, usize::MAX).await;
                let found = found.map_err(reading)?;
                let purged = locked(&self.0.tail).purged;
                let found = found.last().map(|entry| (entry.index, entry.term));
                found.or(purged)
            }
        };
        let _changing = self.changing();
        self.run(|done| Task::Truncate { from, done })
            .await
            .map_err(writing)?;
        let mut tail = locked(&self.0.tail);
        if from < tail.next_index {
            tail.truncate(from, before);
        }
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId<u64>) -> Result<(), StorageError<u64>> {
        let upto = (log_id.index, log_id.leader_id.term);
        if let Some(snapshots) = self.0.snapshots.get() {
            let holds = |kept: &Kept| kept.upto.is_some_and(|last| last >= upto.0);
            snapshots.wait_for(|kept| kept.failed || holds(kept)).await;
            if !holds(&snapshots.get()) {
                let error = "the snapshot that covers it could not be written";
                return Err(writing(io::Error::other(error)));
            }
        }
        let next = log_id.index.saturating_add(1);
        let term = upto.1;
        let _changing = self.changing();
        self.run(|done| Task::Purge { next, term, done })
            .await
            .map_err(writing)?;
        locked(&self.0.tail).purge(upto);
        Ok(())
    }
}
