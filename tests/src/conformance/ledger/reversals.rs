//! Reversals: money that a bank took back counts no more.

use futures_util::future::join_all;
use standin_core::answer::Reason;
use standin_core::entry::Proposal;
use standin_core::ledger::{
    Advised, AuthorizationRow, AuthorizationState, BOOK_ROWS_MAX, Booked, DrainStep, HoldReply,
    Retry, ReversalRow,
};
use standin_core::trip::TripSheet;
use uuid::Uuid;

use super::drain::moved;
use super::{World, advice, answer, approve, declined, outcome, reversal, step, uuid};

fn reversing(log: Uuid, to: u64, reversals: Vec<ReversalRow>) -> DrainStep {
    DrainStep {
        reversals,
        ..step(log, to, Vec::new())
    }
}

/// The trip's approvals as they count.
async fn counted(world: &World, sheet: &TripSheet) -> Vec<i64> {
    let open = world.ledger.open_trip(sheet.trip.shopper).await.unwrap();
    let mut amounts: Vec<i64> = open
        .unwrap()
        .approvals
        .iter()
        .map(|approval| approval.amount)
        .collect();
    amounts.sort_unstable();
    amounts
}

async fn row(world: &World, proposal: &Proposal) -> AuthorizationRow {
    world.row(proposal).await.unwrap()
}

pub(super) async fn a_reversal_in_full_frees_the_cap(world: World) {
    let ledger = &world.ledger;
    let (sheet, log) = (world.trip().await, uuid());
    let (first, kept) = (approve(&sheet, 60, 100), approve(&sheet, 40, 100));
    // Its outcome and its reversal in one step.
    let reversal = reversal(&first, 60);
    let outcomes = vec![outcome(&first, 1, 0), outcome(&kept, 1, 1)];
    let together = DrainStep {
        reversals: vec![reversal.clone()],
        ..step(log, 1, outcomes.clone())
    };
    assert_eq!(ledger.book(together).await.unwrap(), moved(2, 0, 0));
    let reversed = row(&world, &first).await;
    assert_eq!(
        (reversed.state, reversed.reversed),
        (AuthorizationState::Reversed, 60)
    );
    assert_eq!(row(&world, &kept).await.state, AuthorizationState::Final);
    assert_eq!(counted(&world, &sheet).await, [40]);
    // The answer stays the answer.
    let again = ledger.hold(vec![first.clone()]).await.unwrap();
    assert_eq!(again, [HoldReply::Final(Box::new(answer(&first)))]);
    // Twice in a step and in a later one: the same reversal.
    let repeat = DrainStep {
        reversals: vec![reversal.clone(), reversal],
        ..step(log, 2, outcomes)
    };
    assert_eq!(ledger.book(repeat).await.unwrap(), moved(0, 2, 0));
    assert_eq!(row(&world, &first).await, reversed);
    let held = ledger.hold(vec![approve(&sheet, 60, 100)]).await.unwrap();
    let room = HoldReply::Held {
        approved_before: 40,
    };
    assert_eq!(held, [room]);
    let many = vec![super::reversal(&kept, 1); BOOK_ROWS_MAX + 1];
    let error = ledger.book(reversing(log, 3, many)).await.unwrap_err();
    assert_eq!(error.retry, Retry::Never);
    assert_eq!(ledger.cursor(log).await.unwrap(), 2);
}

pub(super) async fn partial_reversals_add_up(world: World) {
    let ledger = &world.ledger;
    let (sheet, log) = (world.trip().await, uuid());
    let first = approve(&sheet, 100, 100);
    let outcomes = vec![outcome(&first, 1, 0)];
    ledger.book(step(log, 1, outcomes)).await.unwrap();
    let part = reversal(&first, 30);
    for (to, of, state, left) in [
        (2, vec![part.clone()], AuthorizationState::Final, vec![70]),
        (3, vec![part], AuthorizationState::Final, vec![70]),
        (
            4,
            vec![reversal(&first, 20), reversal(&first, 10)],
            AuthorizationState::Final,
            vec![40],
        ),
    ] {
        ledger.book(reversing(log, to, of)).await.unwrap();
        assert_eq!(row(&world, &first).await.state, state);
        assert_eq!(counted(&world, &sheet).await, left);
    }
    let replies = ledger
        .hold(vec![approve(&sheet, 61, 100), approve(&sheet, 60, 100)])
        .await
        .unwrap();
    let spent = HoldReply::CapSpent {
        approved_before: 40,
    };
    let held = HoldReply::Held {
        approved_before: 40,
    };
    assert_eq!(replies, [spent, held]);
    // More than is left takes what is left.
    let rest = vec![reversal(&first, i64::MAX), reversal(&first, i64::MAX)];
    ledger.book(reversing(log, 5, rest)).await.unwrap();
    let done = row(&world, &first).await;
    assert_eq!(
        (done.state, done.reversed),
        (AuthorizationState::Reversed, 100)
    );
    assert_eq!(counted(&world, &sheet).await, [60]);
}

