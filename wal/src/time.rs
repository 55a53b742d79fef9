//! Where time comes from, and log time.
//!
//! Log time is stamped on each batch and never goes back: it starts at the later of the log's last
//! stamp and the wall clock, and from then on only the monotonic clock moves it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The clocks of a machine, or of a test.
pub trait TimeSource: Send + Sync + 'static {
    /// Milliseconds since some moment; never goes back.
    fn monotonic_ms(&self) -> u64;
    /// Milliseconds since 1970, as far as this machine knows.
    fn wall_ms(&self) -> u64;
    /// Microseconds since the same moment as `monotonic_ms`; only measures latencies.
    fn monotonic_us(&self) -> u64 {
        self.monotonic_ms().saturating_mul(1000)
    }
}

/// The clocks of this machine.
#[derive(Debug)]
pub struct SystemTimeSource {
    start: Instant,
}

/// Stamps batches with log time.
#[derive(Debug)]
pub(crate) struct LogClock {
    base_ms: u64,
    monotonic_start_ms: u64,
    last_ms: u64,
}

// === impl SystemTimeSource ===

impl SystemTimeSource {
    /// Starts measuring now.
    #[must_use]
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the seam to the system's clocks"
    )]
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Default for SystemTimeSource {
    fn default() -> Self {
        Self::new()
    }
}

impl TimeSource for SystemTimeSource {
    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "this is the seam to the system's clocks"
    )]
    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

// === impl LogClock ===

impl LogClock {
    /// Goes on from `last_ms`, the last stamp in the log (0 in an empty one).
    pub(crate) fn new(last_ms: u64, time: &dyn TimeSource) -> Self {
        let base_ms = last_ms.max(time.wall_ms());
        Self {
            base_ms,
            monotonic_start_ms: time.monotonic_ms(),
            last_ms: base_ms,
        }
    }

    pub(crate) fn stamp(&mut self, time: &dyn TimeSource) -> u64 {
        let passed = time.monotonic_ms().saturating_sub(self.monotonic_start_ms);
        self.last_ms = self.last_ms.max(self.base_ms.saturating_add(passed));
        self.last_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u64, u64);

    impl TimeSource for Fixed {
        fn monotonic_ms(&self) -> u64 {
            self.0
        }
        fn wall_ms(&self) -> u64 {
            self.1
        }
    }

    #[test]
    fn log_time_starts_at_the_later_clock_and_never_goes_back() {
        let mut behind = LogClock::new(5_000, &Fixed(100, 1_000));
        assert_eq!(behind.stamp(&Fixed(107, 1)), 5_007);
        assert_eq!(behind.stamp(&Fixed(103, 9_999_999)), 5_007);
        let mut ahead = LogClock::new(5_000, &Fixed(100, 9_000));
        assert_eq!(ahead.stamp(&Fixed(101, 0)), 9_001);
    }
}
