//! The trip cache in memory: for embedded mode, the demo and the simulator.
//!
//! As Redis does, it never evicts an open trip and soon forgets a closed one: the oldest closed
//! trips leave first once more than a bound of them is held. Time is not needed for that, so there
//! is no clock here. Nothing survives the process. It is the only home there is, unless it was made to
//! be one of several ([`MemoryTripCache::one_of_several`]).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{CacheError, CachedTrip, Look, Put, TripCache};
use crate::BoxFuture;
use crate::clock::Timestamp;
use crate::id::{OrderId, ShopperId, TransactionId, TripId};
use crate::trip::{Approval, Item, Position, Trip, TripSheet, TripStatus};

/// Closed trips kept before the oldest of them leave.
pub const CLOSED_MAX: usize = 10_000;
/// Trips that are open, or only known by an approval. A put beyond it is refused.
pub const OPEN_MAX: usize = 1_000_000;

/// The trip cache in memory.
#[derive(Debug)]
pub struct MemoryTripCache {
    closed_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    trips: HashMap<TripId, Held>,
    shoppers: HashMap<ShopperId, Shopper>,
    /// Closed trips, the oldest close first.
    closed: VecDeque<TripId>,
    beat: Option<Timestamp>,
    home: Home,
}

/// Which home this is, and the highest that is known of.
#[derive(Clone, Copy, Debug, Default)]
struct Home {
    epoch: u64,
    known: u64,
    is_one_of_several: bool,
}

#[derive(Debug, Default)]
struct Held {
    /// `None` while only an approval or the close is known.
    trip: Option<Trip>,
    items: BTreeMap<OrderId, Vec<Item>>,
    approvals: BTreeMap<TransactionId, Approval>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Shopper {
    pointer: Option<Pointer>,
    position: Option<Position>,
}

#[derive(Clone, Copy, Debug)]
struct Pointer {
    trip: TripId,
    started_at: Timestamp,
}

// === impl MemoryTripCache ===

impl MemoryTripCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::with_closed_max(CLOSED_MAX)
    }

    /// An empty cache that keeps so many closed trips.
    pub fn with_closed_max(closed_max: usize) -> Self {
        Self {
            closed_max,
            state: Mutex::default(),
        }
    }

    /// An empty cache that other homes may take the place of.
    pub fn one_of_several() -> Self {
        let cache = Self::new();
        cache.lock().home.is_one_of_several = true;
        cache
    }

    /// Says that this is the home of an epoch, as whoever promotes it does.
    pub fn promote(&self, epoch: u64) {
        self.lock().home.epoch = epoch;
    }

    /// The state, for what must not be done to a home of the past.
    fn at_home(&self) -> Result<MutexGuard<'_, State>, CacheError> {
        let mut state = self.lock();
        state.home.check()?;
        Ok(state)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves whole values behind: each change below is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryTripCache {
    fn default() -> Self {
        Self::new()
    }
}

impl TripCache for MemoryTripCache {
    fn look(&self, shopper: ShopperId) -> BoxFuture<'_, Result<Look, CacheError>> {
        let look = self.lock().look(shopper);
        Box::pin(async { Ok(look) })
    }

    fn sheet(&self, trip: TripId) -> BoxFuture<'_, Result<Option<TripSheet>, CacheError>> {
        let sheet = self
            .at_home()
            .map(|state| state.trips.get(&trip).and_then(Held::sheet));
        Box::pin(async { sheet })
    }

    fn put(&self, sheet: TripSheet) -> BoxFuture<'_, Result<Put, CacheError>> {
        let closed_max = self.closed_max;
        let put = self
            .at_home()
            .and_then(|mut state| state.put(sheet, closed_max));
        Box::pin(async { put })
    }

    fn approve(&self, trip: TripId, approval: Approval) -> BoxFuture<'_, Result<(), CacheError>> {
        let done = self
            .at_home()
            .and_then(|mut state| state.approve(trip, approval));
        Box::pin(async { done })
    }

    fn moved(
        &self,
        shopper: ShopperId,
        position: Position,
    ) -> BoxFuture<'_, Result<(), CacheError>> {
        let done = self
            .at_home()
            .and_then(|mut state| state.moved(shopper, position));
        Box::pin(async { done })
    }

    fn close(&self, _shopper: ShopperId, trip: TripId) -> BoxFuture<'_, Result<(), CacheError>> {
        let closed_max = self.closed_max;
        let done = self
            .at_home()
            .and_then(|mut state| state.close(trip, closed_max));
        Box::pin(async { done })
    }

    fn beat(&self, now: Timestamp) -> BoxFuture<'_, Result<(), CacheError>> {
        let done = self.at_home().map(|mut state| state.beat = Some(now));
        Box::pin(async { done })
    }

    fn home_epoch(&self) -> u64 {
        self.lock().home.known
    }

    fn require_home_epoch(&self, epoch: u64) {
        let home = &mut self.lock().home;
        home.known = home.known.max(epoch);
        if !home.is_one_of_several {
            home.epoch = home.known;
        }
    }
}

