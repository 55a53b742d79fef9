//! A node without room: it takes no entries and does not ask to lead, and lives on. One that leads
//! makes way for a keeper that has room.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::{Inner, NodeId};
use crate::raft::Replicable;
use crate::raft::wire::{Append, Standing};

/// So many segments have to be left for a leader to take proposals.
const SEGMENTS_SPARE: u64 = 3;
/// And so many for those after which entries can be given up: refused too, they would never be.
const SEGMENTS_RESERVED: u64 = 2;
/// How often a leader looks whether it has room.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Silent for so many elections, a leader that nobody followed speaks again.
const SILENT_ELECTIONS: u32 = 4;

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

    /// Whether a leader may take proposals.
    pub(super) fn has_room_to_lead(&self) -> bool {
        self.store.files().segments_left() >= SEGMENTS_SPARE
    }

    /// Whether a leader may take a proposal that makes room.
    pub(super) fn has_room_to_make_more(&self) -> bool {
        self.store.files().segments_left() >= SEGMENTS_RESERVED
    }

    /// Whether another keeper could lead at once: it has room and everything this node has.
    async fn is_another_able(&self) -> bool {
        let own = self.config.log.node.0;
        let Standing {
            keepers, matched, ..
        } = self.standing();
        let last = self.store.last_index();
        let even = keepers.iter().filter(|(node, _)| {
            **node != own && matched.get(node).is_some_and(|matched| *matched >= last)
        });
        let asked = even.map(|(node, member)| self.ask_standing(NodeId(*node), member));
        let told = join_all(asked).await;
        told.iter()
            .flatten()
            .any(|(_, standing)| standing.segments_left >= SEGMENTS_SPARE)
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

/// Falls silent when this node leads, has no room and another keeper does: the others elect one of
/// themselves. A budget that all have spent changes nothing, the leader has to drain it.
pub(super) async fn make_way<M: Replicable>(inner: Arc<Inner<M>>, stop: CancellationToken) {
    let own = inner.config.log.node.0;
    let [_, election] = inner.config.election;
    let patience = election.saturating_mul(SILENT_ELECTIONS);
    let watch = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let leads = inner.leader() == Some(own);
            if !leads || inner.has_room_to_lead() || !inner.is_another_able().await {
                continue;
            }
            tracing::warn!("no room to lead, and another keeper has some: making way");
            inner.mind_the_room();
            inner.raft.runtime_config().heartbeat(false);
            let deposed = inner
                .told
                .wait_for(|now| now.leader.is_some_and(|it| it != own));
            let made = tokio::time::timeout(patience, deposed).await;
            inner.raft.runtime_config().heartbeat(true);
            if made.is_err() {
                tracing::warn!("nobody else came to lead");
            }
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = watch => {}
    }
}
