//! What every part of one simulation shares: chance, time, the trace, and the first thing that was wrong.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// One simulation.
#[derive(Debug)]
pub struct Scene {
    began: Instant,
    dice: Mutex<Dice>,
    trace: Mutex<Trace>,
    wrong: Mutex<Option<String>>,
}

/// A small generator, so that a seed says everything.
#[derive(Clone, Debug)]
pub struct Dice(u64);

/// What happened, as one number; and in words when somebody reads along.
#[derive(Debug)]
struct Trace {
    hash: u64,
    events: u64,
    lines: Option<Vec<String>>,
}

// === impl Scene ===

impl Scene {
    /// A scene of this seed; `told` keeps the trace in words.
    pub fn new(seed: u64, told: bool) -> Self {
        Self {
            began: Instant::now(),
            dice: Mutex::new(Dice(seed)),
            trace: Mutex::new(Trace {
                hash: 0xCBF2_9CE4_8422_2325,
                events: 0,
                lines: told.then(Vec::new),
            }),
            wrong: Mutex::new(None),
        }
    }

    /// Simulated milliseconds since the beginning.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Something happened.
    pub fn note(&self, what: &'static str, figures: &[u64]) {
        let now = self.now_ms();
        let mut trace = locked(&self.trace);
        trace.events = trace.events.saturating_add(1);
        let bytes = what.bytes().chain(now.to_le_bytes());
        let figures_bytes = figures.iter().flat_map(|figure| figure.to_le_bytes());
        for byte in bytes.chain(figures_bytes) {
            trace.hash = (trace.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
        if let Some(lines) = &mut trace.lines {
            lines.push(format!("{now:>6} ms  {what} {figures:?}"));
        }
    }

    /// Words for whoever reads along.
    pub fn say(&self, what: impl FnOnce() -> String) {
        let now = self.now_ms();
        if let Some(lines) = &mut locked(&self.trace).lines {
            lines.push(format!("{now:>6} ms  {}", what()));
        }
    }

    /// Something that must not be. Only the first one counts.
    pub fn wrong(&self, what: impl FnOnce() -> String) {
        let now = self.now_ms();
        let mut wrong = locked(&self.wrong);
        if wrong.is_none() {
            *wrong = Some(format!("after {now} ms: {}", what()));
        }
    }

    /// What was wrong.
    pub fn verdict(&self) -> Option<String> {
        locked(&self.wrong).clone()
    }

    /// The trace as one number, and how many events it holds.
    pub fn hash(&self) -> (u64, u64) {
        let trace = locked(&self.trace);
        (trace.hash, trace.events)
    }

    /// The trace in words.
    pub fn lines(&self) -> Vec<String> {
        locked(&self.trace).lines.clone().unwrap_or_default()
    }

    /// A number below `bound`.
    pub fn below(&self, bound: u64) -> u64 {
        locked(&self.dice).below(bound)
    }

    /// A number from `low` to `high`.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        low.saturating_add(self.below(high.saturating_sub(low).saturating_add(1)))
    }

    /// True so many times in a hundred.
    pub fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// So many milliseconds.
    pub fn millis(&self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    /// One of these.
    pub fn pick<T: Clone>(&self, all: &[T]) -> Option<T> {
        let at = self.below(u64::try_from(all.len()).unwrap_or(0));
        all.get(usize::try_from(at).ok()?).cloned()
    }

    /// A generator of its own.
    pub fn fork(&self) -> Dice {
        Dice(locked(&self.dice).roll())
    }
}

// === impl Dice ===

impl Dice {
    /// A generator of this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 when that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll().checked_rem(bound).unwrap_or(0)
    }
}

/// Takes a lock whatever became of its last holder.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number that stands for these bytes.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, step)
}
