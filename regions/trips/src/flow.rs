//! The platform's operations, from placing an order to completing a trip.
//!
//! Every wait has a budget. An operation that the ledger must agree to fails with
//! [`FlowError`] while the ledger is away, and says whether it may have taken effect; ids come from
//! the caller, so that the same call again is harmless.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use standin_core::clock::Clock;
use standin_core::id::{OrderId, ShopperId, StoreId, TripId};
use standin_core::ledger::{
    Card, Claim, Completed, Ledger, LedgerError, Placed, Retry, StartTrip, Started,
};
use standin_core::merchant::{MerchantId, MerchantKey, Store};
use standin_core::money::Currency;
use standin_core::queue::{EventQueue, QueueError};
use standin_core::trip::{Approval, Order, TripEvent, TripSheet, TripStatus};
use standin_core::trip_cache::{CacheError, TripCache};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout, timeout_at};

use crate::EventJournal;
use crate::counters::Counters;

mod repair;
#[cfg(test)]
mod tests;

pub(crate) use repair::Repairs;

/// Most events one call may append.
pub const EVENTS_PER_CALL_MAX: usize = 100;
/// Most orders one call may offer.
pub const OFFERS_MAX: u32 = 100;
/// Trips whose owner and currency are remembered; at the bound all are forgotten and asked again.
const KNOWN_TRIPS_MAX: usize = 100_000;
/// Locks that keep the journal's order of a trip's events the queue's.
const STRIPES: usize = 256;

/// How long the platform waits for others.
#[derive(Clone, Copy, Debug)]
pub struct Budgets {
    /// For one call of a client to the ledger.
    pub ledger: Duration,
    /// For one call to the trip cache.
    pub cache: Duration,
    /// For appending to the queue, and before it to the journal with the wait for one's turn.
    pub append: Duration,
    /// For booking one batch of events.
    pub book: Duration,
    /// How long completing a trip waits for a finish that is still on its way to the ledger.
    pub settle: Duration,
}

/// Where the platform keeps things.
pub struct Ports {
    /// The ledger of record.
    pub ledger: Arc<dyn Ledger>,
    /// The trip cache that edges read.
    pub cache: Arc<dyn TripCache>,
    /// The queue of events.
    pub queue: Arc<dyn EventQueue>,
    /// What makes events durable where the queue does not.
    pub journal: Option<Arc<dyn EventJournal>>,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
}

/// The platform.
pub struct Platform {
    pub(crate) ports: Ports,
    pub(crate) budgets: Budgets,
    pub(crate) counters: Counters,
    pub(crate) repairs: Repairs,
    /// Bumped by the feeder after each batch it booked.
    pub(crate) bookings: watch::Sender<u64>,
    /// Rung when a repair waits.
    pub(crate) repair_bell: Notify,
    known: Mutex<HashMap<TripId, Known>>,
    stripes: Box<[tokio::sync::Mutex<()>]>,
}

/// What never changes about a trip.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    /// Whose it is.
    pub shopper: ShopperId,
    /// Currency of its amounts.
    pub currency: Currency,
}

/// Whether the trip cache shows what the ledger has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shown {
    /// It does.
    Current,
    /// The write failed; a repair follows.
    Behind,
}

/// A trip as a reader sees it.
#[derive(Clone, PartialEq, Debug)]
pub struct TripView {
    /// The trip and its items.
    pub sheet: TripSheet,
    /// What counts against it.
    pub approvals: Vec<Approval>,
}

