//! How a log is opened: places, sizes, bounds.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::disk::WriteMode;
use crate::format::{BLOCK, GROUP_BYTES_MAX, frame_bytes};
use crate::recovery::OpenError;

/// A keeper of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

/// How a log is opened. `Config::new` gives the defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// The log's own directory.
    pub dir: PathBuf,
    /// This keeper.
    pub node: NodeId,
    /// The group it belongs to, at most 64 bytes.
    pub group: String,
    /// Size of a new segment file, a multiple of 4,096.
    pub segment_bytes: u64,
    /// What all segment files may take; at least two segments.
    pub budget_bytes: u64,
    /// Payload of one batch (proposals and 8 bytes each); also bounds one proposal.
    pub batch_bytes_max: usize,
    /// Proposals in one batch.
    pub batch_proposals_max: usize,
    /// Proposals waiting for the disk; past it `Busy`.
    pub queue_proposals_max: usize,
    /// Bytes of those; past it `Busy`.
    pub queue_bytes_max: usize,
    /// Idle for so long, the log writes a mark that vouches for its last batch; `None`: never.
    pub mark_after: Option<Duration>,
    /// How blocks are written; `None`: directly where the file system can, else with `fdatasync`.
    /// (Written in turn on one disk, single blocks took about 4 % less directly, large writes the same.)
    pub write_mode: Option<WriteMode>,
    /// A write that takes longer than this has failed: the log is poisoned by the next proposal.
    pub stall_max: Duration,
}

// === impl Config ===

impl Config {
    /// Segments of 64 MiB inside 4 GiB, batches of 1 MiB and 1,000 proposals, 8,192 waiting.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, node: NodeId, group: impl Into<String>) -> Self {
        Self {
            dir: dir.into(),
            node,
            group: group.into(),
            segment_bytes: 64 << 20,
            budget_bytes: 4 << 30,
            batch_bytes_max: 1 << 20,
            batch_proposals_max: 1000,
            queue_proposals_max: 8192,
            queue_bytes_max: 64 << 20,
            mark_after: Some(Duration::from_millis(5)),
            write_mode: None,
            stall_max: Duration::from_secs(5),
        }
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let frame = frame_bytes(self.batch_bytes_max)
            .and_then(|bytes| u64::try_from(bytes).ok())
            .and_then(|bytes| bytes.checked_add(BLOCK));
        let counts = [
            self.batch_proposals_max,
            self.queue_proposals_max,
            self.queue_bytes_max,
        ];
        let rules = [
            (
                self.segment_bytes.is_multiple_of(BLOCK),
                "segment_bytes must be a multiple of 4096",
            ),
            (
                frame.is_some_and(|bytes| bytes <= self.segment_bytes),
                "a segment must hold a batch of batch_bytes_max",
            ),
            (
                u32::try_from(self.batch_bytes_max).is_ok(),
                "batch_bytes_max must be below 4 GiB",
            ),
            (
                self.segment_bytes
                    .checked_mul(2)
                    .is_some_and(|two| two <= self.budget_bytes),
                "budget_bytes must hold two segments",
            ),
            (
                self.group.len() <= GROUP_BYTES_MAX,
                "group must be at most 64 bytes",
            ),
            (
                counts.iter().all(|count| *count > 0),
                "counts must be above 0",
            ),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, what)) => Err(OpenError::Config { what }),
            None => Ok(()),
        }
    }
}
