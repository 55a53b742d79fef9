//! The end of a drill: everything is drained, the edges stop in order, and the checker judges what the
//! bank saw against every keeper's log and the ledger.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use standin_core::id::TransactionId;
use standin_core::ledger::{AuthorizationRow, Ledger};
use standin_reconcile::checker::{
    Check, Copy, Evidence, Recovery, judge as judge_all, judge_group,
};
use standin_reconcile::drain;
use standin_reconcile::history::Attempt;
use standin_reconcile::log::LogContents;
use standin_reconcile::log::source::{DirectoryLog, contents};
use standin_reconcile::reconcile::all_rows;
use standin_reconcile::totals::{Totals, is_final};
use tokio::time::Instant;

use super::edges::{Edge, FAR};
use super::faults::Broken;
use super::watch::Watch;
use super::world::World;
use crate::killed::recovery;

/// For each call to the ledger.
const CALL_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);
/// Log time may be so far from the moment at which the bank first asked, milliseconds: far more than any
/// answer takes, and far less than a clock is stepped.
const LOG_TIME_OFF_MAX: u64 = 60_000;

/// Waits until every answer is in the ledger and every edge has applied the same; gives how far the log
/// goes then.
pub(super) async fn settled(world: &World, watch: &Watch, within: Duration) -> anyhow::Result<u64> {
    let deadline = Instant::now().checked_add(within);
    let number = |page: &Value, path: &str| page.pointer(path).and_then(Value::as_u64);
    loop {
        watch.look().await;
        let pages = world.pages().await;
        let applied: BTreeSet<_> = pages
            .iter()
            .map(|page| number(page, "/wal/applied_index"))
            .collect();
        let told = |page: &Value| number(page, "/advices/waiting") == Some(0);
        let drained = |page: &Value| number(page, "/drain/backlog") == Some(0);
        let far = match &world.far {
            Some(edge) => edge
                .look()
                .await
                .is_some_and(|page| drained(&page) && told(&page)),
            None => true,
        };
        let all = far && pages.len() == world.edges.len() && applied.len() == 1;
        if all && pages.iter().all(|page| told(page) && drained(page)) {
            let applied = applied.into_iter().next().flatten();
            return applied.context("the edges have applied nothing");
        }
        let states = pages.iter().map(|page| {
            let [edge, applied, left, advices] = [
                "/edge",
                "/wal/applied_index",
                "/drain/backlog",
                "/advices/waiting",
            ]
            .map(|path| number(page, path).map_or("?".to_owned(), |n| n.to_string()));
            format!("edge {edge}: applied {applied}, {left} to drain, {advices} advices waiting")
        });
        ensure!(
            deadline.is_some_and(|deadline| Instant::now() < deadline),
            "not everything was drained in {} s: {} of {} edges answer; {}",
            within.as_secs(),
            pages.len(),
            world.edges.len(),
            states.collect::<Vec<_>>().join("; ")
        );
        tokio::time::sleep(POLL).await;
    }
}

/// Stops the edges and judges; `applied` is how far their log goes.
pub(super) async fn judge(
    world: &mut World,
    history: &[Attempt],
    broken: &Broken,
    applied: u64,
) -> anyhow::Result<Vec<Check>> {
    world.stop_edges().await.context("stopping the edges")?;
    let mut keepers = Vec::new();
    for edge in &world.edges {
        keepers.push((edge.id, up_to(read(edge).await?, applied)));
    }
    let (_, first) = keepers.first().context("no keeper has a log")?;
    let mut logs = vec![first.clone()];
    if let Some(far) = &world.far {
        logs.push(read(far).await?);
    }
    let ledger = world.ledger()?;
    let mut drains = Vec::new();
    for log in &logs {
        let again = drain::again(&ledger, log, CALL_MAX).await;
        drains.push(again.context("draining again")?);
    }
    let rows = all_rows(&ledger, CALL_MAX)
        .await
        .context("reading the ledger")?;
    let conflicts = ledger.conflicts(1).await.context("reading conflicts")?;
    ledger.close();
    let recoveries: Vec<Recovery> = broken
        .killed
        .iter()
        .filter_map(|killed| {
            let (_, after) = keepers.iter().find(|(id, _)| *id == killed.node)?;
            Some(recovery(killed, after, history))
        })
        .collect();
    let evidence = Evidence {
        history,
        rows: &rows,
        logs: &logs,
        drains: &drains,
        recoveries: &recoveries,
        reported: &Totals::of_rows(rows.iter().filter(|row| is_final(row))),
    };
    let mut checks = promises(&evidence, &keepers);
    checks.push(Check {
        id: "conflicts".to_owned(),
        ok: conflicts.is_empty(),
        detail: match conflicts.is_empty() {
            true => "no row went to conflicts".to_owned(),
            false => "rows went to conflicts".to_owned(),
        },
    });
    checks.extend(put_back(&broken.lost, &rows));
    if !broken.stepped.is_empty() {
        checks.push(log_time(history, &keepers));
    }
    Ok(checks)
}

