//! Advices: Postgres alone makes a hold final.

use futures_util::future::join_all;
use standin_core::answer::{Reason, Rung};
use standin_core::ledger::{Advised, AuthorizationState, Fate, HoldReply, Retry, StaleHold};

use super::drain::{conflicts, moved};
use super::{World, advice, answer, approve, at, declined, outcome, propose, step, uuid};

pub(super) async fn an_advice_makes_a_hold_final(world: World) {
    let ledger = &world.ledger;
    let sheet = world.trip().await;
    let proposal = approve(&sheet, 60, 100);
    ledger.hold(vec![proposal.clone()]).await.unwrap();
    let advice = advice(&proposal);
    let advised = ledger.advise(advice.clone()).await.unwrap();
    assert_eq!(advised, Advised::Final);
    let row = world.row(&proposal).await.unwrap();
    assert_eq!(
        (row.state, &row.answer),
        (AuthorizationState::Final, &advice.answer)
    );
    assert_eq!(row.answer.rung, Rung::PrimaryOnly);
    assert_eq!((row.log, row.final_at), (None, Some(at(30))));
    assert!(row.held_at.is_some());
    assert_eq!((row.store, row.picked), (proposal.store, Some(1_600)));
    // A repeat finds it, and so does the payment asked again.
    let stored = Advised::Stored(Box::new(advice.answer.clone()));
    assert_eq!(ledger.advise(advice.clone()).await.unwrap(), stored);
    let again = ledger.hold(vec![proposal.clone()]).await.unwrap();
    assert_eq!(again, [HoldReply::Final(Box::new(advice.answer))]);
    // It counts as it did, and is no stale hold.
    let next = ledger.hold(vec![approve(&sheet, 41, 100)]).await.unwrap();
    let spent = HoldReply::CapSpent {
        approved_before: 60,
    };
    assert_eq!(next, [spent]);
    let stale = ledger.stale_holds(at(i64::MAX / 4), 100_000).await.unwrap();
    assert!(
        !stale
            .iter()
            .any(|hold| hold.transaction_id == proposal.transaction_id)
    );
}

pub(super) async fn an_advice_without_a_hold_changes_nothing(world: World) {
    let ledger = &world.ledger;
    let sheet = world.trip().await;
    let never = approve(&sheet, 10, 100);
    let advised = ledger.advise(advice(&never)).await.unwrap();
    assert_eq!(advised, Advised::NoHold);
    assert_eq!(world.row(&never).await, None);
    // Its id was claimed, but nothing fitted.
    let spent = approve(&sheet, 101, 100);
    ledger.hold(vec![spent.clone()]).await.unwrap();
    let advised = ledger.advise(advice(&spent)).await.unwrap();
    assert_eq!(advised, Advised::NoHold);
    assert_eq!(world.row(&spent).await, None);
    // The id stays free for the request that was never held.
    let held = ledger.hold(vec![never]).await.unwrap();
    assert_eq!(held, [HoldReply::Held { approved_before: 0 }]);
}

pub(super) async fn an_advice_of_a_decline_stands_on_its_claim(world: World) {
    let ledger = &world.ledger;
    let sheet = world.trip().await;
    let decline = declined(approve(&sheet, 900, 100), Reason::OverCap);
    let advised = ledger.advise(advice(&decline)).await.unwrap();
    assert_eq!(advised, Advised::NoHold);
    ledger.hold(vec![decline.clone()]).await.unwrap();
    let advised = ledger.advise(advice(&decline)).await.unwrap();
    assert_eq!(advised, Advised::Final);
    let row = world.row(&decline).await.unwrap();
    assert_eq!(row.state, AuthorizationState::Final);
    assert_eq!((row.answer.reason, row.held_at), (Reason::OverCap, None));
    // An approval that was held may be declined in the end, and counts no more.
    let held = approve(&sheet, 10, 100);
    ledger.hold(vec![held.clone()]).await.unwrap();
    let undone = declined(held, Reason::OverCap);
    let advised = ledger.advise(advice(&undone)).await.unwrap();
    assert_eq!(advised, Advised::Final);
    let open = ledger.open_trip(sheet.trip.shopper).await.unwrap().unwrap();
    assert_eq!(open.approvals, []);
}

