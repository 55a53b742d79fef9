//! The real servers under an edge, and the world on them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use standin_core::clock::{Clock, SystemClock};
use standin_core::signature::Secret;
use standin_core::trip_cache::TripCache;
use standin_core::trip_cache::redis::{RedisConfig, RedisTripCache};
use standin_drill::servers::{Postgres, PostgresOptions, Redis, RedisOptions};
use tokio::time::Instant;

use super::children::{Child, SECRET};
use super::load::Work;
use super::plan::note;
use super::wire::{Dial, Speech, Wire};
use super::work::Payments;
use super::world::World;

/// The database that every round's is a copy of.
const SEEDED: &str = "seeded";
/// How long Redis may take to be there.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long an edge may take to see that the primary hangs.
const STAND_IN_MAX: Duration = Duration::from_secs(10);
/// How long a backlog may take to be gone.
const SETTLE_MAX: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(50);

/// Postgres, a home of the trip cache and its replica; a world in each fresh copy.
pub struct Servers {
    /// The primary.
    pub postgres: Postgres,
    /// Where the platform and the edge write; it keeps every write.
    pub redis: Redis,
    /// Where the edge looks, as it would in a region of its own.
    pub replica: Redis,
    /// What is there before a round.
    pub world: Arc<World>,
}

// === impl Servers ===

impl Servers {
    /// Starts them and makes the world: so many trips that pay, so many that are picked on.
    pub async fn start(paying: u32, picking: u32) -> anyhow::Result<Self> {
        note("starting Postgres and Redis");
        let setting = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let postgres = Postgres::start_with(PostgresOptions {
            settings: vec![
                setting("fsync", "on"),
                setting("synchronous_commit", "on"),
                setting("full_page_writes", "on"),
                setting("shared_buffers", "512MB"),
                // No checkpoint inside a window: one is made before each.
                setting("max_wal_size", "8GB"),
                setting("checkpoint_timeout", "30min"),
            ],
            ..PostgresOptions::default()
        })
        .await?;
        // What the queue of picks asks for: nothing acknowledged is lost in a crash.
        let redis = Redis::start(RedisOptions {
            appendonly: true,
            ..RedisOptions::default()
        })
        .await?;
        let replica = Redis::start(RedisOptions {
            replica_of: Some(redis.port()),
            ..RedisOptions::default()
        })
        .await?;
        note(&format!(
            "making {paying} trips that pay and {picking} that are picked on"
        ));
        let url = postgres.create_database(SEEDED).await?;
        let world = World::make(&url, paying, picking).await?;
        Ok(Self {
            postgres,
            redis,
            replica,
            world: Arc::new(world),
        })
    }

    /// More stores, at which nothing happens.
    pub async fn add_stores(&self, count: u32) -> anyhow::Result<()> {
        let first = self.world.stores.len() + 1;
        let last = first + usize::try_from(count)?;
        let insert = format!(
            "insert into stores select n, 'Market ' || n % 977, n || ' Longfellow Avenue', \
             37000000 + n % 1000000, -122000000 + n % 1000000 from generate_series({first}, {last} - 1) n"
        );
        Ok(self.postgres.execute(SEEDED, &insert).await?)
    }

    /// A copy of the seeded database, and a cache with every trip. Gives its connection text.
    pub async fn fresh(&self, name: &str) -> anyhow::Result<String> {
        self.drop_database(name).await?;
        let copy = format!("create database \"{name}\" template \"{SEEDED}\"");
        self.postgres.execute("postgres", &copy).await?;
        // Only what has rows: a table analyzed while it is empty is planned for as empty.
        let analyze = "analyze stores, orders, items, trips, trip_orders";
        self.postgres.execute(name, analyze).await?;
        self.redis.command(&["FLUSHALL"]).await?;
        let cache = RedisTripCache::connect(RedisConfig::new(self.redis.url(), Vec::new()))?;
        let deadline = Instant::now() + CONNECT_MAX;
        while let Err(error) = cache.beat(SystemClock.now()).await {
            ensure!(Instant::now() < deadline, "no connection to Redis: {error}");
            tokio::time::sleep(POLL).await;
        }
        self.world.warm(&cache).await?;
        Ok(self.postgres.url(name))
    }

    /// Sends payments until the edge stands in for the frozen primary. `run` tells them from all others.
    pub async fn until_standing_in(
        &self,
        edge: &Child,
        speech: &Speech,
        run: u64,
    ) -> anyhow::Result<()> {
        let work = Payments {
            world: Arc::clone(&self.world),
            secret: SECRET.parse::<Secret>()?,
            run,
        };
        let to = Dial {
            address: edge.address,
            speech: speech.clone(),
        };
        let deadline = Instant::now() + STAND_IN_MAX;
        let mut number = 0_u64;
        loop {
            let rung = edge.get("/statusz").await?;
            if rung.get("rung").and_then(|rung| rung.as_str()) == Some("stand_in") {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the edge did not stand in");
            // Some at once, as load would: the breaker goes by rate and count.
            let mut wires = Vec::new();
            for _ in 0..16 {
                wires.push(Wire::dial(&to).await?);
            }
            let asked = wires.iter_mut().map(|wire| {
                let mut bytes = Vec::new();
                work.write(number, &mut bytes);
                number += 1;
                async move { wire.exchange(&bytes).await.map(|(status, _)| status) }
            });
            for status in futures_util::future::join_all(asked).await {
                ensure!(
                    status? < 500,
                    "a payment was not answered while the primary hung"
                );
            }
        }
    }

    /// A database that is not needed any more.
    pub async fn drop_database(&self, name: &str) -> anyhow::Result<()> {
        let drop = format!("drop database if exists \"{name}\" with (force)");
        Ok(self.postgres.execute("postgres", &drop).await?)
    }
}

/// Seconds until the ledger has everything the edge's log has.
pub async fn until_drained(edge: &Child) -> anyhow::Result<f64> {
    let begun = Instant::now();
    while backlog(edge).await? > 0.0 {
        ensure!(
            begun.elapsed() < SETTLE_MAX,
            "the log did not drain in {SETTLE_MAX:?}"
        );
        tokio::time::sleep(POLL).await;
    }
    Ok(begun.elapsed().as_secs_f64())
}

/// What the ledger does not have yet of the edge's log.
pub async fn backlog(edge: &Child) -> anyhow::Result<f64> {
    let status = edge.get("/statusz").await?;
    let backlog = status
        .pointer("/drain/backlog")
        .and_then(serde_json::Value::as_f64);
    backlog.context("the status page has no backlog")
}
