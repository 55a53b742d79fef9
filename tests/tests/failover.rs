//! What a failover of Postgres does to the ledger, on real servers that replicate.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "test code"
)]

use std::sync::Arc;
use std::time::Duration;

use standin_core::answer::Why;
use standin_core::entry::Proposal;
use standin_core::ledger::postgres::{PostgresConfig, PostgresLedger};
use standin_core::ledger::{
    Advised, AuthorizationRow, AuthorizationState, Booked, BookedCounts, DrainStep, Fate,
    HoldReply, Ledger, LedgerError, Retry,
};
use standin_drill::servers::{Postgres, PostgresOptions, Replicated, ReplicatedOptions};
use standin_tests::conformance::ledger::{World, advice, approve, outcome, reversal, step, uuid};
use tokio::time::{Instant, timeout};

const DATABASE: &str = "ledger";
/// For anything that must come about.
const SOON: Duration = Duration::from_secs(20);
/// For what must not come about: long enough for any answer of a server that gives one.
const PATIENCE: Duration = Duration::from_millis(400);

/// A primary with one standby, and a ledger that knows both.
struct Pair {
    servers: Replicated,
    ledger: Arc<PostgresLedger>,
    world: World,
}

/// Patient with two busy cores; the primary of the start stands first in `url`.
fn config(url: String) -> PostgresConfig {
    let mut config = PostgresConfig::new(url);
    for pool in [
        &mut config.foreground,
        &mut config.background,
        &mut config.probe,
    ] {
        pool.connections = 3;
        pool.wait = SOON;
        pool.statement_timeout = SOON;
        pool.lock_timeout = SOON;
    }
    config.connect_timeout = SOON;
    config.create_timeout = SOON;
    config
}

fn connect(config: &PostgresConfig) -> Arc<PostgresLedger> {
    Arc::new(PostgresLedger::connect(config).unwrap())
}

// === impl Pair ===

impl Pair {
    async fn start(synchronous: bool) -> Self {
        let primary = PostgresOptions {
            fsync: false,
            ..PostgresOptions::default()
        };
        let servers = Replicated::start(ReplicatedOptions {
            primary,
            standbys: 1,
            synchronous,
        })
        .await
        .unwrap();
        servers.primary.create_database(DATABASE).await.unwrap();
        let ledger = connect(&config(servers.url(DATABASE)));
        ledger.migrate().await.unwrap();
        let client = Arc::clone(&ledger);
        let open = move || -> Arc<dyn Ledger> { Arc::<PostgresLedger>::clone(&client) };
        Self {
            servers,
            world: World::new(Arc::new(open)),
            ledger,
        }
    }

    fn primary(&self) -> &Postgres {
        &self.servers.primary
    }

    fn standby(&self) -> &Postgres {
        &self.servers.standbys[0]
    }

    /// Promotes the standby as whoever does it must: the epoch goes up before anybody writes.
    async fn promote(&self) -> u64 {
        self.standby().promote().await.unwrap();
        let tool = connect(&config(self.standby().url(DATABASE)));
        tool.promote_epoch().await.unwrap()
    }

    fn both(&self) -> PostgresConfig {
        config(self.servers.url(DATABASE))
    }
}

