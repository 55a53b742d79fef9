//! Trips whose write-through failed, remembered until the cache shows what the ledger has.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use standin_core::id::{ShopperId, TripId};
use standin_core::trip::TripStatus;
use standin_core::trip_cache::CacheError;
use tokio::time::timeout;

use super::{FlowError, Platform};

/// Trips to repair; at the bound a new one is not remembered (and counted): the cache then lacks
/// the trip until its next event or until an edge loads it from the primary, or shows it as not
/// closed until the cache evicts it.
const REPAIRS_MAX: usize = 10_000;

/// Trips whose cache copy is behind the ledger.
#[derive(Debug, Default)]
pub(crate) struct Repairs(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    trips: BTreeMap<TripId, Repair>,
    /// Numbers each remembering, so that a repair under way does not forget one asked for since.
    asked: u64,
}

#[derive(Clone, Copy, Debug)]
struct Repair {
    shopper: ShopperId,
    asked: u64,
}

/// A repair that has to be tried again.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum RepairError {
    /// The ledger could not be read.
    #[error(transparent)]
    Flow(#[from] FlowError),
    /// The cache could not be written.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

// === impl Repairs ===

impl Repairs {
    /// Remembers a trip; `false` at the bound.
    pub(crate) fn add(&self, trip: TripId, shopper: ShopperId) -> bool {
        let mut all = self.lock();
        if all.trips.len() >= REPAIRS_MAX && !all.trips.contains_key(&trip) {
            return false;
        }
        all.asked = all.asked.saturating_add(1);
        let asked = all.asked;
        all.trips.insert(trip, Repair { shopper, asked });
        true
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().trips.len()
    }

    fn some(&self, max: usize) -> Vec<(TripId, Repair)> {
        let all = self.lock();
        let some = all.trips.iter().take(max);
        some.map(|(trip, repair)| (*trip, *repair)).collect()
    }

    fn done(&self, trip: TripId, done: Repair) {
        let mut all = self.lock();
        if all
            .trips
            .get(&trip)
            .is_some_and(|repair| repair.asked == done.asked)
        {
            all.trips.remove(&trip);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Platform ===

impl Platform {
    /// Shows the cache what the ledger has of a trip. The cache keeps what is newer there: events
    /// that were fed and are not booked yet.
    pub(crate) async fn repair(&self, shopper: ShopperId, trip: TripId) -> Result<(), RepairError> {
        let found = self.ask(self.ports.ledger.trip(shopper, trip)).await?;
        let Some(open) = found else {
            return Ok(());
        };
        let closed = open.sheet.trip.status == TripStatus::Complete;
        let slow = |_elapsed| CacheError::Timeout;
        let put = self.ports.cache.put(open.sheet);
        timeout(self.budgets.cache, put).await.map_err(slow)??;
        if closed {
            let close = self.ports.cache.close(shopper, trip);
            return timeout(self.budgets.cache, close)
                .await
                .map_err(slow)?
                .map_err(Into::into);
        }
        for approval in open.approvals {
            let approve = self.ports.cache.approve(trip, approval);
            timeout(self.budgets.cache, approve).await.map_err(slow)??;
        }
        Ok(())
    }

    /// Tries what waits for a repair, until one fails. Returns whether anything is left.
    pub(crate) async fn repair_some(&self) -> bool {
        for (trip, repair) in self.repairs.some(64) {
            match self.repair(repair.shopper, trip).await {
                Ok(()) => {
                    self.repairs.done(trip, repair);
                    self.counters.repaired.add(1);
                }
                Err(_) => {
                    self.counters.retries.add(1);
                    break;
                }
            }
        }
        let left = self.repairs.len();
        self.counters.repairs_now.set(left);
        left > 0
    }
}
