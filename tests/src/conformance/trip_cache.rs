//! What every trip cache does. Each behaviour makes ids of its own, so they may share one cache.
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "test code"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use standin_core::clock::Timestamp;
use standin_core::id::{OrderId, ShopperId, StoreId, TransactionId, TripId};
use standin_core::money::Currency;
use standin_core::trip::{
    Approval, Item, ItemStatus, Position, Trip, TripChange, TripSheet, TripStatus,
};
use standin_core::trip_cache::{CacheError, CachedTrip, Put, TripCache};
use uuid::Uuid;

/// The cache under test.
pub type Cache = Arc<dyn TripCache>;

/// Runs every behaviour.
pub async fn all(cache: Cache) {
    what_is_put_is_looked_at(cache.clone()).await;
    nothing_is_known_of_a_stranger(cache.clone()).await;
    versions_never_go_back(cache.clone()).await;
    the_pointer_never_goes_back_to_an_older_trip(cache.clone()).await;
    approvals_are_a_union_and_only_ever_fall(cache.clone()).await;
    an_approval_may_come_before_its_trip(cache.clone()).await;
    the_newer_position_stays(cache.clone()).await;
    a_position_may_come_before_the_trip(cache.clone()).await;
    a_closed_trip_stays_closed(cache.clone()).await;
    a_close_may_come_before_the_trip(cache.clone()).await;
    the_heart_beats(cache.clone()).await;
    racing_writers_leave_the_newest(cache).await;
}

/// Runs what a cache does that other homes may take the place of: one of its own, since homes are the
/// whole cache's. `promote` makes it the home of an epoch, as an operator does.
pub async fn homes(cache: Cache, promote: impl AsyncFn(u64)) {
    let shopper = fresh_shopper();
    let sheet = fresh_sheet(shopper, 1_000);
    let beat = Timestamp::from_millis(1_700_000_000_000);
    assert_eq!(cache.home_epoch(), 0);
    takes_writes(&cache, &sheet, beat).await;
    assert_eq!(cache.look(shopper).await.unwrap().age_ms(beat), Some(0));
    // Another home is known of: this one is of the past.
    cache.require_home_epoch(2);
    refuses(&cache, &sheet, beat, (0, 2)).await;
    promote(1).await;
    refuses(&cache, &sheet, beat, (1, 2)).await;
    promote(2).await;
    takes_writes(&cache, &sheet, beat).await;
    let look = cache.look(shopper).await.unwrap();
    assert_eq!((look.behind, look.age_ms(beat)), (false, Some(0)));
    // One that is promoted without anybody having told is believed: by a write, or by a look.
    promote(5).await;
    cache.beat(beat).await.unwrap();
    assert_eq!(cache.home_epoch(), 5);
    promote(6).await;
    assert!(!cache.look(shopper).await.unwrap().behind);
    assert_eq!(cache.home_epoch(), 6);
    // Less than is known says nothing.
    cache.require_home_epoch(3);
    takes_writes(&cache, &sheet, beat).await;
    assert_eq!(cache.home_epoch(), 6);
}

async fn takes_writes(cache: &Cache, sheet: &TripSheet, beat: Timestamp) {
    let Trip { id, shopper, .. } = sheet.trip;
    cache.put(sheet.clone()).await.unwrap();
    cache.approve(id, approval(1, 5)).await.unwrap();
    cache.moved(shopper, position(1, 5)).await.unwrap();
    cache.beat(beat).await.unwrap();
    assert_eq!(cache.sheet(id).await.unwrap().as_ref(), Some(sheet));
}

