//! The end of a scenario: everything is drained, the edge stops in order, and the checker judges
//! what every client saw against the ledger and the log on disk.
//!
//! Of a group every keeper's log is read: what they have all applied has to be the same on each
//! (`group`), and what only several logs show is judged here beside the checker.

mod group;

pub use group::{end_of_group, end_of_group_with};

use std::collections::BTreeMap;
use std::time::Duration;

use standin_core::answer::{Reason, Rung, Verdict};
use standin_core::ledger::{AuthorizationRow, AuthorizationState, Ledger};
use standin_reconcile::checker::{Check, Evidence, Recovery, judge};
use standin_reconcile::drain;
use standin_reconcile::log::LogContents;
use standin_reconcile::log::source::{DirectoryLog, contents};
use standin_reconcile::reconcile::all_rows;
use standin_reconcile::totals::{Totals, is_final};

use super::edge::Edge;
use super::stage::Stage;

/// For each call to the ledger.
const CALL_MAX: Duration = Duration::from_secs(20);

/// What was found at the end of a scenario.
#[derive(Debug)]
pub struct End {
    /// Every row of the ledger.
    pub rows: Vec<AuthorizationRow>,
    /// The edge's log.
    pub log: LogContents,
    /// What the checker said; all of it ok.
    pub checks: Vec<Check>,
}

/// Drains, stops and judges; fails the test on any breach.
pub async fn end(stage: &Stage, edge: &mut Edge, recoveries: &[Recovery]) -> End {
    edge.drained().await;
    let status = edge.terminate().await;
    assert!(status.success(), "the edge ended with {status}");
    judge_all(stage, edge, recoveries).await
}

/// Judges a stopped edge whose log is drained.
pub async fn judge_all(stage: &Stage, edge: &Edge, recoveries: &[Recovery]) -> End {
    let log = contents(&DirectoryLog::new(edge.wal())).await.unwrap();
    let ledger = stage.ledger.as_ref();
    let cursor = ledger.cursor(log.incarnation).await.unwrap();
    assert_eq!(log.undrained(cursor), 0, "the edge had said it was drained");
    let drains = [drain::again(ledger, &log, CALL_MAX).await.unwrap()];
    let rows = all_rows(ledger, CALL_MAX).await.unwrap();
    let history = stage.history.attempts();
    println!("answers by rung and reason: {:?}", by_reason(&rows));
    let logs = [log];
    let checks = judge(&Evidence {
        history: &history,
        rows: &rows,
        logs: &logs,
        drains: &drains,
        recoveries,
        reported: &Totals::of_rows(rows.iter().filter(|row| is_final(row))),
    });
    pass(&checks);
    let [log] = logs;
    End { rows, log, checks }
}

/// Prints what was judged; fails the test on any breach.
fn pass(checks: &[Check]) {
    for check in checks {
        let word = if check.ok { "ok" } else { "BREACH" };
        println!("{} {word}: {}", check.id, check.detail);
    }
    assert!(checks.iter().all(|check| check.ok), "{checks:#?}");
}

fn by_reason(rows: &[AuthorizationRow]) -> BTreeMap<(Rung, Reason), u64> {
    let mut counts = BTreeMap::new();
    for row in rows.iter().filter(|row| is_final(row)) {
        let count: &mut u64 = counts
            .entry((row.answer.rung, row.answer.reason))
            .or_default();
        *count = count.saturating_add(1);
    }
    counts
}

// === impl End ===

impl End {
    /// Fails the test unless every payment was approved: for payments that were made to be.
    pub fn all_approved(&self) {
        let declined = |row: &&AuthorizationRow| row.answer.verdict == Verdict::Declined;
        let declined: Vec<_> = self.rows.iter().filter(declined).take(3).collect();
        assert!(declined.is_empty(), "declined: {declined:#?}");
    }

    /// Final approvals in the ledger.
    pub fn approved(&self) -> usize {
        let approved = |row: &&AuthorizationRow| {
            row.state == AuthorizationState::Final && row.answer.verdict == Verdict::Approved
        };
        self.rows.iter().filter(approved).count()
    }
}
