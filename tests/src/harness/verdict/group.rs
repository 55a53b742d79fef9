//! The end of a group: the logs of all keepers have to agree, and what they show together is judged.
//!
//! S6, S7, S14 and S16 need more than one log or the order of its entries; the checker of
//! reconciliation sees neither.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use serde_json::Value;
use standin_core::answer::{Rung, Verdict};
use standin_core::entry::{Entry, Proposal};
use standin_core::id::{TransactionId, TripId};
use standin_core::ledger::AuthorizationRow;
use standin_reconcile::checker::{Check, Evidence, Recovery, judge};
use standin_reconcile::drain;
use standin_reconcile::history::{Attempt, Outcome as Heard, Said};
use standin_reconcile::log::source::{DirectoryLog, contents};
use standin_reconcile::log::{LogContents, LogRecord};
use standin_reconcile::reconcile::all_rows;
use standin_reconcile::totals::{Totals, is_final};
use tokio::time::Instant;

use super::{CALL_MAX, End, by_reason, pass};
use crate::harness::edge::DRAIN_MAX;
use crate::harness::group::Group;
use crate::harness::stage::Stage;

/// How often is looked whether everything is drained.
const POLL: Duration = Duration::from_millis(50);

/// Waits until every answer is in the ledger, stops every edge and judges; fails the test on any
/// breach.
pub async fn end_of_group(stage: &Stage, group: &mut Group) -> End {
    end_of_group_with(stage, group, &[], &[]).await
}

/// The same with what recoveries gave back; `lost` are keepers whose disk is gone, and their logs
/// with it.
pub async fn end_of_group_with(
    stage: &Stage,
    group: &mut Group,
    recoveries: &[Recovery],
    lost: &[u64],
) -> End {
    booked(stage, group).await;
    let applied = group.even(DRAIN_MAX).await;
    group.terminate().await;
    let mut logs = BTreeMap::new();
    for edge in group.edges.iter().filter(|edge| !lost.contains(&edge.id())) {
        let read = contents(&DirectoryLog::new(edge.wal())).await;
        let read = read.unwrap_or_else(|error| panic!("edge {}: {error}", edge.id()));
        logs.insert(edge.id(), up_to(read, applied));
    }
    judge_group(stage, logs, recoveries).await
}

/// Waits until each answer that a bank received is final in the ledger and no edge has anything to
/// tell the log.
async fn booked(stage: &Stage, group: &Group) {
    let answered: HashSet<TransactionId> = answers(&stage.history.attempts())
        .map(|(_, said)| said.transaction_id)
        .collect();
    let ledger = stage.ledger.as_ref();
    let open = || async {
        let rows = all_rows(ledger, CALL_MAX).await.unwrap_or_default();
        let done = rows.iter().filter(|row| is_final(row));
        let done: HashSet<_> = done.map(|row| row.answer.transaction_id).collect();
        answered.difference(&done).count()
    };
    let deadline = Instant::now().checked_add(DRAIN_MAX).unwrap();
    loop {
        let open = open().await;
        let pages = group.pages().await;
        let told = |page: &Value| page["advices"]["waiting"].as_u64().unwrap_or(0);
        let waiting: u64 = pages.iter().map(told).sum();
        let backlog = pages.iter().filter_map(|page| {
            let leads = page["wal"]["leader"] == page["wal"]["node"];
            leads.then(|| page["drain"]["backlog"].as_u64()).flatten()
        });
        let backlog: Vec<u64> = backlog.collect();
        let done = pages.len() == group.edges.len() && open == 0 && waiting == 0;
        if done && backlog == [0] {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "not drained within {DRAIN_MAX:?}: {open} answers are not final, {waiting} advices \
             wait, the leader's backlog is {backlog:?}: {pages:#?}"
        );
        tokio::time::sleep(POLL).await;
    }
}