pub(super) async fn an_advice_meets_what_was_there_before(world: World) {
    let ledger = &world.ledger;
    let (sheet, log) = (world.trip().await, uuid());
    let drained = approve(&sheet, 10, 100);
    ledger.hold(vec![drained.clone()]).await.unwrap();
    let outcomes = vec![outcome(&drained, 1, 0)];
    ledger.book(step(log, 1, outcomes)).await.unwrap();
    let stored = Advised::Stored(Box::new(answer(&drained)));
    assert_eq!(ledger.advise(advice(&drained)).await.unwrap(), stored);
    // Another verdict of ours changes nothing either: the stored one is what replays.
    let other = declined(drained.clone(), Reason::OverCap);
    assert_eq!(ledger.advise(advice(&other)).await.unwrap(), stored);

    let released = approve(&sheet, 20, 100);
    ledger.hold(vec![released.clone()]).await.unwrap();
    let hold = StaleHold {
        shopper: sheet.trip.shopper,
        transaction_id: released.transaction_id,
        amount: 20,
        held_at: at(0),
    };
    assert_eq!(ledger.release(vec![hold]).await.unwrap(), 1);
    let advised = ledger.advise(advice(&released)).await.unwrap();
    assert_eq!(advised, Advised::Released);
    let row = world.row(&released).await.unwrap();
    assert_eq!(row.state, AuthorizationState::Released);

    let (first, reused) = (propose(&sheet, "k", 5, 100), propose(&sheet, "k", 6, 100));
    ledger.hold(vec![first.clone()]).await.unwrap();
    let advised = ledger.advise(advice(&reused)).await.unwrap();
    assert_eq!(advised, Advised::OtherFingerprint);
    let row = world.row(&first).await.unwrap();
    assert_eq!(row.state, AuthorizationState::Held);
    // An answer to another payment is a mistake of the caller.
    let mut mixed = advice(&first);
    mixed.answer = answer(&drained);
    let error = ledger.advise(mixed).await.unwrap_err();
    assert_eq!((error.fate, error.retry), (Fate::NotDone, Retry::Never));
}

pub(super) async fn an_advice_and_its_original_are_one_answer(world: World) {
    let ledger = &world.ledger;
    let (sheet, log) = (world.trip().await, uuid());
    let (kept, crossed) = (approve(&sheet, 10, 100), approve(&sheet, 20, 100));
    for proposal in [&kept, &crossed] {
        ledger.hold(vec![proposal.clone()]).await.unwrap();
        let advised = ledger.advise(advice(proposal)).await.unwrap();
        assert_eq!(advised, Advised::Final);
    }
    // The entry committed after all: once with the same answer, once with another.
    let late = declined(crossed.clone(), Reason::OverCap);
    let outcomes = vec![outcome(&kept, 1, 0), outcome(&late, 1, 1)];
    let booked = ledger.book(step(log, 1, outcomes)).await.unwrap();
    assert_eq!(booked, moved(1, 0, 1));
    assert_eq!(world.row(&kept).await.unwrap().answer, answer(&kept));
    let row = world.row(&crossed).await.unwrap();
    assert_eq!((row.answer, row.log), (advice(&crossed).answer, None));
    let found = conflicts(&world, log).await;
    assert_eq!(found[0].transaction_id, crossed.transaction_id);
    assert_eq!(found[0].cause, "other_answer");
}

pub(super) async fn of_racing_advices_and_a_drain_the_log_has_the_last_word(world: World) {
    let sheet = world.trip().await;
    let clients = world.clients(6);
    for _ in 0..10 {
        let proposal = approve(&sheet, 1, 1_000);
        world.ledger.hold(vec![proposal.clone()]).await.unwrap();
        let advising = clients
            .iter()
            .map(|ledger| ledger.advise(advice(&proposal)));
        let drained = step(uuid(), 1, vec![outcome(&proposal, 1, 0)]);
        let (advised, booked) = tokio::join!(join_all(advising), world.ledger.book(drained));
        let finals = advised
            .iter()
            .filter(|advised| *advised.as_ref().unwrap() == Advised::Final)
            .count();
        // Whoever was first, the log's word stands in the end; asked meanwhile, the primary said its own.
        let stored = world.row(&proposal).await.unwrap();
        assert_eq!(stored.answer, answer(&proposal));
        assert!(stored.log.is_some());
        for advised in advised {
            match advised.unwrap() {
                Advised::Final => {}
                Advised::Stored(found) if finals == 1 => {
                    assert!([&advice(&proposal).answer, &stored.answer].contains(&&*found));
                }
                Advised::Stored(found) => assert_eq!(*found, stored.answer),
                other => panic!("{other:?}"),
            }
        }
        assert!(finals <= 1);
        assert_eq!(booked.unwrap(), moved(1, 0, 0));
    }
}
