//! What the threads of a log do to each other: scenarios that are run under shuttle, which tries one
//! interleaving after the other (`tests/threads`). Each panics when something is not as it has to be; a
//! thread that waits for ever is found by shuttle itself.
//!
//! Tokio's own channels, locks and wakers stand for single steps in them: they are taken as given, how
//! they are used here is not.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a scenario that fails panics"
)]

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::entry::RaftEntry as _;
use openraft::storage::{RaftLogStorage, RaftStateMachine};
use openraft::{EntryPayload, RaftSnapshotBuilder, SnapshotMeta, StoredMembership};
use shuttle::future::block_on;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::disk::SegmentDir;
use crate::disk::recording::{Failing, RecordingDisk};
use crate::news::News;
use crate::raft::machine::Machine;
pub use crate::raft::notes::Notes;
use crate::raft::store::Store;
use crate::raft::{Payload, RaftEntry, Replicable, log_id};
use crate::segment::{Body, Entry};
use crate::shared::Phase;
use crate::sync::thread;
use crate::time::TimeSource;
use crate::wal::{Applied, Config, NodeId, ProposeError, ReadError, Wal, Why};

/// No time passes.
struct Still;

/// Longer than any scenario.
const LONG: Duration = Duration::from_secs(3_600);
/// What one segment holds besides its header: three entries of a block each.
const SEGMENT_BYTES: u64 = 4 * 4_096;

impl TimeSource for Still {
    fn monotonic_ms(&self) -> u64 {
        0
    }
    fn wall_ms(&self) -> u64 {
        1_700_000_000_000
    }
}

impl Notes {
    /// How many it was given.
    pub fn count(&self) -> u64 {
        u64::try_from(self.0.len()).unwrap()
    }
}

/// Whoever waits for a value hears of it, whenever it came.
pub fn who_waits_hears_of_it() {
    let news = News::new(0);
    let wait_for = |wanted| {
        let news = news.clone();
        thread::spawn(move || block_on(news.wait_for(|now| *now >= wanted)))
    };
    let waiting = [wait_for(1), wait_for(2), wait_for(2)];
    for value in 1..=2 {
        news.set(value);
    }
    for one in waiting {
        one.join().unwrap();
    }
}

/// A leader's entries take the place of others while these are read: what is read is what the log was
/// before or after, and never a part of each.
pub fn what_is_read_is_of_one_moment() {
    let disk = RecordingDisk::default();
    written(&disk, 1..=6);
    let store = open(&disk);
    let mut writing = store.clone();
    let writer = thread::spawn(move || {
        block_on(writing.truncate(log_id(0, 4))).unwrap();
        put(&mut writing, 4..=7, 2).unwrap();
    });
    for _ in 0..2 {
        let entries = block_on(store.entries(1, u64::MAX, usize::MAX)).unwrap();
        let read: Vec<_> = entries
            .iter()
            .map(|entry| (entry.index, entry.term))
            .collect();
        let before: Vec<_> = (1..=6).map(|index| (index, 1)).collect();
        let after = [&before[..3], &[(4, 2), (5, 2), (6, 2), (7, 2)]].concat();
        let is_after = read.len() >= 3 && after.starts_with(&read);
        assert!(read == before || is_after, "{read:?}");
    }
    writer.join().unwrap();
    block_on(store.stop());
}

/// Segments are given up, and their files written again as others, while they are read.
pub fn what_is_given_up_is_not_written_under_its_reader() {
    let disk = RecordingDisk::default();
    written(&disk, 1..=9);
    let store = open(&disk);
    let mut writing = store.clone();
    let writer = thread::spawn(move || {
        block_on(writing.purge(log_id(1, 7))).unwrap();
        put(&mut writing, 10..=18, 1).unwrap();
    });
    for _ in 0..2 {
        let read = block_on(store.entries(1, u64::MAX, usize::MAX)).unwrap();
        for (one, next) in read.iter().zip(read.iter().skip(1)) {
            assert_eq!(one.index + 1, next.index);
        }
        for one in &read {
            let expected = entry(one.index, 1);
            assert_eq!(one.records(), expected.records(), "entry {}", one.index);
        }
    }
    writer.join().unwrap();
    let last = block_on(store.entries(18, 19, usize::MAX)).unwrap();
    assert_eq!(last.len(), 1);
    block_on(store.stop());
}

