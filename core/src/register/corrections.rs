//! What comes after the answer: advices, late marks, reversals, grants.
//!
//! An advice was given without the log, so it always stands: it is counted, flagged when it is more
//! than the trip allowed, and where it meets another answer both are kept, the approval counts and
//! replays, and a conflict is recorded.
//!
//! A late mark is the word of the edge that proposed a payment and did not learn its fate in time. An
//! approval of that edge's is then one that the bank may never have heard of: it counts and replays,
//! and is given back after the bank's retry window, unless the bank was told meanwhile
//! ([`Entry::Heard`](crate::entry::Entry::Heard)).

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::authorize::approval;
use super::{Flag, Outcome, Record, Register, recalled};
use crate::answer::{Answer, Verdict};
use crate::decide::Tally;
use crate::entry::{Advice, Grant, LateMark, LogPosition, Reversal, ReversalCause};
use crate::id::{ShopperId, TransactionId};
use crate::planted::{Planted, planted};

/// Conflicts kept for the status page; more are counted only.
const CONFLICTS_MAX: usize = 64;

/// What an edge may approve while it is cut off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Granted {
    /// Of which start of the edge.
    pub incarnation: Uuid,
    /// How much, and how often.
    pub reserve: Tally,
}

/// An advice that met another answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Conflict {
    /// The payment.
    pub transaction_id: TransactionId,
    /// The log index of the advice.
    pub index: u64,
    /// What the log had said; `None`: the payment was given up, or the id was another request's.
    pub logged: Option<Verdict>,
    /// What the bank had been told.
    pub told: Verdict,
    /// Minor units at stake.
    pub amount: i64,
}

/// What is kept for it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Corrections {
    /// Payments that edges marked late: by which edge, and when, in log time.
    late: BTreeMap<TransactionId, BTreeMap<u64, u64>>,
    conflicts: VecDeque<Conflict>,
    /// Answers that gave way to an advice before they were surely drained, and where they were given.
    superseded: BTreeMap<TransactionId, (LogPosition, Answer)>,
}

// === impl Granted ===

impl From<&Grant> for Granted {
    fn from(grant: &Grant) -> Self {
        Self {
            incarnation: grant.incarnation,
            reserve: grant.reserve,
        }
    }
}

// === impl Corrections ===

impl Corrections {
    pub(super) fn superseded(&self, id: TransactionId, at: LogPosition) -> Option<&Answer> {
        let (given_at, answer) = self.superseded.get(&id)?;
        (*given_at == at).then_some(answer)
    }

    pub(super) fn forget(&mut self, id: TransactionId) {
        self.superseded.remove(&id);
    }

    /// Marks of payments that never came are as old as the payments would be.
    pub(super) fn forget_late(&mut self, before_ms: u64) {
        self.late.retain(|_, marks| {
            marks.retain(|_, since_ms| *since_ms >= before_ms);
            !marks.is_empty()
        });
    }

    pub(super) fn stands(&mut self, id: TransactionId) {
        self.late.remove(&id);
    }

    /// Since when the edge whose entry it was has marked a payment late.
    fn late_since(&self, id: TransactionId, record: &Record) -> Option<u64> {
        self.late.get(&id)?.get(&record.edge).copied()
    }
}

// === impl Register ===

impl Register {
    /// What each edge may approve while it is cut off, by its number.
    pub fn grants(&self) -> impl Iterator<Item = (u64, &Granted)> {
        self.grants.iter().map(|(edge, granted)| (*edge, granted))
    }

    /// What this start of an edge was granted.
    pub fn granted(&self, edge: u64, incarnation: Uuid) -> Option<Tally> {
        let granted = self.grants.get(&edge)?;
        (granted.incarnation == incarnation).then_some(granted.reserve)
    }

    /// Recent advices that met another answer, oldest first.
    pub fn conflicts(&self) -> impl Iterator<Item = &Conflict> {
        self.corrections.conflicts.iter()
    }

    /// Whether this edge has marked its entries of a payment late, those that are yet to come included,
    /// and nobody was told since.
    pub fn is_marked(&self, id: TransactionId, edge: u64) -> bool {
        let marks = self.corrections.late.get(&id);
        marks.is_some_and(|marks| marks.contains_key(&edge))
    }

