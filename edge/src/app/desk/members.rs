//! Changing who keeps the region's log: one at a time, in the open, and audited.
//!
//! A change is refused while the primary is unreachable (what the region then says rests on the log
//! alone) and when those who would vote could not commit. An operator who knows better forces it,
//! with a reason. Never: taking away the last keeper, or the edge that is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use standin_core::entry::{OperatorOrder, StandInMode};
use standin_core::register::Register;
use standin_wal::{Change, Member, MemberError};

use super::{Desk, OrderError};
use crate::admin::{MemberChange, MemberOrder, MembersChanged, Order};
use crate::breaker::Position;
use crate::log::soon;

/// How long a change may take: an election, and two entries of the members.
const CHANGE_WITHIN: Duration = Duration::from_secs(10);
/// How long its audit entry may take; who led may have left a moment ago.
const AUDIT_WITHIN: Duration = Duration::from_secs(5);

/// Who belongs to the group, and who of them may be spoken with.
struct Group {
    own: u64,
    members: BTreeMap<u64, (Member, bool)>,
    reachable: BTreeSet<u64>,
    /// Edges that the log has granted a reserve: they were members once.
    once: BTreeSet<u64>,
}

/// What speaks against a change.
#[derive(Debug, PartialEq, Eq)]
enum Against {
    /// It cannot be done.
    Impossible(String),
    /// An operator may know better.
    Unwise(String),
}

impl Desk {
    /// Gives a learner a vote, or takes a member out of the log's group.
    ///
    /// # Errors
    /// When something speaks against it, or no word of it came in time: then it may be done all the
    /// same, and may be ordered again.
    pub async fn order_member(&self, order: MemberOrder) -> Result<MembersChanged, OrderError> {
        let MemberOrder {
            change,
            node,
            force,
            order: Order { operator, reason },
        } = order;
        let log = self.log();
        let group = Group {
            own: log.edge(),
            members: log.members(),
            reachable: log.reachable().await,
            once: log.read(|register| register.grants().map(|(edge, _)| edge).collect()),
        };
        let against = self
            .primary_is_away()
            .or_else(|| group.against(change, node));
        let forced = match against {
            None => false,
            Some(Against::Unwise(_)) if force => match group.against(change, node) {
                Some(Against::Impossible(why)) => return Err(OrderError::Refused(why)),
                Some(Against::Unwise(_)) | None => true,
            },
            Some(Against::Unwise(why)) => {
                return Err(OrderError::Refused(format!("{why}; it can be forced")));
            }
            Some(Against::Impossible(why)) => return Err(OrderError::Refused(why)),
        };
        tracing::warn!(
            ?change,
            node,
            forced,
            operator,
            reason,
            "operator changes the members"
        );
        let changed = group.is_news(change, node);
        if changed {
            let made = match change {
                MemberChange::Add => Change::AddKeeper { node },
                MemberChange::Remove => Change::Remove { node },
            };
            log.change(made, soon(CHANGE_WITHIN)).await?;
        }
        let what = match change {
            MemberChange::Add => OperatorOrder::AddKeeper { node, forced },
            MemberChange::Remove => OperatorOrder::RemoveKeeper { node, forced },
        };
        let audit = self.action(operator, reason, what);
        let audited = log.propose(&audit, soon(AUDIT_WITHIN)).await;
        audited.map_err(|error| {
            tracing::error!(%error, ?change, node, "the members changed, and the audit may lack it");
            OrderError::NotDurable(error.to_string())
        })?;
        let keepers = group.keepers_after(change, node);
        Ok(MembersChanged {
            change,
            node,
            changed,
            forced,
            tolerates: keepers.len().saturating_sub(1) / 2,
            keepers,
        })
    }

    fn primary_is_away(&self) -> Option<Against> {
        let mode = self.log().read(Register::mode);
        let why = match (self.shared.primary.position(), mode) {
            (_, StandInMode::Force) => "an operator forces standing in".to_owned(),
            (Position::Open(why), _) => format!("the breaker is open: {}", why.as_str()),
            (Position::Ramp(share), _) => format!("it is asked for {share} % of requests"),
            (Position::Closed, StandInMode::Auto | StandInMode::Forbid) => return None,
        };
        Some(Against::Unwise(format!(
            "the primary is not reached ({why}), and the answers given meanwhile are in the log only"
        )))
    }
}

// === impl Group ===

impl Group {
    fn is_keeper(&self, node: u64) -> bool {
        self.members.get(&node).is_some_and(|(_, votes)| *votes)
    }

    fn keepers_after(&self, change: MemberChange, node: u64) -> BTreeSet<u64> {
        let keepers = self.members.iter().filter(|(_, (_, votes))| *votes);
        let mut keepers: BTreeSet<u64> = keepers.map(|(node, _)| *node).collect();
        match change {
            MemberChange::Add => keepers.insert(node),
            MemberChange::Remove => keepers.remove(&node),
        };
        keepers
    }

