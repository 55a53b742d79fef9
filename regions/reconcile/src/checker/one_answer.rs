//! S2: one payment never has two different answers: not in a log, not between logs, not between
//! what two replies said, not between a reply and a log.
//!
//! A payment that an edge answered without the log, by an advice, may have met the log's own answer, and
//! one that a bank asked for in two regions has an answer in each one's log: then verdict, amount and
//! code are one, and how it was reached (rung, reason) may differ.

use std::collections::HashMap;

use standin_core::id::TransactionId;

use super::index::{Index, Reading};
use super::{Check, Evidence, Offences, plural};
use crate::history::Said;

pub(super) fn check(evidence: &Evidence<'_>, index: &Index<'_>) -> Check {
    let mut offences = Offences::default();
    replies_agree(evidence, index, &mut offences);
    for log in evidence.logs {
        for record in &log.records {
            let Some(answer) = record.answer() else {
                continue;
            };
            let first = index.outcomes.get(&answer.transaction_id);
            if first.is_some_and(|(.., first)| !index.are_one(first, answer)) {
                offences.add(answer.transaction_id, "has two answers in the logs");
            }
        }
    }
    let replies = index.answers(evidence).count();
    let seen = format!(
        "{} and {}",
        plural(
            u64::try_from(replies).unwrap_or(u64::MAX),
            "answered reply",
            "answered replies"
        ),
        plural(
            u64::try_from(index.outcomes.len()).unwrap_or(u64::MAX),
            "payment in the logs",
            "payments in the logs"
        ),
    );
    offences.into_check("S2", seen)
}

fn replies_agree(evidence: &Evidence<'_>, index: &Index<'_>, offences: &mut Offences) {
    let mut first: HashMap<TransactionId, &Said> = HashMap::new();
    for (attempt, reading) in evidence.history.iter().zip(&index.readings) {
        let said = match reading {
            Reading::Said(said) => said,
            Reading::Unreadable(why) => {
                offences.add(
                    &attempt.payment,
                    format_args!("got an unreadable answer ({why})"),
                );
                continue;
            }
            Reading::Nothing | Reading::Faulted => continue,
        };
        let before = *first.entry(said.transaction_id).or_insert(said);
        if !index.say_the_same(before, said) {
            offences.add(said.transaction_id, "was answered in two ways");
            continue;
        }
        let logged = index.outcomes.get(&said.transaction_id);
        if let Some(what) = logged.and_then(|(.., answer)| index.difference(said, answer)) {
            offences.add(
                said.transaction_id,
                format_args!("was answered with another {what} than the log holds"),
            );
        }
    }
}
