//! A group of three in three processes: ours, and etcd.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use standin_drill::process::{Process, find_program, free_port};
use tokio::time::Instant;

use crate::child::{Child, arguments};
use crate::cpu::Usage;
use crate::logs::{Contender, etcd};
use crate::recorder::Found;
use crate::{certificates, keeper};

/// How long a group may take to have a leader.
const LEADER_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// Three keepers of ours.
pub struct Keepers(Vec<Child>);

/// Three etcds. Dropping them kills them.
pub struct Etcds {
    processes: Vec<Process>,
    endpoints: String,
    tls: Option<PathBuf>,
}

/// Where writers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Leader,
    Follower,
}

// === impl Keepers ===

impl Keepers {
    /// Founds a group in empty folders below this one.
    pub async fn start(dir: &Path, batches: usize, tls: bool) -> anyhow::Result<Self> {
        let certificates = match tls {
            true => Some(certificates::for_keepers(dir, keeper::REGION)?),
            false => None,
        };
        let members: Vec<String> = (0..3)
            .map(|_| Ok(format!("127.0.0.1:{}", free_port()?)))
            .collect::<anyhow::Result<_>>()?;
        let members = members.join(",");
        let batches = batches.to_string();
        let (mut keepers, mut logs) = (Vec::new(), Vec::new());
        for node in 1..=3 {
            let folder = dir.join(format!("keeper-{node}"));
            std::fs::create_dir_all(&folder)?;
            let (node, folder) = (node.to_string(), folder.to_string_lossy().into_owned());
            let words = [
                "keeper",
                "--node",
                &node,
                "--members",
                &members,
                "--dir",
                &folder,
            ];
            let words = words.into_iter().chain(["--batches", &batches]);
            let mut words = arguments(words);
            if let Some(certificates) = &certificates {
                words.extend(["--tls".into(), certificates.clone().into_os_string()]);
            }
            let mut keeper = Child::start(&words)?;
            let ready = keeper.line().await?;
            logs.push(
                ready
                    .strip_prefix("ready ")
                    .context("not ready")?
                    .to_owned(),
            );
            keepers.push(keeper);
        }
        let first = keepers.first_mut().context("there are three")?;
        first.tell(&format!("found {}", logs.join(","))).await?;
        first.expect("founded").await?;
        let mut keepers = Self(keepers);
        keepers.leader().await?;
        Ok(keepers)
    }

    /// Writers in the process of the leader, or in another one.
    pub async fn measure(
        &mut self,
        at: At,
        (writers, warm, counted): (usize, Duration, Duration),
    ) -> anyhow::Result<(Found, Usage)> {
        let leader = self.leader().await?;
        let names: BTreeMap<u32, String> = (self.0.iter().enumerate())
            .map(|(place, child)| {
                let role = if place == leader {
                    "leader"
                } else {
                    "followers"
                };
                (child.id(), role.to_owned())
            })
            .collect();
        let place = match at {
            At::Leader => leader,
            At::Follower => (leader + 1) % 3,
        };
        let keeper = self.0.get_mut(place).context("there are three")?;
        let load = format!(
            "load {writers} {} {}",
            warm.as_millis(),
            counted.as_millis()
        );
        keeper.tell(&load).await?;
        keeper.measured(&names).await
    }

    /// Stops them in order.
    pub async fn stop(self) -> anyhow::Result<()> {
        for keeper in self.0 {
            keeper.end().await?;
        }
        Ok(())
    }

    /// The place of the keeper that all three say leads.
    async fn leader(&mut self) -> anyhow::Result<usize> {
        let deadline = Instant::now() + LEADER_MAX;
        loop {
            let mut said = Vec::new();
            for keeper in &mut self.0 {
                keeper.tell("status").await?;
                let status: serde_json::Value = keeper.json().await?;
                said.push(status.get("leader").and_then(serde_json::Value::as_u64));
            }
            if let [Some(one), Some(two), Some(three)] = said.as_slice()
                && one == two
                && two == three
            {
                return Ok(usize::try_from(*one)?.saturating_sub(1));
            }
            ensure!(
                Instant::now() < deadline,
                "the group has no leader: {said:?}"
            );
            tokio::time::sleep(POLL).await;
        }
    }
}

// === impl Etcds ===

