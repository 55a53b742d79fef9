//! How long a group was without a leader, as whoever watches all its keepers sees it.
//!
//! There is a leader while a keeper that lives says that it leads, and so many keepers that live
//! name it that they are a majority, itself among them. The moment in which a leader is killed is
//! the killer's, not the one in which anybody noticed.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// What is known of each keeper, and what followed from it so far.
#[derive(Clone, Debug)]
pub(super) struct Elections {
    /// By keeper that lives: whom it names.
    named: BTreeMap<u64, Option<u64>>,
    keepers: usize,
    /// The leader there is, or the last there was.
    leader: Option<u64>,
    /// Since when there is none.
    without_since: Option<Instant>,
    changes: u64,
    longest: Duration,
}

// === impl Elections ===

impl Elections {
    /// Of a group of so many keepers, of whom nothing is known yet.
    pub(super) fn new(keepers: usize, now: Instant) -> Self {
        Self {
            named: BTreeMap::new(),
            keepers,
            leader: None,
            without_since: Some(now),
            changes: 0,
            longest: Duration::ZERO,
        }
    }

    /// Forgets what was counted: what is told from now on counts.
    pub(super) fn begin(&mut self, now: Instant) {
        self.changes = 0;
        self.longest = Duration::ZERO;
        if self.without_since.is_some() {
            self.without_since = Some(now);
        }
    }

    /// A keeper names a leader.
    pub(super) fn told(&mut self, keeper: u64, leader: Option<u64>, now: Instant) {
        self.named.insert(keeper, leader);
        self.settle(now);
    }

    /// A keeper is dead.
    pub(super) fn died(&mut self, keeper: u64, now: Instant) {
        self.named.remove(&keeper);
        self.settle(now);
    }

    /// The leader, if there is one.
    pub(super) fn leader(&self) -> Option<u64> {
        self.leader.filter(|_| self.without_since.is_none())
    }

    /// How often another keeper came to lead.
    pub(super) const fn changes(&self) -> u64 {
        self.changes
    }

    /// The longest time without a leader, one that still goes on included.
    pub(super) fn longest(&self, now: Instant) -> Duration {
        let now_without = self
            .without_since
            .map(|since| now.saturating_duration_since(since));
        self.longest.max(now_without.unwrap_or_default())
    }

    fn settle(&mut self, now: Instant) {
        match (self.agreed(), self.without_since) {
            (Some(leader), since) => {
                if let Some(since) = since {
                    self.longest = self.longest.max(now.saturating_duration_since(since));
                }
                self.without_since = None;
                if self.leader.is_some_and(|before| before != leader) {
                    self.changes = self.changes.saturating_add(1);
                }
                self.leader = Some(leader);
            }
            (None, None) => self.without_since = Some(now),
            (None, Some(_)) => {}
        }
    }

    fn agreed(&self) -> Option<u64> {
        let majority = self.keepers.div_euclid(2).saturating_add(1);
        let leads = |keeper: &u64| {
            let names = self.named.values().filter(|named| **named == Some(*keeper));
            self.named.get(keeper) == Some(&Some(*keeper)) && names.count() >= majority
        };
        self.named.keys().copied().find(leads)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects, reason = "test code")]
    use super::*;

    fn group(now: Instant) -> Elections {
        let mut elections = Elections::new(3, now);
        for keeper in 1..=3 {
            elections.told(keeper, Some(1), now);
        }
        elections.begin(now);
        elections
    }

    #[test]
    fn an_election_lasts_from_the_kill_until_a_majority_names_a_leader_that_lives() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut elections = group(start);
        assert_eq!(elections.leader(), Some(1));
        elections.died(1, at(1_000));
        assert_eq!(elections.leader(), None);
        // Followers name the dead leader for a while, and one keeper is no majority.
        elections.told(2, None, at(1_300));
        elections.told(2, Some(2), at(1_350));
        assert_eq!(elections.leader(), None);
        assert_eq!(elections.longest(at(1_380)), Duration::from_millis(380));
        elections.told(3, Some(2), at(1_400));
        assert_eq!(elections.leader(), Some(2));
        elections.told(1, Some(2), at(3_000));
        assert_eq!(elections.longest(at(9_000)), Duration::from_millis(400));
        assert_eq!(elections.changes(), 1);
    }

    #[test]
    fn a_leader_that_only_others_name_is_none() {
        let start = Instant::now();
        let mut elections = group(start);
        elections.told(1, None, start);
        assert_eq!(elections.leader(), None);
        // The same keeper again is no change.
        elections.told(1, Some(1), start + Duration::from_millis(70));
        assert_eq!(elections.changes(), 0);
        let later = start + Duration::from_secs(9);
        assert_eq!(elections.longest(later), Duration::from_millis(70));
    }

    #[test]
    fn a_group_that_never_finds_a_leader_is_without_one_to_the_end() {
        let start = Instant::now();
        let mut elections = group(start);
        elections.died(1, start);
        let later = start + Duration::from_secs(9);
        assert_eq!(elections.longest(later), Duration::from_secs(9));
    }
}
