//! A trip cache that tells the keepers where shoppers are.
//!
//! What shoppers pick reaches every edge through the log. Where they are is in no log, because it is
//! nobody's to keep: with a Redis the edges would share it, and embedded they are told.

use std::sync::Arc;

use standin_core::BoxFuture;
use standin_core::clock::Timestamp;
use standin_core::id::{ShopperId, TripId};
use standin_core::trip::{Approval, Position, TripSheet};
use standin_core::trip_cache::hindsight::Lapses;
use standin_core::trip_cache::{CacheError, Look, Put, TripCache};

use super::Group;

/// The platform's trip cache, and the keepers that hear of positions.
pub(in super::super) struct Positions {
    pub(in super::super) cache: Arc<dyn TripCache>,
    pub(in super::super) keepers: Arc<Group>,
}

impl TripCache for Positions {
    fn look(&self, shopper: ShopperId) -> BoxFuture<'_, Result<Look, CacheError>> {
        self.cache.look(shopper)
    }

    fn sheet(&self, trip: TripId) -> BoxFuture<'_, Result<Option<TripSheet>, CacheError>> {
        self.cache.sheet(trip)
    }

    fn put(&self, sheet: TripSheet) -> BoxFuture<'_, Result<Put, CacheError>> {
        self.cache.put(sheet)
    }

    fn approve(&self, trip: TripId, approval: Approval) -> BoxFuture<'_, Result<(), CacheError>> {
        self.cache.approve(trip, approval)
    }

    fn moved(
        &self,
        shopper: ShopperId,
        position: Position,
    ) -> BoxFuture<'_, Result<(), CacheError>> {
        self.keepers.moved(shopper, position);
        self.cache.moved(shopper, position)
    }

    fn close(&self, shopper: ShopperId, trip: TripId) -> BoxFuture<'_, Result<(), CacheError>> {
        self.cache.close(shopper, trip)
    }

    fn beat(&self, now: Timestamp) -> BoxFuture<'_, Result<(), CacheError>> {
        self.cache.beat(now)
    }

    fn home_epoch(&self) -> u64 {
        self.cache.home_epoch()
    }

    fn require_home_epoch(&self, epoch: u64) {
        self.cache.require_home_epoch(epoch);
    }

    fn check(&self) -> BoxFuture<'_, Lapses> {
        self.cache.check()
    }

    fn troubles(&self) -> Vec<(&'static str, u64)> {
        self.cache.troubles()
    }
}
