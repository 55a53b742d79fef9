//! Holds: what the primary books in its round trip.

use futures_util::future::join_all;
use standin_core::answer::Reason;
use standin_core::entry::Proposal;
use standin_core::id::TransactionId;
use standin_core::ledger::{
    AuthorizationState, Completed, Fate, HOLD_ROWS_MAX, HoldReply, Ledger, Retry, StaleHold,
    Started,
};
use standin_core::trip::{TripChange, TripSheet};

use super::{World, answer, approve, at, declined, event, outcome, propose, start, step, uuid};

async fn hold(ledger: &dyn Ledger, proposal: &Proposal) -> HoldReply {
    let mut replies = ledger.hold(vec![proposal.clone()]).await.unwrap();
    assert_eq!(replies.len(), 1);
    replies.pop().unwrap()
}

fn held(approved_before: i64) -> HoldReply {
    HoldReply::Held { approved_before }
}

fn spent(approved_before: i64) -> HoldReply {
    HoldReply::CapSpent { approved_before }
}

async fn approved(world: &World, sheet: &TripSheet) -> i64 {
    let open = world
        .ledger
        .open_trip(sheet.trip.shopper)
        .await
        .unwrap()
        .unwrap();
    open.approvals.iter().map(|approval| approval.amount).sum()
}

pub(super) async fn a_hold_counts_at_once_and_again_is_the_same_hold(world: World) {
    let ledger = &*world.ledger;
    assert_eq!(ledger.hold(Vec::new()).await.unwrap(), []);
    let sheet = world.trip().await;
    let (first, second) = (
        approve(&sheet, 6_000, 10_000),
        approve(&sheet, 4_000, 10_000),
    );
    assert_eq!(hold(ledger, &first).await, held(0));
    assert_eq!(hold(ledger, &first).await, held(0));
    assert_eq!(
        hold(ledger, &approve(&sheet, 4_001, 10_000)).await,
        spent(6_000)
    );
    assert_eq!(hold(ledger, &second).await, held(6_000));
    assert_eq!(hold(ledger, &first).await, held(4_000));
    assert_eq!(approved(&world, &sheet).await, 10_000);
    let row = world.row(&first).await.unwrap();
    assert_eq!(
        (row.state, row.answer),
        (AuthorizationState::Held, answer(&first))
    );
    assert_eq!((row.log, row.final_at), (None, None));
    assert_eq!(
        (row.store, row.picked),
        (Some(sheet.trip.store), Some(1_600))
    );
    assert!(row.held_at.is_some());
    // A proposal that shows no cap shows no room.
    let mut capless = approve(&sheet, 1, 0);
    capless.cap = None;
    assert_eq!(hold(ledger, &capless).await, spent(10_000));
    // Sums that leave 64 bits are over every cap.
    assert_eq!(
        hold(ledger, &approve(&sheet, i64::MAX, i64::MAX)).await,
        spent(10_000)
    );
    let many = vec![first; HOLD_ROWS_MAX + 1];
    let error = ledger.hold(many).await.unwrap_err();
    assert_eq!((error.fate, error.retry), (Fate::NotDone, Retry::Never));
}

pub(super) async fn another_fingerprint_is_refused(world: World) {
    let ledger = &*world.ledger;
    let sheet = world.trip().await;
    let first = propose(&sheet, "k", 100, 10_000);
    let other = propose(&sheet, "k", 200, 10_000);
    assert_eq!(first.transaction_id, other.transaction_id);
    let batch = vec![first.clone(), other.clone()];
    let replies = ledger.hold(batch).await.unwrap();
    assert_eq!(replies, [held(0), HoldReply::OtherFingerprint]);
    assert_eq!(hold(ledger, &other).await, HoldReply::OtherFingerprint);
    assert_eq!(hold(ledger, &first).await, held(0));
    assert_eq!(approved(&world, &sheet).await, 100);
}

