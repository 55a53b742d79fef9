//! S16: unknown is honest. A payment that got a 503 or no reply may have been answered or not; once
//! anybody saw its answer, nothing says otherwise: no later reply, no log, no row, and no money that
//! comes back because the answer was thought to be late.

use std::collections::{HashMap, HashSet};

use standin_core::answer::Verdict;
use standin_core::entry::{Entry, ReversalCause};
use standin_core::id::TransactionId;
use standin_core::ledger::AuthorizationState;
use standin_core::register::Outcome as Applied;

use super::index::{Index, Reading};
use super::{Check, Evidence, Offences, plural};
use crate::history::{Outcome, Said};

pub(super) fn check(evidence: &Evidence<'_>, index: &Index<'_>) -> Check {
    let mut offences = Offences::default();
    let unknown = unknown(evidence, index);
    let given_back = given_back(evidence);
    let mut seen: HashMap<TransactionId, &Said> = HashMap::new();
    for (attempt, reading) in evidence.history.iter().zip(&index.readings) {
        let Reading::Said(said) = reading else {
            continue;
        };
        let id = said.transaction_id;
        if !unknown.contains(&id) {
            continue;
        }
        let first = *seen.entry(id).or_insert(said);
        if first.verdict != said.verdict {
            offences.add(&attempt.payment, "flipped after it was unknown");
        }
    }
    for (id, said) in &seen {
        if let Some((.., answer)) = index.outcomes.get(id)
            && answer.verdict != said.verdict
        {
            offences.add(id, "is another answer in the log than somebody was told");
        }
        let row = index.rows.get(id).map(|rows| rows.first);
        if row.is_some_and(|row| row.state == AuthorizationState::Released) {
            offences.add(id, "was told and then released");
        }
        if said.verdict == Verdict::Approved && given_back.contains(id) {
            offences.add(id, "was told and given back as late");
        }
    }
    let count = |some: usize| u64::try_from(some).unwrap_or(u64::MAX);
    let words = format!(
        "{}, {} of them answered in the end",
        plural(
            count(unknown.len()),
            "payment was unknown for a while",
            "payments were unknown for a while"
        ),
        count(seen.len()),
    );
    offences.into_check("S16", words)
}

/// Payments with an attempt that may have been executed and got no answer.
fn unknown(evidence: &Evidence<'_>, index: &Index<'_>) -> HashSet<TransactionId> {
    let is_unknown = |outcome: &Outcome| match outcome {
        Outcome::NoReply => true,
        Outcome::Refused { status, .. } => *status == 503,
        Outcome::Answered { .. } => false,
    };
    evidence
        .history
        .iter()
        .filter(|attempt| attempt.verified && is_unknown(&attempt.outcome))
        .filter_map(|attempt| index.id_of(attempt))
        .collect()
}

/// Payments whose money came back because nobody was thought to have heard of it.
fn given_back(evidence: &Evidence<'_>) -> HashSet<TransactionId> {
    let records = evidence.logs.iter().flat_map(|log| &log.records);
    records
        .filter_map(|record| match (&record.entry, &record.outcome) {
            (Entry::Reverse(reversal), Applied::Reversed(amount))
                if reversal.cause == ReversalCause::Late && *amount > 0 =>
            {
                Some(reversal.transaction_id)
            }
            _ => None,
        })
        .collect()
}
