//! The platform's side of the demo: customers order, shoppers claim, start, pick, move, finish.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use standin_core::money::{Currency, Money};
use tokio::time::Instant;
use uuid::Uuid;

use super::plan::{Plan, Timing, TripPlan};
use super::stories::Deed;
use crate::platform_client::{
    self, EventIn, ItemIn, OrderIn, PlatformClient, PlatformError, TripOut,
};

/// Trips opened at once before the load begins.
const OPENING_AT_ONCE: usize = 48;
/// Events sent in one call.
const EVENTS_PER_CALL: usize = 100;
/// Between two looks at a trip.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a step before the load may take.
const OPEN_WITHIN: Duration = Duration::from_secs(60);
/// After the primary is back, completions that had to wait are spread over this many milliseconds.
const COMPLETE_OVER_MS: u64 = 3_000;
/// Faults kept in words.
const FAULTS_MAX: usize = 5;
/// Degrees (millionths) that take a phone far from any store: about 110 km.
const FAR_E6: i32 = 1_000_000;

/// What became of the platform's calls.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) orders: AtomicU64,
    pub(super) trips: AtomicU64,
    pub(super) events: AtomicU64,
    pub(super) completed: AtomicU64,
    /// Rivals who were told that another shopper has the order.
    pub(super) rivals_refused: AtomicU64,
    /// Orders refused with 503 while the primary was away.
    pub(super) refused_while_away: AtomicU64,
    /// Steps that did not come about in time.
    pub(super) faults: AtomicU64,
    words: Mutex<Vec<String>>,
}

/// Everyone on the platform's side.
#[derive(Clone)]
pub(super) struct Shoppers {
    pub(super) client: PlatformClient,
    pub(super) counts: Arc<Counts>,
    pub(super) timing: Timing,
}

/// Why a step of a trip did not come about.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Platform(#[from] PlatformError),
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("the trip does not show {wanted} but {seen}")]
    NotSeen { wanted: String, seen: String },
    #[error("a second shopper's claim got status {0:?}")]
    Rival(Option<u16>),
    #[error("{0:?} too late for what was planned next")]
    Late(Duration),
}

// === impl Counts ===

impl Counts {
    fn add(counter: &AtomicU64, more: usize) {
        counter.fetch_add(u64::try_from(more).unwrap_or(0), Ordering::Relaxed);
    }

    /// What went wrong, the first few.
    pub(super) fn words(&self) -> Vec<String> {
        self.words
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The counts by name.
    pub(super) fn figures(&self) -> BTreeMap<&'static str, u64> {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BTreeMap::from([
            ("orders", of(&self.orders)),
            ("trips", of(&self.trips)),
            ("events", of(&self.events)),
            ("completed", of(&self.completed)),
            ("rivals_refused", of(&self.rivals_refused)),
            ("refused_while_away", of(&self.refused_while_away)),
            ("faults", of(&self.faults)),
        ])
    }

    pub(super) fn fault(&self, what: impl std::fmt::Display) {
        Self::add(&self.faults, 1);
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        if words.len() < FAULTS_MAX {
            words.push(what.to_string());
        }
    }
}

// === impl Shoppers ===

impl Shoppers {
    /// Does everything that has to be done before the load begins.
    pub(super) async fn prepare(&self, plan: &Plan, opened: impl Fn(u64)) {
        let until = Instant::now()
            .checked_add(OPEN_WITHIN)
            .unwrap_or_else(Instant::now);
        let early = plan.trips.iter().filter(|trip| trip.open_at.is_none());
        let work = early.map(|trip| async move {
            self.note("opening a trip", self.open(trip, until).await);
            if trip.shop_at.is_none() {
                self.note("picking", self.shop(trip, until).await);
            }
        });
        let mut all = stream::iter(work).buffer_unordered(OPENING_AT_ONCE);
        let mut done = 0_u64;
        while all.next().await.is_some() {
            done = done.saturating_add(1);
            opened(done);
        }
    }

