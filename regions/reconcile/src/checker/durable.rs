//! S1: every approval a bank received is booked exactly once, same amount, same code.

use std::collections::HashSet;

use standin_core::answer::Verdict;

use super::index::Index;
use super::{Check, Evidence, Offences, plural};
use crate::history::{Attempt, Said};
use crate::totals::is_final;

pub(super) fn check(evidence: &Evidence<'_>, index: &Index<'_>) -> Check {
    let mut offences = Offences::default();
    let mut payments = HashSet::new();
    for (attempt, said) in index.answers(evidence) {
        if said.verdict == Verdict::Declined {
            continue;
        }
        payments.insert(said.transaction_id);
        if let Some(what) = breach(index, attempt, said) {
            offences.add(said.transaction_id, what);
        }
    }
    let count = u64::try_from(payments.len()).unwrap_or(u64::MAX);
    let seen = plural(
        count,
        "approval received by a bank, booked once",
        "approvals received by banks, each booked once",
    );
    offences.into_check("S1", seen)
}

fn breach(index: &Index<'_>, attempt: &Attempt, said: &Said) -> Option<String> {
    let Some(rows) = index.rows.get(&said.transaction_id) else {
        return Some("has no row".to_owned());
    };
    let (row, answer) = (rows.first, &rows.first.answer);
    if rows.count != 1 {
        return Some(format!("has {} rows", rows.count));
    }
    if !is_final(row) {
        return Some(format!("is {}, not final", row.state.as_str()));
    }
    [
        (answer.verdict != said.verdict, "is booked as a decline"),
        (
            answer.amount != said.amount,
            "is booked with another amount",
        ),
        (
            attempt.amount != said.amount,
            "approves another amount than was asked for",
        ),
        (
            said.code != Some(answer.code),
            "is booked with another code",
        ),
        (answer.bank != attempt.bank, "is booked for another bank"),
    ]
    .into_iter()
    .find_map(|(wrong, what)| wrong.then(|| what.to_owned()))
}