/// A call that could not be answered.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FlowError {
    /// The ledger gave no answer; its error says whether the call may have taken effect.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The queue gave no answer; the events may be in it.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The journal gave no answer; the events may be in it.
    #[error("journal: {0}")]
    Journal(#[source] LedgerError),
    /// Neither the trip cache nor the ledger could be asked about the trip.
    #[error("the trip can be looked up nowhere: {0}")]
    Blind(#[source] LedgerError),
}

// === impl Budgets ===

impl Default for Budgets {
    fn default() -> Self {
        Self {
            ledger: Duration::from_secs(2),
            cache: Duration::from_millis(250),
            append: Duration::from_secs(1),
            book: Duration::from_secs(5),
            settle: Duration::from_secs(1),
        }
    }
}

// === impl FlowError ===

impl FlowError {
    /// Whether the same call may succeed later.
    pub fn may_retry(&self) -> bool {
        match self {
            Self::Ledger(error) | Self::Journal(error) | Self::Blind(error) => {
                error.retry != Retry::Never
            }
            Self::Queue(_) => true,
        }
    }
}

// === impl Platform ===

impl Platform {
    /// A platform on these ports. Nothing runs yet: see [`crate::feeder::spawn`].
    pub fn new(ports: Ports, budgets: Budgets) -> Self {
        Self {
            ports,
            budgets,
            counters: Counters::default(),
            repairs: Repairs::default(),
            bookings: watch::Sender::new(0),
            repair_bell: Notify::new(),
            known: Mutex::default(),
            stripes: (0..STRIPES)
                .map(|_| tokio::sync::Mutex::default())
                .collect(),
        }
    }

    /// What was counted so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Adds or replaces a store.
    pub async fn put_store(&self, store: Store) -> Result<(), FlowError> {
        self.ask(self.ports.ledger.put_store(store)).await
    }

    /// Gives a card to a shopper, or takes it from whoever has it.
    pub async fn set_card(&self, card: Card, shopper: Option<ShopperId>) -> Result<(), FlowError> {
        self.ask(self.ports.ledger.set_card(card, shopper)).await
    }

    /// Says what a network calls a store.
    pub async fn put_merchant_id(&self, id: MerchantId) -> Result<(), FlowError> {
        self.ask(self.ports.ledger.put_merchant_id(id)).await
    }

    /// Forgets what a network calls a store; says whether it was known.
    pub async fn remove_merchant_id(&self, key: MerchantKey) -> Result<bool, FlowError> {
        self.ask(self.ports.ledger.remove_merchant_id(key)).await
    }

    /// Places an order.
    pub async fn place(&self, order: Order) -> Result<Placed, FlowError> {
        self.ask(self.ports.ledger.place_order(order)).await
    }

    /// One order.
    pub async fn order(&self, id: OrderId) -> Result<Option<Order>, FlowError> {
        self.ask(self.ports.ledger.order(id)).await
    }

    /// What a shopper at a store may claim, oldest first; at most [`OFFERS_MAX`].
    pub async fn offers(&self, store: StoreId, limit: u32) -> Result<Vec<Order>, FlowError> {
        let offers = self.ports.ledger.offers(store, limit.min(OFFERS_MAX));
        self.ask(offers).await
    }

    /// Claims an order; of any number of shoppers one wins.
    pub async fn claim(&self, order: OrderId, shopper: ShopperId) -> Result<Claim, FlowError> {
        self.ask(self.ports.ledger.claim(order, shopper)).await
    }

    /// Starts a trip in the ledger, then shows it to the edges.
    pub async fn start(&self, start: StartTrip) -> Result<(Started, Shown), FlowError> {
        let started = self.ask(self.ports.ledger.start_trip(start)).await?;
        let shown = match &started {
            Started::Trip(sheet) => {
                self.remember(&sheet.trip);
                self.write_through(TripSheet::clone(sheet)).await
            }
            Started::HasTrip(_) | Started::NotClaimed(_) | Started::Mixed => Shown::Current,
        };
        Ok((started, shown))
    }

    /// Appends what happened on trips; `Ok` once it is durable. It reaches the cache, then the
    /// ledger, in the order given. At most [`EVENTS_PER_CALL_MAX`] events, all of one trip.
    pub async fn append(&self, events: Vec<TripEvent>) -> Result<(), FlowError> {
        let (Some(first), count) = (events.first(), events.len()) else {
            return Ok(());
        };
        let trip = first.trip;
        let queue_gone = |_elapsed| QueueError::Cache(CacheError::Timeout);
        let Some(journal) = &self.ports.journal else {
            let append = self.ports.queue.append(events);
            timeout(self.budgets.append, append)
                .await
                .map_err(queue_gone)??;
            self.counters.appended.add(count);
            return Ok(());
        };
        // One budget for all of it: a caller that waits for another's append to a trip of the same
        // stripe is not made to wait longer than a caller that does not.
        let deadline = Instant::now()
            .checked_add(self.budgets.append)
            .unwrap_or_else(Instant::now);
        let journal_gone = |_elapsed| FlowError::Journal(LedgerError::timeout("journal"));
        // Under the lock, so that after a crash the journal replays a trip's events in the order
        // in which the cache saw them.
        let _order = timeout_at(deadline, self.stripe(trip).lock())
            .await
            .map_err(journal_gone)?;
        timeout_at(deadline, journal.record(&events))
            .await
            .map_err(journal_gone)?
            .map_err(FlowError::Journal)?;
        timeout_at(deadline, self.ports.queue.append(events))
            .await
            .map_err(queue_gone)??;
        self.counters.appended.add(count);
        Ok(())
    }

    /// Completes a trip in the ledger, then takes it from the edges. A finish that was acknowledged
    /// just before may still be on its way: it is waited for, within a budget.
    pub async fn complete(
        &self,
        shopper: ShopperId,
        trip: TripId,
    ) -> Result<(Completed, Shown), FlowError> {
        let deadline = Instant::now()
            .checked_add(self.budgets.settle)
            .unwrap_or_else(Instant::now);
        let mut bookings = self.bookings.subscribe();
        loop {
            let completed = self.ask(self.ports.ledger.complete(shopper, trip)).await?;
            match completed {
                Completed::Now | Completed::Before => {
                    return Ok((completed, self.show_completed(shopper, trip).await));
                }
                Completed::UnknownTrip => return Ok((completed, Shown::Current)),
                Completed::StillShopping => {}
            }
            // Another process may have booked it: look again now and then without being told.
            let pause = Duration::from_millis(50);
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.finish_may_come(trip).await {
                return Ok((completed, Shown::Current));
            }
            drop(timeout(pause.min(left), bookings.changed()).await);
        }
    }

    /// A trip: from the cache, which sees events first, else from the ledger.
    pub async fn trip(
        &self,
        shopper: ShopperId,
        trip: TripId,
    ) -> Result<Option<TripView>, FlowError> {
        if let Some(sheet) = self.cached_sheet(trip).await.ok().flatten()
            && sheet.trip.shopper == shopper
        {
            let look = timeout(self.budgets.cache, self.ports.cache.look(shopper)).await;
            let cached = look.ok().and_then(Result::ok).and_then(|look| look.trip);
            if let Some(cached) = cached.filter(|cached| cached.trip.id == trip) {
                let approvals = cached.approvals;
                return Ok(Some(TripView { sheet, approvals }));
            }
        }
        let open = self.ask(self.ports.ledger.trip(shopper, trip)).await?;
        Ok(open.map(|open| TripView {
            sheet: open.sheet,
            approvals: open.approvals,
        }))
    }

    /// Whose a trip is and its currency; `None` when neither cache nor ledger has such a trip.
    pub async fn known(
        &self,
        shopper: ShopperId,
        trip: TripId,
    ) -> Result<Option<Known>, FlowError> {
        let remembered = self.lock_known().get(&trip).copied();
        if remembered.is_some() {
            return Ok(remembered);
        }
        if let Ok(Some(sheet)) = self.cached_sheet(trip).await {
            return Ok(Some(self.remember(&sheet.trip)));
        }
        let found = self.ask(self.ports.ledger.trip(shopper, trip)).await;
        match found {
            Ok(Some(open)) => Ok(Some(self.remember(&open.sheet.trip))),
            Ok(None) => Ok(None),
            Err(FlowError::Ledger(error)) => Err(FlowError::Blind(error)),
            Err(other) => Err(other),
        }
    }

    /// Shows the edges what the ledger has; a failed write is remembered for a repair.
    async fn write_through(&self, sheet: TripSheet) -> Shown {
        let (shopper, trip) = (sheet.trip.shopper, sheet.trip.id);
        let error = match timeout(self.budgets.cache, self.ports.cache.put(sheet)).await {
            Ok(Ok(_)) => return Shown::Current,
            Ok(Err(error)) => error,
            Err(_elapsed) => CacheError::Timeout,
        };
        tracing::warn!(%trip, %error, "the trip cache is behind the ledger");
        self.repair_later(shopper, trip)
    }

    async fn show_completed(&self, shopper: ShopperId, trip: TripId) -> Shown {
        match self.repair(shopper, trip).await {
            Ok(()) => Shown::Current,
            Err(_) => self.repair_later(shopper, trip),
        }
    }

    fn repair_later(&self, shopper: ShopperId, trip: TripId) -> Shown {
        if !self.repairs.add(trip, shopper) {
            self.counters.repairs_dropped.add(1);
        }
        self.counters.repairs_now.set(self.repairs.len());
        self.repair_bell.notify_one();
        Shown::Behind
    }

    /// Whether a finish of this trip may still be between the queue and the ledger.
    async fn finish_may_come(&self, trip: TripId) -> bool {
        if let Ok(Some(sheet)) = self.cached_sheet(trip).await
            && sheet.trip.status == TripStatus::Delivering
        {
            return true;
        }
        let depth = timeout(self.budgets.cache, self.ports.queue.depth()).await;
        !matches!(depth, Ok(Ok(0)))
    }

    pub(crate) async fn cached_sheet(&self, trip: TripId) -> Result<Option<TripSheet>, CacheError> {
        timeout(self.budgets.cache, self.ports.cache.sheet(trip))
            .await
            .map_err(|_elapsed| CacheError::Timeout)?
    }

    pub(crate) async fn ask<T>(
        &self,
        call: impl Future<Output = Result<T, LedgerError>>,
    ) -> Result<T, FlowError> {
        match timeout(self.budgets.ledger, call).await {
            Ok(answer) => Ok(answer?),
            Err(_elapsed) => Err(LedgerError::timeout("no answer in the budget").into()),
        }
    }

    fn remember(&self, trip: &standin_core::trip::Trip) -> Known {
        let known = Known {
            shopper: trip.shopper,
            currency: trip.currency,
        };
        let mut all = self.lock_known();
        if all.len() >= KNOWN_TRIPS_MAX {
            all.clear();
        }
        all.insert(trip.id, known);
        known
    }

    fn lock_known(&self) -> std::sync::MutexGuard<'_, HashMap<TripId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stripe(&self, trip: TripId) -> &tokio::sync::Mutex<()> {
        let [.., last] = trip.0.as_bytes();
        // STRIPES is 256: every byte has its lock.
        &self.stripes[usize::from(*last)]
    }
}
