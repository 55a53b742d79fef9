//! okaywal: an entry of one chunk an append, segments of 64 MiB, checkpointed and recycled by itself.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::ensure;
use okaywal::{Configuration, Entry, EntryId, LogManager, SegmentReader, WriteAheadLog};

use crate::load::{BlockingWriter, Bodies};
use crate::recorder::say;
use crate::reopen::Reopened;

const SEGMENT_BYTES: u32 = 64 << 20;

/// Counts what is recovered; what is checkpointed was drained.
#[derive(Debug)]
struct Manager(Arc<AtomicU64>);

impl LogManager for Manager {
    fn recover(&mut self, entry: &mut Entry<'_>) -> std::io::Result<()> {
        // Verifies each chunk's checksum.
        if let Some(chunks) = entry.read_all_chunks()? {
            self.0.fetch_add(chunks.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        _last: EntryId,
        _entries: &mut SegmentReader,
        _wal: &WriteAheadLog,
    ) -> std::io::Result<()> {
        Ok(())
    }
}

pub struct Writer(WriteAheadLog);

impl BlockingWriter for Writer {
    fn append(&mut self, body: &[u8]) -> anyhow::Result<()> {
        let mut entry = self.0.begin_entry()?;
        entry.write_chunk(body)?;
        entry.commit()?;
        Ok(())
    }
}

/// One writer a thread.
pub fn writers(dir: &Path, count: usize) -> anyhow::Result<Vec<Writer>> {
    let log = Configuration::default_for(dir)
        .preallocate_bytes(SEGMENT_BYTES)
        .checkpoint_after_bytes(u64::from(SEGMENT_BYTES) * 15 / 16)
        .open(Manager(Arc::default()))?;
    Ok((0..count).map(|_| Writer(log.clone())).collect())
}

/// One segment that is never checkpointed: else it would give up what is to be read.
fn open_whole(dir: &Path, recovered: Arc<AtomicU64>) -> anyhow::Result<WriteAheadLog> {
    let log = Configuration::default_for(dir)
        .preallocate_bytes(2 << 30)
        .checkpoint_after_bytes(16 << 30)
        .open(Manager(recovered))?;
    Ok(log)
}

/// Fills a log until it is killed; says `full` once `records` are durable.
pub fn fill(dir: &Path, records: u64, at_once: usize) -> anyhow::Result<()> {
    let log = open_whole(dir, Arc::default())?;
    let mut bodies = Bodies::new(0);
    let (mut written, mut said) = (0, false);
    loop {
        let mut entry = log.begin_entry()?;
        for _ in 0..at_once {
            entry.write_chunk(bodies.next())?;
        }
        entry.commit()?;
        written += at_once as u64;
        if written >= records && !said {
            said = true;
            say("full");
        }
    }
}

/// Opens it again: every chunk is read and its checksum verified by our manager.
pub fn reopen(dir: &Path) -> anyhow::Result<Reopened> {
    let begun = Instant::now();
    let recovered = Arc::new(AtomicU64::new(0));
    let _log = open_whole(dir, Arc::clone(&recovered))?;
    let open_ms = begun.elapsed().as_secs_f64() * 1_000.0;
    let records = recovered.load(Ordering::Relaxed);
    ensure!(records > 0, "the log is empty");
    Ok(Reopened {
        open_ms,
        verified_ms: open_ms,
        records,
    })
}
