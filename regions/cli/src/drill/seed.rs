//! What is there before any drill begins: a Postgres with one store and open trips with full carts,
//! made once; every drill starts from a copy.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use standin_core::clock::{Clock, SystemClock};
use standin_core::id::{OrderId, ShopperId, StoreId, TripId};
use standin_core::ledger::postgres::{PostgresConfig, PostgresLedger};
use standin_core::ledger::{BookedEvent, Claim, Ledger, Placed, StartTrip, Started};
use standin_core::merchant::Store;
use standin_core::money::Currency;
use standin_core::trip::{
    Applied, Item, ItemStatus, Order, OrderStatus, TripChange, TripEvent, TripSheet,
};
use standin_drill::servers::{Postgres, PostgresOptions};
use uuid::Uuid;

/// The database.
pub(super) const DATABASE: &str = "standin";
/// The store's name and address, as banks write them.
pub(super) const STORE_NAME: &str = "Target";
/// See [`STORE_NAME`].
pub(super) const STORE_ADDRESS: &str = "123 Main St";
/// What is picked in each trip, minor units: far more than all payments of a drill for it.
const PICKED: i64 = 1_000_000;
/// Calls under way at once.
const AT_ONCE: usize = 16;
const PATIENCE: Duration = Duration::from_secs(60);

/// A stopped cluster with its data, and what the trip cache holds of it.
pub(super) struct Seed {
    folder: tempfile::TempDir,
    /// The trips; shoppers are numbered from 1.
    pub(super) trips: Vec<TripSheet>,
}

// === impl Seed ===

impl Seed {
    /// Makes a store and so many open trips.
    pub(super) async fn make(trips: u64) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("standin-drill-seed-")
            .tempdir()?;
        let postgres = Postgres::start_with(PostgresOptions {
            // It is stopped in order before anything is copied.
            fsync: false,
            ..PostgresOptions::default()
        })
        .await
        .context("Postgres did not start")?;
        let mut config = PostgresConfig::new(postgres.create_database(DATABASE).await?);
        config.background.connections = AT_ONCE;
        config.background.wait = PATIENCE;
        config.background.statement_timeout = PATIENCE;
        let ledger = PostgresLedger::connect(&config)?;
        ledger.migrate().await.context("the ledger's tables")?;
        ledger.put_store(store()?).await?;
        let made = stream::iter(1..=trips).map(|shopper| open_trip(&ledger, shopper));
        let mut sheets: Vec<TripSheet> = made.buffer_unordered(AT_ONCE).try_collect().await?;
        sheets.sort_by_key(|sheet| sheet.trip.shopper);
        ledger.close();
        // As after every load of a ledger: else autovacuum comes to all of it while the drill runs.
        postgres.execute(DATABASE, "vacuum analyze").await?;
        let saved = folder.path().join("cluster");
        postgres.save(&saved).await?;
        Ok(Self {
            folder,
            trips: sheets,
        })
    }

    /// Where the cluster's data is.
    pub(super) fn cluster(&self) -> PathBuf {
        self.folder.path().join("cluster")
    }
}

fn store() -> anyhow::Result<Store> {
    Ok(Store {
        id: StoreId::try_from(77_u64)?,
        name: STORE_NAME.to_owned(),
        address: STORE_ADDRESS.to_owned(),
        lat_e6: 44_970_000,
        lon_e6: -93_270_000,
    })
}

async fn open_trip(ledger: &PostgresLedger, shopper: u64) -> anyhow::Result<TripSheet> {
    let shopper = ShopperId::try_from(shopper)?;
    let (order, trip) = (OrderId(Uuid::now_v7()), TripId(Uuid::now_v7()));
    let placed = ledger.place_order(order_of(order)?).await?;
    ensure!(placed == Placed::Now, "the order was not placed");
    ensure!(
        ledger.claim(order, shopper).await? == Claim::Won,
        "the order was not claimed"
    );
    let at = SystemClock.now();
    let start = StartTrip {
        trip,
        shopper,
        orders: vec![order],
        at,
    };
    let Started::Trip(mut sheet) = ledger.start_trip(start).await? else {
        anyhow::bail!("the trip did not start");
    };
    let what = TripChange::Pick {
        order,
        line: 1,
        actual: None,
    };
    ensure!(
        sheet.apply(&what) == Applied::Changed,
        "the pick changed nothing"
    );
    let booked = BookedEvent {
        event: TripEvent {
            id: Uuid::now_v7(),
            trip,
            shopper,
            at,
            what,
        },
        version: Some(sheet.trip.version),
    };
    let booked = ledger.book_events(vec![booked]).await?;
    ensure!(booked.refused == 0, "the pick was refused");
    Ok(*sheet)
}

fn order_of(id: OrderId) -> anyhow::Result<Order> {
    Ok(Order {
        id,
        customer: 5_u64.try_into()?,
        store: StoreId::try_from(77_u64)?,
        currency: Currency::USD,
        status: OrderStatus::Placed,
        shopper: None,
        items: vec![Item {
            line: 1,
            product: 1,
            category: "GROCERY".to_owned(),
            quantity: 1,
            listed: PICKED,
            actual: None,
            status: ItemStatus::Wanted,
        }],
    })
}
