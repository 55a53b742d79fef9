//! How late this process comes to what it has to do: a machine with more work than processors runs
//! nobody in time, and an answer that is ready in time is sent too late.
//!
//! A short sleep says it: what it takes longer than it should, everything takes longer. The worst of the
//! last moments counts, as the next moment is most like them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long it sleeps.
const SLEEP: Duration = Duration::from_millis(10);
/// What of the worst is left after each sleep, in thousandths: half of it in 0.3 s.
const LEFT_PERMILLE: u64 = 978;

/// How late things were lately.
#[derive(Debug, Default)]
pub struct Lag {
    worst_us: AtomicU64,
}

// === impl Lag ===

impl Lag {
    /// How late things were lately.
    pub fn lately(&self) -> Duration {
        Duration::from_micros(self.worst_us.load(Ordering::Relaxed))
    }

    /// Measures until `stop` is cancelled.
    pub async fn measure(&self, stop: CancellationToken) {
        loop {
            let asleep = Instant::now();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(SLEEP) => self.slept(asleep.elapsed()),
            }
        }
    }

    fn slept(&self, took: Duration) {
        let late = took.saturating_sub(SLEEP).as_micros();
        let late = u64::try_from(late).unwrap_or(u64::MAX);
        let worst = self.worst_us.load(Ordering::Relaxed);
        let left = worst.saturating_mul(LEFT_PERMILLE).checked_div(1_000);
        self.worst_us
            .store(late.max(left.unwrap_or_default()), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_counts_and_is_forgotten_in_a_while() {
        let lag = Lag::default();
        lag.slept(SLEEP);
        assert_eq!(lag.lately(), Duration::ZERO);
        lag.slept(Duration::from_millis(90));
        assert_eq!(lag.lately(), Duration::from_millis(80));
        lag.slept(Duration::from_millis(15));
        assert!(lag.lately() > Duration::from_millis(75));
        for _ in 0..40 {
            lag.slept(SLEEP);
        }
        let left = lag.lately().as_millis();
        assert!((25..45).contains(&left), "{left}");
        for _ in 0..600 {
            lag.slept(SLEEP);
        }
        assert!(lag.lately() < Duration::from_millis(1));
    }
}
