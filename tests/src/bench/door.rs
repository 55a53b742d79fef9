//! What the door costs: `standin-bench door`.
//!
//! A bare hyper server that checks the same HMAC, reads the JSON and writes it back, and the edge on rung
//! `stand_in` with one keeper (its Postgres is frozen, so that nothing of it takes a core), over the same:
//! HTTP/1.1 plain, HTTP/1.1 and HTTP/2 over TLS, and a connection for each request, whose TLS session is
//! resumed. In turns, round after round. Beside them what each format costs to understand and to render,
//! in this process, message after message ([`adapters`]).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use standin_core::signature::Secret;

use self::adapters::Cost;
use super::certs::Certificates;
use super::children::{Child, Folder, SECRET, Stores};
use super::load::{Load, Numbers};
use super::measure::{Bench, Measurement, good};
use super::plan::{note, say};
use super::servers::Servers;
use super::summary::{Machine, Summary};
use super::wire::{Speech, Streams};
use super::work::Payments;

pub mod adapters;

/// What a request costs its server in processor time.
const COST: &str = "µs of the server's CPU a request";
/// What share of the bare server's throughput the edge has to have.
const SHARE_TARGET: f64 = 0.4;

/// Measures what the door costs beside a bare server, in turns on this machine.
#[derive(Clone, Debug, clap::Args)]
pub struct DoorRun {
    /// Length of a measured window.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Uncounted load before each window.
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    warm: u64,
    /// How often everything is measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// Requests at once.
    #[arg(long, default_value_t = 128)]
    connections: usize,
    /// Of them on one HTTP/2 connection.
    #[arg(long, default_value_t = 16)]
    streams: usize,
    /// Open trips that payments are spread over.
    #[arg(long, default_value_t = 5_000)]
    trips: u32,
    /// Tells this run's payments from another's.
    #[arg(long, default_value_t = 0x000d_0012)]
    seed: u64,
    /// Folder for the log and the servers' output; a temporary one without it.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Also write every measurement here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A way in, and what is sent over it.
struct Way {
    name: &'static str,
    speech: Speech,
    load: Load,
}

struct Running<'a> {
    run: &'a DoorRun,
    servers: Servers,
    certificates: Certificates,
    folder: Folder,
    numbers: Arc<Numbers>,
}

// === impl DoorRun ===

impl DoorRun {
    /// Measures everything; prints the report as Markdown.
    ///
    /// # Errors
    /// When a server does not start or a format does not understand its own message.
    pub async fn run(&self, folder: Folder) -> anyhow::Result<()> {
        let machine = Machine::look(&folder.0)?;
        note("what the formats cost");
        let costs = adapters::measure()?;
        let running = Running {
            run: self,
            servers: Servers::start(self.trips, 1).await?,
            certificates: Certificates::make(folder.0.join("certs"))?,
            folder,
            numbers: Arc::default(),
        };
        let mut all = Vec::new();
        for round in 1..=self.rounds {
            note(&format!("round {round} of {}", self.rounds));
            running.round(round, &mut all).await?;
            if let Some(file) = &self.json {
                let found = json!({ "machine": machine, "measurements": all, "formats": costs });
                std::fs::write(file, serde_json::to_vec_pretty(&found)?)?;
            }
        }
        print!("{}", self.markdown(&machine, &all, &costs));
        Ok(())
    }

    fn markdown(&self, machine: &Machine, all: &[Measurement], costs: &[Cost]) -> String {
        let summary = Summary::new(machine, all);
        let mut page = summary.tables();
        page.push_str("| way in | edge's requests a second of the bare server's | the door and all behind it, µs of CPU a request | of the bare server |\n|---|---|---|---|\n");
        let mut least = f64::INFINITY;
        for name in Way::NAMES {
            let (edge, bare) = (format!("edge, {name}"), format!("bare, {name}"));
            let rate = |program: &str| summary.median(program, "", |found| found.per_second);
            let cost = |program: &str| {
                let of = |found: &Measurement| found.details.get(COST).copied().unwrap_or(0.0);
                summary.median(program, "", of).unwrap_or(0.0)
            };
            let (Some(of_edge), Some(of_bare)) = (rate(&edge), rate(&bare)) else {
                continue;
            };
            let share = of_edge / of_bare.max(1.0);
            least = least.min(share);
            page.push_str(&format!(
                "| {name} | {:.1} % | {:.1} | {:.1} |\n",
                share * 100.0,
                cost(&edge),
                cost(&bare)
            ));
        }
        page.push_str("\n| format | bytes | understand, ns | render, ns |\n|---|---|---|---|\n");
        for cost in costs {
            page.push_str(&cost.row());
        }
        let verdict = if least >= SHARE_TARGET {
            "holds"
        } else {
            "MISSED"
        };
        page.push_str(&format!(
            "\n- the whole edge at least {:.0} % of the bare server, every way in: {verdict} ({:.1} % at least)\n",
            SHARE_TARGET * 100.0,
            least * 100.0
        ));
        page
    }
}

