//! The primary of a simulation: it refuses, hangs, is slow, loses replies of what it did, and fails over to
//! a standby that lacks the last commits, while some edges still ask the old one.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use standin_core::BoxFuture;
use standin_core::answer::Why;
use standin_core::entry::Proposal;
use standin_core::id::{OrderId, ShopperId, StoreId, TransactionId, TripId};
use standin_core::ledger::memory::MemoryLedger;
use standin_core::ledger::{
    Advice, Advised, AuditRow, AuthorizationRow, Booked, BookedEvent, Card, CardHolder, Claim,
    ClosedCursor, ClosedTrip, Completed, ConflictRow, DrainStep, EventsBooked, HoldReply, Ledger,
    LedgerError, OpenTrip, Placed, ReconcileRun, StaleHold, StartTrip, Started,
};
use standin_core::merchant::{MerchantId, MerchantKey, Store};
use standin_core::trip::Order;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::run::Gone;
use super::scene::{Scene, locked};

/// A standby lacks at most so many milliseconds of commits.
const LAG_MS: u64 = 400;

/// The servers: the last one is the primary, the others were.
pub struct Servers {
    scene: Arc<Scene>,
    state: Mutex<State>,
}

struct State {
    all: Vec<Arc<MemoryLedger>>,
    /// What standbys hold, by the time of it.
    copies: VecDeque<(u64, Arc<MemoryLedger>)>,
    trouble: Trouble,
}

/// What is the matter with the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// Nobody listens.
    Refuses,
    /// It does not reply.
    Hangs,
    /// It takes up to so many milliseconds.
    Slow(u64),
    /// Of a hundred replies so many are lost, after the commit.
    LosesReplies(u64),
}

/// One edge's connection.
pub struct Client {
    servers: Arc<Servers>,
    gone: Arc<Gone>,
    /// Which server it asks.
    asks: AtomicU64,
    epoch: AtomicU64,
}

// === impl Servers ===

impl Servers {
    /// One primary.
    pub fn new(scene: Arc<Scene>, first: MemoryLedger) -> Arc<Self> {
        Arc::new(Self {
            scene,
            state: Mutex::new(State {
                all: vec![Arc::new(first)],
                copies: VecDeque::new(),
                trouble: Trouble::None,
            }),
        })
    }

    /// The primary.
    pub fn primary(&self) -> Option<Arc<MemoryLedger>> {
        locked(&self.state).all.last().cloned()
    }

    /// What is the matter from now on.
    pub fn set_trouble(&self, trouble: Trouble) {
        let kind = match trouble {
            Trouble::None => 0,
            Trouble::Refuses => 1,
            Trouble::Hangs => 2,
            Trouble::Slow(_) => 3,
            Trouble::LosesReplies(_) => 4,
        };
        self.scene.note("ledger", &[kind]);
        locked(&self.state).trouble = trouble;
    }

    /// The standby follows.
    pub fn replicate(&self) {
        let now = self.scene.now_ms();
        let mut state = locked(&self.state);
        let Some(copy) = state.all.last().map(|primary| Arc::new(primary.copy())) else {
            return;
        };
        state.copies.push_back((now, copy));
        while state
            .copies
            .front()
            .is_some_and(|(at, _)| now.saturating_sub(*at) > LAG_MS)
            && state.copies.len() > 1
        {
            state.copies.pop_front();
        }
    }

    fn is_primary(&self, server: &Arc<MemoryLedger>) -> bool {
        let state = locked(&self.state);
        state
            .all
            .last()
            .is_some_and(|last| Arc::ptr_eq(last, server))
    }

    /// The standby has everything.
    fn confirm(&self) {
        locked(&self.state).copies.clear();
        self.replicate();
    }

    /// The primary is lost; the standby takes its place, without the last commits.
    pub async fn fail_over(&self) {
        let copies: Vec<(u64, Arc<MemoryLedger>)> = {
            let mut state = locked(&self.state);
            state.copies.drain(..).collect()
        };
        let Some((at, copy)) = self.scene.pick(&copies) else {
            return;
        };
        self.scene.note("fail over", &[at]);
        let standby = Arc::new(copy.copy());
        if standby.promote_epoch().await.is_ok() {
            locked(&self.state).all.push(standby);
        }
    }
}

// === impl Client ===

impl Client {
    /// One edge's connection.
    pub fn new(servers: Arc<Servers>, gone: Arc<Gone>) -> Arc<Self> {
        Arc::new(Self {
            servers,
            gone,
            asks: AtomicU64::new(u64::MAX),
            epoch: AtomicU64::new(0),
        })
    }

    /// The server it asks: now and then it finds out who the primary is.
    fn server(&self) -> Option<Arc<MemoryLedger>> {
        let state = locked(&self.servers.state);
        let last = u64::try_from(state.all.len().saturating_sub(1)).unwrap_or(0);
        let asks = self.asks.load(Ordering::Relaxed);
        let asks = if asks > last || (asks < last && self.servers.scene.chance(10)) {
            last
        } else {
            asks
        };
        self.asks.store(asks, Ordering::Relaxed);
        state.all.get(usize::try_from(asks).ok()?).cloned()
    }

