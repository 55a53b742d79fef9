//! The edge under test: a child process with its own folder, ports and log.

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use serde_json::Value;
use standin_cli::client::{Call, Pool, Reply};
use standin_core::identity::DeploymentKey;
use standin_drill::network::{End, Network};
use standin_drill::process::{Process, free_port};

use super::bank::{Bank, SECRET, SLUG};
use super::stage::{Stage, WIDE_POLICY};
use super::wait::until;

/// How long an edge may take to be ready, on a machine that builds things meanwhile.
pub const READY_MAX: Duration = Duration::from_secs(30);
/// How long it may take to stop.
pub const STOP_MAX: Duration = Duration::from_secs(20);
/// How long draining what is left may take.
pub const DRAIN_MAX: Duration = Duration::from_secs(40);
const ASK_MAX: Duration = Duration::from_secs(5);
/// How long a look at an edge that may hang is waited for.
const LOOK_MAX: Duration = Duration::from_secs(1);
const KEY: &str = "c3RhbmRpbi10ZXN0cy1kZXBsb3ltZW50LWtleSEh";
/// The key under which the edges of tests make codes and tokens.
pub fn deployment_key() -> DeploymentKey {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(KEY)
        .unwrap();
    DeploymentKey::new(bytes).unwrap()
}

/// What tests use as secrets, card numbers and positions, as far as it can be told from other text.
pub const CANARIES: [&str; 9] = [
    "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX",
    "5PgFv1X0dC3hJ2kQm8rTyUzL",
    "c3RhbmRpbi10ZXN0cy1kZXBsb3ltZW50LWtleSEh",
    "BEGIN PRIVATE KEY",
    "4111111111111111",
    "5555555555554444",
    "44970000",
    "93270000",
];

/// The programs built for tests; a test gives them by `env!("CARGO_BIN_EXE_…")`.
#[derive(Clone, Copy, Debug)]
pub struct Programs {
    /// The edge.
    pub edge: &'static str,
    /// The `standin` command.
    pub standin: &'static str,
}

/// How an edge is set up.
#[derive(Clone, Debug)]
pub struct EdgeOptions {
    /// Its number.
    pub id: u64,
    /// Its folder; one in the stage's when absent.
    pub folder: Option<PathBuf>,
    /// The host of a network it runs on; this machine when absent.
    pub host: Option<(Arc<Network>, u8)>,
    /// Its region.
    pub region: String,
    /// Where banks connect; a free port where it runs when absent.
    pub listen: Option<SocketAddr>,
    /// How long it asks its clients to leave when it stops (ms).
    pub leave_ms: u64,
    /// Connection text of the ledger.
    pub postgres: String,
    /// Redis to read from, the local one first.
    pub redis: Vec<String>,
    /// Redis to write to.
    pub redis_home: String,
    /// The rules.
    pub policy: String,
    /// Deadline of the bank and parts of it: trip cache, Postgres, WAL (ms).
    pub budgets_ms: [u64; 4],
    /// Failures in a second that open the breaker (when they are half of the tries).
    pub breaker_failures: u64,
    /// What of its doings it writes down.
    pub log_level: String,
    /// Further tables, as TOML.
    pub more: String,
}

/// An edge as a child process. Dropping it kills it.
#[derive(Debug)]
pub struct Edge {
    id: u64,
    programs: Programs,
    host: Option<(Arc<Network>, u8)>,
    /// To the admin listener of an edge on a host of its own: it is on loopback there.
    _relay: Option<Process>,
    folder: PathBuf,
    address: SocketAddr,
    admin_address: SocketAddr,
    admin: Pool,
    process: Option<Process>,
    history: super::bank::History,
}

impl Drop for Edge {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.check_log();
        }
    }
}

// === impl EdgeOptions ===