/// Entries above `applied` were not agreed on when the edges stopped: nobody was told of them.
fn up_to(mut log: LogContents, applied: u64) -> LogContents {
    assert!(log.last_index >= applied, "ends before what it had applied");
    log.records.retain(|record| record.at.index <= applied);
    log.reversals.retain(|(at, _)| at.index <= applied);
    log.blank.retain(|index| *index <= applied);
    log.last_index = applied;
    log
}

async fn judge_group(
    stage: &Stage,
    logs: BTreeMap<u64, LogContents>,
    recoveries: &[Recovery],
) -> End {
    let ledger = stage.ledger.as_ref();
    let history = stage.history.attempts();
    let log = logs.values().next().expect("a keeper").clone();
    let drains = [drain::again(ledger, &log, CALL_MAX).await.unwrap()];
    let rows = all_rows(ledger, CALL_MAX).await.unwrap();
    println!("answers by rung and reason: {:?}", by_reason(&rows));
    let one = [log];
    let mut checks = judge(&Evidence {
        history: &history,
        rows: &rows,
        logs: &one,
        drains: &drains,
        recoveries,
        reported: &Totals::of_rows(rows.iter().filter(|row| is_final(row))),
    });
    let [log] = one;
    checks.push(caps(&log));
    checks.push(majorities(&history, &logs));
    checks.push(closes(&log));
    checks.push(flips(&history, &rows));
    checks.push(agreement(&logs));
    pass(&checks);
    End { rows, log, checks }
}

/// Every answer that a bank received.
fn answers(history: &[Attempt]) -> impl Iterator<Item = (&Attempt, Said)> {
    history.iter().filter_map(|attempt| match &attempt.outcome {
        Heard::Answered { status, body, .. } => Some((attempt, Said::read(*status, body).ok()?)),
        _ => None,
    })
}

fn check(id: &str, seen: String, breaches: &[String]) -> Check {
    let ok = breaches.is_empty();
    let first: Vec<&String> = breaches.iter().take(5).collect();
    let detail = if ok {
        seen
    } else {
        format!("{} breaches: {first:?}", breaches.len())
    };
    Check {
        id: id.to_owned(),
        ok,
        detail,
    }
}

/// What a record approved when it was applied, of those that the log itself let through.
fn approved(record: &LogRecord) -> Option<(&Proposal, TripId)> {
    let Entry::Authorize(proposal) = &record.entry else {
        return None;
    };
    let answer = record.first_answer()?;
    let trip = proposal.trip.as_ref()?.id;
    (answer.verdict == Verdict::Approved).then_some((proposal, trip))
}

/// S6: when an approval is applied, the trip's approvals fit the highest version's cap.
fn caps(log: &LogContents) -> Check {
    let mut spent: HashMap<TripId, i64> = HashMap::new();
    let mut caps: HashMap<TripId, (u64, i64)> = HashMap::new();
    let (mut seen, mut breaches) = (0_u64, Vec::new());
    for record in &log.records {
        let proposal = match &record.entry {
            Entry::Authorize(proposal) => proposal,
            Entry::Advice(advice) => &advice.proposal,
            _ => continue,
        };
        let Some(trip) = &proposal.trip else { continue };
        if let Some(cap) = proposal.cap {
            let version = (trip.version, cap);
            let highest = caps.entry(trip.id).or_insert(version);
            *highest = (*highest).max(version);
        }
        let gave = record.first_answer();
        let Some(answer) = gave.filter(|answer| answer.verdict == Verdict::Approved) else {
            continue;
        };
        let sum = spent.entry(trip.id).or_default();
        *sum = sum.saturating_add(answer.amount.minor());
        if let (Some(_), Some((_, cap))) = (approved(record), caps.get(&trip.id)) {
            seen = seen.saturating_add(1);
            if *sum > *cap {
                breaches.push(format!("{:?}: {sum} over the cap {cap}", record.at));
            }
        }
    }
    check(
        "S6",
        format!("{seen} approvals inside their trip's cap"),
        &breaches,
    )
}