/// A bank's own key outlives the trip: the same payment may come again when the shopper is on the next.
pub(super) async fn a_hold_found_under_another_trip_moves_there_if_it_fits(world: World) {
    let ledger = &*world.ledger;
    let sheet = world.trip().await;
    let shopper = sheet.trip.shopper;
    let first = propose(&sheet, "k", 6_000, 10_000);
    assert_eq!(hold(ledger, &first).await, held(0));
    let finish = event(&sheet, TripChange::Finish);
    ledger.book_events(vec![finish]).await.unwrap();
    let done = ledger.complete(shopper, sheet.trip.id).await.unwrap();
    assert_eq!(done, Completed::Now);
    let order = world.claimed(sheet.trip.store, shopper).await;
    let started = ledger.start_trip(start(shopper, &[&order])).await.unwrap();
    let Started::Trip(next) = started else {
        panic!("{started:?}")
    };
    assert_eq!(hold(ledger, &approve(&next, 5_000, 10_000)).await, held(0));
    // Without room it stays where it is, and the next trip does not count it.
    let again = |cap| propose(&next, "k", 6_000, cap);
    assert_eq!(again(1).transaction_id, first.transaction_id);
    assert_eq!(hold(ledger, &again(10_999)).await, spent(5_000));
    let row = world.row(&first).await.unwrap();
    assert_eq!(row.answer.trip, Some(sheet.trip.id));
    assert_eq!(approved(&world, &next).await, 5_000);
    assert_eq!(hold(ledger, &again(11_000)).await, held(5_000));
    assert_eq!(hold(ledger, &again(11_000)).await, held(5_000));
    let row = world.row(&first).await.unwrap();
    assert_eq!(row.state, AuthorizationState::Held);
    assert_eq!(row.answer.trip, Some(next.trip.id));
    assert_eq!(
        (row.answer.cap, row.answer.approved_before),
        (Some(11_000), 5_000)
    );
    assert_eq!(approved(&world, &next).await, 11_000);
    let left = ledger.trip(shopper, sheet.trip.id).await.unwrap().unwrap();
    assert_eq!(left.approvals, []);
    // And it counts there from now on.
    assert_eq!(
        hold(ledger, &approve(&next, 1, 11_000)).await,
        spent(11_000)
    );
}

pub(super) async fn sums_run_within_a_batch(world: World) {
    let (one, two) = (world.trip().await, world.trip().await);
    let amounts = [
        (&one, 80),
        (&two, 90),
        (&one, 50),
        (&one, 20),
        (&two, 20),
        (&one, 1),
    ];
    let batch: Vec<_> = amounts
        .iter()
        .map(|(sheet, amount)| approve(sheet, *amount, 100))
        .collect();
    let replies = world.ledger.hold(batch).await.unwrap();
    assert_eq!(
        replies,
        [held(0), held(0), spent(80), held(80), spent(90), spent(100)]
    );
    assert_eq!(approved(&world, &one).await, 100);
    assert_eq!(approved(&world, &two).await, 90);
    // As many as a batch may hold, all on one trip.
    let sheet = world.trip().await;
    let batch: Vec<_> = (0..HOLD_ROWS_MAX)
        .map(|_| approve(&sheet, 1, 200))
        .collect();
    let replies = world.ledger.hold(batch).await.unwrap();
    let expected: Vec<_> = (0..256)
        .map(|n| if n < 200 { held(n) } else { spent(200) })
        .collect();
    assert_eq!(replies, expected);
}

pub(super) async fn a_batch_that_repeats_an_id_holds_it_once(world: World) {
    let sheet = world.trip().await;
    let (first, second) = (approve(&sheet, 60, 100), approve(&sheet, 40, 100));
    let batch = vec![first.clone(), first.clone(), second, first];
    let replies = world.ledger.hold(batch).await.unwrap();
    assert_eq!(replies, [held(0), held(0), held(60), held(40)]);
    assert_eq!(approved(&world, &sheet).await, 100);
}

