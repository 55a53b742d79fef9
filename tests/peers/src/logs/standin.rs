//! Our own log: one keeper.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use standin_wal::{Applied, Config, Latency, NodeId, StateMachine, SystemTimeSource, Wal};

use crate::load::{BODY_BYTES, Bodies, Writer, in_tasks};
use crate::recorder::{Found, Recorder, say};
use crate::reopen::Reopened;

/// How often it is asked whether it has gone to another segment.
const LOOK: Duration = Duration::from_millis(5);
/// An append that was under way when the log went to another segment has ended so long after it was
/// seen to.
const AFTERMATH: Duration = Duration::from_millis(20);
/// How often what was drained is given up.
const TRIM_EVERY: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(30);

/// Counts what it is given.
pub struct Count(pub u64);

impl StateMachine for Count {
    type Outcome = u64;
    fn apply(&mut self, _at: Applied, _proposal: &[u8]) -> u64 {
        self.0 += 1;
        self.0
    }
}

struct Proposer(Arc<Wal<Count>>);

impl Writer for Proposer {
    async fn append(&mut self, body: &[u8]) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        let proposal = Bytes::copy_from_slice(body);
        self.0.propose(proposal, deadline).await?;
        Ok(())
    }
}

fn open(dir: &Path) -> anyhow::Result<Wal<Count>> {
    let mut config = Config::new(dir, NodeId(1), "bench");
    config.budget_bytes = 16 << 30;
    let time = Box::new(SystemTimeSource::new());
    Ok(Wal::open(config, time, Count(0))?)
}

/// Appends, gives up what is older than a second, and sees what going to another segment costs.
pub async fn measure(
    dir: &Path,
    count: usize,
    recorder: impl Fn() -> Arc<Recorder>,
) -> anyhow::Result<Found> {
    let wal = Arc::new(open(dir)?);
    let writers = (0..count).map(|_| Proposer(Arc::clone(&wal))).collect();
    let recorder = recorder();
    let trimming = tokio::spawn(trim(Arc::clone(&wal)));
    let watching = tokio::spawn(rotations(Arc::clone(&wal), Arc::clone(&recorder)));
    let before = wal.status().counters;
    in_tasks(&recorder, writers).await?;
    trimming.abort();
    let seen = watching.await?;
    let counters = wal.status().counters;
    let longest = seen
        .iter()
        .map(|[from, until]| recorder.longest_between(*from, *until));
    let longest = longest.fold(0.0, f64::max);
    let batches = (counters.batches - before.batches).max(1) as f64;
    let details = BTreeMap::from([
        ("rotations".to_owned(), seen.len() as f64),
        ("longest at a rotation, ms".to_owned(), longest),
        (
            "appends a batch".to_owned(),
            (counters.proposals - before.proposals) as f64 / batches,
        ),
        (
            "bytes written an append".to_owned(),
            (counters.written_bytes - before.written_bytes) as f64
                / (counters.proposals - before.proposals).max(1) as f64,
        ),
        (
            "ms a write and sync".to_owned(),
            mean_ms(&counters.sync_latency),
        ),
    ]);
    wal.stop().await;
    Ok(recorder.found(details))
}

fn mean_ms(latency: &Latency) -> f64 {
    latency.sum_us as f64 / latency.count.max(1) as f64 / 1_000.0
}

/// As a drain would: what was there a second ago goes, in whole segments.
async fn trim(wal: Arc<Wal<Count>>) {
    let mut upto = 1;
    loop {
        tokio::time::sleep(TRIM_EVERY).await;
        let now = wal.status().last_index;
        if wal.trim(upto).await.is_err() {
            return;
        }
        upto = now;
    }
}

/// When the log went to another segment, inside the counted part: between the two moments.
async fn rotations(wal: Arc<Wal<Count>>, recorder: Arc<Recorder>) -> Vec<[Instant; 2]> {
    let mut seen = Vec::new();
    let (mut last, mut at) = (wal.status().counters.rotations, Instant::now());
    while !recorder.is_over() {
        tokio::time::sleep(LOOK).await;
        let (rotations, now) = (wal.status().counters.rotations, Instant::now());
        if rotations != last && now >= recorder.starts() {
            seen.push([at, now + AFTERMATH]);
        }
        (last, at) = (rotations, now);
    }
    seen
}

/// Fills a log until it is killed; says `full` once `records` are durable.
pub async fn fill(dir: &Path, records: u64, at_once: usize) -> anyhow::Result<()> {
    let wal = Arc::new(open(dir)?);
    let durable = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..at_once {
        let (mut proposer, durable) = (Proposer(Arc::clone(&wal)), Arc::clone(&durable));
        tasks.spawn(async move {
            let mut bodies = Bodies::new(number);
            loop {
                proposer.append(bodies.next()).await?;
                if durable.fetch_add(1, Ordering::Relaxed) + 1 == records {
                    say("full");
                }
            }
        });
    }
    let ended: Option<Result<anyhow::Result<()>, _>> = tasks.join_next().await;
    ended.context("there are no writers")??
}

/// Opens it again: recovery reads everything, verifies every checksum and applies every record.
pub fn reopen(dir: &Path) -> anyhow::Result<Reopened> {
    let begun = Instant::now();
    let wal = open(dir)?;
    let open_ms = begun.elapsed().as_secs_f64() * 1_000.0;
    let records = wal.read(|count| count.0);
    ensure!(BODY_BYTES > 0 && records > 0, "the log is empty");
    Ok(Reopened {
        open_ms,
        verified_ms: open_ms,
        records,
    })
}
