//! What is measured, in which order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use standin_drill::servers::{Postgres, PostgresOptions, Redis, RedisOptions};

use crate::child::{Child, arguments};
use crate::cpu::Usage;
use crate::group::{At, Etcds, Keepers};
use crate::logs::{Contender, postgres};
use crate::recorder::Found;
use crate::reopen::{self, Reopened};
use crate::{certificates, note};

/// Measures the log of Standin beside its peers on one disk: durable appends of 256 bytes, reopening
/// after a kill, and a group of three.
///
/// Every measurement runs in a process of its own, one at a time, in an empty folder below DIR, which
/// must be on the disk in question; programs take turns and their order turns with the rounds. The
/// tables go to standard output as Markdown, progress to standard error, every measurement to FILE.
/// Postgres 15, Redis 7 and etcd 3.4 must be installed to be measured (Debian: postgresql-15,
/// redis-server, etcd-server); nothing has to run, and nothing is left behind.
///
/// Read the CPU columns: a row in which others were busy, or in which the whole machine was, says
/// little about the program. A quick look: --seconds 2 --rounds 1 --writers 1,64 --reopen-mib 128
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// Folder on the disk to be measured; made if it is not there.
    #[arg(long, value_name = "DIR", required = true)]
    pub dir: Option<PathBuf>,
    /// Also write every measurement here, after each round.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Only these parts.
    #[arg(long, value_delimiter = ',', default_value = "append,reopen,group")]
    pub only: Vec<Part>,
    /// Only these programs (a part leaves out what is none of its).
    #[arg(long, value_delimiter = ',')]
    pub contenders: Vec<Contender>,
    /// Writers at once.
    #[arg(long, value_delimiter = ',', default_value = "1,8,64,256")]
    pub writers: Vec<usize>,
    /// Counted seconds of each measurement.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Uncounted seconds before them.
    #[arg(long, default_value_t = 2)]
    pub warm: u64,
    /// How often everything is measured.
    #[arg(long, default_value_t = 5)]
    pub rounds: u32,
    /// Size of the log that is reopened, MiB of records of 256 bytes.
    #[arg(long, default_value_t = 1024)]
    pub reopen_mib: u64,
    /// Batches that each keeper of our group may have under way.
    #[arg(long, default_value_t = 2)]
    pub batches: usize,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Durable appends of one log.
    Append,
    /// Opening a log again after kill -9.
    Reopen,
    /// Three keepers beside three etcds.
    Group,
}

/// Appends: one program, one number of writers, one round.
#[derive(Clone, Debug, Serialize)]
pub struct Appending {
    pub contender: String,
    pub writers: usize,
    pub round: u32,
    pub found: Found,
    pub cpu: Usage,
}

/// Reopening: one program, one round.
#[derive(Clone, Debug, Serialize)]
pub struct Reopening {
    pub contender: String,
    pub round: u32,
    pub found: Reopened,
    pub bytes_on_disk: u64,
    /// How long it took to fill the log, which is not what is compared.
    pub fill_seconds: f64,
    /// CPU time of the whole machine while it was opened.
    pub machine_cpu_seconds: f64,
}

/// Everything measured so far.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Measurements {
    pub append: Vec<Appending>,
    pub reopen: Vec<Reopening>,
    pub group: Vec<Appending>,
    /// What could not be measured, and why.
    pub missing: BTreeMap<String, String>,
}

// === impl Plan ===

impl Plan {
    /// Everything once, in an order of this round's.
    pub async fn round(
        &self,
        dir: &Path,
        round: u32,
        all: &mut Measurements,
    ) -> anyhow::Result<()> {
        for part in [Part::Append, Part::Reopen, Part::Group] {
            if !self.only.contains(&part) {
                continue;
            }
            match part {
                Part::Append => self.append(dir, round, all).await?,
                Part::Reopen => self.reopen(dir, round, all).await?,
                Part::Group => self.group(dir, round, all).await?,
            }
        }
        Ok(())
    }