    /// Does something at the server, whether or not anybody waits for it to the end.
    async fn ask<T: Send + 'static>(
        &self,
        what: &'static str,
        doing: impl for<'a> FnOnce(&'a MemoryLedger) -> BoxFuture<'a, Result<T, LedgerError>>
        + Send
        + 'static,
    ) -> Result<T, LedgerError> {
        let Some(server) = self.server().filter(|_| !self.gone.token.is_cancelled()) else {
            return Err(LedgerError::unreachable("the process is gone"));
        };
        let scene = Arc::clone(&self.servers.scene);
        let trouble = locked(&self.servers.state).trouble;
        let mut wait = scene.millis(0, 3);
        match trouble {
            Trouble::Refuses => {
                tokio::time::sleep(Duration::from_millis(1)).await;
                return Err(LedgerError::unreachable("nobody listens"));
            }
            Trouble::Hangs => {
                tokio::time::sleep(Duration::from_secs(30)).await;
                return Err(LedgerError::timeout("silence"));
            }
            Trouble::Slow(most) => wait = scene.millis(0, most),
            Trouble::None | Trouble::LosesReplies(_) => {}
        }
        let (reply, replied) = oneshot::channel();
        let epoch = self.epoch.load(Ordering::Relaxed);
        let (node, at) = (self.gone.node, Arc::clone(&server));
        let servers = Arc::clone(&self.servers);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            at.require_epoch(epoch);
            // A commit that waits for the standby is on it before anybody sees it; a primary of the past
            // waits for ever.
            let waits = matches!(what, "probe" | "advise");
            if waits && !servers.is_primary(&at) {
                return;
            }
            let done = doing(&at).await;
            if waits {
                servers.confirm();
            }
            scene.note(what, &[node, u64::from(done.is_ok())]);
            let lost = matches!(trouble, Trouble::LosesReplies(percent) if scene.chance(percent));
            if !lost {
                drop(reply.send(done));
            }
        });
        match replied.await {
            Ok(done) => {
                if done.is_ok() {
                    self.epoch.fetch_max(server.epoch(), Ordering::Relaxed);
                }
                done
            }
            Err(_lost) => Err(LedgerError {
                why: Why::Connection,
                ..LedgerError::lost("the reply was lost")
            }),
        }
    }
}

macro_rules! through {
    ($($name:ident($($arg:ident: $kind:ty),*) -> $out:ty;)*) => {
        impl Ledger for Client {
            $(fn $name(&self, $($arg: $kind),*) -> BoxFuture<'_, Result<$out, LedgerError>> {
                Box::pin(self.ask(stringify!($name), move |server| server.$name($($arg),*)))
            })*

            fn epoch(&self) -> u64 {
                self.epoch.load(Ordering::Relaxed)
            }

            fn require_epoch(&self, epoch: u64) {
                self.epoch.fetch_max(epoch, Ordering::Relaxed);
            }
        }
    };
}

through! {
    hold(batch: Vec<Proposal>) -> Vec<HoldReply>;
    advise(advice: Advice) -> Advised;
    open_trip(shopper: ShopperId) -> Option<OpenTrip>;
    probe() -> ();
    directory_version() -> standin_core::ledger::DirectoryVersion;
    stores_after(after: Option<StoreId>, limit: u32) -> Vec<Store>;
    merchant_ids_after(after: Option<MerchantKey>, limit: u32) -> Vec<MerchantId>;
    cursor(log: Uuid) -> u64;
    book(step: DrainStep) -> Booked;
    promote_epoch() -> u64;
    cache_home() -> standin_core::ledger::CacheHome;
    promote_cache_home(promotion: standin_core::ledger::CachePromotion) -> standin_core::ledger::CacheHome;
    put_store(store: Store) -> ();
    set_card(card: Card, shopper: Option<ShopperId>) -> ();
    card_holder(card: Card) -> Option<ShopperId>;
    cards(after: Option<Card>, limit: u32) -> Vec<CardHolder>;
    put_merchant_id(id: MerchantId) -> ();
    remove_merchant_id(key: MerchantKey) -> bool;
    place_order(order: Order) -> Placed;
    order(id: OrderId) -> Option<Order>;
    offers(store: StoreId, limit: u32) -> Vec<Order>;
    claim(order: OrderId, shopper: ShopperId) -> Claim;
    start_trip(start: StartTrip) -> Started;
    trip(shopper: ShopperId, trip: TripId) -> Option<OpenTrip>;
    book_events(events: Vec<BookedEvent>) -> EventsBooked;
    complete(shopper: ShopperId, trip: TripId) -> Completed;
    closed_since(after: Option<ClosedCursor>, limit: u32) -> Vec<ClosedTrip>;
    authorizations(after: Option<(ShopperId, TransactionId)>, limit: u32) -> Vec<AuthorizationRow>;
    authorization(id: TransactionId) -> Option<AuthorizationRow>;
    settlements(after: Option<Uuid>, limit: u32) -> Vec<standin_core::entry::Settlement>;
    stale_holds(before: standin_core::clock::Timestamp, limit: u32) -> Vec<StaleHold>;
    release(holds: Vec<StaleHold>) -> u64;
    conflicts(limit: u32) -> Vec<ConflictRow>;
    audit(limit: u32) -> Vec<AuditRow>;
    record_run(run: ReconcileRun) -> ();
}
