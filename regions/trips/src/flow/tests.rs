#![allow(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    reason = "test code"
)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use standin_core::BoxFuture;
use standin_core::clock::Clock;
use standin_core::id::{ShopperId, TripId};
use standin_core::ledger::{Claim, Completed, Ledger, LedgerError, Placed, StartTrip, Started};
use standin_core::queue::EventQueue;
use standin_core::trip::{OrderStatus, Position, TripChange, TripEvent, TripStatus};
use standin_core::trip_cache::TripCache;
use uuid::Uuid;

use super::{FlowError, Shown};
use crate::EventJournal;
use crate::testing::{Mode, World, eventually, order, pick, store};

fn shopper(number: u64) -> ShopperId {
    number.try_into().unwrap()
}

#[tokio::test]
async fn an_order_goes_all_the_way_and_the_cache_follows_each_step() {
    let mut world = World::at_work().await;
    let order = order();
    let (id, anna) = (order.id, shopper(123));
    let platform = world.platform.clone();
    assert_eq!(platform.place(order.clone()).await.unwrap(), Placed::Now);
    assert_eq!(platform.place(order).await.unwrap(), Placed::Before);
    let offers = platform.offers(store().id, 10).await.unwrap();
    assert_eq!(offers.iter().map(|o| o.id).collect::<Vec<_>>(), [id]);
    assert_eq!(platform.claim(id, anna).await.unwrap(), Claim::Won);
    assert_eq!(platform.claim(id, shopper(9)).await.unwrap(), Claim::Lost);
    assert!(platform.offers(store().id, 10).await.unwrap().is_empty());

    let start = StartTrip {
        trip: TripId(Uuid::new_v4()),
        shopper: anna,
        orders: vec![id],
        at: world.clock.now(),
    };
    let (trip, at) = (start.trip, start.at);
    let (_, shown) = platform.start(start.clone()).await.unwrap();
    assert_eq!(shown, Shown::Current);
    assert_eq!(world.looked(anna).await.status, TripStatus::Shopping);
    let again = platform.start(start).await.unwrap().0;
    assert!(matches!(again, Started::Trip(sheet) if sheet.trip.id == trip));

    let position = Position {
        lat_e6: 1,
        lon_e6: 2,
        at,
    };
    let changes = [
        pick(id, 1, None),
        pick(id, 2, Some(1_99)),
        TripChange::OutOfStock { order: id, line: 3 },
        pick(id, 4, None),
        TripChange::Unpick { order: id, line: 4 },
        TripChange::Moved { position },
    ];
    let events = changes.map(|what| world.event(anna, trip, what)).to_vec();
    platform.append(events).await.unwrap();
    world.settled().await;
    let seen = world.looked(anna).await;
    assert_eq!((seen.picked, seen.picked_listed), (2_99, 3_00));
    assert_eq!(
        world.booked(anna, trip).await.trip,
        seen,
        "cache and ledger agree"
    );
    let look = world.cache.look(anna).await.unwrap();
    assert_eq!(look.trip.unwrap().position, Some(position));
    eventually("the heart beats", || async {
        world.cache.look(anna).await.unwrap().beat.is_some()
    })
    .await;

    let early = platform.complete(anna, trip).await.unwrap().0;
    assert_eq!(early, Completed::StillShopping);
    let finish = world.event(anna, trip, TripChange::Finish);
    platform.append(vec![finish]).await.unwrap();
    // Straight after: the finish is waited for.
    let (completed, shown) = platform.complete(anna, trip).await.unwrap();
    assert_eq!((completed, shown), (Completed::Now, Shown::Current));
    assert_eq!(world.looked(anna).await.status, TripStatus::Complete);
    assert_eq!(
        platform.complete(anna, trip).await.unwrap().0,
        Completed::Before
    );
    let booked = platform.order(id).await.unwrap().unwrap();
    assert_eq!(booked.status, OrderStatus::Complete);
    world.rest().await;
}