    /// The programs of a part: in its order, begun one further each round, backwards every other one.
    fn turn<T: Copy>(round: u32, all: &[T]) -> Vec<T> {
        let mut turned = all.to_vec();
        let begin = round.saturating_sub(1) as usize % turned.len().max(1);
        turned.rotate_left(begin);
        if round.is_multiple_of(2) {
            turned.reverse();
        }
        turned
    }

    fn has(&self, contender: Contender) -> bool {
        self.contenders.is_empty() || self.contenders.contains(&contender)
    }

    async fn append(&self, dir: &Path, round: u32, all: &mut Measurements) -> anyhow::Result<()> {
        let contenders = Contender::APPEND.into_iter().filter(|one| self.has(*one));
        let contenders: Vec<Contender> = contenders.collect();
        for contender in Self::turn(round, &contenders) {
            for writers in Self::turn(round, &self.writers) {
                let folder = Folder::empty(dir, "append")?;
                match self.append_once(contender, writers, round, &folder.0).await {
                    Ok(found) => {
                        say(&found);
                        all.append.push(found);
                    }
                    Err(error) => missing(all, contender.label(), &error),
                }
            }
        }
        Ok(())
    }

    async fn append_once(
        &self,
        contender: Contender,
        writers: usize,
        round: u32,
        folder: &Path,
    ) -> anyhow::Result<Appending> {
        let server = Server::start(contender, writers).await?;
        let (count, name) = (writers.to_string(), contender.argument());
        let (warm, counted) = (
            (self.warm * 1_000).to_string(),
            (self.seconds * 1_000).to_string(),
        );
        let (folder, url) = (folder.to_string_lossy().into_owned(), server.url());
        let words = [
            "append",
            "--contender",
            &name,
            "--writers",
            &count,
            "--dir",
            &folder,
            "--warm",
            &warm,
            "--counted",
            &counted,
            "--url",
            &url,
        ];
        // What others left in memory must not go to the disk inside our window.
        rustix::fs::sync();
        let mut child = Child::start(&arguments(words))?;
        let names = BTreeMap::from([(child.id(), "program".to_owned())]);
        let (found, cpu) = child.measured(&names).await?;
        child.end().await?;
        Ok(Appending {
            contender: contender.label().to_owned(),
            writers,
            round,
            found,
            cpu,
        })
    }

    async fn reopen(&self, dir: &Path, round: u32, all: &mut Measurements) -> anyhow::Result<()> {
        let contenders = Contender::REOPEN.into_iter().filter(|one| self.has(*one));
        let contenders: Vec<Contender> = contenders.collect();
        for contender in Self::turn(round, &contenders) {
            let folder = Folder::empty(dir, "reopen")?;
            let records = self.reopen_mib * (1 << 20) / crate::load::BODY_BYTES as u64;
            match reopen::measure(contender, round, &folder.0, records).await {
                Ok(found) => {
                    note(&format!(
                        "round {round} reopen {}: open {:.0} ms, verified {:.0} ms, {} records, {} MiB on disk, filled in {:.1} s",
                        found.contender,
                        found.found.open_ms,
                        found.found.verified_ms,
                        found.found.records,
                        found.bytes_on_disk >> 20,
                        found.fill_seconds,
                    ));
                    all.reopen.push(found);
                }
                Err(error) => missing(all, contender.label(), &error),
            }
        }
        Ok(())
    }

    async fn group(&self, dir: &Path, round: u32, all: &mut Measurements) -> anyhow::Result<()> {
        let groups = [
            (Contender::Standin, false),
            (Contender::Standin, true),
            (Contender::Etcd, false),
            (Contender::Etcd, true),
        ];
        let groups = groups.into_iter().filter(|(one, _)| self.has(*one));
        for (contender, tls) in Self::turn(round, &groups.collect::<Vec<_>>()) {
            let folder = Folder::empty(dir, "group")?;
            if let Err(error) = self.group_once(contender, tls, round, &folder.0, all).await {
                let name = if tls { "group with TLS: " } else { "group: " };
                missing(all, &format!("{name}{}", contender.label()), &error);
            }
        }
        Ok(())
    }

