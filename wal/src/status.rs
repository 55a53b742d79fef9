//! What a log says about itself: positions, counters, latencies.

use serde::Serialize;
use uuid::Uuid;

use crate::disk::WriteMode;
use crate::scrub::Damage;

/// Upper bounds of the latency buckets, microseconds; one more bucket takes the rest.
pub const LATENCY_BOUNDS_US: [u64; 14] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000,
];
/// A sync that takes longer is counted as slow.
pub(crate) const SLOW_SYNC_US: u64 = 10_000;

/// A histogram with the bounds `LATENCY_BOUNDS_US`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// Count by bucket, not cumulative; the last one has no bound.
    pub buckets: [u64; 15],
    /// All of them.
    pub count: u64,
    /// Sum, microseconds.
    pub sum_us: u64,
}

/// What the log has done since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Proposals made durable and applied.
    pub proposals: u64,
    /// Batches they were in.
    pub batches: u64,
    /// Bytes of those proposals.
    pub proposal_bytes: u64,
    /// Bytes written for them, with frames and padding.
    pub written_bytes: u64,
    /// Syncs of segments.
    pub syncs: u64,
    /// Those that took longer than 10 ms.
    pub slow_syncs: u64,
    /// Marks written when idle.
    pub marks: u64,
    /// Segments begun.
    pub rotations: u64,
    /// Those of them in the file of a segment that was given up; the others' files were created.
    pub recycled: u64,
    /// Proposals refused because the space budget is spent.
    pub refused_full: u64,
    /// Proposals refused because the queue was full.
    pub refused_busy: u64,
    /// Proposals whose deadline passed before their fate was known.
    pub unknown_deadline: u64,
    /// Proposal queued → durable and applied.
    pub append_latency: Latency,
    /// One write and its sync.
    pub sync_latency: Latency,
}

/// A log at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Which log this is; a drain cursor names it.
    pub incarnation: Uuid,
    /// This node.
    pub node: u64,
    /// The group.
    pub group: String,
    /// Current term.
    pub term: u64,
    /// The voting members.
    pub members: Vec<u64>,
    /// Index of the first batch still in the log (or the next one, if there is none).
    pub first_index: u64,
    /// Index of the last durable batch; 0 before the first.
    pub last_index: u64,
    /// Index of the last applied batch; 0 before the first.
    pub applied_index: u64,
    /// Batches below it were given up by `trim`.
    pub trim_index: u64,
    /// Segment files.
    pub segments: u64,
    /// Bytes of those files.
    pub bytes_used: u64,
    /// Bytes they may take.
    pub budget_bytes: u64,
    /// Next segments made ahead of time.
    pub spares: u64,
    /// How this node's blocks are made durable.
    pub write_mode: WriteMode,
    /// Proposals waiting for the disk.
    pub queued: u64,
    /// A write or sync failed; nothing is accepted any more.
    pub poisoned: bool,
    /// Durable bytes that a scrub found damaged since the open; nothing was cut.
    pub damage: Option<Damage>,
    /// Torn writes cut when this log was opened.
    pub torn_tails_cut: u64,
    /// Log time of the last batch, ms.
    pub log_time_ms: u64,
    /// Since the open.
    pub counters: Counters,
}

impl Latency {
    pub(crate) fn record(&mut self, us: u64) {
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count = count.saturating_add(1);
        }
        self.count = self.count.saturating_add(1);
        self.sum_us = self.sum_us.saturating_add(us);
    }
}
