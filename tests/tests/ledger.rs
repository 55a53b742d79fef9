//! The ledger's conformance suite on both adapters, and what only Postgres can do wrong.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "test code"
)]

use std::sync::Arc;
use std::time::Duration;

use standin_core::answer::Why;
use standin_core::clock::SystemClock;
use standin_core::entry::Proposal;
use standin_core::ledger::memory::MemoryLedger;
use standin_core::ledger::postgres::{PostgresConfig, PostgresLedger};
use standin_core::ledger::{
    AuthorizationState, Booked, BookedCounts, DrainStep, Fate, HoldReply, Ledger, LedgerError,
    Retry,
};
use standin_core::money::{Currency, Money};
use standin_core::trip::TripChange;
use standin_drill::proxy::Proxy;
use standin_drill::servers::{Postgres, PostgresOptions};
use standin_tests::conformance::clearing;
use standin_tests::conformance::ledger::{World, approve, event, every_case, outcome, step, uuid};
use tokio::time::{Instant, timeout};
use tokio_postgres::NoTls;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_ledger_in_memory_conforms() {
    let ledger: Arc<dyn Ledger> = Arc::new(MemoryLedger::new(Arc::new(SystemClock), None));
    every_case(Arc::new(move || Arc::clone(&ledger))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_ledger_in_postgres_conforms() {
    let server = server().await;
    let url = server.create_database("conformance").await.unwrap();
    let first = PostgresLedger::connect(&PostgresConfig::new(url.clone())).unwrap();
    first.migrate().await.unwrap();
    first.migrate().await.unwrap();
    drop(first);
    every_case(Arc::new(move || Arc::new(open(&url)))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_books_of_reconciliation_conform() {
    let memory = MemoryLedger::new(Arc::new(SystemClock), None);
    clearing::every_case(Arc::new(memory)).await;
    let server = server().await;
    let url = server.create_database("books").await.unwrap();
    let ledger = open(&url);
    ledger.migrate().await.unwrap();
    clearing::every_case(Arc::new(ledger)).await;
}

async fn server() -> Postgres {
    let settings = vec![("max_connections".to_owned(), "300".to_owned())];
    Postgres::start_with(PostgresOptions {
        settings,
        ..PostgresOptions::default()
    })
    .await
    .unwrap()
}

/// A client with connections of its own, patient enough for fifty at once on two cores.
fn open(url: &str) -> PostgresLedger {
    let mut config = PostgresConfig::new(url);
    for pool in [&mut config.foreground, &mut config.background] {
        pool.connections = 1;
        pool.wait = Duration::from_secs(20);
        pool.statement_timeout = Duration::from_secs(20);
        pool.lock_timeout = Duration::from_secs(10);
    }
    config.create_timeout = Duration::from_secs(20);
    config.connect_timeout = Duration::from_secs(20);
    PostgresLedger::connect(&config).unwrap()
}

/// One database with its schema and a SHOPPING trip, and the clients' configuration.
struct Bench {
    server: Postgres,
    url: String,
    world: World,
}

impl Bench {
    async fn new(config: impl Fn(String) -> PostgresConfig + Send + Sync + 'static) -> Self {
        let server = server().await;
        let url = server.create_database("ledger").await.unwrap();
        let ledger = PostgresLedger::connect(&config(url.clone())).unwrap();
        ledger.migrate().await.unwrap();
        let of = url.clone();
        let open = move || -> Arc<dyn Ledger> {
            Arc::new(PostgresLedger::connect(&config(of.clone())).unwrap())
        };
        let world = World::new(Arc::new(open));
        Self { server, url, world }
    }

    /// Another session, for getting in the way.
    async fn session(&self) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await.unwrap();
        drop(tokio::spawn(connection));
        client
    }
}

async fn hold(ledger: &dyn Ledger, proposal: Proposal) -> Result<HoldReply, LedgerError> {
    Ok(ledger.hold(vec![proposal]).await?.pop().unwrap())
}

/// Holds until the ledger answers, for ten seconds at most.
async fn hold_again(ledger: &dyn Ledger, proposal: &Proposal) -> HoldReply {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match hold(ledger, proposal.clone()).await {
            Ok(reply) => return reply,
            Err(error) => {
                assert_ne!(error.retry, Retry::Never, "{error}");
                assert!(Instant::now() < deadline, "{error}");
                tokio::task::yield_now().await;
            }
        }
    }
}

fn held(approved_before: i64) -> HoldReply {
    HoldReply::Held { approved_before }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_leaves_no_connection_wedged() {
    let config = |url| {
        let mut config = PostgresConfig::new(url);
        config.foreground.connections = 2;
        config
    };
    let bench = Bench::new(config).await;
    let sheet = bench.world.trip().await;
    let ledger = &*bench.world.ledger;
    for _ in 0..2 {
        let reply = hold_again(ledger, &approve(&sheet, 1, 1_000)).await;
        assert!(matches!(reply, HoldReply::Held { .. }));
    }
    bench.server.pause().unwrap();
    for _ in 0..6 {
        // As the edge does: past its budget it drops the hold.
        let waited = timeout(
            Duration::from_millis(150),
            hold(ledger, approve(&sheet, 1, 1_000)),
        );
        match waited.await {
            Err(_) => {}
            Ok(Err(error)) => assert_ne!(error.retry, Retry::Never, "{error}"),
            Ok(Ok(reply)) => panic!("a stopped server answered {reply:?}"),
        }
    }
    bench.server.resume().unwrap();
    let after = approve(&sheet, 1, 1_000);
    assert!(matches!(
        hold_again(ledger, &after).await,
        HoldReply::Held { .. }
    ));
    // From now on every connection of the pool is sound: nothing waits, nothing fails.
    for _ in 0..10 {
        assert!(matches!(
            hold(ledger, after.clone()).await,
            Ok(HoldReply::Held { .. })
        ));
    }
}

/// The bench's database behind a proxy, which counts connections.
async fn counted(bench: &Bench) -> (Proxy, PostgresConfig) {
    let port = bench.server.port();
    let proxy = Proxy::start(port).await.unwrap();
    let (here, there) = (format!(":{port}/"), format!(":{}/", proxy.port()));
    assert!(bench.url.contains(&here), "the address names its port");
    let mut config = PostgresConfig::new(bench.url.replace(&here, &there));
    (config.foreground.connections, config.probe.connections) = (1, 1);
    // Longer than anything here takes, however busy the machine is.
    config.create_timeout = Duration::from_secs(20);
    config.salvage_timeout = Duration::from_secs(20);
    (proxy, config)
}

/// Were each one closed, a slow server would have to serve new connections instead of statements.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_give_up_cost_no_connection() {
    let bench = Bench::new(PostgresConfig::new).await;
    let sheet = bench.world.trip().await;
    let (proxy, config) = counted(&bench).await;
    let ledger = PostgresLedger::connect(&config).unwrap();
    let first = approve(&sheet, 1, 1_000);
    assert_eq!(hold_again(&ledger, &first).await, held(0));
    let before = proxy.counts().connections;
    let session = bench.session().await;
    let lock = "begin; select * from trips for update";
    session.batch_execute(lock).await.unwrap();
    for _ in 0..20 {
        let next = approve(&sheet, 1, 1_000);
        let waited = timeout(Duration::from_millis(20), hold(&ledger, next)).await;
        assert!(!matches!(waited, Ok(Ok(_))), "the trip is locked");
    }
    session.batch_execute("commit").await.unwrap();
    // The last one that was given up may have got the lock.
    let after = hold_again(&ledger, &approve(&sheet, 1, 1_000)).await;
    assert!(matches!(after, HoldReply::Held { approved_before } if approved_before >= 1));
    assert_eq!(proxy.counts().connections, before, "connections were made");
}

/// Each one that is given up would be served by a process of its own once the server goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_says_nothing_is_dialled_once() {
    let bench = Bench::new(PostgresConfig::new).await;
    let (proxy, config) = counted(&bench).await;
    let ledger = PostgresLedger::connect(&config).unwrap();
    bench.server.pause().unwrap();
    for _ in 0..10 {
        let tried = timeout(Duration::from_millis(50), ledger.probe()).await;
        assert!(!matches!(tried, Ok(Ok(()))), "a stopped server answered");
    }
    bench.server.resume().unwrap();
    let back = async {
        while ledger.probe().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(30), back).await.unwrap();
    assert_eq!(proxy.counts().connections, 1, "it was dialled again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_is_an_error_that_says_so_and_comes_back() {
    let bench = Bench::new(PostgresConfig::new).await;
    let sheet = bench.world.trip().await;
    let ledger = &*bench.world.ledger;
    let first = approve(&sheet, 1, 1_000);
    assert_eq!(hold_again(ledger, &first).await, held(0));
    bench.server.kill().await.unwrap();
    // A broken connection that had sent its COMMIT is unknown; no connection is surely not done.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let error = hold(ledger, approve(&sheet, 1, 1_000)).await.unwrap_err();
        assert_eq!(
            (error.retry, error.why),
            (Retry::Later, Why::Connection),
            "{error}"
        );
        if error.fate == Fate::NotDone {
            break;
        }
        assert!(Instant::now() < deadline);
    }
    // Connecting does not need the server.
    let late = bench.world.clients(1).remove(0);
    let error = late.probe().await.unwrap_err();
    assert_eq!((error.fate, error.why), (Fate::NotDone, Why::Connection));
    bench.server.restart().await.unwrap();
    assert_eq!(hold_again(ledger, &first).await, held(0));
    late.probe().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_takes_no_writes_is_refused_and_its_connection_dropped() {
    let bench = Bench::new(PostgresConfig::new).await;
    let sheet = bench.world.trip().await;
    let ledger = &*bench.world.ledger;
    let first = approve(&sheet, 1, 1_000);
    assert_eq!(hold_again(ledger, &first).await, held(0));
    let session = bench.session().await;
    session
        .batch_execute("alter system set default_transaction_read_only = on")
        .await
        .unwrap();
    session
        .batch_execute("select pg_reload_conf()")
        .await
        .unwrap();
    // The reload reaches a session between two of its statements.
    let deadline = Instant::now() + Duration::from_secs(10);
    let error = loop {
        match hold(ledger, first.clone()).await {
            Ok(reply) => assert_eq!(reply, held(0)),
            Err(error) => break error,
        }
        assert!(Instant::now() < deadline);
    };
    assert_eq!((error.fate, error.retry), (Fate::NotDone, Retry::Later));
    assert_eq!(error.why, Why::ApplicationError);
    // A new connection asks whether the server takes writes, and is not made to one that does not.
    let error = hold(ledger, first.clone()).await.unwrap_err();
    assert_eq!((error.fate, error.why), (Fate::NotDone, Why::Connection));
    session
        .batch_execute("set default_transaction_read_only = off")
        .await
        .unwrap();
    session
        .batch_execute("alter system reset default_transaction_read_only")
        .await
        .unwrap();
    session
        .batch_execute("select pg_reload_conf()")
        .await
        .unwrap();
    assert_eq!(hold_again(ledger, &first).await, held(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_not_had_in_time_is_an_error_before_the_budget_ends() {
    let bench = Bench::new(PostgresConfig::new).await;
    let sheet = bench.world.trip().await;
    let ledger = &*bench.world.ledger;
    let before = approve(&sheet, 1, 1_000);
    assert_eq!(hold_again(ledger, &before).await, held(0));
    let session = bench.session().await;
    session
        .batch_execute("begin; select * from trips for update")
        .await
        .unwrap();
    let started = Instant::now();
    let after = approve(&sheet, 1, 1_000);
    let error = hold(ledger, after.clone()).await.unwrap_err();
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(
        (error.fate, error.retry, error.why),
        (Fate::NotDone, Retry::Now, Why::Timeout)
    );
    assert!(error.detail.contains("55P03"), "{error}");
    session.batch_execute("commit").await.unwrap();
    assert_eq!(hold_again(ledger, &after).await, held(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plans_made_before_a_migration_are_made_again() {
    let bench = Bench::new(PostgresConfig::new).await;
    let sheet = bench.world.trip().await;
    let ledger = &*bench.world.ledger;
    let before = approve(&sheet, 1, 1_000);
    for _ in 0..8 {
        assert_eq!(hold_again(ledger, &before).await, held(0));
    }
    let migration = "alter table authorizations alter column reason type varchar(64)";
    bench.server.execute("ledger", migration).await.unwrap();
    for n in 0..8 {
        let reply = hold(ledger, approve(&sheet, 1, 1_000)).await.unwrap();
        assert_eq!(reply, held(n + 1));
    }
}

/// Postgres' plan of a join depends on how large it believes tables to be, and an edge keeps its plans.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plans_made_on_an_empty_ledger_look_rows_up_by_key() {
    let explain = [
        ("session_preload_libraries", "auto_explain"),
        ("auto_explain.log_min_duration", "0"),
        ("auto_explain.log_analyze", "on"),
        ("auto_explain.log_format", "json"),
    ];
    let server = Postgres::start_with(PostgresOptions {
        settings: explain
            .map(|(name, value)| (name.into(), value.into()))
            .into(),
        ..PostgresOptions::default()
    })
    .await
    .unwrap();
    let url = server.create_database("ledger").await.unwrap();
    let mut config = PostgresConfig::new(url);
    for pool in [&mut config.foreground, &mut config.background] {
        pool.connections = 1;
    }
    let ledger = Arc::new(PostgresLedger::connect(&config).unwrap());
    ledger.migrate().await.unwrap();
    server.execute("ledger", "analyze").await.unwrap();
    assert_eq!(ledger.warm().await, 1);
    let world = World::of(ledger.clone());
    let (sheet, log) = (world.trip().await, uuid());
    let proposal = approve(&sheet, 1, 100);
    ledger
        .book(step(log, 1, vec![outcome(&proposal, 0, 0)]))
        .await
        .unwrap();

    // What others do, of whom no statistics know.
    let others = "create table more as select gen_random_uuid() as id, gen_random_uuid() as trip, \
         10000000000 + n as shopper from generate_series(1, 3000) as n; \
         insert into transactions (transaction_id, shopper_id, fingerprint) \
         select id, shopper, '' from more; \
         insert into trips select shopper, trip, t.store_id, t.currency, t.status, t.version, \
         t.picked, t.picked_listed, t.mix, t.started_at from more cross join trips t; \
         insert into authorizations (shopper_id, transaction_id, state, fingerprint, bank, verdict, \
         reason, code, amount, currency, rung, approved_before, trip_id, policy_version, exposed) \
         select shopper, id, 'final', '', 'bank', 'approved', 'within_cap', '', 1, 'USD', 'primary', \
         0, trip, 1, false from more";
    server.execute("ledger", others).await.unwrap();
    let already = plans(&server).len();
    let held = approve(&sheet, 1, 100);
    hold(&*ledger, held.clone()).await.unwrap();
    let on = DrainStep {
        from: 1,
        ..step(log, 2, vec![outcome(&held, 1, 0)])
    };
    assert!(matches!(ledger.book(on).await.unwrap(), Booked::Moved(_)));
    let all = plans(&server);
    let scans: Vec<Scan> = all
        .iter()
        .skip(already)
        .flat_map(|plan| scans(&plan["Plan"]))
        .collect();
    for table in ["transactions", "trips", "authorizations"] {
        assert!(
            scans
                .iter()
                .any(|scan| scan.table.starts_with(table) && scan.rows > 0)
        );
    }
    let widest = scans.iter().max_by_key(|scan| scan.rows).unwrap();
    assert!(widest.rows < 10, "{widest:?}");
}

/// Every plan that a server with `auto_explain` has written to its log.
fn plans(server: &Postgres) -> Vec<serde_json::Value> {
    let log = std::fs::read_to_string(server.folder().join("postgres.log")).unwrap();
    let texts = log.split(" ms  plan:").skip(1);
    texts
        .map(|text| {
            let mut json = serde_json::Deserializer::from_str(text).into_iter();
            json.next().unwrap().unwrap()
        })
        .collect()
}

/// How many rows a plan read of a table, at one place.
#[derive(Debug)]
#[allow(dead_code, reason = "shown")]
struct Scan {
    table: String,
    index: String,
    rows: u64,
}

fn scans(plan: &serde_json::Value) -> Vec<Scan> {
    let number = |name: &str| plan[name].as_u64().unwrap_or_default();
    let word = |name: &str| plan[name].as_str().unwrap_or_default().to_owned();
    let below = plan["Plans"].as_array().into_iter().flatten();
    let mut all: Vec<Scan> = below.flat_map(scans).collect();
    if plan["Node Type"]
        .as_str()
        .is_some_and(|kind| kind.contains("Scan"))
    {
        let each = number("Actual Rows")
            + number("Rows Removed by Filter")
            + number("Rows Removed by Index Recheck");
        all.push(Scan {
            table: word("Relation Name"),
            index: word("Index Name"),
            rows: each * number("Actual Loops"),
        });
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_that_postgres_rejects_does_not_stop_the_drain() {
    let bench = Bench::new(PostgresConfig::new).await;
    let sheet = bench.world.trip().await;
    let ledger = &*bench.world.ledger;
    let (good, fine) = (approve(&sheet, 1, 1_000), approve(&sheet, 2, 1_000));
    let (mut nul, mut huge, mut negative) = (
        approve(&sheet, 3, 1_000),
        approve(&sheet, 4, 1_000),
        approve(&sheet, 5, 1_000),
    );
    // A NUL in the merchant's name; an age past 63 bits, which is booked as the largest there is; an
    // amount no check lets in.
    nul.request.merchant.name = "Tar\0get".to_owned();
    huge.trip_age_ms = Some(u64::MAX);
    negative.request.amount = Money::from_minor(-1, Currency::USD);
    assert_eq!(hold_again(ledger, &nul).await, held(0));
    let all = [&good, &nul, &huge, &negative, &fine];
    let log = uuid();
    let outcomes = (0_u32..)
        .zip(all)
        .map(|(slot, proposal)| outcome(proposal, 1, slot))
        .collect();
    let booked = ledger.book(step(log, 1, outcomes)).await.unwrap();
    let expected = BookedCounts {
        finalized: 3,
        already: 0,
        conflicts: 2,
    };
    assert_eq!(booked, Booked::Moved(expected));
    assert_eq!(ledger.cursor(log).await.unwrap(), 1);
    let state = async |proposal| bench.world.row(proposal).await.map(|row| row.state);
    assert_eq!(state(&good).await, Some(AuthorizationState::Final));
    assert_eq!(state(&fine).await, Some(AuthorizationState::Final));
    assert_eq!(state(&nul).await, Some(AuthorizationState::Held));
    assert_eq!(state(&huge).await, Some(AuthorizationState::Final));
    let mut kept = ledger.conflicts(10).await.unwrap();
    kept.sort_by_key(|row| row.at);
    let slots: Vec<_> = kept.iter().map(|row| row.at.slot).collect();
    assert_eq!(slots, [1, 3]);
    assert!(kept[0].cause.contains("22021"), "{}", kept[0].cause);
    assert_eq!(
        kept[0].outcome["proposal"]["request"]["merchant"]["name"],
        "Tar\0get"
    );
    assert!(kept[1].cause.contains("23514"), "{}", kept[1].cause);
    // Text of the payment never reaches a message.
    assert!(kept.iter().all(|row| !row.cause.contains("Tar")));
}

/// A close written first may become visible last: a reader that has passed it by is told all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_that_commits_late_is_told_when_it_has_settled() {
    let config = |url| {
        let mut config = PostgresConfig::new(url);
        config.closes_settle = Duration::from_millis(300);
        config
    };
    let bench = Bench::new(config).await;
    let ledger = &*bench.world.ledger;
    let (late, prompt) = (bench.world.trip().await, bench.world.trip().await);
    let session = bench.session().await;
    let close = "update trips set status = 'DELIVERING', \
         closed_at = date_trunc('milliseconds', clock_timestamp()) where trip_id = $1";
    session.batch_execute("begin").await.unwrap();
    session.execute(close, &[&late.trip.id.0]).await.unwrap();
    let finish = event(&prompt, TripChange::Finish);
    ledger.book_events(vec![finish]).await.unwrap();
    let mut cursor = None;
    let mut told = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(10);
    // Told once when it is new; the late one is invisible still.
    while told.is_empty() {
        for closed in ledger.closed_since(cursor, 1).await.unwrap() {
            cursor = Some(closed.cursor);
            told.push(closed.trip);
        }
        assert!(Instant::now() < deadline);
    }
    assert_eq!(told, [prompt.trip.id]);
    session.batch_execute("commit").await.unwrap();
    while told.len() < 3 {
        for closed in ledger.closed_since(cursor, 1).await.unwrap() {
            cursor = Some(closed.cursor);
            told.push(closed.trip);
        }
        assert!(Instant::now() < deadline, "{told:?}");
        tokio::task::yield_now().await;
    }
    // In order of their closes, behind both of which nothing comes any more.
    assert_eq!(told[1..], [late.trip.id, prompt.trip.id]);
    assert_eq!(ledger.closed_since(cursor, 10).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_schema_keeps_what_the_first_had() {
    let server = server().await;
    server.create_database("old").await.unwrap();
    let first = include_str!("../../core/migrations/V1__ledger.sql");
    let second = include_str!("../../core/migrations/V2__reversals_and_closes.sql");
    server.execute("old", first).await.unwrap();
    let rows = "insert into trips values \
         (1, '00000000-0000-0000-0000-000000000001', 1, 'USD', 'SHOPPING', 1, 0, 0, '{}', now()), \
         (2, '00000000-0000-0000-0000-000000000002', 1, 'USD', 'COMPLETE', 1, 0, 0, '{}', now()); \
         insert into reversals values (1, '00000000-0000-0000-0000-000000000003', \
         '00000000-0000-0000-0000-000000000004', 12, 'USD', now()); \
         insert into authorizations (shopper_id, transaction_id, state, fingerprint, bank, verdict, \
         reason, code, amount, currency, rung, approved_before, policy_version, exposed) values \
         (1, '00000000-0000-0000-0000-000000000003', 'final', '', 'b', 'approved', 'within_cap', \
         'AAAAAA', 12, 'USD', 'primary', 0, 1, false)";
    server.execute("old", rows).await.unwrap();
    server.execute("old", second).await.unwrap();
    for (question, answer) in [
        (
            "select string_agg(shopper_id::text, ',') from trips where closed_at is not null",
            "2",
        ),
        (
            "select shopper_id || ' ' || amount || ' [' || reason || ']' from reversals",
            "1 12 []",
        ),
        ("select reversed::text from authorizations", "0"),
        (
            "select count(*) from pg_class where relname = 'reversals_v1'",
            "0",
        ),
    ] {
        let said = server.ask_in("old", question).await.unwrap();
        assert_eq!(said.as_deref(), Some(answer), "{question}");
    }
}
