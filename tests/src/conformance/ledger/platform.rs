//! Stores, orders, claims, trips and what happens on them.

use futures_util::future::join_all;
use standin_core::id::OrderId;
use standin_core::ledger::{Claim, Completed, EventsBooked, Fate, Placed, Retry, Started};
use standin_core::money::Currency;
use standin_core::trip::{ItemStatus, OrderStatus, Position, TripChange, TripStatus};

use super::{World, at, event, number, order, pick, shopper, start, store, uuid};

fn booked(changed: u64, unchanged: u64, refused: u64) -> EventsBooked {
    EventsBooked {
        changed,
        unchanged,
        refused,
    }
}

pub(super) async fn a_store_is_put_and_replaced(world: World) {
    let id = world.store().await;
    let named = |name| store(id, name);
    let find = async || {
        let stores = world.ledger.stores().await.unwrap();
        stores.into_iter().find(|store| store.id == id)
    };
    assert_eq!(find().await, Some(named("Target")));
    world.ledger.put_store(named("Target North")).await.unwrap();
    assert_eq!(find().await, Some(named("Target North")));
}

pub(super) async fn an_order_is_placed_once(world: World) {
    let ledger = &world.ledger;
    let order = order(world.store().await);
    assert_eq!(ledger.order(order.id).await.unwrap(), None);
    assert_eq!(
        ledger.place_order(order.clone()).await.unwrap(),
        Placed::Now
    );
    assert_eq!(
        ledger.place_order(order.clone()).await.unwrap(),
        Placed::Before
    );
    assert_eq!(ledger.order(order.id).await.unwrap(), Some(order.clone()));
    let mut other = order.clone();
    other.items[0].listed = 999;
    assert_eq!(ledger.place_order(other).await.unwrap(), Placed::Differs);
    let mut elsewhere = super::order(number().try_into().unwrap());
    assert_eq!(
        ledger.place_order(elsewhere.clone()).await.unwrap(),
        Placed::UnknownStore
    );
    assert_eq!(ledger.order(elsewhere.id).await.unwrap(), None);
    // Whatever the sender says about its state, a placed order is PLACED and nothing is picked.
    elsewhere.store = order.store;
    elsewhere.status = OrderStatus::Complete;
    elsewhere.shopper = Some(shopper());
    elsewhere.items[0].status = ItemStatus::Picked;
    elsewhere.items[0].actual = Some(1);
    elsewhere.items.reverse();
    let id = elsewhere.id;
    assert_eq!(ledger.place_order(elsewhere).await.unwrap(), Placed::Now);
    let placed = ledger.order(id).await.unwrap().unwrap();
    assert_eq!((placed.status, placed.shopper), (OrderStatus::Placed, None));
    assert_eq!(placed.items, order.items);
}

pub(super) async fn an_order_that_no_ledger_can_keep_is_refused(world: World) {
    let good = order(world.store().await);
    let (mut twice, mut negative, mut nul) = (good.clone(), good.clone(), good.clone());
    twice.items[1].line = 1;
    negative.items[0].listed = -1;
    nul.items[0].category = "A\0B".to_owned();
    for bad in [twice, negative, nul] {
        let error = world.ledger.place_order(bad).await.unwrap_err();
        assert_eq!((error.fate, error.retry), (Fate::NotDone, Retry::Never));
    }
    assert_eq!(world.ledger.order(good.id).await.unwrap(), None);
}

pub(super) async fn offers_are_the_placed_orders_of_a_store_oldest_first(world: World) {
    let ledger = &world.ledger;
    let store = world.store().await;
    let mut placed = Vec::new();
    for _ in 0..4 {
        let order = order(store);
        ledger.place_order(order.clone()).await.unwrap();
        placed.push(order);
    }
    let other = order(world.store().await);
    ledger.place_order(other).await.unwrap();
    assert_eq!(ledger.offers(store, 10).await.unwrap(), placed);
    assert_eq!(ledger.offers(store, 2).await.unwrap(), placed[..2]);
    ledger.claim(placed[1].id, shopper()).await.unwrap();
    placed.remove(1);
    assert_eq!(ledger.offers(store, 10).await.unwrap(), placed);
}

