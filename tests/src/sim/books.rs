//! What the banks of a simulation were told, what the log made of it, and what the ledger says in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use standin_core::answer::{Answer, Rung, Verdict};
use standin_core::entry::{Entry, Proposal};
use standin_core::id::{TransactionId, TripId};
use standin_core::ledger::{AuthorizationRow, AuthorizationState, ConflictRow};
use standin_core::register::Outcome;
use standin_core::trip::TripStatus;

use super::scene::{Scene, digest, locked};

/// The books of one simulation.
pub struct Books {
    scene: Arc<Scene>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    told: BTreeMap<TransactionId, Vec<Said>>,
    answers: BTreeMap<TransactionId, Said>,
    /// What replays for each payment, word for word.
    words: BTreeMap<TransactionId, Answer>,
    trips: BTreeMap<TripId, Trip>,
    /// Payments that the log holds two answers of, one given without it.
    conflicts: BTreeSet<TransactionId>,
    /// What was given up before it was answered.
    tombstoned: BTreeSet<TransactionId>,
    /// What each start of an edge proposed of a payment, and what it advised.
    decided: BTreeMap<(TransactionId, u64, u64), Decided>,
    /// Payments that a bank got no answer to, and from which edges.
    refused: BTreeSet<(TransactionId, u64)>,
    /// Payments that the log heard were told again.
    heard: BTreeSet<TransactionId>,
    /// What was given back.
    reversed: BTreeSet<TransactionId>,
    /// Edges whose disks were lost.
    lost: BTreeSet<u64>,
    rungs: BTreeMap<Rung, u64>,
}

/// An answer, as far as it may not change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Said {
    verdict: Verdict,
    amount: i64,
    code: u64,
    /// Given without the log's commit.
    exposed: bool,
    /// By which edge.
    edge: u64,
}

/// One start's verdicts on one payment: whether it approves.
#[derive(Default)]
struct Decided {
    proposed: BTreeSet<bool>,
    advised: BTreeSet<bool>,
}

#[derive(Default)]
struct Trip {
    version: u64,
    cap: i64,
    approvals: BTreeMap<TransactionId, i64>,
    closed: bool,
}

impl Said {
    fn of(answer: &Answer, edge: u64) -> Self {
        Self {
            verdict: answer.verdict,
            amount: answer.amount.minor(),
            code: digest(&postcard::to_stdvec(&answer.code).unwrap_or_default()),
            exposed: matches!(answer.rung, Rung::Isolated | Rung::PrimaryOnly),
            edge,
        }
    }

    fn same(&self, other: &Self) -> bool {
        (self.verdict, self.amount, self.code) == (other.verdict, other.amount, other.code)
    }
}

// === impl Books ===

impl Books {
    /// Empty books.
    pub fn new(scene: Arc<Scene>) -> Arc<Self> {
        Arc::new(Self {
            scene,
            kept: Mutex::default(),
        })
    }

    /// How many answers were given on each rung.
    pub fn rungs(&self) -> BTreeMap<Rung, u64> {
        locked(&self.kept).rungs.clone()
    }

    /// The disks of an edge are lost, and what only they held.
    pub fn lost(&self, edge: u64) {
        locked(&self.kept).lost.insert(edge);
    }

    /// A bank was told that nobody knows.
    pub fn refused(&self, id: TransactionId, edge: u64) {
        locked(&self.kept).refused.insert((id, edge));
    }

    /// A bank was told an answer. S2, S11, S16.
    pub fn told(&self, answer: &Answer, edge: u64) {
        let said = Said::of(answer, edge);
        let id = answer.transaction_id;
        let mut kept = locked(&self.kept);
        let rung = kept.rungs.entry(answer.rung).or_default();
        *rung = rung.saturating_add(1);
        let told = kept.told.entry(id).or_default();
        let other = told.iter().find(|before| !before.same(&said)).copied();
        told.push(said);
        if let Some(before) = other
            && !before.exposed
            && !said.exposed
        {
            self.scene
                .wrong(|| format!("S2: {id} was told {before:?} and then {said:?}"));
        }
    }

