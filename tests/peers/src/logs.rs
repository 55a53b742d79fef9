//! The logs that are measured, each called as its makers mean it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::load::{BlockingWriter, in_tasks, in_threads};
use crate::recorder::{Found, Recorder};

pub mod batched;
pub mod etcd;
pub mod fjall;
pub mod okaywal;
pub mod plain;
pub mod postgres;
pub mod raft_engine;
pub mod redb;
pub mod redis;
pub mod standin;

/// One way to make 256 bytes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Contender {
    /// `standin_wal::Wal`, one keeper.
    Standin,
    /// raft-engine 0.4: one region a writer, `write(batch, sync)`, no compression; batching is its own.
    RaftEngine,
    /// okaywal 0.3: `begin_entry`, `write_chunk`, `commit`, segments of 64 MiB; batching is its own.
    Okaywal,
    /// fjall 3: a write batch with `SyncData` an append; it does not batch.
    Fjall,
    /// fjall 3 behind one thread that commits all that waits; batching is ours.
    FjallBatched,
    /// redb 4: a transaction an append, `Durability::Immediate`; it does not batch.
    Redb,
    /// redb 4 behind one thread that commits all that waits; batching is ours.
    RedbBatched,
    /// A file that grows: one write and one fdatasync an append, one at a time.
    Plain,
    /// The same on a file of zeros written before.
    PlainZeros,
    /// Postgres: one insert a transaction, one connection a writer.
    Postgres,
    /// Redis: RPUSH with `appendfsync always`, one connection a writer.
    Redis,
    /// etcd: puts to the leader over gRPC.
    Etcd,
}

/// What one measurement is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Task {
    /// Who appends.
    #[arg(long)]
    pub contender: Contender,
    /// How many writers.
    #[arg(long)]
    pub writers: usize,
    /// An empty folder for the log.
    #[arg(long)]
    pub dir: PathBuf,
    /// Uncounted, milliseconds.
    #[arg(long)]
    pub warm: u64,
    /// Counted, milliseconds.
    #[arg(long)]
    pub counted: u64,
    /// Where the server is.
    #[arg(long, default_value = "")]
    pub url: String,
    /// Certificates to speak TLS with.
    #[arg(long)]
    pub tls: Option<PathBuf>,
}

// === impl Contender ===

impl Contender {
    /// The ones of the append table, in its order.
    pub const APPEND: [Self; 11] = [
        Self::Standin,
        Self::RaftEngine,
        Self::Okaywal,
        Self::Fjall,
        Self::FjallBatched,
        Self::Redb,
        Self::RedbBatched,
        Self::Plain,
        Self::PlainZeros,
        Self::Postgres,
        Self::Redis,
    ];
    /// The ones that scan their whole log when they are opened.
    pub const REOPEN: [Self; 4] = [Self::Standin, Self::RaftEngine, Self::Okaywal, Self::Plain];

    /// As the tables name it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Standin => "standin",
            Self::RaftEngine => "raft-engine",
            Self::Okaywal => "okaywal",
            Self::Fjall => "fjall",
            Self::FjallBatched => "fjall, batched by us",
            Self::Redb => "redb",
            Self::RedbBatched => "redb, batched by us",
            Self::Plain => "plain file",
            Self::PlainZeros => "plain file of zeros",
            Self::Postgres => "Postgres",
            Self::Redis => "Redis",
            Self::Etcd => "etcd",
        }
    }

    /// As the command line names it.
    pub fn argument(self) -> String {
        let value = clap::ValueEnum::to_possible_value(&self);
        value
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }
}

// === impl Task ===

impl Task {
    /// Measures, in this process.
    pub async fn run(self) -> anyhow::Result<Found> {
        let recorder = || {
            Arc::new(Recorder::new(
                Duration::from_millis(self.warm),
                Duration::from_millis(self.counted),
            ))
        };
        let (dir, count) = (self.dir.as_path(), self.writers);
        match self.contender {
            Contender::Standin => standin::measure(dir, count, recorder).await,
            Contender::RaftEngine => raft_engine::measure(dir, count, recorder),
            Contender::Okaywal => blocking(recorder, okaywal::writers(dir, count)?),
            Contender::Fjall => blocking(recorder, fjall::writers(dir, count)?),
            Contender::FjallBatched => batched::measure(fjall::sink(dir)?, count, recorder),
            Contender::Redb => blocking(recorder, redb::writers(dir, count)?),
            Contender::RedbBatched => batched::measure(redb::sink(dir)?, count, recorder),
            Contender::Plain => blocking(recorder, plain::writers(dir, count, plain::Kind::Grows)?),
            Contender::PlainZeros => {
                blocking(recorder, plain::writers(dir, count, plain::Kind::Zeros)?)
            }
            Contender::Postgres => {
                let writers = postgres::writers(&self.url, count).await?;
                let recorder = recorder();
                in_tasks(&recorder, writers).await?;
                Ok(recorder.found(Default::default()))
            }
            Contender::Redis => {
                let writers = redis::writers(&self.url, count).await?;
                let recorder = recorder();
                in_tasks(&recorder, writers).await?;
                Ok(recorder.found(Default::default()))
            }
            Contender::Etcd => {
                let writers = etcd::writers(&self.url, self.tls.as_deref(), count).await?;
                let recorder = recorder();
                in_tasks(&recorder, writers).await?;
                Ok(recorder.found(Default::default()))
            }
        }
    }
}

fn blocking<W: BlockingWriter>(
    recorder: impl Fn() -> Arc<Recorder>,
    writers: Vec<W>,
) -> anyhow::Result<Found> {
    // The clock starts when the log is open.
    let recorder = recorder();
    in_threads(&recorder, writers)?;
    Ok(recorder.found(Default::default()))
}

/// Bytes of all files in a folder.
pub fn bytes_in(dir: &Path) -> u64 {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        sum += match entry.metadata() {
            Ok(data) if data.is_dir() => bytes_in(&entry.path()),
            Ok(data) => data.len(),
            Err(_gone) => 0,
        };
    }
    sum
}
