#![allow(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    reason = "test code"
)]
//! A whole edge in one process, embedded, over real HTTP and a real log.

mod alarms;
mod closing;
mod following;
mod group;
mod observing;
mod played;
mod policies;

use std::sync::atomic::{AtomicBool, Ordering};

use standin_core::BoxFuture;
use standin_core::answer::Answer;
use standin_core::clock::Timestamp;
use standin_core::id::{OrderId, ShopperId, StoreId, TripId};
use standin_core::ledger::{BookedEvent, StartTrip, Started};
use standin_core::merchant::{MerchantId, MerchantKey, Store};
use standin_core::money::{Currency, Money};
use standin_core::signature::{Secret, sign};
use standin_core::trip::{Item, ItemStatus, Order, OrderStatus, TripChange, TripEvent};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use super::*;
use crate::adapter::{Adapter, Message, Rendered, Reply, Understood, native};
use crate::admin::Control;
use crate::problem::Problem;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SEED: &str =
    r#"{"shopper_id":123,"amount":300,"merchant":{"name":"Target","address":"123 Main St"}}"#;

fn config(dir: &std::path::Path) -> Config {
    let text = format!(
        r#"
        listen = "127.0.0.1:0"
        admin_listen = "127.0.0.1:0"
        deployment_key = "c3RhbmRpbi1leGFtcGxlLWRlcGxveW1lbnQta2V5ISE="
        [wal]
        dir = "{}"
        segment_bytes = 4194304
        budget_bytes = 67108864
        [[banks]]
        slug = "first"
        secrets = ["{SECRET}"]
        "#,
        dir.display()
    );
    Config::load(Some(&text), []).unwrap().0
}

/// Shopper 123 at Target with goods worth 299.00 in the cart.
async fn shop(edge: &Edge) {
    let (ledger, cache) = (edge.ledger(), edge.cache());
    let store: StoreId = "7".parse().unwrap();
    let shopper: ShopperId = "123".parse().unwrap();
    let (order, trip) = (OrderId(Uuid::from_u128(1)), TripId(Uuid::from_u128(2)));
    let at = Timestamp::from_millis(0);
    let target = Store {
        id: store,
        name: "Target".into(),
        address: "123 Main St".into(),
        lat_e6: 0,
        lon_e6: 0,
    };
    ledger.put_store(target).await.unwrap();
    let item = Item {
        line: 1,
        product: 1,
        category: "GROCERY".into(),
        quantity: 1,
        listed: 29_900,
        actual: None,
        status: ItemStatus::Wanted,
    };
    let placed = Order {
        id: order,
        customer: "9".parse().unwrap(),
        store,
        currency: Currency::USD,
        status: OrderStatus::Placed,
        shopper: None,
        items: vec![item],
    };
    ledger.place_order(placed).await.unwrap();
    ledger.claim(order, shopper).await.unwrap();
    let start = StartTrip {
        trip,
        shopper,
        orders: vec![order],
        at,
    };
    let Started::Trip(mut sheet) = ledger.start_trip(start).await.unwrap() else {
        panic!("started")
    };
    let what = TripChange::Pick {
        order,
        line: 1,
        actual: None,
    };
    sheet.apply(&what);
    let event = TripEvent {
        id: Uuid::from_u128(3),
        trip,
        shopper,
        at,
        what,
    };
    let version = Some(sheet.trip.version);
    ledger
        .book_events(vec![BookedEvent { event, version }])
        .await
        .unwrap();
    cache.put(*sheet).await.unwrap();
}

