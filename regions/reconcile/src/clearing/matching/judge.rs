//! One payment with its lines, and one line without a payment.

use standin_core::clock::Timestamp;
use standin_core::ledger::AuthorizationState;
use standin_core::ledger::clearing::ClearingLine;
use standin_core::money::Money;

use super::super::kind::{DiscrepancyKind, PaymentState};
use super::{
    Cleared, Discrepancy, Payment, PaymentOutcome, Scope, Standing, answered_at, approved,
};

/// What was found of one payment.
struct Findings<'a> {
    payment: &'a Payment,
    cleared: &'a Cleared,
    authorized: i64,
    found: Vec<Discrepancy>,
}

/// Judges a payment; what does not fit is added to `found`.
pub(super) fn payment(
    payment: &Payment,
    cleared: &Cleared,
    scope: &Scope,
    found: &mut Vec<Discrepancy>,
) -> PaymentOutcome {
    let authorized = approved(&payment.row);
    let mut findings = Findings {
        payment,
        cleared,
        authorized,
        found: Vec::new(),
    };
    let fits = findings.judge(scope);
    let worst = findings.found.iter().map(|found| found.kind).min();
    found.append(&mut findings.found);
    let currency = payment.row.answer.amount.currency();
    PaymentOutcome {
        transaction_id: payment.row.answer.transaction_id,
        standing: worst.map_or(Standing::Fits(fits), Standing::Off),
        authorized: Money::from_minor(authorized, currency),
        cleared: Money::from_minor(cleared.net(), currency),
    }
}

/// What a line without a payment is.
pub(super) fn line(line: &ClearingLine, kind: DiscrepancyKind, scope: &Scope) -> Discrepancy {
    let subject = match (kind, line.reference) {
        // What was told again is this line, not what it tells.
        (DiscrepancyKind::RepeatedLine, _) | (_, None) => {
            format!("line {} of {}", line.line, scope.sha256)
        }
        (_, Some(reference)) => format!("reference {reference}"),
    };
    let what = line.kind.as_str();
    let detail = match kind {
        DiscrepancyKind::RepeatedLine => {
            format!("a {what} of {} that was told before", line.amount)
        }
        DiscrepancyKind::Ambiguous => {
            format!("a {what} of {} that fits several payments", line.amount)
        }
        _ => format!(
            "a {what} of {} without a payment in the ledger",
            line.amount
        ),
    };
    Discrepancy {
        kind,
        subject,
        transaction_id: line.transaction_id,
        shopper: line.shopper,
        row: None,
        line: Some(line.line),
        authorized: None,
        cleared: Some(line.amount.minor()),
        receipt: None,
        at_stake: line.amount,
        at: line.at,
        detail,
    }
}

// === impl Findings ===

