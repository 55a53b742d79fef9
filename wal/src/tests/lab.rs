//! What the tests on the recording disk share: a log that is driven step by step.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::appender::{Appender, Poison};
use crate::disk::recording::RecordingDisk;
use crate::shared::Pending;
use crate::tape::Random;
use crate::wal::prepare;
use crate::{Applied, Config, NodeId, OpenError, ProposeError, StateMachine, TimeSource, Why};

/// Keeps all it is given. The outcome is how much had been done to the disk by then: what happens
/// to the disk later cannot have been waited for.
pub(crate) struct Keep {
    pub(crate) entries: Vec<(Applied, Bytes)>,
    disk: RecordingDisk,
}

impl Keep {
    pub(crate) fn new(disk: RecordingDisk) -> Self {
        Self {
            entries: Vec::new(),
            disk,
        }
    }
}

impl StateMachine for Keep {
    type Outcome = usize;
    fn apply(&mut self, at: Applied, proposal: &[u8]) -> usize {
        self.entries.push((at, Bytes::copy_from_slice(proposal)));
        self.disk.op_count()
    }
}

/// Advances by one millisecond whenever it is asked.
#[derive(Default)]
pub(crate) struct Ticking(AtomicU64);

impl TimeSource for Ticking {
    fn monotonic_ms(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
    fn wall_ms(&self) -> u64 {
        1_700_000_000_000
    }
}

/// A small generator, so that a seed says everything.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound.max(1) as u64) as usize
    }
}

pub(crate) fn config() -> Config {
    Config {
        segment_bytes: 64 * 1024,
        budget_bytes: 4 * 1024 * 1024,
        batch_bytes_max: 40 * 1024,
        ..Config::new("", NodeId(7), "north")
    }
}

pub(crate) fn random(seed: u64) -> Random {
    let mut dice = Dice(seed);
    Box::new(move || (u128::from(dice.roll()) << 64) | u128::from(dice.roll()))
}

/// Segments of eight blocks: a log soon goes over many.
pub(crate) fn tiny() -> Config {
    Config {
        segment_bytes: 32 * 1024,
        budget_bytes: 512 * 1024,
        batch_bytes_max: 24 * 1024,
        ..config()
    }
}

pub(crate) fn open(disk: &RecordingDisk, seed: u64) -> Result<Appender<Keep>, OpenError> {
    open_as(disk, seed, config())
}

pub(crate) fn open_as(
    disk: &RecordingDisk,
    seed: u64,
    config: Config,
) -> Result<Appender<Keep>, OpenError> {
    let keep = Keep::new(disk.clone());
    let dir = Arc::new(disk.clone());
    prepare(
        dir,
        config,
        Box::new(Ticking::default()),
        keep,
        random(seed),
    )
}

/// Commits one batch and gives the outcomes.
pub(crate) fn commit(log: &mut Appender<Keep>, proposals: &[Bytes]) -> Vec<usize> {
    try_commit(log, proposals).unwrap()
}

/// The same on a disk that may fail. If it does, every waiter has been told so.
pub(crate) fn try_commit(
    log: &mut Appender<Keep>,
    proposals: &[Bytes],
) -> Result<Vec<usize>, Poison> {
    let (batch, answers): (Vec<_>, Vec<_>) = proposals
        .iter()
        .map(|proposal| {
            let (done, answer) = oneshot::channel();
            (
                Pending {
                    proposal: proposal.clone(),
                    done,
                    queued_us: 0,
                },
                answer,
            )
        })
        .unzip();
    let result = log.commit(batch);
    let answers = answers
        .into_iter()
        .map(|mut answer| answer.try_recv().unwrap());
    if let Err(poison) = result {
        for answer in answers {
            assert_eq!(
                answer.unwrap_err(),
                ProposeError::Unknown { why: Why::Poisoned }
            );
        }
        return Err(poison);
    }
    Ok(answers.map(|answer| *answer.unwrap().outcome()).collect())
}

pub(crate) fn entries(log: &Appender<Keep>) -> Vec<Bytes> {
    let keep = log.shared.machine.read().unwrap();
    keep.entries
        .iter()
        .map(|(_, proposal)| proposal.clone())
        .collect()
}