// === impl State ===

impl State {
    fn look(&mut self, shopper: ShopperId) -> Look {
        let is_past = self.home.check().is_err();
        let known = self.shoppers.get(&shopper);
        let pointer = known.and_then(|known| known.pointer);
        let held = pointer.and_then(|pointer| self.trips.get(&pointer.trip));
        let trip = held.and_then(|held| {
            Some(CachedTrip {
                trip: held.summary()?,
                approvals: held.approvals.values().copied().collect(),
                position: known.and_then(|known| known.position),
            })
        });
        Look {
            trip,
            beat: self.beat,
            behind: is_past,
        }
    }

    fn put(&mut self, sheet: TripSheet, closed_max: usize) -> Result<Put, CacheError> {
        let TripSheet { trip, items } = sheet;
        self.bound(trip.id)?;
        let (id, shopper) = (trip.id, trip.shopper);
        let over = trip.status == TripStatus::Complete;
        let pointer = Pointer {
            trip: id,
            started_at: trip.started_at,
        };
        let held = self.trips.entry(id).or_default();
        let newer = match &held.trip {
            Some(known) => known.version < trip.version,
            None => true,
        };
        if newer {
            held.trip = Some(trip);
            held.items = items;
            if over {
                self.close(id, closed_max)?;
            }
        }
        let known = self.shoppers.entry(shopper).or_default();
        let replaces = known
            .pointer
            .is_none_or(|known| known.started_at <= pointer.started_at);
        if replaces {
            known.pointer = Some(pointer);
        }
        Ok(if newer { Put::Written } else { Put::Older })
    }

    fn approve(&mut self, trip: TripId, approval: Approval) -> Result<(), CacheError> {
        self.bound(trip)?;
        let held = self.trips.entry(trip).or_default();
        let known = held
            .approvals
            .entry(approval.transaction_id)
            .or_insert(approval);
        // A reversal only ever lowers it, so that a late repeat cannot raise it again.
        known.amount = known.amount.min(approval.amount);
        Ok(())
    }

    fn moved(&mut self, shopper: ShopperId, position: Position) -> Result<(), CacheError> {
        if !self.shoppers.contains_key(&shopper) && self.shoppers.len() >= OPEN_MAX {
            return Err(full());
        }
        let known = self.shoppers.entry(shopper).or_default();
        if known.position.is_none_or(|known| known.at < position.at) {
            known.position = Some(position);
        }
        Ok(())
    }

    /// Marks a trip, even one not known yet: a put that comes late must not open it again.
    fn close(&mut self, trip: TripId, closed_max: usize) -> Result<(), CacheError> {
        self.bound(trip)?;
        let held = self.trips.entry(trip).or_default();
        if !std::mem::replace(&mut held.closed, true) {
            self.closed.push_back(trip);
        }
        while self.closed.len() > closed_max {
            if let Some(oldest) = self.closed.pop_front() {
                self.forget(oldest);
            }
        }
        Ok(())
    }

    fn forget(&mut self, trip: TripId) {
        let Some(shopper) = self
            .trips
            .remove(&trip)
            .and_then(|held| held.trip)
            .map(|trip| trip.shopper)
        else {
            return;
        };
        let known = self.shoppers.get(&shopper);
        let current = known.and_then(|known| known.pointer);
        if current.is_some_and(|pointer| pointer.trip == trip) {
            self.shoppers.remove(&shopper);
        }
    }

    fn bound(&self, trip: TripId) -> Result<(), CacheError> {
        let open = self.trips.len().saturating_sub(self.closed.len());
        if open >= OPEN_MAX && !self.trips.contains_key(&trip) {
            return Err(full());
        }
        Ok(())
    }
}

// === impl Home ===

impl Home {
    /// Refuses a home of the past. One that is of a higher epoch than known is how one learns of it.
    fn check(&mut self) -> Result<(), CacheError> {
        let Self { epoch, known, .. } = *self;
        if epoch < known {
            return Err(CacheError::PastHome { epoch, known });
        }
        self.known = epoch;
        Ok(())
    }
}

// === impl Held ===

impl Held {
    /// The trip; one that was closed is COMPLETE, whatever was last written.
    fn summary(&self) -> Option<Trip> {
        let mut trip = self.trip.clone()?;
        if self.closed {
            trip.status = TripStatus::Complete;
        }
        Some(trip)
    }

    fn sheet(&self) -> Option<TripSheet> {
        Some(TripSheet {
            trip: self.summary()?,
            items: self.items.clone(),
        })
    }
}

fn full() -> CacheError {
    CacheError::Refused(format!("more than {OPEN_MAX} open trips"))
}
