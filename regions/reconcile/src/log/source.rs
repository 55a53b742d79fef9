//! Where a log is read from: a directory whose edge is stopped, or the log of a running edge.
//!
//! A log is read whole. Its space budget bounds what that takes: a few times the bytes of its
//! entries.

use std::path::PathBuf;

use uuid::Uuid;

use standin_core::BoxFuture;
use standin_core::entry::{Entry, EntryError};
use standin_wal::{Batch, Group, OpenError, ReadError, Replicable, inspect};

use super::{LogBatch, LogContents};

/// Bytes of proposals asked for at once.
const READ_BYTES: usize = 4 * 1024 * 1024;

/// A log that can be read.
pub trait LogSource: Send + Sync {
    /// Which log it is, and all its batches from the oldest kept to the last that is durable when
    /// the read begins, in order.
    fn read(&self) -> BoxFuture<'_, Result<(Uuid, Vec<LogBatch>), SourceError>>;
}

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The directory holds no readable log.
    #[error("reading {dir}: {source}")]
    Directory {
        /// Which directory.
        dir: String,
        /// What is wrong.
        #[source]
        source: OpenError,
    },
    /// The running log could not be read.
    #[error("reading the running log: {0}")]
    Running(#[from] ReadError),
    /// An entry does not decode.
    #[error("entry {index}/{slot}: {source}")]
    Entry {
        /// Its batch.
        index: u64,
        /// Its place there.
        slot: u32,
        /// What is wrong.
        #[source]
        source: EntryError,
    },
    /// The thread that read the log did not end well.
    #[error("the reading thread ended without a result")]
    Thread,
}

/// A log directory that no running edge writes to.
#[derive(Clone, Debug)]
pub struct DirectoryLog {
    dir: PathBuf,
}

/// Reads and replays a log.
///
/// # Errors
/// When it cannot be read to its end: damage is never judged around.
pub async fn contents(source: &dyn LogSource) -> Result<LogContents, SourceError> {
    let (incarnation, batches) = source.read().await?;
    Ok(LogContents::replay(incarnation, batches))
}

/// Decodes a batch's proposals.
///
/// # Errors
/// At the first entry that does not decode.
pub fn decode(batch: &Batch) -> Result<LogBatch, SourceError> {
    let entries = (0_u32..)
        .zip(&batch.proposals)
        .map(|(slot, bytes)| {
            Entry::decode(bytes).map_err(|source| SourceError::Entry {
                index: batch.index,
                slot,
                source,
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(LogBatch {
        index: batch.index,
        log_time_ms: batch.log_time_ms,
        entries,
    })
}

/// Log time as it was applied: it never goes back, and a batch without entries has none of its own.
fn as_applied(mut batches: Vec<LogBatch>) -> Vec<LogBatch> {
    let mut log_time_ms = 0;
    for batch in &mut batches {
        log_time_ms = batch.log_time_ms.max(log_time_ms);
        batch.log_time_ms = log_time_ms;
    }
    batches
}

// === impl DirectoryLog ===

impl DirectoryLog {
    /// The log in this directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }
}

impl LogSource for DirectoryLog {
    fn read(&self) -> BoxFuture<'_, Result<(Uuid, Vec<LogBatch>), SourceError>> {
        let dir = self.dir.clone();
        Box::pin(async move {
            let read = move || {
                let failed = |source| SourceError::Directory {
                    dir: dir.display().to_string(),
                    source,
                };
                let incarnation = inspect::verify(&dir).map_err(failed)?.incarnation;
                let batches = inspect::batches(&dir)
                    .map_err(failed)?
                    .map(|batch| decode(&batch.map_err(failed)?))
                    .collect::<Result<Vec<_>, _>>()?;
                Ok((incarnation, as_applied(batches)))
            };
            let reading = tokio::task::spawn_blocking(read);
            reading.await.map_err(|_| SourceError::Thread)?
        })
    }
}

// === impl Group ===

impl<M: Replicable> LogSource for Group<M> {
    fn read(&self) -> BoxFuture<'_, Result<(Uuid, Vec<LogBatch>), SourceError>> {
        Box::pin(async move {
            let status = self.status();
            let (mut from, last) = (status.first_index, status.applied_index);
            let mut read = Vec::new();
            while from <= last {
                let batches = self.read_batches(from, READ_BYTES).await?;
                let Some(end) = batches.last().map(|batch| batch.index) else {
                    break;
                };
                for batch in batches.iter().filter(|batch| batch.index <= last) {
                    read.push(decode(batch)?);
                }
                from = end.saturating_add(1);
            }
            Ok((self.incarnation(), read))
        })
    }
}
