#![allow(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    reason = "test code"
)]

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::clock::SystemClock;
use crate::money::Currency;
use crate::trip::{Item, ItemStatus, OrderStatus, Position, TripEvent};

/// A journal in memory that can refuse, and that takes its time after taking its place.
#[derive(Default)]
struct Tape {
    events: Mutex<Vec<PlatformEvent>>,
    refuses: AtomicBool,
}

impl Journal for Tape {
    fn record(&self, event: PlatformEvent) -> BoxFuture<'_, Result<(), LedgerError>> {
        Box::pin(async move {
            if self.refuses.load(Ordering::SeqCst) {
                return Err(LedgerError::lost("the log did not commit in time"));
            }
            self.events.lock().unwrap().push(event);
            tokio::task::yield_now().await;
            Ok(())
        })
    }
}

fn id(number: i64) -> OrderId {
    OrderId(Uuid::from_u128(number as u128))
}

fn shopper(number: i64) -> ShopperId {
    ShopperId::try_from(number).unwrap()
}

fn store() -> Store {
    Store {
        id: StoreId::try_from(1_i64).unwrap(),
        name: "Target".to_owned(),
        address: "123 Main St".to_owned(),
        lat_e6: 1,
        lon_e6: 2,
    }
}

fn order(number: i64) -> Order {
    let item = |line| Item {
        line,
        product: 1,
        category: "DAIRY".to_owned(),
        quantity: 1,
        listed: 100,
        actual: None,
        status: ItemStatus::Wanted,
    };
    Order {
        id: id(number),
        customer: 5_i64.try_into().unwrap(),
        store: store().id,
        currency: Currency::USD,
        status: OrderStatus::Placed,
        shopper: None,
        items: vec![item(1), item(2)],
    }
}

fn event(number: u128, what: TripChange) -> BookedEvent {
    BookedEvent {
        event: TripEvent {
            id: Uuid::from_u128(number),
            trip: TripId(Uuid::from_u128(9)),
            shopper: shopper(7),
            at: Timestamp::from_millis(3),
            what,
        },
        version: None,
    }
}

fn ledger(tape: &Arc<Tape>) -> MemoryLedger {
    MemoryLedger::new(
        Arc::new(SystemClock),
        Some(Arc::clone(tape) as Arc<dyn Journal>),
    )
}

fn replayed(tape: &Tape) -> (MemoryLedger, Vec<Applied>) {
    let ledger = MemoryLedger::new(Arc::new(SystemClock), None);
    let events = tape.events.lock().unwrap().clone();
    let applied = events.iter().map(|event| ledger.replay(event)).collect();
    (ledger, applied)
}

fn start() -> StartTrip {
    StartTrip {
        trip: TripId(Uuid::from_u128(9)),
        shopper: shopper(7),
        orders: vec![id(1)],
        at: Timestamp::from_millis(2),
    }
}

/// Store, two orders, one on a trip with a pick, an un-pick and the first pick again.
async fn day(ledger: &MemoryLedger) {
    let (order_id, line) = (id(1), 1);
    let pick = TripChange::Pick {
        order: order_id,
        line,
        actual: Some(120),
    };
    let unpick = TripChange::Unpick {
        order: order_id,
        line,
    };
    let position = Position {
        lat_e6: 1,
        lon_e6: 2,
        at: Timestamp::from_millis(3),
    };
    let second = TripChange::Pick {
        order: order_id,
        line: 2,
        actual: None,
    };
    ledger.put_store(store()).await.unwrap();
    ledger.place_order(order(1)).await.unwrap();
    ledger.place_order(order(2)).await.unwrap();
    ledger.claim(id(1), shopper(7)).await.unwrap();
    ledger.start_trip(start()).await.unwrap();
    let events = vec![
        event(1, pick.clone()),
        event(2, unpick),
        event(1, pick),
        event(3, TripChange::Moved { position }),
        event(4, second),
    ];
    ledger.book_events(events).await.unwrap();
}

#[tokio::test]
async fn what_was_journalled_is_the_same_ledger_after_a_restart() {
    let tape = Arc::new(Tape::default());
    let before = ledger(&tape);
    day(&before).await;
    let (after, applied) = replayed(&tape);
    assert!(!applied.contains(&Applied::Refused), "{applied:?}");
    let trip = before.open_trip(shopper(7)).await.unwrap().unwrap();
    assert_eq!((trip.sheet.trip.picked, trip.sheet.trip.version), (100, 4));
    assert_eq!(after.open_trip(shopper(7)).await.unwrap(), Some(trip));
    for number in [1, 2] {
        let order = before.order(id(number)).await.unwrap();
        assert_eq!(after.order(id(number)).await.unwrap(), order);
    }
    assert_eq!(after.stores().await.unwrap(), [store()]);
    // The journal again, as after a crash while it was read: nothing changes.
    for event in tape.events.lock().unwrap().iter() {
        assert_eq!(after.replay(event), Applied::Unchanged, "{event:?}");
    }
    let trip = before.open_trip(shopper(7)).await.unwrap();
    assert_eq!(after.open_trip(shopper(7)).await.unwrap(), trip);
}

#[tokio::test]
async fn no_position_reaches_the_journal() {
    let tape = Arc::new(Tape::default());
    day(&ledger(&tape)).await;
    let events = tape.events.lock().unwrap();
    let moved = |event: &&PlatformEvent| matches!(event, PlatformEvent::TripChanged(event) if matches!(event.what, TripChange::Moved { .. }));
    assert_eq!(events.iter().filter(moved).count(), 0);
}

#[tokio::test]
async fn a_change_whose_journal_failed_is_an_error_and_its_repeat_is_durable() {
    let tape = Arc::new(Tape::default());
    let ledger = ledger(&tape);
    ledger.put_store(store()).await.unwrap();
    tape.refuses.store(true, Ordering::SeqCst);
    let error = ledger.place_order(order(1)).await.unwrap_err();
    assert_eq!(error.fate, Fate::Unknown);
    tape.refuses.store(false, Ordering::SeqCst);
    assert_eq!(ledger.place_order(order(1)).await.unwrap(), Placed::Before);
    assert_eq!(ledger.claim(id(1), shopper(7)).await.unwrap(), Claim::Won);
    let (after, _) = replayed(&tape);
    assert_eq!(
        after.order(id(1)).await.unwrap(),
        ledger.order(id(1)).await.unwrap()
    );
}

#[tokio::test]
async fn the_journal_has_the_order_in_which_changes_were_applied() {
    let tape = Arc::new(Tape::default());
    let ledger = ledger(&tape);
    ledger.put_store(store()).await.unwrap();
    // The claim sees the order before the order's journal entry is durable.
    let placing = ledger.place_order(order(1));
    let claiming = ledger.claim(id(1), shopper(7));
    let starting = ledger.start_trip(start());
    let (started, claimed, placed) = tokio::join!(starting, claiming, placing);
    assert!(matches!(started.unwrap(), Started::Trip(_)));
    assert_eq!(
        (claimed.unwrap(), placed.unwrap()),
        (Claim::Won, Placed::Now)
    );
    let (after, applied) = replayed(&tape);
    assert_eq!(applied, [Applied::Changed; 4]);
    let trip = ledger.open_trip(shopper(7)).await.unwrap();
    assert_eq!(after.open_trip(shopper(7)).await.unwrap(), trip);
}