    /// The log applied an entry, for the first time anywhere.
    pub fn applied(&self, proposal: &[u8], outcome: &[u8]) {
        let Ok(entry) = Entry::decode(proposal) else {
            return self.scene.wrong(|| "an entry does not decode".to_owned());
        };
        let Ok(outcome) = postcard::from_bytes::<Outcome>(outcome) else {
            return self.scene.wrong(|| "an outcome does not decode".to_owned());
        };
        self.scene.say(|| describe(&entry, &outcome));
        let mut kept = locked(&self.kept);
        self.decided(&mut kept, &entry);
        let words = match &outcome {
            Outcome::Answered(answer) => Some(answer.as_ref()),
            Outcome::Known(known) => Some(known.answer.as_ref()),
            _ => None,
        };
        if let Some(words) = words {
            kept.words.insert(words.transaction_id, words.clone());
        }
        match (&entry, &outcome) {
            (Entry::Authorize(proposal), Outcome::Answered(answer)) => {
                self.authorized(&mut kept, proposal, answer);
            }
            (Entry::Authorize(proposal), Outcome::Known(known)) => {
                note_trip(&mut kept, proposal);
                let id = proposal.transaction_id;
                let said = Said::of(&known.answer, known.edge);
                let before = kept.answers.get(&id).copied();
                if !before.is_some_and(|before| before.same(&said)) {
                    self.scene
                        .wrong(|| format!("S2: {id} was {before:?}, and is known as {said:?}"));
                }
            }
            (Entry::Advice(advice), Outcome::Answered(_) | Outcome::Known(_)) => {
                let answer = &advice.answer;
                let said = Said::of(answer, advice.proposal.edge);
                let id = answer.transaction_id;
                let before = kept.answers.get(&id).copied();
                let given_back = kept.reversed.contains(&id) || kept.tombstoned.contains(&id);
                if given_back || before.is_some_and(|before| !before.same(&said)) {
                    kept.conflicts.insert(id);
                }
                if said.verdict == Verdict::Approved || before.is_none() {
                    kept.answers.insert(id, said);
                }
                if said.verdict == Verdict::Approved
                    && let Some(trip) = answer.trip
                {
                    let trip = kept.trips.entry(trip).or_default();
                    trip.approvals.insert(id, said.amount);
                }
            }
            (Entry::Reverse(reversal), Outcome::Reversed(amount)) => {
                kept.reversed.insert(reversal.transaction_id);
                for trip in kept.trips.values_mut() {
                    if let Some(approved) = trip.approvals.get_mut(&reversal.transaction_id) {
                        *approved = approved.saturating_sub(*amount);
                    }
                }
            }
            (Entry::Tombstone(id), Outcome::Tombstoned) => {
                kept.tombstoned.insert(*id);
            }
            (Entry::Heard(id) | Entry::Told(id), _) => {
                kept.heard.insert(*id);
                // The word of an edge that was cut off for longer than a bank asks again.
                if kept.reversed.contains(id) {
                    kept.conflicts.insert(*id);
                }
            }
            (Entry::TripClosed(trip), _) => kept.trips.entry(*trip).or_default().closed = true,
            _ => {}
        }
    }

    /// Once a proposal's fate is unknown, only its own verdict may be given without the log.
    fn decided(&self, kept: &mut Kept, entry: &Entry) {
        let (proposal, verdict) = match entry {
            Entry::Authorize(proposal) => (&**proposal, proposal.reason.verdict()),
            // (On `primary_only` what Postgres has is told, be it another edge's.)
            Entry::Advice(advice) if advice.answer.rung == Rung::Isolated => {
                (&advice.proposal, advice.answer.verdict)
            }
            _ => return,
        };
        let id = proposal.transaction_id;
        let by = (id, proposal.edge, proposal.start);
        let decided = kept.decided.entry(by).or_default();
        let verdicts = match entry {
            Entry::Advice(_) => &mut decided.advised,
            _ => &mut decided.proposed,
        };
        verdicts.insert(verdict == Verdict::Approved);
        let Decided { proposed, advised } = decided;
        if !proposed.is_empty() && !advised.is_subset(proposed) {
            self.scene.wrong(|| {
                format!(
                    "S2: {id} was proposed as {proposed:?} and advised as {advised:?} by {by:?}"
                )
            });
        }
    }

    /// S2, S6, S14.
    fn authorized(&self, kept: &mut Kept, proposal: &Proposal, answer: &Answer) {
        let id = proposal.transaction_id;
        let said = Said::of(answer, proposal.edge);
        if kept.tombstoned.contains(&id) {
            self.scene
                .wrong(|| format!("S2: {id} was given up, and then answered {said:?}"));
        }
        if let Some(before) = kept.answers.insert(id, said) {
            self.scene
                .wrong(|| format!("S2: {id} was answered {before:?} and again {said:?}"));
        }
        let was_closed = answer
            .trip
            .and_then(|trip| kept.trips.get(&trip))
            .is_some_and(|trip| trip.closed);
        note_trip(kept, proposal);
        let Some(trip) = answer.trip.filter(|_| said.verdict == Verdict::Approved) else {
            return;
        };
        if was_closed {
            self.scene
                .wrong(|| format!("S14: {id} was approved on trip {trip:?}, which was closed"));
        }
        let kept_trip = kept.trips.entry(trip).or_default();
        kept_trip.approvals.insert(id, said.amount);
        let sum: i64 = kept_trip.approvals.values().sum();
        let cap = kept_trip.cap;
        if sum > cap {
            self.scene
                .wrong(|| format!("S6: approving {id} makes {sum} of a cap of {cap}"));
        }
    }