pub(super) async fn a_decline_claims_its_id_and_counts_nothing(world: World) {
    let ledger = &*world.ledger;
    let sheet = world.trip().await;
    let refused = declined(propose(&sheet, "d", 500, 100), Reason::OverCap);
    assert_eq!(hold(ledger, &refused).await, held(0));
    assert_eq!(hold(ledger, &refused).await, held(0));
    let other = propose(&sheet, "d", 50, 100);
    assert_eq!(hold(ledger, &other).await, HoldReply::OtherFingerprint);
    assert_eq!(approved(&world, &sheet).await, 0);
    assert_eq!(world.row(&refused).await, None);
    // A payment of a shopper without a trip is a decline too.
    let mut tripless = declined(approve(&sheet, 5, 100), Reason::NoTrip);
    (tripless.trip, tripless.cap, tripless.store) = (None, None, None);
    assert_eq!(hold(ledger, &tripless).await, held(0));
    // The trip cache has moved on by the time it is asked again: now it is an approval.
    let now = propose(&sheet, "d", 500, 1_000);
    assert_eq!(hold(ledger, &now).await, held(0));
    assert_eq!(approved(&world, &sheet).await, 500);
    // What is held may be declined in the end: the hold stays until its outcome comes.
    assert_eq!(hold(ledger, &refused).await, held(0));
}

pub(super) async fn only_a_shopping_trip_is_held_against(world: World) {
    let ledger = &*world.ledger;
    let sheet = world.trip().await;
    let before = approve(&sheet, 10, 100);
    assert_eq!(hold(ledger, &before).await, held(0));
    let finish = event(&sheet, TripChange::Finish);
    ledger.book_events(vec![finish]).await.unwrap();
    let after = approve(&sheet, 10, 100);
    assert_eq!(hold(ledger, &after).await, HoldReply::NotShopping);
    assert_eq!(hold(ledger, &before).await, held(0));
    let decline = declined(approve(&sheet, 10, 100), Reason::NotShopping);
    assert_eq!(hold(ledger, &decline).await, held(10));
    let mut unknown = approve(&sheet, 10, 100);
    unknown.trip.as_mut().unwrap().id.0 = uuid();
    assert_eq!(hold(ledger, &unknown).await, HoldReply::NotShopping);
    unknown.trip = None;
    assert_eq!(hold(ledger, &unknown).await, HoldReply::NotShopping);
}

pub(super) async fn fifty_clients_never_oversell_a_trip(world: World) {
    let sheet = world.trip().await;
    let clients = world.clients(50);
    // 50 clients, 4 payments of 7 each, against room for 142 of them (and 6 over).
    let racing = clients.iter().map(|ledger| {
        let sheet = sheet.clone();
        async move {
            let mut won = 0;
            for _ in 0..4 {
                let proposal = approve(&sheet, 7, 1_000);
                // A lock that was not had in time is an error that says so; the client tries again.
                let reply = loop {
                    match ledger.hold(vec![proposal.clone()]).await {
                        Ok(mut replies) => break replies.pop().unwrap(),
                        Err(error) => assert_ne!(error.retry, Retry::Never, "{error}"),
                    }
                };
                match reply {
                    HoldReply::Held { approved_before } => {
                        assert!(approved_before + 7 <= 1_000, "{approved_before}");
                        won += 1;
                    }
                    HoldReply::CapSpent { approved_before } => assert!(approved_before > 993),
                    other => panic!("{other:?}"),
                }
            }
            won
        }
    });
    let won: i64 = join_all(racing).await.into_iter().sum();
    assert_eq!(won, 142);
    assert_eq!(approved(&world, &sheet).await, 994);
}

pub(super) async fn crossing_batches_all_get_answers(world: World) {
    let mut sheets = Vec::new();
    for _ in 0..4 {
        sheets.push(world.trip().await);
    }
    let clients = world.clients(8);
    // The same trips and ids in opposite orders: without a common order they would deadlock.
    let shared: Vec<_> = sheets
        .iter()
        .map(|sheet| approve(sheet, 1, 1_000))
        .collect();
    for _ in 0..10 {
        let racing = clients.iter().enumerate().map(|(at, ledger)| {
            let mut batch = shared.clone();
            batch.extend(sheets.iter().map(|sheet| approve(sheet, 1, 1_000)));
            if at % 2 == 1 {
                batch.reverse();
            }
            ledger.hold(batch)
        });
        for replies in join_all(racing).await {
            match replies {
                Ok(replies) => {
                    let all = replies
                        .iter()
                        .all(|reply| matches!(reply, HoldReply::Held { .. }));
                    assert!(all, "{replies:?}");
                }
                Err(error) => {
                    assert!(
                        error.detail.contains("55P03") || error.detail.contains("57014"),
                        "{error}"
                    );
                }
            }
        }
    }
}

