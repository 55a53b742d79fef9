//! The servers a scenario stands on, and the world on them: one store, and trips with something
//! picked.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use standin_core::clock::{Clock, SystemClock};
use standin_core::id::{OrderId, ShopperId, StoreId, TripId};
use standin_core::ledger::postgres::{PostgresConfig, PostgresLedger};
use standin_core::ledger::{BookedEvent, Claim, Ledger, Placed, StartTrip, Started};
use standin_core::merchant::Store;
use standin_core::money::Currency;
use standin_core::trip::{Item, ItemStatus, Order, OrderStatus, TripChange, TripEvent, TripSheet};
use standin_core::trip_cache::TripCache;
use standin_core::trip_cache::redis::{RedisConfig, RedisTripCache};
use standin_drill::servers::{
    Postgres, PostgresOptions, Redis, RedisOptions, Replicated, ReplicatedOptions,
};
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{NoTls, Row};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::bank::History;
use super::wait::until;

/// The store's name and address, as banks write them.
pub const STORE_NAME: &str = "Target";
/// See [`STORE_NAME`].
pub const STORE_ADDRESS: &str = "123 Main St";
/// The store's number.
pub const STORE: u64 = 77;
/// The database.
pub const DATABASE: &str = "standin";
/// How long a server that runs may take to be connected to.
const SERVERS_MAX: Duration = Duration::from_secs(20);
/// How often the heart of the trip cache beats.
const BEAT: Duration = Duration::from_millis(50);
/// A policy that lets load through: every limit that a scenario is not about is far away.
pub const WIDE_POLICY: &str = include_str!("wide-policy.toml");

/// Postgres, Redis, and a platform that writes to both.
pub struct Stage {
    /// The primary.
    pub postgres: Postgres,
    /// Its standby, when it has one.
    pub standby: Option<Postgres>,
    /// The trip cache.
    pub redis: Redis,
    /// The ledger, as the harness looks into it.
    pub ledger: Arc<PostgresLedger>,
    /// The trip cache, as the platform writes it.
    pub cache: Arc<RedisTripCache>,
    /// What every client saw.
    pub history: History,
    folder: tempfile::TempDir,
    heart: Heart,
}

/// Beats the trip cache's heart, as the platform's feeder does.
struct Heart {
    stop: CancellationToken,
    beating: Option<JoinHandle<()>>,
}

// === impl Stage ===

impl Stage {
    /// Starts the servers, migrates, and opens the store.
    pub async fn set() -> Self {
        Self::set_with(Vec::new()).await
    }

    /// [`Stage::set`] with settings of `postgresql.conf`.
    pub async fn set_with(settings: Vec<(String, String)>) -> Self {
        let (postgres, redis) = tokio::join!(
            Postgres::start_with(quick(settings).await),
            Redis::start(RedisOptions::default()),
        );
        Self::set_on(postgres.unwrap(), None, redis.unwrap()).await
    }

    /// [`Stage::set`] with a standby, which the primary's commits wait for or not.
    pub async fn set_with_standby(synchronous: bool) -> Self {
        let options = ReplicatedOptions {
            primary: quick(Vec::new()).await,
            standbys: 1,
            synchronous,
        };
        let (servers, redis) = tokio::join!(
            Replicated::start(options),
            Redis::start(RedisOptions::default()),
        );
        let Replicated {
            primary,
            mut standbys,
        } = servers.unwrap();
        Self::set_on(primary, standbys.pop(), redis.unwrap()).await
    }