impl EdgeOptions {
    /// On the servers of a stage, with budgets that a busy machine does not overrun by itself.
    pub fn on(stage: &Stage) -> Self {
        Self {
            id: 1,
            folder: None,
            host: None,
            region: "test".to_owned(),
            listen: None,
            leave_ms: 0,
            postgres: stage.postgres_url(),
            redis: vec![stage.redis.url()],
            redis_home: stage.redis.url(),
            policy: WIDE_POLICY.to_owned(),
            budgets_ms: [8_000, 500, 1_000, 5_000],
            breaker_failures: 10,
            log_level: "info".to_owned(),
            more: String::new(),
        }
    }

    /// Where it is reached.
    pub fn address(&self) -> IpAddr {
        let at = |(network, host): &(Arc<Network>, u8)| network.address(End::Host(*host)).into();
        self.host.as_ref().map_or(Ipv4Addr::LOCALHOST.into(), at)
    }

    fn text(&self, folder: &Path, address: SocketAddr, admin: SocketAddr) -> String {
        let [deadline, trip_cache, postgres, wal] = self.budgets_ms;
        let Self {
            postgres: url,
            redis,
            redis_home,
            id,
            folder: _,
            host: _,
            region,
            listen: _,
            leave_ms,
            policy: _,
            budgets_ms: _,
            breaker_failures,
            log_level,
            more,
        } = self;
        let wal_dir = folder.join("wal");
        let policy = folder.join("policy.toml");
        format!(
            r#"
listen = "{address}"
listen_plain = "anywhere"
admin_listen = "{admin}"
region = "{region}"
edge_id = {id}
deployment_key = "{KEY}"
policy = {policy:?}

[wal]
dir = {wal_dir:?}
segment_bytes = 2097152
budget_bytes = 268435456

[ledger]
postgres = "{url}"

[trip_cache]
redis = {redis:?}
redis_home = "{redis_home}"

[limits]
shopper_per_minute = 1000000
address_failures_per_minute = 1000000
leave_ms = {leave_ms}

[breaker]
failures = {breaker_failures}
dwell_ms = 300
ramp_step_ms = 100

[telemetry]
log_level = "{log_level}"

[[banks]]
slug = "{SLUG}"
currency = "USD"
secrets = ["{SECRET}"]
deadline_ms = {deadline}
trip_cache_ms = {trip_cache}
postgres_ms = {postgres}
wal_ms = {wal}
requests_per_second = 1000000
burst = 1000000

{more}
"#
        )
    }
}

// === impl Edge ===

impl Edge {
    /// Starts an edge on a stage and waits until it is ready.
    pub async fn start(programs: Programs, stage: &Stage) -> Self {
        Self::start_with(programs, stage, EdgeOptions::on(stage)).await
    }

    /// Starts an edge as told and waits until it is ready.
    pub async fn start_with(programs: Programs, stage: &Stage, options: EdgeOptions) -> Self {
        let mut edge = Self::set_up(programs, stage, &options);
        edge.restart().await;
        edge
    }

    /// Writes an edge's files without starting it.
    pub fn set_up(programs: Programs, stage: &Stage, options: &EdgeOptions) -> Self {
        let own = || SocketAddr::new(options.address(), free_port().unwrap());
        let address = options.listen.unwrap_or_else(own);
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
        let own = || stage.folder().join(format!("edge-{}", address.port()));
        let folder = options.folder.clone().unwrap_or_else(own);
        std::fs::create_dir_all(&folder).unwrap();
        let text = options.text(&folder, address, admin);
        // Synced: the disk may lose its power, and an operator's files were there long before.
        for (name, text) in [("edge.toml", &text), ("policy.toml", &options.policy)] {
            let mut file = File::create(folder.join(name)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.sync_all().unwrap();
        }
        for synced in folder.ancestors().take(2) {
            File::open(synced).unwrap().sync_all().unwrap();
        }
        let (relay, admin) = match &options.host {
            None => (None, admin),
            Some((network, host)) => {
                let log = folder.join("relay.log");
                let (relay, at) = network.open_loopback(*host, admin.port(), &log).unwrap();
                (Some(relay), at)
            }
        };
        Self {
            id: options.id,
            programs,
            host: options.host.clone(),
            _relay: relay,
            folder,
            address,
            admin_address: admin,
            admin: Pool::new(admin.into(), 4),
            process: None,
            history: stage.history.clone(),
        }
    }

    /// Its number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder.join("edge.toml")
    }