// === impl Way ===

impl Way {
    const NAMES: [&str; 4] = ["h1", "h1 TLS", "h2 TLS", "h1 TLS, resumed each"];
}

// === impl Running ===

impl Running<'_> {
    /// Ways in without TLS, then with it.
    fn ways(&self) -> anyhow::Result<[Vec<Way>; 2]> {
        let [plain, over_h1, over_h2, resumed] = Way::NAMES;
        let connections = self.run.connections;
        let load = Load::Saturation { connections };
        let h1 = self.certificates.client(true, false)?;
        let h2 = self.certificates.client(true, true)?;
        let streams = Arc::new(Streams::new(h2, self.run.streams));
        let way = |name, speech, load| Way { name, speech, load };
        Ok([
            vec![way(plain, Speech::Plain, load)],
            vec![
                way(over_h1, Speech::Tls(Arc::clone(&h1)), load),
                way(over_h2, Speech::Streams(streams), load),
                way(resumed, Speech::Tls(h1), Load::Fresh { connections: 16 }),
            ],
        ])
    }

    async fn round(&self, round: u32, all: &mut Vec<Measurement>) -> anyhow::Result<()> {
        let [plain, secure] = self.ways()?;
        for (ways, tls) in [(plain, None), (secure, Some(&self.certificates))] {
            let bare = Child::bare(&self.folder, tls).await?;
            for way in &ways {
                all.push(self.measure(&bare, &[], way, round).await?);
            }
            bare.stop().await?;
            let database = "door";
            let url = self.servers.fresh(database).await?;
            // Its heart beats in the trip cache: without it every trip grows old.
            let trips = Child::trips(&self.folder, &url, &self.servers.redis.url()).await?;
            let edge = Child::edge(
                &self.folder,
                &Stores {
                    postgres: &url,
                    redis: &self.servers.redis.url(),
                    replica: &self.servers.replica.url(),
                    log_level: "info",
                    tls,
                },
            )
            .await?;
            self.servers.postgres.pause()?;
            let measured = self.stand_in((&edge, &trips), &ways, round, all).await;
            self.servers.postgres.resume()?;
            measured?;
            edge.stop().await?;
            trips.stop().await?;
            self.servers.drop_database(database).await?;
        }
        Ok(())
    }

    async fn stand_in(
        &self,
        (edge, trips): (&Child, &Child),
        ways: &[Way],
        round: u32,
        all: &mut Vec<Measurement>,
    ) -> anyhow::Result<()> {
        let speech = ways.first().map_or(Speech::Plain, |way| way.speech.clone());
        let run = !self.run.seed;
        self.servers.until_standing_in(edge, &speech, run).await?;
        for way in ways {
            all.push(self.measure(edge, &[trips], way, round).await?);
        }
        Ok(())
    }

    async fn measure(
        &self,
        child: &Child,
        others: &[&Child],
        way: &Way,
        round: u32,
    ) -> anyhow::Result<Measurement> {
        let bench = Bench {
            warm: Duration::from_secs(self.run.warm),
            counted: Duration::from_secs(self.run.seconds),
            numbers: Arc::clone(&self.numbers),
            speech: way.speech.clone(),
        };
        let work = Payments {
            world: Arc::clone(&self.servers.world),
            secret: SECRET.parse::<Secret>()?,
            run: self.run.seed,
        };
        let label = format!("{}, {}", child.name, way.name);
        let measured = bench.measure(child, others, (&label, round), way.load, Arc::new(work));
        let mut measured = measured.await?;
        let cores = measured.cpu.cores.get(child.name).copied().unwrap_or(0.0);
        let requests = good(&measured.kinds).max(1) as f64 / measured.seconds;
        measured
            .details
            .insert(COST.to_owned(), cores * 1_000_000.0 / requests);
        say(&measured);
        Ok(measured)
    }
}
