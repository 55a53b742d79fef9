//! Reading committed batches back, for the drain.

use std::io;
use std::sync::Arc;

use crate::format::record_bytes;
use crate::segment::{Batch, Segment, Step};
use crate::shared::{Shared, locked};
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
        let shared = Arc::clone(&self.shared);
        let reading = move || read_batches(&shared, from_index.max(1), bytes_max);
        tokio::task::spawn_blocking(reading)
            .await
            .map_err(|_cancelled| ReadError::Cancelled)?
    }
}

fn read_batches<M: StateMachine>(
    shared: &Shared<M>,
    from_index: u64,
    bytes_max: usize,
) -> Result<Vec<Batch>, ReadError> {
    let durable = shared.position.borrow().index;
    let segments = locked(&shared.segments).clone();
    let first_index = segments
        .first()
        .map_or(1, |segment| segment.header.first_index);
    if from_index < first_index {
        return Err(ReadError::Trimmed { first_index });
    }
    let behind = segments.partition_point(|segment| segment.header.first_index <= from_index);
    let mut reader = Reader {
        from_index,
        durable,
        bytes_left: bytes_max,
        batches: Vec::new(),
    };
    for segment in segments.iter().skip(behind.saturating_sub(1)) {
        if !reader.read(segment)? {
            break;
        }
    }
    Ok(reader.batches)
}

struct Reader {
    from_index: u64,
    durable: u64,
    bytes_left: usize,
    batches: Vec<Batch>,
}

impl Reader {
    /// Reads one segment to its end; false when enough was read.
    fn read(&mut self, segment: &Arc<Segment>) -> Result<bool, ReadError> {
        let mut cursor = segment.cursor_near(self.from_index);
        while cursor.next_index <= self.durable {
            match cursor.step()? {
                Step::Batch { batch, .. } if batch.index < self.from_index => {}
                Step::Batch { batch, .. } => {
                    let lengths = batch
                        .proposals
                        .iter()
                        .map(|proposal| record_bytes(proposal.len()));
                    let bytes = lengths.fold(0, usize::saturating_add);
                    if bytes > self.bytes_left && !self.batches.is_empty() {
                        return Ok(false);
                    }
                    self.bytes_left = self.bytes_left.saturating_sub(bytes);
                    self.batches.push(batch);
                }
                Step::Blank => return Ok(true),
                Step::Unreadable(_) | Step::Wrong(_) => {
                    let segment = segment.header.number;
                    return Err(ReadError::Damaged {
                        segment,
                        offset: cursor.offset,
                    });
                }
            }
        }
        Ok(false)
    }
}