impl Findings<'_> {
    /// Finds what does not fit, and says where the payment stands if nothing was found.
    fn judge(&mut self, scope: &Scope) -> PaymentState {
        if self.payment.conflicted {
            self.find(
                DiscrepancyKind::Conflicted,
                self.payment.row.answer.amount,
                "has another answer that could not be booked",
            );
        }
        self.judge_strangers();
        let charged = !self.cleared.charges.is_empty() || !self.cleared.foreign.is_empty();
        match self.payment.row.state {
            AuthorizationState::Held | AuthorizationState::Released => {
                if charged {
                    let net = self.net();
                    let held = self.payment.row.state.as_str();
                    let what = format!("is {held} and was charged {net}");
                    self.find(DiscrepancyKind::ClearedUnanswered, net, &what);
                }
                PaymentState::Pending
            }
            AuthorizationState::Final | AuthorizationState::Reversed => self.judge_answer(scope),
        }
    }

    /// What is wrong whatever the answer was.
    fn judge_strangers(&mut self) {
        if let Some(first) = self.cleared.foreign.first() {
            let sum = self
                .cleared
                .foreign
                .iter()
                .filter(|other| other.currency() == first.currency())
                .fold(0_i64, |sum, other| sum.saturating_add(other.minor()));
            let sum = Money::from_minor(sum, first.currency());
            let what = format!("moved {sum}, in another currency");
            self.find(DiscrepancyKind::CurrencyMismatch, sum, &what);
        }
        if self.cleared.other_shopper {
            let charged = self.money(self.cleared.charged);
            self.find(
                DiscrepancyKind::ShopperMismatch,
                charged,
                "was charged to another shopper's card",
            );
        }
        let told: Vec<_> = self
            .payment
            .movements
            .iter()
            .filter(|one| one.kind != standin_core::entry::SettlementKind::Refund)
            .filter(|one| one.amount.currency() == self.payment.row.answer.amount.currency())
            .map(|one| one.amount.minor())
            .collect();
        let told_sum = told.iter().fold(0_i64, |sum, one| sum.saturating_add(*one));
        if !told.is_empty() && !self.cleared.charges.is_empty() && told_sum != self.cleared.charged
        {
            let off = told_sum
                .saturating_sub(self.cleared.charged)
                .saturating_abs();
            let (told, charged) = (self.money(told_sum), self.money(self.cleared.charged));
            let what = format!("was charged {told} by the bank's message, {charged} by its file");
            self.find(DiscrepancyKind::BankDisagrees, self.money(off), &what);
        }
        let over = self.cleared.refunded.saturating_sub(self.cleared.charged);
        if over > 0 {
            let (back, charged) = (
                self.money(self.cleared.refunded),
                self.money(self.cleared.charged),
            );
            let what = format!("got {back} back of {charged}");
            self.find(DiscrepancyKind::RefundUnmatched, self.money(over), &what);
        }
    }

    fn judge_answer(&mut self, scope: &Scope) -> PaymentState {
        let row = &self.payment.row;
        let was_declined = row.answer.verdict == standin_core::answer::Verdict::Declined;
        let charged = !self.cleared.charges.is_empty();
        if was_declined {
            if charged {
                let net = self.net();
                let what = format!("was declined ({}) and charged {net}", row.answer.reason);
                self.find(DiscrepancyKind::ClearedDeclined, net, &what);
            }
            return PaymentState::Declined;
        }
        let more = self.cleared.reversed.saturating_sub(row.reversed);
        if more > 0 {
            let what = format!(
                "was reversed by {} at the bank, by {} here",
                self.money(self.cleared.reversed),
                self.money(row.reversed)
            );
            self.find(DiscrepancyKind::ReversalUnmatched, self.money(more), &what);
        }
        if charged {
            return self.judge_charged(scope);
        }
        self.judge_uncharged(scope)
    }

    fn judge_uncharged(&mut self, scope: &Scope) -> PaymentState {
        if self.authorized == 0 {
            return PaymentState::Reversed;
        }
        let authorized = self.money(self.authorized);
        if self.cleared.declined {
            let what = format!("was approved ({authorized}) and the bank declined in the end");
            self.find(DiscrepancyKind::MissingAtBank, authorized, &what);
            return PaymentState::Pending;
        }
        let at = answered_at(&self.payment.row).as_millis();
        let age = scope.as_of.as_millis().saturating_sub(at);
        let other_money = !self.cleared.foreign.is_empty();
        if age > scope.rules.late_ms() && !other_money && self.cleared.reversed == 0 {
            let days = scope.rules.late_days;
            let what = format!("was approved ({authorized}) and not charged within {days} days");
            self.find(DiscrepancyKind::NoClearing, authorized, &what);
        }
        PaymentState::Pending
    }

    fn judge_charged(&mut self, scope: &Scope) -> PaymentState {
        let (charged, authorized) = (self.cleared.charged, self.authorized);
        if authorized == 0 {
            let charged = self.money(charged);
            let what = format!("was reversed in full and charged {charged}");
            self.find(DiscrepancyKind::ClearedAfterReversal, charged, &what);
            return PaymentState::Reversed;
        }
        self.judge_lateness(scope);
        let off = charged.saturating_sub(authorized);
        if off.saturating_abs() <= scope.rules.variance(authorized) {
            return if off == 0 {
                PaymentState::Matched
            } else {
                PaymentState::MatchedWithVariance
            };
        }
        let (is, of) = (self.money(charged), self.money(authorized));
        let stake = self.money(off.saturating_abs());
        if off < 0 {
            let what = format!("was charged {is} of {of}");
            self.find(DiscrepancyKind::UnderCapture, stake, &what);
        } else if self.cleared.has_twins() {
            let what = format!("was charged {is} of {of}, the same amount more than once");
            self.find(DiscrepancyKind::DuplicateClearing, stake, &what);
        } else {
            let what = format!("was charged {is} of {of}");
            self.find(DiscrepancyKind::OverCapture, stake, &what);
        }
        PaymentState::MatchedWithVariance
    }

    fn judge_lateness(&mut self, scope: &Scope) {
        let at = answered_at(&self.payment.row);
        let Some(first) = self.cleared.first_charge else {
            return;
        };
        if first.as_millis().saturating_sub(at.as_millis()) > scope.rules.late_ms() {
            let what = format!(
                "was charged {} days after it was approved",
                days_between(at, first)
            );
            let charged = self.money(self.cleared.charged);
            self.find(DiscrepancyKind::LateClearing, charged, &what);
        }
    }

    fn find(&mut self, kind: DiscrepancyKind, at_stake: Money, what: &str) {
        let row = &self.payment.row;
        let id = row.answer.transaction_id;
        self.found.push(Discrepancy {
            kind,
            subject: format!("payment {id}"),
            transaction_id: Some(id),
            shopper: Some(row.answer.shopper),
            row: Some(row.clone()),
            line: self.cleared.line,
            authorized: Some(self.authorized),
            cleared: Some(self.cleared.net()),
            receipt: None,
            at_stake: Money::from_minor(at_stake.minor().max(0), at_stake.currency()),
            at: answered_at(row),
            detail: format!("the payment {what}"),
        });
    }

    fn net(&self) -> Money {
        self.money(self.cleared.net())
    }

    fn money(&self, minor: i64) -> Money {
        Money::from_minor(minor, self.payment.row.answer.amount.currency())
    }
}

fn days_between(from: Timestamp, to: Timestamp) -> u64 {
    to.millis_since(from).div_euclid(86_400_000)
}
