//! Power cuts at every point of a group's log: appends of several entries, truncations, votes, purges.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    reason = "test code"
)]

use proptest::prelude::*;

use super::*;
use crate::disk::recording::RecordingDisk;
use crate::inspect;
use crate::reader::EntryReader;
use crate::segment::Body;
use crate::state::Kind;
use crate::tests::lab::{Dice, Ticking, random, tiny};
use crate::tests::power::{Tally, first_seed, images_wanted};

#[derive(Clone, Debug)]
enum Step {
    /// Payload sizes of the entries of one append.
    Append(Vec<usize>),
    /// Takes back so many of the last entries.
    Truncate(usize),
    Vote,
    /// Gives up so many of the first entries.
    Purge(usize),
    /// Gives up everything and goes on so far behind the end.
    Jump(u64),
    Mark,
    Restart,
}

/// What a log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    first: u64,
    entries: Vec<Entry>,
    vote: Option<StoredVote>,
}

/// What was held once so many operations had been done to the disk.
struct Moment {
    ops: usize,
    held: Held,
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![4 => 0_usize..300, 2 => 300_usize..9_000];
    prop_oneof![
        6 => prop::collection::vec(size, 1..5).prop_map(Step::Append),
        2 => (1_usize..4).prop_map(Step::Truncate),
        2 => Just(Step::Vote),
        1 => (1_usize..4).prop_map(Step::Purge),
        1 => (1_u64..4).prop_map(Step::Jump),
        1 => Just(Step::Mark),
        1 => Just(Step::Restart),
    ]
}

/// Opens the log as a group's store does, without its thread, and reads it by index.
fn open(disk: &RecordingDisk, seed: u64) -> (DiskThread, Held) {
    let dir = Arc::new(disk.clone());
    let time = Box::new(Ticking::default());
    let kind = Kind::Replicated;
    let (tape, end) = Tape::open(dir, tiny(), time, random(seed), kind, &mut drop).unwrap();
    let files = Arc::clone(&tape.files);
    let state = locked(&files.slots).state();
    let segments = locked(&files.segments).clone();
    let find = |index| locked(&files.places).find(index);
    let mut reader = EntryReader::new(segments, find, state.trim_index, end.next_index);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next().unwrap() {
        entries.push(entry);
    }
    let held = Held {
        first: state.trim_index,
        entries,
        vote: state.vote,
    };
    let thread = DiskThread::new(tape, files, News::new(Phase::Running));
    (thread, held)
}

fn play(disk: &RecordingDisk, steps: &[Step], dice: &mut Dice) -> Vec<Moment> {
    let (mut log, mut held) = open(disk, dice.roll());
    let mut moments = vec![Moment {
        ops: disk.op_count(),
        held: held.clone(),
    }];
    let mut term = 1;
    for step in steps {
        let next = held.first + held.entries.len() as u64;
        match step {
            Step::Append(sizes) => {
                let entry = |(index, size): (u64, &usize)| Entry {
                    term,
                    index,
                    log_time_ms: dice.roll() % 1_000,
                    body: match size % 5 {
                        0 => Body::Blank,
                        1 => Body::Members(vec![7; *size].into()),
                        _ => Body::Proposals(vec![vec![dice.roll() as u8; *size].into()]),
                    },
                };
                let new: Vec<Entry> = (next..).zip(sizes).map(entry).collect();
                log.append(&new, 0).unwrap();
                held.entries.extend(new);
            }
            Step::Truncate(count) => {
                let left = held.entries.len().saturating_sub(*count);
                log.truncate(held.first + left as u64).unwrap();
                held.entries.truncate(left);
                term += 1;
            }
            Step::Vote => {
                let vote = StoredVote {
                    term,
                    node: Some(dice.roll() % 3),
                    committed: dice.below(2) == 0,
                };
                log.vote(vote).unwrap();
                held.vote = Some(vote);
            }
            Step::Purge(count) => {
                let gone = held.entries.len().min(*count);
                held.first += gone as u64;
                log.purge(held.first, term).unwrap();
                held.entries.drain(..gone);
            }
            Step::Jump(further) => {
                held.first = next + further;
                log.purge(held.first, term).unwrap();
                held.entries.clear();
            }
            Step::Mark => log.tape.mark().unwrap(),
            Step::Restart => {
                drop(log);
                let (again, read) = open(disk, dice.roll());
                assert_eq!(read, held, "after a kill without a power cut");
                log = again;
            }
        }
        // What is made ahead of time is made between two steps.
        log.files.spares.wait();
        moments.push(Moment {
            ops: disk.op_count(),
            held: held.clone(),
        });
    }
    moments
}

/// Whether a disk may hold `found` while the log goes from one moment to the next.
fn is_between(before: &Held, after: &Held, found: &Held) -> bool {
    let vote = found.vote == before.vote || found.vote == after.vote;
    let entries = if after.entries.starts_with(&before.entries) && after.first == before.first {
        // An append: some of what is new, in order.
        found.first == before.first
            && found.entries.starts_with(&before.entries)
            && after.entries.starts_with(&found.entries)
    } else {
        let same = |held: &Held| found.first == held.first && found.entries == held.entries;
        same(before) || same(after)
    };
    vote && entries
}

