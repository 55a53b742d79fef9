//! The world that is measured in: stores, and shoppers with open trips, made through the ledger's
//! and the trip cache's own ports, once; every round begins with a fresh copy.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use standin_core::clock::{Clock, SystemClock, Timestamp};
use standin_core::id::{OrderId, ShopperId, TripId};
use standin_core::ledger::postgres::{PostgresConfig, PostgresLedger};
use standin_core::ledger::{BookedEvent, Claim, Ledger, Placed, StartTrip, Started};
use standin_core::merchant::Store;
use standin_core::money::Currency;
use standin_core::trip::{
    Applied, Item, ItemStatus, Order, OrderStatus, Position, TripChange, TripEvent, TripSheet,
};
use standin_core::trip_cache::TripCache;
use standin_core::trip_cache::redis::RedisTripCache;
use uuid::Uuid;

use super::work::scramble;

/// Lines of a trip that pays, all of them picked.
const PAYING_LINES: u32 = 12;
/// Lines of a trip that is picked on.
const PICKING_LINES: u32 = 50;
/// Calls under way at once while the world is made.
const AT_ONCE: usize = 16;
const CATEGORIES: [&str; 6] = ["PRODUCE", "MEAT", "DAIRY", "BAKERY", "GROCERY", "HOUSEHOLD"];
const CHAINS: [&str; 8] = [
    "Target", "Safeway", "Walmart", "Kroger", "Costco", "Publix", "Aldi", "Wegmans",
];
const STREETS: [&str; 10] = [
    "Main St",
    "Oak Ave",
    "Maple Dr",
    "Cedar Ln",
    "Elm St",
    "Lake Rd",
    "Hill Blvd",
    "Park Ave",
    "River Rd",
    "Mill St",
];

/// The rules in force: those of the example, with room for every payment of a run, so that none is
/// declined and each is work.
pub const POLICY: &str = r#"
version = 1
currency = "USD"

[primary]
trip_age_max_ms = 2_000

[thresholds.default]
percent = "10"
absolute = "9000000.00"
ceiling = "9900000.00"

[stand_in]
trip_age_max_ms = 60_000
percent = "10"
absolute = "9000000.00"
ceiling = "9900000.00"
transaction = "1000.00"

[stand_in.shopper]
outage = { amount = "9000000.00", count = 1_000_000 }
hour = { amount = "9000000.00", count = 1_000_000 }

[stand_in.bank]
outage = { amount = "90000000000.00", count = 1_000_000_000 }
hour = { amount = "90000000000.00", count = 1_000_000_000 }

[[stand_in.decay]]
percent = "100"

[isolated]
floor = "75.00"
window_ms = 3_600_000
reserve = { amount = "10000.00", count = 200 }

[[isolated.decay]]
percent = "100"

[geofence]
radius_m = 800
position_age_max_ms = 86_400_000
future_skew_max_ms = 5_000
missing = "flag"

[velocity]
window_ms = 300_000
approvals_max = 1_000_000

[double_swipe]
window_ms = 1
"#;

/// Everything that is there before a round.
pub struct World {
    /// Our stores.
    pub stores: Vec<Store>,
    /// Trips that pay: their carts are full.
    pub paying: Vec<OpenTrip>,
    /// Trips that are picked on: their carts are empty.
    pub picking: Vec<OpenTrip>,
    sheets: Vec<TripSheet>,
}

/// An open trip of one order.
#[derive(Clone, Copy, Debug)]
pub struct OpenTrip {
    /// Whose.
    pub shopper: ShopperId,
    /// Its id.
    pub trip: TripId,
    /// Its order.
    pub order: OrderId,
    /// Lines of the order, numbered from 1.
    pub lines: u32,
    /// Index of its store.
    pub store: usize,
}

// === impl World ===

impl World {
    /// Makes the world in an empty database. `url` is a Postgres connection text.
    pub async fn make(url: &str, paying: u32, picking: u32) -> anyhow::Result<Self> {
        // The copies that are measured on are durable; this one is only copied from.
        let mut config =
            PostgresConfig::new(format!("{url}?options=-c%20synchronous_commit%3Doff"));
        config.background.connections = AT_ONCE;
        config.background.wait = Duration::from_secs(60);
        config.background.statement_timeout = Duration::from_secs(60);
        let ledger = PostgresLedger::connect(&config)?;
        ledger.migrate().await?;
        let stores = stores();
        for store in &stores {
            ledger.put_store(store.clone()).await?;
        }
        let (ledger_ref, stores_ref) = (&ledger, &stores);
        let start = |number: u32| async move {
            let lines = if number < paying {
                PAYING_LINES
            } else {
                PICKING_LINES
            };
            start_trip(ledger_ref, stores_ref, number, lines).await
        };
        let mut started: Vec<(OpenTrip, TripSheet)> = stream::iter(0..paying + picking)
            .map(start)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        started.sort_by_key(|(trip, _)| trip.shopper);
        let (trips, mut sheets): (Vec<_>, Vec<_>) = started.into_iter().unzip();
        let (pay, pick) = trips.split_at(usize::try_from(paying)?);
        fill_carts(&ledger, pay, &mut sheets).await?;
        ledger.close();
        Ok(Self {
            paying: pay.to_vec(),
            picking: pick.to_vec(),
            stores,
            sheets,
        })
    }

