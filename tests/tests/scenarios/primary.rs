//! The primary dies, hangs, refuses, and comes back.

use std::time::Duration;

use standin_core::answer::{Rung, Why};
use standin_reconcile::history::{Attempt, Outcome, Said};
use standin_tests::harness::{Edge, EdgeOptions, Payment, Stage, Told, verdict};
use tokio_postgres::NoTls;

use super::{PROGRAMS, SOON};

const SHOPPERS: u64 = 20;
const WORKERS: usize = 8;

/// Answers on a rung among these attempts.
fn on_rung(attempts: &[Attempt], rung: Rung) -> usize {
    let said = attempts
        .iter()
        .filter_map(|attempt| match &attempt.outcome {
            Outcome::Answered { status, body, .. } => Said::read(*status, body).ok(),
            _ => None,
        });
    said.filter(|said| said.rung == rung).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_killed_primary_is_stood_in_for_and_gets_every_answer_back() {
    let stage = Stage::set().await;
    let shoppers = stage.trips(1, SHOPPERS, 10_000_000).await;
    let mut edge = Edge::start(PROGRAMS, &stage).await;
    let bank = edge.bank(WORKERS);
    let load = bank.load("g1", WORKERS, &shoppers);
    load.progress(100, SOON).await;
    let before = stage.history.attempts().len();
    stage.postgres.kill().await.unwrap();
    println!("injected: the primary was killed after {before} requests");
    edge.on_rung("stand_in", SOON).await;
    load.progress(300, SOON).await;
    let away = stage.history.attempts().len();
    stage.postgres.restart().await.unwrap();
    edge.on_rung("primary", SOON * 2).await;
    load.progress(100, SOON).await;
    assert_eq!(load.stop().await, []);
    let attempts = stage.history.attempts();
    let refused = attempts.iter().filter(|attempt| attempt.is_unanswered());
    let refused: Vec<_> = refused.map(|attempt| &attempt.outcome).collect();
    assert!(
        refused.is_empty(),
        "{} unanswered: {refused:?}",
        refused.len()
    );
    let [healthy, outage, healed] = [0..before, before..away, away..attempts.len()]
        .map(|range| (range.len(), on_rung(&attempts[range], Rung::StandIn)));
    println!("answered on stand_in (of all): {healthy:?}, then {outage:?}, then {healed:?}");
    assert!(outage.1 >= 250, "the outage was not stood in for");
    assert!(on_rung(&attempts[away..], Rung::Primary) > 0);
    let end = verdict::end(&stage, &mut edge, &[]).await;
    let booked = end
        .rows
        .iter()
        .filter(|row| row.answer.rung == Rung::StandIn);
    assert!(booked.count() >= 250, "the drain brought them back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g2_a_hung_primary_is_left_within_each_requests_budget() {
    let stage = Stage::set().await;
    let shoppers = stage.trips(1, SHOPPERS, 10_000_000).await;
    let mut options = EdgeOptions::on(&stage);
    options.budgets_ms = [4_000, 500, 300, 3_000];
    let mut edge = Edge::start_with(PROGRAMS, &stage, options).await;
    let bank = edge.bank(WORKERS);
    bank.pay_until_answered(&Payment::new("warm", 1, 100), SOON)
        .await;
    edge.on_rung("primary", SOON).await;
    let before = stage.history.attempts().len();
    stage.postgres.pause().unwrap();
    println!("injected: the primary hangs (SIGSTOP to the whole family)");
    let load = bank.load("g2", WORKERS, &shoppers);
    load.progress(300, SOON).await;
    edge.on_rung("stand_in", SOON).await;
    let hung = stage.history.attempts().len();
    // An outage began for the right cause, before anything was resumed.
    let why = edge.status().await["stand_in"]["outage"]["why"].clone();
    assert_eq!(why, Why::Timeout.as_str());
    stage.postgres.resume().unwrap();
    edge.on_rung("primary", SOON * 2).await;
    load.progress(100, SOON).await;
    assert_eq!(load.stop().await, []);
    let attempts = stage.history.attempts();
    let refused = attempts.iter().filter(|attempt| attempt.is_unanswered());
    let refused: Vec<_> = refused.map(|a| (a.latency_us, &a.outcome)).collect();
    assert!(
        refused.is_empty(),
        "{} unanswered: {refused:?}",
        refused.len()
    );
    let during = &attempts[before..hung];
    let slowest = during.iter().map(|attempt| attempt.latency_us).max();
    println!(
        "{} answers while it hung, {} on stand_in, the slowest after {} ms",
        during.len(),
        on_rung(during, Rung::StandIn),
        slowest.unwrap() / 1_000
    );
    assert_eq!(on_rung(during, Rung::StandIn), during.len());
    assert!(slowest.unwrap() < 4_000_000, "past the bank's deadline");
    // The pool is not wedged: afterwards requests are answered by the primary again, and it does
    // not hold more connections than the edge may have.
    let last = bank.pay(&Payment::new("last", 1, 101)).await;
    assert_eq!(last.said().rung, Rung::Primary);
    assert!(stage.connections_of("standin-edge").await <= 10);
    let end = verdict::end(&stage, &mut edge, &[]).await;
    end.all_approved();
}

/// A way in which a primary that is there does not take a hold.
struct Fault {
    what: &'static str,
    /// Statements that make it so, each sent alone.
    make: Vec<String>,
    heal: Vec<String>,
    why: Why,
}

/// What makes an insert of a payment fail, as the table `fault` says at that time: nothing that a
/// scenario changes beside a live edge may lock the edge's tables.
const FAULT_ON_INSERT: &str = "create table fault (what text not null);
create function fault() returns trigger language plpgsql as $$
declare it text := (select what from fault);
begin
  if it = 'sleep' then perform pg_sleep(0.5);
  elsif it is not null then raise exception 'injected' using errcode = it;
  end if;
  return new;
end $$;
create trigger fault before insert on authorizations for each row execute function fault()";

/// Makes every insert into `authorizations` fail with this SQLSTATE, or sleep.
fn on_insert(what: &'static str, fault: &str, why: Why) -> Fault {
    Fault {
        what,
        make: vec![format!("insert into fault values ('{fault}')")],
        heal: vec!["delete from fault".to_owned()],
        why,
    }
}

fn faults() -> Vec<Fault> {
    let mut faults = vec![Fault {
        what: "read-only",
        make: vec![
            "alter system set default_transaction_read_only = on".to_owned(),
            "select pg_reload_conf()".to_owned(),
        ],
        heal: vec![
            "alter system reset default_transaction_read_only".to_owned(),
            "select pg_reload_conf()".to_owned(),
        ],
        // The edge opened its sessions before: they are refused when they write.
        why: Why::ApplicationError,
    }];
    for (what, state, why) in [
        ("serialization failure", "40001", Why::ApplicationError),
        ("deadlock", "40P01", Why::ApplicationError),
        ("disk full", "53100", Why::ApplicationError),
        ("out of memory", "53200", Why::ApplicationError),
        ("too many connections", "53300", Why::Connection),
        ("shutting down", "57P01", Why::Connection),
        ("crash of another backend", "57P02", Why::Connection),
        ("cannot connect now", "57P03", Why::Connection),
        ("I/O error", "58030", Why::ApplicationError),
        ("internal error", "XX000", Why::ApplicationError),
    ] {
        faults.push(on_insert(what, state, why));
    }
    faults.push(on_insert(
        "a statement past its timeout",
        "sleep",
        Why::Timeout,
    ));
    faults
}

/// Payments that each fault of G7 is shown to, at most.
const TRIES: i64 = 4;

#[tokio::test]
async fn g7_a_primary_that_refuses_in_any_way_is_stood_in_for() {
    let stage = Stage::set().await;
    stage.sql(FAULT_ON_INSERT).await;
    let options = EdgeOptions::on(&stage);
    let mut edge = Edge::start_with(PROGRAMS, &stage, options).await;
    let bank = edge.bank(2);
    let faults = faults();
    stage.trips(1, 1 + faults.len() as u64, 1_000_000).await;
    let mut expected = Vec::new();
    for (shopper, fault) in (1_u64..).zip(&faults) {
        let Fault {
            what,
            make,
            heal,
            why,
        } = fault;
        for statement in make {
            stage.sql(statement).await;
        }
        let mut seen = Vec::new();
        for attempt in 0..TRIES {
            let name = format!("g7-{shopper}-{attempt}");
            let payment = Payment::new(name, shopper, 30_000 + attempt);
            let told = bank.pay(&payment).await;
            let heard = told.json();
            println!("injected: {what}: {} {heard}", told.status().unwrap());
            assert_eq!(told.said().rung, Rung::StandIn, "{what}");
            assert_eq!(told.status(), Some(200), "{what}");
            seen.push(heard["why"].clone());
            expected.push((payment, told));
            if seen.last() == Some(&why.as_str().into()) {
                break;
            }
        }
        // On a busy machine a new connection may cost the whole budget, and then the cause is the
        // time; the fault itself must show all the same.
        assert!(seen.contains(&why.as_str().into()), "{what}: {seen:?}");
        for statement in heal {
            stage.sql(statement).await;
        }
        edge.on_rung("primary", SOON).await;
    }
    back_on_primary(&edge, &bank, expected).await;
    let end = verdict::end(&stage, &mut edge, &[]).await;
    assert_eq!(end.log.damage, []);
    assert_eq!(
        stage.ledger_counts().await.2,
        0,
        "nothing went to conflicts"
    );
}

/// Every answer replays, and the next payment is the primary's again.
async fn back_on_primary(
    edge: &Edge,
    bank: &standin_tests::harness::Bank,
    expected: Vec<(Payment, Told)>,
) {
    edge.drained().await;
    for (payment, told) in expected {
        let again = bank.pay(&payment).await;
        assert_eq!(again.reply().body, told.reply().body, "{payment:?}");
        let fresh = Payment::new(format!("{}-after", payment.key), payment.shopper, 777);
        let after = bank.pay(&fresh).await;
        assert_eq!(after.said().rung, Rung::Primary, "{payment:?}");
    }
}

#[tokio::test]
async fn g7_a_lock_that_is_held_is_waited_for_no_longer_than_the_budget() {
    let stage = Stage::set().await;
    let options = EdgeOptions::on(&stage);
    let mut edge = Edge::start_with(PROGRAMS, &stage, options).await;
    let bank = edge.bank(2);
    stage.trip(1, 1_000_000).await;
    let (mut client, connection) = tokio_postgres::connect(&stage.postgres_url(), NoTls)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let transaction = client.transaction().await.unwrap();
    transaction
        .batch_execute("select from trips for update")
        .await
        .unwrap();
    println!("injected: another session holds every trip's lock");
    let payment = Payment::new("lock", 1, 30_000);
    let told = bank.pay(&payment).await;
    assert_eq!(told.said().rung, Rung::StandIn);
    assert_eq!(told.json()["why"], Why::Timeout.as_str());
    transaction.rollback().await.unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
    back_on_primary(&edge, &bank, vec![(payment, told)]).await;
    verdict::end(&stage, &mut edge, &[]).await;
}

#[tokio::test]
async fn g7_a_primary_without_free_connections_is_stood_in_for() {
    let most = ("max_connections".to_owned(), "24".to_owned());
    let stage = Stage::set_with(vec![most]).await;
    let mut edge = Edge::start_with(PROGRAMS, &stage, EdgeOptions::on(&stage)).await;
    let bank = edge.bank(2);
    stage.trip(1, 1_000_000).await;
    let mut taken = Vec::new();
    let mut tasks = tokio::task::JoinSet::new();
    let refused = loop {
        match tokio_postgres::connect(&stage.postgres_url(), NoTls).await {
            Ok((client, connection)) => {
                tasks.spawn(connection);
                taken.push(client);
            }
            // What the edge had is taken from it, and kept, until it has none.
            Err(error) if stage_of_edge(&taken).await > 0 => drop(error),
            Err(error) => break error,
        }
        assert!(taken.len() <= 24, "more connections than there are");
    };
    println!(
        "injected: all connections are taken ({} here): {refused}",
        taken.len()
    );
    let payment = Payment::new("full", 1, 30_000);
    let told = bank.pay(&payment).await;
    assert_eq!(told.said().rung, Rung::StandIn);
    assert_eq!(told.json()["why"], Why::Connection.as_str());
    drop(taken);
    while let Some(closed) = tasks.join_next().await {
        closed.unwrap().unwrap();
    }
    edge.on_rung("primary", SOON).await;
    back_on_primary(&edge, &bank, vec![(payment, told)]).await;
    verdict::end(&stage, &mut edge, &[]).await;
}

/// Ends the edge's sessions; gives how many there were.
async fn stage_of_edge(taken: &[tokio_postgres::Client]) -> i64 {
    let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
         where application_name like 'standin-edge%'";
    let row = taken.last().unwrap().query_one(end, &[]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    row.get(0)
}
