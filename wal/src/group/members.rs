//! Who belongs to the group. One change at a time; the library refuses a second one meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use openraft::error::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, Membership};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Group, Inner, Member, NodeId};
use crate::raft::Replicable;
use crate::raft::wire::{Request, Response, Standing, decode, encode};

/// Rest before a change is asked for again.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// How often a learner is looked at until it has caught up.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long one node may take with a change.
const ONE_MAX: Duration = Duration::from_secs(5);
/// A learner that lacks more entries than this has not caught up: it gets no vote yet.
const BEHIND_MAX: u64 = 1_000;

/// A change of the members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A node hears everything and has no vote.
    AddLearner {
        /// Its number.
        node: u64,
        /// Where it is, and which log it brings.
        member: Member,
    },
    /// A learner gets a vote.
    AddKeeper {
        /// Its number.
        node: u64,
    },
    /// A node leaves.
    Remove {
        /// Its number.
        node: u64,
    },
}

/// Why the members did not change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// The deadline passed. The change may still be made.
    #[error("no word of the change came in time")]
    Unknown,
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

    /// Adds a node that hears everything and has no vote; returns when it has caught up. For who
    /// leads.
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

    /// Gives a learner a vote. For who leads.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn add_keeper(&self, node: NodeId) -> Result<(), MemberError> {
        self.inner.change(Change::AddKeeper { node: node.0 }).await
    }

    /// Takes a node out of the group. For who leads.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn remove_keeper(&self, node: NodeId) -> Result<(), MemberError> {
        self.inner.change(Change::Remove { node: node.0 }).await
    }

    /// Has whoever leads make a change.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn change(&self, change: Change, deadline: Instant) -> Result<(), MemberError> {
        let inner = &self.inner;
        let mut last = MemberError::Unknown;
        while Instant::now() < deadline {
            let made = match inner.leader_member() {
                None => Err(MemberError::NotLeader(None)),
                Some((node, _)) if node == inner.config.log.node.0 => {
                    let making = inner.change(change.clone());
                    let made = tokio::time::timeout_at(deadline, making).await;
                    made.unwrap_or(Err(MemberError::Unknown))
                }
                Some((node, member)) => {
                    let request = Request::Change(change.clone());
                    let patience = ONE_MAX.min(deadline.saturating_duration_since(Instant::now()));
                    inner
                        .ask_change(NodeId(node), &member, &request, patience)
                        .await
                }
            };
            match made {
                Ok(()) => return Ok(()),
                Err(error @ (MemberError::NotLeader(_) | MemberError::Unknown)) => last = error,
                Err(error) => return Err(error),
            }
            let again = Instant::now().checked_add(AGAIN_AFTER).unwrap_or(deadline);
            tokio::time::sleep_until(again.min(deadline)).await;
        }
        Err(last)
    }

    /// This node, and every other member that answers it now.
    pub async fn reachable(&self) -> BTreeSet<u64> {
        let inner = &self.inner;
        let own = inner.config.log.node.0;
        let others = self.members().into_iter().filter(|(node, _)| *node != own);
        let asked = others.map(|(node, (member, _))| async move {
            let told = inner.ask_standing(NodeId(node), &member).await;
            told.map(|_| node)
        });
        let answered = join_all(asked).await.into_iter().flatten();
        answered.chain([own]).collect()
    }

    /// Every member, and whether it votes.
    pub fn members(&self) -> BTreeMap<u64, (Member, bool)> {
        let Standing {
            keepers, learners, ..
        } = self.inner.standing();
        let all = |members: BTreeMap<u64, Member>, votes| {
            let entry = move |(node, member)| (node, (member, votes));
            members.into_iter().map(entry)
        };
        all(keepers, true).chain(all(learners, false)).collect()
    }
}

// === impl Inner ===

