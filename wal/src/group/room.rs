//! A node without room: it takes no entries and does not ask to lead, and lives on. One that leads
//! makes way for a keeper that has room.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::{Inner, NodeId, Response};
use crate::format::frame_bytes;
use crate::planted::{Planted, planted};
use crate::raft::Replicable;
use crate::raft::wire::{Append, Standing};
use crate::wal::Config;

/// So many segments have to be left for a leader to take proposals.
const SEGMENTS_SPARE: u64 = 3;
/// And so many for those after which entries can be given up: refused too, they would never be.
const SEGMENTS_RESERVED: u64 = 2;
/// A leader looks for the next segment when so many batches fit into this one.
const BATCHES_AHEAD: u64 = 2;
/// How often a leader looks whether it has room.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Silent for so many elections, a leader that nobody followed speaks again.
const SILENT_ELECTIONS: u32 = 4;

/// So much more than a snapshot must be free on the disk for it to be taken.
const SNAPSHOT_MARGIN_BYTES: u64 = 1 << 20;

impl<M: Replicable> Inner<M> {
    /// Appends what a leader sends, as far as it fits.
    pub(super) async fn append(&self, mut append: Append) -> Response {
        // What fits is counted when what came before it is written.
        let _in_turn = match append.len() {
            0 => None,
            _ => Some(self.appending.lock().await),
        };
        let (sent, fitting) = (append.len(), self.count_fitting(&append).await);
        // Without an entry it still says who leads.
        let last = append.keep(fitting);
        let Some(request) = append.into_request::<M>() else {
            return Response::Failed("an entry does not decode".to_owned());
        };
        if planted(Planted::AckUnread) && !request.entries.is_empty() {
            drop(self.raft.append_entries(request).await);
            return Response::appended(openraft::raft::AppendEntriesResponse::Success);
        }
        match self.raft.append_entries(request).await {
            Ok(openraft::raft::AppendEntriesResponse::Success) if fitting < sent => {
                // The library lets a node that took nothing rest for a while.
                if fitting == 0 {
                    return Response::Busy;
                }
                Response::AppendedTo(last)
            }
            Ok(response) => Response::appended(response),
            Err(error) => Response::Failed(error.to_string()),
        }
    }

    /// How many of the entries that a leader sends fit. One that does not would end this node's log:
    /// it is refused before it gets there, which costs this node its vote on the entry and no more.
    async fn count_fitting(&self, append: &Append) -> usize {
        let files = self.store.files();
        // A leader that got no reply sends again what is here by now.
        let held = self.store.count_held(append.places());
        let payloads = append.payloads();
        let new = payloads.get(held..).unwrap_or_default();
        // The last segment is for what a new leader has to write before it leads.
        let kept = u64::from(append.has_proposals());
        held.saturating_add(files.admit(new, kept).await)
    }

    /// Whether what a leader writes now finds a segment that is made: near the end of one, the next.
    pub(super) async fn has_a_segment_ahead(&self) -> bool {
        let files = self.store.files();
        let Config {
            batch_bytes_max,
            segment_bytes,
            ..
        } = self.config.log;
        let batch = frame_bytes(batch_bytes_max).and_then(|bytes| u64::try_from(bytes).ok());
        let batches = batch.unwrap_or(u64::MAX).saturating_mul(BATCHES_AHEAD);
        let near = batches.min(segment_bytes.checked_div(4).unwrap_or(0));
        files.active_left.load(Ordering::Relaxed) >= near || files.foresee(1).await > 0
    }

    /// Whether a leader may take proposals.
    pub(super) fn has_room_to_lead(&self) -> bool {
        self.store.files().segments_left() >= SEGMENTS_SPARE
    }

    /// Whether a leader may take a proposal that makes room.
    pub(super) fn has_room_to_make_more(&self) -> bool {
        let files = self.store.files();
        files.segments_left() >= SEGMENTS_RESERVED || files.has_room_at_the_end()
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
        let files = self.store.files();
        // The log goes on behind the snapshot, in a segment of its own.
        let segment = match files.spares.at_hand() {
            0 => files.config.segment_bytes,
            _ => 0,
        };
        let needed = needed.saturating_add(segment);
        let needed = needed.saturating_add(SNAPSHOT_MARGIN_BYTES);
        match files.dir.free_bytes() {
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
