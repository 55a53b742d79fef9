//! What a writer saw: how long each durable append took, and when.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// A slot of the track of maxima: fine enough to tell a rotation from what is beside it.
const SLOT: Duration = Duration::from_millis(5);
/// Longest latency that is told apart, microseconds.
const MOST_US: u64 = 120_000_000;

/// The window of one measurement and all that its writers noted.
pub struct Recorder {
    begun: Instant,
    warm: Duration,
    counted: Duration,
    all: Mutex<Histogram<u64>>,
    /// Longest append that ended in each slot, microseconds.
    track: Vec<AtomicU64>,
}

/// One writer's part; merged when it is dropped.
pub struct Notes<'a> {
    recorder: &'a Recorder,
    own: Histogram<u64>,
}

/// What one measurement found, as the measuring process prints it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Found {
    /// Durable appends in the window, a second.
    pub per_second: f64,
    /// How many.
    pub appends: u64,
    /// Median, milliseconds.
    pub p50_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// 99.9th percentile.
    pub p999_ms: f64,
    /// Longest.
    pub max_ms: f64,
    /// What the program says about itself, by name.
    pub details: BTreeMap<String, f64>,
}

// === impl Recorder ===

impl Recorder {
    /// A window that begins after `warm`.
    pub fn new(warm: Duration, counted: Duration) -> Self {
        let slots = (warm + counted).as_millis() / SLOT.as_millis() + 2;
        Self {
            begun: Instant::now(),
            warm,
            counted,
            all: Mutex::new(histogram()),
            track: (0..slots).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Whether the window is over.
    pub fn is_over(&self) -> bool {
        self.begun.elapsed() >= self.warm + self.counted
    }

    /// A writer's own notes.
    pub fn notes(&self) -> Notes<'_> {
        Notes {
            recorder: self,
            own: histogram(),
        }
    }

    /// When the counted part begins.
    pub fn starts(&self) -> Instant {
        self.begun + self.warm
    }

    /// When it ends.
    pub fn ends(&self) -> Instant {
        self.begun + self.warm + self.counted
    }

    /// Says on standard output when the counted part begins and ends, for who reads the CPU time.
    pub fn call_out(&self) {
        for (at, word) in [(self.starts(), "begin"), (self.ends(), "end")] {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            say(word);
        }
    }

    /// The longest append that ended in the counted part and not before `from` nor after `until`,
    /// milliseconds.
    pub fn longest_between(&self, from: Instant, until: Instant) -> f64 {
        let slot = |at: Instant| {
            let passed = at.saturating_duration_since(self.begun).as_millis();
            usize::try_from(passed / SLOT.as_millis()).unwrap_or(usize::MAX)
        };
        let first = slot(from.max(self.starts()));
        let last = slot(until);
        let slots = self.track.iter().enumerate();
        let inside = slots.filter(|(at, _)| (first..=last).contains(at));
        let most = inside.map(|(_, most)| most.load(Ordering::Relaxed)).max();
        most.unwrap_or(0) as f64 / 1_000.0
    }

    /// Everything, once the writers are gone.
    pub fn found(&self, details: BTreeMap<String, f64>) -> Found {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let ms = |quantile: f64| all.value_at_quantile(quantile) as f64 / 1_000.0;
        Found {
            per_second: all.len() as f64 / self.counted.as_secs_f64(),
            appends: all.len(),
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            p999_ms: ms(0.999),
            max_ms: all.max() as f64 / 1_000.0,
            details,
        }
    }
}

// === impl Notes ===

impl Notes<'_> {
    /// An append that was begun then is durable now.
    pub fn note(&mut self, begun: Instant) {
        let now = Instant::now();
        let since = now.duration_since(self.recorder.begun);
        if since < self.recorder.warm || now >= self.recorder.ends() {
            return;
        }
        let took = u64::try_from(now.duration_since(begun).as_micros()).unwrap_or(MOST_US);
        self.own.saturating_record(took);
        let slot = usize::try_from(since.as_millis() / SLOT.as_millis()).unwrap_or(usize::MAX);
        if let Some(most) = self.recorder.track.get(slot)
            && most.load(Ordering::Relaxed) < took
        {
            most.fetch_max(took, Ordering::Relaxed);
        }
    }
}

impl Drop for Notes<'_> {
    fn drop(&mut self) {
        let all = &self.recorder.all;
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        all.add(&self.own).expect("both have the same bounds");
    }
}

/// One line to who started this process.
pub fn say(line: &str) {
    println!("{line}");
    // Nobody left to read it: then this process is about to be killed.
    drop(std::io::stdout().flush());
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MOST_US, 3).expect("the bounds are constants")
}
