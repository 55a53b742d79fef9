//! The edges of a drill: processes of this very program, with certificates for their links and their
//! doors, on this machine or each on a host of its own.

use std::fs::Permissions;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use standin_core::clock::{Clock, SystemClock, Timestamp};
use standin_core::id::BankId;
use standin_drill::network::{End, Network};
use standin_drill::process::{Process, free_port};
use standin_edge::issue::{Authority, Issued, Subject, Whose};
use standin_edge::links::EdgeName;
use standin_wal::NodeId;
use tokio::time::Instant;

use super::clock;
use crate::client::{Call, ClientTls, Pool, Target};
use crate::secret;

/// The bank's name.
pub(super) const BANK: &str = "drill-bank";
/// The region of the edges that keep one log.
const REGION: &str = "near";
/// Another region, and the number of its only edge.
const FAR_REGION: &str = "far";
pub(super) const FAR: u64 = 9;
/// How long an edge may take to be ready, on a machine that builds things meanwhile.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long it may take to end.
const END_WITHIN: Duration = Duration::from_secs(30);
/// How long a look at an edge that may hang is waited for.
const LOOK_WITHIN: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(10);
/// Days a certificate is good for.
const DAYS: u32 = 2;
const MINUTE_MS: i64 = 60 * 1_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;
/// Connections of the bank to each edge: for a second of a third of 1,000 payments/s, and a fifth more.
const BANK_CONNECTIONS: usize = 400;
/// How long a payment waits for one of them.
const BANK_PATIENCE: Duration = Duration::from_millis(100);
const POLICY: &str = include_str!("policy.toml");

/// What all edges of a world have in common.
pub(super) struct Common {
    /// Where everybody's files are.
    pub(super) folder: PathBuf,
    /// Connection text of the ledger.
    pub(super) postgres: String,
    /// Redis to read from, the local one first.
    pub(super) redis: Vec<String>,
    /// Redis to write to.
    pub(super) redis_home: String,
    /// Where each founder's link listens, in the order of their numbers from 1.
    pub(super) links: Vec<SocketAddr>,
    /// Hosts of their own.
    pub(super) network: Option<Arc<Network>>,
    pub(super) papers: Papers,
    pub(super) deployment_key: String,
}

/// Whether a certificate is good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Good {
    Still,
    NoMore,
}

/// Authorities, and what they have signed for everybody.
pub(super) struct Papers {
    keepers: Authority,
    folder: PathBuf,
    /// The bank's secret, as edges are told it.
    pub(super) secret: String,
}

/// One edge, whether it runs or not. Dropping it kills it.
pub(super) struct Edge {
    pub(super) id: u64,
    pub(super) folder: PathBuf,
    /// Where operators connect.
    pub(super) admin: Target,
    /// For banks.
    pub(super) door: Pool,
    desk: Pool,
    host: Option<(Arc<Network>, u8)>,
    /// To the admin listener of an edge on a host of its own: it is on loopback there.
    _relay: Option<Process>,
    process: Option<Process>,
}

// === impl Papers ===

impl Papers {
    /// Makes the authorities, the listener's certificate for `hosts`, and the bank's.
    pub(super) fn make(folder: &Path, hosts: &[String]) -> anyhow::Result<Self> {
        let now = SystemClock.now();
        let folder = folder.join("certificates");
        std::fs::create_dir(&folder)?;
        let papers = Self {
            keepers: Authority::new(Whose::Keepers, DAYS, now)?,
            folder,
            secret: secret::fresh(),
        };
        let banks = Authority::new(Whose::Banks, DAYS, now)?;
        std::fs::write(papers.path("keepers-ca.pem"), papers.keepers.certificate())?;
        std::fs::write(papers.path("banks-ca.pem"), banks.certificate())?;
        papers.write("door", &banks.issue(&Subject::Listener(hosts), DAYS, now)?)?;
        let bank: BankId = BANK.parse()?;
        papers.write("bank", &banks.issue(&Subject::Bank(&bank), DAYS, now)?)?;
        Ok(papers)
    }

    /// Signs an edge's certificate, one that is good or one that ended a minute ago.
    pub(super) fn sign_edge(&self, id: u64, good: Good) -> anyhow::Result<()> {
        let name = EdgeName {
            region: region_of(id).to_owned(),
            node: NodeId(id),
        };
        let now = SystemClock.now();
        let (days, as_of) = match good {
            Good::Still => (DAYS, now),
            Good::NoMore => {
                let day_ago = now.as_millis().saturating_sub(DAY_MS);
                (1, Timestamp::from_millis(day_ago.saturating_sub(MINUTE_MS)))
            }
        };
        let issued = self.keepers.issue(&Subject::Edge(&name), days, as_of)?;
        self.write(&format!("edge-{id}"), &issued)
    }

