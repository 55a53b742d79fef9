//! What the tests share: a platform on in-memory ports that can be made to fail.
#![allow(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    reason = "test code"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use standin_core::BoxFuture;
use standin_core::clock::{Clock, ManualClock, SystemClock, Timestamp};
use standin_core::entry::Proposal;
use standin_core::id::{OrderId, ShopperId, StoreId, TransactionId, TripId};
use standin_core::ledger::memory::MemoryLedger;
use standin_core::ledger::*;
use standin_core::merchant::{MerchantId, MerchantKey, Store};
use standin_core::money::Currency;
use standin_core::queue::memory::MemoryQueue;
use standin_core::queue::{Delivery, EventQueue, QueueError};
use standin_core::trip::{
    Approval, Item, ItemStatus, Order, OrderStatus, Position, Trip, TripChange, TripEvent,
    TripSheet,
};
use standin_core::trip_cache::memory::MemoryTripCache;
use standin_core::trip_cache::{CacheError, Look, Put, TripCache};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::EventJournal;
use crate::feeder;
use crate::flow::{Budgets, Platform, Ports};

/// How a port behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Up = 0,
    /// Refuses at once.
    Away = 1,
    /// Does it, and the reply is lost.
    ReplyLost = 2,
}

/// Splitmix64: enough randomness for a test, replayed from its seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// A mode that can be changed while others use it.
#[derive(Debug, Default)]
pub(crate) struct Switch {
    mode: AtomicU8,
    /// Seeds how often a call lets others run first; 0 is never.
    dawdling: AtomicU64,
}

impl Switch {
    pub(crate) fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::SeqCst);
    }

    /// Lets other tasks run before and after what a call does, as a server would.
    pub(crate) fn dawdle(&self, seed: u64) {
        self.dawdling.store(seed | 1, Ordering::SeqCst);
    }

    fn get(&self) -> Mode {
        match self.mode.load(Ordering::SeqCst) {
            0 => Mode::Up,
            1 => Mode::Away,
            _ => Mode::ReplyLost,
        }
    }

    async fn turn(&self) {
        let seed = self.dawdling.load(Ordering::SeqCst);
        if seed == 0 {
            return;
        }
        let mut random = Random(seed);
        let turns = random.below(6);
        self.dawdling.store(random.0 | 1, Ordering::SeqCst);
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }
}

/// The in-memory ledger behind a switch.
pub(crate) struct SwitchedLedger {
    pub(crate) inner: MemoryLedger,
    pub(crate) switch: Switch,
}

/// The in-memory trip cache behind a switch; counts its writes.
pub(crate) struct SwitchedCache {
    pub(crate) inner: MemoryTripCache,
    pub(crate) switch: Switch,
    pub(crate) puts: AtomicU32,
}

/// The in-memory queue behind a switch (for acknowledging only).
pub(crate) struct SwitchedQueue {
    pub(crate) inner: MemoryQueue,
    pub(crate) acks: Switch,
    pub(crate) appends: Switch,
}

macro_rules! ledger_calls {
    ($($name:ident($($arg:ident: $kind:ty),*) -> $out:ty;)*) => {
        impl Ledger for SwitchedLedger {
            $(fn $name(&self, $($arg: $kind),*) -> BoxFuture<'_, Result<$out, LedgerError>> {
                Box::pin(async move {
                    self.switch.turn().await;
                    let done = match self.switch.get() {
                        Mode::Up => self.inner.$name($($arg),*).await,
                        Mode::Away => Err(LedgerError::unreachable("switched off")),
                        Mode::ReplyLost => {
                            drop(self.inner.$name($($arg),*).await);
                            Err(LedgerError::lost("switched"))
                        }
                    };
                    self.switch.turn().await;
                    done
                })
            })*

            fn epoch(&self) -> u64 {
                self.inner.epoch()
            }

            fn require_epoch(&self, epoch: u64) {
                self.inner.require_epoch(epoch);
            }
        }
    };
}

ledger_calls! {
    advise(advice: Advice) -> Advised;
    promote_epoch() -> u64;
    cache_home() -> standin_core::ledger::CacheHome;
    promote_cache_home(promotion: standin_core::ledger::CachePromotion) -> standin_core::ledger::CacheHome;
    closed_since(after: Option<ClosedCursor>, limit: u32) -> Vec<ClosedTrip>;
    hold(batch: Vec<Proposal>) -> Vec<HoldReply>;
    open_trip(shopper: ShopperId) -> Option<OpenTrip>;
    probe() -> ();
    directory_version() -> standin_core::ledger::DirectoryVersion;
    stores_after(after: Option<StoreId>, limit: u32) -> Vec<Store>;
    merchant_ids_after(after: Option<MerchantKey>, limit: u32) -> Vec<MerchantId>;
    cursor(log: Uuid) -> u64;
    book(step: DrainStep) -> Booked;
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
    authorizations(after: Option<(ShopperId, TransactionId)>, limit: u32) -> Vec<AuthorizationRow>;
    authorization(id: TransactionId) -> Option<AuthorizationRow>;
    settlements(after: Option<Uuid>, limit: u32) -> Vec<standin_core::entry::Settlement>;
    stale_holds(before: Timestamp, limit: u32) -> Vec<StaleHold>;
    release(holds: Vec<StaleHold>) -> u64;
    conflicts(limit: u32) -> Vec<ConflictRow>;
    audit(limit: u32) -> Vec<AuditRow>;
    record_run(run: ReconcileRun) -> ();
}