/// Nothing is written to a home of the past or read for writing, and what it shows is of no known age.
async fn refuses(cache: &Cache, sheet: &TripSheet, beat: Timestamp, epochs: (u64, u64)) {
    let past = |done: Result<(), CacheError>| match done {
        Err(CacheError::PastHome { epoch, known }) => assert_eq!((epoch, known), epochs),
        other => panic!("{other:?}"),
    };
    let Trip { id, shopper, .. } = sheet.trip;
    let before = cache.look(shopper).await.unwrap();
    past(cache.put(picked(sheet.clone(), 1)).await.map(drop));
    past(cache.approve(id, approval(7, 6)).await);
    past(cache.moved(shopper, position(9, 60)).await);
    past(
        cache
            .beat(beat.plus(std::time::Duration::from_secs(1)))
            .await,
    );
    past(cache.sheet(id).await.map(drop));
    past(cache.close(shopper, id).await);
    let look = cache.look(shopper).await.unwrap();
    assert!(look.behind);
    assert_eq!((look.beat, look.age_ms(beat)), (Some(beat), None));
    assert!(look == before, "something was written");
}

/// A number nobody had before, in this process and most likely in any other.
pub fn fresh_number() -> i64 {
    static NEXT: AtomicI64 = AtomicI64::new(0);
    let random = Uuid::new_v4().as_u128() % 1_000_000_000;
    i64::try_from(random).unwrap() * 1_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 1_000 + 1
}

/// A shopper of its own.
pub fn fresh_shopper() -> ShopperId {
    fresh_number().try_into().unwrap()
}

/// A SHOPPING trip of three lines in two orders, nothing picked, version 1.
pub fn fresh_sheet(shopper: ShopperId, started_at: i64) -> TripSheet {
    let line = |line, listed| Item {
        line,
        product: 7,
        category: format!("aisle \"{line}\" \u{e9}"),
        quantity: 2,
        listed,
        actual: None,
        status: ItemStatus::Wanted,
    };
    let orders = [
        (OrderId(Uuid::new_v4()), vec![line(1, 250), line(2, 1_000)]),
        (OrderId(Uuid::new_v4()), vec![line(1, i64::MAX / 4)]),
    ];
    TripSheet {
        trip: Trip {
            id: TripId(Uuid::new_v4()),
            shopper,
            store: StoreId::try_from(9_i64).unwrap(),
            currency: Currency::USD,
            status: TripStatus::Shopping,
            version: 1,
            picked: 0,
            picked_listed: 0,
            mix: BTreeMap::new(),
            started_at: Timestamp::from_millis(started_at),
        },
        items: BTreeMap::from(orders),
    }
}

/// The sheet after one more line was picked.
pub fn picked(mut sheet: TripSheet, line: u32) -> TripSheet {
    let order = *sheet.items.keys().next().unwrap();
    let line = sheet.items[&order]
        .iter()
        .map(|item| item.line)
        .find(|known| *known == line)
        .unwrap_or(1);
    sheet.apply(&TripChange::Pick {
        order,
        line,
        actual: Some(i64::from(line) * 111 + i64::try_from(sheet.trip.version).unwrap()),
    });
    sheet
}

fn approval(amount: i64, at: i64) -> Approval {
    Approval {
        transaction_id: TransactionId::from_uuid(Uuid::new_v4()),
        amount,
        at: Timestamp::from_millis(at),
    }
}

fn position(lat_e6: i32, at: i64) -> Position {
    Position {
        lat_e6,
        lon_e6: -122_000_001,
        at: Timestamp::from_millis(at),
    }
}

async fn seen(cache: &Cache, shopper: ShopperId) -> Option<CachedTrip> {
    cache.look(shopper).await.unwrap().trip
}

/// A put is looked at whole, and its sheet read back equal.
pub async fn what_is_put_is_looked_at(cache: Cache) {
    let shopper = fresh_shopper();
    let sheet = picked(fresh_sheet(shopper, 1_000), 1);
    assert_eq!(cache.put(sheet.clone()).await.unwrap(), Put::Written);
    let looked = seen(&cache, shopper).await.unwrap();
    assert_eq!(looked.trip, sheet.trip);
    assert_eq!(looked.approvals, []);
    assert_eq!(looked.position, None);
    let read = cache.sheet(sheet.trip.id).await.unwrap();
    assert_eq!(read, Some(sheet));
}