    /// TLS of the bank.
    pub(super) fn bank(&self) -> anyhow::Result<ClientTls> {
        let (certificate, key) = (self.path("bank.pem"), self.path("bank.key"));
        ClientTls::read(&self.path("banks-ca.pem"), Some((&certificate, &key)))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write(&self, name: &str, issued: &Issued) -> anyhow::Result<()> {
        let key = self.path(&format!("{name}.key"));
        std::fs::write(&key, &issued.key)?;
        std::fs::set_permissions(&key, Permissions::from_mode(0o600))?;
        std::fs::write(self.path(&format!("{name}.pem")), &issued.certificate)?;
        Ok(())
    }
}

// === impl Common ===

impl Common {
    /// The address of an edge.
    pub(super) fn address(network: Option<&Network>, id: u64) -> anyhow::Result<IpAddr> {
        Ok(match network {
            None => Ipv4Addr::LOCALHOST.into(),
            Some(network) => network.address(End::Host(u8::try_from(id)?)).into(),
        })
    }

    fn config(&self, id: u64, folder: &Path, at: [SocketAddr; 3]) -> String {
        let Self {
            postgres,
            redis,
            redis_home,
            papers,
            deployment_key,
            ..
        } = self;
        let [door, admin, link] = at;
        let near = (1_u64..).zip(&self.links);
        let founders: Vec<String> = match id {
            FAR => vec![format!("{id}={link}")],
            _ => near.map(|(id, link)| format!("{id}={link}")).collect(),
        };
        let region = region_of(id);
        let file = |name: &str| papers.path(name);
        let edge = |end: &str| papers.path(&format!("edge-{id}.{end}"));
        format!(
            r#"listen = "{door}"
admin_listen = "{admin}"
region = "{region}"
edge_id = {id}
deployment_key = "{deployment_key}"
policy = {policy:?}

[tls]
certificate = {door_pem:?}
key = {door_key:?}
banks_ca = {banks_ca:?}

[wal]
dir = {wal:?}
segment_bytes = 16777216

[keepers]
listen = "{link}"
founders = {founders:?}
ca = {keepers_ca:?}
certificate = {edge_pem:?}
key = {edge_key:?}

[ledger]
postgres = "{postgres}"

[trip_cache]
redis = {redis:?}
redis_home = "{redis_home}"

[limits]
shopper_per_minute = 1000000
address_failures_per_minute = 1000000

[telemetry]
log_level = "warn"

[[banks]]
slug = "{BANK}"
currency = "USD"
client_certificate = "required"
secrets = ["{secret}"]
requests_per_second = 1000000
burst = 1000000
"#,
            policy = folder.join("policy.toml"),
            door_pem = file("door.pem"),
            door_key = file("door.key"),
            banks_ca = file("banks-ca.pem"),
            wal = folder.join("wal"),
            keepers_ca = file("keepers-ca.pem"),
            edge_pem = edge("pem"),
            edge_key = edge("key"),
            secret = papers.secret,
        )
    }
}

// === impl Edge ===

impl Edge {
    /// Writes an edge's files; it does not run yet. One beyond the founders learns.
    pub(super) fn set_up(common: &Common, id: u64) -> anyhow::Result<Self> {
        let number = u8::try_from(id)?;
        let network = common.network.as_ref();
        let address = Common::address(network.map(Arc::as_ref), id)?;
        let door = SocketAddr::new(address, free_port()?);
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let founder = usize::from(number).checked_sub(1);
        let link = match founder.and_then(|at| common.links.get(at)) {
            Some(link) => *link,
            None => SocketAddr::new(address, free_port()?),
        };
        let folder = common.folder.join(format!("edge-{id}"));
        std::fs::create_dir(&folder)?;
        common.papers.sign_edge(id, Good::Still)?;
        std::fs::write(folder.join("policy.toml"), POLICY)?;
        clock::step(&folder.join(clock::FILE), 0)?;
        let config = folder.join("edge.toml");
        std::fs::write(&config, common.config(id, &folder, [door, admin, link]))?;
        // It holds secrets.
        std::fs::set_permissions(&config, Permissions::from_mode(0o600))?;
        let (relay, admin) = match network {
            None => (None, admin),
            Some(network) => {
                let log = folder.join("relay.log");
                let (relay, at) = network.open_loopback(number, admin.port(), &log)?;
                (Some(relay), at)
            }
        };
        let target = format!("https://{door}").parse::<Target>()?;
        Ok(Self {
            id,
            folder,
            admin: Target::from(admin),
            door: Pool::impatient(
                target,
                BANK_CONNECTIONS,
                common.papers.bank()?,
                BANK_PATIENCE,
            ),
            desk: Pool::new(Target::from(admin), 2),
            host: network.map(|network| (Arc::clone(network), number)),
            _relay: relay,
            process: None,
        })
    }

