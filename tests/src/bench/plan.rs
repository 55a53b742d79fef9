//! What is measured, in which order, on what.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use standin_core::signature::Secret;
use tokio::time::Instant;

use super::children::{Child, Folder, SECRET, Stores};
use super::load::{Load, Numbers};
use super::measure::{Bench, Measurement};
use super::plain::SCHEMA;
use super::servers::{Servers, backlog, until_drained};
use super::wire::Speech;
use super::work::{Payments, Picks};

/// How long a backlog may take to be gone.
const SETTLE_MAX: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(50);

/// Measures one edge with real Postgres and Redis, a bare hyper server, a plain service, and the
/// trips API, in turns on this machine.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// Length of a measured window.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Uncounted load before each window.
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    pub warm: u64,
    /// How often everything is measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub rounds: u32,
    /// Connections of the load generator.
    #[arg(long, default_value_t = 128)]
    pub connections: usize,
    /// Arrivals a second of the open loop.
    #[arg(long, default_value_t = 2_500)]
    pub rate: u64,
    /// Open trips that payments are spread over.
    #[arg(long, default_value_t = 20_000)]
    pub trips: u32,
    /// Open trips that picks are spread over.
    #[arg(long, default_value_t = 2_000)]
    pub pick_trips: u32,
    /// Connections of the load generator for picks.
    #[arg(long, default_value_t = 32)]
    pub pick_connections: usize,
    /// Connections of the plain service to Postgres.
    #[arg(long, default_value_t = 16)]
    pub plain_pool: usize,
    /// Only these: edge, ceiling, plain, picks.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "edge,ceiling,plain,picks"
    )]
    pub only: Vec<String>,
    /// Tells this run's payments and picks from another's.
    #[arg(long, default_value_t = 0x005e_ed00)]
    pub seed: u64,
    /// What the edge logs, as a tracing filter.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub edge_log: String,
    /// Folder for the log and the servers' output; a temporary one without it.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Also write every measurement here.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// The real servers and the world on them.
pub struct Stage {
    servers: Servers,
    folder: Folder,
    bench: Bench,
    secret: Secret,
    plan: Plan,
}

// === impl Plan ===

impl Plan {
    fn has(&self, what: &str) -> bool {
        self.only.iter().any(|only| only == what)
    }

    /// Loads of payments: what can be done at most, then how it is at the given rate.
    fn loads(&self) -> [Load; 2] {
        [
            Load::Saturation {
                connections: self.connections,
            },
            Load::Rate {
                per_second: self.rate,
                connections: self.connections,
            },
        ]
    }
}

// === impl Stage ===

impl Stage {
    /// Starts Postgres and Redis and makes the world.
    pub async fn set(plan: &Plan, folder: Folder) -> anyhow::Result<Self> {
        let servers = Servers::start(plan.trips, plan.pick_trips).await?;
        Ok(Self {
            servers,
            folder,
            bench: Bench {
                warm: Duration::from_secs(plan.warm),
                counted: Duration::from_secs(plan.seconds),
                numbers: Arc::new(Numbers::default()),
                speech: Speech::Plain,
            },
            secret: SECRET.parse()?,
            plan: plan.clone(),
        })
    }

    /// Every program once.
    pub async fn round(&self, round: u32) -> anyhow::Result<Vec<Measurement>> {
        let mut found = Vec::new();
        if self.plan.has("edge") {
            found.extend(self.edge(round).await?);
        }
        if self.plan.has("ceiling") {
            let child = Child::ceiling(&self.folder).await?;
            found.extend(self.payments(&child, &[], "ceiling", round).await?);
            child.stop().await?;
        }
        if self.plan.has("plain") {
            found.extend(self.plain(round).await?);
        }
        if self.plan.has("picks") {
            found.push(self.picks(round).await?);
        }
        Ok(found)
    }