pub(super) async fn of_fifty_racing_claims_one_wins(world: World) {
    let order = order(world.store().await);
    world.ledger.place_order(order.clone()).await.unwrap();
    let shoppers: Vec<_> = (0..50).map(|_| shopper()).collect();
    let clients = world.clients(50);
    let claims = clients
        .iter()
        .zip(&shoppers)
        .map(|(ledger, shopper)| ledger.claim(order.id, *shopper));
    let claims: Vec<Claim> = join_all(claims)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let won: Vec<_> = shoppers
        .iter()
        .zip(&claims)
        .filter(|(_, claim)| **claim == Claim::Won)
        .collect();
    assert_eq!(won.len(), 1, "{claims:?}");
    let winner = *won[0].0;
    assert_eq!(
        claims.iter().filter(|claim| **claim == Claim::Lost).count(),
        49
    );
    let stored = world.ledger.order(order.id).await.unwrap().unwrap();
    assert_eq!(
        (stored.status, stored.shopper),
        (OrderStatus::Claimed, Some(winner))
    );
    // The winner's repeat wins again, before and after its trip starts; nobody else does.
    assert_eq!(
        world.ledger.claim(order.id, winner).await.unwrap(),
        Claim::Won
    );
    world
        .ledger
        .start_trip(start(winner, &[&order]))
        .await
        .unwrap();
    assert_eq!(
        world.ledger.claim(order.id, winner).await.unwrap(),
        Claim::Won
    );
    assert_eq!(
        world.ledger.claim(order.id, shopper()).await.unwrap(),
        Claim::Gone
    );
    let unknown = world.ledger.claim(OrderId(uuid()), winner).await.unwrap();
    assert_eq!(unknown, Claim::UnknownOrder);
}

pub(super) async fn a_trip_starts_from_claimed_orders_once(world: World) {
    let ledger = &world.ledger;
    let (store, shopper) = (world.store().await, shopper());
    let (one, two) = (
        world.claimed(store, shopper).await,
        world.claimed(store, shopper).await,
    );
    let not_mine = world.claimed(store, super::shopper()).await;
    let elsewhere = world.claimed(world.store().await, shopper).await;
    let unclaimed = order(store);
    ledger.place_order(unclaimed.clone()).await.unwrap();
    for other in [&not_mine, &unclaimed] {
        let started = ledger
            .start_trip(start(shopper, &[&one, other]))
            .await
            .unwrap();
        assert_eq!(started, Started::NotClaimed(other.id));
    }
    let mixed = ledger
        .start_trip(start(shopper, &[&one, &elsewhere]))
        .await
        .unwrap();
    assert_eq!(mixed, Started::Mixed);
    let error = ledger.start_trip(start(shopper, &[])).await.unwrap_err();
    assert_eq!(error.retry, Retry::Never);
    assert_eq!(ledger.open_trip(shopper).await.unwrap(), None);

    let start_both = start(shopper, &[&two, &one]);
    let Started::Trip(sheet) = ledger.start_trip(start_both.clone()).await.unwrap() else {
        panic!("the trip did not start");
    };
    assert_eq!(sheet.trip.status, TripStatus::Shopping);
    assert_eq!((sheet.trip.version, sheet.trip.picked), (1, 0));
    assert_eq!((sheet.trip.store, sheet.trip.started_at), (store, at(0)));
    assert_eq!(sheet.items.len(), 2);
    let again = ledger.start_trip(start_both.clone()).await.unwrap();
    assert_eq!(again, Started::Trip(sheet.clone()));
    let open = ledger.open_trip(shopper).await.unwrap().unwrap();
    assert_eq!(open.sheet, *sheet);
    assert_eq!(
        ledger.trip(shopper, sheet.trip.id).await.unwrap(),
        Some(open)
    );
    for id in [one.id, two.id] {
        let order = ledger.order(id).await.unwrap().unwrap();
        assert_eq!(order.status, OrderStatus::Shopping);
    }
    // One trip at a time; and an id stands for the orders it was started with.
    let other = ledger
        .start_trip(start(shopper, &[&elsewhere]))
        .await
        .unwrap();
    assert_eq!(other, Started::HasTrip(sheet.trip.id));
    let mut fewer = start_both;
    fewer.orders.pop();
    let fewer = ledger.start_trip(fewer).await.unwrap();
    assert_eq!(fewer, Started::HasTrip(sheet.trip.id));
}

