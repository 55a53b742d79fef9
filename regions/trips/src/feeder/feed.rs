//! The first half of a shard: queue → trip cache.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use standin_core::id::{ShopperId, TripId};
use standin_core::ledger::BookedEvent;
use standin_core::queue::{Delivery, QueueError};
use standin_core::trip::{Applied, Position, TripChange, TripEvent, TripSheet};
use standin_core::trip_cache::{CacheError, Put};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::handover::{Absent, Fed, Handover};
use super::{BATCH_EVENTS_MAX, Backoff};
use crate::flow::{FlowError, Platform};

/// Event ids remembered, so that one sent twice is fed once.
const RECENT_MAX: usize = 65_536;
/// Most events replayed aside after a restart before the cache is written. With more of them
/// unacknowledged, the cache may for a moment show an earlier state of a trip.
const REPLAY_MAX: usize = 16_384;
/// Trips kept at hand; at the bound all are dropped and read from the cache again.
const SHEETS_MAX: usize = 2_048;
/// How long a ledger that did not answer is not asked for trips again.
const LEDGER_REST: Duration = Duration::from_millis(500);
/// Trips fed at the same time.
const TRIPS_AT_ONCE: usize = 64;
/// Tries of a batch after which a trip that the cache refuses is left to the ledger, so that it does
/// not hold up the others.
const REFUSALS_MAX: u32 = 5;
/// Writes of one trip that lose against another writer before the batch is tried again.
const RACES_MAX: u32 = 8;

/// Feeds one shard's events to the trip cache.
pub(super) struct Feed {
    shard: u32,
    platform: Arc<Platform>,
    handover: Arc<Handover>,
    fed_to: Option<String>,
    recent: Recent,
    sheets: HashMap<TripId, TripSheet>,
    ledger_rests_until: Option<Instant>,
    /// Tries of the present batch that failed.
    failures: u32,
}

/// Ids of the last events fed.
#[derive(Default)]
struct Recent {
    ids: HashSet<Uuid>,
    order: VecDeque<Uuid>,
}

/// Where a trip was found.
enum Found {
    Sheet(TripSheet),
    /// Neither cache nor ledger has it.
    Nowhere,
    /// The cache does not, and the ledger is away.
    LedgerAway,
}

/// What feeding one trip's events came to.
struct TripFed {
    trip: TripId,
    /// By place in the batch: the version after the event, or that it is refused.
    marks: Vec<(usize, Mark)>,
    sheet: Option<TripSheet>,
    /// The cache does not hold the trip and the ledger is away.
    absent: Option<ShopperId>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mark {
    /// It changed the trip, to this version where that is worth saying.
    Changed(Option<u64>),
    /// Nothing to see in the cache; the ledger decides.
    Unchanged,
    /// Nobody knows the trip: nothing to book.
    UnknownTrip,
    /// The line is not there, or it comes too late.
    Refused,
}

/// How a batch is applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pass {
    /// Events not seen by this process before.
    Fresh,
    /// The first pass after a start: some may be in the cache already, so that a trip which comes
    /// out as it was is not written.
    Replay,
}

// === impl Feed ===