    /// The two loads of payments on one server.
    async fn payments(
        &self,
        child: &Child,
        others: &[&Child],
        label: &str,
        round: u32,
    ) -> anyhow::Result<Vec<Measurement>> {
        let mut found = Vec::new();
        for load in self.plan.loads() {
            if label != "edge, stand_in" {
                self.servers
                    .postgres
                    .execute("postgres", "checkpoint")
                    .await?;
            }
            let work = Payments {
                world: Arc::clone(&self.servers.world),
                secret: self.secret.clone(),
                run: self.plan.seed,
            };
            let measured = self
                .bench
                .measure(child, others, (label, round), load, Arc::new(work));
            let mut measured = measured.await?;
            if label == "edge, primary" {
                let took = until_drained(child).await?;
                measured
                    .details
                    .insert("seconds to drain after".to_owned(), took);
            }
            say(&measured);
            found.push(measured);
        }
        Ok(found)
    }

    /// On rung `primary`; then Postgres is frozen, and on rung `stand_in`; then it is back, and the
    /// log is drained.
    async fn edge(&self, round: u32) -> anyhow::Result<Vec<Measurement>> {
        let database = "edge";
        let url = self.servers.fresh(database).await?;
        let trips = Child::trips(&self.folder, &url, &self.servers.redis.url()).await?;
        let edge = Child::edge(
            &self.folder,
            &Stores {
                postgres: &url,
                redis: &self.servers.redis.url(),
                replica: &self.servers.replica.url(),
                log_level: &self.plan.edge_log,
                tls: None,
            },
        )
        .await?;
        let mut found = self
            .payments(&edge, &[&trips], "edge, primary", round)
            .await?;
        self.servers.postgres.pause()?;
        self.servers
            .until_standing_in(&edge, &Speech::Plain, !self.plan.seed)
            .await?;
        let standing_in = self
            .payments(&edge, &[&trips], "edge, stand_in", round)
            .await;
        self.servers.postgres.resume()?;
        let mut standing_in = standing_in?;
        let backlog = backlog(&edge).await?;
        let took = until_drained(&edge).await?;
        note(&format!(
            "drained {backlog} batches of the log in {took:.1} s"
        ));
        if let Some(last) = standing_in.last_mut() {
            last.details.insert("batches to drain".to_owned(), backlog);
            last.details
                .insert("seconds to drain after".to_owned(), took);
        }
        found.extend(standing_in);
        edge.stop().await?;
        trips.stop().await?;
        self.servers.drop_database(database).await?;
        Ok(found)
    }

    async fn plain(&self, round: u32) -> anyhow::Result<Vec<Measurement>> {
        let database = "plain";
        self.servers.drop_database(database).await?;
        let url = self.servers.postgres.create_database(database).await?;
        self.servers.postgres.execute(database, SCHEMA).await?;
        self.fill_plain(database).await?;
        let child = Child::plain(&self.folder, &url, self.plan.plain_pool).await?;
        let found = self.payments(&child, &[], "plain", round).await?;
        child.stop().await?;
        self.servers.drop_database(database).await?;
        Ok(found)
    }

    /// Picks as fast as they are taken; then until all of them are in the ledger.
    async fn picks(&self, round: u32) -> anyhow::Result<Measurement> {
        let database = "picks";
        let url = self.servers.fresh(database).await?;
        let trips = Child::trips(&self.folder, &url, &self.servers.redis.url()).await?;
        self.servers
            .postgres
            .execute("postgres", "checkpoint")
            .await?;
        let work = Arc::new(Picks {
            world: Arc::clone(&self.servers.world),
            secret: self.secret.clone(),
            run: self.plan.seed,
        });
        let load = Load::Saturation {
            connections: self.plan.pick_connections,
        };
        let window = self.bench.warm..self.bench.warm + self.bench.counted;
        let begun = Instant::now();
        let watching = async {
            tokio::time::sleep_until(begun + window.start).await;
            let before = Counts::of(&trips).await?;
            tokio::time::sleep_until(begun + window.end).await;
            anyhow::Ok((before, Counts::of(&trips).await?))
        };
        let measuring = self
            .bench
            .measure(&trips, &[], ("trips API", round), load, work);
        let (measured, watched) = tokio::join!(measuring, watching);
        let (mut measured, (before, after)) = (measured?, watched?);
        let (all, took) = self.until_booked(&trips, begun).await?;
        let seconds = measured.seconds;
        for (name, value) in [
            (
                "picks acknowledged a second",
                (after.appended - before.appended) / seconds,
            ),
            (
                "picks in the trip cache a second",
                (after.fed - before.fed) / seconds,
            ),
            (
                "picks in the ledger a second",
                (after.booked - before.booked) / seconds,
            ),
            ("picks in all", all.appended),
            ("seconds until all were in the ledger", took),
            ("picks a second from end to end", all.appended / took),
            ("refused", all.refused),
        ] {
            measured.details.insert(name.to_owned(), value);
        }
        say(&measured);
        trips.stop().await?;
        self.servers.drop_database(database).await?;
        Ok(measured)
    }