pub(super) async fn of_racing_starts_one_trip_is_made(world: World) {
    let (store, shopper) = (world.store().await, shopper());
    let mut starts = Vec::new();
    for _ in 0..6 {
        let order = world.claimed(store, shopper).await;
        starts.push(start(shopper, &[&order]));
    }
    // Each is sent twice, as a client would that saw no reply.
    let starts: Vec<_> = starts.iter().chain(&starts).cloned().collect();
    let clients = world.clients(starts.len());
    let racing = clients
        .iter()
        .zip(&starts)
        .map(|(ledger, start)| ledger.start_trip(start.clone()));
    let started: Vec<Started> = join_all(racing)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let open = world.ledger.open_trip(shopper).await.unwrap().unwrap();
    for (start, started) in starts.iter().zip(started) {
        if start.trip == open.sheet.trip.id {
            assert_eq!(started, Started::Trip(Box::new(open.sheet.clone())));
        } else {
            assert_eq!(started, Started::HasTrip(open.sheet.trip.id));
        }
    }
}

pub(super) async fn events_change_the_cart_once_each(world: World) {
    let ledger = &world.ledger;
    let sheet = world.trip().await;
    let (shopper, trip) = (sheet.trip.shopper, sheet.trip.id);
    let order = *sheet.items.keys().next().unwrap();
    let (first, second) = (pick(&sheet, 1, Some(1_100)), pick(&sheet, 2, None));
    let unpick = event(&sheet, TripChange::Unpick { order, line: 2 });
    let gone = event(&sheet, TripChange::OutOfStock { order, line: 3 });
    let position = Position {
        lat_e6: 1,
        lon_e6: 2,
        at: at(1),
    };
    let moved = event(&sheet, TripChange::Moved { position });
    // One batch names an event twice.
    let batch = vec![first.clone(), second.clone(), first.clone(), moved.clone()];
    assert_eq!(ledger.book_events(batch).await.unwrap(), booked(2, 2, 0));
    let cart = async || ledger.trip(shopper, trip).await.unwrap().unwrap().sheet;
    let now = cart().await;
    assert_eq!((now.trip.picked, now.trip.picked_listed), (3_100, 3_000));
    assert_eq!(now.trip.version, 3);
    assert_eq!(now.trip.mix["PRODUCE"], 1_100);
    assert_eq!(now.trip.mix["DAIRY"], 2_000);
    assert_eq!(now.items[&order][0].actual, Some(1_100));
    // A pick that comes again after the line was put back does not pick it again.
    let counts = ledger.book_events(vec![unpick, gone]).await.unwrap();
    assert_eq!(counts, booked(2, 0, 0));
    let counts = ledger
        .book_events(vec![second, first, moved])
        .await
        .unwrap();
    assert_eq!(counts, booked(0, 3, 0));
    let now = cart().await;
    assert_eq!((now.trip.picked, now.trip.version), (1_100, 5));
    assert!(!now.trip.mix.contains_key("DAIRY"));
    let statuses: Vec<_> = now.items[&order].iter().map(|item| item.status).collect();
    let expected = [
        ItemStatus::Picked,
        ItemStatus::Wanted,
        ItemStatus::OutOfStock,
    ];
    assert_eq!(statuses, expected);
    let stored = ledger.order(order).await.unwrap().unwrap();
    assert_eq!(stored.items, now.items[&order]);
    // The order is still the one that was placed.
    assert_eq!(ledger.place_order(stored).await.unwrap(), Placed::Before);
}