/// The disk becomes full at any moment, and later is not: entries are refused, none that was taken fails,
/// and the log lives.
pub fn a_full_disk_is_not_met_inside_a_write() {
    let disk = RecordingDisk::default();
    let store = open(&disk);
    let filling = disk.clone();
    let filler = thread::spawn(move || {
        filling.fail(Failing::Create, 0, io::ErrorKind::StorageFull);
    });
    let mut writing = store.clone();
    let mut next = 1;
    for _ in 0..4 {
        let entries: Vec<Entry> = (next..next + 2).map(|index| entry(index, 1)).collect();
        let payloads = vec![40; entries.len()];
        let fitting = block_on(store.files().admit(&payloads, 1));
        if fitting == 0 {
            continue;
        }
        let last = next + u64::try_from(fitting).unwrap() - 1;
        put(&mut writing, next..=last, 1).unwrap();
        next = last + 1;
    }
    filler.join().unwrap();
    assert_eq!(store.phase().get(), Phase::Running);
    block_on(store.stop());
    drop((store, writing));
    disk.heal();
    let again = open(&disk);
    assert_eq!(again.last_index(), next - 1);
    block_on(again.stop());
}

/// A vote, entries and a trim come from different sides, and then the log is stopped: all of it is
/// there when it is opened again, inside its budget.
pub fn a_stopped_log_has_all_that_was_told() {
    let disk = RecordingDisk::default();
    written(&disk, 1..=5);
    let store = open(&disk);
    let (mut voting, mut trimming, mut writing) = (store.clone(), store.clone(), store.clone());
    let vote = openraft::Vote::new(7, 3);
    let voter = thread::spawn(move || block_on(voting.save_vote(&vote)).unwrap());
    let trimmer = thread::spawn(move || block_on(trimming.purge(log_id(1, 4))).unwrap());
    put(&mut writing, 6..=8, 1).unwrap();
    voter.join().unwrap();
    trimmer.join().unwrap();
    block_on(store.stop());
    drop((store, writing));
    let bytes: usize = disk
        .files()
        .iter()
        .filter(|(name, _)| name.starts_with("segment-"))
        .map(|(_, file)| file.len())
        .sum();
    assert!(u64::try_from(bytes).unwrap() <= config().budget_bytes);
    let mut again = open(&disk);
    assert_eq!(block_on(again.read_vote()).unwrap(), Some(vote));
    let state = block_on(again.get_log_state()).unwrap();
    assert_eq!(state.last_log_id.map(|last| last.index), Some(8));
    assert_eq!(state.last_purged_log_id.map(|last| last.index), Some(4));
    block_on(again.stop());
}

