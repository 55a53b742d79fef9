//! A peer as this node calls it: what is quick and what is large go on lanes of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use standin_wal::{NodeId, TransportError};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::dialled::Dialled;
use super::hello::Lane;

/// Calls to one node, for pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeerStatus {
    /// The node.
    pub node: u64,
    /// Where it is dialled.
    pub address: String,
    /// Whether its quick lane is connected.
    pub connected: bool,
    /// Whether its bulk lane is.
    pub bulk_connected: bool,
    /// Calls under way, on both lanes.
    pub calls: usize,
    /// Calls that had a reply.
    pub answered: u64,
    /// Calls that had none, or were not sent; those refused for a full window not counted.
    pub failed: u64,
    /// Calls refused at once because the window was full.
    pub busy: u64,
    /// Times that it was connected.
    pub connections: u64,
    /// The last thing that went wrong on either lane.
    pub last_error: Option<String>,
}

pub(super) struct Peer {
    node: NodeId,
    pub(super) address: String,
    quick: Arc<Dialled>,
    bulk: Arc<Dialled>,
    quick_bytes_max: usize,
    stop: CancellationToken,
}

// === impl Peer ===

impl Peer {
    pub(super) fn new(shared: &Arc<Shared>, node: NodeId, address: String) -> Self {
        let stop = shared.stop.child_token();
        let lane = |lane| Arc::new(Dialled::new(shared, node, &address, lane, stop.clone()));
        Self {
            node,
            quick: lane(Lane::Quick),
            bulk: lane(Lane::Bulk),
            quick_bytes_max: shared.limits.quick_bytes_max,
            address,
            stop,
        }
    }

    pub(super) async fn call(
        &self,
        request: Bytes,
        patience: Duration,
    ) -> Result<Bytes, TransportError> {
        let lane = if request.len() <= self.quick_bytes_max {
            &self.quick
        } else {
            &self.bulk
        };
        lane.call(request, patience).await
    }

    /// Ends its connections; calls under way fail.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Whether forgetting it loses nothing.
    pub(super) fn is_idle(&self) -> bool {
        [&self.quick, &self.bulk]
            .iter()
            .all(|lane| !lane.is_up() && lane.under_way() == 0)
    }

    pub(super) fn status(&self) -> PeerStatus {
        let lanes = [&self.quick, &self.bulk];
        let sum = |of: fn(&Dialled) -> &AtomicU64| {
            lanes.iter().fold(0_u64, |sum, lane| {
                sum.saturating_add(of(lane).load(Ordering::Relaxed))
            })
        };
        PeerStatus {
            node: self.node.0,
            address: self.address.clone(),
            connected: self.quick.is_up(),
            bulk_connected: self.bulk.is_up(),
            calls: self.quick.under_way().saturating_add(self.bulk.under_way()),
            answered: sum(|lane| &lane.answered),
            failed: sum(|lane| &lane.failed),
            busy: sum(|lane| &lane.busy),
            connections: sum(|lane| &lane.connections),
            last_error: lanes.iter().find_map(|lane| lane.last_error()),
        }
    }
}
