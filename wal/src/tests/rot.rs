//! Rot in closed segments is found while the log goes on, and looking at a log disturbs nobody.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::raft::tests::Notes;
use crate::{Config, NodeId, SystemTimeSource, Wal, inspect};

const FIRST: &str = "segment-0000000001.wal";
/// Fast enough that the scrub of a few small segments is over at once.
const FAST: u64 = 1 << 30;

fn small(dir: &Path) -> Config {
    Config {
        segment_bytes: 64 * 1024,
        batch_bytes_max: 16 * 1024,
        ..Config::new(dir, NodeId(7), "north")
    }
}

fn open(dir: &Path) -> Wal<Notes> {
    let time = Box::new(SystemTimeSource::new());
    Wal::open(small(dir), time, Notes::default()).unwrap()
}

async fn propose(wal: &Wal<Notes>, count: usize) {
    for _ in 0..count {
        let deadline = Instant::now() + Duration::from_secs(20);
        let proposal = Bytes::from(vec![7; 5_000]);
        wal.propose(proposal, deadline).await.unwrap();
    }
}

fn flip(dir: &Path, name: &str, byte: usize) -> Vec<u8> {
    let path = dir.join(name);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[byte] ^= 16;
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes[byte..=byte], byte as u64).unwrap();
    bytes
}

#[tokio::test]
async fn a_scrub_finds_rot_in_a_closed_segment_and_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path());
    propose(&wal, 20).await;
    let closed = wal.status().segments - 1;
    assert!(closed >= 2);
    let report = wal.scrub(FAST).await.unwrap();
    assert_eq!(report.damage, []);
    assert_eq!((report.segments, report.bytes), (closed, closed * 65_536));
    assert_eq!(wal.status().damage, None);
    // The padding of the second frame.
    let rotten = flip(dir.path(), FIRST, 4096 + 3 * 4096 + 3_000);
    let report = wal.scrub(FAST).await.unwrap();
    assert_eq!(report.segments, closed - 1);
    let [damage] = report.damage.as_slice() else {
        panic!("{report:?}")
    };
    assert_eq!((damage.file.as_str(), damage.offset), (FIRST, 12_288));
    wal.damaged().await;
    assert_eq!(wal.status().damage.as_ref(), Some(damage));
    propose(&wal, 1).await;
    assert!(
        std::fs::read(dir.path().join(FIRST)).unwrap() == rotten,
        "it was changed"
    );
}

#[tokio::test]
async fn a_scrub_reads_no_faster_than_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path());
    propose(&wal, 20).await;
    let began = Instant::now();
    let report = wal.scrub(1 << 20).await.unwrap();
    // 48 KiB of each segment are frames.
    let least = Duration::from_millis(46 * report.segments);
    assert!(report.segments >= 2);
    assert!(began.elapsed() >= least, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_log_in_use_is_examined_while_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let wal = std::sync::Arc::new(open(dir.path()));
    let writing = {
        let wal = std::sync::Arc::clone(&wal);
        tokio::spawn(async move {
            for _ in 0..40 {
                propose(&wal, 4).await;
                let last = wal.status().last_index;
                wal.trim(last.saturating_sub(40)).await.unwrap();
            }
        })
    };
    let mut looks = 0;
    while !writing.is_finished() {
        let path = dir.path().to_owned();
        let examining = move || inspect::examine(&path).unwrap();
        let report = tokio::task::spawn_blocking(examining).await.unwrap();
        assert_eq!(report.damage, []);
        assert!(!report.clean && !report.replicated);
        looks += 1;
    }
    writing.await.unwrap();
    assert!(looks > 0);
    let status = wal.status();
    let report = inspect::examine(dir.path()).unwrap();
    assert_eq!(report.last_index, Some(status.last_index));
    assert_eq!(report.segments.len() as u64, status.segments);
    assert_eq!(report.incarnation, status.incarnation);
    wal.stop().await;
    assert!(inspect::examine(dir.path()).unwrap().clean);
}

#[tokio::test]
async fn an_examination_names_every_damaged_file_and_reads_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path());
    propose(&wal, 40).await;
    wal.stop().await;
    drop(wal);
    let whole = inspect::examine(dir.path()).unwrap();
    assert_eq!(
        (whole.damage.len(), whole.entries, whole.proposals),
        (0, 40, 40)
    );
    let frames = inspect::frames(dir.path(), 2).unwrap();
    let frames: Vec<_> = frames.map(Result::unwrap).collect();
    assert_eq!(frames.last().unwrap().index, 40);
    assert!(
        frames
            .iter()
            .all(|frame| frame.kind == "proposals" && frame.bytes == 5_000)
    );
    flip(dir.path(), FIRST, 5_000);
    flip(dir.path(), "segment-0000000003.wal", 20_000);
    let report = inspect::examine(dir.path()).unwrap();
    let files: Vec<_> = report.damage.iter().map(|one| one.file.as_str()).collect();
    assert_eq!(files, [FIRST, "segment-0000000003.wal"]);
    assert!(
        report.entries >= 20 && report.last_index == Some(40),
        "{report:?}"
    );
    assert!(
        inspect::frames(dir.path(), 1)
            .unwrap()
            .any(|frame| frame.is_err())
    );
}
