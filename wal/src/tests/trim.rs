//! Trimming, with the power going at every point of it.

use bytes::Bytes;

use super::lab::{commit, entries, open};
use crate::Fault;
use crate::OpenError;
use crate::disk::recording::RecordingDisk;
use crate::wal::trim_shared;

/// Twelve batches of 15,000 bytes, three a segment.
fn written(disk: &RecordingDisk) -> (Vec<Bytes>, usize) {
    let mut log = open(disk, 3).unwrap();
    let sent: Vec<Bytes> = (0..12_u8)
        .map(|number| Bytes::from(vec![number; 15_000]))
        .collect();
    for proposal in &sent {
        commit(&mut log, std::slice::from_ref(proposal));
    }
    let before = disk.op_count();
    trim_shared(&log.shared, 8).unwrap();
    commit(&mut log, &[Bytes::from_static(b"after")]);
    (sent, before)
}

#[test]
fn a_power_cut_during_a_trim_leaves_all_that_was_not_trimmed() {
    let disk = RecordingDisk::default();
    let (sent, before) = written(&disk);
    let first_kept = {
        let files = disk.files();
        let kept = files
            .keys()
            .filter(|name| name.starts_with("segment-"))
            .count();
        assert_eq!(kept, 2, "two of four segments lie below batch 8");
        6
    };
    for ops in before..=disk.op_count() {
        let point = disk.crash_point(ops);
        for renames in 0..=point.renames() {
            for cut in 0..=point.sectors() {
                let image = point.image(renames, |at| at < cut);
                let log = open(&image, 4).unwrap_or_else(|error| {
                    panic!("after {ops} operations, {renames} renames, {cut} sectors: {error}")
                });
                let found = entries(&log);
                let from = sent.iter().position(|sent| *sent == found[0]).unwrap();
                assert!(from <= first_kept, "a batch that was not trimmed is gone");
                let rest = &sent[from..];
                assert_eq!(&found[..rest.len()], rest);
            }
        }
    }
}

#[test]
fn a_first_segment_that_is_gone_without_a_trim_is_damage() {
    let disk = RecordingDisk::default();
    written(&disk);
    let mut files = disk.files();
    let first = files
        .keys()
        .find(|name| name.starts_with("segment-"))
        .cloned()
        .unwrap();
    files.remove(&first);
    let error = open(&RecordingDisk::with(files), 4).err().unwrap();
    assert!(
        matches!(
            error,
            OpenError::Damaged {
                what: Fault::Missing,
                ..
            }
        ),
        "{error:?}"
    );
}