/// The same steps, from dice.
fn steps(dice: &mut Dice) -> Vec<Step> {
    let size = |dice: &mut Dice| match dice.below(3) {
        0 | 1 => dice.below(300),
        _ => 300 + dice.below(8_700),
    };
    let step = |dice: &mut Dice| match dice.below(14) {
        0..6 => Step::Append((0..1 + dice.below(4)).map(|_| size(dice)).collect()),
        6 | 7 => Step::Truncate(1 + dice.below(3)),
        8 | 9 => Step::Vote,
        10 => Step::Purge(1 + dice.below(6)),
        11 => Step::Jump(1 + dice.roll() % 3),
        12 => Step::Mark,
        _ => Step::Restart,
    };
    (0..24).map(|_| step(dice)).collect()
}

fn every_crash_point(steps: &[Step], seed: u64, tally: &mut Tally) {
    let mut dice = Dice(seed);
    let disk = RecordingDisk::default();
    let moments = play(&disk, steps, &mut dice);
    let trace = disk.ops();
    tally.every_image(
        &trace,
        moments[0].ops,
        &mut dice,
        &mut |ops, image, what, dice| {
            let at = moments.partition_point(|moment| moment.ops <= ops) - 1;
            let before = &moments[at].held;
            let after = &moments.get(at + 1).unwrap_or(&moments[at]).held;
            let image = image();
            let (mut log, found): (DiskThread, Held) = open(&image, 1);
            assert!(
                is_between(before, after, &found),
                "seed {seed}, {what}:\nfound {found:?}\nbefore {before:?}\nafter {after:?}"
            );
            if dice.below(8) > 0 {
                return;
            }
            // It goes on from there.
            let entry = Entry {
                term: 99,
                index: log.tape.next_index(),
                log_time_ms: 1,
                body: Body::Blank,
            };
            log.append(std::slice::from_ref(&entry), 0).unwrap();
            drop(log);
            let mut expected = found;
            expected.entries.push(entry);
            assert_eq!(
                open(&image, 2).1,
                expected,
                "seed {seed}, {what}, then one more"
            );
        },
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_power_cut_loses_or_changes_what_was_told_durable(
        steps in prop::collection::vec(step(), 1..12),
        seed in any::<u64>(),
    ) {
        every_crash_point(&steps, seed, &mut Tally::default());
    }
}

#[test]
fn no_image_of_a_group_log_lost_what_was_told_durable() {
    let (mut tally, mut seed) = (Tally::default(), first_seed());
    while tally.distinct() < images_wanted() {
        let steps = steps(&mut Dice(seed));
        every_crash_point(&steps, seed, &mut tally);
        seed += 1;
    }
    assert!(
        tally.recycled > 0 || images_wanted() < 10_000,
        "no segment was recycled"
    );
    println!("a group's log: {tally}: none lost or changed what was told durable");
}

#[test]
fn an_examination_tells_of_votes_truncations_terms_and_what_was_given_up() {
    let disk = RecordingDisk::default();
    let (mut log, _) = open(&disk, 1);
    let entries = |from: u64, count: u64, term: u64| -> Vec<Entry> {
        let entry = |index| Entry {
            term,
            index,
            log_time_ms: index,
            body: Body::Proposals(vec![vec![7; 5_000].into(), vec![8; 10].into()]),
        };
        (from..from + count).map(entry).collect()
    };
    log.append(&entries(0, 10, 1), 4).unwrap();
    log.truncate(7).unwrap();
    let vote = StoredVote {
        term: 2,
        node: Some(3),
        committed: true,
    };
    log.vote(vote).unwrap();
    log.append(&entries(7, 5, 2), 6).unwrap();
    log.purge(4, 1).unwrap();
    let report = inspect::examine_on(&disk).unwrap();
    assert!(
        report.replicated && !report.clean && report.damage.is_empty(),
        "{report:?}"
    );
    let told = (
        report.first_index,
        report.last_index,
        report.committed_index,
    );
    assert_eq!(told, (4, Some(11), 6));
    assert_eq!(
        (report.entries, report.proposals, report.proposal_bytes),
        (8, 16, 8 * 5_010)
    );
    assert_eq!((report.trim_index, report.trim_term), (4, 1));
    let vote = report.vote.unwrap();
    assert_eq!((vote.term, vote.node, vote.committed), (2, Some(3), true));
    let terms: Vec<_> = report
        .terms
        .iter()
        .map(|one| (one.term, one.first_index, one.last_index))
        .collect();
    assert_eq!(terms, [(1, 4, 6), (2, 7, 11)]);
    let [truncation] = report.truncations.as_slice() else {
        panic!("{report:?}")
    };
    assert_eq!(truncation.from_index, 7);
    let frames = inspect::frames_on(&disk, 0).unwrap().map(Result::unwrap);
    let cut: Vec<_> = frames.filter(|frame| frame.kind == "truncation").collect();
    assert_eq!((cut.len(), cut[0].offset), (1, truncation.offset));
}
