//! Logs that were written once, one in each format version, and are kept under `tests/golden`: they
//! must read for ever, and the same entries must give the same bytes until the format version changes.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::lab::{commit, entries, open};
use crate::disk::recording::RecordingDisk;
use crate::format::{FORMAT_VERSION, FORMAT_VERSION_OLDEST};
use crate::inspect;

fn golden(version: u16) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/v{version}"))
}

fn proposals() -> Vec<Vec<Bytes>> {
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    vec![
        vec![text("first")],
        vec![text(""), text("second of a batch"), text("third")],
        vec![Bytes::from(vec![0xA5; 9_000])],
        vec![Bytes::from(vec![0x5A; 39_000])],
        vec![text("in the second segment"), Bytes::from(vec![0; 12_000])],
        vec![text("last")],
    ]
}

/// Six batches over two segments, a mark in between, killed.
fn write() -> RecordingDisk {
    let disk = RecordingDisk::default();
    let mut log = open(&disk, 20_26).unwrap();
    for (number, batch) in proposals().iter().enumerate() {
        commit(&mut log, batch);
        if number == 1 {
            log.mark().unwrap();
        }
    }
    disk
}

#[test]
fn every_golden_log_reads_to_the_entries_it_was_made_of() {
    for version in FORMAT_VERSION_OLDEST..=FORMAT_VERSION {
        reads_to_its_entries(&golden(version));
    }
}

fn reads_to_its_entries(golden: &Path) {
    let report = inspect::verify(golden).unwrap();
    assert_eq!((report.node, report.group.as_str()), (7, "north"));
    assert_eq!(
        (report.batches, report.segments.len(), report.torn),
        (6, 2, None)
    );
    let batches: Vec<_> = inspect::batches(golden)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let indexes: Vec<u64> = batches.iter().map(|batch| batch.index).collect();
    assert_eq!(indexes, [1, 2, 3, 4, 5, 6]);
    assert!(batches.iter().all(|batch| batch.term == 1));
    assert!(batches.is_sorted_by_key(|batch| batch.log_time_ms));
    assert!(batches[0].log_time_ms >= 1_700_000_000_000);
    let read: Vec<_> = batches.into_iter().map(|batch| batch.proposals).collect();
    assert_eq!(read, proposals());
}

#[test]
fn the_same_entries_give_the_same_bytes() {
    for (name, bytes) in write().files() {
        let kept = std::fs::read(golden(FORMAT_VERSION).join(&name)).unwrap();
        let differs = kept.iter().zip(&bytes).position(|(kept, new)| kept != new);
        assert_eq!((kept.len(), differs), (bytes.len(), None), "{name}");
    }
}

/// An older log is left as it is: what is new goes to a segment of the present format.
#[test]
fn a_log_of_the_version_before_goes_on_in_a_new_segment() {
    let mut files = std::collections::BTreeMap::new();
    for file in std::fs::read_dir(golden(FORMAT_VERSION_OLDEST)).unwrap() {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        files.insert(name, std::fs::read(file.path()).unwrap());
    }
    let before = files.clone();
    let disk = RecordingDisk::with(files);
    let mut log = open(&disk, 3).unwrap();
    commit(&mut log, &[Bytes::from_static(b"new")]);
    drop(log);
    let after = disk.files();
    for segment in ["segment-0000000001.wal", "segment-0000000002.wal"] {
        assert!(after[segment] == before[segment], "{segment} was changed");
    }
    assert_eq!(
        after["segment-0000000003.wal"][8..10],
        FORMAT_VERSION.to_le_bytes()
    );
    let log = open(&disk, 4).unwrap();
    let mut expected: Vec<Bytes> = proposals().into_iter().flatten().collect();
    expected.push(Bytes::from_static(b"new"));
    assert_eq!(entries(&log), expected);
}

#[test]
#[ignore = "writes the golden log; only for a new format version, in a new directory"]
fn write_the_golden_log() {
    let golden = golden(FORMAT_VERSION);
    std::fs::create_dir_all(&golden).unwrap();
    for (name, bytes) in write().files() {
        std::fs::write(golden.join(name), bytes).unwrap();
    }
}
