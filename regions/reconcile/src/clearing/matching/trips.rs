//! What a trip's payments come to together: against its cap, against each other, against its receipt.

use std::collections::BTreeMap;

use standin_core::id::TripId;
use standin_core::ledger::clearing::Receipt;
use standin_core::money::Money;

use super::super::kind::DiscrepancyKind;
use super::{
    Cleared, Discrepancy, Group, Outcome, Payment, Scope, Standing, answered_at, approved,
};

/// A trip's approvals, the earliest first.
struct Trip<'a> {
    id: TripId,
    approvals: Vec<Approval<'a>>,
    receipt: Option<Receipt>,
}

/// One approval with what became of it.
struct Approval<'a> {
    payment: &'a Payment,
    cleared: &'a Cleared,
    belongs: bool,
    authorized: i64,
}

/// Judges every trip that a payment of the report belongs to.
pub(super) fn judge(
    group: &Group,
    books: &[(Cleared, bool)],
    scope: &Scope,
    outcome: &mut Outcome,
) {
    for trip in trips(group, books) {
        if !trip.approvals.iter().any(|approval| approval.belongs) {
            continue;
        }
        let mut found = Vec::new();
        found.extend(trip.over_cap());
        found.extend(trip.approved_twice(scope));
        let alike = trip.approvals.iter().all(|approval| {
            let id = approval.payment.row.answer.transaction_id;
            let known = outcome.payments.iter().find(|one| one.transaction_id == id);
            known.is_none_or(|one| matches!(one.standing, Standing::Fits(_)))
        });
        // What is wrong with a payment is not told again as what is wrong with its trip.
        if alike {
            found.extend(trip.against_receipt(scope));
        }
        for one in &found {
            stand_off(outcome, one);
        }
        outcome.found.append(&mut found);
    }
}

/// A payment that fitted stands under what was found of its trip.
fn stand_off(outcome: &mut Outcome, found: &Discrepancy) {
    let payment = outcome
        .payments
        .iter_mut()
        .find(|one| Some(one.transaction_id) == found.transaction_id);
    if let Some(payment) = payment
        && let Standing::Fits(_) = payment.standing
    {
        payment.standing = Standing::Off(found.kind);
    }
}

fn trips<'a>(group: &'a Group, books: &'a [(Cleared, bool)]) -> impl Iterator<Item = Trip<'a>> {
    let mut trips: BTreeMap<TripId, Vec<Approval<'a>>> = BTreeMap::new();
    for (payment, (cleared, belongs)) in group.payments.iter().zip(books) {
        let authorized = approved(&payment.row);
        if let Some(trip) = payment.row.answer.trip.filter(|_| authorized > 0) {
            trips.entry(trip).or_default().push(Approval {
                payment,
                cleared,
                belongs: *belongs,
                authorized,
            });
        }
    }
    trips.into_iter().map(|(id, mut approvals)| {
        approvals.sort_by_key(|approval| {
            let row = &approval.payment.row;
            (answered_at(row), row.answer.transaction_id)
        });
        Trip {
            id,
            approvals,
            receipt: group.receipts.get(&id).copied(),
        }
    })
}

// === impl Trip ===

