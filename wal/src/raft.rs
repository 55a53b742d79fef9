//! The replicated log: Raft from a library (`openraft`), over our segments.
//!
//! One Raft entry is a batch of proposals. The library decides who leads and what is committed; here
//! are what it stands on ([`store`]: entries, votes and truncations, durable before they count;
//! [`machine`]: applying, snapshots) and how its words become ours. The library waits for each
//! append, truncation and vote before it goes on, and all of them go through one disk thread in
//! order, so that no vote overtakes an append.

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;

use bytes::Bytes;
use openraft::{CommittedLeaderId, EntryPayload, LogId, Membership, RaftTypeConfig};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::segment::{Body, Entry};
use crate::wal::{Applied, StateMachine};

#[cfg(feature = "testing")]
pub(crate) mod chance;
pub(crate) mod disk;
pub(crate) mod machine;
pub(crate) mod network;
#[cfg(any(test, feature = "shuttle"))]
pub(crate) mod notes;
pub(crate) mod runtime;
pub(crate) mod snapshot;
pub(crate) mod store;
pub(crate) mod wire;

#[cfg(test)]
pub(crate) mod tests;

/// What the library is told of our types.
pub(crate) struct Types<M>(PhantomData<fn() -> M>);

/// Outcomes of one entry, by slot.
pub(crate) type Outcomes<M> = Vec<(Applied, <M as StateMachine>::Outcome)>;
pub(crate) type RaftEntry<M> = openraft::Entry<Types<M>>;
pub(crate) type RaftLogId = LogId<u64>;

impl<M: StateMachine> RaftTypeConfig for Types<M> {
    type D = Payload;
    type R = Outcomes<M>;
    type NodeId = u64;
    type Node = Member;
    type Entry = RaftEntry<M>;
    type SnapshotData = Bytes;
    type AsyncRuntime = runtime::Runtime;
    type Responder = openraft::impls::OneshotResponder<Self>;
}

/// A batch of proposals, as it is proposed to the group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Payload {
    /// Stamped by the leader.
    pub(crate) log_time_ms: u64,
    pub(crate) proposals: Vec<Bytes>,
}

/// A node of a group, as its members know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Where its keeper link listens, `host:port`.
    pub address: String,
    /// Which log it brought when it became a member. A node of the same number with another log has
    /// lost what it promised, and must not speak for this one.
    pub log: Uuid,
}

/// A state machine that a group of nodes applies alike.
///
/// A proposal whose fate is unknown is proposed again within its deadline, so it may be applied more
/// than once: applying it again must do no harm and must say what its proposer has to hear.
pub trait Replicable: StateMachine {
    /// The whole state as bytes.
    fn save(&self) -> Vec<u8>;
    /// The state as it is now, to be made bytes later and elsewhere. Applying waits for this call and
    /// not for what it returns: a machine that is large and cheap to copy gives a copy.
    fn freeze(&self) -> Box<dyn FnOnce() -> Vec<u8> + Send> {
        let bytes = self.save();
        Box::new(move || bytes)
    }
    /// Takes the state of another; on an error nothing has changed.
    ///
    /// # Errors
    /// When these are not bytes that [`Replicable::save`] gave.
    fn load(&mut self, bytes: &[u8]) -> Result<(), LoadError>;
    /// An outcome as bytes, for a proposer on another node.
    fn outcome_to_bytes(outcome: &Self::Outcome) -> Vec<u8>;
    /// The outcome again; `None` when these are no bytes of one.
    fn outcome_from_bytes(bytes: &[u8]) -> Option<Self::Outcome>;
}

/// Bytes that are no saved state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot is not a state of this machine: {0}")]
pub struct LoadError(pub String);

/// Who the members are, as bytes of an entry or a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Members {
    /// One set of keepers; two while the one gives way to the other.
    keepers: Vec<BTreeSet<u64>>,
    /// Keepers and learners.
    nodes: BTreeMap<u64, Member>,
}

// === impl Types ===

// The library asks for all of these; a derive would ask them of the machine too.
impl<M> Clone for Types<M> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<M> Copy for Types<M> {}
impl<M> Default for Types<M> {
    fn default() -> Self {
        Self(PhantomData)
    }
}
impl<M> std::fmt::Debug for Types<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Types")
    }
}
impl<M> PartialEq for Types<M> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl<M> Eq for Types<M> {}
impl<M> PartialOrd for Types<M> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<M> Ord for Types<M> {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

// === between the library's words and ours ===

pub(crate) fn log_id(term: u64, index: u64) -> RaftLogId {
    LogId::new(CommittedLeaderId::new(term, 0), index)
}

pub(crate) fn encode_members(membership: &Membership<u64, Member>) -> Vec<u8> {
    let members = Members {
        keepers: membership.get_joint_config().clone(),
        nodes: membership
            .nodes()
            .map(|(id, member)| (*id, member.clone()))
            .collect(),
    };
    postcard::to_stdvec(&members).unwrap_or_default()
}

pub(crate) fn decode_members(bytes: &[u8]) -> Option<Membership<u64, Member>> {
    let members: Members = postcard::from_bytes(bytes).ok()?;
    Some(Membership::new(members.keepers, members.nodes))
}

/// What is written to disk for an entry of the library's.
pub(crate) fn to_disk<M: StateMachine>(entry: RaftEntry<M>) -> Entry {
    let (body, log_time_ms) = match entry.payload {
        EntryPayload::Blank => (Body::Blank, 0),
        EntryPayload::Normal(payload) => (Body::Proposals(payload.proposals), payload.log_time_ms),
        EntryPayload::Membership(membership) => {
            (Body::Members(encode_members(&membership).into()), 0)
        }
    };
    Entry {
        term: entry.log_id.leader_id.term,
        index: entry.log_id.index,
        log_time_ms,
        body,
    }
}

/// The library's entry again; `None` when the members of it do not decode.
pub(crate) fn from_disk<M: StateMachine>(entry: Entry) -> Option<RaftEntry<M>> {
    let payload = match entry.body {
        Body::Blank => EntryPayload::Blank,
        Body::Proposals(proposals) => EntryPayload::Normal(Payload {
            log_time_ms: entry.log_time_ms,
            proposals,
        }),
        Body::Members(bytes) => EntryPayload::Membership(decode_members(&bytes)?),
    };
    Some(RaftEntry::<M> {
        log_id: log_id(entry.term, entry.index),
        payload,
    })
}
