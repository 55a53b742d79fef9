//! What an honest bank gets from an edge that is abused: `standin-bench abuse`.
//!
//! One real edge with its Postgres and Redis, TLS at its door, 100,000 stores. Phase after phase another
//! attack, made by a thread of its own with one core at most, from other loopback addresses than the
//! bank's. The bank pays at a steady rate, tries again once within its deadline, and sends one payment in
//! ten over a connection of its own. [`attack`] is what is done to the edge, [`bank`] what an honest bank
//! sees, [`report`] what it came to.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::Instant;

use self::attack::{Attack, Attacker};
use self::bank::{HonestBank, Told};
use self::report::{Phase, Report};
use super::certs::Certificates;
use super::children::{Child, Folder, Stores};
use super::cpu::Snapshot;
use super::plan::note;
use super::servers::Servers;
use super::summary::Machine;

pub mod attack;
pub mod bank;
pub mod memory;
pub mod report;

/// How long what an attack left behind may take to be gone.
const SETTLE_MAX: Duration = Duration::from_secs(20);
/// Descriptors of an edge that nobody abuses, and some more.
const SETTLED_DESCRIPTORS: usize = 256;
const POLL: Duration = Duration::from_millis(100);

/// Abuses an edge, and measures what an honest bank gets meanwhile and what memory the edge takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Abuse {
    /// Length of a phase.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(3..=600))]
    seconds: u64,
    /// Payments a second of the honest bank.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=5_000))]
    rate: u64,
    /// Stores that the edge knows.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(240..=1_000_000))]
    stores: u32,
    /// Clients that send slowly, and that stop in their handshakes.
    #[arg(long, default_value_t = 2_000)]
    slow: usize,
    /// Connections that are only held.
    #[arg(long, default_value_t = 10_000)]
    held: usize,
    /// Connections that streams are reset on.
    #[arg(long, default_value_t = 8)]
    resetting: usize,
    /// Loopback addresses that the attacks come from, where it is several.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=200))]
    addresses: u8,
    /// Folder for the log and the servers' output; a temporary one without it.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Also write everything here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

// === impl Abuse ===

impl Abuse {
    /// Runs every phase; prints the report as Markdown.
    ///
    /// # Errors
    /// When a server does not start or the edge ends.
    pub async fn run(&self, folder: Folder) -> anyhow::Result<()> {
        raise_descriptors()?;
        let machine = Machine::look(&folder.0)?;
        let servers = Servers::start(2_000, 1).await?;
        let known = u32::try_from(servers.world.stores.len())?;
        servers
            .add_stores(self.stores.saturating_sub(known))
            .await?;
        let certificates = Certificates::make(folder.0.join("certs"))?;
        let url = servers.fresh("abuse").await?;
        note(&format!("starting an edge with {} stores", self.stores));
        let edge = Child::edge(
            &folder,
            &Stores {
                postgres: &url,
                redis: &servers.redis.url(),
                replica: &servers.replica.url(),
                log_level: "info",
                tls: Some(&certificates),
            },
        )
        .await?;
        // Its heart beats in the trip cache: without it every trip grows old.
        let trips = Child::trips(&folder, &url, &servers.redis.url()).await?;
        let bank = Arc::new(HonestBank::new(&certificates, edge.address, &servers)?);
        let mut report = Report::new(machine, self.stores, self.rate, self.seconds);
        for (label, attack) in self.attacks() {
            let phase = self.phase(&label, attack, &edge, &bank, &certificates);
            report.phases.push(phase.await?);
            if let Some(file) = &self.json {
                std::fs::write(file, serde_json::to_vec_pretty(&report)?)?;
            }
        }
        edge.stop().await?;
        trips.stop().await?;
        print!("{}", report.markdown());
        Ok(())
    }

    fn attacks(&self) -> Vec<(String, Option<Attack>)> {
        let (slow, held) = (self.slow, self.held);
        let many = self.addresses;
        let from = |kind, clients, addresses| {
            Some(Attack {
                kind,
                clients,
                addresses,
            })
        };
        use attack::Kind::{Handshakes, Held, Resets, SlowBodies, SlowHeads};
        vec![
            ("quiet".to_owned(), None),
            (
                format!("{slow} slow heads, {many} addresses"),
                from(SlowHeads, slow, many),
            ),
            (
                format!("{slow} slow bodies, {many} addresses"),
                from(SlowBodies, slow, many),
            ),
            (
                format!("{slow} handshakes that stop, {many} addresses"),
                from(Handshakes, slow, many),
            ),
            (
                format!("resets on {} connections", self.resetting),
                from(Resets, self.resetting, many),
            ),
            (
                format!("{held} connections, one address"),
                from(Held, held, 1),
            ),
            (
                format!("{held} connections, {many} addresses"),
                from(Held, held, many),
            ),
            ("quiet again".to_owned(), None),
        ]
    }

    async fn phase(
        &self,
        label: &str,
        attack: Option<Attack>,
        edge: &Child,
        bank: &Arc<HonestBank>,
        certificates: &Certificates,
    ) -> anyhow::Result<Phase> {
        note(label);
        settled(edge.id()).await;
        let before = edge.metrics().await?;
        let names = [(edge.id(), edge.name.to_owned())].into();
        let cpu = Snapshot::take(&names);
        let attacker = attack
            .map(|attack| Attacker::start(attack, edge.address, certificates))
            .transpose()?;
        let length = Duration::from_secs(self.seconds);
        let (told, memory) = tokio::join!(
            bank.pay(self.rate, length),
            memory::watch(edge.id(), length)
        );
        let cpu = cpu.until(&Snapshot::take(&names));
        let done = match attacker {
            None => attack::Done::default(),
            Some(attacker) => attacker.stop().await?,
        };
        let after = edge.metrics().await.context("the edge is gone")?;
        let phase = Phase::new(label, told, memory, (cpu, done), (&before, &after));
        note(&phase.line());
        Ok(phase)
    }
}

/// As many descriptors as may be had: the attacks take one a connection.
fn raise_descriptors() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).context("the limit of file descriptors")
}

/// Waits until an edge has let go of what the last phase left.
async fn settled(edge: u32) {
    let deadline = Instant::now() + SETTLE_MAX;
    let open =
        || std::fs::read_dir(format!("/proc/{edge}/fd")).map_or(0, std::iter::Iterator::count);
    while open() > SETTLED_DESCRIPTORS && Instant::now() < deadline {
        tokio::time::sleep(POLL).await;
    }
}

/// Adds what several phases' banks were told.
fn all_told<'a>(told: impl IntoIterator<Item = &'a Told>) -> (u64, u64) {
    told.into_iter().fold((0, 0), |(sent, answered), told| {
        (sent + told.sent, answered + told.in_time())
    })
}
