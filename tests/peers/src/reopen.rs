//! Opening a log again after its process was killed: every record read, every checksum verified.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{bail, ensure};
use rustix::fs::Advice;
use serde::{Deserialize, Serialize};

use crate::child::{Child, arguments};
use crate::cpu::Snapshot;
use crate::logs::{Contender, bytes_in, okaywal, plain, raft_engine, standin};
use crate::plan::Reopening;

/// Records of one write and sync while a log is filled.
pub const AT_ONCE: usize = 64;

/// What a child is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// Whose log.
    #[arg(long)]
    pub contender: Contender,
    /// Where it is.
    #[arg(long)]
    pub dir: PathBuf,
    /// Say `full` after so many.
    #[arg(long, default_value_t = 0)]
    pub records: u64,
}

/// What opening again came to.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Reopened {
    /// Until the log takes appends, milliseconds.
    pub open_ms: f64,
    /// Until every record was read and its checksum verified, from the same beginning.
    pub verified_ms: f64,
    /// Records found.
    pub records: u64,
}

/// Fills the log until it is killed.
pub async fn fill(place: &Place) -> anyhow::Result<()> {
    let Place {
        contender,
        dir,
        records,
    } = place;
    match contender {
        Contender::Standin => standin::fill(dir, *records, AT_ONCE).await,
        Contender::RaftEngine => raft_engine::fill(dir, *records, AT_ONCE),
        Contender::Okaywal => okaywal::fill(dir, *records, AT_ONCE),
        Contender::Plain => plain::fill(dir, *records, AT_ONCE),
        other => bail!("{} does not scan its log", other.label()),
    }
}

/// Opens the log again.
pub fn reopen(place: &Place) -> anyhow::Result<Reopened> {
    let dir = &place.dir;
    match place.contender {
        Contender::Standin => standin::reopen(dir),
        Contender::RaftEngine => raft_engine::reopen(dir),
        Contender::Okaywal => okaywal::reopen(dir),
        Contender::Plain => plain::reopen(dir),
        other => bail!("{} does not scan its log", other.label()),
    }
}

/// Fills a log of `records` in a child, kills it while it goes on writing, forgets the page cache,
/// and opens the log again in another child.
pub async fn measure(
    contender: Contender,
    round: u32,
    dir: &Path,
    records: u64,
) -> anyhow::Result<Reopening> {
    let place = [
        "--contender".to_owned(),
        contender.argument(),
        "--dir".to_owned(),
        dir.to_string_lossy().into_owned(),
        "--records".to_owned(),
        records.to_string(),
    ];
    let words = |what: &'static str| {
        arguments(std::iter::once(what).chain(place.iter().map(String::as_str)))
    };
    let begun = Instant::now();
    let mut filling = Child::start(&words("fill"))?;
    filling.expect("full").await?;
    let fill_seconds = begun.elapsed().as_secs_f64();
    filling.kill().await?;
    forget(dir)?;
    let bytes = bytes_in(dir);
    let before = Snapshot::take(&Default::default());
    let begun = Instant::now();
    let mut opening = Child::start(&words("reopen"))?;
    let found: Reopened = opening.json().await?;
    let seconds = begun.elapsed().as_secs_f64();
    opening.end().await?;
    let usage = before.until(&Snapshot::take(&Default::default()));
    ensure!(
        found.records >= records,
        "{}: {} records of {records} that were durable came back",
        contender.label(),
        found.records
    );
    Ok(Reopening {
        contender: contender.label().to_owned(),
        round,
        found,
        bytes_on_disk: bytes,
        fill_seconds,
        machine_cpu_seconds: usage.machine * seconds,
    })
}

/// Sees to it that reading shows what is on the disk, from the disk.
fn forget(dir: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            forget(&entry.path())?;
        } else {
            let file = File::open(entry.path())?;
            file.sync_all()?;
            rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}
