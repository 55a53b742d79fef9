//! Every single bit of a segment that is closed by a trailer, flipped: headers, records, padding,
//! trailers, marks. Each flip is reported, and nothing is cut.
//!
//! `cargo nextest run -p standin-wal flips --no-capture`

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::lab::{Dice, commit, entries, open};
use crate::disk::SegmentFile;
use crate::disk::recording::{Op, RecordingDisk};
use crate::format::HeaderFault;
use crate::recovery::{End, walk_on};
use crate::segment::{Cursor, Segment, Step};
use crate::state::State;
use crate::{Fault, OpenError, inspect};

const FIRST: &str = "segment-0000000001.wal";
/// Sizes of proposals whose frames take 14 of the 15 blocks behind a segment's header: frames of one
/// block and of several, without a record, full to the last byte and with the most padding.
const BATCHES: [&[usize]; 6] = [
    &[100, 0, 7],
    &[3_992],
    &[3_993],
    &[11_000, 400, 4_000],
    &[5_000],
    &[13_000, 1_000],
];
/// Through a whole open goes every so manieth bit.
const SAMPLED: usize = 97;

/// A disk that holds one segment.
struct Memory(Mutex<Vec<u8>>);

impl Memory {
    fn flip(&self, bit: usize) {
        self.0.lock().unwrap()[bit / 8] ^= 1 << (bit % 8);
    }
}

impl SegmentFile for Memory {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let from = offset as usize;
        into.copy_from_slice(&self.0.lock().unwrap()[from..from + into.len()]);
        Ok(())
    }
    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        unreachable!("reading a segment writes nothing")
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn settle(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A log whose first segment is full to its last block, which is a mark. The run was killed.
fn full() -> RecordingDisk {
    let disk = RecordingDisk::default();
    let mut log = open(&disk, 5).unwrap();
    let mut dice = Dice(1);
    for sizes in BATCHES {
        let mut noise = |size: &usize| -> Bytes {
            let bytes = (0..*size).map(|_| dice.roll() as u8);
            bytes.collect::<Vec<u8>>().into()
        };
        let proposals: Vec<Bytes> = sizes.iter().map(&mut noise).collect();
        commit(&mut log, &proposals);
    }
    log.mark().unwrap();
    let bytes = &disk.files()[FIRST];
    assert_eq!(bytes.len(), 64 * 1024);
    assert!(
        bytes
            .chunks(4096)
            .all(|block| block.iter().any(|b| *b != 0)),
        "every block of the segment is in use"
    );
    disk
}

/// The same, and the log goes on in a second segment.
fn left() -> RecordingDisk {
    let disk = full();
    let mut log = open(&disk, 6).unwrap();
    commit(&mut log, &[Bytes::from_static(b"in the second segment")]);
    disk
}

/// A segment in memory, and where reading it is after each frame.
struct Reading<'a> {
    file: Arc<Memory>,
    next: Option<&'a Arc<Segment>>,
    cursors: Vec<Cursor>,
}

impl<'a> Reading<'a> {
    fn new(bytes: Vec<u8>, next: Option<&'a Arc<Segment>>) -> Self {
        let file = Arc::new(Memory(Mutex::new(bytes)));
        let segment = Segment::open(Arc::clone(&file) as Arc<dyn SegmentFile>);
        let mut cursor = Arc::new(segment.unwrap().unwrap()).cursor();
        let mut cursors = vec![cursor.anew()];
        while let Step::Frame { .. } = cursor.step().unwrap() {
            cursors.push(cursor.anew());
        }
        Self {
            file,
            next,
            cursors,
        }
    }

    /// What recovery says of the segment when this byte may be wrong. It has read up to the frame
    /// that the byte is in, which is as it was, so reading begins there.
    fn verdict(&self, byte: usize) -> Result<Option<u64>, OpenError> {
        let file = Arc::clone(&self.file) as Arc<dyn SegmentFile>;
        let opened = Segment::open(file).unwrap();
        opened.map_err(|fault| match fault {
            HeaderFault::Damaged => OpenError::Damaged {
                segment: 1,
                offset: 0,
                what: Fault::SegmentHeader,
            },
            HeaderFault::Version(version) => OpenError::UnknownFormat {
                file: FIRST.to_owned(),
                version,
            },
        })?;
        let state = State {
            generation: 2,
            clean_at: None,
            last_segment: if self.next.is_some() { 2 } else { 1 },
            trim_index: 1,
            trim_term: 0,
            trimmed: false,
            vote: None,
        };
        let before = |cursor: &&Cursor| cursor.offset <= byte as u64;
        let cursor = self.cursors.iter().rev().find(before);
        let cursor = cursor.unwrap_or(&self.cursors[0]).anew();
        let mut end = End::new(cursor.next_index);
        walk_on(cursor, self.next, state, &mut end, &mut |_, _| {})
    }
}

