//! The simulation of a region: whole edges, banks that ask again elsewhere, shoppers who pick and finish, a
//! primary that comes and goes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use standin_core::answer::Verdict;
use standin_core::authorization::{Authorization, Merchant, Particulars};
use standin_core::clock::{Clock, Timestamp};
use standin_core::entry::Entry;
use standin_core::id::{OrderId, ShopperId, StoreId, TripId};
use standin_core::identity::{self, Operation};
use standin_core::ledger::memory::MemoryLedger;
use standin_core::ledger::{BookedEvent, Ledger, StartTrip, Started};
use standin_core::merchant::{Store, StoreDirectory};
use standin_core::money::{Currency, Money};
use standin_core::policy::Policy;
use standin_core::register::{Outcome, Register, RegisterConfig};
use standin_core::trip::{Item, ItemStatus, Order, OrderStatus, TripChange, TripEvent};
use standin_core::trip_cache::TripCache;
use standin_core::trip_cache::memory::MemoryTripCache;
use standin_edge::budget::Budget;
use standin_edge::log::soon;
use standin_edge::machine::Machine;
use standin_edge::path::Refusal;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::books::Books;
use super::disk::{MARK, Mark};
use super::edge::{Edge, Region, bank, slug};
use super::faults;
use super::ledger::{Servers, Trouble};
use super::oracle::Oracle;
use super::run::Clocks;
use super::scene::{Scene, locked};
use super::well::make_well;
use super::world::{Hooks, State, World};

const BANKS: u64 = 4;
const SHOPPERS: u64 = 3;
/// Simulated milliseconds of faults.
const FAULTS_MS: u64 = 3_000;
/// Numbers of the payments that are made beside others.
const LEAST_FROM: u64 = 50_000_000;
/// No clock was off by so much.
const SET_RIGHT_MS: i64 = 600_000;
/// Simulated time in which what was approved too late is given back.
const LATE_WITHIN: Duration = Duration::from_secs(4);
/// Simulated time in which everything must be drained once all is well.
const DRAINED_WITHIN: Duration = Duration::from_secs(20);

/// One payment, as its bank knows it.
#[derive(Clone)]
struct Payment {
    mark: Mark,
    shopper: u64,
    minor: i64,
}

/// Runs one simulation of three keepers and two other edges.
#[allow(clippy::too_many_lines, reason = "the course of a run, in order")]
pub async fn simulate(scene: Arc<Scene>) -> Arc<World<Machine>> {
    let clocks = Clocks::new(0);
    let clock: Arc<dyn Clock> = Arc::new(clocks.clone());
    let ledger = MemoryLedger::new(Arc::clone(&clock), None);
    let servers = Servers::new(Arc::clone(&scene), ledger);
    let cache = Arc::new(MemoryTripCache::new());
    let stores = StoreDirectory::new(store().into_iter().collect());
    let region = Region::new(Arc::clone(&scene), servers, cache, stores);
    if open_shop(&region).await.is_none() {
        scene.wrong(|| "the shop does not open".to_owned());
    }
    let books = Books::new(Arc::clone(&scene));
    let hearing = Arc::clone(&books);
    let oracle = Oracle::new(
        Arc::clone(&scene),
        Box::new(move |proposal, outcome| hearing.applied(proposal, outcome)),
    );
    let (starting, looking) = (Arc::clone(&region), Arc::clone(&region));
    let hooks = Hooks {
        make: Box::new(|| {
            Machine::new(RegisterConfig {
                answers_max: 10_000,
            })
        }),
        started: Box::new(move |group, gone, clocks, own| starting.start(group, gone, clocks, own)),
        compact_upto: Box::new(move |run| {
            let edge = looking.edge(run.node());
            edge.map_or(0, |edge| edge.log.read(Register::drained))
        }),
    };
    let world = World::new(Arc::clone(&scene), oracle, hooks);
    world.found(3, 2).await;
    name_log(&region).await;
    let stop = CancellationToken::new();
    let beating = tokio::spawn(beat(Arc::clone(&region), Arc::clone(&clock), stop.clone()));
    let payments: Arc<Mutex<Vec<Payment>>> = Arc::default();
    let end = scene.now_ms().saturating_add(FAULTS_MS);
    let mut tasks: Vec<_> = (0..BANKS)
        .map(|bank| {
            let (world, region) = (Arc::clone(&world), Arc::clone(&region));
            let (books, payments) = (Arc::clone(&books), Arc::clone(&payments));
            tokio::spawn(pay(world, region, books, payments, (bank, end)))
        })
        .collect();
    tasks.push(tokio::spawn(trouble(
        Arc::clone(&region),
        Arc::clone(&scene),
        end,
    )));
    faults::until(&world, end).await;
    for task in tasks {
        if task.await.is_err() {
            scene.wrong(|| "a task of the simulation panicked".to_owned());
        }
    }
    region.servers.set_trouble(Trouble::None);
    if make_well(&world).await && drained(&world, &region).await {
        // What is late is given back meanwhile, once clocks are right again.
        for (node, ..) in world.machines() {
            if let Some(clocks) = world.clocks(node) {
                clocks.jump(SET_RIGHT_MS);
            }
        }
        tokio::time::sleep(LATE_WITHIN).await;
        drained(&world, &region).await;
        world.compare();
        settle(&world, &region, &books).await;
    }
    stop.cancel();
    drop(beating.await);
    for (rung, count) in books.rungs() {
        scene.say(|| format!("{rung:?}: {count}"));
    }
    world
}