    /// Approvals that were marked late at least `window_ms` of log time ago and that nobody was told
    /// since; `now_ms` is a log time that is surely reached.
    pub fn overdue(&self, window_ms: u64, now_ms: u64) -> Vec<(TransactionId, ShopperId)> {
        let overdue = |id: &TransactionId| {
            let record = self.payments.get(*id)?;
            let since_ms = self.corrections.late_since(*id, record)?;
            let answer = record.answer()?;
            let goes =
                answer.verdict == Verdict::Approved && now_ms.saturating_sub(since_ms) >= window_ms;
            goes.then_some((*id, answer.shopper))
        };
        self.corrections.late.keys().filter_map(overdue).collect()
    }

    pub(super) fn advise(&mut self, at: LogPosition, advice: &Advice) -> Outcome {
        let Advice {
            proposal, answer, ..
        } = advice;
        let id = answer.transaction_id;
        if planted(Planted::AdviceRefused) && !self.fits_cap(advice) {
            return Outcome::Noted;
        }
        let Some(record) = self.payments.get(id).cloned() else {
            let over = self.count_advice(advice);
            let record = Record::answered(answer, at, proposal);
            self.payments.insert(id, record, self.log_time_ms);
            self.payments.set(id, Flag::Over, over);
            self.advised(id);
            self.was_told(id, answer.verdict);
            return Outcome::Answered(Box::new(answer.clone()));
        };
        let logged = record.answer();
        match logged {
            Some(logged) if logged.fingerprint != answer.fingerprint => {
                self.conflict(at, None, answer);
                Outcome::OtherFingerprint
            }
            Some(logged) if record.is(Flag::Released) || logged.verdict != answer.verdict => {
                self.meet_another(at, &record, logged, advice);
                self.known(id)
            }
            Some(logged) => {
                // The bank holds the advice's bytes, and the log's only if it heard of them: surely not
                // when they are of the same edge's own entry, unless they were told again.
                let own = record.start == proposal.start;
                if logged != *answer && own && !record.is(Flag::Heard) {
                    self.payments.replace(id, answer);
                }
                self.advised(id);
                self.was_told(id, answer.verdict);
                self.known(id)
            }
            None => {
                self.conflict(at, None, answer);
                let over = self.count_advice(advice);
                self.payments.supersede(id, answer, at);
                self.payments.set(id, Flag::Over, over);
                self.advised(id);
                self.was_told(id, answer.verdict);
                self.known(id)
            }
        }
    }

    /// The other answer was in the log: both are kept, the approval counts and is what replays.
    fn meet_another(&mut self, at: LogPosition, record: &Record, logged: Answer, advice: &Advice) {
        let (id, told) = (logged.transaction_id, advice.answer.verdict);
        self.conflict(at, Some(logged.verdict), &advice.answer);
        self.advised(id);
        match (logged.verdict, told) {
            (Verdict::Approved, _) => {
                // It may have been given back: told, it counts again.
                self.payments.set(id, Flag::Released, false);
                if let Some(trip) = logged.trip.filter(|_| told == Verdict::Approved)
                    && let Some(trip) = self.trips.get_mut(trip)
                {
                    trip.restore(id);
                }
            }
            (Verdict::Declined, _) => {
                let over = self.count_advice(advice);
                let before = (record.at, logged);
                self.corrections.superseded.insert(id, before);
                self.payments.supersede(id, &advice.answer, at);
                self.payments.set(id, Flag::Over, over);
            }
        }
    }

    /// Counts what was given; says whether it was more than the trip allowed.
    /// What a planted bug asks of an advice.
    fn fits_cap(&mut self, advice: &Advice) -> bool {
        let Some(trip) = &advice.proposal.trip else {
            return true;
        };
        let record = self.trips.see(&advice.proposal, trip, self.log_time_ms);
        let sum = record.sum_without(advice.answer.transaction_id);
        !record.closed && sum.saturating_add(advice.answer.amount.minor()) <= record.cap
    }

    fn count_advice(&mut self, advice: &Advice) -> bool {
        let Advice {
            proposal, answer, ..
        } = advice;
        self.count(answer);
        let Some(trip) = &proposal.trip else {
            return false;
        };
        let record = self.trips.see(proposal, trip, self.log_time_ms);
        if answer.verdict == Verdict::Declined {
            return false;
        }
        let sum = record
            .sum_without(answer.transaction_id)
            .checked_add(answer.amount.minor());
        let over = record.closed || sum.is_none_or(|sum| sum > record.cap);
        record.approve(approval(proposal, self.log_time_ms));
        self.counts.advised_over = self.counts.advised_over.saturating_add(u64::from(over));
        over
    }

