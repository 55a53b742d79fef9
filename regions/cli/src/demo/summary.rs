//! What a run came to, for people: a few lines and two tables.

#![allow(
    clippy::float_arithmetic,
    reason = "latencies are shown in milliseconds with decimals"
)]

use std::path::Path;

use super::Outcome;
use crate::out::{align_right, table};

/// The summary of a run whose reports are in `out`.
pub(super) fn text(outcome: &Outcome, out: &Path) -> String {
    let report = &outcome.report;
    let mut phases = table([
        "phase", "requests", "p50 ms", "p99 ms", "max ms", "rungs", "approved", "declined",
    ]);
    for phase in &report.phases {
        let rungs: Vec<String> = phase
            .rungs
            .iter()
            .map(|(rung, count)| format!("{rung} {count}"))
            .collect();
        let declined = phase
            .declined
            .values()
            .fold(0_u64, |sum, count| sum.saturating_add(*count));
        phases.add_row([
            phase.name.clone(),
            phase.requests.to_string(),
            format!("{:.2}", phase.p50_ms),
            format!("{:.2}", phase.p99_ms),
            format!("{:.2}", phase.max_ms),
            rungs.join(", "),
            phase.approved.to_string(),
            declined.to_string(),
        ]);
    }
    align_right(&mut phases, 1..5);
    align_right(&mut phases, 6..8);
    let mut checks = table(["promise", "kept", "what was looked at"]);
    for check in &report.checks {
        let kept = if check.ok { "yes" } else { "NO" };
        checks.add_row([check.id.as_str(), kept, check.detail.as_str()]);
    }
    let mut text = format!("{phases}\n{checks}\n");
    let wal = &report.wal;
    let mut line = |words: std::fmt::Arguments<'_>| {
        text.push_str(&words.to_string());
        text.push('\n');
    };
    line(format_args!(
        "{} requests: {} without an answer, {} late, {} wrong.",
        report.requests, report.no_answer, report.late, report.wrong
    ));
    line(format_args!(
        "Log: {} answers, {} drained, {} left. Ledger: {} authorizations.",
        wal.entries, wal.drained, wal.backlog, report.ledger.authorizations
    ));
    line(format_args!(
        "{} keepers; the leader killed, {} change(s) of leader: {} ms without one at most, and {} ms \
         without an answer.",
        wal.members, wal.leader_changes, wal.longest_election_ms, report.longest_gap_ms
    ));
    for complaint in &outcome.complaints {
        line(format_args!("Not as it should be: {complaint}"));
    }
    let verdict = if outcome.is_clean {
        "Clean"
    } else {
        "NOT clean"
    };
    line(format_args!(
        "{verdict}. Report: {}",
        out.join("report.html").display()
    ));
    text.truncate(text.trim_end().len());
    text
}