    async fn fill_plain(&self, database: &str) -> anyhow::Result<()> {
        let quoted = |text: &str| text.replace('\'', "''");
        let stores = self.servers.world.stores.iter().map(|store| {
            format!(
                "({}, '{}', '{}')",
                store.id,
                quoted(&store.name),
                quoted(&store.address)
            )
        });
        let stores: Vec<String> = stores.collect();
        let insert = format!("insert into stores values {}", stores.join(","));
        self.servers.postgres.execute(database, &insert).await?;
        for trips in self.servers.world.paying.chunks(5_000) {
            let rows = trips.iter().map(|open| {
                let store = self
                    .servers
                    .world
                    .stores
                    .get(open.store)
                    .map(|store| store.id);
                let store = store.context("every trip has a store")?;
                Ok(format!(
                    "('{}', {}, {store}, 'SHOPPING', 900000000)",
                    open.trip, open.shopper
                ))
            });
            let rows: Vec<String> = rows.collect::<anyhow::Result<_>>()?;
            let insert = format!("insert into trips values {}", rows.join(","));
            self.servers.postgres.execute(database, &insert).await?;
        }
        Ok(self
            .servers
            .postgres
            .execute(database, "analyze stores, trips")
            .await?)
    }

    /// The counts when everything acknowledged is booked, and seconds since `begun`.
    async fn until_booked(&self, trips: &Child, begun: Instant) -> anyhow::Result<(Counts, f64)> {
        let waited = Instant::now();
        loop {
            let counts = Counts::of(trips).await?;
            if counts.booked + counts.refused >= counts.appended {
                return Ok((counts, begun.elapsed().as_secs_f64()));
            }
            if waited.elapsed() > SETTLE_MAX {
                bail!("picks were not booked in {SETTLE_MAX:?}: {counts:?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Counts {
    appended: f64,
    fed: f64,
    booked: f64,
    refused: f64,
}

// === impl Counts ===

impl Counts {
    async fn of(trips: &Child) -> anyhow::Result<Self> {
        let page = trips.get("/counters").await?;
        let of = |name: &str| {
            let count = page.get(name).and_then(serde_json::Value::as_f64);
            count.with_context(|| format!("no counter {name}"))
        };
        Ok(Self {
            appended: of("appended")?,
            fed: of("fed")?,
            booked: of("booked")?,
            refused: of("refused")?,
        })
    }
}

/// One line of progress for who watches.
pub fn note(line: &str) {
    eprintln!("# {line}");
}

/// One measurement, for who watches.
pub(super) fn say(measured: &Measurement) {
    note(&format!(
        "round {} {} at {}: {:.0}/s, p50 {:.2} p99 {:.2} max {:.1} ms, {:?}, cpu {:?}",
        measured.round,
        measured.program,
        measured.load,
        measured.per_second,
        measured.latency.p50,
        measured.latency.p99,
        measured.latency.max,
        measured.kinds,
        measured.cpu.cores,
    ));
    note(&format!("    {:?}", measured.details));
}
