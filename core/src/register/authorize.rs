//! Making a proposal an answer.

use super::{Flag, Outcome, Recall, Record, Register, recalled};
use crate::answer::{Answer, Reason, Rung, Verdict};
use crate::clock::Timestamp;
use crate::decide::{FloorLimits, Limits, StandInLimits, StandInUse, Tally};
use crate::entry::{LogPosition, Proposal};
use crate::planted::{Planted, planted};
use crate::trip::Approval;

// === impl Register ===

impl Register {
    pub(super) fn authorize(&mut self, at: LogPosition, proposal: &Proposal) -> Outcome {
        let id = proposal.transaction_id;
        match self.recall(id, &proposal.fingerprint) {
            Recall::Unknown => {}
            Recall::Known(recalled) => {
                self.counts.repeated = self.counts.repeated.saturating_add(1);
                // What it saw of its trip is news all the same.
                if let Some(trip) = &proposal.trip {
                    self.trips.see(proposal, trip, self.log_time_ms);
                }
                return Outcome::Known(recalled);
            }
            Recall::OtherFingerprint => return Outcome::OtherFingerprint,
            Recall::Tombstoned => return Outcome::Tombstoned,
        }
        let (reason, approved_before) = self.judge(proposal);
        // The primary sees other regions: what it said was spent is what the bank is told.
        let approved_before = match (proposal.reason, proposal.rung) {
            (Reason::OverCap, Rung::Primary) => approved_before.max(proposal.approved_before),
            _ => approved_before,
        };
        let answer = proposal.answer(reason, approved_before);
        let turned = answer.verdict != proposal.reason.verdict();
        self.counts.turned = self.counts.turned.saturating_add(u64::from(turned));
        self.count(&answer);
        let record = Record::answered(&answer, at, proposal);
        self.payments.insert(id, record, self.log_time_ms);
        Outcome::Answered(Box::new(answer))
    }

    /// The final reason, and the trip's approvals before this payment.
    fn judge(&mut self, proposal: &Proposal) -> (Reason, i64) {
        let Some(trip) = &proposal.trip else {
            return (proposal.reason, proposal.approved_before);
        };
        let record = self.trips.see(proposal, trip, self.log_time_ms);
        let before = record.sum_without(proposal.transaction_id);
        if proposal.reason.verdict() == Verdict::Declined {
            return (proposal.reason, before);
        }
        let amount = proposal.amount().minor();
        let log_time_ms = self.log_time_ms;
        let used = |tallies: &super::StandInTallies| {
            tallies.of(trip.shopper, &proposal.request.bank, log_time_ms)
        };
        let slack = i64::from(planted(Planted::CapOffByOne));
        let sum = before.checked_add(amount);
        let reason = match sum.map(|sum| sum.saturating_sub(slack)) {
            _ if record.closed => Reason::NotShopping,
            // It charges nothing: no limit of money or number is touched.
            Some(sum) if amount == 0 && sum <= record.cap => proposal.reason,
            _ if record.is_double_swipe(proposal, log_time_ms) => Reason::DoubleSwipe,
            None => Reason::OverCap,
            Some(sum) if sum > record.cap => Reason::OverCap,
            Some(sum) => match &proposal.limits {
                Limits::Cap => proposal.reason,
                Limits::StandIn(limits) => {
                    if fits_stand_in(limits, &used(&self.tallies), sum, amount) {
                        proposal.reason
                    } else {
                        Reason::StandInLimit
                    }
                }
                Limits::Floor(limits) => {
                    if fits_floor(limits, &used(&self.tallies), amount) {
                        proposal.reason
                    } else {
                        Reason::FloorLimit
                    }
                }
            },
        };
        if reason.verdict() == Verdict::Approved && amount != 0 {
            record.approve(approval(proposal, log_time_ms));
        }
        (reason, before)
    }

    /// Counts an answer, and against the limits of its rung if it approves.
    pub(super) fn count(&mut self, answer: &Answer) {
        self.counts.answered = self.counts.answered.saturating_add(1);
        if answer.verdict == Verdict::Declined {
            return;
        }
        self.counts.approved = self.counts.approved.saturating_add(1);
        let amount = answer.amount.minor();
        if amount == 0 {
            return;
        }
        match answer.rung {
            Rung::Primary | Rung::PrimaryOnly | Rung::Bank => return,
            Rung::StandIn => {
                self.tallies
                    .stood_in(answer.shopper, &answer.bank, amount, self.log_time_ms)
            }
            Rung::Isolated => self
                .tallies
                .on_floor(answer.shopper, amount, self.log_time_ms),
        }
        self.counts.exposed_minor = self.counts.exposed_minor.saturating_add(amount);
    }

    /// The bank is told a stored answer once more.
    pub(super) fn hear_again(&mut self, id: crate::id::TransactionId) -> Outcome {
        if self.payments.get(id).is_none() {
            return Outcome::Noted;
        }
        if !planted(Planted::HeardIgnored) {
            self.payments.set(id, Flag::Heard, true);
            self.corrections.stands(id);
        }
        let Some(record) = self.payments.get(id) else {
            return Outcome::Noted;
        };
        match record.answer() {
            Some(answer) if !record.is(Flag::Released) => Outcome::Known(recalled(record, answer)),
            Some(_) | None => Outcome::Tombstoned,
        }
    }
}

/// What a proposal's approval counts, from `log_time_ms` on.
pub(super) fn approval(proposal: &Proposal, log_time_ms: u64) -> Approval {
    let at =
        i64::try_from(log_time_ms).map_or(Timestamp::from_millis(i64::MAX), Timestamp::from_millis);
    Approval {
        transaction_id: proposal.transaction_id,
        amount: proposal.amount().minor(),
        at,
    }
}

/// Whether an approval of `amount` that makes the trip's sum `sum` fits the stand-in limits.
pub fn fits_stand_in(limits: &StandInLimits, used: &StandInUse, sum: i64, amount: i64) -> bool {
    let fits = |limit: Tally, used: Tally| {
        used.amount
            .checked_add(amount)
            .is_some_and(|total| total <= limit.amount)
            && used.count < limit.count
    };
    amount <= limits.transaction
        && sum <= limits.trip
        && fits(limits.shopper_outage, used.shopper_outage)
        && fits(limits.shopper_hour, used.shopper_hour)
        && fits(limits.bank_outage, used.bank_outage)
        && fits(limits.bank_hour, used.bank_hour)
}

/// Whether an approval of `amount` fits the floor limit, its window and the reserve.
pub fn fits_floor(limits: &FloorLimits, used: &StandInUse, amount: i64) -> bool {
    amount <= limits.floor
        && used
            .since_floor_ms
            .is_none_or(|since| since >= limits.window_ms)
        && used
            .reserve
            .amount
            .checked_add(amount)
            .is_some_and(|sum| sum <= limits.reserve.amount)
        && used.reserve.count < limits.reserve.count
}