/// A call until the ledger answers.
async fn again<T>(mut call: impl AsyncFnMut() -> Result<T, LedgerError>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        match call().await {
            Ok(reply) => return reply,
            Err(error) => {
                assert_ne!(error.retry, Retry::Never, "{error}");
                assert!(Instant::now() < deadline, "{error}");
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn hold(ledger: &dyn Ledger, proposal: &Proposal) -> Result<HoldReply, LedgerError> {
    Ok(ledger.hold(vec![proposal.clone()]).await?.pop().unwrap())
}

fn held(approved_before: i64) -> HoldReply {
    HoldReply::Held { approved_before }
}

/// Whether a server has a payment in any of its tables.
async fn knows(server: &Postgres, proposal: &Proposal) -> bool {
    let id = proposal.transaction_id.to_uuid();
    let question = format!(
        "select 1 where exists (select 1 from transactions where transaction_id = '{id}') \
         or exists (select 1 from authorizations where transaction_id = '{id}')"
    );
    server.ask_in(DATABASE, &question).await.unwrap().is_some()
}

/// The rows of these payments.
async fn rows(pair: &Pair, proposals: &[Proposal]) -> Vec<AuthorizationRow> {
    let mut rows = Vec::new();
    for proposal in proposals {
        rows.push(pair.world.row(proposal).await.unwrap());
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_is_followed_without_a_restart() {
    let pair = Pair::start(true).await;
    let ledger = &*pair.ledger;
    let (sheet, log) = (pair.world.trip().await, uuid());
    let (first, second) = (approve(&sheet, 10, 100), approve(&sheet, 20, 100));
    let outcomes = vec![outcome(&first, 1, 0)];
    ledger.book(step(log, 1, outcomes)).await.unwrap();
    assert_eq!(hold(ledger, &second).await.unwrap(), held(10));
    pair.primary().kill().await.unwrap();
    // A standby takes no writes: nothing is done, and later is time enough.
    let error = hold(ledger, &approve(&sheet, 1, 100)).await.unwrap_err();
    assert_eq!(error.retry, Retry::Later, "{error}");
    let error = ledger.probe().await.unwrap_err();
    assert_eq!((error.fate, error.why), (Fate::NotDone, Why::Connection));

    assert_eq!(pair.promote().await, 2);
    again(|| ledger.probe()).await;
    assert_eq!(ledger.epoch(), 2);
    // What was committed is there. A hold may be: it waits for no standby.
    let row = pair.world.row(&first).await.unwrap();
    assert_eq!(row.state, AuthorizationState::Final);
    assert_eq!(again(|| ledger.cursor(log)).await, 1);
    assert_eq!(again(|| hold(ledger, &second)).await, held(10));
    let outcomes = vec![outcome(&second, 2, 0)];
    let booked = again(|| ledger.book(step(log, 2, outcomes.clone()))).await;
    assert!(matches!(booked, Booked::Moved(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_asynchronous_standby_missed_comes_back_from_the_log_once() {
    let pair = Pair::start(false).await;
    let ledger = &*pair.ledger;
    let (sheet, log) = (pair.world.trip().await, uuid());
    let proposals: Vec<Proposal> = (0..20).map(|_| approve(&sheet, 10, 1_000)).collect();
    let steps: Vec<DrainStep> = (1_u64..)
        .zip(proposals.chunks(5))
        .map(|(index, batch)| {
            let outcomes = (0_u32..)
                .zip(batch)
                .map(|(slot, proposal)| outcome(proposal, index, slot));
            step(log, index, outcomes.collect())
        })
        .collect();
    let mut steps: [DrainStep; 4] = steps.try_into().unwrap();
    // The third batch takes money back: of its own, and of what the standby has.
    steps[2].reversals = vec![reversal(&proposals[12], 10), reversal(&proposals[0], 4)];
    let moved = |finalized, already| {
        Booked::Moved(BookedCounts {
            finalized,
            already,
            conflicts: 0,
        })
    };
    for step in &steps[..2] {
        assert_eq!(ledger.book(step.clone()).await.unwrap(), moved(5, 0));
    }
    pair.primary().caught_up(pair.standby()).await.unwrap();
    pair.standby().detach().await.unwrap();
    for step in &steps[2..] {
        assert_eq!(ledger.book(step.clone()).await.unwrap(), moved(5, 0));
    }
    let unlogged = approve(&sheet, 7, 1_000);
    hold(ledger, &unlogged).await.unwrap();
    let advised = ledger.advise(advice(&unlogged)).await.unwrap();
    assert_eq!(advised, Advised::Final);
    let before = rows(&pair, &proposals).await;
    pair.primary().kill().await.unwrap();
    assert_eq!(pair.promote().await, 2);

    // The cursor says what was lost, and the log puts it back.
    assert_eq!(again(|| ledger.cursor(log)).await, 2);
    assert_eq!(pair.world.row(&proposals[10]).await, None);
    assert_eq!(again(|| ledger.book(steps[2].clone())).await, moved(5, 0));
    assert_eq!(ledger.book(steps[3].clone()).await.unwrap(), moved(5, 0));
    assert_eq!(rows(&pair, &proposals).await, before);
    // Once: a second drainer, or the first one again, changes nothing.
    let raced = Booked::Raced { cursor: 4 };
    assert_eq!(ledger.book(steps[2].clone()).await.unwrap(), raced);
    let in_place = DrainStep {
        from: 4,
        to: 4,
        ..steps[2].clone()
    };
    assert_eq!(ledger.book(in_place).await.unwrap(), moved(0, 5));
    assert_eq!(rows(&pair, &proposals).await, before);
    let count = "select count(*) from authorizations";
    let count = pair.standby().ask_in(DATABASE, count).await.unwrap();
    assert_eq!(count.as_deref(), Some("20"));
    assert_eq!(ledger.conflicts(10).await.unwrap(), []);
    let open = ledger.open_trip(sheet.trip.shopper).await.unwrap().unwrap();
    let sum: i64 = open.approvals.iter().map(|approval| approval.amount).sum();
    assert_eq!(sum, 200 - 10 - 4);
    // What only Postgres knew is lost with it, and an advice says so rather than guess.
    let advised = ledger.advise(advice(&unlogged)).await.unwrap();
    assert_eq!(advised, Advised::NoHold);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_primary_that_still_runs_is_refused_once_the_epoch_is_known() {
    let pair = Pair::start(false).await;
    let ledger = &*pair.ledger;
    let (sheet, log) = (pair.world.trip().await, uuid());
    assert_eq!(ledger.warm().await, 3);
    let early = approve(&sheet, 1, 100);
    assert_eq!(hold(ledger, &early).await.unwrap(), held(0));
    pair.primary().caught_up(pair.standby()).await.unwrap();
    let lone = connect(&config(pair.primary().url(DATABASE)));
    lone.warm().await;
    lone.probe().await.unwrap();
    lone.cursor(log).await.unwrap();
    assert_eq!(pair.promote().await, 2);

    // Told by the region's log, it writes nothing more to the old one; all its connections go.
    ledger.require_epoch(2);
    let refused = approve(&sheet, 2, 100);
    let error = hold(ledger, &refused).await.unwrap_err();
    assert_eq!((error.fate, error.retry), (Fate::NotDone, Retry::Later));
    assert_eq!(error.why, Why::ApplicationError, "{error}");
    assert_eq!(hold(ledger, &refused).await.unwrap(), held(1));
    assert!(knows(pair.standby(), &refused).await);
    assert!(!knows(pair.primary(), &refused).await);

    // A ledger that can reach nothing but the old one: by the connections it has, then by none.
    lone.require_epoch(2);
    let late = approve(&sheet, 3, 100);
    let question = "select (select count(*) from authorizations where state = 'held') * 1000000 \
         + (select count(*) from transactions) * 1000 + (select count(*) from wal_cursor)";
    let before = pair.primary().ask_in(DATABASE, question).await.unwrap();
    let refuses = |error: LedgerError| {
        assert_eq!((error.fate, error.retry), (Fate::NotDone, Retry::Later));
        assert!(error.detail.contains("epoch"), "{error}");
    };
    for _ in 0..2 {
        refuses(hold(&*lone, &late).await.unwrap_err());
        refuses(lone.advise(advice(&early)).await.unwrap_err());
        let outcomes = vec![outcome(&late, 1, 0)];
        refuses(lone.book(step(log, 1, outcomes)).await.unwrap_err());
        refuses(lone.probe().await.unwrap_err());
    }
    assert!(!knows(pair.primary(), &late).await);
    let after = pair.primary().ask_in(DATABASE, question).await.unwrap();
    assert_eq!(after, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_primary_that_comes_back_first_in_the_list_is_passed_over() {
    let pair = Pair::start(false).await;
    let sheet = pair.world.trip().await;
    pair.primary().caught_up(pair.standby()).await.unwrap();
    pair.primary().kill().await.unwrap();
    assert_eq!(pair.promote().await, 2);
    let ledger = &*pair.ledger;
    let first = approve(&sheet, 1, 100);
    assert_eq!(again(|| hold(ledger, &first)).await, held(0));
    pair.primary().restart().await.unwrap();
    pair.primary()
        .execute(DATABASE, "insert into customers (customer_id) values (1)")
        .await
        .unwrap();
    // New connections of a ledger that knows, of one that was told, and of one that knows nothing:
    // the last asks every host before it believes one.
    let mut told = pair.both();
    told.epoch_min = 2;
    let (told, ignorant) = (connect(&told), connect(&pair.both()));
    ignorant.probe().await.unwrap();
    assert_eq!(ignorant.epoch(), 2);
    for number in 1..=6 {
        for client in [ledger, &*told, &*ignorant] {
            let proposal = approve(&sheet, 1, 100);
            let reply = hold(client, &proposal).await.unwrap();
            assert!(
                matches!(reply, HoldReply::Held { .. }),
                "{number}: {reply:?}"
            );
            assert!(knows(pair.standby(), &proposal).await);
            assert!(!knows(pair.primary(), &proposal).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_hangs_first_in_the_list_does_not_keep_the_ledger_from_the_next() {
    let pair = Pair::start(false).await;
    let ledger = &*pair.ledger;
    let sheet = pair.world.trip().await;
    assert_eq!(ledger.warm().await, 3);
    pair.primary().caught_up(pair.standby()).await.unwrap();
    // It accepts connections, as its kernel does, and says nothing.
    pair.primary().pause().unwrap();
    assert_eq!(pair.promote().await, 2);
    // Whoever knows the epoch takes the first host that has it, while the silent one may still talk.
    let mut told = pair.both();
    told.epoch_min = 2;
    let probed = timeout(SOON / 2, connect(&told).probe()).await;
    probed
        .expect("the second host waits for the first")
        .unwrap();
    // Whoever knows nothing gives the silent one its time, and takes what the others said.
    let mut ignorant = pair.both();
    ignorant.create_timeout = Duration::from_secs(4);
    connect(&ignorant).probe().await.unwrap();
    // And the one with connections to it leaves them one after the other, as the edge does.
    let proposal = approve(&sheet, 5, 100);
    let deadline = Instant::now() + SOON;
    let reply = loop {
        match timeout(PATIENCE, hold(ledger, &proposal)).await {
            Ok(Ok(reply)) => break reply,
            Ok(Err(error)) => assert_ne!(error.retry, Retry::Never, "{error}"),
            Err(_) => {}
        }
        assert!(Instant::now() < deadline);
    };
    assert_eq!(reply, held(0));
    assert!(knows(pair.standby(), &proposal).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_refusal_of_a_demoted_server_drops_every_connection_to_it() {
    let pair = Pair::start(false).await;
    let ledger = &*pair.ledger;
    let sheet = pair.world.trip().await;
    assert_eq!(ledger.warm().await, 3);
    let demote = "alter system set default_transaction_read_only = on";
    pair.primary().caught_up(pair.standby()).await.unwrap();
    assert_eq!(pair.promote().await, 2);
    pair.primary().execute("postgres", demote).await.unwrap();
    let reload = "select pg_reload_conf()";
    pair.primary().execute("postgres", reload).await.unwrap();
    // The reload reaches a session between two of its statements.
    let deadline = Instant::now() + SOON;
    let error = loop {
        match hold(ledger, &approve(&sheet, 1, 100)).await {
            Ok(_) => assert!(Instant::now() < deadline),
            Err(error) => break error,
        }
    };
    assert_eq!((error.fate, error.retry), (Fate::NotDone, Retry::Later));
    assert!(error.detail.contains("25006"), "{error}");
    // The next call finds the new primary.
    let proposal = approve(&sheet, 5, 100);
    let reply = hold(ledger, &proposal).await.unwrap();
    assert!(matches!(reply, HoldReply::Held { .. }), "{reply:?}");
    assert!(knows(pair.standby(), &proposal).await);
    assert_eq!(ledger.epoch(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_advice_waits_for_the_standby_that_a_hold_does_not_wait_for() {
    let pair = Pair::start(true).await;
    let ledger = &*pair.ledger;
    let sheet = pair.world.trip().await;
    let proposal = approve(&sheet, 10, 100);
    pair.standby().detach().await.unwrap();
    assert_eq!(hold(ledger, &proposal).await.unwrap(), held(0));
    let mut advising = ledger.advise(advice(&proposal));
    let waited = timeout(PATIENCE, &mut advising).await;
    assert!(waited.is_err(), "no standby has it: {waited:?}");
    pair.standby().attach(pair.primary()).await.unwrap();
    assert_eq!(advising.await.unwrap(), Advised::Final);
    pair.primary().kill().await.unwrap();
    pair.promote().await;
    let row = again(|| async {
        let rows = ledger.authorizations(None, 10).await?;
        Ok(rows.into_iter().next())
    });
    let row = row.await.unwrap();
    assert_eq!(row.state, AuthorizationState::Final);
    assert_eq!(row.answer, advice(&proposal).answer);
}