    async fn set_on(postgres: Postgres, standby: Option<Postgres>, redis: Redis) -> Self {
        let url = postgres.create_database(DATABASE).await.unwrap();
        let ledger = Arc::new(PostgresLedger::connect(&patient(url)).unwrap());
        ledger.migrate().await.unwrap();
        let mut config = RedisConfig::new(redis.url(), Vec::new());
        config.write_budget = Duration::from_secs(2);
        config.read_budget = Duration::from_secs(2);
        let cache = Arc::new(RedisTripCache::connect(config).unwrap());
        until("the trip cache takes writes", SERVERS_MAX, || async {
            cache.beat(SystemClock.now()).await.ok()
        })
        .await;
        let store = Store {
            id: StoreId::try_from(STORE).unwrap(),
            name: STORE_NAME.to_owned(),
            address: STORE_ADDRESS.to_owned(),
            lat_e6: 44_970_000,
            lon_e6: -93_270_000,
        };
        ledger.put_store(store).await.unwrap();
        let heart = Heart::start(Arc::clone(&cache));
        Self {
            postgres,
            standby,
            redis,
            ledger,
            cache,
            history: History::default(),
            folder: tempfile::Builder::new()
                .prefix("standin-scenario-")
                .tempdir()
                .unwrap(),
            heart,
        }
    }

    /// Where edges put their files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Connection text of the ledger: of every server it may be on.
    pub fn postgres_url(&self) -> String {
        let Some(standby) = &self.standby else {
            return self.postgres.url(DATABASE);
        };
        let (first, second) = (self.postgres.port(), standby.port());
        format!(
            "postgres://standin@127.0.0.1:{first},127.0.0.1:{second}/{DATABASE}\
             ?target_session_attrs=read-write"
        )
    }

    /// Makes the standby the primary; the harness looks into that one from now on. Nothing happens
    /// to the old one.
    pub async fn promote(&mut self) {
        let standby = self.standby.as_ref().expect("the stage has a standby");
        standby.promote().await.unwrap();
        let url = standby.url(DATABASE);
        self.ledger = Arc::new(PostgresLedger::connect(&patient(url)).unwrap());
    }

    /// Runs statements in the ledger's database.
    pub async fn sql(&self, statements: &str) {
        self.postgres.execute(DATABASE, statements).await.unwrap();
    }

    /// Connections of clients whose name begins so.
    pub async fn connections_of(&self, name: &str) -> i64 {
        let count = "select count(*) from pg_stat_activity where application_name like $1 || '%'";
        self.query_one(count, &[&name]).await.get(0)
    }

    async fn query_one(&self, text: &str, params: &[&(dyn ToSql + Sync)]) -> Row {
        let (client, connection) = tokio_postgres::connect(&self.postgres_url(), NoTls)
            .await
            .unwrap();
        let ask = async {
            let row = client.query_one(text, params).await;
            drop(client);
            row
        };
        let (row, closed) = tokio::join!(ask, connection);
        closed.unwrap();
        row.unwrap()
    }

    /// Rows of the tables that a payment touches: (transactions, authorizations, conflicts).
    pub async fn ledger_counts(&self) -> (i64, i64, i64) {
        let count = "select (select count(*) from transactions), \
             (select count(*) from authorizations), (select count(*) from conflicts)";
        let row = self.query_one(count, &[]).await;
        (row.get(0), row.get(1), row.get(2))
    }

    /// A trip of `shopper` at the store with one line of `cents` picked, in ledger and cache.
    pub async fn trip(&self, shopper: u64, cents: i64) -> TripSheet {
        let sheet = self.trip_in_ledger(shopper, cents).await;
        self.cache.put(sheet.clone()).await.unwrap();
        sheet
    }

    /// Trips of `count` shoppers from `first` on; gives the shoppers.
    pub async fn trips(&self, first: u64, count: u64, cents: i64) -> Vec<u64> {
        let shoppers: Vec<u64> = (first..).take(usize::try_from(count).unwrap()).collect();
        for shopper in &shoppers {
            self.trip(*shopper, cents).await;
        }
        shoppers
    }