    /// Lives one trip from where [`Shoppers::prepare`] left it.
    pub(super) async fn live(self, trip: TripPlan, start: Instant) {
        let at = |after: Duration| start.checked_add(after).unwrap_or(start);
        // The first payment comes so long after the picks began.
        let shopped_by = |after: Duration| at(after.saturating_add(Duration::from_millis(1_900)));
        if let Some(open_at) = trip.open_at {
            tokio::time::sleep_until(at(open_at)).await;
            let until = trip.shop_at.map_or(at(open_at), shopped_by);
            self.note("opening a trip", self.open(&trip, until).await);
        }
        if let Some(shop_at) = trip.shop_at {
            tokio::time::sleep_until(at(shop_at)).await;
            self.note("picking", self.shop(&trip, shopped_by(shop_at)).await);
        }
        if let Some((deed_at, deed)) = trip.deed {
            tokio::time::sleep_until(at(deed_at)).await;
            let done = match deed {
                Deed::Reprice => self.reprice(&trip, shopped_by(deed_at)).await,
                Deed::Finish => self.finish(&trip, shopped_by(deed_at)).await,
            };
            self.note("between payments", done);
        }
        tokio::time::sleep_until(at(trip.finish_at)).await;
        let patience = Duration::from_secs(10);
        let until = Instant::now().checked_add(patience).unwrap_or(start);
        let finish = [EventIn::of("finish", Uuid::now_v7())];
        self.note("finishing", self.tell(&trip, &finish, until).await);
        tokio::time::sleep_until(at(self.completes_at(&trip))).await;
        let until = Instant::now().checked_add(patience).unwrap_or(start);
        let completed = self.complete(&trip, until).await;
        if self.note("completing", completed) {
            Counts::add(&self.counts.completed, 1);
        }
    }

    /// While the primary is away every customer who orders is told to come back; then the order is
    /// taken, under the id it had.
    pub(super) async fn order_during_outage(self, store: i64, start: Instant) {
        let ms = Duration::from_millis;
        let at = |after: u64| start.checked_add(ms(after)).unwrap_or(start);
        let (from, to) = (
            self.timing.gone_ms.saturating_add(500),
            self.timing.back_ms.saturating_sub(500),
        );
        let item = ItemIn {
            product: 1,
            category: "GROCERY",
            quantity: 1,
            listed: "1.00".to_owned(),
        };
        let mut refused = Vec::new();
        let mut moment = from;
        while moment < to {
            tokio::time::sleep_until(at(moment)).await;
            let order = OrderIn {
                order_id: Uuid::now_v7(),
                customer_id: 1,
                store_id: store,
                items: vec![item.clone()],
            };
            let Ok(call) = platform_client::place(&order) else {
                return;
            };
            match self.client.ask(call.clone()).await {
                Err(PlatformError::Refused { status: 503, .. }) => {
                    Counts::add(&self.counts.refused_while_away, 1);
                    refused.push(call);
                }
                other => self
                    .counts
                    .fault(format_args!("ordering without the primary: {other:?}")),
            }
            moment = moment.saturating_add(500);
        }
        let until = at(self.timing.end_ms.saturating_add(10_000));
        tokio::time::sleep_until(at(self.timing.back_ms)).await;
        for call in refused {
            let placed = self
                .client
                .insist(call, until)
                .await
                .map(drop)
                .map_err(StepError::from);
            if self.note("ordering again", placed) {
                Counts::add(&self.counts.orders, 1);
            }
        }
    }

    /// Completing needs the ledger: what would fall into the outage waits for its end.
    fn completes_at(&self, trip: &TripPlan) -> Duration {
        let planned = trip.finish_at.saturating_add(Duration::from_millis(500));
        let away = Duration::from_millis(self.timing.hang_ms.saturating_sub(500))
            ..Duration::from_millis(self.timing.back_ms.saturating_add(1_500));
        if !away.contains(&planned) {
            return planned;
        }
        let spread = trip
            .shopper
            .get()
            .unsigned_abs()
            .checked_rem(COMPLETE_OVER_MS)
            .unwrap_or(0);
        away.end.saturating_add(Duration::from_millis(spread))
    }

    async fn open(&self, trip: &TripPlan, until: Instant) -> Result<(), StepError> {
        let items = trip.lines.iter().map(|line| ItemIn {
            product: line.product,
            category: &line.department,
            quantity: line.quantity,
            listed: dollars(line.listed),
        });
        let order = OrderIn {
            order_id: trip.order,
            customer_id: trip.customer,
            store_id: trip.store.id.get(),
            items: items.collect(),
        };
        self.client
            .insist(platform_client::place(&order)?, until)
            .await?;
        Counts::add(&self.counts.orders, 1);
        let shopper: u64 = trip.shopper.into();
        self.client
            .insist(platform_client::claim(trip.order, shopper)?, until)
            .await?;
        if trip.rival {
            let rival = platform_client::claim(trip.order, shopper.saturating_add(500_000_000))?;
            let status = self.client.call(rival).await.ok().map(|reply| reply.status);
            if status != Some(409) {
                return Err(StepError::Rival(status));
            }
            Counts::add(&self.counts.rivals_refused, 1);
        }
        let start = platform_client::start(trip.trip, shopper, &[trip.order])?;
        self.client.insist(start, until).await?;
        Counts::add(&self.counts.trips, 1);
        in_time(until)
    }

