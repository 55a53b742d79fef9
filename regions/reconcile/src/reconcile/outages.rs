//! Each outage of the primary, entry by entry: what was written ahead during it, and what became of
//! that.

use std::collections::BTreeSet;

use standin_core::answer::Why;
use standin_core::clock::Timestamp;
use standin_core::entry::Entry;
use standin_core::register::Outcome;

use super::Facts;
use super::matching::{Fate, fate};
use crate::log::{LogContents, LogRecord};
use crate::report::reconciliation::{OutageProof, Reconciliation};
use crate::totals::Line;

/// Proves every outage that the logs tell of.
pub(super) fn prove(facts: &Facts, report: &mut Reconciliation) {
    for log in &facts.logs {
        let mut open: Option<(u64, OutageProof)> = None;
        // An outage of the region lasts while any edge has lost the primary.
        let mut cut_off: BTreeSet<u64> = BTreeSet::new();
        for record in &log.records {
            match &record.entry {
                Entry::OutageStarted { edge, .. } => drop(cut_off.insert(*edge)),
                Entry::OutageEnded { edge } => drop(cut_off.remove(edge)),
                _ => {}
            }
            match (&record.entry, &mut open) {
                (Entry::OutageStarted { why, .. }, None) => {
                    open = Some((record.log_time_ms, begin(log, record, *why)));
                }
                (Entry::OutageEnded { .. }, Some((from, proof))) if cut_off.is_empty() => {
                    proof.until = Some(time(record.log_time_ms));
                    proof.lasted_ms = record.log_time_ms.saturating_sub(*from);
                    report.outages.extend(open.take().map(|(_, proof)| proof));
                }
                (_, Some((from, proof))) => {
                    proof.lasted_ms = record.log_time_ms.saturating_sub(*from);
                    count(facts, log, record, proof);
                }
                (_, None) => {}
            }
        }
        report.outages.extend(open.map(|(_, proof)| proof));
    }
}

fn begin(log: &LogContents, record: &LogRecord, why: Why) -> OutageProof {
    OutageProof {
        log: log.incarnation,
        why,
        from: time(record.log_time_ms),
        until: None,
        lasted_ms: 0,
        entries: 0,
        drained: 0,
        already: 0,
        conflicts: 0,
        missing: 0,
        unanswered: 0,
        other: 0,
        sums: Line::default(),
        drained_sums: Line::default(),
    }
}

fn count(facts: &Facts, log: &LogContents, record: &LogRecord, proof: &mut OutageProof) {
    proof.entries = proof.entries.saturating_add(1);
    let is_payment = matches!(record.entry, Entry::Authorize(_) | Entry::Advice(_));
    let part = match &record.outcome {
        _ if !is_payment => &mut proof.other,
        Outcome::Known(_) => &mut proof.already,
        Outcome::OtherFingerprint | Outcome::Tombstoned | Outcome::Noted | Outcome::Reversed(_) => {
            &mut proof.unanswered
        }
        Outcome::Answered(answer) => match fate(facts, log.incarnation, record, answer) {
            Fate::Repeated => &mut proof.already,
            fate => {
                proof.sums.add(answer.verdict, answer.amount);
                if fate == Fate::Matched {
                    // Summed from the row, so that the two sums are two statements.
                    let row = facts.rows.get(&answer.transaction_id);
                    if let Some(row) = row {
                        proof
                            .drained_sums
                            .add(row.answer.verdict, row.answer.amount);
                    }
                    &mut proof.drained
                } else if fate == Fate::Missing {
                    &mut proof.missing
                } else {
                    &mut proof.conflicts
                }
            }
        },
    };
    *part = part.saturating_add(1);
}

fn time(log_time_ms: u64) -> String {
    Timestamp::from_millis(i64::try_from(log_time_ms).unwrap_or(i64::MAX)).to_string()
}
