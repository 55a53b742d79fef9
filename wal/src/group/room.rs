//! A node without room: it takes no entries and does not ask to lead, and lives on.

use std::sync::atomic::Ordering;

use super::Inner;
use crate::raft::Replicable;
use crate::raft::wire::Append;

/// So much more than a snapshot must be free on the disk for it to be taken.
const SNAPSHOT_MARGIN_BYTES: u64 = 1 << 20;

impl<M: Replicable> Inner<M> {
    /// How many of the entries that a leader sends fit. One that does not would end this node's log:
    /// it is refused before it gets there, which costs this node its vote on the entry and no more.
    pub(super) fn count_fitting(&self, append: &Append) -> usize {
        let files = self.store.files();
        // The last segment is for what a new leader has to write before it leads.
        let kept = u64::from(append.has_proposals());
        let segments = files.segments_left().saturating_sub(kept);
        files.count_fitting(&append.payloads(), segments)
    }

    pub(super) fn has_room_for_snapshot(&self, bytes: usize) -> bool {
        let needed = u64::try_from(bytes).unwrap_or(u64::MAX);
        let needed = needed.saturating_add(SNAPSHOT_MARGIN_BYTES);
        match self.store.files().dir.free_bytes() {
            Ok(free) => free.is_none_or(|free| free >= needed),
            Err(error) => {
                tracing::warn!(%error, "how much space is free is not known");
                true
            }
        }
    }

    /// A node that could not write what a leader must does not ask to lead, nor does one that has not
    /// enrolled.
    pub(super) fn mind_the_room(&self) {
        let may_lead =
            self.store.files().segments_left() > 0 && self.admitted.load(Ordering::Relaxed);
        if self.may_lead.swap(may_lead, Ordering::Relaxed) != may_lead {
            tracing::warn!(may_lead, "this node's room for entries");
            self.raft.runtime_config().elect(may_lead);
        }
    }
}
