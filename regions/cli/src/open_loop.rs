//! Open-loop load: a fixed schedule of arrivals that never waits for slow answers.
//!
//! Every arrival has an intended moment, and latency is measured from it, whether or not the
//! request could be sent on time. So a stall of the server (or of this process) shows in the
//! latencies of everything that should have been sent meanwhile: no coordinated omission.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Most requests under way at once. An arrival beyond is not sent, and counted as unsent.
pub const OUTSTANDING_MAX: usize = 20_000;

/// How a schedule went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fired {
    /// Arrivals sent.
    pub sent: u64,
    /// Arrivals not sent, because [`OUTSTANDING_MAX`] were under way.
    pub unsent: u64,
}

/// The moment of arrival number `index` at `rate` a second, counted from the start.
pub fn moment(index: u64, rate: u64) -> Duration {
    let nanos = u128::from(index)
        .saturating_mul(1_000_000_000)
        .checked_div(u128::from(rate.max(1)))
        .unwrap_or(0);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Sends every arrival at its moment (counted from `start`, ascending) and waits for all of them
/// to end. `shoot` gets the arrival and its intended moment; it must be bounded in time. When
/// `stop` is cancelled, what was not yet sent is left out.
pub async fn fire<T, F, Fut>(
    start: Instant,
    arrivals: impl IntoIterator<Item = (Duration, T)>,
    stop: &CancellationToken,
    shoot: F,
) -> Fired
where
    T: Send + 'static,
    F: Fn(T, Instant) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let outstanding = Arc::new(Semaphore::new(OUTSTANDING_MAX));
    let tasks = TaskTracker::new();
    let mut fired = Fired::default();
    for (at, arrival) in arrivals {
        let intended = start.checked_add(at).unwrap_or(start);
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = tokio::time::sleep_until(intended) => {}
        }
        let Ok(permit) = Arc::clone(&outstanding).try_acquire_owned() else {
            fired.unsent = fired.unsent.saturating_add(1);
            continue;
        };
        fired.sent = fired.sent.saturating_add(1);
        let shot = shoot(arrival, intended);
        tasks.spawn(async move {
            shot.await;
            drop(permit);
        });
    }
    tasks.close();
    tasks.wait().await;
    fired
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects, reason = "test code")]
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn moments_are_spread_evenly_and_do_not_drift() {
        assert_eq!(moment(0, 3), Duration::ZERO);
        assert_eq!(moment(3, 3), Duration::from_secs(1));
        assert_eq!(moment(3_000_000_000, 3), Duration::from_secs(1_000_000_000));
        assert_eq!(moment(1, 2_500), Duration::from_micros(400));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_server_delays_no_arrival_and_shows_in_every_latency() {
        // Everything sent in the first second is answered at its end: one second of stall.
        let start = Instant::now();
        let free = start + Duration::from_secs(1);
        let latencies = Arc::new(Mutex::new(Vec::new()));
        let arrivals = (0..100).map(|index| (moment(index, 50), index));
        let fired = fire(start, arrivals, &CancellationToken::new(), |_, intended| {
            let latencies = Arc::clone(&latencies);
            async move {
                assert!(
                    Instant::now() - intended < Duration::from_millis(2),
                    "sent late"
                );
                tokio::time::sleep_until(free).await;
                latencies.lock().unwrap().push(intended.elapsed());
            }
        })
        .await;
        assert_eq!(
            fired,
            Fired {
                sent: 100,
                unsent: 0
            }
        );
        let mut latencies = latencies.lock().unwrap().clone();
        latencies.sort();
        assert!(
            latencies[75] > Duration::from_millis(490),
            "{:?}",
            latencies[75]
        );
        assert!(latencies[99] >= Duration::from_secs(1));
    }
}