/// S7: an answer that the log gave is in the logs of a majority.
fn majorities(history: &[Attempt], logs: &BTreeMap<u64, LogContents>) -> Check {
    // Of three keepers two, of five three; a lost disk's log is not there and counts as without it.
    let majority = if logs.len() > 3 { 3 } else { 2 };
    let held: Vec<HashSet<TransactionId>> = logs.values().map(LogContents::answered).collect();
    let (mut seen, mut breaches) = (HashSet::new(), Vec::new());
    for (attempt, said) in answers(history) {
        let alone = matches!(said.rung, Rung::PrimaryOnly | Rung::Isolated);
        if alone || !seen.insert(said.transaction_id) {
            continue;
        }
        let copies = held.iter().filter(|log| log.contains(&said.transaction_id));
        let copies = copies.count();
        if copies < majority {
            breaches.push(format!("{} is in {copies} logs", attempt.payment));
        }
    }
    let detail = format!("{} answers, each on a majority of disks", seen.len());
    check("S7", detail, &breaches)
}

/// S14: no approval for a trip after its close.
fn closes(log: &LogContents) -> Check {
    let (mut closed, mut breaches) = (HashSet::new(), Vec::new());
    for record in &log.records {
        if let Entry::TripClosed(trip) = &record.entry {
            closed.insert(*trip);
        }
        if let Some((_, trip)) = approved(record)
            && closed.contains(&trip)
        {
            breaches.push(format!("{:?} approves for a closed trip", record.at));
        }
    }
    check("S14", format!("{} trips closed", closed.len()), &breaches)
}

/// S16: whoever was told an answer first or after an unknown, on whatever edge: it never flips.
fn flips(history: &[Attempt], rows: &[AuthorizationRow]) -> Check {
    let mut told = HashMap::new();
    let mut breaches = Vec::new();
    for (attempt, said) in answers(history) {
        let first = told
            .entry(said.transaction_id)
            .or_insert((said.verdict, said.code));
        if *first != (said.verdict, said.code) {
            breaches.push(format!("{} at {}", attempt.payment, attempt.edge));
        }
    }
    let final_rows = rows.iter().filter(|row| is_final(row));
    for row in final_rows {
        let verdict = told.get(&row.answer.transaction_id);
        if verdict.is_some_and(|(verdict, _)| *verdict != row.answer.verdict) {
            breaches.push(format!("{} in the ledger", row.answer.transaction_id));
        }
    }
    let unknown: HashSet<&str> = history
        .iter()
        .filter(|attempt| attempt.is_unanswered())
        .map(|attempt| attempt.payment.as_str())
        .collect();
    let detail = format!(
        "{} payments answered, {} of the history once unknown",
        told.len(),
        unknown.len()
    );
    check("S16", detail, &breaches)
}

/// What every keeper applied is the same: the same entries with the same outcomes.
fn agreement(logs: &BTreeMap<u64, LogContents>) -> Check {
    let mut breaches = Vec::new();
    let mut all = logs.iter();
    let (first, reference) = all.next().expect("a keeper");
    for (node, log) in all {
        let from = log.first_index.max(reference.first_index);
        let kept = |log: &LogContents| -> Vec<LogRecord> {
            let records = log.records.iter().filter(|record| record.at.index >= from);
            records.cloned().collect()
        };
        let (ours, theirs) = (kept(reference), kept(log));
        if ours.len() != theirs.len() {
            let (ours, theirs) = (ours.len(), theirs.len());
            breaches.push(format!("{first} has {ours} entries, {node} has {theirs}"));
        }
        // Outcomes of a log that was trimmed are not comparable: it is replayed from the middle.
        let whole = log.is_whole() && reference.is_whole();
        let differ = |(a, b): &(&LogRecord, &LogRecord)| {
            a.at != b.at || a.entry != b.entry || (whole && a.outcome != b.outcome)
        };
        if let Some((a, b)) = ours.iter().zip(&theirs).find(differ) {
            breaches.push(format!("{first} and {node}: {:?} and {:?}", a.at, b.at));
        }
    }
    let detail = format!(
        "{} logs of {} entries agree",
        logs.len(),
        reference.records.len()
    );
    check("S2, all logs", detail, &breaches)
}
