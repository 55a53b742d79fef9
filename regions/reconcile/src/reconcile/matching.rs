//! Every outcome of every log against its final row, and every final row against its log.

use uuid::Uuid;

use standin_core::answer::Answer;
use standin_core::ledger::{AuthorizationRow, ConflictRow};

use super::Facts;
use crate::drain::Drained;
use crate::log::{LogContents, LogRecord};
use crate::report::reconciliation::{Finding, FindingKind, LogMatch, Reconciliation};
use crate::totals::is_final;

/// What became of an outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// The final row has the same answer, or the words of an advice for it, and came from this entry.
    Matched,
    /// The final row has the same answer, and came from another entry or log.
    Repeated,
    /// No final row.
    Missing,
    /// The final row has another answer, and no conflict tells of it.
    Differing,
    /// The ledger keeps it as a conflict.
    Conflict,
}

/// Matches everything; `drains` is in the order of the facts' logs.
pub(super) fn match_all(facts: &Facts, drains: &[Drained], report: &mut Reconciliation) {
    for (log, drained) in facts.logs.iter().zip(drains) {
        let matched = match_log(facts, log, drained, report);
        report.logs.push(matched);
    }
    let finals = facts.rows.values().filter(|row| is_final(row));
    for row in finals {
        match place(facts, row) {
            Place::Holds => {}
            Place::Elsewhere => report.elsewhere = report.elsewhere.saturating_add(1),
            Place::NoLog => report.find(of_answer(
                FindingKind::Extra,
                &row.answer,
                "final without a place in any log".to_owned(),
            )),
            Place::Wrong(log) => {
                if let Some(matched) = report.logs.iter_mut().find(|found| found.log == log) {
                    matched.extra = matched.extra.saturating_add(1);
                }
                let detail = format!("log {log} does not hold it where the row says");
                report.find(of_answer(FindingKind::Extra, &row.answer, detail));
            }
        }
    }
    for conflict in &facts.conflicts {
        report.find(of_conflict(facts, conflict));
    }
}

/// What became of an outcome.
pub(super) fn fate(facts: &Facts, log: Uuid, record: &LogRecord, answer: &Answer) -> Fate {
    if facts.conflicting.contains(&(log, record.at)) {
        return Fate::Conflict;
    }
    match facts.rows.get(&answer.transaction_id) {
        Some(row) if is_final(row) && !says(facts, log, row, answer) => Fate::Differing,
        Some(row) if is_final(row) && row.log == Some((log, record.at)) => Fate::Matched,
        Some(row) if is_final(row) => Fate::Repeated,
        Some(_) | None => Fate::Missing,
    }
}

/// Whether a row has the answer in the words that the log gave it, or in those of an advice that took
/// their place.
fn says(facts: &Facts, log: Uuid, row: &AuthorizationRow, answer: &Answer) -> bool {
    let booked = &row.answer;
    let reworded = facts.reworded.get(&(log, answer.transaction_id));
    booked == answer
        || (booked.is_the_same(answer) && reworded.is_some_and(|words| words.contains(booked)))
}

fn match_log(
    facts: &Facts,
    log: &LogContents,
    drained: &Drained,
    report: &mut Reconciliation,
) -> LogMatch {
    let mut found = LogMatch {
        log: log.incarnation,
        first_index: log.first_index,
        last_index: log.last_index,
        cursor: drained.cursor,
        entries: u64::try_from(log.records.len()).unwrap_or(u64::MAX),
        outcomes: 0,
        matched: 0,
        missing: 0,
        differing: 0,
        conflicts: 0,
        drained_here: drained.counts.finalized,
        extra: 0,
    };
    if drained.cursor > log.last_index {
        report.find(Finding {
            kind: FindingKind::LogCut,
            transaction_id: None,
            detail: format!(
                "log {} ends at batch {}, and was drained to {}",
                log.incarnation, log.last_index, drained.cursor
            ),
            amount_minor: 0,
            currency: None,
            bank: None,
        });
    }
    for record in &log.records {
        let Some(answer) = record.first_answer() else {
            continue;
        };
        found.outcomes = found.outcomes.saturating_add(1);
        let (count, finding) = match fate(facts, log.incarnation, record, answer) {
            Fate::Matched | Fate::Repeated => (&mut found.matched, None),
            // The conflict row itself is the finding.
            Fate::Conflict => (&mut found.conflicts, None),
            Fate::Missing => (
                &mut found.missing,
                Some((
                    FindingKind::Missing,
                    "the log answered it, no final row does",
                )),
            ),
            Fate::Differing => (
                &mut found.differing,
                Some((FindingKind::Differing, "log and final row differ")),
            ),
        };
        *count = count.saturating_add(1);
        if let Some((kind, detail)) = finding {
            report.find(of_answer(kind, answer, detail.to_owned()));
        }
    }
    found
}

/// Where a final row says it comes from.
enum Place {
    Holds,
    Elsewhere,
    NoLog,
    Wrong(Uuid),
}

fn place(facts: &Facts, row: &AuthorizationRow) -> Place {
    let Some((name, at)) = row.log else {
        return Place::NoLog;
    };
    let Some(log) = facts.logs.iter().find(|log| log.incarnation == name) else {
        return Place::Elsewhere;
    };
    // Trimmed away since, or written after this run read the log.
    if at.index < log.first_index || at.index > log.last_index {
        return Place::Elsewhere;
    }
    let held = log.at(at).and_then(LogRecord::first_answer);
    if held.is_some_and(|answer| answer.transaction_id == row.answer.transaction_id) {
        Place::Holds
    } else {
        Place::Wrong(name)
    }
}

fn of_answer(kind: FindingKind, answer: &Answer, detail: String) -> Finding {
    Finding {
        kind,
        transaction_id: Some(answer.transaction_id),
        detail,
        amount_minor: answer.amount.minor(),
        currency: Some(answer.amount.currency()),
        bank: Some(answer.bank.clone()),
    }
}

fn of_conflict(facts: &Facts, conflict: &ConflictRow) -> Finding {
    let log = facts
        .logs
        .iter()
        .find(|log| log.incarnation == conflict.log);
    let answer = log
        .and_then(|log| log.at(conflict.at))
        .and_then(LogRecord::first_answer);
    let detail = format!(
        "{}, from {}/{} of log {}",
        conflict.cause, conflict.at.index, conflict.at.slot, conflict.log
    );
    match answer {
        Some(answer) => of_answer(FindingKind::Conflict, answer, detail),
        None => Finding {
            kind: FindingKind::Conflict,
            transaction_id: Some(conflict.transaction_id),
            detail,
            amount_minor: 0,
            currency: None,
            bank: None,
        },
    }
}
