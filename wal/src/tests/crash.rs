//! Power cuts at every point, with everything that a disk may then have kept.

use bytes::Bytes;
use proptest::prelude::*;

use super::lab::{Dice, Keep, commit, open_as, tiny, try_commit};
use super::power::{Tally, first_seed, images_wanted};
use crate::appender::Appender;
use crate::disk::recording::{Failing, RecordingDisk};
use crate::wal::trim_shared;

#[derive(Clone, Debug)]
enum Step {
    /// Sizes of the proposals of a batch.
    Batch(Vec<usize>),
    Mark,
    /// Make the next segment ahead of time.
    Spare,
    /// Give up all but so many of the last batches.
    Trim(u64),
    /// Stop cleanly and open again.
    Restart,
    /// End without a word and open again.
    Kill,
    /// A sync fails under a batch, the process ends, and the log is opened again.
    FailedSync(Failing, usize),
}

/// A proposal and the number of disk operations after which it was acknowledged.
#[derive(Clone)]
struct Sent {
    index: u64,
    proposal: Bytes,
    acked_at: usize,
    /// After so many operations the disk had lost it, and nobody had been told of it.
    lost_at: Option<usize>,
}

/// What was asked of a log.
#[derive(Default)]
struct Trace {
    sent: Vec<Sent>,
    /// From so many operations on, batches below an index may be gone.
    trims: Vec<(usize, u64)>,
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![4 => 0_usize..300, 2 => 300_usize..5_000, 1 => 5_000_usize..12_000];
    prop_oneof![
        8 => prop::collection::vec(size, 1..3).prop_map(Step::Batch),
        2 => Just(Step::Mark),
        2 => Just(Step::Spare),
        1 => (0_u64..4).prop_map(Step::Trim),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
        1 => (0_usize..9_000).prop_map(|size| Step::FailedSync(Failing::Sync, size)),
        1 => (0_usize..9_000).prop_map(|size| Step::FailedSync(Failing::SyncLosing, size)),
    ]
}

/// The same steps, from dice.
fn steps(dice: &mut Dice) -> Vec<Step> {
    let size = |dice: &mut Dice| match dice.below(7) {
        0..4 => dice.below(300),
        4..6 => dice.below(5_000),
        _ => 5_000 + dice.below(7_000),
    };
    let step = |dice: &mut Dice| match dice.below(18) {
        0..8 => Step::Batch((0..1 + dice.below(2)).map(|_| size(dice)).collect()),
        8..10 => Step::Mark,
        10..12 => Step::Spare,
        12..14 => Step::Trim(dice.roll() % 4),
        14 => Step::Restart,
        15 => Step::Kill,
        16 => Step::FailedSync(Failing::Sync, dice.below(9_000)),
        _ => Step::FailedSync(Failing::SyncLosing, dice.below(9_000)),
    };
    (0..30).map(|_| step(dice)).collect()
}

fn open(disk: &RecordingDisk, seed: u64) -> Appender<Keep> {
    open_as(disk, seed, tiny()).unwrap()
}

fn play(disk: &RecordingDisk, steps: &[Step], dice: &mut Dice) -> Trace {
    let mut log = open(disk, dice.roll());
    let mut trace = Trace::default();
    for step in steps {
        match step {
            Step::Batch(sizes) => {
                let proposals: Vec<Bytes> = sizes.iter().map(|size| noise(*size, dice)).collect();
                let acks = commit(&mut log, &proposals);
                let index = log.shared.position.borrow().index;
                let new = proposals.into_iter().zip(acks);
                trace.sent.extend(new.map(|(proposal, acked_at)| Sent {
                    index,
                    proposal,
                    acked_at,
                    lost_at: None,
                }));
            }
            Step::Mark => log.mark().unwrap(),
            Step::Spare => log.wait_for_spare(),
            Step::Trim(left) => {
                let last = log.shared.position.borrow().index;
                let index = (last + 1).saturating_sub(*left);
                trace.trims.push((disk.op_count(), index));
                trim_shared(&log.shared, index).unwrap();
            }
            Step::FailedSync(how, size) => {
                let proposal = noise(*size, dice);
                let index = log.shared.position.borrow().index + 1;
                disk.fail(*how, 0, std::io::ErrorKind::Other);
                try_commit(&mut log, std::slice::from_ref(&proposal)).unwrap_err();
                let lost_at = disk.op_count();
                drop(log);
                disk.heal();
                log = open(disk, dice.roll());
                // Nobody was told of it. If it came back, it counts from now on.
                let back = log.shared.position.borrow().index == index;
                let (acked_at, lost_at) = if back {
                    (disk.op_count(), None)
                } else {
                    (usize::MAX, Some(lost_at))
                };
                trace.sent.push(Sent {
                    index,
                    proposal,
                    acked_at,
                    lost_at,
                });
            }
            Step::Restart | Step::Kill => {
                if matches!(step, Step::Restart) {
                    log.finish().unwrap();
                }
                drop(log);
                log = open(disk, dice.roll());
            }
        }
    }
    trace
}

