//! Bytes that rot after they were durable are reported, and nothing is cut.

use bytes::Bytes;
use proptest::prelude::*;

use super::lab::{Dice, commit, entries, open};
use crate::disk::recording::{Op, RecordingDisk};
use crate::{Fault, OpenError, inspect};

const FIRST: &str = "segment-0000000001.wal";
const SECOND: &str = "segment-0000000002.wal";

/// A log of five batches of one, two, one, three and one blocks, and what is behind them.
fn written(then: &str) -> RecordingDisk {
    let disk = RecordingDisk::default();
    let mut log = open(&disk, 5).unwrap();
    for bytes in [100, 6_000, 4_000, 11_000, 50] {
        commit(&mut log, &[Bytes::from(vec![0x5A; bytes])]);
    }
    match then {
        "nothing" => {}
        "mark" => log.mark().unwrap(),
        "stop" => log.finish().unwrap(),
        "next segment" => {
            for _ in 0..2 {
                commit(&mut log, &[Bytes::from(vec![0x5B; 30_000])]);
            }
        }
        other => panic!("{other}"),
    }
    disk
}

/// Where the frames lie: offset, and length up to the end of the payload.
fn frames() -> Vec<(usize, usize)> {
    let mut offset = 4096;
    [100_usize, 6_000, 4_000, 11_000, 50]
        .iter()
        .map(|bytes| {
            let (at, used) = (offset, 64 + 8 + bytes);
            offset += (used + 32).next_multiple_of(4096);
            (at, used)
        })
        .collect()
}

fn edited(disk: &RecordingDisk, name: &str, edit: impl FnOnce(&mut Vec<u8>)) -> RecordingDisk {
    let mut files = disk.files();
    edit(files.get_mut(name).unwrap());
    RecordingDisk::with(files)
}

/// Opening fails at this place, and not a byte was written.
fn check_damaged(disk: &RecordingDisk, segment: u64, offset: usize, why: &str) {
    let error = open(disk, 6)
        .err()
        .unwrap_or_else(|| panic!("{why}: it opened"));
    match error {
        OpenError::Damaged {
            segment: at,
            offset: byte,
            ..
        } => {
            assert_eq!((at, byte), (segment, offset as u64), "{why}");
        }
        other => panic!("{why}: {other:?}"),
    }
    let writes = disk
        .ops()
        .iter()
        .any(|op| !matches!(op, Op::Sync { .. } | Op::SyncDir));
    assert!(!writes, "{why}: a damaged log was changed");
    assert!(
        inspect::verify_on(disk).is_err(),
        "{why}: verify saw nothing"
    );
}

#[test]
fn a_flipped_bit_in_an_acknowledged_frame_is_damage_when_anything_later_proves_the_frame() {
    let mut dice = Dice(11);
    for (then, last_is_proven) in [
        ("nothing", false),
        ("mark", true),
        ("stop", true),
        ("next segment", true),
    ] {
        let disk = written(then);
        let frames = frames();
        let proven = if last_is_proven {
            frames.len()
        } else {
            frames.len() - 1
        };
        for (number, (offset, used)) in frames.iter().take(proven).enumerate() {
            for _ in 0..40 {
                let byte = offset + dice.below(*used);
                let bit = 1_u8 << dice.below(8);
                let rotten = edited(&disk, FIRST, |bytes| bytes[byte] ^= bit);
                let why = format!("then {then}: frame {number}, byte {byte}, bit {bit}");
                check_damaged(&rotten, 1, *offset, &why);
            }
        }
    }
}

#[test]
fn a_frame_that_was_lost_whole_is_damage_when_a_later_one_is_there() {
    let disk = written("nothing");
    for (offset, used) in frames().into_iter().take(4) {
        let blocks = used.next_multiple_of(4096);
        let lost = edited(&disk, FIRST, |bytes| bytes[offset..offset + blocks].fill(0));
        check_damaged(&lost, 1, offset, "a lost write");
    }
}

#[test]
fn a_frame_written_to_the_wrong_place_does_not_verify() {
    let disk = written("nothing");
    let moved = edited(&disk, FIRST, |bytes| bytes.copy_within(8192..16_384, 4096));
    check_damaged(&moved, 1, 4096, "a misdirected write");
}

