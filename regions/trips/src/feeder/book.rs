//! The second half of a shard: what was fed → ledger, and only then forgotten by the queue.

use std::collections::BTreeMap;
use std::sync::Arc;

use standin_core::id::TripId;
use standin_core::ledger::{BookedEvent, EventsBooked, LedgerError, Retry};
use standin_core::queue::{Delivery, QueueError};
use standin_core::trip::{TripChange, TripStatus};
use standin_core::trip_cache::{CacheError, Put};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::feed::same_cart;
use super::handover::{Absent, Fed, Handover, Laggard, Next};
use super::{BATCH_EVENTS_MAX, Backoff, REPAIR_EVERY};
use crate::flow::{FlowError, Platform};

/// Trips compared with the ledger in one go.
const REPAIRS_A_STEP: usize = 64;

/// Books one shard's events.
pub(super) struct Booker {
    shard: u32,
    platform: Arc<Platform>,
    handover: Arc<Handover>,
    booked_to: Option<String>,
}

/// A step that has to be tried again.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error(transparent)]
    Flow(#[from] FlowError),
}

// === impl Booker ===

impl Booker {
    pub(super) fn new(shard: u32, platform: Arc<Platform>, handover: Arc<Handover>) -> Self {
        Self {
            shard,
            platform,
            handover,
            booked_to: None,
        }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::default();
        while !stop.is_cancelled() {
            let step = match self.handover.next() {
                Next::Batch(fed) => self.book_batch(&fed).await,
                Next::Spilled { fed_to } => self.book_spilled(&fed_to).await,
                Next::Nothing => {
                    let repaired = self.repair_laggards().await;
                    let news = async {
                        if self.handover.lagging() {
                            drop(timeout(REPAIR_EVERY, self.handover.news()).await);
                        } else {
                            self.handover.news().await;
                        }
                    };
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return,
                        () = news => {}
                    }
                    repaired
                }
            };
            match step {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    self.platform.counters.retries.add(1);
                    tracing::debug!(shard = self.shard, %error, "events not booked yet");
                    if !backoff.wait(&stop).await {
                        return;
                    }
                }
            }
        }
    }

    async fn book_batch(&mut self, fed: &Fed) -> Result<(), StepError> {
        let booked = self.book(fed.events.clone()).await?;
        if booked.changed != fed.changed {
            // The cache and the ledger differ about what these events changed (one was sent again
            // after its id was forgotten, or this batch was booked before): the ledger's word counts.
            self.suspect(&fed.events);
        }
        self.ack(&fed.upto, fed.count).await?;
        self.handover.booked();
        Ok(())
    }

    /// Books on from the queue, up to where the feed has been.
    async fn book_spilled(&mut self, fed_to: &str) -> Result<(), StepError> {
        let queue = &self.platform.ports.queue;
        let after = self.booked_to.clone();
        let mut read = queue.read(self.shard, after, BATCH_EVENTS_MAX).await?;
        if let Some(end) = read.iter().position(|delivery| delivery.receipt == fed_to) {
            read.truncate(end.saturating_add(1));
        }
        let Some(upto) = read.last().map(|last| last.receipt.clone()) else {
            // What was fed is not in the queue: it lost its memory. Nothing is left to book.
            tracing::error!(shard = self.shard, "fed events are gone from the queue");
            self.handover.booked_spilled(fed_to);
            return Ok(());
        };
        let count = read.len();
        let events = self.with_versions(read).await?;
        self.book(events).await?;
        self.ack(&upto, count).await?;
        self.handover.booked_spilled(&upto);
        Ok(())
    }

    /// The cache's version of each trip goes with its last event, so that the ledger's never stays
    /// behind it.
    async fn with_versions(&self, read: Vec<Delivery>) -> Result<Vec<BookedEvent>, StepError> {
        let cart = |event: &Delivery| !matches!(event.event.what, TripChange::Moved { .. });
        let mut events: Vec<BookedEvent> = read
            .into_iter()
            .filter(cart)
            .map(|delivery| BookedEvent {
                event: delivery.event,
                version: None,
            })
            .collect();
        let mut last: BTreeMap<TripId, usize> = BTreeMap::new();
        for (at, booked) in events.iter().enumerate() {
            last.insert(booked.event.trip, at);
        }
        for (trip, at) in last {
            let sheet = self.platform.cached_sheet(trip).await?;
            if let (Some(sheet), Some(booked)) = (sheet, events.get_mut(at)) {
                booked.version = Some(sheet.trip.version);
            }
        }
        Ok(events)
    }

    async fn book(&self, events: Vec<BookedEvent>) -> Result<EventsBooked, StepError> {
        if events.is_empty() {
            return Ok(EventsBooked::default());
        }
        match self.try_book(events.clone()).await {
            Ok(booked) => Ok(self.count(booked)),
            Err(error) if error.retry == Retry::Never => self.book_singly(events).await,
            Err(error) => Err(error.into()),
        }
    }

    /// One by one, so that an event which the ledger can never take does not hold up the others:
    /// it is refused, counted and logged.
    async fn book_singly(&self, events: Vec<BookedEvent>) -> Result<EventsBooked, StepError> {
        let mut sum = EventsBooked::default();
        for booked in events {
            let (event, trip) = (booked.event.id, booked.event.trip);
            match self.try_book(vec![booked]).await {
                Ok(one) => {
                    sum.changed = sum.changed.saturating_add(one.changed);
                    sum.unchanged = sum.unchanged.saturating_add(one.unchanged);
                    sum.refused = sum.refused.saturating_add(one.refused);
                }
                Err(error) if error.retry == Retry::Never => {
                    tracing::error!(%event, %trip, %error, "the ledger can not take an event");
                    sum.refused = sum.refused.saturating_add(1);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.count(sum))
    }

    async fn try_book(&self, events: Vec<BookedEvent>) -> Result<EventsBooked, LedgerError> {
        let booking = self.platform.ports.ledger.book_events(events);
        timeout(self.platform.budgets.book, booking)
            .await
            .map_err(|_elapsed| LedgerError::timeout("booking events"))?
    }

    fn count(&self, booked: EventsBooked) -> EventsBooked {
        let counters = &self.platform.counters;
        let taken = booked.changed.saturating_add(booked.unchanged);
        counters
            .booked
            .add(usize::try_from(taken).unwrap_or(usize::MAX));
        let refused = usize::try_from(booked.refused).unwrap_or(usize::MAX);
        counters.refused.add(refused);
        if refused > 0 {
            tracing::warn!(shard = self.shard, refused, "the ledger refused events");
        }
        booked
    }

    async fn ack(&mut self, upto: &str, count: usize) -> Result<(), StepError> {
        let ack = self.platform.ports.queue.ack(self.shard, upto.to_owned());
        timeout(self.platform.budgets.append, ack)
            .await
            .map_err(|_elapsed| QueueError::Cache(CacheError::Timeout))??;
        self.booked_to = Some(upto.to_owned());
        self.platform.counters.backlog_now.sub(count);
        self.platform
            .bookings
            .send_modify(|n| *n = n.wrapping_add(1));
        Ok(())
    }

    // --- the ledger's word ---

    fn suspect(&self, events: &[BookedEvent]) {
        let trips: BTreeMap<_, _> = events
            .iter()
            .map(|booked| (booked.event.trip, booked.event.shopper))
            .collect();
        for (trip, shopper) in trips {
            if !self.handover.lag(trip, shopper, Absent::No) {
                self.platform.counters.repairs_dropped.add(1);
            }
        }
    }

    /// Shows the cache the ledger's state of trips that it lacks or may show wrongly. Only while
    /// everything fed is booked, so that the ledger is not behind the cache.
    async fn repair_laggards(&self) -> Result<(), StepError> {
        for (trip, laggard) in self.handover.laggards(REPAIRS_A_STEP) {
            if self.repair_laggard(trip, laggard).await? {
                self.handover.repaired(trip);
                self.platform.counters.repaired.add(1);
            }
        }
        Ok(())
    }

    /// `false` when another writer was faster: look again later.
    async fn repair_laggard(&self, trip: TripId, laggard: Laggard) -> Result<bool, StepError> {
        let platform = &self.platform;
        let find = platform.ports.ledger.trip(laggard.shopper, trip);
        let Some(open) = platform.ask(find).await? else {
            return Ok(true);
        };
        let mut sheet = open.sheet;
        if sheet.trip.status == TripStatus::Complete {
            // Completing it has taken it from the cache, or remembered to.
            return Ok(true);
        }
        if let Some(cached) = platform.cached_sheet(trip).await? {
            if same_cart(&cached, &sheet) {
                return Ok(true);
            }
            let newer = cached.trip.version.saturating_add(1);
            sheet.trip.version = sheet.trip.version.max(newer);
        }
        let put = platform.ports.cache.put(sheet);
        let put = timeout(platform.budgets.cache, put).await;
        let written = put.map_err(|_elapsed| CacheError::Timeout)?? == Put::Written;
        Ok(written)
    }
}