/// Bytes of which any two sectors differ.
fn noise(bytes: usize, dice: &mut Dice) -> Bytes {
    let words = (0..bytes / 8 + 1).flat_map(|_| dice.roll().to_le_bytes());
    words.take(bytes).collect::<Vec<u8>>().into()
}

type Found = Vec<(u64, Bytes)>;

fn found(log: &Appender<Keep>) -> Found {
    let keep = log.shared.machine.read().unwrap();
    let entries = keep.entries.iter();
    entries
        .map(|(at, proposal)| (at.index, proposal.clone()))
        .collect()
}

impl Trace {
    /// Opens what is left and checks: all that was acknowledged and not given up, perhaps more of
    /// what was sent, in order, and nothing else.
    fn check(&self, image: &RecordingDisk, ops: usize, what: &str) -> Found {
        let log = open_as(image, 1, tiny()).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let found = found(&log);
        let given_up = self.trims.iter().filter(|(from, _)| *from <= ops);
        let given_up = given_up.map(|(_, index)| *index).max().unwrap_or(0);
        let on_disk = |sent: &&Sent| sent.lost_at.is_none_or(|lost| ops < lost);
        let held: Vec<&Sent> = self.sent.iter().filter(on_disk).collect();
        let from = match found.first() {
            Some((index, _)) => held.iter().position(|sent| sent.index == *index),
            None => Some(held.iter().filter(|sent| sent.index < given_up).count()),
        };
        let from = from.unwrap_or_else(|| panic!("{what}: it begins with what was never sent"));
        let (before, rest) = held.split_at(from);
        assert!(
            before.iter().all(|sent| sent.index < given_up),
            "{what}: a batch that was not given up is gone"
        );
        assert!(found.len() <= rest.len(), "{what}: more than was ever sent");
        for ((index, proposal), sent) in found.iter().zip(rest) {
            let same = *index == sent.index && *proposal == sent.proposal;
            assert!(same, "{what}: something else came back as batch {index}");
        }
        let lost = rest[found.len()..].iter().find(|sent| sent.acked_at <= ops);
        if let Some(lost) = lost {
            panic!("{what}: acknowledged batch {} is lost", lost.index);
        }
        found
    }

    fn every_image(&self, disk: &RecordingDisk, tally: &mut Tally, dice: &mut Dice, seed: u64) {
        let trace = disk.ops();
        tally.every_image(&trace, 0, dice, &mut |ops, image, what, dice| {
            let what = format!("seed {seed}, {what}");
            let recovered = image();
            let found = self.check(&recovered, ops, &what);
            if dice.below(8) == 0 {
                goes_on(&recovered, &found, &what);
                self.crash_in_recovery(&image(), ops, &found, &what, dice);
            }
        });
    }

    /// Power goes again while the log is being opened.
    fn crash_in_recovery(
        &self,
        image: &RecordingDisk,
        ops: usize,
        found: &Found,
        what: &str,
        dice: &mut Dice,
    ) {
        drop(open(image, 4));
        for again in 0..=image.op_count() {
            let point = image.crash_point(again);
            let renames = dice.below(point.renames() + 1);
            let image = point.image(renames, |_| dice.below(2) == 0);
            let what = format!("{what}, and again after {again} operations of recovery");
            let now = self.check(&image, ops, &what);
            assert!(now.ends_with(found), "{what}: something found is gone");
        }
    }
}

/// The recovered log goes on: it takes an entry, and both are there after another open.
fn goes_on(image: &RecordingDisk, before: &Found, what: &str) {
    let probe = Bytes::from_static(b"probe");
    let mut log = open(image, 2);
    commit(&mut log, std::slice::from_ref(&probe));
    drop(log);
    let now = found(&open(image, 3));
    let (last, rest) = now.split_last().unwrap();
    assert!(
        last.1 == probe && rest == before,
        "{what}: the log did not go on"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_power_cut_loses_or_changes_what_was_acknowledged(
        steps in prop::collection::vec(step(), 1..12),
        seed in any::<u64>(),
    ) {
        let (mut dice, disk) = (Dice(seed), RecordingDisk::default());
        let trace = play(&disk, &steps, &mut dice);
        trace.every_image(&disk, &mut Tally::default(), &mut dice, seed);
    }
}

#[test]
fn no_image_of_a_log_lost_what_was_acknowledged() {
    let (mut tally, mut seed) = (Tally::default(), first_seed());
    while tally.distinct() < images_wanted() {
        let (mut dice, disk) = (Dice(seed), RecordingDisk::default());
        let steps = steps(&mut dice);
        let trace = play(&disk, &steps, &mut dice);
        trace.every_image(&disk, &mut tally, &mut dice, seed);
        seed += 1;
    }
    assert!(
        tally.recycled > 0 || images_wanted() < 10_000,
        "no segment was recycled"
    );
    println!("a keeper's own log: {tally}: none lost what was acknowledged");
}
