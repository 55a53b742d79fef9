//! `standin wal bench`: durable appends of this build on this disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use serde::Serialize;
use standin_wal::{Applied, Config, NodeId, StateMachine, SystemTimeSource, Wal, WriteMode};
use tokio::time::Instant;

use crate::out::{align_right, live_line, say, say_json, table};

/// What is appended: about an authorization without its trip.
const APPEND_BYTES: usize = 256;
const WRITERS_MAX: usize = 4_096;
/// An append that takes longer has failed.
const APPEND_MAX: Duration = Duration::from_secs(10);
/// Entries that may stay behind; what is older is given up, so that any length of run fits the disk.
const KEPT: u64 = 4_096;
const TRIM_EVERY: Duration = Duration::from_millis(200);
const SEGMENT_BYTES: u64 = 64 << 20;
const BUDGET_BYTES: u64 = 1 << 30;

/// Measures durable appends of 256 bytes on a disk, by this build.
///
/// Each writer appends, waits until that is durable, and appends again. A log of its own is made
/// below DIR for each number of writers, and removed afterwards; it takes 1 GiB at most. This is one
/// keeper's log: a group of keepers waits for a majority besides.
///
/// Exit code: 0 measured, 1 it could not be done.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin wal bench --dir /var/lib/standin
  standin wal bench --dir /var/lib/standin --writers 64 --seconds 10 --json")]
pub(super) struct Args {
    /// A folder on the disk to measure.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// How many append at once, one run for each.
    #[arg(
        long,
        value_name = "NUMBERS",
        value_delimiter = ',',
        default_value = "1,8,64,256"
    )]
    writers: Vec<usize>,
    /// How long each run takes.
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// One JSON document on standard output.
    #[arg(long)]
    json: bool,
}

/// What one run measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Measured {
    pub(super) writers: usize,
    pub(super) appends: u64,
    per_second: u64,
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
    pub(super) write_mode: WriteMode,
    /// Writes that made them durable.
    writes: u64,
}

/// Keeps nothing.
struct Nothing;

impl StateMachine for Nothing {
    type Outcome = ();

    fn apply(&mut self, _at: Applied, _proposal: &[u8]) {}
}

// === impl Args ===

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<u8> {
        if cfg!(debug_assertions) {
            eprintln!("standin: this is a debug build; a release build is faster");
        }
        let live = live_line();
        let mut measured = Vec::with_capacity(self.writers.len());
        for writers in &self.writers {
            live.set_message(format!("{writers} writers"));
            measured.push(measure(&self.dir, *writers, Duration::from_secs(self.seconds)).await?);
        }
        live.finish_and_clear();
        if self.json {
            say_json(&serde_json::json!({
                "append_bytes": APPEND_BYTES,
                "debug_build": cfg!(debug_assertions),
                "runs": measured,
            }))?;
        } else {
            show(&measured);
        }
        Ok(0)
    }
}

pub(super) async fn measure(
    dir: &Path,
    writers: usize,
    length: Duration,
) -> anyhow::Result<Measured> {
    ensure!(
        (1..=WRITERS_MAX).contains(&writers),
        "from 1 to {WRITERS_MAX} writers are possible"
    );
    let place = || format!("cannot write to {}", dir.display());
    let scratch = tempfile::Builder::new()
        .prefix("standin-bench-")
        .tempdir_in(dir)
        .with_context(place)?;
    let config = Config {
        segment_bytes: SEGMENT_BYTES,
        budget_bytes: BUDGET_BYTES,
        ..Config::new(scratch.path(), NodeId(1), "bench")
    };
    let opening = tokio::task::spawn_blocking(move || {
        Wal::open(config, Box::new(SystemTimeSource::default()), Nothing)
    });
    let wal = Arc::new(opening.await?.with_context(place)?);
    let began = Instant::now();
    let end = began.checked_add(length).context("too long")?;
    let appending = try_join_all((0..writers).map(|_| append_until(Arc::clone(&wal), end)));
    let (histograms, trimmed) = tokio::join!(appending, trim_until(&wal, end));
    let took = began.elapsed();
    trimmed?;
    let mut all = histogram()?;
    for histogram in histograms? {
        all.add(histogram)?;
    }
    let status = wal.status();
    wal.stop().await;
    let per_second = u128::from(all.len())
        .saturating_mul(1_000_000)
        .checked_div(took.as_micros());
    Ok(Measured {
        writers,
        appends: all.len(),
        per_second: u64::try_from(per_second.unwrap_or(0))?,
        p50_us: all.value_at_quantile(0.5),
        p99_us: all.value_at_quantile(0.99),
        max_us: all.max(),
        write_mode: status.write_mode,
        writes: status.counters.batches,
    })
}

fn histogram() -> anyhow::Result<Histogram<u64>> {
    let max_us = u64::try_from(APPEND_MAX.as_micros())?;
    Ok(Histogram::new_with_bounds(1, max_us.saturating_mul(2), 3)?)
}

/// One writer.
async fn append_until(wal: Arc<Wal<Nothing>>, end: Instant) -> anyhow::Result<Histogram<u64>> {
    let mut took = histogram()?;
    let bytes = Bytes::from(vec![7; APPEND_BYTES]);
    loop {
        let began = Instant::now();
        if began >= end {
            return Ok(took);
        }
        let deadline = began.checked_add(APPEND_MAX).unwrap_or(end);
        wal.propose(bytes.clone(), deadline).await?;
        took.saturating_record(u64::try_from(began.elapsed().as_micros())?);
    }
}

async fn trim_until(wal: &Wal<Nothing>, end: Instant) -> anyhow::Result<()> {
    while Instant::now() < end {
        let next = Instant::now().checked_add(TRIM_EVERY).unwrap_or(end);
        tokio::time::sleep_until(next.min(end)).await;
        let last = wal.status().applied_index;
        if let Some(below) = last.checked_sub(KEPT) {
            wal.trim(below).await?;
        }
    }
    Ok(())
}

/// One number by another, with one digit behind the point.
fn tenths(count: u64, of: u64) -> String {
    let tenths = count.saturating_mul(10).checked_div(of).unwrap_or(0);
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn show(runs: &[Measured]) {
    let mut rows = table([
        "writers",
        "appends/s",
        "p50 ms",
        "p99 ms",
        "max ms",
        "appends/write",
    ]);
    for run in runs {
        let ms = |us: u64| format!("{}.{:03}", us / 1_000, us % 1_000);
        rows.add_row([
            run.writers.to_string(),
            run.per_second.to_string(),
            ms(run.p50_us),
            ms(run.p99_us),
            ms(run.max_us),
            tenths(run.appends, run.writes),
        ]);
    }
    align_right(&mut rows, 0..6);
    say(rows);
    if let Some(run) = runs.first() {
        let mode = match run.write_mode {
            WriteMode::Direct => "past the page cache (O_DIRECT|O_DSYNC)",
            WriteMode::Fdatasync => "through the page cache, and then fdatasync",
        };
        say(format_args!(
            "{APPEND_BYTES} bytes each, durable; written {mode}"
        ));
    }
}
