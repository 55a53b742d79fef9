//! Starts the servers as child processes of this very program, and stops them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use standin_drill::process::{Process, free_port};
use tokio::time::Instant;

use super::certs::Certificates;
use super::wire::Wire;
use super::work::BANK;
use super::world::POLICY;

/// The secret of every sender here. Public, as everything in a benchmark.
pub const SECRET: &str = "whsec_c3RhbmRpbi1iZW5jaC1zZWNyZXQtb2YtMzItYnl0ZXM=";
const START_MAX: Duration = Duration::from_secs(30);
const STOP_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// A server in a process of its own.
#[derive(Debug)]
pub struct Child {
    /// What its CPU time goes by.
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where an edge's operators connect.
    pub admin: Option<SocketAddr>,
    process: Process,
}

/// Where the servers keep things and log to.
#[derive(Clone, Debug)]
pub struct Folder(pub PathBuf);

/// What an edge stands on.
#[derive(Clone, Copy, Debug)]
pub struct Stores<'a> {
    /// Postgres connection text.
    pub postgres: &'a str,
    /// Address of the Redis that is written to.
    pub redis: &'a str,
    /// Address of the one that is looked in.
    pub replica: &'a str,
    /// What the edge logs.
    pub log_level: &'a str,
    /// Its door has TLS; certificates of banks are known, none is demanded.
    pub tls: Option<&'a Certificates>,
}

// === impl Child ===

impl Child {
    /// The bare server.
    pub async fn ceiling(folder: &Folder) -> anyhow::Result<Self> {
        Self::start("ceiling", folder, &[]).await
    }

    /// The bare server that reads and writes JSON, with TLS or without.
    pub async fn bare(folder: &Folder, tls: Option<&Certificates>) -> anyhow::Result<Self> {
        let Some(tls) = tls else {
            return Self::start("bare", folder, &[]).await;
        };
        let (certificate, key) = tls.door();
        let (certificate, key) = (certificate.display(), key.display());
        let files = [certificate.to_string(), key.to_string()];
        let [certificate, key] = &files;
        Self::start(
            "bare",
            folder,
            &["--certificate", certificate, "--key", key],
        )
        .await
    }

    /// The plain service.
    pub async fn plain(folder: &Folder, postgres: &str, pool: usize) -> anyhow::Result<Self> {
        let pool = pool.to_string();
        Self::start(
            "plain",
            folder,
            &["--postgres", postgres, "--connections", &pool],
        )
        .await
    }

    /// The trips API.
    pub async fn trips(folder: &Folder, postgres: &str, redis: &str) -> anyhow::Result<Self> {
        Self::start("trips", folder, &["--postgres", postgres, "--redis", redis]).await
    }

    /// An edge on an empty log; ready when it says so.
    pub async fn edge(folder: &Folder, on: &Stores<'_>) -> anyhow::Result<Self> {
        let (address, admin) = (loopback()?, loopback()?);
        let (wal, policy) = (folder.0.join("wal"), folder.0.join("policy.toml"));
        if wal.exists() {
            std::fs::remove_dir_all(&wal)?;
        }
        std::fs::write(&policy, POLICY)?;
        let config = folder.0.join("edge.toml");
        std::fs::write(&config, edge_config(address, admin, &folder.0, on))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", "edge", "--config"]).arg(&config);
        let process = Process::spawn("edge", command, &folder.0.join("edge.log"))?;
        let mut child = Self {
            name: "edge",
            address,
            admin: Some(admin),
            process,
        };
        child.until_ready().await?;
        Ok(child)
    }

    async fn start(
        name: &'static str,
        folder: &Folder,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        let address = loopback()?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["serve", name, "--listen", &address.to_string()])
            .args(arguments);
        command.env("STANDIN_BENCH_SECRET", SECRET);
        let log = folder.0.join(format!("{name}.log"));
        let process = Process::spawn(name, command, &log)?;
        let mut child = Self {
            name,
            address,
            admin: None,
            process,
        };
        child.until_ready().await?;
        Ok(child)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// GETs JSON from the admin listener, or from the public one where there is none.
    pub async fn get(&self, path: &str) -> anyhow::Result<serde_json::Value> {
        let mut wire = Wire::connect(self.admin.unwrap_or(self.address)).await?;
        let (status, body) = wire.get(path).await?;
        if status != 200 {
            bail!("{path}: status {status}");
        }
        Ok(serde_json::from_slice(body)?)
    }

    /// The metrics page: every line's value by its name and labels.
    pub async fn metrics(&self) -> anyhow::Result<BTreeMap<String, f64>> {
        let mut wire = Wire::connect(self.admin.context("only an edge has metrics")?).await?;
        let (_, body) = wire.get("/metrics").await?;
        let page = String::from_utf8_lossy(body);
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.rsplit_once(' '));
        Ok(pairs
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect())
    }

    /// Asks it to stop, and waits.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.process.terminate()?;
        self.process
            .ended(STOP_MAX)
            .await
            .map(drop)
            .with_context(|| self.process.tail())
    }

    async fn until_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_MAX;
        loop {
            if self.is_ready().await {
                return Ok(());
            }
            if self.process.status().is_some() || Instant::now() > deadline {
                bail!("{} did not start:\n{}", self.name, self.process.tail());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn is_ready(&self) -> bool {
        match self.admin {
            None => Wire::connect(self.address).await.is_ok(),
            Some(admin) => match Wire::connect(admin).await {
                Err(_refused) => false,
                Ok(mut wire) => matches!(wire.get("/readyz").await, Ok((200, _))),
            },
        }
    }
}

fn loopback() -> anyhow::Result<SocketAddr> {
    Ok((Ipv4Addr::LOCALHOST, free_port()?).into())
}

/// The defaults of the product but for its limits on one sender, which a load generator is.
fn edge_config(address: SocketAddr, admin: SocketAddr, folder: &Path, on: &Stores<'_>) -> String {
    let Stores {
        postgres,
        redis,
        replica,
        log_level,
        tls,
    } = on;
    let tls = tls.map(tls_section).unwrap_or_default();
    let (wal, policy) = (folder.join("wal"), folder.join("policy.toml"));
    format!(
        r#"
listen = "{address}"
admin_listen = "{admin}"
region = "bench"
deployment_key = "c3RhbmRpbi1iZW5jaC1kZXBsb3ltZW50LWtleSEhISE="
policy = {policy:?}

[wal]
dir = {wal:?}
budget_bytes = 4294967296

[ledger]
postgres = "{postgres}"

[trip_cache]
redis = ["{replica}"]
redis_home = "{redis}"

[[banks]]
slug = "{BANK}"
secrets = ["{SECRET}"]
requests_per_second = 1000000
burst = 1000000

[telemetry]
log_level = "{log_level}"

[limits]
shopper_per_minute = 100000
{tls}"#
    )
}

fn tls_section(certificates: &Certificates) -> String {
    let (certificate, key) = certificates.door();
    let authority = certificates.authority();
    format!("\n[tls]\ncertificate = {certificate:?}\nkey = {key:?}\nbanks_ca = {authority:?}\n")
}
