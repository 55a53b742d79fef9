//! Whoever sees everything: what every node applied, what every client was told, who voted for whom.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use standin_wal::{Applied, LoadError, Replicable, StateMachine};

use super::disk::{Mark, marks};
use super::scene::{Scene, digest, locked};

/// The oracle of one simulation.
#[derive(Debug)]
pub struct Oracle {
    scene: Arc<Scene>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// By index and slot: what was applied there, wherever it was applied.
    applied: BTreeMap<(u64, u32), Fact>,
    /// Saved states by the last position in them.
    states: BTreeMap<(u64, u32), u64>,
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

/// A state machine that tells the oracle.
pub struct Watched<M> {
    /// The real one.
    pub machine: M,
    oracle: Arc<Oracle>,
    node: u64,
    last: (u64, u32),
}

// === impl Oracle ===

impl Oracle {
    /// An oracle that has seen nothing.
    pub fn new(scene: Arc<Scene>) -> Arc<Self> {
        Arc::new(Self {
            scene,
            seen: Mutex::default(),
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

    /// What a node says of itself.
    pub fn status(&self, node: u64, term: u64, leads: bool) {
        // A group that was not founded yet, or a library that has said nothing yet.
        if term == 0 {
            return;
        }
        let mut seen = locked(&self.seen);
        let before = seen.terms.get(&node).copied().unwrap_or(0);
        if term < before {
            self.scene
                .wrong(|| format!("node {node} went back from term {before} to {term}"));
        }
        seen.terms.insert(node, term.max(before));
        if leads {
            let leader = *seen.leaders.entry(term).or_insert(node);
            if leader != node {
                self.scene
                    .wrong(|| format!("nodes {leader} and {node} both lead term {term}"));
            }
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
        if !seen.proposed.contains(&fact.proposal) && !marks(proposal).is_empty() {
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
    }

    fn saved(&self, node: u64, at: (u64, u32), state: &[u8]) {
        let state = digest(state);
        let mut seen = locked(&self.seen);
        let before = *seen.states.entry(at).or_insert(state);
        if before != state {
            self.scene.wrong(|| {
                format!("S8: the state of node {node} after {at:?} is not that of another")
            });
        }
    }
}

// === impl Watched ===

impl<M> Watched<M> {
    /// Tells the oracle what `machine` does on a node.
    pub fn new(machine: M, oracle: Arc<Oracle>, node: u64) -> Self {
        Self {
            machine,
            oracle,
            node,
            last: (0, 0),
        }
    }
}

impl<M: Replicable> Watched<M> {
    /// Has the oracle hold this state against that of the other nodes after the same entry.
    pub fn compare(&self) {
        let saved = self.machine.save();
        self.oracle.saved(self.node, self.last, &saved);
    }
}

impl<M: Replicable> StateMachine for Watched<M> {
    type Outcome = M::Outcome;

    fn apply(&mut self, at: Applied, proposal: &[u8]) -> M::Outcome {
        let outcome = self.machine.apply(at, proposal);
        let bytes = M::outcome_to_bytes(&outcome);
        self.oracle.applied(self.node, at, proposal, &bytes);
        self.last = (at.index, at.slot);
        outcome
    }
}

impl<M: Replicable> Replicable for Watched<M> {
    fn save(&self) -> Vec<u8> {
        let saved = self.machine.save();
        self.oracle.saved(self.node, self.last, &saved);
        let (index, slot) = self.last;
        let mut bytes = index.to_le_bytes().to_vec();
        bytes.extend_from_slice(&slot.to_le_bytes());
        bytes.extend_from_slice(&saved);
        bytes
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        let cut = || LoadError("cut short".to_owned());
        let (index, rest) = bytes.split_first_chunk::<8>().ok_or_else(cut)?;
        let (slot, saved) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        self.machine.load(saved)?;
        self.last = (u64::from_le_bytes(*index), u32::from_le_bytes(*slot));
        self.compare();
        Ok(())
    }

    fn outcome_to_bytes(outcome: &M::Outcome) -> Vec<u8> {
        M::outcome_to_bytes(outcome)
    }

    fn outcome_from_bytes(bytes: &[u8]) -> Option<M::Outcome> {
        M::outcome_from_bytes(bytes)
    }
}