/// Flips every bit, two threads halving the work: how many, and how many were not reported.
fn flip_every_bit(disk: &RecordingDisk) -> (u64, u64) {
    let files = disk.files();
    let next = files.get("segment-0000000002.wal").map(|bytes| {
        let file = Memory(Mutex::new(bytes.clone()));
        Arc::new(Segment::open(Arc::new(file)).unwrap().unwrap())
    });
    let (flipped, missed) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for half in 0..2 {
            let (bytes, next) = (files[FIRST].clone(), next.as_ref());
            let (flipped, missed) = (&flipped, &missed);
            scope.spawn(move || {
                let bits = bytes.len() * 8;
                let reading = Reading::new(bytes, next);
                assert_eq!(reading.verdict(0).unwrap(), None, "whole before");
                for bit in (half..bits).step_by(2) {
                    reading.file.flip(bit);
                    match reading.verdict(bit / 8) {
                        Err(OpenError::Damaged { .. } | OpenError::UnknownFormat { .. }) => {}
                        other => {
                            missed.fetch_add(1, Ordering::Relaxed);
                            println!("byte {}, bit {}: {other:?}", bit / 8, bit % 8);
                        }
                    }
                    reading.file.flip(bit);
                    flipped.fetch_add(1, Ordering::Relaxed);
                }
                assert_eq!(reading.verdict(0).unwrap(), None, "whole after");
            });
        }
    });
    (flipped.into_inner(), missed.into_inner())
}

#[test]
fn every_flipped_bit_of_a_segment_that_a_mark_closes_is_reported() {
    let (flipped, missed) = flip_every_bit(&full());
    println!("flipped {flipped} bits of a 64 KiB segment closed by a mark: {missed} not reported");
    assert_eq!((flipped, missed), (64 * 1024 * 8, 0));
}

#[test]
fn every_flipped_bit_of_a_segment_that_was_left_is_reported() {
    let (flipped, missed) = flip_every_bit(&left());
    println!("flipped {flipped} bits of a 64 KiB segment that was left: {missed} not reported");
    assert_eq!((flipped, missed), (64 * 1024 * 8, 0));
}

/// The same through a whole open of the log, which must not write a byte, and a verification.
#[test]
fn a_sample_of_flipped_bits_is_reported_by_opening_the_log_and_by_verifying_it() {
    let mut dice = Dice(97);
    for (disk, how) in [(full(), "closed by a mark"), (left(), "left")] {
        let whole = disk.files();
        let bits = whole[FIRST].len() * 8;
        let mut tried = 0_u64;
        let mut bit = dice.below(SAMPLED);
        while bit < bits {
            let mut files = whole.clone();
            files.get_mut(FIRST).unwrap()[bit / 8] ^= 1 << (bit % 8);
            let rotten = RecordingDisk::with(files);
            let what = format!("{how}: byte {}, bit {}", bit / 8, bit % 8);
            let seen = inspect::verify_on(&rotten).err();
            let error = open(&rotten, 6)
                .err()
                .unwrap_or_else(|| panic!("{what}: it opened"));
            for error in [Some(error), seen] {
                assert!(
                    matches!(
                        error,
                        Some(OpenError::Damaged { .. } | OpenError::UnknownFormat { .. })
                    ),
                    "{what}: {error:?}"
                );
            }
            let wrote = |op: &Op| !matches!(op, Op::Sync { .. } | Op::SyncDir);
            assert!(!rotten.ops().iter().any(wrote), "{what}: it was changed");
            tried += 1;
            bit += SAMPLED;
        }
        println!("{tried} sampled flips, segment {how}: all reported, none cut");
        assert_eq!(
            entries(&open(&RecordingDisk::with(whole), 6).unwrap()).len() as u64,
            if how == "left" { 12 } else { 11 }
        );
    }
}

/// The two small files: the identity is refused; of the state's two slots the other one counts.
#[test]
fn a_flipped_bit_in_a_small_file_is_refused_or_made_good_by_the_other_slot() {
    let whole = left().files();
    for (name, bytes) in [("identity", 4096), ("state", 8192)] {
        for bit in (0..bytes * 8).step_by(31) {
            let mut files = whole.clone();
            files.get_mut(name).unwrap()[bit / 8] ^= 1 << (bit % 8);
            let opened = open(&RecordingDisk::with(files), 6);
            let what = format!("{name}: byte {}, bit {}", bit / 8, bit % 8);
            match (name, opened) {
                ("state", Ok(log)) => assert_eq!(entries(&log).len(), 12, "{what}"),
                (
                    _,
                    Err(
                        OpenError::StateDamaged { .. }
                        | OpenError::UnknownFormat { .. }
                        | OpenError::Damaged { .. },
                    ),
                ) => {}
                (_, other) => panic!("{what}: {:?}", other.err()),
            }
        }
    }
}