/// No trip, no error.
pub async fn nothing_is_known_of_a_stranger(cache: Cache) {
    assert_eq!(seen(&cache, fresh_shopper()).await, None);
    let trip = TripId(Uuid::new_v4());
    assert_eq!(cache.sheet(trip).await.unwrap(), None);
}

/// An older version, and the same again, change nothing; items follow the summary.
pub async fn versions_never_go_back(cache: Cache) {
    let shopper = fresh_shopper();
    let old = fresh_sheet(shopper, 1_000);
    let new = picked(old.clone(), 1);
    assert_eq!(cache.put(new.clone()).await.unwrap(), Put::Written);
    assert_eq!(cache.put(old).await.unwrap(), Put::Older);
    assert_eq!(cache.put(new.clone()).await.unwrap(), Put::Older);
    let read = cache.sheet(new.trip.id).await.unwrap();
    assert_eq!(read.as_ref(), Some(&new));
    // Numbers are compared, not their digits: 10 is newer than 9.
    let mut sheet = new;
    for version in [9, 10, u64::from(u32::MAX) * 4_000_000] {
        sheet.trip.version = version;
        assert_eq!(cache.put(sheet.clone()).await.unwrap(), Put::Written);
    }
    sheet.trip.version = 11;
    assert_eq!(cache.put(sheet).await.unwrap(), Put::Older);
}

/// A late write of an earlier trip is kept, but the shopper's pointer stays.
pub async fn the_pointer_never_goes_back_to_an_older_trip(cache: Cache) {
    let shopper = fresh_shopper();
    let (first, second) = (fresh_sheet(shopper, 999), fresh_sheet(shopper, 1_000));
    cache.put(second.clone()).await.unwrap();
    assert_eq!(cache.put(first.clone()).await.unwrap(), Put::Written);
    let looked = seen(&cache, shopper).await.unwrap();
    assert_eq!(looked.trip.id, second.trip.id);
    let read = cache.sheet(first.trip.id).await.unwrap();
    assert_eq!(read, Some(first.clone()));
    // Nor does closing the earlier one take the later one away.
    cache.close(shopper, first.trip.id).await.unwrap();
    let looked = seen(&cache, shopper).await.unwrap();
    assert_eq!(looked.trip, second.trip);
    let third = fresh_sheet(shopper, 1_001);
    cache.put(third.clone()).await.unwrap();
    let looked = seen(&cache, shopper).await.unwrap();
    assert_eq!(looked.trip.id, third.trip.id);
}

/// Each approval once; a reversal lowers it, a late repeat does not raise it again.
pub async fn approvals_are_a_union_and_only_ever_fall(cache: Cache) {
    let shopper = fresh_shopper();
    let sheet = fresh_sheet(shopper, 1_000);
    let trip = sheet.trip.id;
    cache.put(sheet.clone()).await.unwrap();
    let (one, two) = (approval(300, 5), approval(99_999, 6));
    for approval in [one, two, one] {
        cache.approve(trip, approval).await.unwrap();
    }
    let lowered = Approval { amount: 120, ..one };
    cache.approve(trip, lowered).await.unwrap();
    cache.approve(trip, one).await.unwrap();
    let gone = Approval { amount: 0, ..two };
    cache.approve(trip, gone).await.unwrap();
    // A put leaves them alone.
    cache.put(picked(sheet, 2)).await.unwrap();
    let mut approvals = seen(&cache, shopper).await.unwrap().approvals;
    approvals.sort_by_key(|approval| std::cmp::Reverse(approval.amount));
    assert_eq!(approvals, [lowered, gone]);
}

/// An approval whose trip was not written yet is not lost.
pub async fn an_approval_may_come_before_its_trip(cache: Cache) {
    let shopper = fresh_shopper();
    let sheet = fresh_sheet(shopper, 1_000);
    let early = approval(4_200, 3);
    cache.approve(sheet.trip.id, early).await.unwrap();
    assert_eq!(seen(&cache, shopper).await, None);
    assert_eq!(cache.sheet(sheet.trip.id).await.unwrap(), None);
    assert_eq!(cache.put(sheet).await.unwrap(), Put::Written);
    let looked = seen(&cache, shopper).await.unwrap();
    assert_eq!(looked.approvals, [early]);
}