/// Looks every few milliseconds until it is so.
async fn until<F: Future<Output = bool>>(what: &str, so: impl Fn() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !so().await {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn stores_known(edge: &Edge) {
    until("stores are known", async || edge.desk().can_serve().is_ok()).await;
}

/// Sends a request; gives status, replay header and body.
async fn post(edge: &Edge, body: &str) -> (u16, bool, String) {
    post_signed(edge, body, body).await
}

/// As [`post`], with the signature of what may be another body.
async fn post_signed(edge: &Edge, body: &str, signed: &str) -> (u16, bool, String) {
    post_to(edge.address(), body, signed).await
}

async fn post_to(address: SocketAddr, body: &str, signed: &str) -> (u16, bool, String) {
    let secret: Secret = SECRET.parse().unwrap();
    let now = SystemClock.now().as_secs();
    let signature = sign(&secret, "msg_1", now, signed.as_bytes());
    let request = format!(
        "POST /v1/banks/first/authorizations HTTP/1.1\r\nhost: edge\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nwebhook-id: msg_1\r\n\
         webhook-timestamp: {now}\r\nwebhook-signature: {signature}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (
        status,
        head.contains("idempotent-replayed: true"),
        body.to_owned(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_stops_says_so_and_answers_while_its_clients_leave() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        leave: Duration::from_secs(3),
        ..config(dir.path())
    };
    let edge = Edge::start(config, Hooks::default()).await.unwrap();
    shop(&edge).await;
    stores_known(&edge).await;
    let ready = || edge.desk.ready();
    until("ready", async || ready().ok && ready().fresh_trips).await;
    assert!(ready().decide && ready().write_ahead && !ready().stopping);
    let (address, desk) = (edge.address(), edge.desk());
    let stopping = tokio::spawn(edge.stop());
    until("it says that it stops", async || desk.ready().stopping).await;
    let ready = desk.ready();
    assert!(!ready.ok && ready.decide && ready.write_ahead, "{ready:?}");
    let (status, _, body) = post_to(address, SEED, SEED).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(stopping.await.unwrap(), Stopped::Clean);
    assert!(TcpStream::connect(address).await.is_err());
}

async fn drained(edge: &Edge) {
    until("drained", async || {
        edge.desk.statusz().await["drain"]["backlog"] == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_seeds_payment_is_approved_replayed_booked_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(config(dir.path()), Hooks::default())
        .await
        .unwrap();
    shop(&edge).await;
    stores_known(&edge).await;
    let (status, replayed, first) = post(&edge, SEED).await;
    assert_eq!((status, replayed), (200, false), "{first}");
    let (status, replayed, again) = post(&edge, SEED).await;
    assert_eq!((status, replayed), (200, true));
    assert_eq!(first, again);
    let body: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert_eq!(body["decision"], "approved");
    assert_eq!(body["rung"], "primary");
    assert_eq!(body["amount"], "300.00");
    let (status, _, over) = post(&edge, &SEED.replace("300", "3000")).await;
    assert_eq!(status, 402, "{over}");
    assert!(over.contains(r#""reason":"over_cap""#), "{over}");
    drained(&edge).await;
    let rows = edge.ledger().authorizations(None, 10).await.unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(edge.stop().await, Stopped::Clean);

    let edge = Edge::start(config(dir.path()), Hooks::default())
        .await
        .unwrap();
    let (status, replayed, after) = post(&edge, SEED).await;
    assert_eq!((status, replayed), (200, true));
    assert_eq!(first, after, "the same bytes after a restart");
    drained(&edge).await;
    let rebuilt = edge.ledger().authorizations(None, 10).await.unwrap();
    let answers = |rows: &[ledger_port::AuthorizationRow]| -> Vec<_> {
        rows.iter()
            .map(|row| (row.state, row.answer.clone(), row.log))
            .collect()
    };
    assert_eq!(answers(&rows), answers(&rebuilt));
    assert_eq!(edge.stop().await, Stopped::Clean);
}

/// Fails to render once.
struct Clumsy(Arc<AtomicBool>);

#[derive(Debug)]
struct ClumsyReply(Arc<AtomicBool>);

impl Adapter for Clumsy {
    fn understand(&self, message: &Message<'_>) -> Result<Understood, Problem> {
        let reply = Box::new(ClumsyReply(Arc::clone(&self.0)));
        Ok(Understood {
            reply,
            ..native::understand(message)?
        })
    }
}

impl Reply for ClumsyReply {
    fn answer(&self, answer: &Answer, asked: Money) -> Rendered {
        assert!(
            self.0.swap(true, Ordering::SeqCst),
            "planted: the first answer is not rendered"
        );
        native::Native.answer(answer, asked)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_500_after_the_commit_replays_until_an_operator_clears_it() {
    let dir = tempfile::tempdir().unwrap();
    let adapter: Arc<dyn Adapter> = Arc::new(Clumsy(Arc::default()));
    let hooks = Hooks {
        adapter: Some(adapter),
        ..Hooks::default()
    };
    let edge = Edge::start(config(dir.path()), hooks).await.unwrap();
    shop(&edge).await;
    stores_known(&edge).await;
    let (status, _, first) = post(&edge, SEED).await;
    assert_eq!(status, 500, "{first}");
    let (status, _, again) = post(&edge, SEED).await;
    assert_eq!((status, again), (500, first.clone()));
    let problem: serde_json::Value = serde_json::from_str(&first).unwrap();
    let id = problem["transaction_id"].as_str().unwrap().parse().unwrap();
    let desk = edge.desk();
    let clear = || desk.order_clear(id, "ops".into(), "looked at it".into());
    assert_eq!(clear().await, Ok(()));
    let (status, replayed, body) = post(&edge, SEED).await;
    assert_eq!((status, replayed), (200, true), "{body}");
    assert_eq!(clear().await, Err(OrderError::NothingToClear));
    drained(&edge).await;
    let audit = edge.ledger().audit(10).await.unwrap();
    assert!(
        audit
            .iter()
            .any(|row| row.operator == "ops" && row.action.contains(&id.to_string()))
    );
    assert_eq!(edge.stop().await, Stopped::Clean);
}

/// A ledger that can be taken away: every call then hangs.
struct Away {
    inner: Arc<dyn Ledger>,
    away: Arc<AtomicBool>,
}

impl Away {
    fn gate<'a, T: Send + 'a>(&self, call: BoxFuture<'a, T>) -> BoxFuture<'a, T> {
        if self.away.load(Ordering::SeqCst) {
            Box::pin(std::future::pending())
        } else {
            call
        }
    }
}

macro_rules! gated {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        impl Ledger for Away {$(
            fn $name(&self, $($arg: $type),*) -> BoxFuture<'_, Result<$out, standin_core::ledger::LedgerError>> {
                self.gate(self.inner.$name($($arg),*))
            }
        )*
            fn epoch(&self) -> u64 {
                self.inner.epoch()
            }

            fn require_epoch(&self, epoch: u64) {
                self.inner.require_epoch(epoch);
            }
        }
    };
}

use standin_core::id::TransactionId;
use standin_core::ledger as ledger_port;
gated! {
    hold(batch: Vec<standin_core::entry::Proposal>) -> Vec<ledger_port::HoldReply>;
    open_trip(shopper: ShopperId) -> Option<ledger_port::OpenTrip>;
    advise(advice: ledger_port::Advice) -> ledger_port::Advised;
    promote_epoch() -> u64;
    cache_home() -> ledger_port::CacheHome;
    promote_cache_home(promotion: ledger_port::CachePromotion) -> ledger_port::CacheHome;
    closed_since(after: Option<ledger_port::ClosedCursor>, limit: u32) -> Vec<ledger_port::ClosedTrip>;
    probe() -> ();
    directory_version() -> ledger_port::DirectoryVersion;
    stores_after(after: Option<StoreId>, limit: u32) -> Vec<Store>;
    merchant_ids_after(after: Option<MerchantKey>, limit: u32) -> Vec<MerchantId>;
    cursor(log: Uuid) -> u64;
    book(step: ledger_port::DrainStep) -> ledger_port::Booked;
    put_store(store: Store) -> ();
    set_card(card: ledger_port::Card, shopper: Option<ShopperId>) -> ();
    card_holder(card: ledger_port::Card) -> Option<ShopperId>;
    cards(after: Option<ledger_port::Card>, limit: u32) -> Vec<ledger_port::CardHolder>;
    put_merchant_id(id: MerchantId) -> ();
    remove_merchant_id(key: MerchantKey) -> bool;
    place_order(order: Order) -> ledger_port::Placed;
    order(id: OrderId) -> Option<Order>;
    offers(store: StoreId, limit: u32) -> Vec<Order>;
    claim(order: OrderId, shopper: ShopperId) -> ledger_port::Claim;
    start_trip(start: StartTrip) -> Started;
    trip(shopper: ShopperId, trip: TripId) -> Option<ledger_port::OpenTrip>;
    book_events(events: Vec<BookedEvent>) -> ledger_port::EventsBooked;
    complete(shopper: ShopperId, trip: TripId) -> ledger_port::Completed;
    authorizations(after: Option<(ShopperId, TransactionId)>, limit: u32) -> Vec<ledger_port::AuthorizationRow>;
    authorization(id: TransactionId) -> Option<ledger_port::AuthorizationRow>;
    settlements(after: Option<Uuid>, limit: u32) -> Vec<standin_core::entry::Settlement>;
    stale_holds(before: Timestamp, limit: u32) -> Vec<ledger_port::StaleHold>;
    release(holds: Vec<ledger_port::StaleHold>) -> u64;
    conflicts(limit: u32) -> Vec<ledger_port::ConflictRow>;
    audit(limit: u32) -> Vec<ledger_port::AuditRow>;
    record_run(run: ledger_port::ReconcileRun) -> ();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_primary_it_stands_in_and_drains_when_the_primary_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let away = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&away);
    let wrap: WrapLedger = Box::new(move |inner| {
        Arc::new(Away {
            inner,
            away: switch,
        })
    });
    let hooks = Hooks {
        wrap_ledger: Some(wrap),
        ..Hooks::default()
    };
    let edge = Edge::start(config(dir.path()), hooks).await.unwrap();
    shop(&edge).await;
    stores_known(&edge).await;
    away.store(true, Ordering::SeqCst);
    let (status, _, first) = post(&edge, &SEED.replace("300", "20")).await;
    assert_eq!(status, 200, "{first}");
    let body: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert_eq!(
        (&body["rung"], &body["why"]),
        (&"stand_in".into(), &"timeout".into()),
        "{first}"
    );
    away.store(false, Ordering::SeqCst);
    let (status, replayed, again) = post(&edge, &SEED.replace("300", "20")).await;
    assert_eq!((status, replayed, again), (200, true, first));
    drained(&edge).await;
    let rows = edge.ledger().authorizations(None, 10).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].answer.rung, standin_core::answer::Rung::StandIn);
    assert_eq!(edge.stop().await, Stopped::Clean);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_is_answered_while_new_payments_find_no_place() {
    let dir = tempfile::tempdir().unwrap();
    let away = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&away);
    let wrap: WrapLedger = Box::new(move |inner| {
        Arc::new(Away {
            inner,
            away: switch,
        })
    });
    let hooks = Hooks {
        wrap_ledger: Some(wrap),
        ..Hooks::default()
    };
    let mut config = config(dir.path());
    config.admission.in_flight = 1;
    config.admission.wait_max = Duration::from_millis(20);
    // Whoever has the place keeps it until the end of this test.
    config.banks[0].deadline = Duration::from_secs(60);
    config.banks[0].budgets.postgres = Duration::from_secs(60);
    config.server.grace = Duration::from_millis(10);
    let edge = Edge::start(config, hooks).await.unwrap();
    shop(&edge).await;
    stores_known(&edge).await;
    let (status, _, first) = post(&edge, SEED).await;
    assert_eq!(status, 200, "{first}");
    away.store(true, Ordering::SeqCst);
    let others = async {
        until("the place is taken", async || {
            edge.desk.statusz().await["register"]["in_flight"] == 1
        })
        .await;
        for _ in 0..3 {
            let (status, _, problem) = post(&edge, &SEED.replace("300", "21")).await;
            assert_eq!(status, 503, "{problem}");
            let problem: serde_json::Value = serde_json::from_str(&problem).unwrap();
            assert_eq!(problem["cause"], "overloaded");
            assert_eq!(problem["retry_after"], 1);
            let (status, replayed, again) = post(&edge, SEED).await;
            assert_eq!((status, replayed, &again), (200, true, &first));
        }
        // What is no bank's is refused before it asks for a place.
        let (status, _, said) = post_signed(&edge, SEED, "somebody else's body").await;
        assert_eq!(status, 401, "{said}");
    };
    let body = SEED.replace("300", "20");
    tokio::select! {
        told = post(&edge, &body) => panic!("it has its place: {told:?}"),
        () = others => {}
    }
    // Nothing of what was shed is known.
    let answers = edge.log().read(|register| register.counts().answered);
    assert_eq!(answers, 1);
    edge.stop().await;
}