    /// Whether it is not so already.
    fn is_news(&self, change: MemberChange, node: u64) -> bool {
        match change {
            MemberChange::Add => !self.is_keeper(node),
            MemberChange::Remove => self.members.contains_key(&node),
        }
    }

    /// What speaks against a change, as this edge sees the group.
    fn against(&self, change: MemberChange, node: u64) -> Option<Against> {
        let impossible = |why: String| Some(Against::Impossible(why));
        let known = self.members.contains_key(&node);
        match change {
            MemberChange::Add if !known => {
                return impossible(format!(
                    "the group does not know edge {node}: start it with edge_id = {node} and this \
                     region's [keepers]; it joins by itself as a learner, and can be added then"
                ));
            }
            MemberChange::Remove if node == self.own => {
                return impossible(format!(
                    "this is edge {node} itself: ask another edge to remove it"
                ));
            }
            MemberChange::Remove if !known && !self.once.contains(&node) => {
                return impossible(format!("edge {node} is not a member of the group"));
            }
            MemberChange::Add | MemberChange::Remove => {}
        }
        let keepers = self.keepers_after(change, node);
        if keepers.is_empty() {
            return impossible(format!(
                "edge {node} is the last keeper: without it there is no log"
            ));
        }
        if !self.is_news(change, node) {
            return None;
        }
        if change == MemberChange::Add && !self.reachable.contains(&node) {
            return Some(Against::Unwise(format!("edge {node} does not answer")));
        }
        let there = keepers.intersection(&self.reachable).count();
        if there.saturating_mul(2) <= keepers.len() && self.is_keeper_change(change, node) {
            return Some(Against::Unwise(format!(
                "of the keepers {keepers:?} only {there} would answer, which is no majority: nothing \
                 would be committed"
            )));
        }
        None
    }

    /// Whether it changes who votes: a learner leaves without it.
    fn is_keeper_change(&self, change: MemberChange, node: u64) -> bool {
        change == MemberChange::Add || self.is_keeper(node)
    }
}

// === impl OrderError ===

impl From<MemberError> for OrderError {
    fn from(error: MemberError) -> Self {
        match error {
            MemberError::Founded | MemberError::Refused(_) => Self::Refused(error.to_string()),
            MemberError::NotLeader(_) | MemberError::Unknown | MemberError::Ended(_) => {
                Self::NotDurable(error.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn group(keepers: &[u64], learners: &[u64], reachable: &[u64]) -> Group {
        let member = Member {
            address: String::new(),
            log: Uuid::nil(),
        };
        let all = |nodes: &[u64], votes| {
            let member = member.clone();
            let entry = move |node: u64| (node, (member.clone(), votes));
            nodes.iter().copied().map(entry).collect::<Vec<_>>()
        };
        Group {
            own: 1,
            members: [all(keepers, true), all(learners, false)]
                .concat()
                .into_iter()
                .collect(),
            reachable: reachable.iter().copied().collect(),
            once: [9].into(),
        }
    }

    #[test]
    fn what_speaks_against_a_change() {
        let check = |group: &Group, change, node, expected: Option<(bool, &str)>| {
            let got = match group.against(change, node) {
                None => None,
                Some(Against::Impossible(why)) => Some((false, why)),
                Some(Against::Unwise(why)) => Some((true, why)),
            };
            match (&got, expected) {
                (None, None) => {}
                (Some((unwise, why)), Some((expected, part))) => {
                    assert_eq!(*unwise, expected, "{why}");
                    assert!(why.contains(part), "{why}");
                }
                _ => panic!("{change:?} {node}: {got:?}, expected {expected:?}"),
            }
        };
        use MemberChange::{Add, Remove};
        let whole = group(&[1, 2, 3], &[4], &[1, 2, 3, 4]);
        check(&whole, Add, 4, None);
        check(&whole, Add, 3, None);
        check(&whole, Add, 5, Some((false, "start it with edge_id = 5")));
        check(&whole, Remove, 3, None);
        check(&whole, Remove, 4, None);
        check(&whole, Remove, 1, Some((false, "ask another edge")));
        check(&whole, Remove, 5, Some((false, "not a member")));
        // It was one: an order that is repeated is audited again, and nothing more.
        check(&whole, Remove, 9, None);
        assert!(!whole.is_news(Remove, 9));

        let learner_away = group(&[1, 2, 3], &[4], &[1, 2, 3]);
        check(&learner_away, Add, 4, Some((true, "does not answer")));
        check(&learner_away, Remove, 4, None);
        let one_away = group(&[1, 2, 3], &[], &[1, 2]);
        check(&one_away, Remove, 3, None);
        check(&one_away, Remove, 2, Some((true, "no majority")));
        let two_away = group(&[1, 2, 3], &[4], &[1, 4]);
        check(&two_away, Add, 4, Some((true, "no majority")));
        check(&two_away, Remove, 4, None);
        let last = Group {
            own: 4,
            ..group(&[1], &[4], &[1, 4])
        };
        check(&last, Remove, 1, Some((false, "last keeper")));
    }
}
