//! What power cuts may leave of a recorded trace of writes, image by image.
//!
//! An image is the disk after the first so many operations, with some of what was not synced by then:
//! of the 512-byte sectors any subset, of the changes to the directory the first ones. Keeping a later
//! write and losing an earlier one is a subset too, so the subsets are the reorderings as well.

use std::collections::{BTreeMap, BTreeSet};

use super::lab::Dice;
use crate::disk::recording::{CrashPoint, Op, RecordingDisk};

/// Sectors of a block.
const BLOCK_SECTORS: usize = 8;
/// Up to so many sectors every subset is tried.
const ALL_SUBSETS_MAX: usize = 7;
const RANDOM_SUBSETS: usize = 12;

/// How many different images to try of each kind of log: `STANDIN_CRASH_IMAGES`, or as many as a test
/// run has time for. A hundred thousand in all: `STANDIN_CRASH_IMAGES=50000 cargo nextest run -p
/// standin-wal no_image --no-capture`.
pub(crate) fn images_wanted() -> u64 {
    const DEFAULT: u64 = 20_000;
    let told = std::env::var("STANDIN_CRASH_IMAGES").ok();
    told.map_or(DEFAULT, |told| told.parse().expect("a count of images"))
}

/// The first seed: `STANDIN_CRASH_SEED`, to replay one, or 1.
pub(crate) fn first_seed() -> u64 {
    let told = std::env::var("STANDIN_CRASH_SEED").ok();
    told.map_or(1, |told| told.parse().expect("a seed"))
}

/// Is shown how many operations came before a power cut, the image, and which one it is.
pub(crate) type Look<'a> = dyn FnMut(usize, &dyn Fn() -> RecordingDisk, &str, &mut Dice) + 'a;

/// Images seen.
#[derive(Default)]
pub(crate) struct Tally {
    images: u64,
    traces: u64,
    /// Segments in files that had been other segments.
    pub(crate) recycled: usize,
    digests: BTreeSet<u32>,
}

impl Tally {
    /// How many differ from each other (by a short check value: a few are taken for the same).
    pub(crate) fn distinct(&self) -> u64 {
        self.digests.len() as u64
    }

    /// Shows every image of a trace.
    pub(crate) fn every_image(
        &mut self,
        trace: &[Op],
        from: usize,
        dice: &mut Dice,
        look: &mut Look<'_>,
    ) {
        self.traces += 1;
        let recycled = |op: &&Op| {
            let names = match op {
                Op::Rename { from, to } => (from.as_str(), to.as_str()),
                _ => return false,
            };
            names.0.starts_with("worn-") && names.1.starts_with("segment-")
        };
        self.recycled += trace.iter().filter(recycled).count();
        let mut point = CrashPoint::new(BTreeMap::new(), Vec::new());
        for ops in 0..=trace.len() {
            if let Some(op) = ops.checked_sub(1).map(|last| &trace[last]) {
                let before = (point.sectors(), point.renames());
                point.replay(op);
                // A sync of what was durable already leaves no new image.
                let synced = matches!(op, Op::Sync { .. } | Op::SyncDir);
                if synced && before == (point.sectors(), point.renames()) {
                    continue;
                }
            }
            if ops < from {
                continue;
            }
            let renames = point.renames();
            let sectors = point.sectors_that_matter();
            for (number, kept) in subsets(sectors.len(), dice).into_iter().enumerate() {
                // Nothing and everything with each state of the directory, the rest with any.
                let directories: Vec<usize> = match number {
                    0 | 1 => (0..=renames).collect(),
                    _ => vec![dice.below(renames + 1)],
                };
                for renamed in directories {
                    let keep = |at: usize| {
                        let place = sectors.binary_search(&at);
                        place.is_ok_and(|place| kept[place])
                    };
                    let image = || point.image(renamed, keep);
                    let what = format!(
                        "{ops} operations, {renamed} of {renames} renames, sectors {kept:?}"
                    );
                    self.images += 1;
                    self.digests.insert(image().digest());
                    look(ops, &image, &what, dice);
                }
            }
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (images, traces, distinct) = (self.images, self.traces, self.distinct());
        write!(
            f,
            "{images} crash images of {traces} traces, {distinct} distinct, {} segments recycled",
            self.recycled
        )
    }
}

/// Subsets of so many sectors, nothing and everything first.
fn subsets(sectors: usize, dice: &mut Dice) -> Vec<Vec<bool>> {
    let subset = |keep: &dyn Fn(usize) -> bool| -> Vec<bool> { (0..sectors).map(keep).collect() };
    if sectors <= ALL_SUBSETS_MAX {
        let all = (1_usize << sectors) - 1;
        let mut masks: Vec<usize> = (0..=all).collect();
        masks.swap(1.min(all), all);
        return masks
            .into_iter()
            .map(|mask| subset(&|at| mask & (1 << at) != 0))
            .collect();
    }
    let mut found = vec![subset(&|_| false), subset(&|_| true)];
    for at in 0..sectors {
        found.push(subset(&|sector| sector < at));
        found.push(subset(&|sector| sector >= at));
        found.push(subset(&|sector| sector != at));
        found.push(subset(&|sector| sector == at));
    }
    for at in (0..sectors).step_by(BLOCK_SECTORS) {
        let block = at / BLOCK_SECTORS;
        found.push(subset(&|sector| sector / BLOCK_SECTORS != block));
        found.push(subset(&|sector| sector / BLOCK_SECTORS == block));
    }
    for _ in 0..RANDOM_SUBSETS {
        let (sector_bits, block_bits) = (dice.roll(), dice.roll());
        found.push(subset(&|sector| sector_bits >> (sector % 61) & 1 != 0));
        found.push(subset(&|sector| {
            block_bits >> (sector / BLOCK_SECTORS % 61) & 1 != 0
        }));
    }
    let mut seen = BTreeSet::new();
    found.retain(|kept| seen.insert(kept.clone()));
    found
}
