//! Whoever sees everything: what every node applied, what every client was told, who voted for whom.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use standin_wal::Applied;
use standin_wal::testing::Witness;

use super::disk::{Mark, marks};
use super::scene::{Scene, digest, locked};

/// The oracle of one simulation.
pub struct Oracle {
    scene: Arc<Scene>,
    seen: Mutex<Seen>,
    /// Hears of every entry when it is applied for the first time anywhere.
    first: First,
}

/// Who hears of entries, in log order: proposal and outcome.
pub type First = Box<dyn Fn(&[u8], &[u8]) + Send + Sync>;

#[derive(Debug, Default)]
struct Seen {
    /// By index and slot: what was applied there, wherever it was applied.
    applied: BTreeMap<(u64, u32), Fact>,
    /// Saved states by the last index applied to them.
    states: BTreeMap<u64, u64>,
    /// Log time by the last index applied.
    times: BTreeMap<u64, u64>,
    proposed: BTreeSet<u64>,
    /// What a client was told of a payment, and the place of it.
    told: BTreeMap<Mark, Told>,
    votes: BTreeMap<(u64, u64), u64>,
    leaders: BTreeMap<u64, u64>,
    terms: BTreeMap<u64, u64>,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fact {
    term: u64,
    log_time_ms: u64,
    proposal: u64,
    outcome: u64,
}

/// What a client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Where the entry is that it was told of, as far as it knows.
    pub at: Option<(u64, u32)>,
    /// What, as a number.
    pub answer: u64,
}

/// What a simulation came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Proposals of clients that were answered.
    pub answered: u64,
    /// Proposals whose fate a client never learnt.
    pub unknown: u64,
    /// Entries applied, over all nodes.
    pub applied: u64,
    /// Faults injected.
    pub faults: u64,
}

/// Sees what one node applies.
pub struct Eye {
    oracle: Arc<Oracle>,
    node: u64,
}

// === impl Oracle ===

impl Oracle {
    /// An oracle that has seen nothing.
    pub fn new(scene: Arc<Scene>, first: First) -> Arc<Self> {
        Arc::new(Self {
            scene,
            seen: Mutex::default(),
            first,
        })
    }

    /// What it came to.
    pub fn counts(&self) -> Counts {
        locked(&self.seen).counts
    }

    /// A fault was injected.
    pub fn fault(&self) {
        let mut seen = locked(&self.seen);
        seen.counts.faults = seen.counts.faults.saturating_add(1);
    }

    /// A client proposes.
    pub fn proposed(&self, proposal: &[u8]) {
        locked(&self.seen).proposed.insert(digest(proposal));
    }

    /// A client was answered.
    pub fn answered(&self) {
        let mut seen = locked(&self.seen);
        seen.counts.answered = seen.counts.answered.saturating_add(1);
    }

    /// A client never heard.
    pub fn unknown(&self) {
        let mut seen = locked(&self.seen);
        seen.counts.unknown = seen.counts.unknown.saturating_add(1);
    }

    /// A client was told. Says whether it is the first that anybody heard of this payment.
    pub fn told(&self, mark: Mark, told: Told) -> bool {
        let mut seen = locked(&self.seen);
        seen.counts.answered = seen.counts.answered.saturating_add(1);
        match seen.told.get(&mark) {
            None => {
                seen.told.insert(mark, told);
                true
            }
            Some(before) => {
                let before = *before;
                if before.answer != told.answer {
                    self.scene.wrong(|| {
                        format!("S2: a payment was answered {before:?} and then {told:?}")
                    });
                }
                false
            }
        }
    }

    /// Everything that clients were told.
    pub fn all_told(&self) -> Vec<(Mark, Told)> {
        let seen = locked(&self.seen);
        seen.told
            .iter()
            .map(|(mark, told)| (*mark, *told))
            .collect()
    }

    /// What was applied at a place, wherever: a number for its outcome.
    pub fn outcome_at(&self, at: (u64, u32)) -> Option<u64> {
        locked(&self.seen).applied.get(&at).map(|fact| fact.outcome)
    }