impl Etcds {
    /// Starts a cluster in empty folders below this one; with TLS between members and to clients when
    /// there are certificates.
    pub async fn start(dir: &Path, tls: Option<&Path>) -> anyhow::Result<Self> {
        let program = find_program("etcd", &[])
            .context("etcd was not found in PATH (Debian: apt install etcd-server)")?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut ports = Vec::new();
        for _ in 0..3 {
            ports.push((free_port()?, free_port()?));
        }
        let cluster: Vec<String> = (1..)
            .zip(&ports)
            .map(|(node, (_, peer))| format!("etcd{node}={scheme}://127.0.0.1:{peer}"))
            .collect();
        let cluster = cluster.join(",");
        let mut processes = Vec::new();
        for (node, (client, peer)) in (1..).zip(&ports) {
            let folder = dir.join(format!("etcd-{node}"));
            std::fs::create_dir_all(&folder)?;
            let mut command = Command::new(&program);
            command.args(["--name", &format!("etcd{node}"), "--data-dir"]);
            command.arg(folder.join("data"));
            let (client, peer) = (
                format!("{scheme}://127.0.0.1:{client}"),
                format!("{scheme}://127.0.0.1:{peer}"),
            );
            for (flag, value) in [
                ("--listen-client-urls", client.as_str()),
                ("--advertise-client-urls", &client),
                ("--listen-peer-urls", &peer),
                ("--initial-advertise-peer-urls", &peer),
                ("--initial-cluster", &cluster),
                ("--initial-cluster-state", "new"),
                ("--log-level", "warn"),
                // As ours: a busy machine must not look like a dead leader.
                ("--heartbeat-interval", "100"),
                ("--election-timeout", "1000"),
            ] {
                command.args([flag, value]);
            }
            if let Some(tls) = tls {
                for (flag, file) in [
                    ("--cert-file", "cert.pem"),
                    ("--key-file", "key.pem"),
                    ("--trusted-ca-file", "ca.pem"),
                    ("--peer-cert-file", "cert.pem"),
                    ("--peer-key-file", "key.pem"),
                    ("--peer-trusted-ca-file", "ca.pem"),
                ] {
                    command.arg(flag).arg(tls.join(file));
                }
                command.args(["--client-cert-auth", "--peer-client-cert-auth"]);
            }
            processes.push(Process::spawn("etcd", command, &folder.join("etcd.log"))?);
        }
        let endpoints: Vec<String> = ports
            .iter()
            .map(|(client, _)| format!("127.0.0.1:{client}"))
            .collect();
        let mut etcds = Self {
            processes,
            endpoints: endpoints.join(","),
            tls: tls.map(Path::to_owned),
        };
        etcds.until_ready().await?;
        Ok(etcds)
    }

    /// Writers in a process of their own, all at the leader.
    pub async fn measure(
        &self,
        (writers, warm, counted): (usize, Duration, Duration),
    ) -> anyhow::Result<(Found, Usage)> {
        let (count, warm) = (writers.to_string(), warm.as_millis().to_string());
        let (counted, name) = (counted.as_millis().to_string(), Contender::Etcd.argument());
        let mut words = arguments([
            "append",
            "--contender",
            &name,
            "--writers",
            &count,
            "--dir",
            ".",
            "--warm",
            &warm,
            "--counted",
            &counted,
            "--url",
            &self.endpoints,
        ]);
        if let Some(tls) = &self.tls {
            words.extend(["--tls".into(), tls.clone().into_os_string()]);
        }
        let mut child = Child::start(&words)?;
        let names = BTreeMap::from([(child.id(), "writers".to_owned())]);
        let measured = child.measured(&names).await?;
        child.end().await?;
        Ok(measured)
    }

    /// Kills them and waits until they are gone.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        for process in &mut self.processes {
            process.kill()?;
            process.ended(LEADER_MAX).await?;
        }
        Ok(())
    }

    async fn until_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + LEADER_MAX;
        loop {
            let error = match etcd::leader(&self.endpoints, self.tls.as_deref()).await {
                Ok(_leader) => return Ok(()),
                Err(error) => error,
            };
            for process in &mut self.processes {
                if process.status().is_some() {
                    bail!("etcd did not start:\n{}", process.tail());
                }
            }
            ensure!(Instant::now() < deadline, "etcd is not ready: {error:#}");
            tokio::time::sleep(POLL).await;
        }
    }
}
