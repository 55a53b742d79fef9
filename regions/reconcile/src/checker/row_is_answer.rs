//! S3: the answer equals the final row, declines too; so does the outcome in the log. Where an advice
//! says how an answer was reached in other words, the row has the log's words or the advice's.
//!
//! An approval without a row is S1's to tell; a decline, or an outcome below the drain cursor,
//! without one is told here.

use std::collections::HashMap;

use uuid::Uuid;

use standin_core::answer::Verdict;

use super::index::Index;
use super::{Check, Evidence, Offences, plural};
use crate::history::{Attempt, Said};
use crate::log::LogContents;
use crate::totals::is_final;

pub(super) fn check(evidence: &Evidence<'_>, index: &Index<'_>) -> Check {
    let mut offences = Offences::default();
    // What was trimmed away cannot be compared with.
    let whole = evidence.logs.iter().all(LogContents::is_whole);
    let mut compared = 0_u64;
    for (attempt, said) in index.answers(evidence) {
        compared = compared.saturating_add(1);
        if let Some(what) = breach(index, attempt, said) {
            offences.add(said.transaction_id, what);
        }
    }
    let cursors: HashMap<Uuid, u64> = evidence
        .drains
        .iter()
        .map(|drain| (drain.log, drain.cursor))
        .collect();
    for (log, record, answer) in index.outcomes.values() {
        let drained = cursors
            .get(&log.incarnation)
            .is_some_and(|cursor| record.at.index <= *cursor);
        if !drained {
            continue;
        }
        compared = compared.saturating_add(1);
        match index.rows.get(&answer.transaction_id) {
            None => offences.add(answer.transaction_id, "was drained and has no row"),
            Some(rows) if !is_final(rows.first) => {
                offences.add(answer.transaction_id, "was drained and is not final");
            }
            Some(rows) if !index.are_one(&rows.first.answer, answer) => {
                offences.add(answer.transaction_id, "differs between log and row");
            }
            Some(rows) if whole && !index.is_worded(&rows.first.answer) => {
                offences.add(answer.transaction_id, "says in its row what no log says");
            }
            Some(_) => {}
        }
    }
    let seen = plural(
        compared,
        "answer compared with its row",
        "answers compared with their rows",
    );
    offences.into_check("S3", seen)
}

fn breach(index: &Index<'_>, attempt: &Attempt, said: &Said) -> Option<String> {
    let Some(rows) = index.rows.get(&said.transaction_id) else {
        return match said.verdict {
            Verdict::Approved => None,
            Verdict::Declined => Some("was declined and has no row".to_owned()),
        };
    };
    let answer = &rows.first.answer;
    if !is_final(rows.first) {
        return Some(format!("is {}, not final", rows.first.state.as_str()));
    }
    if let Some(what) = index.difference(said, answer) {
        return Some(format!("has another {what} in its row"));
    }
    if answer.shopper != attempt.shopper || answer.bank != attempt.bank {
        return Some("is booked for another shopper or bank".to_owned());
    }
    None
}
