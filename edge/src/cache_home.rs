//! Which home of the trip cache the ledger knows of, told to this edge's cache: an old home, and what
//! still follows it, is then not believed here, whatever it says of itself.

use std::sync::Arc;
use std::time::Duration;

use standin_core::ledger::Ledger;
use standin_core::trip_cache::TripCache;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::breaker::Position;
use crate::primary::Primary;

/// How often the ledger is asked. A look in a copy of the new home tells it too.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long it may take to say.
const ASK_WITHIN: Duration = Duration::from_millis(500);

/// Asks the ledger for the trip cache's home.
pub struct CacheHomeWatch {
    /// Where promotions are booked.
    pub ledger: Arc<dyn Ledger>,
    /// Whether asking it makes sense.
    pub primary: Arc<Primary>,
    /// What is told.
    pub cache: Arc<dyn TripCache>,
}

// === impl CacheHomeWatch ===

impl CacheHomeWatch {
    /// Asks until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let mut beat = tokio::time::interval(ASK_EVERY);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = beat.tick() => {}
            }
            if self.primary.position() != Position::Closed {
                continue;
            }
            let asked = tokio::time::timeout(ASK_WITHIN, self.ledger.cache_home());
            let said = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                said = asked => said,
            };
            match said {
                Ok(Ok(home)) => self.learn(home.epoch),
                Ok(Err(error)) => tracing::debug!(%error, "the trip cache's home was not told"),
                Err(_elapsed) => tracing::debug!("the trip cache's home was not told in time"),
            }
        }
    }

    fn learn(&self, epoch: u64) {
        if epoch > self.cache.home_epoch() {
            tracing::warn!(epoch, "the trip cache has another home");
        }
        self.cache.require_home_epoch(epoch);
    }
}
