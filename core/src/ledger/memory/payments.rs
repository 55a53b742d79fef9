//! Holds, final rows, conflicts and audit in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ops::Bound;

use uuid::Uuid;

use super::super::clearing::{KeptRun, RUN_ROWS_MAX, RunPlace};
use super::super::{
    Advice, Advised, AuditRow, AuthorizationRow, AuthorizationState, Booked, BookedCounts,
    ConflictRow, DrainStep, HoldReply, LedgerError, OpenTrip, ReconcileRun, ReversalRow, Rewording,
    SettlementRow, StaleHold, rows,
};
use super::platform::Platform;
use super::{PAYMENTS_MAX, RUNS_MAX, full};
use crate::answer::Verdict;
use crate::clock::Timestamp;
use crate::entry::{Booking, LogPosition, Proposal, Settlement};
use crate::id::{Fingerprint, ShopperId, TransactionId, TripId};
use crate::planted::{Planted, planted};
use crate::trip::{Approval, TripSheet, TripStatus};

/// What became of payments.
#[derive(Clone, Default)]
pub(super) struct Payments {
    /// Every transaction id that was ever claimed: by which request, of which shopper.
    claimed: HashMap<TransactionId, (Fingerprint, ShopperId)>,
    rows: BTreeMap<(ShopperId, TransactionId), AuthorizationRow>,
    /// Payments by the trip they count against.
    by_trip: HashMap<(ShopperId, TripId), BTreeSet<TransactionId>>,
    /// Holds without an outcome, by age.
    held: BTreeSet<(Timestamp, ShopperId, TransactionId)>,
    /// Reversals by payment and key, those of payments without a row among them.
    reversals: BTreeMap<(TransactionId, Uuid), ReversalRow>,
    settlements: BTreeMap<Uuid, Settlement>,
    cursors: HashMap<Uuid, u64>,
    conflicts: Vec<ConflictRow>,
    conflicting: BTreeSet<(Uuid, LogPosition)>,
    audit: Vec<AuditRow>,
    audited: HashSet<Uuid>,
    runs: VecDeque<ReconcileRun>,
}

// === impl Payments ===

impl Payments {
    pub(super) fn room(&self, more: usize) -> Result<(), LedgerError> {
        if self.claimed.len().saturating_add(more) > PAYMENTS_MAX {
            return Err(full("payments"));
        }
        Ok(())
    }

    pub(super) fn room_for_reversals(&self, more: usize) -> Result<(), LedgerError> {
        if self.reversals.len().saturating_add(more) > PAYMENTS_MAX {
            return Err(full("reversals"));
        }
        Ok(())
    }

    /// Claims a transaction id, and says which request of which shopper has it.
    fn claim(
        &mut self,
        id: TransactionId,
        print: Fingerprint,
        shopper: ShopperId,
    ) -> (Fingerprint, ShopperId) {
        *self.claimed.entry(id).or_insert((print, shopper))
    }

    pub(super) fn hold(
        &mut self,
        platform: &Platform,
        proposal: &Proposal,
        now: Timestamp,
    ) -> HoldReply {
        let id = proposal.transaction_id;
        let shopper = proposal.request.shopper;
        // A card may have been given to another since it was claimed.
        let (claimed, claimer) = self.claim(id, proposal.fingerprint, shopper);
        if claimed != proposal.fingerprint {
            return HoldReply::OtherFingerprint;
        }
        let trip = proposal.trip.as_ref().map(|trip| trip.id);
        let approved_before = trip.map_or(0, |trip| self.others(shopper, trip, id));
        if let Some(row) = self.rows.get(&(claimer, id)) {
            match row.state {
                AuthorizationState::Held if row.answer.trip == trip => {
                    return HoldReply::Held { approved_before };
                }
                // One that stands under another trip moves to this one, if it fits.
                AuthorizationState::Held => {}
                AuthorizationState::Final | AuthorizationState::Reversed => {
                    return HoldReply::Final(Box::new(row.answer.clone()));
                }
                AuthorizationState::Released => return HoldReply::Released,
            }
        }
        if proposal.reason.verdict() == Verdict::Declined {
            return HoldReply::Held { approved_before };
        }
        let status = trip.and_then(|trip| platform.status(shopper, trip));
        if status != Some(TripStatus::Shopping) {
            return HoldReply::NotShopping;
        }
        let sum = approved_before.checked_add(proposal.amount().minor());
        // Without a cap there is no room that could be shown.
        let fits = sum.is_some_and(|sum| proposal.cap.is_some_and(|cap| sum <= cap));
        if !fits || claimer != shopper {
            return HoldReply::CapSpent { approved_before };
        }
        let mut row = rows::held_row(proposal, now);
        row.answer.approved_before = approved_before;
        self.put(row);
        HoldReply::Held { approved_before }
    }

