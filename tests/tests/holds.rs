//! How an edge puts holds together into transactions. Time stands still but for timers, so that every
//! moment is exact.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "test code"
)]

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use standin_core::clock::SystemClock;
use standin_core::id::ShopperId;
use standin_core::ledger::memory::MemoryLedger;
use standin_edge::holds::{Holds, HoldsConfig};
use standin_edge::metrics::Metrics;
use standin_tests::conformance::ledger::approve;
use standin_tests::conformance::trip_cache::fresh_sheet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const PACE: Duration = Duration::from_millis(10);

/// Holds on a ledger in memory, and what they count.
struct World {
    holds: Holds,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    began: Instant,
}

impl World {
    fn new(rows_max: usize) -> Self {
        let config = HoldsConfig {
            workers: 3,
            rows_max,
            pace: PACE,
            waiting_max: 100,
            transaction_max: Duration::from_secs(1),
        };
        let ledger = Arc::new(MemoryLedger::new(Arc::new(SystemClock), None));
        let metrics = Arc::new(Metrics::new().unwrap());
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let holds = Holds::start(ledger, config, Arc::clone(&metrics), &tasks, &stop);
        Self {
            holds,
            metrics,
            stop,
            began: Instant::now(),
        }
    }

    /// Asks for so many holds at once; gives, in milliseconds from the beginning, when each was answered.
    async fn ask(&self, number: usize) -> Vec<u128> {
        let one = || async {
            let sheet = fresh_sheet(ShopperId::try_from(1_i64).unwrap(), 0);
            let deadline = Instant::now() + Duration::from_secs(1);
            let asked = self.holds.hold(approve(&sheet, 100, 1_000), deadline);
            asked.await.unwrap();
            self.began.elapsed().as_millis()
        };
        join_all((0..number).map(|_| one())).await
    }

    /// Transactions so far, and holds in them.
    fn booked(&self) -> (u64, u64) {
        let page = self.metrics.render().unwrap();
        let figure = |name: &str| {
            let line = page.lines().find(|line| line.starts_with(name)).unwrap();
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        let size = "standin_hold_batch_size";
        (
            figure(&format!("{size}_count")),
            figure(&format!("{size}_sum")),
        )
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_after_a_quiet_moment_waits_for_nothing() {
    let world = World::new(100);
    assert_eq!(world.ask(1).await, [0]);
    tokio::time::advance(PACE).await;
    assert_eq!(world.ask(1).await, [10]);
    assert_eq!(world.booked(), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn what_comes_within_the_pace_goes_together() {
    let world = World::new(100);
    assert_eq!(world.ask(1).await, [0]);
    assert_eq!(world.ask(5).await, [10; 5]);
    assert_eq!(world.ask(40).await, [20; 40]);
    assert_eq!(world.booked(), (3, 46));
}

#[tokio::test(start_paused = true)]
async fn what_is_too_much_for_one_goes_with_the_next() {
    let world = World::new(3);
    assert_eq!(world.ask(1).await, [0]);
    let mut answered = world.ask(7).await;
    answered.sort_unstable();
    assert_eq!(answered, [10, 10, 10, 20, 20, 20, 30]);
    assert_eq!(world.booked(), (4, 8));
}