pub(super) async fn events_that_come_late_or_name_nothing_are_refused(world: World) {
    let ledger = &world.ledger;
    let sheet = world.trip().await;
    let finish = event(&sheet, TripChange::Finish);
    let picked = pick(&sheet, 1, None);
    let batch = vec![
        pick(&sheet, 9, None),
        picked.clone(),
        finish.clone(),
        pick(&sheet, 2, None),
    ];
    assert_eq!(ledger.book_events(batch).await.unwrap(), booked(2, 0, 2));
    let mut stranger = pick(&sheet, 1, None);
    stranger.event.shopper = shopper();
    let mut nowhere = pick(&sheet, 1, None);
    nowhere.event.trip.0 = uuid();
    let batch = vec![stranger, nowhere, finish, picked];
    assert_eq!(ledger.book_events(batch).await.unwrap(), booked(0, 2, 2));
    let again = event(&sheet, TripChange::Finish);
    assert_eq!(
        ledger.book_events(vec![again]).await.unwrap(),
        booked(0, 1, 0)
    );
    let trip = ledger
        .open_trip(sheet.trip.shopper)
        .await
        .unwrap()
        .unwrap()
        .sheet
        .trip;
    assert_eq!(
        (trip.status, trip.picked, trip.version),
        (TripStatus::Delivering, 1_000, 3)
    );
    let order = *sheet.items.keys().next().unwrap();
    let order = ledger.order(order).await.unwrap().unwrap();
    assert_eq!(order.status, OrderStatus::Delivering);
}

pub(super) async fn a_version_only_grows(world: World) {
    let ledger = &world.ledger;
    let sheet = world.trip().await;
    let mut ahead = pick(&sheet, 1, None);
    ahead.version = Some(40);
    let mut behind = pick(&sheet, 2, None);
    behind.version = Some(7);
    let mut same = pick(&sheet, 2, None);
    same.version = Some(50);
    for (event, version) in [(ahead, 40), (behind, 41), (same, 50)] {
        ledger.book_events(vec![event]).await.unwrap();
        let trip = ledger
            .open_trip(sheet.trip.shopper)
            .await
            .unwrap()
            .unwrap()
            .sheet
            .trip;
        assert_eq!(trip.version, version);
    }
}

pub(super) async fn a_trip_is_completed_once_and_frees_the_shopper(world: World) {
    let ledger = &world.ledger;
    let sheet = world.trip().await;
    let (shopper, trip) = (sheet.trip.shopper, sheet.trip.id);
    let complete = async || ledger.complete(shopper, trip).await.unwrap();
    let unknown = ledger.complete(super::shopper(), trip).await.unwrap();
    assert_eq!(unknown, Completed::UnknownTrip);
    assert_eq!(complete().await, Completed::StillShopping);
    ledger
        .book_events(vec![event(&sheet, TripChange::Finish)])
        .await
        .unwrap();
    assert_eq!(complete().await, Completed::Now);
    assert_eq!(complete().await, Completed::Before);
    assert_eq!(ledger.open_trip(shopper).await.unwrap(), None);
    let over = ledger
        .trip(shopper, trip)
        .await
        .unwrap()
        .unwrap()
        .sheet
        .trip;
    assert_eq!((over.status, over.version), (TripStatus::Complete, 3));
    let order = *sheet.items.keys().next().unwrap();
    let order = ledger.order(order).await.unwrap().unwrap();
    assert_eq!(order.status, OrderStatus::Complete);
    assert_eq!(order.currency, Currency::USD);
    let next = world.claimed(sheet.trip.store, shopper).await;
    let started = ledger.start_trip(start(shopper, &[&next])).await.unwrap();
    assert!(matches!(started, Started::Trip(_)), "{started:?}");
    // The old trip's start, again, is still the old trip.
    let mut old = start(shopper, &[&order]);
    old.trip = trip;
    let old = ledger.start_trip(old).await.unwrap();
    assert!(matches!(old, Started::Trip(sheet) if sheet.trip.status == TripStatus::Complete));
}
