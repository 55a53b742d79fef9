//! Coming into the group: founding it together, joining it, or finding that one may not.
//!
//! A member is known by its number and by the log it brought. A node that comes with another log
//! than its number had (its disk was lost, or is somebody else's) has forgotten what it had promised:
//! it must not vote, and is refused. A group is founded when every one of its founders is there with
//! an empty log, so that nobody founds it anew beside one that lives on behind a cut.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Change, Group, Inner, Member, MemberError, NodeId};
use crate::raft::Replicable;
use crate::raft::wire::{Request, Response, Standing, decode, encode};

/// How long a node may take to say what it knows.
const ASK_MAX: Duration = Duration::from_millis(500);
/// Rest before everybody is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Why a node is not in its group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnrollError {
    /// Its log ends before what it had told the leader is durable: an older copy of itself.
    #[error(
        "this disk holds an older copy of keeper {node}'s log: it ends at {last}, and the group was \
         told of {told}. Remove keeper {node} from the group, and start this node with a number that \
         was never used"
    )]
    Older {
        /// Its number.
        node: u64,
        /// The last entry here.
        last: u64,
        /// The last entry that was told to be durable.
        told: u64,
    },
    /// Its number is a keeper's, and its log is not that keeper's.
    #[error(
        "keeper {node} is a member with another log: this disk is not the one it voted with. Remove \
         keeper {node} from the group, and start this node with a number that was never used"
    )]
    Lost {
        /// Its number.
        node: u64,
    },
    /// The group did not take it.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// Not all founders, and no member, were reached in time.
    #[error("nobody of the group was reached in time, or not all who are to found it")]
    Alone,
}

impl<M: Replicable> Group<M> {
    /// Which log this node brings.
    pub fn log(&self) -> Uuid {
        self.inner.store.files().identity.incarnation
    }

    /// Comes into the group, whatever there is of it: founds it with the others of `founders` when
    /// all of them are new, takes its place when it has one, or joins as a learner. `address` is
    /// where this node's own link listens.
    ///
    /// # Errors
    /// See [`EnrollError`]; after [`EnrollError::Alone`] it may be tried again.
    pub async fn enroll(
        &self,
        founders: &BTreeMap<NodeId, String>,
        address: &str,
        deadline: Instant,
    ) -> Result<(), EnrollError> {
        let own = Member {
            address: address.to_owned(),
            log: self.log(),
        };
        loop {
            if self.inner.enroll(founders, &own, deadline).await? {
                return Ok(());
            }
            let again = Instant::now().checked_add(AGAIN_AFTER).unwrap_or(deadline);
            if again >= deadline {
                return Err(EnrollError::Alone);
            }
            tokio::time::sleep_until(again).await;
        }
    }
}

// === impl Inner ===

impl<M: Replicable> Inner<M> {
    /// Tries once; `false` when it is not settled yet.
    async fn enroll(
        &self,
        founders: &BTreeMap<NodeId, String>,
        own: &Member,
        deadline: Instant,
    ) -> Result<bool, EnrollError> {
        let node = self.config.log.node.0;
        let standing = self.standing();
        if self.admitted.load(Ordering::Relaxed) && has_place(node, own, &standing)? {
            return Ok(true);
        }
        let is_founded = !standing.keepers.is_empty();
        let known: BTreeMap<NodeId, Member> = if is_founded {
            let keepers = standing.keepers.clone().into_iter();
            keepers
                .map(|(node, member)| (NodeId(node), member))
                .collect()
        } else {
            let unknown = |address: &String| Member {
                address: address.clone(),
                log: Uuid::nil(),
            };
            let founders = founders.iter();
            founders
                .map(|(node, address)| (*node, unknown(address)))
                .collect()
        };
        let others = known.iter().filter(|(other, _)| other.0 != node);
        let asked = others.map(|(other, member)| self.ask_standing(*other, member));
        let told: BTreeMap<NodeId, Standing> =
            join_all(asked).await.into_iter().flatten().collect();
        let last = self.store.last_index();
        for group in told.values() {
            let known = group.matched.get(&node).copied().unwrap_or(0);
            if has_place(node, own, group)? && known > last {
                let told = known;
                return Err(EnrollError::Older { node, last, told });
            }
        }
        // Whoever leads knows what was told; where nobody does, all begin with what they have.
        if has_place(node, own, &standing)? {
            self.admit();
            return Ok(true);
        }
        if let Some(group) = told.values().find(|told| !told.keepers.is_empty()) {
            if !has_place(node, own, group)? {
                return self.join(&known, own, deadline).await;
            }
            self.admit();
            return Ok(true);
        }
        if is_founded {
            // It was a member once, and nobody of the others is there now.
            return Ok(false);
        }
        self.found_with(founders, own, &told).await
    }

    /// This node may vote, be appended to, and ask to lead.
    fn admit(&self) {
        self.admitted.store(true, Ordering::Relaxed);
        self.mind_the_room();
    }

    /// Founds the group, if all its founders are there and this is the first of them.
    async fn found_with(
        &self,
        founders: &BTreeMap<NodeId, String>,
        own: &Member,
        told: &BTreeMap<NodeId, Standing>,
    ) -> Result<bool, EnrollError> {
        let node = self.config.log.node;
        if founders.keys().next() != Some(&node) {
            return Ok(false);
        }
        let mut members = BTreeMap::from([(node.0, own.clone())]);
        for (founder, address) in founders.iter().filter(|(founder, _)| **founder != node) {
            let Some(standing) = told.get(founder) else {
                return Ok(false);
            };
            let member = Member {
                address: address.clone(),
                log: standing.log,
            };
            members.insert(founder.0, member);
        }
        self.admit();
        match self.raft.initialize(members).await {
            Ok(()) => Ok(true),
            Err(error) => {
                tracing::warn!(%error, "the group was not founded");
                Ok(false)
            }
        }
    }

    /// Asks the group to take this node as a learner.
    async fn join(
        &self,
        known: &BTreeMap<NodeId, Member>,
        own: &Member,
        deadline: Instant,
    ) -> Result<bool, EnrollError> {
        let node = self.config.log.node.0;
        let request = Request::Change(Change::AddLearner {
            node,
            member: own.clone(),
        });
        // What it asks for may be done before it hears of it.
        self.admit();
        for (other, member) in known.iter().filter(|(other, _)| other.0 != node) {
            let patience = ASK_MAX.min(deadline.saturating_duration_since(Instant::now()));
            match self.ask_change(*other, member, &request, patience).await {
                Ok(()) => return Ok(true),
                Err(MemberError::NotLeader(_) | MemberError::Unknown) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }

    pub(super) async fn ask_standing(
        &self,
        node: NodeId,
        member: &Member,
    ) -> Option<(NodeId, Standing)> {
        let request = encode(&Request::Standing);
        let reply = self.transport.call(node, member, request, ASK_MAX).await;
        match decode(&reply.ok()?)? {
            Response::Standing(standing) => Some((node, standing)),
            _ => None,
        }
    }
}

/// Whether a group has a place for this node.
fn has_place(node: u64, own: &Member, group: &Standing) -> Result<bool, EnrollError> {
    match group.keepers.get(&node) {
        Some(keeper) if keeper.log != own.log => Err(EnrollError::Lost { node }),
        Some(_) => Ok(true),
        // A learner has promised nothing: with another log or address it joins anew.
        None => Ok(group.learners.get(&node) == Some(own)),
    }
}
