//! Carries events from the queue into the trip cache, and from there into the ledger.
//!
//! Each shard of the queue has two tasks. The *feed* reads on and on, applies events to the cached
//! trip and hands them over; it never waits for the ledger but to look up a trip that the cache does
//! not hold. The *booker* books what was handed over, in order, and only then acknowledges it to the
//! queue. While the ledger is away the hand-over fills up to its bound; from then on the booker
//! finds the rest in the queue, where it still is.
//!
//! Promises: the events of a trip take effect in the queue's order; an event delivered again
//! changes nothing (the feed remembers ids and, after a restart, replays what is not acknowledged
//! aside before it shows the result; the ledger knows every id); nothing acknowledged to a client is
//! forgotten before it is booked or counted as refused.
//!
//! One shard has one feeder at a time; a second one by mistake costs work, not correctness, since
//! the cache compares versions and the ledger ids.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::flow::{Platform, Ports};

mod book;
mod feed;
mod handover;
#[cfg(test)]
mod tests;

/// Most events read from a shard at once.
pub const BATCH_EVENTS_MAX: u32 = 1_000;
/// How often the heart beats.
const BEAT_EVERY: Duration = Duration::from_millis(100);
/// How often the ledger is asked which Redis is the home of the trip cache.
const HOME_EVERY: Duration = Duration::from_secs(1);
/// How often repairs that failed are tried again.
const REPAIR_EVERY: Duration = Duration::from_millis(500);
/// First wait after a failure.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
/// Longest wait between tries.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Starts two tasks a shard, the heartbeat, the repairs and the look for another home. They end soon after `stop`, each after
/// the step it has begun; wait for them on `tracker`.
pub fn spawn(platform: &Arc<Platform>, tracker: &TaskTracker, stop: &CancellationToken) {
    for shard in 0..platform.ports.queue.shards() {
        let handover = Arc::new(handover::Handover::default());
        let feed = feed::Feed::new(shard, Arc::clone(platform), Arc::clone(&handover));
        tracker.spawn(feed.run(stop.clone()));
        let booker = book::Booker::new(shard, Arc::clone(platform), handover);
        tracker.spawn(booker.run(stop.clone()));
    }
    tracker.spawn(beat(Arc::clone(platform), stop.clone()));
    tracker.spawn(learn_home(Arc::clone(platform), stop.clone()));
    tracker.spawn(repair(Arc::clone(platform), stop.clone()));
}

/// Proves to every replica of the cache that it still hears its primary.
async fn beat(platform: Arc<Platform>, stop: CancellationToken) {
    let mut ticks = Ticks::every(BEAT_EVERY, stop);
    while ticks.next().await {
        let beat = platform.ports.cache.beat(platform.ports.clock.now());
        match timeout(platform.budgets.cache, beat).await {
            Ok(Ok(())) => platform.counters.beats.add(1),
            Ok(Err(_)) | Err(_) => platform.counters.beats_missed.add(1),
        }
    }
}

/// Learns of another home of the trip cache, so that nothing is written to one of the past.
async fn learn_home(platform: Arc<Platform>, stop: CancellationToken) {
    let mut ticks = Ticks::every(HOME_EVERY, stop);
    while ticks.next().await {
        let Ports { ledger, cache, .. } = &platform.ports;
        match platform.ask(ledger.cache_home()).await {
            Ok(home) => cache.require_home_epoch(home.epoch),
            Err(error) => tracing::debug!(%error, "the trip cache's home was not told"),
        }
    }
}

/// Repairs trips whose write-through failed.
async fn repair(platform: Arc<Platform>, stop: CancellationToken) {
    loop {
        let left = platform.repair_some().await;
        let wait = async {
            if left {
                sleep(REPAIR_EVERY).await;
            } else {
                platform.repair_bell.notified().await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = wait => {}
        }
    }
}

/// Turns of a task that goes on until it is told to stop.
struct Ticks {
    interval: Interval,
    stop: CancellationToken,
}

impl Ticks {
    fn every(period: Duration, stop: CancellationToken) -> Self {
        let mut interval = interval(period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { interval, stop }
    }

    /// Waits for the next turn, the first of which is at once; `false` when told to stop.
    async fn next(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            _ = self.interval.tick() => true,
        }
    }
}

/// A wait that doubles with each failure, up to a bound.
#[derive(Debug, Default)]
struct Backoff(u32);

impl Backoff {
    fn reset(&mut self) {
        self.0 = 0;
    }

    /// Waits; `false` when told to stop meanwhile.
    async fn wait(&mut self, stop: &CancellationToken) -> bool {
        let factor = 2_u32.saturating_pow(self.0);
        self.0 = self.0.saturating_add(1);
        let pause = BACKOFF_MIN.saturating_mul(factor).min(BACKOFF_MAX);
        tokio::select! {
            biased;
            () = stop.cancelled() => false,
            () = sleep(pause) => true,
        }
    }
}
