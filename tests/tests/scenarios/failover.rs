//! Postgres fails over under a group of edges, and its drainers die and race.

use std::sync::Arc;
use std::time::Duration;

use standin_core::answer::Rung;
use standin_core::ledger::Ledger;
use standin_reconcile::drain::{again, drain};
use standin_reconcile::log::source::{DirectoryLog, contents};
use standin_tests::harness::stage::DATABASE;
use standin_tests::harness::{Group, GroupOptions, Stage, verdict};

use super::keepers::{on_rung, settle};
use super::{PROGRAMS, Random, SOON, seed};

const SHOPPERS: u64 = 20;
const WORKERS: usize = 6;
const CALL_MAX: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g6_what_an_asynchronous_standby_missed_comes_back_and_g5_the_old_primary_is_refused() {
    let mut stage = Stage::set_with_standby(false).await;
    let shoppers = stage.trips(1, SHOPPERS, 10_000_000).await;
    let standby = stage.standby.as_ref().unwrap();
    stage.postgres.caught_up(standby).await.unwrap();
    let mut group = Group::start(PROGRAMS, &stage, GroupOptions::on(&stage)).await;
    let banks = group.banks(WORKERS);
    let load = banks.load("g6", WORKERS, &shoppers);
    load.progress(100, SOON).await;
    standby.detach().await.unwrap();
    load.progress(200, SOON).await;
    let leader = group.led(SOON).await;
    let drained = |page: &serde_json::Value| page["drain"]["cursor"].as_u64().filter(|at| *at > 0);
    let leading = group.edge(leader);
    leading.status_until("drained", SOON, drained).await;
    let before = stage.ledger_counts().await.1;
    let attempts = stage.history.attempts().len();
    stage.postgres.kill().await.unwrap();
    stage.promote().await;
    let after = stage.ledger_counts().await.1;
    println!(
        "injected: a failover to a standby that lacks {} of {before} rows",
        before - after
    );
    assert!(
        after < before,
        "the standby had everything: {before} and {after}"
    );
    load.progress(200, SOON * 2).await;
    for edge in &group.edges {
        edge.on_rung("primary", SOON * 2).await;
    }
    // The old primary comes back, first in the edges' list, and takes writes as it did before.
    stage.postgres.restart().await.unwrap();
    let epoch = "select 1 where not pg_is_in_recovery()";
    stage.postgres.execute(DATABASE, epoch).await.unwrap();
    println!("injected: the old primary is back and takes writes");
    let rows = "select count(*)::text from authorizations where state = 'final'";
    let old = || stage.postgres.ask_in(DATABASE, rows);
    let stale = old().await.unwrap();
    load.progress(300, SOON * 2).await;
    assert_eq!(
        old().await.unwrap(),
        stale,
        "the old primary was drained into"
    );
    let stood_in = on_rung(&stage.history.attempts()[attempts..], Rung::StandIn);
    println!("{stood_in} answers on stand_in meanwhile; the old primary has {stale:?} rows still");
    settle(&banks, load).await;
    let end = verdict::end_of_group(&stage, &mut group).await;
    end.all_approved();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g8_drainers_that_die_and_drainers_that_race_book_each_outcome_once() {
    const DEATHS: u64 = 8;
    let mut random = Random(seed());
    let stage = Stage::set().await;
    let shoppers = stage.trips(1, SHOPPERS, 10_000_000).await;
    let mut group = Group::start(PROGRAMS, &stage, GroupOptions::on(&stage)).await;
    let banks = group.banks(WORKERS);
    let load = banks.load("g8", WORKERS, &shoppers);
    load.progress(50, SOON).await;
    let mut amid = 0;
    for _ in 0..DEATHS {
        stage.postgres.pause().unwrap();
        load.progress(60, SOON * 2).await;
        stage.postgres.resume().unwrap();
        tokio::time::sleep(Duration::from_micros(random.below(300_000))).await;
        let leader = group.led(SOON).await;
        let page = group.edge(leader).status().await;
        amid += u64::from(page["drain"]["backlog"].as_u64() > Some(0));
        group.edge(leader).kill().await;
        group.led_by(SOON, |id| id != leader).await;
        group.edge(leader).restart().await;
    }
    println!("injected: {DEATHS} drainers died, {amid} of them with a backlog");
    assert!(amid > 0, "no drainer died amid its work");
    // Then nobody drains, and afterwards several at once do.
    stage.postgres.kill().await.unwrap();
    load.progress(200, SOON * 2).await;
    settle(&banks, load).await;
    let end = group.even(SOON).await;
    for edge in &mut group.edges {
        edge.kill().await;
    }
    stage.postgres.restart().await.unwrap();
    let log = Arc::new(
        contents(&DirectoryLog::new(group.edge(1).wal()))
            .await
            .unwrap(),
    );
    let cursor = stage.ledger.cursor(log.incarnation).await.unwrap();
    let undrained = log.undrained(cursor);
    assert!(
        undrained >= 100 && log.last_index >= end,
        "{undrained} {end}"
    );
    let mut racing = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (ledger, log) = (Arc::clone(&stage.ledger), Arc::clone(&log));
        racing.spawn(async move { drain(ledger.as_ref(), &log, CALL_MAX).await.unwrap() });
    }
    let drained: Vec<_> = racing.join_all().await;
    println!("injected: four drainers at once for {undrained} outcomes: {drained:?}");
    assert!(
        drained
            .iter()
            .all(|drained| drained.cursor == drained.cursor.max(cursor))
    );
    let twice = again(stage.ledger.as_ref(), &log, CALL_MAX).await.unwrap();
    assert_eq!(
        twice.rows_before, twice.rows_after,
        "draining again changed something"
    );
    group.restart_all().await;
    verdict::end_of_group(&stage, &mut group).await;
}