    /// Puts every trip and every shopper's position into an empty trip cache.
    pub async fn warm(&self, cache: &RedisTripCache) -> anyhow::Result<()> {
        let trips = self.paying.iter().chain(&self.picking).zip(&self.sheets);
        stream::iter(trips)
            .map(|(trip, sheet)| async {
                cache.put(sheet.clone()).await?;
                let store = self
                    .stores
                    .get(trip.store)
                    .context("every trip has a store")?;
                let position = Position {
                    lat_e6: store.lat_e6,
                    lon_e6: store.lon_e6,
                    at: SystemClock.now(),
                };
                cache.moved(trip.shopper, position).await?;
                anyhow::Ok(())
            })
            .buffer_unordered(64)
            .try_collect::<()>()
            .await
    }
}

fn stores() -> Vec<Store> {
    let mut stores = Vec::new();
    for (number, street) in (1_i32..).zip(STREETS.iter().cycle().take(240)) {
        let chain = CHAINS[usize::try_from(number).unwrap_or(0) % CHAINS.len()];
        stores.push(Store {
            id: i64::from(number)
                .try_into()
                .expect("a positive number is an id"),
            name: chain.to_owned(),
            address: format!("{} {street}", 100 + number * 7),
            lat_e6: 37_000_000 + number * 20_000,
            lon_e6: -122_000_000 + number * 20_000,
        });
    }
    stores
}

async fn start_trip(
    ledger: &PostgresLedger,
    stores: &[Store],
    number: u32,
    lines: u32,
) -> anyhow::Result<(OpenTrip, TripSheet)> {
    let shopper: ShopperId = u64::from(number + 1).try_into()?;
    let at = usize::try_from(scramble(u64::from(number)))? % stores.len();
    let order = Order {
        id: OrderId(Uuid::new_v4()),
        customer: i64::from(number + 1).try_into()?,
        store: stores[at].id,
        currency: Currency::USD,
        status: OrderStatus::Placed,
        shopper: None,
        items: (1..=lines).map(|line| item(number, line)).collect(),
    };
    let open = OpenTrip {
        shopper,
        trip: TripId(Uuid::new_v4()),
        order: order.id,
        lines,
        store: at,
    };
    ensure!(
        ledger.place_order(order).await? == Placed::Now,
        "the order was not placed"
    );
    ensure!(
        ledger.claim(open.order, shopper).await? == Claim::Won,
        "the claim was lost"
    );
    let start = StartTrip {
        trip: open.trip,
        shopper,
        orders: vec![open.order],
        at: SystemClock.now(),
    };
    match ledger.start_trip(start).await? {
        Started::Trip(sheet) => Ok((open, *sheet)),
        other => anyhow::bail!("the trip did not start: {other:?}"),
    }
}

fn item(number: u32, line: u32) -> Item {
    let chance = scramble(u64::from(number) << 32 | u64::from(line));
    let category = usize::try_from(chance % 6).unwrap_or(0);
    Item {
        line,
        product: i64::try_from(chance % 50_000).unwrap_or(0) + 1,
        category: CATEGORIES[category].to_owned(),
        quantity: 1,
        listed: 99 + i64::try_from((chance >> 20) % 2_400).unwrap_or(0),
        actual: None,
        status: ItemStatus::Wanted,
    }
}

/// Picks every line of `trips`, in the ledger and in their sheets.
async fn fill_carts(
    ledger: &PostgresLedger,
    trips: &[OpenTrip],
    sheets: &mut [TripSheet],
) -> anyhow::Result<()> {
    let mut events = Vec::new();
    for (open, sheet) in trips.iter().zip(sheets) {
        for line in 1..=open.lines {
            let what = TripChange::Pick {
                order: open.order,
                line,
                actual: None,
            };
            ensure!(
                sheet.apply(&what) == Applied::Changed,
                "a pick changed nothing"
            );
            let event = TripEvent {
                id: Uuid::new_v4(),
                trip: open.trip,
                shopper: open.shopper,
                at: now(),
                what,
            };
            events.push(BookedEvent {
                event,
                version: Some(sheet.trip.version),
            });
        }
    }
    for batch in events.chunks(1_000) {
        let booked = ledger.book_events(batch.to_vec()).await?;
        ensure!(booked.refused == 0, "{} picks were refused", booked.refused);
    }
    Ok(())
}

fn now() -> Timestamp {
    SystemClock.now()
}

/// The names of a group of trips, for messages.
impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sizes: BTreeMap<&str, usize> = BTreeMap::from([
            ("stores", self.stores.len()),
            ("paying", self.paying.len()),
            ("picking", self.picking.len()),
        ]);
        f.debug_tuple("World").field(&sizes).finish()
    }
}
