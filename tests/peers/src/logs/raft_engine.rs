//! raft-engine: `write(batch, sync)`, one region a writer, no compression, files recycled.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use protobuf::descriptor::UninterpretedOption;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

use crate::load::{BODY_BYTES, BlockingWriter, Bodies, in_threads};
use crate::recorder::{Found, Recorder, say};
use crate::reopen::Reopened;

/// How often what was drained is given up. (TiKV does it every 10 s.)
const PURGE_EVERY: Duration = Duration::from_secs(1);
/// Entries given back by one read.
const READ_AT_ONCE: u64 = 65_536;

/// A generated message that has a number and bytes, which is all that an entry needs.
#[derive(Clone)]
struct Entry;

impl MessageExt for Entry {
    type Entry = UninterpretedOption;
    fn index(entry: &UninterpretedOption) -> u64 {
        entry.get_positive_int_value()
    }
}

struct Writer {
    engine: Arc<Engine>,
    region: u64,
    index: u64,
}

fn open(dir: &Path, purge_threshold: ReadableSize) -> anyhow::Result<Engine> {
    Ok(Engine::open(Config {
        dir: dir.to_string_lossy().into_owned(),
        batch_compression_threshold: ReadableSize(0),
        purge_threshold,
        ..Config::default()
    })?)
}

impl Writer {
    fn write<'a>(&mut self, bodies: impl Iterator<Item = &'a [u8]>) -> anyhow::Result<()> {
        let mut entries = Vec::new();
        for body in bodies {
            self.index += 1;
            let mut entry = UninterpretedOption::new();
            entry.set_positive_int_value(self.index);
            entry.set_string_value(body.to_vec());
            entries.push(entry);
        }
        let mut batch = LogBatch::with_capacity(entries.len());
        batch.add_entries::<Entry>(self.region, &entries)?;
        self.engine.write(&mut batch, true)?;
        Ok(())
    }
}

impl BlockingWriter for Writer {
    fn append(&mut self, body: &[u8]) -> anyhow::Result<()> {
        self.write(std::iter::once(body))
    }
}

/// Appends, and gives up what is old, so that its files are recycled as ours are.
pub fn measure(
    dir: &Path,
    count: usize,
    recorder: impl Fn() -> Arc<Recorder>,
) -> anyhow::Result<Found> {
    let engine = Arc::new(open(dir, ReadableSize::mb(256))?);
    let writer = |region| Writer {
        engine: Arc::clone(&engine),
        region: region as u64 + 1,
        index: 0,
    };
    let writers = (0..count).map(writer).collect();
    let recorder = recorder();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let purging = scope.spawn(|| purge(&engine, &over));
        let done = in_threads(&recorder, writers);
        over.store(true, Ordering::Relaxed);
        purging.thread().unpark();
        done
    })?;
    Ok(recorder.found(Default::default()))
}

fn purge(engine: &Engine, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        std::thread::park_timeout(PURGE_EVERY);
        for region in engine.raft_groups() {
            let last = engine.last_index(region).unwrap_or(0);
            engine.compact_to(region, last.saturating_sub(64));
        }
        drop(engine.purge_expired_files());
    }
}

/// Fills a log until it is killed; says `full` once `records` are durable.
pub fn fill(dir: &Path, records: u64, at_once: usize) -> anyhow::Result<()> {
    let engine = Arc::new(open(dir, ReadableSize::gb(10))?);
    let (region, index) = (1, 0);
    let mut writer = Writer {
        engine,
        region,
        index,
    };
    let mut bodies = Bodies::new(0);
    let mut said = false;
    loop {
        let batch: Vec<[u8; BODY_BYTES]> = (0..at_once).map(|_| *bodies.next()).collect();
        writer.write(batch.iter().map(<[u8; BODY_BYTES]>::as_slice))?;
        if writer.index >= records && !said {
            said = true;
            say("full");
        }
    }
}

/// Opens it again, which verifies the items of each batch; then reads every entry, which verifies the
/// batches' bodies.
pub fn reopen(dir: &Path) -> anyhow::Result<Reopened> {
    let begun = Instant::now();
    let engine = open(dir, ReadableSize::gb(10))?;
    let open_ms = begun.elapsed().as_secs_f64() * 1_000.0;
    let (first, last) = (engine.first_index(1), engine.last_index(1));
    let (first, last) = (first.unwrap_or(1), last.unwrap_or(0));
    let (mut at, mut records) = (first, 0);
    while at <= last {
        let end = (at + READ_AT_ONCE).min(last + 1);
        let mut entries = Vec::new();
        records += engine.fetch_entries_to::<Entry>(1, at, end, None, &mut entries)? as u64;
        at = end;
    }
    ensure!(records > 0, "the log is empty");
    Ok(Reopened {
        open_ms,
        verified_ms: begun.elapsed().as_secs_f64() * 1_000.0,
        records,
    })
}
