//! Files of segments that were given up carry segments again, and nothing of their former life.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use bytes::Bytes;

use super::lab::{Keep, Ticking, commit, config, entries, open_as, random, tiny};
use crate::appender::Appender;
use crate::disk::SegmentDir;
use crate::disk::real::RealDir;
use crate::disk::recording::{Op, RecordingDisk};
use crate::files::locked;
use crate::segment::Segment;
use crate::wal::{prepare, trim_shared};

const FIRST: &str = "segment-0000000001.wal";
/// A proposal whose frame takes two blocks: three of them fill a tiny segment.
const TWO_BLOCKS: usize = 6_000;

fn numbered(number: u8) -> Bytes {
    vec![number; TWO_BLOCKS].into()
}

/// Commits so many, giving up all but the last segment after each.
fn run(log: &mut Appender<Keep>, numbers: std::ops::Range<u8>) -> Vec<Bytes> {
    let mut sent = Vec::new();
    for number in numbers {
        sent.push(numbered(number));
        commit(log, &sent[sent.len() - 1..]);
        log.wait_for_spare();
        let last = log.shared.position.borrow().index;
        trim_shared(&log.shared, last).unwrap();
    }
    sent
}

fn is_recycling(op: &Op) -> bool {
    matches!(op, Op::Rename { from, to } if from.starts_with("worn-") && to.starts_with("segment-"))
}

#[test]
fn a_log_that_is_trimmed_goes_on_in_the_files_it_has() {
    let disk = RecordingDisk::default();
    let mut log = open_as(&disk, 1, tiny()).unwrap();
    run(&mut log, 0..90);
    let counters = locked(&log.shared.counters).clone();
    assert_eq!(counters.rotations, 29);
    let created = disk.ops().into_iter().filter(|op| match op {
        Op::Create { name, .. } => name.starts_with("segment-") || name.starts_with("spare-"),
        _ => false,
    });
    let created = created.count() as u64;
    assert!(counters.recycled >= counters.rotations - 4, "{counters:?}");
    assert!(created <= 5, "{created} files were made for 30 segments");
    let segments = disk.files().into_keys().filter(|name| name != "state");
    let count = segments.filter(|name| name != "identity").count();
    assert!(count <= 5, "{count} files are kept");
    // What was made zeros is zeros, whole, before it is a segment again.
    let at = disk.ops().iter().rposition(is_recycling).unwrap();
    let (file, name) = match &disk.ops()[at] {
        Op::Rename { from, to } => {
            let before = disk.crash_point(at).image(usize::MAX, |_| true).files();
            (before[from].clone(), to.clone())
        }
        _ => unreachable!(),
    };
    assert!(file[4096..].iter().all(|byte| *byte == 0), "{name}");
}

/// The write of zeros is lost, though the disk said that it was done.
#[test]
fn what_is_left_of_a_former_life_is_never_read() {
    let disk = RecordingDisk::default();
    let mut log = open_as(&disk, 1, tiny()).unwrap();
    run(&mut log, 0..60);
    let ops = disk.ops();
    let files = disk.files();
    let is_there = |op: &Op| match op {
        Op::Rename { to, .. } => is_recycling(op) && files.contains_key(to),
        _ => false,
    };
    let recycled = ops.iter().rposition(is_there).unwrap();
    let Op::Rename {
        from: worn,
        to: now,
    } = &ops[recycled]
    else {
        unreachable!()
    };
    let wore = |op: &Op| matches!(op, Op::Rename { to, .. } if to == worn);
    let wore = ops.iter().position(wore).unwrap();
    let Op::Rename { from: was, .. } = &ops[wore] else {
        unreachable!()
    };
    let old = disk.crash_point(wore).image(usize::MAX, |_| true).files()[was].clone();
    let stale_frames = (4096..old.len()).step_by(8192);
    assert!(stale_frames.clone().count() >= 3);
    let held = entries(&log);
    // One entry of the new life, then whatever the former one left.
    for lives_on in [12_288, 20_480, 28_672] {
        let mut files = files.clone();
        let segment = files.get_mut(now).unwrap();
        let mut again = old.clone();
        again[..lives_on].copy_from_slice(&segment[..lives_on]);
        *segment = again;
        let image = RecordingDisk::with(files);
        let found = entries(&open_as(&image, 9, tiny()).unwrap());
        let number = (lives_on - 4096) / 8192;
        let three = &held[held.len() - 3..];
        assert_eq!(found, three[..number], "a stale entry came back");
    }
}