macro_rules! cache_calls {
    ($($name:ident($($arg:ident: $kind:ty),*) -> $out:ty;)*) => {
        impl TripCache for SwitchedCache {
            fn put(&self, sheet: TripSheet) -> BoxFuture<'_, Result<Put, CacheError>> {
                Box::pin(async move {
                    self.switch.turn().await;
                    self.switch.check()?;
                    let put = self.inner.put(sheet).await;
                    self.puts.fetch_add(1, Ordering::SeqCst);
                    self.switch.turn().await;
                    if self.switch.get() == Mode::ReplyLost { Err(CacheError::Timeout) } else { put }
                })
            }

            fn home_epoch(&self) -> u64 {
                self.inner.home_epoch()
            }

            fn require_home_epoch(&self, epoch: u64) {
                self.inner.require_home_epoch(epoch);
            }

            $(fn $name(&self, $($arg: $kind),*) -> BoxFuture<'_, Result<$out, CacheError>> {
                Box::pin(async move {
                    self.switch.turn().await;
                    self.switch.check()?;
                    let done = self.inner.$name($($arg),*).await;
                    self.switch.turn().await;
                    done
                })
            })*
        }
    };
}

cache_calls! {
    look(shopper: ShopperId) -> Look;
    sheet(trip: TripId) -> Option<TripSheet>;
    approve(trip: TripId, approval: Approval) -> ();
    moved(shopper: ShopperId, position: Position) -> ();
    close(shopper: ShopperId, trip: TripId) -> ();
    beat(now: Timestamp) -> ();
}

impl Switch {
    fn check(&self) -> Result<(), CacheError> {
        match self.get() {
            Mode::Up | Mode::ReplyLost => Ok(()),
            Mode::Away => Err(CacheError::Unreachable("switched off".into())),
        }
    }
}

impl EventQueue for SwitchedQueue {
    fn append(&self, events: Vec<TripEvent>) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(async move {
            self.appends.check()?;
            self.inner.append(events).await
        })
    }

    fn shards(&self) -> u32 {
        self.inner.shards()
    }

    fn read(
        &self,
        shard: u32,
        after: Option<String>,
        max: u32,
    ) -> BoxFuture<'_, Result<Vec<Delivery>, QueueError>> {
        self.inner.read(shard, after, max)
    }

    fn ack(&self, shard: u32, upto: String) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(async move {
            self.acks.check()?;
            self.inner.ack(shard, upto).await
        })
    }

    fn depth(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        self.inner.depth()
    }
}

/// A platform with one store, its ports, and a feeder that can be started and stopped.
pub(crate) struct World {
    pub(crate) ledger: Arc<SwitchedLedger>,
    pub(crate) cache: Arc<SwitchedCache>,
    pub(crate) queue: Arc<SwitchedQueue>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) platform: Arc<Platform>,
    running: Option<(TaskTracker, CancellationToken)>,
}

pub(crate) const ITEMS: u32 = 12;

impl World {
    /// With the feeder at rest.
    pub(crate) async fn at_rest() -> Self {
        let clock = Arc::new(ManualClock::at(SystemClock.now()));
        let ledger = Arc::new(SwitchedLedger {
            inner: MemoryLedger::new(Arc::clone(&clock) as Arc<dyn Clock>, None),
            switch: Switch::default(),
        });
        let cache = Arc::new(SwitchedCache {
            inner: MemoryTripCache::new(),
            switch: Switch::default(),
            puts: AtomicU32::new(0),
        });
        let queue = Arc::new(SwitchedQueue {
            inner: MemoryQueue::with_bounds(2, 100_000, Duration::from_millis(20)),
            acks: Switch::default(),
            appends: Switch::default(),
        });
        let mut world = Self {
            platform: Arc::new(platform(&ledger, &cache, &queue, &clock, None)),
            ledger,
            cache,
            queue,
            clock,
            running: None,
        };
        world.platform.put_store(store()).await.unwrap();
        world.running = None;
        world
    }

    /// With the feeder at work.
    pub(crate) async fn at_work() -> Self {
        let mut world = Self::at_rest().await;
        world.feed();
        world
    }