impl<M: Replicable> Inner<M> {
    pub(super) fn standing(&self) -> Standing {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let membership: &Membership<u64, Member> = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let (keepers, learners) = membership
            .nodes()
            .map(|(node, member)| (*node, member.clone()))
            .partition(|(node, _)| voters.contains(node));
        let matched = metrics.replication.iter().flatten();
        let matched = matched
            .filter_map(|(node, last)| Some((*node, (*last)?.index)))
            .collect();
        Standing {
            log: self.store.files().identity.incarnation,
            keepers,
            learners,
            matched,
            segments_left: self.store.files().segments_left(),
        }
    }

    /// Who leads, and where it is.
    pub(super) fn leader_member(&self) -> Option<(u64, Member)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let leader = metrics.current_leader?;
        let member = metrics.membership_config.membership().get_node(&leader)?;
        Some((leader, member.clone()))
    }

    /// Makes a change, if this node leads.
    pub(super) async fn change(&self, change: Change) -> Result<(), MemberError> {
        let Standing {
            keepers, learners, ..
        } = self.standing();
        let change = match change {
            Change::AddLearner { node, member } => {
                let known = learners.get(&node).or_else(|| keepers.get(&node));
                match known {
                    Some(known) if *known == member => return Ok(()),
                    Some(_) if keepers.contains_key(&node) => {
                        return Err(MemberError::Refused(format!(
                            "keeper {node} is a member with another log or address: remove it, and \
                             let the newcomer have another number"
                        )));
                    }
                    // What the library knows of a learner's log is not so of another log.
                    Some(_) => {
                        self.write_members(ChangeMembers::RemoveNodes([node].into()))
                            .await?
                    }
                    None => {}
                }
                let added = self.raft.add_learner(node, member, false).await;
                return added.map(drop).map_err(refused);
            }
            Change::AddKeeper { node } if keepers.contains_key(&node) => return Ok(()),
            Change::AddKeeper { node } => {
                self.has_caught_up(node)?;
                ChangeMembers::AddVoterIds([node].into())
            }
            Change::Remove { node } if keepers.contains_key(&node) => {
                ChangeMembers::RemoveVoters([node].into())
            }
            Change::Remove { node } if learners.contains_key(&node) => {
                ChangeMembers::RemoveNodes([node].into())
            }
            Change::Remove { .. } => return Ok(()),
        };
        self.write_members(change).await
    }

    /// Whether a learner has what this leader has, but for what is under way.
    fn has_caught_up(&self, node: u64) -> Result<(), MemberError> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        // Who does not lead is told so by the library.
        let Some(replication) = &metrics.replication else {
            return Ok(());
        };
        let last = metrics.last_log_index.unwrap_or(0);
        let has = replication.get(&node).copied().flatten();
        let has = has.map_or(0, |log_id| log_id.index);
        if last.saturating_sub(has) > BEHIND_MAX {
            return Err(MemberError::Refused(format!(
                "node {node} has entries up to {has} of {last}: let it catch up first"
            )));
        }
        Ok(())
    }

    async fn write_members(&self, change: ChangeMembers<u64, Member>) -> Result<(), MemberError> {
        let changed = self.raft.change_membership(change, false).await;
        changed.map(drop).map_err(refused)
    }

    pub(super) async fn ask_change(
        &self,
        node: NodeId,
        member: &Member,
        request: &Request,
        patience: Duration,
    ) -> Result<(), MemberError> {
        let reply = self
            .transport
            .call(node, member, encode(request), patience)
            .await;
        match reply.ok().and_then(|reply| decode(&reply)) {
            Some(Response::Changed) => Ok(()),
            Some(Response::NotLeader(leader)) => Err(MemberError::NotLeader(leader)),
            Some(Response::Refused(why)) => Err(MemberError::Refused(why)),
            Some(_) | None => Err(MemberError::Unknown),
        }
    }
}

/// The reply to who asked for a change.
pub(super) fn changed(made: Result<(), MemberError>) -> Response {
    match made {
        Ok(()) => Response::Changed,
        Err(MemberError::NotLeader(leader)) => Response::NotLeader(leader),
        Err(MemberError::Unknown) => Response::Unknown,
        Err(MemberError::Ended(why)) => Response::Failed(why),
        Err(error @ MemberError::Founded) => Response::Refused(error.to_string()),
        Err(MemberError::Refused(why)) => Response::Refused(why),
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
