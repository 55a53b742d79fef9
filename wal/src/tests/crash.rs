//! Power cuts at every point, with everything that a disk may then have kept.

use bytes::Bytes;
use proptest::prelude::*;

use super::lab::{Dice, commit, entries, open, try_commit};
use crate::disk::recording::{Failing, RecordingDisk};

#[derive(Clone, Debug)]
enum Step {
    /// Sizes of the proposals of a batch.
    Batch(Vec<usize>),
    Mark,
    /// Make the next segment ahead of time.
    Spare,
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
    proposal: Bytes,
    acked_at: usize,
    /// After so many operations the disk had lost it, and nobody had been told of it.
    lost_at: Option<usize>,
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![4 => 0_usize..300, 2 => 300_usize..5_000, 1 => 5_000_usize..12_000];
    prop_oneof![
        8 => prop::collection::vec(size, 1..4).prop_map(Step::Batch),
        2 => Just(Step::Mark),
        2 => Just(Step::Spare),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
        1 => (0_usize..9_000).prop_map(|size| Step::FailedSync(Failing::Sync, size)),
        1 => (0_usize..9_000).prop_map(|size| Step::FailedSync(Failing::SyncLosing, size)),
    ]
}

fn play(disk: &RecordingDisk, steps: &[Step], dice: &mut Dice) -> Vec<Sent> {
    let mut log = open(disk, dice.roll()).unwrap();
    let mut sent = Vec::new();
    for step in steps {
        match step {
            Step::Batch(sizes) => {
                let proposals: Vec<Bytes> = sizes.iter().map(|size| noise(*size, dice)).collect();
                let acks = commit(&mut log, &proposals);
                let new = proposals.into_iter().zip(acks);
                sent.extend(new.map(|(proposal, acked_at)| Sent {
                    proposal,
                    acked_at,
                    lost_at: None,
                }));
            }
            Step::Mark => log.mark().unwrap(),
            Step::Spare => log.wait_for_spare(),
            Step::FailedSync(how, size) => {
                let proposal = noise(*size, dice);
                disk.fail(*how, 0, std::io::ErrorKind::Other);
                try_commit(&mut log, std::slice::from_ref(&proposal)).unwrap_err();
                let lost_at = disk.op_count();
                drop(log);
                disk.heal();
                log = open(disk, dice.roll()).unwrap();
                // Nobody was told of it. If it came back, it counts from now on.
                let back = entries(&log).len() > held(&sent, disk.op_count()).len();
                sent.push(match back {
                    true => Sent {
                        proposal,
                        acked_at: disk.op_count(),
                        lost_at: None,
                    },
                    false => Sent {
                        proposal,
                        acked_at: usize::MAX,
                        lost_at: Some(lost_at),
                    },
                });
            }
            Step::Restart | Step::Kill => {
                if matches!(step, Step::Restart) {
                    log.finish().unwrap();
                }
                drop(log);
                log = open(disk, dice.roll()).unwrap();
            }
        }
    }
    sent
}

/// What a disk may hold after so many operations.
fn held(sent: &[Sent], ops: usize) -> Vec<Sent> {
    sent.iter()
        .filter(|sent| sent.lost_at.is_none_or(|lost| ops < lost))
        .cloned()
        .collect()
}

/// Bytes of which any two sectors differ.
fn noise(bytes: usize, dice: &mut Dice) -> Bytes {
    let words = (0..bytes / 8 + 1).flat_map(|_| dice.roll().to_le_bytes());
    words.take(bytes).collect::<Vec<u8>>().into()
}

/// Opens what is left and checks: all that was acknowledged, perhaps more, nothing else.
fn check(image: &RecordingDisk, sent: &[Sent], acked: usize, what: &str) -> Vec<Bytes> {
    let log = open(image, 1).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let found = entries(&log);
    assert!(
        found.len() >= acked,
        "{what}: {} of {acked} acknowledged are left",
        found.len()
    );
    assert!(found.len() <= sent.len(), "{what}: more than was ever sent");
    let same = found
        .iter()
        .zip(sent)
        .all(|(found, sent)| *found == sent.proposal);
    assert!(same, "{what}: something else came back");
    found
}

/// The recovered log goes on: it takes an entry, and both are there after another open.
fn goes_on(image: &RecordingDisk, found: &[Bytes], what: &str) {
    let probe = Bytes::from_static(b"probe");
    let mut log = open(image, 2).unwrap();
    commit(&mut log, std::slice::from_ref(&probe));
    drop(log);
    let log = open(image, 3).unwrap_or_else(|error| panic!("{what}, then one more: {error:?}"));
    let now = entries(&log);
    assert!(
        now.split_last() == Some((&probe, found)),
        "{what}: the log did not go on"
    );
}

fn every_crash_point(steps: &[Step], seed: u64) -> usize {
    let mut dice = Dice(seed);
    let disk = RecordingDisk::default();
    let sent = play(&disk, steps, &mut dice);
    let mut images = 0;
    for ops in 0..=disk.op_count() {
        let point = disk.crash_point(ops);
        let sent = held(&sent, ops);
        let acked = sent.iter().take_while(|sent| sent.acked_at <= ops).count();
        let (sectors, renames) = (point.sectors(), point.renames());
        let mut cuts: Vec<Vec<bool>> = (0..=sectors)
            .map(|kept| (0..sectors).map(|at| at < kept).collect())
            .collect();
        if sectors > 0 {
            cuts.extend((0..4).map(|_| (0..sectors).map(|_| dice.below(2) == 0).collect()));
        }
        for (number, cut) in cuts.iter().enumerate() {
            let kept = if number == 0 {
                0
            } else {
                dice.below(renames + 1)
            };
            let what = format!("after {ops} operations, {kept} renames, sectors {cut:?}");
            let image = || point.image(kept, |at| cut[at]);
            let recovered = image();
            let found = check(&recovered, &sent, acked, &what);
            images += 1;
            if dice.below(8) == 0 {
                goes_on(&recovered, &found, &what);
                crash_in_recovery(&image(), &sent, found.len(), &mut dice);
            }
        }
    }
    images
}

/// Power goes again while the log is being opened.
fn crash_in_recovery(image: &RecordingDisk, sent: &[Sent], found: usize, dice: &mut Dice) {
    drop(open(image, 4).unwrap());
    for ops in 0..=image.op_count() {
        let point = image.crash_point(ops);
        let renames = dice.below(point.renames() + 1);
        let again = point.image(renames, |_| dice.below(2) == 0);
        check(&again, sent, found, "a second power cut, during recovery");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn no_power_cut_loses_or_changes_what_was_acknowledged(
        steps in prop::collection::vec(step(), 1..12),
        seed in any::<u64>(),
    ) {
        every_crash_point(&steps, seed);
    }
}

#[test]
fn a_log_over_many_segments_survives_every_power_cut() {
    let batch = || Step::Batch(vec![12_000, 3_000]);
    let steps: Vec<Step> = (0..14).flat_map(|_| [batch(), Step::Spare]).collect();
    let images = every_crash_point(&steps, 7);
    assert!(images > 500, "only {images} images were tried");
}