#[test]
fn the_last_frame_of_a_killed_run_with_nothing_behind_it_counts_as_torn() {
    let disk = written("nothing");
    let (offset, _) = frames()[4];
    let torn = edited(&disk, FIRST, |bytes| bytes[offset + 70] ^= 1);
    let report = inspect::verify_on(&torn).unwrap();
    assert_eq!(report.torn.unwrap().offset, offset as u64);
    let log = open(&torn, 6).unwrap();
    assert_eq!(entries(&log).len(), 4);
    assert_eq!(log.shared.torn_tails_cut, 1);
    let copy = torn
        .files()
        .into_iter()
        .find(|(name, _)| name.starts_with("torn-"))
        .unwrap()
        .1;
    assert_eq!(copy[70], disk.files()[FIRST][offset + 70] ^ 1);
    assert!(torn.files()[FIRST][offset..].iter().all(|byte| *byte == 0));
}

#[test]
fn anything_behind_the_end_of_a_log_that_was_closed_cleanly_is_damage() {
    let end = frames()[4].0 + 4096;
    let stopped = edited(&written("stop"), FIRST, |bytes| bytes[end + 100] = 1);
    check_damaged(&stopped, 1, end, "junk behind a clean end");
    let killed = edited(&written("nothing"), FIRST, |bytes| bytes[end + 100] = 1);
    assert_eq!(entries(&open(&killed, 6).unwrap()).len(), 5);
}

#[test]
fn a_segment_that_is_gone_is_damage() {
    let disk = written("next segment");
    for name in [FIRST, SECOND] {
        let mut files = disk.files();
        files.remove(name).unwrap();
        let error = open(&RecordingDisk::with(files), 6).err().unwrap();
        assert!(
            matches!(
                error,
                OpenError::Damaged {
                    what: Fault::Missing,
                    ..
                }
            ),
            "{name}: {error:?}"
        );
    }
}

#[test]
fn a_damaged_segment_header_and_an_unknown_version_are_refused() {
    let disk = written("nothing");
    let header = edited(&disk, FIRST, |bytes| bytes[60] ^= 4);
    check_damaged(&header, 1, 0, "a segment header");
    let newer = edited(&disk, FIRST, |bytes| bytes[8] = 3);
    let error = open(&newer, 6).err().unwrap();
    assert!(
        matches!(error, OpenError::UnknownFormat { version: 3, .. }),
        "{error:?}"
    );
    let identity = edited(&disk, "identity", |bytes| bytes[12] ^= 1);
    let error = open(&identity, 6).err().unwrap();
    assert!(
        matches!(error, OpenError::StateDamaged { file: "identity" }),
        "{error:?}"
    );
}

#[test]
fn one_state_slot_may_be_unreadable_but_not_both() {
    let disk = written("nothing");
    for slot in [0, 4096] {
        let one = edited(&disk, "state", |bytes| bytes[slot + 20] ^= 1);
        assert_eq!(entries(&open(&one, 6).unwrap()).len(), 5);
    }
    let both = edited(&disk, "state", |bytes| {
        bytes[20] ^= 1;
        bytes[4096 + 20] ^= 1;
    });
    let error = open(&both, 6).err().unwrap();
    assert!(
        matches!(error, OpenError::StateDamaged { file: "state" }),
        "{error:?}"
    );
}

#[test]
fn a_foreign_segment_is_refused() {
    let disk = written("nothing");
    let other = RecordingDisk::default();
    drop(open(&other, 99).unwrap());
    let mut files = disk.files();
    files.insert(FIRST.to_owned(), other.files()[FIRST].clone());
    let error = open(&RecordingDisk::with(files), 6).err().unwrap();
    assert!(
        matches!(error, OpenError::Foreign { node: 7, .. }),
        "{error:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever becomes of the bytes, nothing but what was written comes back, in order.
    #[test]
    fn no_damage_makes_an_entry_that_was_not_written(
        seed in any::<u64>(),
        edits in 1_usize..6,
        then in prop::sample::select(vec!["nothing", "mark", "stop", "next segment"]),
    ) {
        let disk = written(then);
        let whole = entries(&open(&RecordingDisk::with(disk.files()), 6).unwrap());
        let mut dice = Dice(seed);
        let mut files = disk.files();
        let names: Vec<String> = files.keys().cloned().collect();
        for _ in 0..edits {
            let bytes = files.get_mut(&names[dice.below(names.len())]).unwrap();
            // Near the front of a block, where headers are, or anywhere.
            let block = dice.below(bytes.len() / 4096) * 4096;
            let reach = if dice.below(2) == 0 { 96 } else { 4096 };
            let at = block + dice.below(reach);
            let length = (1 + dice.below(64)).min(bytes.len() - at);
            bytes[at..at + length].fill_with(|| dice.roll() as u8);
        }
        if let Ok(log) = open(&RecordingDisk::with(files), 6) {
            prop_assert!(whole.starts_with(&entries(&log)));
        }
    }
}
