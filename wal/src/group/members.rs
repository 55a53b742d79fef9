//! Who belongs to the group. One change at a time; the library refuses a second one meanwhile.

use std::time::Duration;

use super::{
    BTreeMap, BTreeSet, ChangeMembers, ClientWriteError, Group, Member, NodeId, RaftError,
};
use crate::raft::Replicable;

/// How often a learner is looked at until it has caught up.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Why the members did not change.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The group was founded before.
    #[error("the group has members already")]
    Founded,
    /// Another node leads: ask that one.
    #[error("this node does not lead the group; {}", match .0 {
        Some(node) => format!("node {node} does"),
        None => "nobody is known to".to_owned(),
    })]
    NotLeader(Option<u64>),
    /// The change cannot be made, or not now.
    #[error("the members stay as they are: {0}")]
    Refused(String),
    /// This node has failed or stopped.
    #[error("this node has failed or stopped: {0}")]
    Ended(String),
}

impl<M: Replicable> Group<M> {
    /// Founds the group with these keepers. Every one of them may be asked to, with the same set.
    ///
    /// # Errors
    /// When the group has members already, or this node has failed.
    pub async fn found(&self, keepers: BTreeMap<NodeId, Member>) -> Result<(), MemberError> {
        let keepers: BTreeMap<u64, Member> = keepers
            .into_iter()
            .map(|(node, member)| (node.0, member))
            .collect();
        match self.inner.raft.initialize(keepers).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(openraft::error::InitializeError::NotAllowed(_))) => {
                Err(MemberError::Founded)
            }
            Err(RaftError::APIError(error)) => Err(MemberError::Refused(error.to_string())),
            Err(RaftError::Fatal(error)) => Err(MemberError::Ended(error.to_string())),
        }
    }

    /// Adds a node that hears everything and has no vote; returns when it has caught up.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn add_learner(&self, node: NodeId, member: Member) -> Result<(), MemberError> {
        let raft = &self.inner.raft;
        let added = raft.add_learner(node.0, member, false).await;
        let upto = added.map_err(refused)?.log_id.index;
        // The library's own wait ends at once: no distance is too far for it to replicate entries.
        let metrics = raft.metrics();
        loop {
            {
                let now = metrics.borrow();
                if let Err(error) = &now.running_state {
                    return Err(MemberError::Ended(error.to_string()));
                }
                let Some(replication) = &now.replication else {
                    return Err(MemberError::NotLeader(now.current_leader));
                };
                let matched = replication.get(&node.0).copied().flatten();
                if matched.is_some_and(|last| last.index >= upto) {
                    return Ok(());
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Gives a learner a vote.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn add_keeper(&self, node: NodeId) -> Result<(), MemberError> {
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([node.0])))
            .await
    }

    /// Takes a keeper out of the group.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn remove_keeper(&self, node: NodeId) -> Result<(), MemberError> {
        self.change(ChangeMembers::RemoveVoters(BTreeSet::from([node.0])))
            .await
    }

    async fn change(&self, change: ChangeMembers<u64, Member>) -> Result<(), MemberError> {
        let changed = self.inner.raft.change_membership(change, false).await;
        changed.map(drop).map_err(refused)
    }
}

fn refused(error: RaftError<u64, ClientWriteError<u64, Member>>) -> MemberError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => {
            MemberError::NotLeader(to.leader_id)
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            MemberError::Refused(error.to_string())
        }
        RaftError::Fatal(error) => MemberError::Ended(error.to_string()),
    }
}