    async fn group_once(
        &self,
        contender: Contender,
        tls: bool,
        round: u32,
        folder: &Path,
        all: &mut Measurements,
    ) -> anyhow::Result<()> {
        let window = |writers| {
            let (warm, counted) = (
                Duration::from_secs(self.warm),
                Duration::from_secs(self.seconds),
            );
            (writers, warm, counted)
        };
        let with = if tls { ", TLS" } else { "" };
        let mut found = |name: &str, writers, (found, cpu)| {
            let found = Appending {
                contender: format!("{name}{with}"),
                writers,
                round,
                found,
                cpu,
            };
            say(&found);
            all.group.push(found);
        };
        rustix::fs::sync();
        if contender == Contender::Standin {
            let mut keepers = Keepers::start(folder, self.batches, tls).await?;
            for writers in Self::turn(round, &self.writers) {
                let measured = keepers.measure(At::Leader, window(writers)).await?;
                found("standin ×3, writers at the leader", writers, measured);
                let measured = keepers.measure(At::Follower, window(writers)).await?;
                found("standin ×3, writers at a follower", writers, measured);
            }
            return keepers.stop().await;
        }
        let certificates = match tls {
            true => Some(certificates::for_etcd(folder).context("making certificates")?),
            false => None,
        };
        let etcds = Etcds::start(folder, certificates.as_deref()).await?;
        for writers in Self::turn(round, &self.writers) {
            found("etcd ×3", writers, etcds.measure(window(writers)).await?);
        }
        etcds.stop().await
    }
}

/// A server that some contenders need, on the same disk.
enum Server {
    None,
    Postgres(Postgres),
    Redis(Redis),
}

// === impl Server ===

impl Server {
    async fn start(contender: Contender, writers: usize) -> anyhow::Result<Self> {
        let setting = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        match contender {
            Contender::Postgres => {
                let postgres = Postgres::start_with(PostgresOptions {
                    settings: vec![
                        setting("fsync", "on"),
                        setting("synchronous_commit", "on"),
                        setting("full_page_writes", "on"),
                        setting("shared_buffers", "512MB"),
                        setting("max_connections", &(writers + 20).to_string()),
                        // No checkpoint inside a window: one is made before.
                        setting("max_wal_size", "8GB"),
                        setting("checkpoint_timeout", "30min"),
                    ],
                    ..PostgresOptions::default()
                })
                .await?;
                postgres.execute("postgres", postgres::SCHEMA).await?;
                postgres.execute("postgres", "checkpoint").await?;
                Ok(Self::Postgres(postgres))
            }
            Contender::Redis => {
                let redis = Redis::start(RedisOptions {
                    appendonly: true,
                    // No rewriting of the file inside a window.
                    extra: ["--auto-aof-rewrite-percentage", "0"]
                        .map(str::to_owned)
                        .to_vec(),
                    ..RedisOptions::default()
                });
                Ok(Self::Redis(redis.await?))
            }
            _ => Ok(Self::None),
        }
    }

    fn url(&self) -> String {
        match self {
            Self::None => String::new(),
            Self::Postgres(postgres) => postgres.url("postgres"),
            Self::Redis(redis) => format!("127.0.0.1:{}", redis.port()),
        }
    }
}

/// A folder that goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn empty(dir: &Path, name: &str) -> anyhow::Result<Self> {
        let folder = dir.join(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            note(&format!("{} stays: {error}", self.0.display()));
        }
    }
}

fn missing(all: &mut Measurements, what: &str, error: &anyhow::Error) {
    note(&format!("NOT MEASURED: {what}: {error:#}"));
    all.missing.insert(what.to_owned(), format!("{error:#}"));
}

fn say(measured: &Appending) {
    let Appending {
        contender,
        writers,
        round,
        found,
        cpu,
    } = measured;
    note(&format!(
        "round {round} {contender}, {writers} writers: {:.0}/s, p50 {:.3} p99 {:.3} max {:.2} ms, cores {:?}, others {:.2}, {:?}",
        found.per_second,
        found.p50_ms,
        found.p99_ms,
        found.max_ms,
        cpu.cores,
        cpu.others,
        found.details
    ));
}