impl Feed {
    pub(super) fn new(shard: u32, platform: Arc<Platform>, handover: Arc<Handover>) -> Self {
        Self {
            shard,
            platform,
            handover,
            fed_to: None,
            recent: Recent::default(),
            sheets: HashMap::new(),
            ledger_rests_until: None,
            failures: 0,
        }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::default();
        let mut pass = Pass::Replay;
        while !stop.is_cancelled() {
            // Reading takes nothing away, so that it may be dropped half way.
            let read = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                read = self.read(pass) => read,
            };
            match read {
                Ok(deliveries) if deliveries.is_empty() => {
                    backoff.reset();
                    pass = Pass::Fresh;
                }
                Ok(deliveries) => {
                    while let Err(error) = self.feed(&deliveries, pass).await {
                        self.platform.counters.retries.add(1);
                        tracing::debug!(shard = self.shard, %error, "trip cache not fed");
                        // What is at hand may be what the cache refused.
                        self.sheets.clear();
                        self.failures = self.failures.saturating_add(1);
                        if !backoff.wait(&stop).await {
                            return;
                        }
                    }
                    backoff.reset();
                    self.failures = 0;
                    pass = Pass::Fresh;
                }
                Err(error) => {
                    self.platform.counters.retries.add(1);
                    tracing::debug!(shard = self.shard, %error, "event queue not read");
                    if !backoff.wait(&stop).await {
                        return;
                    }
                }
            }
        }
    }

    async fn read(&self, pass: Pass) -> Result<Vec<Delivery>, QueueError> {
        let queue = &self.platform.ports.queue;
        let mut all = queue
            .read(self.shard, self.fed_to.clone(), BATCH_EVENTS_MAX)
            .await?;
        // A full read in the first pass: more is waiting, and belongs to the same replay.
        let full = usize::try_from(BATCH_EVENTS_MAX).unwrap_or(usize::MAX);
        let mut last = all.len();
        while pass == Pass::Replay && last >= full && all.len() < REPLAY_MAX {
            let after = all.last().map(|delivery| delivery.receipt.clone());
            let more = queue.read(self.shard, after, BATCH_EVENTS_MAX).await?;
            last = more.len();
            all.extend(more);
        }
        Ok(all)
    }

    /// Feeds a batch and hands it over. After an error the same batch can be fed again.
    async fn feed(&mut self, deliveries: &[Delivery], pass: Pass) -> Result<(), CacheError> {
        let mut marks = vec![Mark::Unchanged; deliveries.len()];
        let mut by_trip: BTreeMap<TripId, Vec<usize>> = BTreeMap::new();
        let mut positions: BTreeMap<ShopperId, Position> = BTreeMap::new();
        let mut batch_ids = HashSet::with_capacity(deliveries.len());
        let mut duplicates = 0_usize;
        for (at, Delivery { event, .. }) in deliveries.iter().enumerate() {
            if self.recent.ids.contains(&event.id) || !batch_ids.insert(event.id) {
                duplicates = duplicates.saturating_add(1);
            } else if let TripChange::Moved { position } = event.what {
                let newest = positions.entry(event.shopper).or_insert(position);
                if newest.at <= position.at {
                    *newest = position;
                }
            } else {
                by_trip.entry(event.trip).or_default().push(at);
            }
        }
        self.handover.begin(by_trip.keys().copied());
        self.show_positions(positions).await?;
        for fed in self.feed_trips(deliveries, by_trip, pass).await? {
            for (at, mark) in fed.marks {
                if let Some(slot) = marks.get_mut(at) {
                    *slot = mark;
                }
            }
            if let Some(shopper) = fed.absent
                && !self.handover.lag(fed.trip, shopper, Absent::Yes)
            {
                // The feed stands still rather than forget whom it passed by.
                return Err(CacheError::Refused("too many trips are behind".into()));
            }
            self.keep(fed.trip, fed.sheet);
        }
        self.platform.counters.duplicates.add(duplicates);
        self.hand_over(deliveries, &marks);
        Ok(())
    }

    async fn show_positions(
        &self,
        positions: BTreeMap<ShopperId, Position>,
    ) -> Result<(), CacheError> {
        let moves = positions.into_iter().map(|(shopper, position)| {
            let moved = self.platform.ports.cache.moved(shopper, position);
            async { timeout(self.platform.budgets.cache, moved).await }
        });
        for moved in futures_util::future::join_all(moves).await {
            moved.map_err(|_elapsed| CacheError::Timeout)??;
        }
        Ok(())
    }

    /// Trips of a batch side by side; each trip's events in their order.
    async fn feed_trips(
        &mut self,
        deliveries: &[Delivery],
        by_trip: BTreeMap<TripId, Vec<usize>>,
        pass: Pass,
    ) -> Result<Vec<TripFed>, CacheError> {
        let sheets = &mut self.sheets;
        let work: Vec<_> = by_trip
            .into_iter()
            .map(|(trip, at)| (trip, at, sheets.remove(&trip)))
            .collect();
        let this = &*self;
        let feeding = work.into_iter().map(|(trip, at, at_hand)| {
            let event = |at: usize| deliveries.get(at).map(|delivery| (at, &delivery.event));
            let events: Vec<(usize, &TripEvent)> = at.into_iter().filter_map(event).collect();
            async move {
                let fed = this.feed_trip(trip, &events, at_hand, pass).await;
                match (fed, events.first()) {
                    (Err(CacheError::Refused(_)), Some((_, first)))
                        if this.failures >= REFUSALS_MAX =>
                    {
                        Ok(this.pass_by(trip, &events, Some(first.shopper)))
                    }
                    (fed, _) => fed,
                }
            }
        });
        let fed: Vec<TripFed> = stream::iter(feeding)
            .buffered(TRIPS_AT_ONCE)
            .try_collect()
            .await?;
        if fed.iter().any(|fed| fed.absent.is_some()) {
            self.ledger_rests_until = Instant::now().checked_add(LEDGER_REST);
        }
        Ok(fed)
    }

    async fn feed_trip(
        &self,
        trip: TripId,
        events: &[(usize, &TripEvent)],
        mut at_hand: Option<TripSheet>,
        pass: Pass,
    ) -> Result<TripFed, CacheError> {
        let Some((_, first)) = events.first() else {
            return Ok(self.pass_by(trip, events, None));
        };
        if self.handover.passes_by(trip) {
            return Ok(self.pass_by(trip, events, None));
        }
        let done = |marks, sheet| TripFed {
            trip,
            marks,
            sheet,
            absent: None,
        };
        for _race in 0..RACES_MAX {
            let mut sheet = match at_hand.take() {
                Some(sheet) => sheet,
                None => match self.find(trip, first.shopper).await? {
                    Found::Sheet(sheet) => sheet,
                    Found::Nowhere => {
                        let unknown = events.iter().map(|(at, _)| (*at, Mark::UnknownTrip));
                        return Ok(done(unknown.collect(), None));
                    }
                    Found::LedgerAway => {
                        return Ok(self.pass_by(trip, events, Some(first.shopper)));
                    }
                },
            };
            let before = (pass == Pass::Replay).then(|| sheet.clone());
            let mut marks = apply(&mut sheet, events);
            if let Some(before) = before.filter(|before| same_cart(before, &sheet)) {
                keep_version(&mut marks, before.trip.version);
                return Ok(done(marks, Some(before)));
            }
            let changed = marks.iter().any(|(_, m)| matches!(m, Mark::Changed(_)));
            if !changed || self.put(&sheet).await? == Put::Written {
                return Ok(done(marks, Some(sheet)));
            }
        }
        Err(CacheError::Refused("a trip is written too often".into()))
    }

    /// Leaves a trip to the ledger; the cache follows once its events are booked.
    fn pass_by(
        &self,
        trip: TripId,
        events: &[(usize, &TripEvent)],
        absent: Option<ShopperId>,
    ) -> TripFed {
        self.platform.counters.passed_by.add(events.len());
        TripFed {
            trip,
            marks: events
                .iter()
                .map(|(at, _)| (*at, Mark::Unchanged))
                .collect(),
            sheet: None,
            absent,
        }
    }

    async fn put(&self, sheet: &TripSheet) -> Result<Put, CacheError> {
        let put = self.platform.ports.cache.put(sheet.clone());
        timeout(self.platform.budgets.cache, put)
            .await
            .map_err(|_elapsed| CacheError::Timeout)?
    }

    async fn find(&self, trip: TripId, shopper: ShopperId) -> Result<Found, CacheError> {
        if let Some(sheet) = self.platform.cached_sheet(trip).await? {
            return Ok(Found::Sheet(sheet));
        }
        let resting = |until| Instant::now() < until;
        if self.ledger_rests_until.is_some_and(resting) {
            return Ok(Found::LedgerAway);
        }
        let ledger = &self.platform.ports.ledger;
        let found = self.platform.ask(ledger.trip(shopper, trip)).await;
        Ok(match found {
            Ok(Some(open)) => Found::Sheet(open.sheet),
            Ok(None) => Found::Nowhere,
            Err(
                FlowError::Ledger(_)
                | FlowError::Blind(_)
                | FlowError::Queue(_)
                | FlowError::Journal(_),
            ) => Found::LedgerAway,
        })
    }

    fn keep(&mut self, trip: TripId, sheet: Option<TripSheet>) {
        if self.sheets.len() >= SHEETS_MAX {
            self.sheets.clear();
        }
        if let Some(sheet) = sheet {
            self.sheets.insert(trip, sheet);
        }
    }

    fn hand_over(&mut self, deliveries: &[Delivery], marks: &[Mark]) {
        let counters = &self.platform.counters;
        let mut refused = 0_usize;
        let batch = usize::try_from(BATCH_EVENTS_MAX).unwrap_or(usize::MAX);
        let mut all = Vec::new();
        for (deliveries, marks) in deliveries.chunks(batch).zip(marks.chunks(batch)) {
            let mut fed = Fed {
                count: deliveries.len(),
                ..Fed::default()
            };
            for (Delivery { event, receipt }, mark) in deliveries.iter().zip(marks) {
                fed.upto.clone_from(receipt);
                self.recent.add(event.id);
                let version = match mark {
                    Mark::Changed(version) => {
                        fed.changed = fed.changed.saturating_add(1);
                        *version
                    }
                    Mark::Unchanged | Mark::Refused => None,
                    Mark::UnknownTrip => {
                        refused = refused.saturating_add(1);
                        tracing::warn!(event = %event.id, trip = %event.trip, "no such trip: event refused");
                        continue;
                    }
                };
                // Where a shopper is never reaches the ledger.
                if !matches!(event.what, TripChange::Moved { .. }) {
                    let event = event.clone();
                    fed.events.push(BookedEvent { event, version });
                }
            }
            self.fed_to = Some(fed.upto.clone());
            all.push(fed);
        }
        self.handover.push(all);
        counters.refused.add(refused);
        counters.fed.add(deliveries.len());
        counters.backlog_now.add(deliveries.len());
    }
}