    /// Another platform on the same ports.
    pub(crate) fn platform_with(&self, journal: Option<Arc<dyn EventJournal>>) -> Platform {
        platform(&self.ledger, &self.cache, &self.queue, &self.clock, journal)
    }

    /// Starts the feeder, in a new process as it were: only the ports keep what they hold.
    pub(crate) fn feed(&mut self) {
        self.platform = Arc::new(self.platform_with(None));
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        feeder::spawn(&self.platform, &tracker, &stop);
        self.running = Some((tracker, stop));
    }

    pub(crate) async fn rest(&mut self) {
        if let Some((tracker, stop)) = self.running.take() {
            stop.cancel();
            tracker.close();
            tracker.wait().await;
        }
    }

    /// A started trip with one order of [`ITEMS`] lines.
    pub(crate) async fn trip(&self, shopper: u64) -> (ShopperId, TripId, OrderId) {
        let shopper = ShopperId::try_from(shopper).unwrap();
        let order = order();
        let (id, trip) = (order.id, TripId(Uuid::new_v4()));
        assert_eq!(self.platform.place(order).await.unwrap(), Placed::Now);
        let won = self.platform.claim(id, shopper).await.unwrap();
        assert_eq!(won, Claim::Won);
        let start = StartTrip {
            trip,
            shopper,
            orders: vec![id],
            at: self.clock.now(),
        };
        let (started, _) = self.platform.start(start).await.unwrap();
        assert!(matches!(started, Started::Trip(_)), "{started:?}");
        (shopper, trip, id)
    }

    pub(crate) fn event(&self, shopper: ShopperId, trip: TripId, what: TripChange) -> TripEvent {
        TripEvent {
            id: Uuid::new_v4(),
            trip,
            shopper,
            at: self.clock.now(),
            what,
        }
    }

    /// Waits until the queue is empty, which is when everything is booked.
    pub(crate) async fn settled(&self) {
        eventually("the queue drains", || async {
            self.queue.depth().await.unwrap() == 0
        })
        .await;
    }

    pub(crate) async fn fed(&self, count: u64) {
        eventually("events are fed", || async {
            self.platform.counters().fed.get() >= count
        })
        .await;
    }

    pub(crate) async fn cached(&self, trip: TripId) -> Option<TripSheet> {
        self.cache.inner.sheet(trip).await.unwrap()
    }

    pub(crate) async fn booked(&self, shopper: ShopperId, trip: TripId) -> TripSheet {
        self.ledger
            .inner
            .trip(shopper, trip)
            .await
            .unwrap()
            .unwrap()
            .sheet
    }

    pub(crate) async fn looked(&self, shopper: ShopperId) -> Trip {
        self.cache
            .inner
            .look(shopper)
            .await
            .unwrap()
            .trip
            .unwrap()
            .trip
    }
}

fn platform(
    ledger: &Arc<SwitchedLedger>,
    cache: &Arc<SwitchedCache>,
    queue: &Arc<SwitchedQueue>,
    clock: &Arc<ManualClock>,
    journal: Option<Arc<dyn EventJournal>>,
) -> Platform {
    let ports = Ports {
        ledger: Arc::clone(ledger) as Arc<dyn Ledger>,
        cache: Arc::clone(cache) as Arc<dyn TripCache>,
        queue: Arc::clone(queue) as Arc<dyn EventQueue>,
        journal,
        clock: Arc::clone(clock) as Arc<dyn Clock>,
    };
    let budgets = Budgets {
        settle: Duration::from_millis(500),
        ..Budgets::default()
    };
    Platform::new(ports, budgets)
}

pub(crate) fn store() -> Store {
    Store {
        id: StoreId::try_from(1_u64).unwrap(),
        name: "Target".into(),
        address: "123 Main St".into(),
        lat_e6: 37_774_900,
        lon_e6: -122_419_400,
    }
}

pub(crate) fn order() -> Order {
    let item = |line| Item {
        line,
        product: i64::from(line),
        category: if line % 2 == 0 { "produce" } else { "dairy" }.into(),
        quantity: 1,
        listed: i64::from(line) * 100,
        actual: None,
        status: ItemStatus::Wanted,
    };
    Order {
        id: OrderId(Uuid::new_v4()),
        customer: 7_u64.try_into().unwrap(),
        store: store().id,
        currency: Currency::USD,
        status: OrderStatus::Placed,
        shopper: None,
        items: (1..=ITEMS).map(item).collect(),
    }
}

pub(crate) fn pick(order: OrderId, line: u32, actual: Option<i64>) -> TripChange {
    TripChange::Pick {
        order,
        line,
        actual,
    }
}

/// Polls a condition until it holds; fails after ten seconds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), wait).await;
    assert!(waited.is_ok(), "waited ten seconds in vain until {what}");
}
