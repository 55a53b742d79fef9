//! What both adapters make of a proposal, an outcome and an order, so that their rows are the same.

use std::collections::BTreeSet;

use super::{AuditRow, AuthorizationRow, AuthorizationState, Fate, LedgerError, Retry};
use crate::answer::{Answer, Why};
use crate::clock::Timestamp;
use crate::entry::{Booking, OperatorAction, Proposal, Settlement};
use crate::id::TransactionId;
use crate::trip::{CATEGORY_BYTES_MAX, ITEMS_PER_ORDER_MAX, Item, ItemStatus, Order, OrderStatus};

/// The answer that a proposal asks for: what a hold's row shows.
pub(super) fn proposed_answer(proposal: &Proposal) -> Answer {
    Answer {
        transaction_id: proposal.transaction_id,
        fingerprint: proposal.fingerprint,
        bank: proposal.request.bank.clone(),
        shopper: proposal.request.shopper,
        verdict: proposal.reason.verdict(),
        reason: proposal.reason,
        code: proposal.code,
        amount: proposal.amount(),
        rung: proposal.rung,
        why: proposal.why,
        cap: proposal.cap,
        approved_before: proposal.approved_before,
        trip: proposal.trip.as_ref().map(|trip| trip.id),
        trip_age_ms: proposal.trip_age_ms,
        policy_version: proposal.policy_version,
    }
}

/// The row of a hold.
pub(super) fn held_row(proposal: &Proposal, now: Timestamp) -> AuthorizationRow {
    AuthorizationRow {
        state: AuthorizationState::Held,
        answer: proposed_answer(proposal),
        store: proposal.store,
        picked: proposal.trip.as_ref().map(|trip| trip.picked),
        reversed: 0,
        held_at: Some(now),
        log: None,
        final_at: None,
    }
}

/// Whether the log's answer is written over a final row: the primary made the row final by itself, and
/// the answer is the same, however it was reached. The row names the log from then on, and the log's word
/// stands. (A row in the same words, too: else it would wait for words to differ when the log is
/// drained again.)
pub(super) fn log_takes(row: &AuthorizationRow, answer: &Answer) -> bool {
    row.log.is_none() && row.answer.is_the_same(answer)
}

/// What the bank said more of a payment; `None` if nothing.
pub(super) fn particulars_json(proposal: &Proposal) -> Option<serde_json::Value> {
    let more = &proposal.request.particulars;
    if more.is_empty() {
        return None;
    }
    let mut json = serde_json::json!(more);
    if proposal.approved.is_some()
        && let Some(fields) = json.as_object_mut()
    {
        let asked = proposal.request.amount.minor();
        fields.insert("asked".to_owned(), asked.into());
    }
    Some(json)
}

/// Why a movement of money is in `conflicts`.
pub(super) const OTHER_SETTLEMENT: &str = "other_settlement";

/// Whether two movements under one id say the same; when we heard of them is not theirs.
pub(super) fn same_settlement(one: &Settlement, other: &Settlement) -> bool {
    let at = one.at;
    *one == Settlement {
        at,
        ..other.clone()
    }
}

/// The payment of a movement, or what stands for one where it names none.
pub(super) fn payment_of(settlement: &Settlement) -> TransactionId {
    settlement
        .transaction_id
        .unwrap_or_else(|| TransactionId::from_uuid(settlement.id))
}

/// An outcome whole, as `conflicts` keeps it.
pub(super) fn outcome_json(booking: &Booking) -> serde_json::Value {
    serde_json::json!({
        "answer": booking.answer,
        "proposal": booking.proposal,
        "particulars": particulars_json(&booking.proposal),
        "at": booking.at,
        "log_time_ms": booking.log_time_ms,
    })
}

/// An operator's action as its audit row. No word an operator types may stop the drain, so NUL,
/// which Postgres does not take, is replaced.
pub(super) fn audit_row(action: &OperatorAction) -> AuditRow {
    AuditRow {
        at: action.at,
        operator: without_nul(&action.operator),
        action: action.what.words(),
        reason: without_nul(&action.reason),
    }
}

/// The order as it is placed: PLACED, unclaimed, nothing picked, lines in order. An order that no
/// ledger could keep is an error that no retry heals.
pub(super) fn as_placed(mut order: Order) -> Result<Order, LedgerError> {
    if order.items.len() > ITEMS_PER_ORDER_MAX {
        return Err(wrong("an order has too many lines"));
    }
    let mut lines = BTreeSet::new();
    for item in &mut order.items {
        if !lines.insert(item.line) {
            return Err(wrong("an order names a line twice"));
        }
        if item.listed < 0 || i32::try_from(item.line).is_err() {
            return Err(wrong("a line has a negative price or an impossible number"));
        }
        if item.category.len() > CATEGORY_BYTES_MAX || item.category.contains('\0') {
            return Err(wrong("a line's category cannot be kept"));
        }
        item.status = ItemStatus::Wanted;
        item.actual = None;
    }
    order.items.sort_by_key(|item| item.line);
    order.status = OrderStatus::Placed;
    order.shopper = None;
    Ok(order)
}

/// Whether two orders say the same, whatever became of them since.
pub(super) fn same_order(one: &Order, other: &Order) -> bool {
    let said = |item: &Item| {
        let Item {
            line,
            product,
            quantity,
            listed,
            ..
        } = item;
        (*line, *product, *quantity, *listed, item.category.clone())
    };
    one.customer == other.customer
        && one.store == other.store
        && one.currency == other.currency
        && one.items.iter().map(said).eq(other.items.iter().map(said))
}

/// A call that is itself wrong: nothing was done and no retry helps.
pub(super) fn wrong(detail: impl Into<String>) -> LedgerError {
    LedgerError {
        fate: Fate::NotDone,
        retry: Retry::Never,
        why: Why::ApplicationError,
        detail: detail.into(),
    }
}

/// Log time as a timestamp.
pub(super) fn log_time(ms: u64) -> Timestamp {
    Timestamp::from_millis(i64::try_from(ms).unwrap_or(i64::MAX))
}

/// A text that every column takes.
pub(super) fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