    /// Sum of a trip's approvals without one payment.
    fn others(&self, shopper: ShopperId, trip: TripId, id: TransactionId) -> i64 {
        self.approvals(shopper, trip)
            .filter(|approval| approval.transaction_id != id)
            .fold(0, |sum, approval| sum.saturating_add(approval.amount))
    }

    fn approvals(&self, shopper: ShopperId, trip: TripId) -> impl Iterator<Item = Approval> + '_ {
        let ids = self.by_trip.get(&(shopper, trip)).into_iter().flatten();
        ids.filter_map(move |id| {
            let row = self.rows.get(&(shopper, *id))?;
            let counts = match row.state {
                AuthorizationState::Held | AuthorizationState::Final => {
                    row.answer.verdict == Verdict::Approved
                }
                AuthorizationState::Released | AuthorizationState::Reversed => false,
            };
            let amount = row.answer.amount.minor().saturating_sub(row.reversed);
            (counts && amount > 0).then_some(Approval {
                transaction_id: *id,
                amount,
                at: row.final_at.or(row.held_at)?,
            })
        })
    }

    pub(super) fn with_approvals(&self, sheet: TripSheet) -> OpenTrip {
        let approvals = self.approvals(sheet.trip.shopper, sheet.trip.id).collect();
        OpenTrip { sheet, approvals }
    }

    /// Puts a row in the place of the one there, indexes included.
    fn put(&mut self, row: AuthorizationRow) {
        let (shopper, id) = (row.answer.shopper, row.answer.transaction_id);
        if let Some(old) = self.rows.get(&(shopper, id)) {
            if let Some(at) = old.held_at {
                self.held.remove(&(at, shopper, id));
            }
            if let Some(trip) = old.answer.trip
                && let Some(ids) = self.by_trip.get_mut(&(shopper, trip))
            {
                ids.remove(&id);
            }
        }
        if let (AuthorizationState::Held, Some(at)) = (row.state, row.held_at) {
            self.held.insert((at, shopper, id));
        }
        if let Some(trip) = row.answer.trip {
            self.by_trip.entry((shopper, trip)).or_default().insert(id);
        }
        self.rows.insert((shopper, id), row);
    }

    pub(super) fn cursor(&self, log: Uuid) -> u64 {
        self.cursors.get(&log).copied().unwrap_or(0)
    }

    pub(super) fn book(&mut self, step: &DrainStep) -> Booked {
        let cursor = self.cursor(step.log);
        if cursor != step.from && !planted(Planted::BookedTwice) {
            return Booked::Raced { cursor };
        }
        self.cursors.insert(step.log, step.to);
        if planted(Planted::CursorOutside) && step.to.is_multiple_of(7) {
            return Booked::Raced { cursor: step.to };
        }
        let mut counts = BookedCounts::default();
        for booking in &step.outcomes {
            let count = match self.finalize(step.log, booking) {
                Finalized::Now => &mut counts.finalized,
                Finalized::Before => &mut counts.already,
                Finalized::Conflict => &mut counts.conflicts,
            };
            *count = count.saturating_add(1);
        }
        for rewording in &step.rewordings {
            self.reword(step.log, rewording);
        }
        for row in &step.settlements {
            counts.conflicts = counts
                .conflicts
                .saturating_add(u64::from(!self.settle(step.log, row)));
        }
        for reversal in &step.reversals {
            self.reverse(reversal);
        }
        for action in &step.actions {
            if self.audited.insert(action.id) {
                self.audit.push(rows::audit_row(action));
            }
        }
        Booked::Moved(counts)
    }

    /// A planted bug's second booking.
    fn add_again(&mut self, answer: &crate::answer::Answer) {
        if let Some(row) = self.rows.get_mut(&(answer.shopper, answer.transaction_id)) {
            let amount = row.answer.amount;
            let sum = amount.minor().saturating_add(answer.amount.minor());
            row.answer.amount = crate::money::Money::from_minor(sum, amount.currency());
        }
    }

    fn finalize(&mut self, log: Uuid, booking: &Booking) -> Finalized {
        let answer = &booking.answer;
        let id = answer.transaction_id;
        let (claimed, _) = self.claim(id, answer.fingerprint, answer.shopper);
        let there = self.rows.get(&(answer.shopper, id));
        let held_at = there.and_then(|row| row.held_at);
        let stands = there.filter(|row| is_final(row.state));
        let clash = match stands {
            _ if claimed != answer.fingerprint => Some("other_fingerprint"),
            None => None,
            Some(_) if planted(Planted::BookedTwice) => {
                self.add_again(answer);
                return Finalized::Now;
            }
            Some(row) if rows::log_takes(row, answer) => None,
            Some(row) if row.answer.is_the_same(answer) => return Finalized::Before,
            Some(_) => Some("other_answer"),
        };
        if let Some(cause) = clash {
            if self.conflicting.insert((log, booking.at)) {
                self.conflicts.push(ConflictRow {
                    transaction_id: id,
                    log,
                    at: booking.at,
                    cause: cause.to_owned(),
                    outcome: rows::outcome_json(booking),
                });
            }
            return Finalized::Conflict;
        }
        self.put(AuthorizationRow {
            state: AuthorizationState::Final,
            answer: answer.clone(),
            store: booking.proposal.store,
            picked: booking.proposal.trip.as_ref().map(|trip| trip.picked),
            reversed: 0,
            held_at,
            log: Some((log, booking.at)),
            final_at: Some(rows::log_time(booking.log_time_ms)),
        });
        self.count_reversals(id);
        Finalized::Now
    }

    /// Gives a row of this log its other words.
    fn reword(&mut self, log: Uuid, rewording: &Rewording) {
        let Rewording { answer, at } = rewording;
        let found = self.rows.get(&(answer.shopper, answer.transaction_id));
        let Some(row) = found.filter(|row| {
            is_final(row.state)
                && row.log.is_some_and(|(of, place)| of == log && place < *at)
                && row.answer.fingerprint == answer.fingerprint
                && row.answer.is_the_same(answer)
        }) else {
            return;
        };
        self.put(AuthorizationRow {
            answer: answer.clone(),
            ..row.clone()
        });
    }

    /// The row of a payment, whoever's it is.
    pub(super) fn row(&self, id: TransactionId) -> Option<AuthorizationRow> {
        let (_, shopper) = self.claimed.get(&id)?;
        self.rows.get(&(*shopper, id)).cloned()
    }

    pub(super) fn advise(&mut self, advice: &Advice) -> Result<Advised, LedgerError> {
        let Advice {
            proposal,
            answer,
            at,
        } = advice;
        let id = answer.transaction_id;
        let same = id == proposal.transaction_id
            && answer.fingerprint == proposal.fingerprint
            && answer.shopper == proposal.request.shopper;
        if !same {
            return Err(rows::wrong("an advice that answers another payment"));
        }
        let Some((claimed, _)) = self.claimed.get(&id) else {
            return Ok(Advised::NoHold);
        };
        if *claimed != answer.fingerprint {
            return Ok(Advised::OtherFingerprint);
        }
        let held_at = match self.rows.get(&(answer.shopper, id)) {
            Some(row) => match row.state {
                AuthorizationState::Held => row.held_at,
                AuthorizationState::Final | AuthorizationState::Reversed => {
                    return Ok(Advised::Stored(Box::new(row.answer.clone())));
                }
                AuthorizationState::Released => return Ok(Advised::Released),
            },
            // A decline holds nothing but its id.
            None if answer.verdict == Verdict::Declined => None,
            None => return Ok(Advised::NoHold),
        };
        self.put(AuthorizationRow {
            state: AuthorizationState::Final,
            answer: answer.clone(),
            store: proposal.store,
            picked: proposal.trip.as_ref().map(|trip| trip.picked),
            reversed: 0,
            held_at,
            log: None,
            final_at: Some(*at),
        });
        self.count_reversals(id);
        Ok(Advised::Final)
    }

    /// Keeps a movement of money; says whether none other has its id.
    fn settle(&mut self, log: Uuid, row: &SettlementRow) -> bool {
        let SettlementRow { settlement, at } = row;
        let known = self.settlements.entry(settlement.id);
        let known = known.or_insert_with(|| settlement.clone());
        if rows::same_settlement(known, settlement) {
            return true;
        }
        if self.conflicting.insert((log, *at)) {
            self.conflicts.push(ConflictRow {
                transaction_id: rows::payment_of(settlement),
                log,
                at: *at,
                cause: rows::OTHER_SETTLEMENT.to_owned(),
                outcome: serde_json::json!(settlement),
            });
        }
        false
    }

    pub(super) fn settlements(&self, after: Option<Uuid>, limit: u32) -> Vec<Settlement> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let range = self.settlements.range((from, Bound::Unbounded));
        range.take(limit).map(|(_, kept)| kept.clone()).collect()
    }

    /// Movements of some payments, by id.
    pub(super) fn movements_of(&self, payments: &[TransactionId]) -> Vec<Settlement> {
        let payments: BTreeSet<TransactionId> = payments.iter().copied().collect();
        let of = |kept: &&Settlement| kept.transaction_id.is_some_and(|id| payments.contains(&id));
        self.settlements.values().filter(of).cloned().collect()
    }

    /// Which of some payments have an outcome in `conflicts`.
    pub(super) fn conflicted_among(&self, payments: &[TransactionId]) -> BTreeSet<TransactionId> {
        let payments: BTreeSet<TransactionId> = payments.iter().copied().collect();
        let conflicts = self.conflicts.iter().map(|row| row.transaction_id);
        conflicts.filter(|id| payments.contains(id)).collect()
    }

    /// How far every log was drained, by log.
    pub(super) fn cursors(&self) -> Vec<(Uuid, u64)> {
        let mut all: Vec<_> = self.cursors.iter().map(|(log, at)| (*log, *at)).collect();
        all.sort_unstable();
        all
    }

    pub(super) fn audit_action(&mut self, row: Option<AuditRow>) {
        self.audit.extend(row);
    }

    pub(super) fn room_for_settlements(&self, more: usize) -> Result<(), LedgerError> {
        if self.settlements.len().saturating_add(more) > PAYMENTS_MAX {
            return Err(full("settlements"));
        }
        Ok(())
    }

    fn reverse(&mut self, reversal: &ReversalRow) {
        let id = reversal.transaction_id;
        self.reversals
            .entry((id, reversal.reversal_id))
            .or_insert_with(|| reversal.clone());
        self.count_reversals(id);
    }

    /// Counts what is reversed of a payment that is final.
    fn count_reversals(&mut self, id: TransactionId) {
        let Some((_, shopper)) = self.claimed.get(&id) else {
            return;
        };
        let Some(row) = self.rows.get(&(*shopper, id)) else {
            return;
        };
        let answer = &row.answer;
        let counts = match row.state {
            AuthorizationState::Final | AuthorizationState::Reversed => {
                answer.verdict == Verdict::Approved
            }
            AuthorizationState::Held | AuthorizationState::Released => false,
        };
        let of_payment = (id, Uuid::nil())..=(id, Uuid::max());
        let sum = self
            .reversals
            .range(of_payment)
            .filter(|(_, r)| r.amount > 0 && r.currency == answer.amount.currency())
            .fold(0_i64, |sum, (_, r)| sum.saturating_add(r.amount));
        if !counts || sum == 0 {
            return;
        }
        let mut row = row.clone();
        row.reversed = sum.min(row.answer.amount.minor());
        if row.reversed == row.answer.amount.minor() {
            row.state = AuthorizationState::Reversed;
        }
        self.put(row);
    }

    pub(super) fn rows_after(
        &self,
        after: Option<(ShopperId, TransactionId)>,
        limit: u32,
    ) -> Vec<AuthorizationRow> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let rows = self.rows.range((from, Unbounded));
        rows.map(|(_, row)| row.clone()).take(many(limit)).collect()
    }

    pub(super) fn stale_holds(&self, before: Timestamp, limit: u32) -> Vec<StaleHold> {
        let stale = self.held.iter().take_while(|(at, ..)| *at < before);
        stale
            .filter_map(|(held_at, shopper, id)| {
                let row = self.rows.get(&(*shopper, *id))?;
                Some(StaleHold {
                    shopper: *shopper,
                    transaction_id: *id,
                    amount: row.answer.amount.minor(),
                    held_at: *held_at,
                })
            })
            .take(many(limit))
            .collect()
    }

    pub(super) fn release(&mut self, holds: &[StaleHold]) -> u64 {
        let mut released = 0_u64;
        for hold in holds {
            let found = self.rows.get(&(hold.shopper, hold.transaction_id));
            if let Some(row) = found.filter(|row| row.state == AuthorizationState::Held) {
                let mut row = row.clone();
                row.state = AuthorizationState::Released;
                self.put(row);
                released = released.saturating_add(1);
            }
        }
        released
    }

    pub(super) fn conflicts(&self, limit: u32) -> Vec<ConflictRow> {
        self.conflicts.iter().take(many(limit)).cloned().collect()
    }

    pub(super) fn audit(&self, limit: u32) -> Vec<AuditRow> {
        let mut audit = self.audit.clone();
        audit.sort_by_key(|row| row.at);
        audit.truncate(many(limit));
        audit
    }

    pub(super) fn record_run(&mut self, run: ReconcileRun) {
        if self.runs.iter().any(|kept| kept.id == run.id) {
            return;
        }
        if self.runs.len() >= RUNS_MAX {
            self.runs.pop_front();
        }
        self.runs.push_back(run);
    }

    pub(super) fn runs(&self, before: Option<RunPlace>, limit: u32) -> Vec<KeptRun> {
        let kept = self.runs.iter().map(|run| KeptRun {
            id: run.id,
            started_at: run.started_at,
            ended_at: run.ended_at,
            report: run.report.clone(),
        });
        let is_before = |run: &KeptRun| before.is_none_or(|before| run.place() < before);
        let mut kept: Vec<KeptRun> = kept.filter(is_before).collect();
        kept.sort_by_key(|run| std::cmp::Reverse(run.place()));
        kept.truncate(many(limit).min(RUN_ROWS_MAX));
        kept
    }
}

/// What became of one outcome.
enum Finalized {
    Now,
    Before,
    Conflict,
}

const fn is_final(state: AuthorizationState) -> bool {
    matches!(
        state,
        AuthorizationState::Final | AuthorizationState::Reversed
    )
}

fn many(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}
