//! S4: nothing is in the ledger or a log that no verified request asked for.
//!
//! A row or an entry is asked for when an attempt that may have begun names its payment, with the
//! same bank, shopper and amount, sent before it. A request that got no reply names its payment
//! only when the client could compute the identity; the others form a budget: each of them accounts
//! for one payment of its bank, shopper and amount.

use std::collections::HashMap;

use standin_core::entry::Entry;
use standin_core::id::{BankId, ShopperId, TransactionId};
use standin_core::money::Money;
use standin_core::register::Outcome;

use super::index::Index;
use super::{Check, Evidence, Offences, plural};
use crate::history::Attempt;

/// How far a client's clock and log time may be apart, milliseconds.
const CLOCK_SLACK_MS: i64 = 5_000;

/// What a payment is asked for by.
type Terms<'a> = (&'a BankId, ShopperId, Money);

/// What requests account for.
#[derive(Default)]
struct Asked<'a> {
    /// Earliest send of an attempt that may have begun.
    begun: HashMap<(TransactionId, Terms<'a>), i64>,
    /// The same over every verified attempt, also those that were refused.
    verified: HashMap<(TransactionId, Terms<'a>), i64>,
    /// Payments whose identity no attempt revealed.
    unnamed: HashMap<Terms<'a>, u64>,
    /// Payments that were accounted for from the budget above.
    adopted: HashMap<TransactionId, bool>,
}

pub(super) fn check(evidence: &Evidence<'_>, index: &Index<'_>) -> Check {
    let mut asked = Asked::of(evidence, index);
    let mut offences = Offences::default();
    for row in evidence.rows {
        let answer = &row.answer;
        let terms = (&answer.bank, answer.shopper, answer.amount);
        let at = row.held_at.or(row.final_at).map(|at| at.as_millis());
        if !asked.accounts_for(answer.transaction_id, terms, at) {
            offences.add(answer.transaction_id, "is a row nobody asked for");
        }
    }
    let mut entries = 0_u64;
    for record in evidence.logs.iter().flat_map(|log| &log.records) {
        let Entry::Authorize(proposal) = &record.entry else {
            continue;
        };
        entries = entries.saturating_add(1);
        let (id, request) = (proposal.transaction_id, &proposal.request);
        let terms = (&request.bank, request.shopper, request.amount);
        let at = i64::try_from(record.log_time_ms).ok();
        // What the register refused may stem from a request that was refused.
        let refused = matches!(
            record.outcome,
            Outcome::OtherFingerprint | Outcome::Tombstoned
        );
        let known = refused && asked.verified.contains_key(&(id, terms));
        if !known && !asked.accounts_for(id, terms, at) {
            offences.add(id, "is an entry nobody asked for");
        }
    }
    let rows = u64::try_from(evidence.rows.len()).unwrap_or(u64::MAX);
    let seen = format!(
        "{} and {}, each asked for by a verified request",
        plural(rows, "row", "rows"),
        plural(entries, "entry", "entries"),
    );
    offences.into_check("S4", seen)
}

// === impl Asked ===

impl<'a> Asked<'a> {
    fn of(evidence: &Evidence<'a>, index: &Index<'a>) -> Self {
        let mut asked = Self::default();
        let mut unnamed: HashMap<(&BankId, &str), Terms<'a>> = HashMap::new();
        for attempt in evidence.history {
            if !attempt.verified {
                continue;
            }
            let terms = terms(attempt);
            let Some(id) = index.id_of(attempt) else {
                if attempt.may_have_begun() {
                    unnamed.insert((&attempt.bank, &attempt.payment), terms);
                }
                continue;
            };
            earliest(&mut asked.verified, (id, terms), attempt.sent_at);
            if attempt.may_have_begun() {
                earliest(&mut asked.begun, (id, terms), attempt.sent_at);
            }
        }
        for terms in unnamed.into_values() {
            let left = asked.unnamed.entry(terms).or_default();
            *left = left.saturating_add(1);
        }
        asked
    }

    fn accounts_for(&mut self, id: TransactionId, terms: Terms<'a>, at: Option<i64>) -> bool {
        if let Some(sent_at) = self.begun.get(&(id, terms)) {
            return at.is_none_or(|at| at.saturating_add(CLOCK_SLACK_MS) >= *sent_at);
        }
        if let Some(known) = self.adopted.get(&id) {
            return *known;
        }
        let adopts = match self.unnamed.get_mut(&terms) {
            Some(left) if *left > 0 => {
                *left = left.saturating_sub(1);
                true
            }
            Some(_) | None => false,
        };
        self.adopted.insert(id, adopts);
        adopts
    }
}

fn terms(attempt: &Attempt) -> Terms<'_> {
    (&attempt.bank, attempt.shopper, attempt.amount)
}

fn earliest<'a>(
    map: &mut HashMap<(TransactionId, Terms<'a>), i64>,
    key: (TransactionId, Terms<'a>),
    sent_at: i64,
) {
    map.entry(key)
        .and_modify(|first| *first = sent_at.min(*first))
        .or_insert(sent_at);
}