    /// Its log's directory.
    pub(super) fn wal(&self) -> PathBuf {
        self.folder.join("wal")
    }

    /// What answers operators.
    pub(super) fn desk(&self) -> Pool {
        self.desk.clone()
    }

    /// Starts the process without waiting for it.
    pub(super) fn spawn(&mut self) -> anyhow::Result<()> {
        let program = std::env::current_exe().context("this program's own file")?;
        let mut command = match &self.host {
            None => Command::new(&program),
            Some((network, host)) => network.command(*host, &program),
        };
        command.arg("drill-edge").arg("--config");
        command.arg(self.folder.join("edge.toml"));
        command.arg("--clock").arg(self.folder.join(clock::FILE));
        let log = self.folder.join("edge.log");
        self.process = Some(Process::spawn("edge", command, &log)?);
        Ok(())
    }

    /// Waits until `/readyz` says so.
    pub(super) async fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now().checked_add(READY_WITHIN);
        loop {
            let asked = self.desk.ask(Call::get("/readyz"), LOOK_WITHIN).await;
            let why = match asked {
                Ok(reply) if reply.status == 200 => return Ok(()),
                Ok(reply) => String::from_utf8_lossy(&reply.body).into_owned(),
                Err(error) => error.to_string(),
            };
            let process = self.process.as_mut().context("the edge was not started")?;
            let ended = process.status();
            let late = deadline.is_none_or(|deadline| Instant::now() >= deadline);
            ensure!(
                ended.is_none() && !late,
                "edge {} is not ready: {why} {ended:?}\n{}",
                self.id,
                process.tail()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whether it says that it is ready.
    pub(super) async fn is_ready(&self) -> bool {
        let asked = self.desk.ask(Call::get("/readyz"), LOOK_WITHIN).await;
        asked.is_ok_and(|reply| reply.status == 200)
    }

    /// Whether it was started and has not ended.
    pub(super) fn runs(&mut self) -> bool {
        let process = self.process.as_mut();
        process.is_some_and(|process| process.status().is_none())
    }

    /// Its status page, if it answers.
    pub(super) async fn look(&self) -> Option<Value> {
        look(&self.desk).await
    }

    /// Its metrics as they are scraped, if it answers.
    pub(super) async fn metrics(&self) -> Option<String> {
        let asked = self.desk.ask(Call::get("/metrics"), LOOK_WITHIN).await;
        Some(String::from_utf8_lossy(&asked.ok()?.body).into_owned())
    }

    /// Steps its clock to so many milliseconds ahead of the machine's; it sees that in a moment.
    pub(super) fn step_clock(&self, off_ms: i64) -> anyhow::Result<()> {
        Ok(clock::step(&self.folder.join(clock::FILE), off_ms)?)
    }

    /// Kills it at once (SIGKILL) and waits until it is gone; gives how it ended.
    pub(super) async fn kill(&mut self) -> anyhow::Result<String> {
        let mut process = self.process.take().context("the edge does not run")?;
        process.kill()?;
        Ok(process.ended(END_WITHIN).await?.to_string())
    }

    /// Freezes it (SIGSTOP).
    pub(super) fn pause(&self) -> anyhow::Result<()> {
        Ok(self.process.as_ref().context("it does not run")?.pause()?)
    }

    /// Thaws it.
    pub(super) fn resume(&self) -> anyhow::Result<()> {
        Ok(self.process.as_ref().context("it does not run")?.resume()?)
    }

    /// How its process is, a letter a process.
    pub(super) fn states(&self) -> Vec<char> {
        self.process.as_ref().map_or_else(Vec::new, Process::states)
    }

    /// Asks it to stop (SIGTERM) and waits until it has, in order.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        process.terminate()?;
        let status = process.ended(END_WITHIN).await?;
        ensure!(
            status.success(),
            "edge {} did not stop in order: {status}\n{}",
            self.id,
            process.tail()
        );
        Ok(())
    }
}

const fn region_of(id: u64) -> &'static str {
    if id == FAR { FAR_REGION } else { REGION }
}

/// An edge's status page, if it answers.
pub(super) async fn look(desk: &Pool) -> Option<Value> {
    let asked = desk.ask(Call::get("/statusz"), LOOK_WITHIN).await;
    serde_json::from_slice(&asked.ok()?.body).ok()
}