    /// S1, S3, S4, S15, once everything is drained.
    #[allow(clippy::too_many_lines, reason = "one promise after the other")]
    pub fn close(&self, rows: &[AuthorizationRow], conflicts: &[ConflictRow]) {
        let mut kept = locked(&self.kept);
        kept.conflicts
            .extend(conflicts.iter().map(|row| row.transaction_id));
        let rows: BTreeMap<TransactionId, &AuthorizationRow> = rows
            .iter()
            .map(|row| (row.answer.transaction_id, row))
            .collect();
        let stands = |row: &AuthorizationRow| {
            matches!(
                row.state,
                AuthorizationState::Final | AuthorizationState::Reversed
            )
        };
        for (id, told) in &kept.told {
            for said in told {
                if said.exposed && kept.lost.contains(&said.edge) {
                    continue;
                }
                let conflicting = kept.conflicts.contains(id);
                let row = rows.get(id).filter(|row| stands(row));
                let Some(row) = row else {
                    if conflicting {
                        continue;
                    }
                    self.scene
                        .wrong(|| format!("S1: {id} was told {said:?} and is not booked"));
                    continue;
                };
                let booked = Said::of(&row.answer, said.edge);
                if !booked.same(said) && !conflicting {
                    self.scene
                        .wrong(|| format!("S3: {id} was told {said:?}, booked as {booked:?}"));
                }
                // Told again while the log could not be asked, it rests on that edge's disk.
                let alone = kept.lost.contains(&said.edge) && !kept.heard.contains(id);
                let back = row.reversed > 0 && !conflicting && !alone;
                if said.verdict == Verdict::Approved && back {
                    let back = row.reversed;
                    self.scene
                        .wrong(|| format!("S16: {id} was told {said:?}, and {back} went back"));
                }
            }
        }
        for (id, edge) in &kept.refused {
            let late = kept.answers.get(id).filter(|said| {
                said.verdict == Verdict::Approved && !said.exposed && said.edge == *edge
            });
            let stands = kept.told.contains_key(id) || kept.heard.contains(id);
            let back = rows.get(id).map_or(0, |row| row.reversed);
            let Some(said) = late.filter(|_| !stands && !kept.lost.contains(edge)) else {
                continue;
            };
            // The primary had a decline by another edge's advice first: it held nothing, and both are kept.
            let declined = kept.conflicts.contains(id)
                && rows
                    .get(id)
                    .is_some_and(|row| row.answer.verdict == Verdict::Declined);
            if back != said.amount && !declined {
                self.scene.wrong(|| {
                    format!("{id} was approved too late to be told, and {back} went back: {said:?}")
                });
            }
        }
        for (id, said) in &kept.answers {
            let booked = rows.get(id).filter(|row| stands(row));
            let booked = booked.map(|row| Said::of(&row.answer, said.edge));
            let same = booked.is_some_and(|booked| booked.same(said));
            if !same && !kept.conflicts.contains(id) {
                self.scene
                    .wrong(|| format!("S3: {id} is {said:?} in the log, booked {booked:?}"));
            }
        }
        for (id, words) in &kept.words {
            let row = rows.get(id).filter(|row| stands(row));
            if let Some(row) = row.filter(|row| row.answer != *words)
                && !kept.conflicts.contains(id)
            {
                let booked = &row.answer;
                self.scene
                    .wrong(|| format!("S3: {id} replays {words:?}, booked {booked:?}"));
            }
        }
        for (id, row) in &rows {
            let by_lost_edge = kept
                .told
                .get(id)
                .into_iter()
                .flatten()
                .any(|said| said.exposed && kept.lost.contains(&said.edge));
            // An edge that ended after Postgres took its advice has told nobody; asked again, Postgres
            // says the same.
            let by_primary_alone = row.log.is_none();
            let heard = kept.answers.contains_key(id) || by_primary_alone || by_lost_edge;
            if stands(row) && !heard {
                self.scene
                    .wrong(|| format!("S4: {id} is booked and the log has not heard of it"));
            }
        }
    }
}

fn describe(entry: &Entry, outcome: &Outcome) -> String {
    let came = match outcome {
        Outcome::Answered(answer) => format!("answered {:?} {:?}", answer.reason, answer.rung),
        Outcome::Known(known) => format!(
            "known {:?} of edge {}, heard {}",
            known.answer.reason, known.edge, known.heard
        ),
        other => format!("{other:?}"),
    };
    match entry {
        Entry::Authorize(one) => format!(
            "log: edge {:?} proposes {} {:?} {:?}: {came}",
            (one.edge, one.start),
            one.transaction_id,
            one.reason,
            one.rung
        ),
        Entry::Advice(one) => format!(
            "log: edge {} advises {} {:?} {:?}: {came}",
            one.proposal.edge, one.answer.transaction_id, one.answer.reason, one.answer.rung
        ),
        Entry::Late(_) | Entry::Heard(_) | Entry::Told(_) | Entry::Reverse(_) => {
            format!("log: {entry:?}: {came}")
        }
        _ => format!("log: {:?}", std::mem::discriminant(entry)),
    }
}

fn note_trip(kept: &mut Kept, proposal: &Proposal) {
    let Some(trip) = &proposal.trip else { return };
    let known = kept.trips.entry(trip.id).or_default();
    if let Some(cap) = proposal.cap.filter(|_| trip.version >= known.version) {
        known.version = trip.version;
        known.cap = cap;
    }
    if trip.status != TripStatus::Shopping {
        known.closed = true;
    }
}