    /// [`Stage::trip`], but the cache never hears of it.
    pub async fn trip_in_ledger(&self, shopper: u64, cents: i64) -> TripSheet {
        let shopper = ShopperId::try_from(shopper).unwrap();
        let (order, trip) = (OrderId(Uuid::now_v7()), TripId(Uuid::now_v7()));
        let placed = self.ledger.place_order(order_of(order, cents)).await;
        assert_eq!(placed.unwrap(), Placed::Now);
        let claimed = self.ledger.claim(order, shopper).await;
        assert_eq!(claimed.unwrap(), Claim::Won);
        let at = SystemClock.now();
        let start = StartTrip {
            trip,
            shopper,
            orders: vec![order],
            at,
        };
        let started = self.ledger.start_trip(start).await.unwrap();
        assert!(matches!(started, Started::Trip(_)), "{started:?}");
        let what = TripChange::Pick {
            order,
            line: 1,
            actual: None,
        };
        let event = TripEvent {
            id: Uuid::now_v7(),
            trip,
            shopper,
            at,
            what,
        };
        let booked = BookedEvent {
            event,
            version: None,
        };
        assert_eq!(
            self.ledger.book_events(vec![booked]).await.unwrap().changed,
            1
        );
        let open = self.ledger.trip(shopper, trip).await.unwrap().unwrap();
        assert_eq!(open.sheet.trip.picked, cents);
        open.sheet
    }

    /// Lets the heart stop: from now on the cache grows old.
    pub async fn stop_heart(&mut self) {
        self.heart.stop.cancel();
        if let Some(beating) = self.heart.beating.take() {
            beating.await.unwrap();
        }
    }
}

// === impl Heart ===

impl Heart {
    fn start(cache: Arc<RedisTripCache>) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let beating = tokio::spawn(async move {
            let mut beat = tokio::time::interval(BEAT);
            beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while !stopped.is_cancelled() {
                beat.tick().await;
                // A server that a scenario has stopped hears nothing: that is the point of it.
                drop(cache.beat(SystemClock.now()).await);
            }
        });
        Self {
            stop,
            beating: Some(beating),
        }
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn order_of(id: OrderId, cents: i64) -> Order {
    Order {
        id,
        customer: 5_u64.try_into().unwrap(),
        store: STORE.try_into().unwrap(),
        currency: Currency::USD,
        status: OrderStatus::Placed,
        shopper: None,
        items: vec![Item {
            line: 1,
            product: 1,
            category: "GROCERY".to_owned(),
            quantity: 1,
            listed: cents,
            actual: None,
            status: ItemStatus::Wanted,
        }],
    }
}

/// The harness looks on at servers that are slow because everything runs on two cores.
pub(super) fn patient(url: String) -> PostgresConfig {
    let mut config = PostgresConfig::new(url);
    for pool in [
        &mut config.foreground,
        &mut config.background,
        &mut config.probe,
    ] {
        pool.wait = Duration::from_secs(20);
        pool.statement_timeout = Duration::from_secs(20);
        pool.lock_timeout = Duration::from_secs(20);
    }
    config.connect_timeout = Duration::from_secs(10);
    config.create_timeout = Duration::from_secs(10);
    config.application_name = "harness".to_owned();
    config
}

/// A server that is there at once and whose disk is memory.
async fn quick(settings: Vec<(String, String)>) -> PostgresOptions {
    let mut all = vec![("fsync".to_owned(), "off".to_owned())];
    all.extend(settings);
    PostgresOptions {
        settings: all,
        copy_of: Some(saved_cluster().await),
        ..PostgresOptions::default()
    }
}

/// An empty cluster, made once for every test process that comes after.
async fn saved_cluster() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tmp");
    std::fs::create_dir_all(&folder).unwrap();
    let saved = folder.join("empty-postgres-cluster");
    let lock = File::create(folder.join("empty-postgres-cluster.lock")).unwrap();
    // Blocks the whole process: until there is a cluster, it has nothing else to do.
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    if !saved.exists() {
        let postgres = Postgres::start().await.unwrap();
        postgres.save(&saved).await.unwrap();
    }
    saved
}
