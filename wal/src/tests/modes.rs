//! The two ways to write: the same bytes, whichever it is.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::lab::Dice;
use crate::disk::SegmentDir;
use crate::disk::real::RealDir;
use crate::raft::tests::Notes;
use crate::{Config, NodeId, SystemTimeSource, Wal, WriteMode, inspect};

fn open(dir: &Path, write_mode: Option<WriteMode>) -> Wal<Notes> {
    let config = Config {
        segment_bytes: 64 * 1024,
        batch_bytes_max: 16 * 1024,
        write_mode,
        ..Config::new(dir, NodeId(7), "north")
    };
    let time = Box::new(SystemTimeSource::new());
    Wal::open(config, time, Notes::default()).unwrap()
}

#[tokio::test]
async fn a_log_goes_on_whichever_way_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let supported = RealDir::create(dir.path()).unwrap().write_mode();
    let mut sent = 0_u8;
    for mode in [None, Some(WriteMode::Fdatasync), Some(supported), None] {
        let wal = open(dir.path(), mode);
        assert_eq!(wal.status().write_mode, mode.unwrap_or(supported));
        assert_eq!(wal.read(|notes| notes.0.len()), usize::from(sent));
        for _ in 0..12 {
            let proposal = Bytes::from(vec![sent; 5_000]);
            let deadline = Instant::now() + Duration::from_secs(20);
            wal.propose(proposal, deadline).await.unwrap();
            sent += 1;
        }
        wal.trim(wal.status().last_index / 8).await.unwrap();
    }
    let report = inspect::examine(dir.path()).unwrap();
    assert!(report.damage.is_empty(), "{report:?}");
    let files = std::fs::read_dir(dir.path()).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let probes = names.filter(|name| name.starts_with("probe"));
    assert_eq!(probes.count(), 0);
}

/// What is written directly is read back through the page cache, also where that held it before.
#[test]
fn blocks_and_parts_of_blocks_read_back_as_written_last() {
    let dir = tempfile::tempdir().unwrap();
    let real = RealDir::create(dir.path()).unwrap();
    println!("{:?}", real.write_mode());
    let file = real.create("file", 1 << 20).unwrap();
    let mut model = vec![0_u8; 1 << 20];
    let mut dice = Dice(5);
    for _ in 0..300 {
        let (at, length) = match dice.below(3) {
            0 => (dice.below(1 << 20), 1 + dice.below(9_000)),
            _ => (4096 * dice.below(256), 4096 * (1 + dice.below(16))),
        };
        let length = length.min(model.len() - at);
        let byte = dice.roll() as u8;
        model[at..at + length].fill(byte);
        file.write_at(&model[at..at + length], at as u64).unwrap();
        file.sync_data().unwrap();
        let from = dice.below(model.len() - 10_000);
        let mut read = vec![0; 10_000];
        file.read_at(&mut read, from as u64).unwrap();
        assert!(read == model[from..from + 10_000]);
    }
    file.settle().unwrap();
    assert!(std::fs::read(dir.path().join("file")).unwrap() == model);
}