/// Proposers, a disk that fails and whoever stops the log: each proposer hears once, and what was told
/// committed is there when the log is opened again.
pub fn every_proposer_hears_once(fails: bool) {
    let disk = RecordingDisk::default();
    let wal = Arc::new(open_wal(&disk));
    let propose = |number: u8| {
        let wal = Arc::clone(&wal);
        thread::spawn(move || {
            let proposal = Bytes::from(vec![number]);
            block_on(wal.propose(proposal, Instant::now() + LONG))
        })
    };
    let proposers: Vec<_> = (1..=3).map(propose).collect();
    if fails {
        disk.fail(Failing::Sync, 0, io::ErrorKind::Other);
    } else {
        block_on(wal.stop());
    }
    let mut told = Vec::new();
    for (number, proposer) in (1..=3).zip(proposers) {
        match proposer.join().unwrap() {
            Ok(_committed) => told.push(vec![number]),
            Err(ProposeError::Unknown {
                why: Why::Poisoned | Why::Stopped,
            }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let has = |wal: &Wal<Notes>, one: &Vec<u8>| wal.read(|notes| notes.0.contains(one));
    assert!(told.iter().all(|one| has(&wal, one)));
    drop(wal);
    disk.heal();
    let again = open_wal(&disk);
    assert!(told.iter().all(|one| has(&again, one)));
    block_on(again.stop());
}

/// Batches are trimmed while they are read: they are there or were trimmed, and never damaged.
pub fn what_is_trimmed_is_not_damaged() {
    let disk = RecordingDisk::default();
    let wal = Arc::new(open_wal(&disk));
    for number in 1..=6 {
        let proposal = Bytes::from(vec![number]);
        block_on(wal.propose(proposal, Instant::now() + LONG)).unwrap();
    }
    let trimming = Arc::clone(&wal);
    let trimmer = thread::spawn(move || block_on(trimming.trim(5)).unwrap());
    for _ in 0..2 {
        match block_on(wal.read_batches(1, usize::MAX)) {
            Ok(batches) => assert_eq!(batches.len(), 6),
            Err(ReadError::Trimmed { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    trimmer.join().unwrap();
    block_on(wal.stop());
}

/// Entries are applied, a snapshot of the leader's is taken in, snapshots are made and the state is
/// read, all at once. A reader never sees less than it was told; what a snapshot says that it
/// holds is what it holds; and the one on the disk is never older than what was said of it.
///
/// `proposal` gives the entry of an index, all different, and `count` how many a machine has applied.
pub fn a_snapshot_is_of_one_moment<M: Replicable>(
    new: fn() -> M,
    proposal: fn(u64) -> Bytes,
    count: fn(&M) -> u64,
) {
    let disk = RecordingDisk::default();
    let machine = Machine::open(Arc::new(disk.clone()), new()).unwrap();
    let index_of = |meta: &SnapshotMeta<u64, _>| meta.last_log_id.map_or(0, |last| last.index);
    let (mut applying, mut making) = (machine.clone(), machine.clone());
    let applier = thread::spawn(move || {
        let apply = |machine: &mut Machine<M>, index| {
            drop(block_on(machine.apply([raft_entry::<M>(index, proposal)])).unwrap());
        };
        apply(&mut applying, 1);
        apply(&mut applying, 2);
        let meta = SnapshotMeta {
            last_log_id: Some(log_id(1, 5)),
            last_membership: StoredMembership::default(),
            snapshot_id: "the leader's".to_owned(),
        };
        let state = state_of(new, proposal, 5);
        block_on(applying.install_snapshot(&meta, Box::new(state))).unwrap();
        apply(&mut applying, 6);
    });
    let maker = thread::spawn(move || {
        for _ in 0..2 {
            let made = block_on(making.build_snapshot()).unwrap();
            let mut loaded = new();
            loaded.load(&made.snapshot[8..]).unwrap();
            assert_eq!(count(&loaded), index_of(&made.meta));
        }
    });
    for _ in 0..2 {
        let told = machine.progress().get().last.map_or(0, |last| last.index);
        let kept = machine.kept().get().upto.unwrap_or(0);
        assert!(machine.read(count) >= told.max(kept));
    }
    applier.join().unwrap();
    maker.join().unwrap();
    assert_eq!(machine.read(count), 6);
    let kept = machine.kept().get();
    assert!(!kept.failed && kept.upto >= Some(5), "{kept:?}");
    let again = Machine::open(Arc::new(disk), new()).unwrap();
    assert_eq!(again.read(count), kept.upto.unwrap());
}

fn config() -> Config {
    Config {
        segment_bytes: SEGMENT_BYTES,
        budget_bytes: SEGMENT_BYTES * 8,
        batch_bytes_max: 2_048,
        mark_after: None,
        ..Config::new("", NodeId(1), "north")
    }
}

fn random() -> Box<dyn FnMut() -> u128 + Send> {
    let mut drawn = 0;
    Box::new(move || {
        drawn += 1;
        drawn
    })
}

fn open(disk: &RecordingDisk) -> Store<Notes> {
    let dir: Arc<dyn SegmentDir> = Arc::new(disk.clone());
    Store::open_on(dir, config(), Box::new(Still), random()).unwrap()
}

fn open_wal(disk: &RecordingDisk) -> Wal<Notes> {
    let dir: Arc<dyn SegmentDir> = Arc::new(disk.clone());
    Wal::open_with(dir, config(), Box::new(Still), Notes::default(), random()).unwrap()
}

/// A log with these entries, closed again: what is read of it comes from the disk.
fn written(disk: &RecordingDisk, entries: std::ops::RangeInclusive<u64>) {
    let mut store = open(disk);
    put(&mut store, entries, 1).unwrap();
    block_on(store.stop());
}

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        term,
        index,
        log_time_ms: 1,
        body: Body::Proposals(vec![format!("entry {index} of {term}").into()]),
    }
}

/// Appends entries, each in a write of its own, and waits until the last one is durable.
fn put(
    store: &mut Store<Notes>,
    entries: std::ops::RangeInclusive<u64>,
    term: u64,
) -> io::Result<()> {
    let mut waiting = Vec::new();
    for index in entries {
        let (done, told) = oneshot::channel();
        let done = Box::new(move |result| drop(done.send(result)));
        block_on(store.put(vec![entry(index, term)], done)).unwrap();
        waiting.push(told);
    }
    for told in waiting {
        block_on(told).unwrap()?;
    }
    Ok(())
}

fn raft_entry<M: Replicable>(index: u64, proposal: fn(u64) -> Bytes) -> RaftEntry<M> {
    let mut entry = RaftEntry::<M>::new_blank(log_id(1, index));
    entry.payload = EntryPayload::Normal(Payload {
        log_time_ms: index,
        proposals: vec![proposal(index)],
    });
    entry
}

/// A snapshot's bytes, as a leader that has applied so many entries sends them.
fn state_of<M: Replicable>(new: fn() -> M, proposal: fn(u64) -> Bytes, upto: u64) -> Bytes {
    let mut machine = new();
    for index in 1..=upto {
        let at = Applied {
            term: 1,
            index,
            slot: 0,
            log_time_ms: index,
        };
        drop(machine.apply(at, &proposal(index)));
    }
    let mut bytes = upto.to_le_bytes().to_vec();
    bytes.extend_from_slice(&machine.save());
    bytes.into()
}
