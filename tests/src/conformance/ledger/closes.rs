//! Closes: a reader is told of every trip that left SHOPPING.

use std::collections::HashSet;

use futures_util::future::join_all;
use standin_core::clock::Timestamp;
use standin_core::id::TripId;
use standin_core::ledger::{ClosedCursor, Ledger};
use standin_core::trip::{TripChange, TripSheet};

use super::{World, event};

async fn finish(ledger: &dyn Ledger, sheet: &TripSheet) {
    let finish = event(sheet, TripChange::Finish);
    let booked = ledger.book_events(vec![finish]).await.unwrap();
    assert_eq!(booked.changed, 1);
}

/// Everything after a place, and the place after that.
async fn rest(
    ledger: &dyn Ledger,
    mut after: Option<ClosedCursor>,
    limit: u32,
) -> (Vec<TripId>, Option<ClosedCursor>) {
    let mut told = Vec::new();
    loop {
        let page = ledger.closed_since(after, limit).await.unwrap();
        assert!(page.len() <= usize::try_from(limit).unwrap());
        let Some(last) = page.last() else {
            return (told, after);
        };
        after = Some(last.cursor);
        told.extend(page.iter().map(|closed| closed.trip));
    }
}

pub(super) async fn a_close_is_told_in_its_place(world: World) {
    let ledger = &*world.ledger;
    let (_, start) = rest(ledger, None, 1_000).await;
    let mut trips = Vec::new();
    for _ in 0..5 {
        trips.push(world.trip().await);
    }
    assert_eq!(rest(ledger, start, 10).await, (Vec::new(), start));
    for sheet in &trips[..4] {
        finish(ledger, sheet).await;
    }
    let ids: Vec<_> = trips[..4].iter().map(|sheet| sheet.trip.id).collect();
    let first = ledger.closed_since(start, 3).await.unwrap();
    let told: Vec<_> = first.iter().map(|closed| closed.trip).collect();
    assert_eq!(told, ids[..3]);
    assert_eq!(first[0].shopper, trips[0].trip.shopper);
    // From anywhere in a page, whatever its size; a cursor outlives its process.
    for (at, closed) in first.iter().enumerate() {
        let kept = serde_json::to_string(&closed.cursor).unwrap();
        let cursor: ClosedCursor = serde_json::from_str(&kept).unwrap();
        let (told, _) = rest(ledger, Some(cursor), 1).await;
        assert_eq!(told, ids[at + 1..]);
    }
    // A trip that goes on to COMPLETE is not closed again.
    let (_, end) = rest(ledger, start, 10).await;
    let shopper = trips[0].trip.shopper;
    ledger.complete(shopper, ids[0]).await.unwrap();
    assert_eq!(rest(ledger, end, 10).await, (Vec::new(), end));
    finish(ledger, &trips[4]).await;
    let (told, _) = rest(ledger, end, 10).await;
    assert_eq!(told, [trips[4].trip.id]);
    // By time: everything, or nothing.
    let (told, _) = rest(
        ledger,
        Some(ClosedCursor::since(Timestamp::from_millis(1))),
        100,
    )
    .await;
    assert!(ids.iter().all(|id| told.contains(id)));
    let later = Timestamp::from_millis(4_000_000_000_000);
    let (told, _) = rest(ledger, Some(ClosedCursor::since(later)), 100).await;
    assert_eq!(told, []);
}

pub(super) async fn closes_that_race_are_all_told(world: World) {
    let ledger = &*world.ledger;
    let (_, mut cursor) = rest(ledger, None, 1_000).await;
    let clients = world.clients(8);
    let mut trips: Vec<Vec<TripSheet>> = Vec::new();
    for _ in &clients {
        let mut own = Vec::new();
        for _ in 0..6 {
            own.push(world.trip().await);
        }
        trips.push(own);
    }
    let closing = clients.iter().zip(&trips).map(|(client, own)| async move {
        for sheet in own {
            finish(&**client, sheet).await;
        }
    });
    let mut told: HashSet<TripId> = HashSet::new();
    let mut closing = Box::pin(join_all(closing));
    // Read on while they close; what commits late may take a second look.
    loop {
        let (some, after) = rest(ledger, cursor, 3).await;
        for trip in some {
            assert!(told.insert(trip), "told twice before it settled");
        }
        cursor = after;
        let step = tokio::time::timeout(std::time::Duration::ZERO, &mut closing);
        if step.await.is_ok() {
            break;
        }
    }
    // What became visible behind the reader is told again when it has settled, later than a suite
    // can wait; from the start every one is there.
    let (some, _) = rest(ledger, cursor, 3).await;
    told.extend(some);
    let (all, _) = rest(ledger, None, 1_000).await;
    let all: HashSet<TripId> = all.into_iter().collect();
    assert!(told.is_subset(&all));
    let own = trips.iter().flatten().map(|sheet| sheet.trip.id);
    assert_eq!(own.filter(|id| all.contains(id)).count(), 48);
}