    /// Its log's directory.
    pub fn wal(&self) -> PathBuf {
        self.folder.join("wal")
    }

    /// Where banks connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where operators connect.
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.admin_address)
    }

    /// The bank of the harness at this edge, with at most `connections` connections.
    pub fn bank(&self, connections: usize) -> Bank {
        let name = format!("edge-{}", self.id);
        Bank::new(self.address, &name, connections, self.history.clone())
    }

    /// Starts the process on the same folder and ports, and waits until it is ready.
    pub async fn restart(&mut self) {
        self.spawn();
        self.ready().await;
    }

    /// Starts the process without waiting.
    pub fn spawn(&mut self) {
        assert!(!self.runs(), "the edge already runs");
        let program = Path::new(self.programs.edge);
        let mut command = match &self.host {
            None => Command::new(program),
            Some((network, host)) => network.command(*host, program),
        };
        command.arg("--config").arg(self.config());
        command.current_dir(&self.folder);
        let log = self.folder.join("edge.log");
        self.process = Some(Process::spawn("standin-edge", command, &log).unwrap());
    }

    /// Waits until `/readyz` says so.
    pub async fn ready(&mut self) {
        let deadline = tokio::time::Instant::now().checked_add(READY_MAX).unwrap();
        loop {
            let asked = self.admin.ask(Call::get("/readyz"), ASK_MAX).await;
            let why = match asked {
                Ok(reply) if reply.status == 200 => return,
                Ok(reply) => String::from_utf8_lossy(&reply.body).into_owned(),
                Err(error) => error.to_string(),
            };
            let process = self.process.as_mut().expect("started before");
            let ended = process.status();
            let late = tokio::time::Instant::now() >= deadline;
            assert!(
                ended.is_none() && !late,
                "the edge is not ready: {why} {ended:?}\n{}",
                process.tail()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The process; fails the test when it does not run.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the edge runs")
    }

    /// Whether it was started and has not ended.
    pub fn runs(&mut self) -> bool {
        let process = self.process.as_mut();
        process.is_some_and(|process| process.status().is_none())
    }

    /// Waits until the process ends by itself.
    pub async fn ends(&mut self, within: Duration) -> ExitStatus {
        let mut process = self.process.take().expect("the edge runs");
        match process.ended(within).await {
            Ok(status) => status,
            Err(error) => panic!("{error}\n{}", process.tail()),
        }
    }

    /// `/statusz`, if it answers.
    pub async fn look(&self) -> Option<Value> {
        let asked = self.admin.ask(Call::get("/statusz"), LOOK_MAX).await;
        serde_json::from_slice(&asked.ok()?.body).ok()
    }

    /// Kills the process at once and waits until it is gone.
    pub async fn kill(&mut self) {
        let mut process = self.process.take().expect("the edge runs");
        process.kill().unwrap();
        process.ended(STOP_MAX).await.unwrap();
    }

    /// Asks the process to stop (SIGTERM) and waits until it has.
    pub async fn terminate(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the edge runs");
        process.terminate().unwrap();
        match process.ended(STOP_MAX).await {
            Ok(status) => status,
            Err(error) => panic!("{error}\n{}", process.tail()),
        }
    }

    /// `/statusz`.
    pub async fn status(&self) -> Value {
        let reply = self.admin(Call::get("/statusz")).await;
        assert_eq!(reply.status, 200);
        serde_json::from_slice(&reply.body).unwrap()
    }

    /// Polls `/statusz` until `look` finds what it wants.
    pub async fn status_until<T>(
        &self,
        what: &str,
        within: Duration,
        look: impl Fn(&Value) -> Option<T>,
    ) -> T {
        let mut last = Value::Null;
        let deadline = tokio::time::Instant::now().checked_add(within).unwrap();
        loop {
            if let Ok(reply) = self.admin.ask(Call::get("/statusz"), ASK_MAX).await {
                last = serde_json::from_slice(&reply.body).unwrap_or_default();
                if let Some(found) = look(&last) {
                    return found;
                }
            }
            let late = tokio::time::Instant::now() >= deadline;
            assert!(!late, "{what}: not within {within:?}: {last:#}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until an alarm is raised, or is not.
    pub async fn alarm(&self, name: &str, is_raised: bool, within: Duration) {
        self.status_until(name, within, |page| {
            let raised = page["alarms"].as_array()?;
            let is = raised.iter().any(|alarm| alarm["name"] == name);
            (is == is_raised).then_some(())
        })
        .await;
    }

    /// Waits until everything in the log is in the ledger.
    pub async fn drained(&self) {
        self.status_until("drained", DRAIN_MAX, |status| {
            let drain = &status["drain"];
            let known = drain["cursor"].as_u64()? > 0 || status["wal"]["last_index"] == 0;
            (known && drain["backlog"] == 0).then_some(())
        })
        .await;
    }

    /// Waits until the next request will likely be answered on this rung.
    pub async fn on_rung(&self, rung: &str, within: Duration) {
        self.status_until(rung, within, |status| {
            let settled = status["breaker"]["position"]["state"] != "ramp";
            (status["rung"] == rung && settled).then_some(())
        })
        .await;
    }

    /// Orders stand-in `auto`, `force` or `forbid`.
    pub async fn order(&self, mode: &str, operator: &str, reason: &str) -> Reply {
        self.order_for(mode, None, operator, reason).await
    }

    /// The same for so many milliseconds.
    pub async fn order_for(
        &self,
        mode: &str,
        for_ms: Option<u64>,
        operator: &str,
        reason: &str,
    ) -> Reply {
        let body = serde_json::json!({"operator": operator, "reason": reason, "for_ms": for_ms});
        self.admin(Call::post(format!("/stand-in/{mode}"), body.to_string()))
            .await
    }

    /// `/metrics`.
    pub async fn metrics(&self) -> String {
        let reply = self.admin(Call::get("/metrics")).await;
        assert_eq!(reply.status, 200);
        String::from_utf8(reply.body.to_vec()).unwrap()
    }

    /// Sums the samples of a metric whose line holds every one of `labels`.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> u64 {
        let text = self.metrics().await;
        text.lines()
            .filter(|line| line.starts_with(name))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(_, value)| value.parse::<u64>().ok())
            .sum()
    }

    /// One call to the admin listener.
    pub async fn admin(&self, call: Call) -> Reply {
        let path = call.path.clone();
        until(&path, READY_MAX, || async {
            self.admin.ask(call.clone(), ASK_MAX).await.ok()
        })
        .await
    }

    /// Everything it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("edge.log")).unwrap()
    }

    /// Fails the test when something stands in its log that no log may hold: a secret, a card number, a
    /// precise position.
    fn check_log(&self) {
        let Ok(log) = std::fs::read_to_string(self.folder.join("edge.log")) else {
            return;
        };
        for canary in CANARIES {
            let found = log.lines().find(|line| line.contains(canary));
            assert!(found.is_none(), "{canary} stands in the log: {found:?}");
        }
    }

    /// Its resident memory, KiB.
    pub fn memory_kib(&self) -> u64 {
        let id = self.process.as_ref().expect("the edge runs").id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let words = line.unwrap().split_whitespace();
        words.filter_map(|word| word.parse().ok()).next().unwrap()
    }

    /// Runs the edge's program with arguments and gives its output.
    pub fn run(&self, arguments: &[&str]) -> std::process::Output {
        Command::new(self.programs.edge)
            .args(arguments)
            .output()
            .unwrap()
    }
}
