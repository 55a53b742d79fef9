//! After the load: waits until the log has drained, reconciles, and judges what everybody saw.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use standin_core::clock::SystemClock;
use standin_core::ledger::AuthorizationRow;
use standin_edge::app::Edge;
use standin_reconcile::checker::{
    Check, Copy, DrainEvidence, Evidence, Recovery, digest, judge_group,
};
use standin_reconcile::drain;
use standin_reconcile::history::Attempt;
use standin_reconcile::log::source::{DirectoryLog, LogSource, contents};
use standin_reconcile::log::{LogContents, LogRecord};
use standin_reconcile::reconcile::{Inputs, Options, all_rows, run};
use standin_reconcile::report::reconciliation::Reconciliation;
use standin_reconcile::report::{LedgerFigures, WalFigures};
use standin_reconcile::totals::is_final;
use uuid::Uuid;

use super::group::Group;
use crate::killed::{Killed, recovery};
use crate::running::RunningLog;
use crate::tombstones::DeskTombstones;

/// For one call to the ledger.
const CALL_MAX: Duration = Duration::from_secs(30);

/// What the facts say.
pub(super) struct Judgement {
    pub(super) reconciliation: Reconciliation,
    pub(super) checks: Vec<Check>,
    pub(super) wal: WalFigures,
    pub(super) ledger: LedgerFigures,
}

/// The same, and what is wrong beside it.
pub(super) struct Judged {
    pub(super) judgement: Judgement,
    pub(super) complaints: Vec<String>,
}

/// Reconciles, stops the keepers, and judges what every client saw against every edge's log.
///
/// The platform's edge has learned the whole log, and its ledger is the one that is judged; with the
/// ledgers embedded, every keeper's must hold the same (`ledgers`).
pub(super) async fn judge_all(
    edge: &Edge,
    group: &Group,
    killed: &Killed,
    ledgers: &[(u64, u64)],
    history: &[Attempt],
) -> anyhow::Result<Judged> {
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
    let (finals, own) = finals_digest(&rows);
    let complaints = differing(group, ledgers, (finals, own));
    let copies = keepers_logs(group).await?;
    let recoveries: Vec<Recovery> = copies
        .iter()
        .filter(|(node, _)| *node == killed.node)
        .map(|(_, after)| recovery(killed, after, history))
        .collect();
    let copies: Vec<Copy<'_>> = copies
        .iter()
        .map(|(node, log)| Copy {
            keeper: format!("edge-{node}"),
            log,
        })
        .collect();
    let logs = [log];
    let drains = [again];
    let evidence = Evidence {
        history,
        rows: &rows,
        logs: &logs,
        drains: &drains,
        recoveries: &recoveries,
        reported: &reconciliation.totals,
    };
    let checks = judge_group(&evidence, &copies);
    let judgement = Judgement {
        reconciliation,
        checks,
        wal,
        ledger: LedgerFigures {
            authorizations: finals,
        },
    };
    Ok(Judged {
        judgement,
        complaints,
    })
}

/// Stops the keepers and reads their logs.
async fn keepers_logs(group: &Group) -> anyhow::Result<Vec<(u64, LogContents)>> {
    group.stop().await.context("stopping the edges")?;
    let mut copies = Vec::new();
    for place in group.places() {
        let log = contents(&DirectoryLog::new(&place.wal)).await;
        let log = log.with_context(|| format!("reading the log of edge {}", place.node))?;
        copies.push((place.node, log));
    }
    Ok(copies)
}

/// Keepers whose embedded ledger does not hold the same final rows as the platform's.
fn differing(group: &Group, ledgers: &[(u64, u64)], own: (u64, u64)) -> Vec<String> {
    let keepers = group.places().zip(ledgers);
    let differ = keepers.filter(|(_, theirs)| **theirs != own);
    differ
        .map(|(place, (finals, _))| {
            format!(
                "edge {} has {finals} final rows, and not the same as the platform's {}",
                place.node, own.0
            )
        })
        .collect()
}

/// How many rows are final, and a digest of what they answer that does not depend on their order: when
/// a row was booked is each edge's own.
pub(super) fn finals_digest(rows: &[AuthorizationRow]) -> (u64, u64) {
    let finals = rows.iter().filter(|row| is_final(row));
    finals.fold((0, 0), |(count, sum): (u64, u64), row| {
        (count.saturating_add(1), sum ^ digest(&row.answer))
    })
}

fn wal_figures(log: &LogContents, drained: &DrainEvidence) -> WalFigures {
    let entries = u64::try_from(log.answered().len()).unwrap_or(u64::MAX);
    let above =
        |record: &&LogRecord| record.at.index > drained.cursor && record.first_answer().is_some();
    let backlog = log.records.iter().filter(above).count();
    let backlog = u64::try_from(backlog).unwrap_or(u64::MAX);
    WalFigures {
        entries,
        drained: entries.saturating_sub(backlog),
        backlog,
        // Seen from outside, not read from the log.
        members: 0,
        leader_changes: 0,
        longest_election_ms: 0,
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