/// Judges the promises. What only the logs of all keepers show is judged for the region that has several,
/// by what was told there.
fn promises(evidence: &Evidence<'_>, keepers: &[(u64, LogContents)]) -> Vec<Check> {
    let copies: Vec<Copy<'_>> = keepers
        .iter()
        .map(|(id, log)| Copy {
            keeper: format!("edge-{id}"),
            log,
        })
        .collect();
    if evidence.logs.len() == 1 {
        return judge_group(evidence, &copies);
    }
    let far = format!("edge-{FAR}");
    let told_near: Vec<Attempt> = evidence
        .history
        .iter()
        .filter(|attempt| attempt.edge != far)
        .cloned()
        .collect();
    let near = Evidence {
        history: &told_near,
        logs: evidence.logs.get(..1).unwrap_or_default(),
        drains: evidence.drains.get(..1).unwrap_or_default(),
        ..*evidence
    };
    let of_copies = judge_group(&near, &copies).into_iter();
    let mut of_copies: Vec<Check> = of_copies
        .filter(|check| ["S7", "S9"].contains(&check.id.as_str()))
        .collect();
    let mut checks = judge_all(evidence);
    checks.retain(|check| check.id != "S9");
    checks.append(&mut of_copies);
    checks
}

/// Whether the rows that a promoted standby lacked are final in the end; nothing when it lacked none.
fn put_back(lost: &[String], rows: &[AuthorizationRow]) -> Option<Check> {
    let plain = |id: &str| id.replace('-', "");
    let there: HashSet<String> = rows
        .iter()
        .filter(|row| is_final(row))
        .map(|row| plain(&row.answer.transaction_id.to_string()))
        .collect();
    let gone = |id: &&String| !there.contains(&plain(id));
    let missing = lost.iter().filter(gone).count();
    (!lost.is_empty()).then(|| Check {
        id: "put back".to_owned(),
        ok: missing == 0,
        detail: format!(
            "{} rows that the promoted standby lacked, {missing} of them missing in the end",
            lost.len()
        ),
    })
}

/// Whether log time went on as the bank's own clock did, whatever the edges' clocks did.
fn log_time(history: &[Attempt], keepers: &[(u64, LogContents)]) -> Check {
    let mut asked: HashMap<TransactionId, i64> = HashMap::new();
    for attempt in history {
        if let Some(id) = attempt.transaction_id {
            let first = asked.entry(id).or_insert(attempt.sent_at);
            *first = attempt.sent_at.min(*first);
        }
    }
    let (mut payments, mut most_ms) = (0_u64, 0_u64);
    for record in keepers.iter().flat_map(|(_, log)| &log.records) {
        let answer = record.first_answer();
        let Some(at) = answer.and_then(|answer| asked.get(&answer.transaction_id)) else {
            continue;
        };
        let log_time = i64::try_from(record.log_time_ms).unwrap_or(i64::MAX);
        payments = payments.saturating_add(1);
        most_ms = most_ms.max(log_time.abs_diff(*at));
    }
    Check {
        id: "log time".to_owned(),
        ok: payments > 0 && most_ms <= LOG_TIME_OFF_MAX,
        detail: format!(
            "{payments} answers in the keepers' logs, at most {most_ms} ms from when the bank first asked"
        ),
    }
}

async fn read(edge: &Edge) -> anyhow::Result<LogContents> {
    let log = contents(&DirectoryLog::new(edge.wal())).await;
    log.with_context(|| format!("reading the log of edge {}", edge.id))
}

/// Entries above `applied` were not agreed on when the edges stopped: nobody was told of them.
fn up_to(mut log: LogContents, applied: u64) -> LogContents {
    log.records.retain(|record| record.at.index <= applied);
    log.reversals.retain(|(at, _)| at.index <= applied);
    log.blank.retain(|index| *index <= applied);
    log.last_index = log.last_index.min(applied);
    log
}
