//! After the load: waits until the log has drained, reconciles, and judges what everybody saw.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use standin_core::clock::SystemClock;
use standin_edge::app::Edge;
use standin_reconcile::checker::{Check, DrainEvidence, Evidence, judge};
use standin_reconcile::drain;
use standin_reconcile::history::Attempt;
use standin_reconcile::log::LogContents;
use standin_reconcile::log::source::{LogSource, contents};
use standin_reconcile::reconcile::{Inputs, Options, all_rows, run};
use standin_reconcile::report::reconciliation::Reconciliation;
use standin_reconcile::report::{LedgerFigures, WalFigures};
use standin_reconcile::totals::is_final;
use tokio::time::Instant;
use uuid::Uuid;

use crate::running::RunningLog;
use crate::tombstones::DeskTombstones;

/// How long the drain may take after the load.
const DRAIN_MAX: Duration = Duration::from_secs(60);
/// For one call to the ledger.
const CALL_MAX: Duration = Duration::from_secs(30);
/// Promises that need a crash to be judged, which the demo's edge never has.
const NOT_JUDGED: [&str; 1] = ["S8"];

/// What the facts say.
pub(super) struct Judgement {
    pub(super) reconciliation: Reconciliation,
    pub(super) checks: Vec<Check>,
    pub(super) wal: WalFigures,
    pub(super) ledger: LedgerFigures,
}

/// Answers in the log that are not booked yet, as the edge's status page counts them.
pub(super) fn backlog(status: &Value) -> u64 {
    let number = |path: &str| status.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let booked = ["/drain/finalized", "/drain/already", "/drain/conflicts"];
    let booked = booked
        .into_iter()
        .fold(0_u64, |sum, path| sum.saturating_add(number(path)));
    number("/register/counts/answered").saturating_sub(booked)
}

/// Waits until everything in the log is booked and the drain has come to rest; says whether.
pub(super) async fn await_drain(edge: &Edge, seen: impl Fn(u64)) -> bool {
    let until = Instant::now()
        .checked_add(DRAIN_MAX)
        .unwrap_or_else(Instant::now);
    loop {
        let status = edge.status().await;
        let batches = status.pointer("/drain/backlog").and_then(Value::as_u64);
        let left = backlog(&status);
        seen(left);
        if left == 0 && batches == Some(0) {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Reconciles and judges.
pub(super) async fn judge_all(edge: &Edge, history: &[Attempt]) -> anyhow::Result<Judgement> {
    let log: Arc<dyn LogSource> = Arc::new(RunningLog(edge.log()));
    let inputs = Inputs {
        ledger: edge.ledger(),
        logs: vec![Arc::clone(&log)],
        tombstones: Some(Arc::new(DeskTombstones(edge.desk()))),
        clock: Arc::new(SystemClock),
    };
    // Every proposal's deadline passed long ago: what has no outcome now gets none.
    let options = Options {
        stale_after: Duration::from_secs(3),
        ..Options::new(Uuid::now_v7())
    };
    let reconciliation = run(&inputs, options).await.context("reconciliation")?;
    let log = contents(log.as_ref()).await.context("reading the log")?;
    let ledger = edge.ledger();
    let rows = all_rows(ledger.as_ref(), CALL_MAX)
        .await
        .context("reading the ledger")?;
    let again = drain::again(ledger.as_ref(), &log, CALL_MAX)
        .await
        .context("draining again")?;
    let wal = wal_figures(&log, &again);
    let finals = rows.iter().filter(|row| is_final(row)).count();
    let logs = [log];
    let drains = [again];
    let evidence = Evidence {
        history,
        rows: &rows,
        logs: &logs,
        drains: &drains,
        recoveries: &[],
        reported: &reconciliation.totals,
    };
    let mut checks = judge(&evidence);
    checks.retain(|check| !NOT_JUDGED.contains(&check.id.as_str()));
    let ledger = LedgerFigures {
        authorizations: u64::try_from(finals).unwrap_or(u64::MAX),
    };
    Ok(Judgement {
        reconciliation,
        checks,
        wal,
        ledger,
    })
}

fn wal_figures(log: &LogContents, drained: &DrainEvidence) -> WalFigures {
    let entries = u64::try_from(log.answered().len()).unwrap_or(u64::MAX);
    let above = |record: &&standin_reconcile::log::LogRecord| {
        record.at.index > drained.cursor && record.first_answer().is_some()
    };
    let backlog = log.records.iter().filter(above).count();
    let backlog = u64::try_from(backlog).unwrap_or(u64::MAX);
    WalFigures {
        entries,
        drained: entries.saturating_sub(backlog),
        backlog,
    }
}

/// Requests by rung, `refused` for those that got no answer.
pub(super) fn rungs<'a>(
    attempts: impl IntoIterator<Item = &'a Attempt>,
) -> BTreeMap<&'static str, u64> {
    let mut rungs = BTreeMap::new();
    for attempt in attempts {
        let rung = super::payments::rung_of(&attempt.outcome);
        let count: &mut u64 = rungs
            .entry(rung.map_or("refused", |rung| rung.as_str()))
            .or_default();
        *count = count.saturating_add(1);
    }
    rungs
}