    /// The bank was told: whatever was or will be marked late, an approval stands.
    fn was_told(&mut self, id: TransactionId, verdict: Verdict) {
        if verdict == Verdict::Approved {
            self.payments.set(id, Flag::Heard, true);
        }
        self.corrections.stands(id);
    }

    fn advised(&mut self, id: TransactionId) {
        let first = self.payments.set(id, Flag::Advised, true);
        self.counts.advised = self.counts.advised.saturating_add(u64::from(first));
    }

    /// The bank was told a stored answer again while the log could not be asked: it stands.
    pub(super) fn told(&mut self, at: LogPosition, id: TransactionId) {
        self.payments.set(id, Flag::Heard, true);
        self.corrections.stands(id);
        let Some(answer) = self.payments.get(id).and_then(Record::answer) else {
            return;
        };
        if !self.payments.set(id, Flag::Released, false) {
            return;
        }
        self.conflict(at, None, &answer);
        if let Some(trip) = answer.trip.and_then(|trip| self.trips.get_mut(trip)) {
            trip.restore(id);
        }
    }

    fn conflict(&mut self, at: LogPosition, logged: Option<Verdict>, told: &Answer) {
        self.counts.conflicts = self.counts.conflicts.saturating_add(1);
        let conflicts = &mut self.corrections.conflicts;
        if conflicts.len() >= CONFLICTS_MAX {
            conflicts.pop_front();
        }
        conflicts.push_back(Conflict {
            transaction_id: told.transaction_id,
            index: at.index,
            logged,
            told: told.verdict,
            amount: told.amount.minor(),
        });
    }

    fn known(&self, id: TransactionId) -> Outcome {
        let record = self.payments.get(id);
        let answered = record.and_then(|record| Some((record, record.answer()?)));
        answered.map_or(Outcome::Tombstoned, |(record, answer)| {
            Outcome::Known(recalled(record, answer))
        })
    }

    pub(super) fn mark_late(&mut self, mark: &LateMark) {
        if planted(Planted::LateMarkLost) {
            return;
        }
        let id = mark.transaction_id;
        let heard = |record: &Record| record.is(Flag::Heard) || record.edge != mark.edge;
        if self.payments.get(id).is_some_and(heard) {
            return;
        }
        let marks = self.corrections.late.entry(id).or_default();
        if marks.insert(mark.edge, self.log_time_ms).is_none() {
            self.counts.late = self.counts.late.saturating_add(1);
        }
    }

    pub(super) fn reverse(&mut self, at: LogPosition, reversal: &Reversal) -> Outcome {
        let id = reversal.transaction_id;
        let late = reversal.cause == ReversalCause::Late;
        let Some(record) = self.payments.get(id) else {
            if reversal.booked_in.is_some() {
                // Older than the window: the ledger alone keeps account of it.
                return Outcome::Reversed(reversal.amount.unwrap_or(0));
            }
            // A reversal that comes before its authorization forbids it.
            return if late {
                Outcome::Noted
            } else {
                self.tombstone(at, id)
            };
        };
        if late && (record.is(Flag::Heard) || self.corrections.late_since(id, record).is_none()) {
            return self.known(id);
        }
        let answer = record.answer();
        let Some((answer, trip)) = answer.and_then(|answer| {
            let trip = answer.trip?;
            (answer.verdict == Verdict::Approved).then_some((answer, trip))
        }) else {
            return Outcome::Noted;
        };
        let Some(trip) = self.trips.get_mut(trip) else {
            return Outcome::Noted;
        };
        if !late && trip.has_other_reversal(id, reversal.id) {
            return Outcome::OtherFingerprint;
        }
        let again = trip.reversal(id, reversal.id).is_some();
        let back = trip.reverse(&payment(&answer), reversal.id, reversal.amount);
        if late {
            self.corrections.stands(id);
            self.payments.set(id, Flag::Released, true);
            self.counts.released = self.counts.released.saturating_add(u64::from(!again));
        }
        let unheeded = reversal.cause == ReversalCause::Unheeded && !again;
        self.counts.late = self.counts.late.saturating_add(u64::from(unheeded));
        self.counts.reversed = self.counts.reversed.saturating_add(u64::from(!again));
        Outcome::Reversed(back)
    }
}

fn payment(answer: &Answer) -> crate::trip::Approval {
    crate::trip::Approval {
        transaction_id: answer.transaction_id,
        amount: answer.amount.minor(),
        at: crate::clock::Timestamp::from_millis(0),
    }
}