    /// A node gave its vote.
    pub fn voted(&self, node: u64, term: u64, candidate: u64) {
        let mut seen = locked(&self.seen);
        let before = *seen.votes.entry((node, term)).or_insert(candidate);
        if before != candidate {
            self.scene.wrong(|| {
                format!("node {node} voted in term {term} for {before} and for {candidate}")
            });
        }
    }

    /// A node speaks in a term: it has it durably, and never speaks in an earlier one again.
    pub fn spoke(&self, node: u64, term: u64) {
        let mut seen = locked(&self.seen);
        let before = *seen
            .terms
            .entry(node)
            .and_modify(|known| *known = term.max(*known))
            .or_insert(term);
        if term < before {
            self.scene
                .wrong(|| format!("node {node} went back from term {before} to {term}"));
        }
    }

    /// A node leads, as far as it knows.
    pub fn leads(&self, node: u64, term: u64) {
        let mut seen = locked(&self.seen);
        let leader = *seen.leaders.entry(term).or_insert(node);
        if leader != node {
            self.scene
                .wrong(|| format!("nodes {leader} and {node} both lead term {term}"));
        }
    }

    fn applied(&self, node: u64, at: Applied, proposal: &[u8], outcome: &[u8]) {
        let place = (at.index, at.slot);
        let fact = Fact {
            term: at.term,
            log_time_ms: at.log_time_ms,
            proposal: digest(proposal),
            outcome: digest(outcome),
        };
        self.scene
            .note("apply", &[node, at.index, u64::from(at.slot), fact.outcome]);
        let mut seen = locked(&self.seen);
        seen.counts.applied = seen.counts.applied.saturating_add(1);
        if !seen.proposed.is_empty()
            && !seen.proposed.contains(&fact.proposal)
            && !marks(proposal).is_empty()
        {
            self.scene
                .wrong(|| format!("S4: node {node} applied at {place:?} what nobody proposed"));
        }
        if let Some(before) = seen.applied.get(&place).copied() {
            if before != fact {
                self.scene.wrong(|| {
                    format!("S2: at {place:?} node {node} applied {fact:?}, another {before:?}")
                });
            }
            return;
        }
        let earlier = seen.applied.range(..place).next_back();
        if let Some((before, earlier)) = earlier
            && (earlier.log_time_ms > fact.log_time_ms || earlier.term > fact.term)
        {
            let (before, earlier) = (*before, *earlier);
            self.scene.wrong(|| {
                format!("node {node}: time or term went back from {before:?} {earlier:?} to {place:?} {fact:?}")
            });
        }
        seen.applied.insert(place, fact);
        drop(seen);
        (self.first)(proposal, outcome);
    }

    /// The log time of a node after an index.
    pub fn timed(&self, node: u64, at: u64, log_time_ms: u64) {
        let mut seen = locked(&self.seen);
        let before = *seen.times.entry(at).or_insert(log_time_ms);
        if before != log_time_ms {
            self.scene.wrong(|| {
                format!("S8: after {at} it is {log_time_ms} at node {node}, and was {before}")
            });
        }
    }

    /// The state of a node after an index.
    pub fn saved(&self, node: u64, at: u64, state: &[u8]) {
        let state = digest(state);
        let mut seen = locked(&self.seen);
        let before = *seen.states.entry(at).or_insert(state);
        if before != state {
            self.scene.wrong(|| {
                format!("S8: the state of node {node} after {at} is not that of another")
            });
        }
    }
}

// === impl Eye ===

impl Eye {
    /// An eye on a node.
    pub fn on(oracle: &Arc<Oracle>, node: u64) -> Arc<Self> {
        let oracle = Arc::clone(oracle);
        Arc::new(Self { oracle, node })
    }
}

impl Witness for Eye {
    fn applied(&self, at: Applied, proposal: &[u8], outcome: &[u8]) {
        self.oracle.applied(self.node, at, proposal, outcome);
    }
}