pub(super) async fn a_reversal_before_its_payment_waits_for_it(world: World) {
    let ledger = &world.ledger;
    let (sheet, log) = (world.trip().await, uuid());
    let (unheard, held, part) = (
        approve(&sheet, 10, 100),
        approve(&sheet, 20, 100),
        approve(&sheet, 30, 100),
    );
    ledger.hold(vec![held.clone()]).await.unwrap();
    let reversals = [(&unheard, 10), (&held, 20), (&part, 1)]
        .map(|(proposal, amount)| ReversalRow {
            shopper: None,
            ..reversal(proposal, amount)
        })
        .to_vec();
    ledger.book(reversing(log, 1, reversals)).await.unwrap();
    assert_eq!(world.row(&unheard).await, None);
    // A hold is no answer yet: it counts until it is one.
    assert_eq!(row(&world, &held).await.state, AuthorizationState::Held);
    assert_eq!(counted(&world, &sheet).await, [20]);
    // Nor does the reversal claim the id for anybody.
    let replies = ledger.hold(vec![unheard.clone()]).await.unwrap();
    assert_eq!(
        replies,
        [HoldReply::Held {
            approved_before: 20
        }]
    );
    let outcomes = vec![
        outcome(&unheard, 2, 0),
        outcome(&held, 2, 1),
        outcome(&part, 2, 2),
    ];
    let booked = ledger.book(step(log, 2, outcomes)).await.unwrap();
    assert_eq!(booked, moved(3, 0, 0));
    for (proposal, state, reversed) in [
        (&unheard, AuthorizationState::Reversed, 10),
        (&held, AuthorizationState::Reversed, 20),
        (&part, AuthorizationState::Final, 1),
    ] {
        let row = row(&world, proposal).await;
        assert_eq!((row.state, row.reversed), (state, reversed));
    }
    assert_eq!(counted(&world, &sheet).await, [29]);
    // And the same with an advice.
    let advised = approve(&sheet, 5, 100);
    ledger.hold(vec![advised.clone()]).await.unwrap();
    let early = vec![reversal(&advised, 5)];
    ledger.book(reversing(log, 3, early)).await.unwrap();
    let done = ledger.advise(advice(&advised)).await.unwrap();
    assert_eq!(done, Advised::Final);
    let row = row(&world, &advised).await;
    assert_eq!((row.state, row.reversed), (AuthorizationState::Reversed, 5));
}

pub(super) async fn what_takes_nothing_back_is_kept_and_counts_nothing(world: World) {
    let ledger = &world.ledger;
    let (sheet, log) = (world.trip().await, uuid());
    let first = approve(&sheet, 10, 100);
    let refused = declined(approve(&sheet, 900, 100), Reason::OverCap);
    let outcomes = vec![outcome(&first, 1, 0), outcome(&refused, 1, 1)];
    ledger.book(step(log, 1, outcomes)).await.unwrap();
    let before = (row(&world, &first).await, row(&world, &refused).await);
    let foreign = ReversalRow {
        currency: "EUR".parse().unwrap(),
        ..reversal(&first, 10)
    };
    let odd = vec![
        foreign,
        reversal(&first, 0),
        reversal(&first, -5),
        reversal(&refused, 900),
    ];
    let booked = ledger.book(reversing(log, 2, odd)).await.unwrap();
    assert!(matches!(booked, Booked::Moved(_)));
    let after = (row(&world, &first).await, row(&world, &refused).await);
    assert_eq!(after, before);
    // No word of a bank stops the drain.
    let worded = ReversalRow {
        reason: "a\0b".to_owned(),
        ..reversal(&first, 4)
    };
    ledger.book(reversing(log, 3, vec![worded])).await.unwrap();
    assert_eq!(counted(&world, &sheet).await, [6]);
}

/// Neither transaction sees the other's row; one of them must wait.
pub(super) async fn reversals_and_outcomes_of_two_logs_meet(world: World) {
    let sheet = world.trip().await;
    let clients = world.clients(2);
    for _ in 0..20 {
        let proposals: Vec<_> = (0..3).map(|_| approve(&sheet, 1, 1_000)).collect();
        let outcomes = (0_u32..)
            .zip(&proposals)
            .map(|(slot, proposal)| outcome(proposal, 1, slot))
            .collect();
        let reversals = proposals.iter().map(|p| reversal(p, 1)).collect();
        let racing = [
            clients[0].book(step(uuid(), 1, outcomes)),
            clients[1].book(reversing(uuid(), 1, reversals)),
        ];
        for booked in join_all(racing).await {
            assert!(matches!(booked.unwrap(), Booked::Moved(_)));
        }
        for proposal in &proposals {
            let state = row(&world, proposal).await.state;
            assert_eq!(state, AuthorizationState::Reversed);
        }
    }
}

pub(super) async fn reversals_and_advices_meet(world: World) {
    let sheet = world.trip().await;
    let clients = world.clients(2);
    for _ in 0..20 {
        let proposal = approve(&sheet, 1, 1_000);
        world.ledger.hold(vec![proposal.clone()]).await.unwrap();
        let reversed = reversing(uuid(), 1, vec![reversal(&proposal, 1)]);
        let (advised, booked) = tokio::join!(
            clients[0].advise(advice(&proposal)),
            clients[1].book(reversed)
        );
        assert_eq!(advised.unwrap(), Advised::Final);
        assert!(matches!(booked.unwrap(), Booked::Moved(_)));
        let state = row(&world, &proposal).await.state;
        assert_eq!(state, AuthorizationState::Reversed);
    }
}
