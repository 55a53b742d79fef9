//! The log as its users see it, on the real disk.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    Applied, Config, Fate, NodeId, OpenError, ProposeError, ReadError, StateMachine,
    SystemTimeSource, TrimError, Wal, Why, inspect,
};

/// Keeps all it is given; the outcome is how many it has.
#[derive(Default)]
struct Keep(Vec<(Applied, Vec<u8>)>);

impl StateMachine for Keep {
    type Outcome = usize;
    fn apply(&mut self, at: Applied, proposal: &[u8]) -> usize {
        self.0.push((at, proposal.to_vec()));
        self.0.len()
    }
}

fn small(dir: &Path) -> Config {
    Config {
        segment_bytes: 64 * 1024,
        budget_bytes: 1024 * 1024,
        batch_bytes_max: 16 * 1024,
        ..Config::new(dir, NodeId(7), "north")
    }
}

fn open(config: Config) -> Wal<Keep> {
    Wal::open(config, Box::new(SystemTimeSource::new()), Keep::default()).unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn numbered(number: u64, bytes: usize) -> Bytes {
    let mut proposal = number.to_le_bytes().to_vec();
    proposal.resize(bytes.max(8), 0xA5);
    proposal.into()
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(small(dir.path()));
    let incarnation = wal.incarnation();
    for number in 0..40 {
        let committed = wal.propose(numbered(number, 5000), soon()).await.unwrap();
        assert_eq!(*committed.outcome(), number as usize + 1);
    }
    let before = wal.read(|keep| keep.0.clone());
    assert!(
        wal.status().segments > 1,
        "the log went over several segments"
    );
    wal.stop().await;
    let stopped = wal.propose(numbered(1, 8), soon()).await.unwrap_err();
    assert_eq!(stopped, ProposeError::Unknown { why: Why::Stopped });
    drop(wal);

    let report = inspect::verify(dir.path()).unwrap();
    assert!(report.clean);
    assert_eq!(report.proposals, 40);
    let read: Vec<Bytes> = inspect::batches(dir.path())
        .unwrap()
        .flat_map(|batch| batch.unwrap().proposals)
        .collect();
    assert_eq!(read.len(), 40);

    let wal = open(small(dir.path()));
    assert_eq!(wal.incarnation(), incarnation);
    assert_eq!(wal.read(|keep| keep.0.clone()), before);
    assert!(wal.status().log_time_ms >= before.last().unwrap().0.log_time_ms);
    let next = wal.propose(numbered(40, 8), soon()).await.unwrap();
    assert_eq!(next.applied().index, before.last().unwrap().0.index + 1);
}

#[tokio::test]
async fn concurrent_proposals_share_batches_and_keep_their_order_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let wal = std::sync::Arc::new(open(Config {
        budget_bytes: 64 << 20,
        ..small(dir.path())
    }));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..500 {
        let wal = std::sync::Arc::clone(&wal);
        tasks.spawn(async move { wal.propose(numbered(number, 100), soon()).await.unwrap() });
    }
    let committed = tasks.join_all().await;
    let mut outcomes: Vec<usize> = committed.iter().map(|one| *one.outcome()).collect();
    outcomes.sort_unstable();
    assert_eq!(outcomes, (1..=500).collect::<Vec<_>>());
    let status = wal.status();
    assert_eq!(status.counters.proposals, 500);
    assert!(
        status.counters.batches < 500,
        "{} batches",
        status.counters.batches
    );
    wal.wait_for(status.last_index).await.unwrap();

    let mut read = Vec::new();
    let mut from = 1;
    loop {
        let batches = wal.read_batches(from, 1000).await.unwrap();
        let Some(last) = batches.last() else { break };
        from = last.index + 1;
        read.extend(batches.into_iter().flat_map(|batch| batch.proposals));
    }
    let applied: Vec<Bytes> = wal.read(|keep| {
        keep.0
            .iter()
            .map(|(_, proposal)| proposal.clone().into())
            .collect()
    });
    assert_eq!(read, applied);
}

#[tokio::test]
async fn a_full_log_refuses_before_it_begins_and_accepts_again_after_a_trim() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        budget_bytes: 128 * 1024,
        ..small(dir.path())
    };
    let wal = open(config.clone());
    let mut accepted = 0;
    let refused = loop {
        match wal.propose(numbered(accepted, 3900), soon()).await {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, ProposeError::Full);
    assert_eq!(refused.fate(), Fate::NotBegun);
    let status = wal.status();
    assert_eq!(status.bytes_used, status.budget_bytes);
    assert!(accepted >= 20, "{accepted} were accepted");
    drop(wal);

    let wal = open(config);
    assert_eq!(wal.read(|keep| keep.0.len()) as u64, accepted);
    let beyond = wal.trim(status.last_index + 2).await.unwrap_err();
    assert!(matches!(beyond, TrimError::BeyondEnd { .. }));
    wal.trim(status.last_index + 1).await.unwrap();
    let status = wal.status();
    assert_eq!(status.segments, 1);
    assert!(status.first_index > 1 && status.trim_index == status.first_index);
    let trimmed = wal.read_batches(1, 1000).await.unwrap_err();
    assert!(
        matches!(trimmed, ReadError::Trimmed { first_index } if first_index == status.first_index)
    );
    wal.propose(numbered(0, 3900), soon()).await.unwrap();
    drop(wal);
    let report = inspect::verify(dir.path()).unwrap();
    assert_eq!(report.first_index, status.first_index);
    assert_eq!(report.last_index, status.last_index + 1);
}

#[tokio::test]
async fn a_proposal_larger_than_a_batch_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(small(dir.path()));
    let error = wal
        .propose(numbered(0, 16 * 1024), soon())
        .await
        .unwrap_err();
    assert_eq!(error, ProposeError::TooLarge);
    wal.propose(numbered(0, 16 * 1024 - 8), soon())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_log_is_opened_once_and_only_by_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let time = || Box::new(SystemTimeSource::new());
    let wal = open(small(dir.path()));
    let again = Wal::open(small(dir.path()), time(), Keep::default())
        .err()
        .unwrap();
    assert!(matches!(again, OpenError::Locked), "{again:?}");
    drop(wal);
    let other = Config {
        node: NodeId(8),
        ..small(dir.path())
    };
    let foreign = Wal::open(other, time(), Keep::default()).err().unwrap();
    assert!(
        matches!(foreign, OpenError::Foreign { node: 7, .. }),
        "{foreign:?}"
    );
    std::fs::remove_file(dir.path().join("identity")).unwrap();
    let lost = Wal::open(small(dir.path()), time(), Keep::default())
        .err()
        .unwrap();
    assert!(matches!(lost, OpenError::IdentityMissing), "{lost:?}");
}