#[tokio::test]
async fn of_fifty_racing_claims_one_wins() {
    let world = World::at_rest().await;
    let order = order();
    let id = order.id;
    world.platform.place(order).await.unwrap();
    let claims = (1..=50).map(|number| {
        let platform = world.platform.clone();
        tokio::spawn(async move { platform.claim(id, shopper(number)).await.unwrap() })
    });
    let claims = join_all(claims).await;
    let won = claims
        .iter()
        .filter(|c| matches!(c, Ok(Claim::Won)))
        .count();
    let lost = claims
        .iter()
        .filter(|c| matches!(c, Ok(Claim::Lost)))
        .count();
    assert_eq!((won, lost), (1, 49));
}

#[tokio::test]
async fn without_the_ledger_shopping_goes_on_and_is_booked_once_later() {
    let mut world = World::at_work().await;
    let (anna, trip, id) = world.trip(123).await;
    world.ledger.switch.set(Mode::Away);

    let platform = world.platform.clone();
    let start = StartTrip {
        trip: TripId(Uuid::new_v4()),
        shopper: anna,
        orders: vec![id],
        at: world.clock.now(),
    };
    let errors = [
        platform.place(order()).await.map(drop).unwrap_err(),
        platform.claim(id, anna).await.map(drop).unwrap_err(),
        platform.start(start).await.map(drop).unwrap_err(),
        platform.complete(anna, trip).await.map(drop).unwrap_err(),
    ];
    for error in errors {
        assert!(
            matches!(error, FlowError::Ledger(_)) && error.may_retry(),
            "{error}"
        );
    }

    let lines = [1, 2, 3].map(|line| world.event(anna, trip, pick(id, line, None)));
    platform.append(lines.to_vec()).await.unwrap();
    platform.append(lines.to_vec()).await.unwrap(); // The client's retry.
    let finish = world.event(anna, trip, TripChange::Finish);
    platform.append(vec![finish]).await.unwrap();
    world.fed(7).await;
    let seen = world.looked(anna).await;
    assert_eq!((seen.picked, seen.status), (6_00, TripStatus::Delivering));
    let view = platform.trip(anna, trip).await.unwrap().unwrap();
    assert_eq!(view.sheet.trip, seen, "a reader sees what the cache has");
    assert_eq!(platform.counters().booked.get(), 0);
    assert_eq!(platform.counters().backlog_now.get(), 7);
    assert_eq!(
        world
            .ledger
            .inner
            .trip(anna, trip)
            .await
            .unwrap()
            .unwrap()
            .sheet
            .trip
            .picked,
        0
    );

    world.ledger.switch.set(Mode::Up);
    world.settled().await;
    assert_eq!(
        world.booked(anna, trip).await.trip,
        seen,
        "nothing lost, nothing twice"
    );
    eventually("the backlog is gone", || async {
        platform.counters().backlog_now.get() == 0
    })
    .await;
    assert_eq!(
        platform.complete(anna, trip).await.unwrap().0,
        Completed::Now
    );
    world.rest().await;
}

#[tokio::test]
async fn a_failed_write_through_is_told_and_repaired() {
    let mut world = World::at_work().await;
    let order = order();
    let (id, anna) = (order.id, shopper(123));
    let platform = world.platform.clone();
    platform.place(order).await.unwrap();
    platform.claim(id, anna).await.unwrap();
    world.cache.switch.set(Mode::Away);
    let start = StartTrip {
        trip: TripId(Uuid::new_v4()),
        shopper: anna,
        orders: vec![id],
        at: world.clock.now(),
    };
    let trip = start.trip;
    let (started, shown) = platform.start(start).await.unwrap();
    assert!(matches!(started, Started::Trip(_)));
    assert_eq!(shown, Shown::Behind);
    assert_eq!(platform.counters().repairs_now.get(), 1);
    assert_eq!(world.cached(trip).await, None);

    world.cache.switch.set(Mode::Up);
    eventually("the cache has the trip", || async {
        world.cached(trip).await.is_some()
    })
    .await;
    eventually("the repair is forgotten", || async {
        platform.counters().repairs_now.get() == 0
    })
    .await;
    assert_eq!(world.looked(anna).await.id, trip);
    world.rest().await;
}