fn store() -> Option<Store> {
    Some(Store {
        id: "7".parse().ok()?,
        name: "Target".into(),
        address: "123 Main St".into(),
        lat_e6: 0,
        lon_e6: 0,
    })
}

fn shopper(number: u64) -> Option<ShopperId> {
    (100_u64.saturating_add(number)).to_string().parse().ok()
}

/// Every shopper has a trip with goods in the cart.
async fn open_shop(region: &Region) -> Option<()> {
    let ledger = region.servers.primary()?;
    ledger.put_store(store()?).await.ok()?;
    for number in 0..SHOPPERS {
        let id = u128::from(number).saturating_add(1);
        let (order, trip) = (OrderId(Uuid::from_u128(id)), trip(number));
        let at = Timestamp::from_millis(0);
        let items = (1..=3).map(|line| Item {
            line,
            product: 1,
            category: "GROCERY".into(),
            quantity: 1,
            listed: 9_900,
            actual: None,
            status: ItemStatus::Wanted,
        });
        let placed = Order {
            id: order,
            customer: "9".parse().ok()?,
            store: "7".parse::<StoreId>().ok()?,
            currency: Currency::USD,
            status: OrderStatus::Placed,
            shopper: None,
            items: items.collect(),
        };
        ledger.place_order(placed).await.ok()?;
        ledger.claim(order, shopper(number)?).await.ok()?;
        let start = StartTrip {
            trip,
            shopper: shopper(number)?,
            orders: vec![order],
            at,
        };
        let Started::Trip(sheet) = ledger.start_trip(start).await.ok()? else {
            return None;
        };
        region.cache.put(*sheet).await.ok()?;
        for line in 1..=2 {
            change(region, number, pick(order, line), id.saturating_mul(10)).await?;
        }
    }
    Some(())
}

fn trip(number: u64) -> TripId {
    TripId(Uuid::from_u128(u128::from(number).saturating_add(1_000)))
}

fn pick(order: OrderId, line: u32) -> TripChange {
    TripChange::Pick {
        order,
        line,
        actual: None,
    }
}

/// Something happens on a shopper's trip: in the cache first, then in the ledger.
async fn change(region: &Region, number: u64, what: TripChange, event: u128) -> Option<()> {
    let mut sheet = region.cache.sheet(trip(number)).await.ok()??;
    sheet.apply(&what);
    let version = Some(sheet.trip.version);
    let event = TripEvent {
        id: Uuid::from_u128(event.saturating_add(u128::from(sheet.trip.version))),
        trip: trip(number),
        shopper: shopper(number)?,
        at: Timestamp::from_millis(0),
        what,
    };
    region.cache.put(sheet).await.ok()?;
    let ledger = region.servers.primary()?;
    let booked = ledger.book_events(vec![BookedEvent { event, version }]);
    booked.await.ok().map(drop)
}