/// An older report never replaces a newer one.
pub async fn the_newer_position_stays(cache: Cache) {
    let shopper = fresh_shopper();
    cache.put(fresh_sheet(shopper, 1_000)).await.unwrap();
    for (lat, at) in [(47_000_000, 50), (48_000_000, 60), (46_000_000, 9)] {
        cache.moved(shopper, position(lat, at)).await.unwrap();
    }
    let looked = seen(&cache, shopper).await.unwrap();
    assert!(looked.position == Some(position(48_000_000, 60)));
}

/// A position does not need a trip.
pub async fn a_position_may_come_before_the_trip(cache: Cache) {
    let shopper = fresh_shopper();
    cache.moved(shopper, position(-33, 50)).await.unwrap();
    assert_eq!(seen(&cache, shopper).await, None);
    cache.put(fresh_sheet(shopper, 1_000)).await.unwrap();
    let looked = seen(&cache, shopper).await.unwrap();
    assert!(looked.position == Some(position(-33, 50)));
}

/// Closed is COMPLETE, also for a newer version that comes late.
pub async fn a_closed_trip_stays_closed(cache: Cache) {
    let shopper = fresh_shopper();
    let sheet = fresh_sheet(shopper, 1_000);
    cache.put(sheet.clone()).await.unwrap();
    cache.close(shopper, sheet.trip.id).await.unwrap();
    cache.close(shopper, sheet.trip.id).await.unwrap();
    cache.put(picked(sheet, 1)).await.unwrap();
    if let Some(looked) = seen(&cache, shopper).await {
        assert_eq!(looked.trip.status, TripStatus::Complete);
        assert_eq!(looked.trip.version, 2);
    }
    let next = fresh_sheet(shopper, 2_000);
    cache.put(next.clone()).await.unwrap();
    let looked = seen(&cache, shopper).await.unwrap();
    assert_eq!(looked.trip, next.trip);
}

/// A put that comes after the close of its trip does not open it again.
pub async fn a_close_may_come_before_the_trip(cache: Cache) {
    let shopper = fresh_shopper();
    let sheet = fresh_sheet(shopper, 1_000);
    cache.close(shopper, sheet.trip.id).await.unwrap();
    cache.put(sheet).await.unwrap();
    let looked = seen(&cache, shopper).await.unwrap();
    assert_eq!(looked.trip.status, TripStatus::Complete);
}

/// The last beat is seen, with or without a trip.
pub async fn the_heart_beats(cache: Cache) {
    for at in [1_700_000_000_123, 1_700_000_000_223] {
        let beat = Timestamp::from_millis(at);
        cache.beat(beat).await.unwrap();
        let look = cache.look(fresh_shopper()).await.unwrap();
        assert_eq!(look.beat, Some(beat));
    }
}

/// Whoever comes last, the highest version stays, with its own items.
pub async fn racing_writers_leave_the_newest(cache: Cache) {
    let shopper = fresh_shopper();
    let mut sheets = vec![fresh_sheet(shopper, 1_000)];
    for step in 0..30_u32 {
        let next = picked(sheets.last().unwrap().clone(), step % 2 + 1);
        sheets.push(next);
    }
    let newest = sheets.last().unwrap().clone();
    let mut tasks = tokio::task::JoinSet::new();
    for sheet in sheets.into_iter().rev() {
        let cache = cache.clone();
        tasks.spawn(async move { cache.put(sheet).await.unwrap() });
    }
    let done = tasks.join_all().await;
    assert!(done.contains(&Put::Written));
    let read = cache.sheet(newest.trip.id).await.unwrap();
    assert_eq!(read, Some(newest));
}
