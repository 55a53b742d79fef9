//! S15: reported counts and sums equal the ledger's, each breakdown adds up, and the money approved
//! is the same in the ledger, in what banks were told, and in the logs.

use std::collections::HashSet;

use standin_core::answer::Verdict;

use super::index::Index;
use super::{Check, Evidence, Offences, plural};
use crate::totals::{Line, Sums, Totals, add, in_words, is_final};

pub(super) fn check(evidence: &Evidence<'_>, index: &Index<'_>) -> Check {
    let mut offences = Offences::default();
    let ledger = Totals::of_rows(evidence.rows);
    for name in evidence.reported.broken() {
        offences.add("the report", format_args!("does not add up by {name}"));
    }
    for (name, same) in [
        ("in all", evidence.reported.all == ledger.all),
        ("by rung", evidence.reported.by_rung == ledger.by_rung),
        ("by reason", evidence.reported.by_reason == ledger.by_reason),
        ("by bank", evidence.reported.by_bank == ledger.by_bank),
    ] {
        if !same {
            offences.add("the report", format_args!("differs from the ledger {name}"));
        }
    }
    told_equals_booked(evidence, index, &mut offences);
    if evidence.logs.iter().all(crate::log::LogContents::is_whole) {
        let logged = logged(index);
        let drained = drained(evidence, index);
        if logged != drained {
            let (logged, drained) = (
                in_words(&logged.approved_minor),
                in_words(&drained.approved_minor),
            );
            offences.add(
                "the logs",
                format_args!("approved {logged}, the ledger drained {drained} from them"),
            );
        }
    }
    let seen = format!(
        "{} approved, {} declined, {}",
        plural(ledger.all.approved, "row", "rows"),
        plural(ledger.all.declined, "row", "rows"),
        in_words(&ledger.all.approved_minor),
    );
    offences.into_check("S15", seen)
}

/// Of every approval that a bank was told of: its sum, as told and as booked.
fn told_equals_booked(evidence: &Evidence<'_>, index: &Index<'_>, offences: &mut Offences) {
    let (mut told, mut booked) = (Sums::new(), Sums::new());
    let mut seen = HashSet::new();
    for (_, said) in index.answers(evidence) {
        if said.verdict == Verdict::Declined || !seen.insert(said.transaction_id) {
            continue;
        }
        add(&mut told, said.amount);
        let row = index.rows.get(&said.transaction_id).map(|rows| rows.first);
        let approved = row.filter(|row| is_final(row) && row.answer.verdict == Verdict::Approved);
        if let Some(row) = approved {
            add(&mut booked, row.answer.amount);
        }
    }
    if told != booked {
        let (told, booked) = (in_words(&told), in_words(&booked));
        offences.add(
            "approvals",
            format_args!("sum to {told} as told to banks and to {booked} as booked"),
        );
    }
}

fn logged(index: &Index<'_>) -> Line {
    let mut line = Line::default();
    for (.., answer) in index.outcomes.values() {
        line.add(answer.verdict, answer.amount);
    }
    line
}

/// Rows that name one of the logs as their origin, or that the primary made final by itself before the
/// log heard of it by an advice.
fn drained(evidence: &Evidence<'_>, index: &Index<'_>) -> Line {
    let logs: HashSet<_> = evidence.logs.iter().map(|log| log.incarnation).collect();
    let mut line = Line::default();
    for row in evidence.rows.iter().filter(|row| is_final(row)) {
        let from_a_log = match row.log {
            Some((log, _)) => logs.contains(&log),
            None => index.advised.contains(&row.answer.transaction_id),
        };
        if from_a_log {
            line.add(row.answer.verdict, row.answer.amount);
        }
    }
    line
}