impl Trip<'_> {
    /// The approvals together exceed the highest cap any was held against: the one with which they do.
    fn over_cap(&self) -> Option<Discrepancy> {
        let caps = self
            .approvals
            .iter()
            .filter_map(|one| one.payment.row.answer.cap);
        let cap = caps.max()?;
        let mut sum = 0_i64;
        let mut crossing = None;
        for approval in &self.approvals {
            sum = sum.saturating_add(approval.authorized);
            if sum > cap && crossing.is_none() {
                crossing = Some(approval);
            }
        }
        let crossing = crossing?;
        let money = |minor| self.money(crossing, minor);
        let detail = format!("the trip was approved {} of {}", money(sum), money(cap));
        let over = sum.saturating_sub(cap);
        Some(self.find(DiscrepancyKind::OverCap, crossing, over, detail))
    }

    /// Approvals of one amount shortly after another: the later ones.
    fn approved_twice(&self, scope: &Scope) -> Vec<Discrepancy> {
        let at = |one: &Approval<'_>| answered_at(&one.payment.row).as_millis();
        let twins = |one: &Approval<'_>, other: &Approval<'_>| {
            one.payment.row.answer.amount == other.payment.row.answer.amount
                && at(other).saturating_sub(at(one)) <= scope.rules.twice_ms()
        };
        let mut found = Vec::new();
        for (number, approval) in self.approvals.iter().enumerate() {
            let mut before = self.approvals.iter().take(number);
            if !approval.belongs || !before.any(|one| twins(one, approval)) {
                continue;
            }
            let amount = self.money(approval, approval.authorized);
            let detail = format!("{amount} was approved twice for one trip at nearly one time");
            found.push(self.find_payment(
                DiscrepancyKind::DuplicateApproval,
                approval,
                approval.authorized,
                detail,
            ));
        }
        found
    }

    /// What was charged, against what the cart came to once shopping was over.
    fn against_receipt(&self, scope: &Scope) -> Option<Discrepancy> {
        let receipt = self.receipt.filter(|receipt| receipt.closed)?;
        let last = self.approvals.last()?;
        let ours = self.approvals.iter().all(|approval| {
            let answer = &approval.payment.row.answer;
            answer.bank == scope.bank && answer.amount.currency() == receipt.picked.currency()
        });
        let any = self.approvals.iter().any(|one| one.cleared.line.is_some());
        if !ours || !any {
            return None;
        }
        let picked = receipt.picked.minor();
        let charged = self
            .approvals
            .iter()
            .fold(0_i64, |sum, one| sum.saturating_add(one.cleared.net()));
        let waiting = self
            .approvals
            .iter()
            .any(|one| one.cleared.charges.is_empty());
        let off = charged.saturating_sub(picked);
        if off.saturating_abs() <= scope.rules.receipt(picked) || (off < 0 && waiting) {
            return None;
        }
        let kind = if off > 0 {
            DiscrepancyKind::OverReceipt
        } else {
            DiscrepancyKind::UnderReceipt
        };
        let detail = format!(
            "the trip was charged {} for a cart of {}",
            self.money(last, charged),
            receipt.picked
        );
        Some(self.find(kind, last, off.saturating_abs(), detail))
    }

    fn find(
        &self,
        kind: DiscrepancyKind,
        of: &Approval<'_>,
        at_stake: i64,
        detail: String,
    ) -> Discrepancy {
        let cleared = self
            .approvals
            .iter()
            .fold(0_i64, |sum, one| sum.saturating_add(one.cleared.net()));
        let authorized = self
            .approvals
            .iter()
            .fold(0_i64, |sum, one| sum.saturating_add(one.authorized));
        Discrepancy {
            subject: format!("trip {}", self.id),
            authorized: Some(authorized),
            cleared: Some(cleared),
            ..self.find_payment(kind, of, at_stake, detail)
        }
    }

    fn find_payment(
        &self,
        kind: DiscrepancyKind,
        of: &Approval<'_>,
        at_stake: i64,
        detail: String,
    ) -> Discrepancy {
        let row = &of.payment.row;
        let id = row.answer.transaction_id;
        Discrepancy {
            kind,
            subject: format!("payment {id}"),
            transaction_id: Some(id),
            shopper: Some(row.answer.shopper),
            row: Some(row.clone()),
            line: of.cleared.line,
            authorized: Some(of.authorized),
            cleared: Some(of.cleared.net()),
            receipt: self.receipt.map(|receipt| receipt.picked.minor()),
            at_stake: self.money(of, at_stake.max(0)),
            at: answered_at(row),
            detail,
        }
    }

    fn money(&self, of: &Approval<'_>, minor: i64) -> Money {
        Money::from_minor(minor, of.payment.row.answer.amount.currency())
    }
}