/// The same entries at the same places under the same indexes: only the salt tells them apart.
#[test]
fn a_frame_of_another_salt_does_not_verify_whatever_else_fits() {
    let logs = [1, 2].map(|seed| {
        let disk = RecordingDisk::default();
        let mut log = open_as(&disk, seed, tiny()).unwrap();
        for number in 0..3 {
            commit(&mut log, &[numbered(number)]);
        }
        disk.files()
    });
    for (kept, at) in [(0, 4096), (1, 12_288), (2, 20_480)] {
        let mut files = logs[0].clone();
        let other = &logs[1][FIRST];
        files.get_mut(FIRST).unwrap()[at..].copy_from_slice(&other[at..]);
        let image = RecordingDisk::with(files);
        assert_eq!(entries(&open_as(&image, 3, tiny()).unwrap()).len(), kept);
    }
}

#[test]
fn a_file_that_somebody_reads_is_not_used_again() {
    let disk = RecordingDisk::default();
    let mut log = open_as(&disk, 1, tiny()).unwrap();
    for number in 0..4 {
        commit(&mut log, &[numbered(number)]);
    }
    let reader: Arc<Segment> = Arc::clone(&locked(&log.shared.segments)[0]);
    let before = disk.files()[FIRST].clone();
    trim_shared(&log.shared, 4).unwrap();
    let name = FIRST.to_owned();
    assert!(disk.ops().contains(&Op::Remove { name }));
    log.wait_for_spare();
    let mut bytes = vec![0; before.len()];
    reader.file.read_at(&mut bytes, 0).unwrap();
    assert!(bytes == before, "it was written under its reader");
}

#[test]
fn segments_and_spares_together_stay_inside_the_budget() {
    let disk = RecordingDisk::default();
    let config = crate::Config {
        budget_bytes: 4 * 32 * 1024,
        ..tiny()
    };
    let mut log = open_as(&disk, 1, config).unwrap();
    let bytes = || -> usize {
        let files = disk.files();
        let counted = files.iter().filter(|(name, _)| {
            ["segment-", "worn-", "spare-"]
                .iter()
                .any(|kind| name.starts_with(kind))
        });
        counted.map(|(_, bytes)| bytes.len()).sum()
    };
    for number in 0..200_u8 {
        let last = log.shared.position.borrow().index;
        if number % 8 == 0 && last > 0 {
            trim_shared(&log.shared, last).unwrap();
        }
        commit(&mut log, &[numbered(number)]);
        log.wait_for_spare();
        assert!(bytes() <= 4 * 32 * 1024, "{} after {number}", bytes());
    }
}

/// A segment is all there from the start: appending to it changes no size and allocates nothing.
#[test]
fn appending_allocates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FIRST);
    let real: Arc<dyn SegmentDir> = Arc::new(RealDir::create(dir.path()).unwrap());
    let keep = Keep::new(RecordingDisk::default());
    let time = Box::new(Ticking::default());
    let mut log = prepare(real, config(), time, keep, random(1)).unwrap();
    let sizes = || {
        let data = std::fs::metadata(&path).unwrap();
        (data.len(), data.blocks())
    };
    let before = sizes();
    assert!(before.1 * 512 >= before.0, "it is not sparse: {before:?}");
    for _ in 0..7 {
        commit(&mut log, &[numbered(1)]);
        assert_eq!(sizes(), before);
    }
}