#[tokio::test]
async fn an_event_is_not_acknowledged_unless_the_queue_has_it() {
    let world = World::at_rest().await;
    let (anna, trip, id) = world.trip(123).await;
    world.queue.appends.set(Mode::Away);
    let event = world.event(anna, trip, pick(id, 1, None));
    let error = world.platform.append(vec![event]).await.unwrap_err();
    assert!(matches!(error, FlowError::Queue(_)), "{error}");
    assert_eq!(world.platform.counters().appended.get(), 0);
}

/// A journal that keeps what it is told, slowly and unevenly, or refuses.
#[derive(Default)]
struct Kept {
    events: Mutex<Vec<TripEvent>>,
    refuses: AtomicBool,
}

impl EventJournal for Kept {
    fn record<'a>(&'a self, events: &'a [TripEvent]) -> BoxFuture<'a, Result<(), LedgerError>> {
        Box::pin(async move {
            if self.refuses.load(Ordering::SeqCst) {
                return Err(LedgerError::lost("switched off"));
            }
            let ids = events.iter().map(|event| event.id.as_u128() % 5);
            for _ in 0..ids.sum::<u128>() {
                tokio::task::yield_now().await;
            }
            self.events.lock().unwrap().extend_from_slice(events);
            for _ in 0..events.len() % 3 {
                tokio::task::yield_now().await;
            }
            Ok(())
        })
    }
}

#[tokio::test]
async fn the_journal_has_an_event_before_the_queue_and_in_the_same_order() {
    let world = World::at_rest().await;
    let (anna, trip, id) = world.trip(123).await;
    let kept = Arc::new(Kept::default());
    let journal = Some(Arc::clone(&kept) as Arc<dyn EventJournal>);
    let platform = Arc::new(world.platform_with(journal));

    kept.refuses.store(true, Ordering::SeqCst);
    let event = world.event(anna, trip, pick(id, 1, None));
    let error = platform.append(vec![event]).await.unwrap_err();
    assert!(matches!(error, FlowError::Journal(_)), "{error}");
    assert_eq!(
        world.queue.depth().await.unwrap(),
        0,
        "not journalled, not queued"
    );

    kept.refuses.store(false, Ordering::SeqCst);
    let appends = (0..60_i64).map(|price| {
        let event = world.event(anna, trip, pick(id, 1, Some(price)));
        let platform = Arc::clone(&platform);
        tokio::spawn(async move { platform.append(vec![event]).await })
    });
    for append in join_all(appends).await {
        append.unwrap().unwrap();
    }
    let mut queued = Vec::new();
    for shard in 0..world.queue.shards() {
        queued.extend(world.queue.read(shard, None, 100).await.unwrap());
    }
    let queued: Vec<TripEvent> = queued.into_iter().map(|found| found.event).collect();
    assert_eq!(queued.len(), 60);
    assert_eq!(*kept.events.lock().unwrap(), queued);
}

/// A journal that never answers.
struct Silent;

impl EventJournal for Silent {
    fn record<'a>(&'a self, _events: &'a [TripEvent]) -> BoxFuture<'a, Result<(), LedgerError>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_ones_turn_at_the_journal_is_inside_the_budget() {
    let world = World::at_rest().await;
    let (anna, trip, id) = world.trip(123).await;
    let platform = Arc::new(world.platform_with(Some(Arc::new(Silent))));
    let begun = tokio::time::Instant::now();
    let appends = (0..3).map(|_| {
        let event = world.event(anna, trip, pick(id, 1, None));
        let platform = Arc::clone(&platform);
        tokio::spawn(async move { platform.append(vec![event]).await })
    });
    for append in join_all(appends).await {
        let error = append.unwrap().unwrap_err();
        assert!(matches!(error, FlowError::Journal(_)), "{error}");
    }
    let (took, budget) = (begun.elapsed(), platform.budgets.append);
    assert!(
        took <= budget + Duration::from_millis(10),
        "{took:?} of {budget:?}"
    );
    assert_eq!(world.queue.depth().await.unwrap(), 0, "nothing was queued");
}