/// The group agrees on a name for its log.
async fn name_log(region: &Region) {
    for _ in 0..50 {
        if let Some(edge) = region.edges().first() {
            let founded = Entry::Founded(Uuid::from_u128(0x10));
            let deadline = soon(Duration::from_secs(1));
            if edge.log.propose(&founded, deadline).await.is_ok() {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The cache's heart beats, the standby follows, and edges meet each other's approvals.
async fn beat(region: Arc<Region>, clock: Arc<dyn Clock>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if region.cache.beat(clock.now()).await.is_err() {
            return;
        }
        region.servers.replicate();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What goes wrong beside the machines, and what shoppers do.
async fn trouble(region: Arc<Region>, scene: Arc<Scene>, end_ms: u64) {
    while scene.now_ms() < end_ms && scene.verdict().is_none() {
        tokio::time::sleep(scene.millis(50, 500)).await;
        let number = scene.below(SHOPPERS);
        let order = OrderId(Uuid::from_u128(u128::from(number).saturating_add(1)));
        match scene.below(20) {
            0..=4 => region.servers.set_trouble(Trouble::None),
            5..=6 => region.servers.set_trouble(Trouble::Refuses),
            7..=8 => region.servers.set_trouble(Trouble::Hangs),
            9..=10 => region
                .servers
                .set_trouble(Trouble::Slow(scene.between(20, 300))),
            11..=12 => region.servers.set_trouble(Trouble::LosesReplies(50)),
            13..=14 => region.servers.fail_over().await,
            15 => release_hold(&region, &scene).await,
            16..=18 => drop(change(&region, number, pick(order, 3), 50_000).await),
            _ => drop(change(&region, number, TripChange::Finish, 60_000).await),
        }
    }
}

/// Reconciliation gives a hold without an outcome up: first in the log, then in the ledger.
async fn release_hold(region: &Region, scene: &Scene) {
    let (Some(ledger), Some(edge)) = (region.servers.primary(), scene.pick(&region.edges())) else {
        return;
    };
    let all = Timestamp::from_millis(i64::MAX);
    let Some(hold) = ledger
        .stale_holds(all, 1)
        .await
        .ok()
        .and_then(|mut all| all.pop())
    else {
        return;
    };
    let tombstone = Entry::Tombstone(hold.transaction_id);
    let deadline = soon(Duration::from_millis(700));
    let given_up = tokio::select! {
        biased;
        () = edge.gone.token.cancelled() => return,
        given_up = edge.log.propose(&tombstone, deadline) => given_up,
    };
    if matches!(given_up, Ok(Outcome::Tombstoned)) {
        drop(ledger.release(vec![hold]).await);
    }
}

/// What is left of a trip's cap as an edge sees it, or one more.
async fn just_about(region: &Region, scene: &Scene, number: u64) -> Option<i64> {
    let edge = scene.pick(&region.edges())?;
    let trip = region.cache.sheet(trip(number)).await.ok()??.trip;
    let cap = Policy::example().cap(&trip).amount;
    let approvals = edge.log.read(|register| register.approvals(trip.id));
    let spent: i64 = approvals.iter().map(|approval| approval.amount).sum();
    let more = i64::try_from(scene.below(2)).unwrap_or(0);
    Some(cap.saturating_sub(spent).saturating_add(more)).filter(|left| *left > 0)
}

async fn pay(
    world: Arc<World<Machine>>,
    region: Arc<Region>,
    books: Arc<Books>,
    payments: Arc<Mutex<Vec<Payment>>>,
    (bank, end_ms): (u64, u64),
) {
    let scene = &world.scene;
    let mut number = 0_u64;
    while scene.now_ms() < end_ms && scene.verdict().is_none() {
        tokio::time::sleep(scene.millis(0, 150)).await;
        let known = locked(&payments).clone();
        let again = scene.pick(&known).filter(|_| scene.chance(25));
        let shopper = scene.below(SHOPPERS);
        let greedy = if scene.chance(12) {
            just_about(&region, scene, shopper).await
        } else {
            None
        };
        let both = again.is_none() && greedy.is_some() && number.is_multiple_of(2);
        let payment = again.unwrap_or_else(|| {
            number = number.saturating_add(1);
            Payment {
                mark: mark(bank, number),
                shopper,
                minor: greedy.unwrap_or(i64::try_from(scene.between(500, 9_000)).unwrap_or(500)),
            }
        });
        locked(&payments).push(payment.clone());
        // At the same time, and often at another edge: the least that is too much.
        let least = Payment {
            mark: mark(bank, number.saturating_add(LEAST_FROM)),
            minor: 1,
            ..payment
        };
        if both {
            locked(&payments).push(least.clone());
        }
        let asking = async {
            if both && !ask(&world, &region, &books, &least, 4).await {
                world.oracle.unknown();
            }
        };
        let (answered, ()) = tokio::join!(ask(&world, &region, &books, &payment, 4), asking);
        if !answered {
            world.oracle.unknown();
        }
    }
}

fn mark(bank: u64, number: u64) -> Mark {
    let text = format!("{bank:04}{number:08}");
    text.into_bytes().try_into().unwrap_or_default()
}

/// Asks one edge after the other, until one answers.
async fn ask(
    world: &Arc<World<Machine>>,
    region: &Region,
    books: &Books,
    payment: &Payment,
    tries: u32,
) -> bool {
    for _ in 0..tries {
        let Some(edge) = world.scene.pick(&region.edges()) else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        match ask_one(&edge, payment).await {
            Some(Ok(given)) => {
                let answer = given.answer();
                let node = edge.gone.node;
                let approved = u64::from(answer.verdict == Verdict::Approved);
                world.scene.note("told", &[node, approved]);
                world.scene.say(|| {
                    let replayed = given.is_replayed();
                    let (id, reason) = (answer.transaction_id, answer.reason);
                    let mark = String::from_utf8_lossy(&payment.mark);
                    let rung = answer.rung;
                    format!("edge {node}: {mark} {id} {reason:?} {rung:?} again {replayed}")
                });
                books.told(answer, node);
                world.oracle.answered();
                let on_log = matches!(
                    answer.rung,
                    standin_core::answer::Rung::Primary | standin_core::answer::Rung::StandIn
                );
                if on_log && !given.is_replayed() {
                    world.judge_durable(&payment.mark);
                }
                return true;
            }
            Some(Err(refusal)) => {
                let why = refusal.to_string();
                // An edge whose power went while it marked its proposal late is as one that said nothing.
                let disk = world.own_disk(edge.gone.node);
                let is_out = disk.is_some_and(|disk| disk.out().is_cancelled());
                let unknown = matches!(refusal, Refusal::Unknown) && !is_out;
                if let Some(request) = request(payment, &edge).filter(|_| unknown) {
                    let id = identity::transaction_id(&request, Operation::Authorize, None);
                    books.refused(id, edge.gone.node);
                }
                let mark = String::from_utf8_lossy(&payment.mark).into_owned();
                world
                    .scene
                    .say(|| format!("edge {}: {mark} {why}", edge.gone.node));
                world.scene.note("refused", &[edge.gone.node]);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            None => {}
        }
    }
    false
}

async fn ask_one(
    edge: &Arc<Edge>,
    payment: &Payment,
) -> Option<Result<standin_edge::path::Given, Refusal>> {
    let bank = bank()?;
    let request = request(payment, edge)?;
    let answering = edge
        .path
        .answer(request, Budget::new(Instant::now(), &bank, Duration::ZERO));
    tokio::select! {
        biased;
        () = edge.gone.token.cancelled() => None,
        answered = tokio::time::timeout(bank.deadline, answering) => answered.ok(),
    }
}

fn request(payment: &Payment, edge: &Edge) -> Option<Authorization> {
    let key = format!(
        "{}{}",
        String::from_utf8_lossy(MARK),
        String::from_utf8_lossy(&payment.mark)
    );
    Some(Authorization {
        bank: slug()?,
        shopper: shopper(payment.shopper)?,
        amount: Money::from_minor(payment.minor, Currency::USD),
        merchant: Merchant {
            name: "Target".into(),
            address: "123 Main St".into(),
        },
        bank_key: Some(key),
        received_at: edge.path.clock.now(),
        particulars: Particulars::default(),
    })
}

/// Waits until the log is in the ledger and every edge's own log is in the region's.
async fn drained(world: &Arc<World<Machine>>, region: &Region) -> bool {
    let until = soon(DRAINED_WITHIN);
    let mut found = (0, 0, 0);
    while Instant::now() < until {
        if world.scene.verdict().is_some() {
            return false;
        }
        let edges = region.edges();
        let waiting = edges.iter().map(|edge| edge.advices.waiting()).sum();
        let last = edges.iter().map(|edge| edge.log.status().last_index).max();
        let log = edges.first().and_then(|edge| edge.log.incarnation());
        if let (Some(ledger), Some(log), Some(last)) = (region.servers.primary(), log, last) {
            let cursor = ledger.cursor(log).await.unwrap_or(0);
            found = (waiting, cursor, last);
            if waiting == 0 && cursor == last {
                return true;
            }
        }
        world.look();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world
        .scene
        .wrong(|| format!("L4: not drained in time: waiting, cursor, last are {found:?}"));
    false
}

/// Everything is well and drained: the books must agree.
async fn settle(world: &Arc<World<Machine>>, region: &Region, books: &Books) {
    for (node, state, _) in world.machines() {
        if state == State::Retired {
            books.lost(node);
        }
    }
    let Some(ledger) = region.servers.primary() else {
        return;
    };
    let conflicts = ledger.conflicts(100_000).await.unwrap_or_default();
    match ledger.authorizations(None, 100_000).await {
        Ok(rows) => books.close(&rows, &conflicts),
        Err(error) => world
            .scene
            .wrong(|| format!("the ledger is not read: {error}")),
    }
}