async fn stale(world: &World, proposal: &Proposal) -> Option<StaleHold> {
    let late = at(1_000_000_000_000);
    let all = world.ledger.stale_holds(late, 10_000).await.unwrap();
    let id = |hold: &StaleHold| (hold.shopper, hold.transaction_id);
    let mine = (proposal.request.shopper, proposal.transaction_id);
    all.into_iter().find(|hold| id(hold) == mine)
}

pub(super) async fn a_stale_hold_is_released_only_while_held(world: World) {
    let ledger = &*world.ledger;
    let sheet = world.trip().await;
    let (kept, left) = (approve(&sheet, 60, 100), approve(&sheet, 40, 100));
    let decline = declined(approve(&sheet, 40, 100), Reason::OverCap);
    ledger
        .hold(vec![kept.clone(), left.clone(), decline.clone()])
        .await
        .unwrap();
    let (kept_hold, left_hold) = (
        stale(&world, &kept).await.unwrap(),
        stale(&world, &left).await.unwrap(),
    );
    assert_eq!(
        (left_hold.amount, left_hold.shopper),
        (40, sheet.trip.shopper)
    );
    assert_eq!(stale(&world, &decline).await, None);
    assert_eq!(
        ledger
            .stale_holds(at(-1_790_000_000_000), 10)
            .await
            .unwrap(),
        []
    );
    assert_eq!(ledger.stale_holds(left_hold.held_at, 0).await.unwrap(), []);
    ledger
        .book(step(uuid(), 1, vec![outcome(&kept, 1, 0)]))
        .await
        .unwrap();
    assert_eq!(stale(&world, &kept).await, None);
    let both = vec![kept_hold, left_hold];
    assert_eq!(ledger.release(both.clone()).await.unwrap(), 1);
    assert_eq!(ledger.release(both).await.unwrap(), 0);
    assert_eq!(ledger.release(Vec::new()).await.unwrap(), 0);
    assert_eq!(stale(&world, &left).await, None);
    assert_eq!(
        world.row(&left).await.unwrap().state,
        AuthorizationState::Released
    );
    assert_eq!(
        world.row(&kept).await.unwrap().state,
        AuthorizationState::Final
    );
    // Released: it counts no more, and may not be answered any more.
    assert_eq!(approved(&world, &sheet).await, 60);
    assert_eq!(hold(ledger, &left).await, HoldReply::Released);
    assert_eq!(hold(ledger, &approve(&sheet, 40, 100)).await, held(60));
}

pub(super) async fn every_authorization_is_listed_in_key_order(world: World) {
    let mut mine: Vec<TransactionId> = Vec::new();
    for _ in 0..3 {
        let sheet = world.trip().await;
        let batch: Vec<_> = (0..4).map(|_| approve(&sheet, 1, 100)).collect();
        mine.extend(batch.iter().map(|proposal| proposal.transaction_id));
        world.ledger.hold(batch).await.unwrap();
    }
    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let page = world.ledger.authorizations(after, 5).await.unwrap();
        assert!(page.len() <= 5);
        let Some(last) = page.last() else { break };
        after = Some((last.answer.shopper, last.answer.transaction_id));
        listed.extend(
            page.iter()
                .map(|row| (row.answer.shopper, row.answer.transaction_id)),
        );
    }
    assert!(listed.is_sorted());
    let found = mine
        .iter()
        .filter(|id| listed.iter().any(|(_, other)| other == *id))
        .count();
    assert_eq!(found, 12);
    listed.dedup();
    let whole = world.ledger.authorizations(None, 100_000).await.unwrap();
    assert_eq!(whole.len(), listed.len());
}