fn apply(sheet: &mut TripSheet, events: &[(usize, &TripEvent)]) -> Vec<(usize, Mark)> {
    let mut version = sheet.trip.version;
    if events
        .iter()
        .any(|(_, event)| event.shopper != sheet.trip.shopper)
    {
        // One shopper may not touch another's trip; the sender is checked at the door already.
        return events.iter().map(|(at, _)| (*at, Mark::Refused)).collect();
    }
    let applied = sheet.apply_all(events.iter().map(|(_, event)| &event.what));
    let mark = |((at, _), applied): (&(usize, &TripEvent), Applied)| match applied {
        Applied::Changed => {
            version = version.saturating_add(1);
            (*at, Mark::Changed(Some(version)))
        }
        Applied::Unchanged => (*at, Mark::Unchanged),
        Applied::Refused => (*at, Mark::Refused),
    };
    events.iter().zip(applied).map(mark).collect()
}

/// Of events that the cache had already, only the last says the version, so that the ledger counts
/// up to it as the cache once did.
fn keep_version(marks: &mut [(usize, Mark)], version: u64) {
    let mut last = Some(version);
    for (_, mark) in marks.iter_mut().rev() {
        if let Mark::Changed(_) | Mark::Unchanged = mark {
            *mark = Mark::Changed(last.take());
        }
    }
}

/// Whether two states of a trip differ at most in their version.
pub(super) fn same_cart(one: &TripSheet, other: &TripSheet) -> bool {
    one.trip.status == other.trip.status && one.items == other.items
}

// === impl Recent ===

impl Recent {
    fn add(&mut self, id: Uuid) {
        if !self.ids.insert(id) {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > RECENT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}
