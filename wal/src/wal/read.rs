//! Reading committed batches back, for the drain.

use std::io;
use std::sync::Arc;

use crate::files::{Files, first_index, locked};
use crate::format::record_bytes;
use crate::hands::off_runtime;
use crate::reader::{EntryReader, ReadFault};
use crate::segment::Batch;
use crate::wal::{StateMachine, Wal};

/// Why batches were not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// They were trimmed; read from `first_index` on.
    #[error("batches below {first_index} were trimmed")]
    Trimmed {
        /// The first batch that is left.
        first_index: u64,
    },
    /// A durable batch does not read back. The log must not be trimmed; a retry will not help.
    #[error("segment {segment} does not read back at byte {offset}")]
    Damaged {
        /// Number of the segment.
        segment: u64,
        /// Offset in its file.
        offset: u64,
    },
    /// The disk failed to read; may be retried.
    #[error("reading the log")]
    Io(#[from] io::Error),
    /// The runtime is shutting down; nothing was read.
    #[error("the reader was cancelled")]
    Cancelled,
}

impl<M: StateMachine> Wal<M> {
    /// Reads committed batches from `from_index` (0 counts as 1) on: at most `bytes_max` of
    /// proposals (8 more for each) but at least one batch, never past the durable index. Empty when there is none yet.
    pub async fn read_batches(
        &self,
        from_index: u64,
        bytes_max: usize,
    ) -> Result<Vec<Batch>, ReadError> {
        let files = Arc::clone(&self.shared.files);
        let durable = self.shared.position.borrow().index;
        let reading = move || read_whole(&files, durable, from_index.max(1), bytes_max);
        off_runtime(self.shared.dir.as_ref(), reading)
            .await
            .map_err(|_cancelled| ReadError::Cancelled)?
    }
}

/// What is trimmed while it is read seems damaged: it is looked for again, and not found.
fn read_whole(
    files: &Files,
    committed: u64,
    from_index: u64,
    bytes_max: usize,
) -> Result<Vec<Batch>, ReadError> {
    loop {
        let before = files.first_index();
        let read = read_batches(files, committed, from_index, bytes_max);
        // Each turn takes a trim.
        if read.is_ok() || files.first_index() == before {
            return read;
        }
    }
}

fn read_batches(
    files: &Files,
    committed: u64,
    from_index: u64,
    bytes_max: usize,
) -> Result<Vec<Batch>, ReadError> {
    let segments = locked(&files.segments).clone();
    let first_index = first_index(&segments);
    if from_index < first_index {
        return Err(ReadError::Trimmed { first_index });
    }
    let find = |index| locked(&files.places).find(index);
    let end = committed.saturating_add(1);
    let mut reader = EntryReader::new(segments, find, from_index, end);
    let mut bytes_left = bytes_max;
    let mut batches = Vec::new();
    while let Some(entry) = reader.next()? {
        let batch = Batch::from(entry);
        let lengths = batch
            .proposals
            .iter()
            .map(|proposal| record_bytes(proposal.len()));
        let bytes = lengths.fold(0, usize::saturating_add);
        if bytes > bytes_left && !batches.is_empty() {
            break;
        }
        bytes_left = bytes_left.saturating_sub(bytes);
        batches.push(batch);
    }
    Ok(batches)
}

impl From<ReadFault> for ReadError {
    fn from(fault: ReadFault) -> Self {
        match fault {
            ReadFault::Damaged { segment, offset } => Self::Damaged { segment, offset },
            ReadFault::Io(error) => Self::Io(error),
        }
    }
}
