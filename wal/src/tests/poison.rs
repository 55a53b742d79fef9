//! A disk that fails ends the log: nobody is told that anything is durable after that.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::lab::{Ticking, commit, config, entries, open};
use crate::disk::recording::{Failing, RecordingDisk};
use crate::{Applied, Config, Fate, OpenError, ProposeError, StateMachine, TrimError, Wal, Why};

struct Count(u64);

impl StateMachine for Count {
    type Outcome = u64;
    fn apply(&mut self, _at: Applied, proposal: &[u8]) -> u64 {
        assert!(proposal != b"bug", "a state machine that is not total");
        self.0 += 1;
        self.0
    }
}

struct Release(RecordingDisk);

impl Drop for Release {
    fn drop(&mut self) {
        self.0.release();
    }
}

fn start(disk: &RecordingDisk, config: Config) -> Arc<Wal<Count>> {
    let dir = Arc::new(disk.clone());
    Arc::new(Wal::open_on(dir, config, Box::new(Ticking::default()), Count(0)).unwrap())
}

fn quiet() -> Config {
    Config {
        mark_after: None,
        ..config()
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn block() -> Bytes {
    Bytes::from_static(&[7; 3000])
}

const POISONED: ProposeError = ProposeError::Unknown { why: Why::Poisoned };

/// Fails one kind of operation after a few good batches, under many waiters.
async fn check_poisons(what: Failing) {
    let disk = RecordingDisk::default();
    let wal = start(&disk, quiet());
    for _ in 0..3 {
        wal.propose(block(), soon()).await.unwrap();
    }
    disk.fail(what, 0, ErrorKind::Other);
    let mut waiters = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let wal = Arc::clone(&wal);
        waiters.spawn(async move { wal.propose(block(), soon()).await.map(|_| ()) });
    }
    for answer in waiters.join_all().await {
        assert_eq!(answer, Err(POISONED), "{what:?}");
    }
    wal.poisoned().await;
    assert_eq!(disk.failed(), 1, "{what:?}: it was tried again");
    // Even if the disk gets well, this process has lost its word.
    disk.heal();
    let done = disk.op_count();
    assert_eq!(
        wal.propose(block(), soon()).await.map(|_| ()),
        Err(POISONED)
    );
    assert_eq!(POISONED.fate(), Fate::Unknown);
    assert!(wal.wait_for(4).await.is_err());
    assert!(matches!(wal.trim(1).await, Err(TrimError::Stopped)));
    assert!(wal.status().poisoned);
    assert_eq!(
        wal.read(|count| count.0),
        3,
        "{what:?}: something was applied that is not durable"
    );
    wal.stop().await;
    assert_eq!(
        disk.op_count(),
        done,
        "{what:?}: a poisoned log was written"
    );
}

#[tokio::test]
async fn a_failed_sync_poisons_the_log() {
    check_poisons(Failing::Sync).await;
    check_poisons(Failing::SyncLosing).await;
}

#[tokio::test]
async fn a_failed_write_poisons_the_log() {
    check_poisons(Failing::Write).await;
}

#[tokio::test]
async fn a_sync_that_does_not_return_poisons_the_log_at_the_next_proposal() {
    let disk = RecordingDisk::default();
    // The clock of this test goes on by a millisecond whenever it is asked.
    let wal = start(
        &disk,
        Config {
            stall_max: Duration::from_millis(50),
            ..quiet()
        },
    );
    wal.propose(block(), soon()).await.unwrap();
    disk.hold();
    // If an assertion fails, dropping the log still needs the disk thread to end.
    let release = Release(disk.clone());
    let held = Arc::clone(&wal);
    let first = tokio::spawn(async move { held.propose(block(), soon()).await.map(|_| ()) });
    let (mut answer, deadline) = (Ok(()), soon());
    while answer != Err(POISONED) {
        assert!(Instant::now() < deadline, "the log goes on waiting");
        answer = wal.propose(block(), Instant::now()).await.map(|_| ());
        tokio::task::yield_now().await;
    }
    assert!(wal.status().poisoned);
    drop(release);
    assert_eq!(
        first.await.unwrap(),
        Err(POISONED),
        "the sync came back too late to be believed"
    );
    wal.stop().await;
    assert_eq!(wal.read(|count| count.0), 1);
}

#[tokio::test]
async fn an_idle_log_writes_one_mark_behind_its_last_batch() {
    let disk = RecordingDisk::default();
    let wal = start(
        &disk,
        Config {
            mark_after: Some(Duration::from_millis(1)),
            ..config()
        },
    );
    wal.propose(block(), soon()).await.unwrap();
    let deadline = soon();
    while wal.status().counters.marks == 0 {
        assert!(Instant::now() < deadline, "no mark was written");
        tokio::task::yield_now().await;
    }
    wal.stop().await;
    assert_eq!(wal.status().counters.marks, 1);
}

#[tokio::test]
async fn a_panic_of_the_state_machine_poisons_the_log() {
    let disk = RecordingDisk::default();
    let wal = start(&disk, quiet());
    let bug = wal
        .propose(Bytes::from_static(b"bug"), soon())
        .await
        .map(|_| ());
    assert_eq!(bug, Err(POISONED));
    wal.poisoned().await;
    assert_eq!(
        wal.propose(block(), soon()).await.map(|_| ()),
        Err(POISONED)
    );
}

#[tokio::test]
async fn a_deadline_that_passes_leaves_the_fate_unknown_and_the_entry_may_follow() {
    let disk = RecordingDisk::default();
    let wal = start(&disk, quiet());
    // The disk thread cannot apply while somebody reads, so the deadline is sure to come first.
    let (release, reading) = tokio::sync::oneshot::channel::<()>();
    let (started, is_reading) = tokio::sync::oneshot::channel();
    let reader = Arc::clone(&wal);
    let thread = std::thread::spawn(move || {
        reader.read(|_| {
            started.send(()).unwrap();
            reading.blocking_recv().unwrap();
        });
    });
    is_reading.await.unwrap();
    let held = wal.propose(block(), Instant::now()).await;
    release.send(()).unwrap();
    thread.join().unwrap();
    assert_eq!(
        held.map(|_| ()),
        Err(ProposeError::Unknown { why: Why::Deadline })
    );
    wal.wait_for(1).await.unwrap();
    assert_eq!(wal.read(|count| count.0), 1);
    assert_eq!(wal.status().counters.unknown_deadline, 1);
}

#[tokio::test]
async fn a_disk_that_is_full_at_a_new_segment_refuses_and_goes_on_later() {
    let disk = RecordingDisk::default();
    let wal = start(&disk, quiet());
    disk.fail(Failing::Create, 0, ErrorKind::StorageFull);
    let mut accepted = 0;
    let refused = loop {
        match wal.propose(block(), soon()).await {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((accepted, refused), (15, ProposeError::Full));
    assert_eq!(refused.fate(), Fate::NotBegun);
    assert!(!wal.status().poisoned);
    assert!(
        !disk.files().keys().any(|name| name.ends_with(".new")),
        "space is given back"
    );
    disk.heal();
    wal.propose(block(), soon()).await.unwrap();
    assert_eq!(wal.status().segments, 2);
}

#[test]
fn a_log_opens_on_a_full_disk() {
    let disk = RecordingDisk::default();
    let mut log = open(&disk, 1).unwrap();
    commit(&mut log, &[block(), block()]);
    drop(log);
    // Half of a third proposal was written when the power went.
    let mut files = disk.files();
    files.get_mut("segment-0000000001.wal").unwrap()[12_288..14_000].fill(9);
    let disk = RecordingDisk::with(files);
    disk.fail(Failing::Create, 0, ErrorKind::StorageFull);
    let mut log = open(&disk, 1).unwrap();
    assert_eq!((entries(&log).len(), log.shared.torn_tails_cut), (2, 1));
    commit(&mut log, &[block()]);
}

#[test]
fn a_disk_that_cannot_be_synced_is_not_read() {
    let disk = RecordingDisk::default();
    drop(open(&disk, 1).unwrap());
    disk.fail(Failing::Sync, 0, ErrorKind::Other);
    let error = open(&disk, 1).err().unwrap();
    assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
}
