//! What people read of a run on the terminal.

use standin_reconcile::report::reconciliation::Reconciliation;

use crate::out::{align_right, say, table};

/// Findings named on the terminal; the report has all.
const FINDINGS_SHOWN: usize = 20;

/// Shows a run.
pub(crate) fn show(report: &Reconciliation) {
    let mut rungs = table(["rung", "approved", "declined"]);
    for (rung, line) in &report.totals.by_rung {
        rungs.add_row([
            rung.to_string(),
            line.approved.to_string(),
            line.declined.to_string(),
        ]);
    }
    align_right(&mut rungs, 1..3);
    say(rungs);
    for log in &report.logs {
        say(format_args!(
            "log {}: {} entries, {} answers, {} matched, {} drained here",
            log.log, log.entries, log.outcomes, log.matched, log.drained_here
        ));
    }
    for finding in report.findings.iter().take(FINDINGS_SHOWN) {
        let payment = finding.transaction_id.map(|id| format!(" {id}"));
        say(format_args!(
            "finding {}{}: {}, {} at stake",
            finding.kind.as_str(),
            payment.unwrap_or_default(),
            finding.detail,
            finding.at_stake()
        ));
    }
    say(format_args!("{} findings.", report.all_findings()));
}