    /// Picks the cart together, and waits until the platform shows it.
    async fn shop(&self, trip: &TripPlan, until: Instant) -> Result<(), StepError> {
        let store = &trip.store;
        let away = if trip.far { FAR_E6 } else { 0 };
        let lat_e6 = store.lat_e6.saturating_add(away);
        let mut events = vec![EventIn::position(Uuid::now_v7(), lat_e6, store.lon_e6)];
        for (at, line) in trip.lines.iter().enumerate() {
            let kind = if Some(at) == trip.cart.out_of_stock {
                "out_of_stock"
            } else {
                "pick"
            };
            let actual = (trip.prices && kind == "pick").then(|| dollars(line.actual));
            events.push(line_event(kind, trip, at, actual));
            if Some(at) == trip.cart.put_back {
                events.push(line_event("unpick", trip, at, None));
            }
        }
        self.tell(trip, &events, until).await?;
        let picked = if trip.prices {
            trip.cart.paid
        } else {
            trip.cart.listed
        };
        self.await_picked(trip, picked, until).await
    }

    /// Enters the price on the shelf for everything in the cart.
    async fn reprice(&self, trip: &TripPlan, until: Instant) -> Result<(), StepError> {
        let in_cart = trip.lines.iter().enumerate().filter(|(at, _)| {
            Some(*at) != trip.cart.out_of_stock && Some(*at) != trip.cart.put_back
        });
        let events: Vec<EventIn> = in_cart
            .map(|(at, line)| line_event("pick", trip, at, Some(dollars(line.actual))))
            .collect();
        self.tell(trip, &events, until).await?;
        self.await_picked(trip, trip.cart.paid, until).await
    }

    async fn finish(&self, trip: &TripPlan, until: Instant) -> Result<(), StepError> {
        self.tell(trip, &[EventIn::of("finish", Uuid::now_v7())], until)
            .await?;
        self.await_trip(trip, until, "DELIVERING", |seen| {
            seen.status == "DELIVERING"
        })
        .await
    }

    /// Completes the trip; a finish that was acknowledged may still be on its way to the ledger.
    async fn complete(&self, trip: &TripPlan, until: Instant) -> Result<(), StepError> {
        let call = platform_client::complete(trip.trip, trip.shopper.into())?;
        loop {
            match self.client.insist(call.clone(), until).await {
                Ok(_) => return Ok(()),
                Err(PlatformError::Refused { status: 409, .. }) if Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn tell(
        &self,
        trip: &TripPlan,
        events: &[EventIn],
        until: Instant,
    ) -> Result<(), StepError> {
        for some in events.chunks(EVENTS_PER_CALL) {
            let call = platform_client::events(trip.trip, trip.shopper.into(), some)?;
            self.client.insist(call, until).await?;
            Counts::add(&self.counts.events, some.len());
        }
        Ok(())
    }

    async fn await_picked(
        &self,
        trip: &TripPlan,
        picked: i64,
        until: Instant,
    ) -> Result<(), StepError> {
        let wanted = dollars(picked);
        self.await_trip(trip, until, &wanted, |seen| seen.picked == wanted)
            .await
    }

    /// Looks at the trip, as the shopper's app does, until it is as it must be.
    async fn await_trip(
        &self,
        trip: &TripPlan,
        until: Instant,
        wanted: &str,
        is_so: impl Fn(&TripOut) -> bool,
    ) -> Result<(), StepError> {
        loop {
            let call = platform_client::trip(trip.shopper.into(), trip.trip);
            let seen: TripOut = serde_json::from_value(self.client.insist(call, until).await?)?;
            if is_so(&seen) {
                return in_time(until);
            }
            if Instant::now() >= until {
                let seen = format!("{} {}", seen.status, seen.picked);
                return Err(StepError::NotSeen {
                    wanted: wanted.to_owned(),
                    seen,
                });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn note(&self, what: &str, done: Result<(), StepError>) -> bool {
        if let Err(error) = &done {
            self.counts.fault(format_args!("{what}: {error}"));
        }
        done.is_ok()
    }
}

/// A step that came about, but after what was to follow it: its payments meet another trip than planned.
fn in_time(until: Instant) -> Result<(), StepError> {
    match Instant::now().checked_duration_since(until) {
        None | Some(Duration::ZERO) => Ok(()),
        Some(late) => Err(StepError::Late(late)),
    }
}

fn line_event(kind: &'static str, trip: &TripPlan, at: usize, actual: Option<String>) -> EventIn {
    EventIn {
        order_id: Some(trip.order),
        line: u32::try_from(at).ok().and_then(|at| at.checked_add(1)),
        actual,
        ..EventIn::of(kind, Uuid::now_v7())
    }
}

fn dollars(cents: i64) -> String {
    Money::from_minor(cents, Currency::USD).to_decimal()
}
