//! Draining: outcomes become final rows, once.

use futures_util::future::join_all;
use standin_core::answer::{Code, Reason, Rung, Why};
use standin_core::entry::{LogPosition, OperatorAction, OperatorOrder, Proposal, StandInMode};
use standin_core::ledger::{
    Advised, AuthorizationState, Booked, BookedCounts, ConflictRow, DrainStep, FindingRow,
    HoldReply, ReconcileRun, Retry, Rewording,
};
use standin_core::money::Money;
use uuid::Uuid;

use super::{
    World, advice, answer, approve, at, declined, outcome, propose, reversal, step, stood_in, uuid,
};

pub(super) fn moved(finalized: u64, already: u64, conflicts: u64) -> Booked {
    Booked::Moved(BookedCounts {
        finalized,
        already,
        conflicts,
    })
}

pub(super) async fn conflicts(world: &World, log: Uuid) -> Vec<ConflictRow> {
    let all = world.ledger.conflicts(10_000).await.unwrap();
    all.into_iter().filter(|row| row.log == log).collect()
}

pub(super) async fn an_outcome_becomes_final_over_a_hold_and_over_nothing(world: World) {
    let ledger = &world.ledger;
    let (sheet, log) = (world.trip().await, uuid());
    let (held, new) = (approve(&sheet, 10, 100), stood_in(approve(&sheet, 20, 100)));
    let decline = declined(approve(&sheet, 900, 100), Reason::OverCap);
    let mut tripless = declined(approve(&sheet, 900, 100), Reason::NoTrip);
    (tripless.trip, tripless.cap, tripless.store) = (None, None, None);
    tripless.trip_age_ms = None;
    ledger
        .hold(vec![held.clone(), decline.clone()])
        .await
        .unwrap();
    assert_eq!(ledger.cursor(log).await.unwrap(), 0);
    let all = [&held, &new, &decline, &tripless];
    let outcomes = (0_u32..)
        .zip(all)
        .map(|(slot, proposal)| outcome(proposal, 1, slot))
        .collect();
    assert_eq!(
        ledger.book(step(log, 1, outcomes)).await.unwrap(),
        moved(4, 0, 0)
    );
    assert_eq!(ledger.cursor(log).await.unwrap(), 1);
    for (slot, proposal) in (0_u32..).zip(all) {
        let row = world.row(proposal).await.unwrap();
        assert_eq!(
            (row.state, &row.answer),
            (AuthorizationState::Final, &answer(proposal))
        );
        assert_eq!(
            row.held_at.is_some(),
            proposal.transaction_id == held.transaction_id
        );
        let (of, place) = row.log.unwrap();
        assert_eq!((of, place.index, place.slot), (log, 1, slot));
        assert_eq!((row.final_at, row.store), (Some(at(20)), proposal.store));
        // Asked again, the primary says what was answered.
        let again = ledger.hold(vec![proposal.clone()]).await.unwrap();
        assert_eq!(again, [HoldReply::Final(Box::new(answer(proposal)))]);
    }
    let open = ledger.open_trip(sheet.trip.shopper).await.unwrap().unwrap();
    let mut counted: Vec<_> = open
        .approvals
        .iter()
        .map(|approval| approval.amount)
        .collect();
    counted.sort_unstable();
    assert_eq!(counted, [10, 20]);
    // A hold that is declined in the end counts no more.
    let undone = approve(&sheet, 30, 100);
    ledger.hold(vec![undone.clone()]).await.unwrap();
    let undone = declined(undone, Reason::OverCap);
    ledger
        .book(step(log, 2, vec![outcome(&undone, 2, 0)]))
        .await
        .unwrap();
    let open = ledger.open_trip(sheet.trip.shopper).await.unwrap().unwrap();
    assert_eq!(open.approvals.len(), 2);
}

pub(super) async fn a_final_row_reads_back_byte_for_byte(world: World) {
    let (sheet, log) = (world.trip().await, uuid());
    let mut all = Vec::new();
    let rungs = [
        (Rung::Primary, None),
        (Rung::StandIn, Some(Why::ApplicationError)),
        (Rung::PrimaryOnly, None),
        (Rung::Isolated, Some(Why::BreakerOpen)),
        (Rung::Bank, None),
    ];
    for reason in Reason::ALL {
        for (rung, why) in rungs {
            let mut proposal = approve(&sheet, 123, 10_000);
            (proposal.reason, proposal.rung, proposal.why) = (reason, rung, why);
            proposal.approved_before = 77;
            proposal.trip_age_ms = Some(5_000_000_000);
            proposal.policy_version = u32::MAX;
            all.push(proposal);
        }
    }
    let outcomes = (0_u32..)
        .zip(&all)
        .map(|(slot, p)| outcome(p, 1, slot))
        .collect();
    let booked = world.ledger.book(step(log, 1, outcomes)).await.unwrap();
    assert_eq!(booked, moved(u64::try_from(all.len()).unwrap(), 0, 0));
    for proposal in &all {
        let row = world.row(proposal).await.unwrap();
        assert_eq!(row.answer, answer(proposal));
        assert_eq!(row.picked, Some(1_600));
        let (stored, given) = (
            serde_json::to_vec(&row.answer),
            serde_json::to_vec(&answer(proposal)),
        );
        assert_eq!(stored.unwrap(), given.unwrap());
    }
}

pub(super) async fn draining_again_changes_nothing(world: World) {
    let ledger = &world.ledger;
    let (sheet, log) = (world.trip().await, uuid());
    let proposals: Vec<_> = (0..5).map(|_| approve(&sheet, 10, 100)).collect();
    let outcomes: Vec<_> = (0_u32..)
        .zip(&proposals)
        .map(|(slot, p)| outcome(p, 1, slot))
        .collect();
    let first = step(log, 1, outcomes);
    assert_eq!(ledger.book(first.clone()).await.unwrap(), moved(5, 0, 0));
    let before = ledger.authorizations(None, 100_000).await.unwrap();
    assert_eq!(
        ledger.book(first.clone()).await.unwrap(),
        Booked::Raced { cursor: 1 }
    );
    // The same outcomes under a later index, as after a cursor that was lost with a failover.
    let again = DrainStep {
        from: 1,
        to: 2,
        ..first.clone()
    };
    assert_eq!(ledger.book(again).await.unwrap(), moved(0, 5, 0));
    let ahead = DrainStep {
        from: 7,
        to: 8,
        ..first
    };
    assert_eq!(
        ledger.book(ahead).await.unwrap(),
        Booked::Raced { cursor: 2 }
    );
    assert_eq!(ledger.authorizations(None, 100_000).await.unwrap(), before);
    assert_eq!(conflicts(&world, log).await, []);
    // A batch without outcomes moves the cursor all the same.
    assert_eq!(
        ledger.book(step(log, 3, Vec::new())).await.unwrap(),
        moved(0, 0, 0)
    );
    assert_eq!(ledger.cursor(log).await.unwrap(), 3);
    let many = vec![outcome(&approve(&sheet, 1, 1), 4, 0); 1_001];
    assert_eq!(
        ledger.book(step(log, 4, many)).await.unwrap_err().retry,
        Retry::Never
    );
}

pub(super) async fn another_answer_goes_whole_to_conflicts(world: World) {
    let ledger = &world.ledger;
    let (sheet, here, there) = (world.trip().await, uuid(), uuid());
    let (first, second) = (propose(&sheet, "a", 10, 100), approve(&sheet, 20, 100));
    let outcomes = vec![outcome(&first, 1, 0), outcome(&second, 1, 1)];
    ledger.book(step(here, 1, outcomes)).await.unwrap();
    // Another region answered the first otherwise, and another request under the second's id.
    let other = declined(first.clone(), Reason::OverCap);
    let mut reused = propose(&sheet, "a", 11, 100);
    reused.transaction_id = second.transaction_id;
    let fine = approve(&sheet, 30, 100);
    let outcomes = vec![
        outcome(&other, 1, 0),
        outcome(&fine, 1, 1),
        outcome(&reused, 1, 2),
    ];
    let theirs = step(there, 1, outcomes);
    assert_eq!(ledger.book(theirs).await.unwrap(), moved(1, 0, 2));
    assert_eq!(ledger.cursor(there).await.unwrap(), 1);
    assert_eq!(world.row(&first).await.unwrap().answer, answer(&first));
    assert_eq!(world.row(&fine).await.unwrap().answer, answer(&fine));
    let kept = conflicts(&world, there).await;
    let causes: Vec<_> = kept.iter().map(|row| row.cause.as_str()).collect();
    assert_eq!(causes, ["other_answer", "other_fingerprint"]);
    assert_eq!(
        (kept[0].transaction_id, kept[0].at.slot),
        (first.transaction_id, 0)
    );
    let whole = serde_json::to_value(answer(&other)).unwrap();
    assert_eq!(kept[0].outcome["answer"], whole);
    assert_eq!(
        kept[0].outcome["proposal"],
        serde_json::to_value(&other).unwrap()
    );
    assert_eq!(conflicts(&world, here).await, []);
}

/// An advice and the entry it stands in for meet like this.
pub(super) async fn the_same_answer_from_another_rung_is_no_conflict(world: World) {
    let ledger = &world.ledger;
    let (sheet, here, there) = (world.trip().await, uuid(), uuid());
    let first = approve(&sheet, 10, 100);
    let second = declined(approve(&sheet, 20, 100), Reason::OverCap);
    let outcomes = vec![outcome(&first, 1, 0), outcome(&second, 1, 1)];
    ledger.book(step(here, 1, outcomes)).await.unwrap();
    let mut same = stood_in(first.clone());
    (same.cap, same.approved_before, same.trip_age_ms) = (Some(7), 3, None);
    let same_decline = declined(second.clone(), Reason::StandInLimit);
    let mut coded = outcome(&first, 1, 2);
    coded.answer.code = Code::from_mac(&[9; 32]);
    assert_ne!(coded.answer.code, first.code);
    let mut dearer = outcome(&first, 1, 3);
    dearer.answer.amount = Money::from_minor(11, sheet.trip.currency);
    let mut foreign = outcome(&first, 1, 4);
    foreign.answer.amount = Money::from_minor(10, "EUR".parse().unwrap());
    let outcomes = vec![
        outcome(&same, 1, 0),
        outcome(&same_decline, 1, 1),
        coded,
        dearer,
        foreign,
    ];
    let booked = ledger.book(step(there, 1, outcomes)).await.unwrap();
    assert_eq!(booked, moved(0, 2, 3));
    for proposal in [&first, &second] {
        let row = world.row(proposal).await.unwrap();
        assert_eq!(row.answer, answer(proposal));
        assert_eq!(row.log.unwrap().0, here);
    }
    let slots: Vec<_> = conflicts(&world, there).await;
    let slots: Vec<_> = slots.iter().map(|row| row.at.slot).collect();
    assert_eq!(slots, [2, 3, 4]);
}

/// Its reply was lost, nobody was told, and then the log committed what had been proposed.
pub(super) async fn the_logs_words_are_written_over_what_the_primary_said_by_itself(world: World) {
    let ledger = &world.ledger;
    let (sheet, here, there) = (world.trip().await, uuid(), uuid());
    let approved = approve(&sheet, 10, 100);
    let refused = declined(approve(&sheet, 900, 100), Reason::OverCap);
    let same = Proposal {
        rung: Rung::PrimaryOnly,
        ..approve(&sheet, 20, 100)
    };
    for proposal in [&approved, &refused, &same] {
        ledger.hold(vec![proposal.clone()]).await.unwrap();
        let advised = ledger.advise(advice(proposal)).await.unwrap();
        assert_eq!(advised, Advised::Final);
    }
    let logged = stood_in(approved.clone());
    let logged_decline = declined(refused.clone(), Reason::StandInLimit);
    let outcomes = vec![
        outcome(&logged, 1, 0),
        outcome(&logged_decline, 1, 1),
        outcome(&same, 1, 2),
    ];
    let booked = ledger.book(step(here, 1, outcomes.clone())).await.unwrap();
    // In the same words, too: the row names the log from then on.
    assert_eq!(booked, moved(3, 0, 0));
    for (proposal, slot) in [(&logged, 0), (&logged_decline, 1), (&same, 2)] {
        let row = world.row(proposal).await.unwrap();
        assert_eq!(row.answer, answer(proposal));
        let place = LogPosition { index: 1, slot };
        assert_eq!(
            (row.state, row.log),
            (AuthorizationState::Final, Some((here, place)))
        );
        assert_eq!(row.final_at, Some(at(20)));
        assert_eq!(row.held_at.is_some(), slot != 1);
        let again = ledger.hold(vec![proposal.clone()]).await.unwrap();
        assert_eq!(again, [HoldReply::Final(Box::new(answer(proposal)))]);
    }
    let open = ledger.open_trip(sheet.trip.shopper).await.unwrap().unwrap();
    let counted: i64 = open.approvals.iter().map(|approval| approval.amount).sum();
    assert_eq!(counted, 30);
    // Booked again, it changes nothing; nor does another region's log in its own words.
    let before = ledger.authorizations(None, 100_000).await.unwrap();
    let again = step(here, 2, outcomes);
    assert_eq!(ledger.book(again).await.unwrap(), moved(0, 3, 0));
    let theirs = vec![outcome(&approved, 1, 0), outcome(&refused, 1, 1)];
    let theirs = step(there, 1, theirs);
    assert_eq!(ledger.book(theirs).await.unwrap(), moved(0, 2, 0));
    assert_eq!(ledger.authorizations(None, 100_000).await.unwrap(), before);
    assert_eq!(conflicts(&world, here).await, []);
    assert_eq!(conflicts(&world, there).await, []);
}

pub(super) async fn of_another_answer_by_the_primary_itself_nothing_is_written_over(world: World) {
    let ledger = &world.ledger;
    let (sheet, log) = (world.trip().await, uuid());
    let proposals: Vec<_> = (0..4).map(|_| approve(&sheet, 10, 100)).collect();
    for proposal in &proposals {
        ledger.hold(vec![proposal.clone()]).await.unwrap();
        ledger.advise(advice(proposal)).await.unwrap();
    }
    let mut outcomes: Vec<_> = (0_u32..)
        .zip(&proposals)
        .map(|(slot, proposal)| outcome(proposal, 1, slot))
        .collect();
    outcomes[0].answer.amount = Money::from_minor(11, sheet.trip.currency);
    outcomes[1].answer.amount = Money::from_minor(10, "EUR".parse().unwrap());
    outcomes[2].answer.code = Code::from_mac(&[9; 32]);
    outcomes[3] = outcome(&declined(proposals[3].clone(), Reason::OverCap), 1, 3);
    let booked = ledger.book(step(log, 1, outcomes)).await.unwrap();
    assert_eq!(booked, moved(0, 0, 4));
    for proposal in &proposals {
        let row = world.row(proposal).await.unwrap();
        assert_eq!((row.answer, row.log), (advice(proposal).answer, None));
    }
    let causes: Vec<_> = conflicts(&world, log).await;
    assert!(causes.iter().all(|row| row.cause == "other_answer"));
}

pub(super) async fn what_was_reversed_stays_so_under_the_logs_words(world: World) {
    let ledger = &world.ledger;
    let (sheet, log) = (world.trip().await, uuid());
    let (whole, part, with) = (
        approve(&sheet, 10, 100),
        approve(&sheet, 20, 100),
        approve(&sheet, 30, 100),
    );
    for proposal in [&whole, &part, &with] {
        ledger.hold(vec![proposal.clone()]).await.unwrap();
        ledger.advise(advice(proposal)).await.unwrap();
    }
    let first = DrainStep {
        reversals: vec![reversal(&whole, 10), reversal(&part, 5)],
        ..step(log, 1, Vec::new())
    };
    ledger.book(first).await.unwrap();
    let outcomes = vec![
        outcome(&whole, 2, 0),
        outcome(&part, 2, 1),
        outcome(&with, 2, 2),
    ];
    let second = DrainStep {
        reversals: vec![reversal(&with, 30)],
        ..step(log, 2, outcomes)
    };
    assert_eq!(ledger.book(second).await.unwrap(), moved(3, 0, 0));
    for (proposal, state, reversed) in [
        (&whole, AuthorizationState::Reversed, 10),
        (&part, AuthorizationState::Final, 5),
        (&with, AuthorizationState::Reversed, 30),
    ] {
        let row = world.row(proposal).await.unwrap();
        assert_eq!((row.state, row.reversed), (state, reversed));
        assert_eq!(row.answer, answer(proposal));
        assert_eq!(row.log.unwrap().0, log);
    }
    let open = ledger.open_trip(sheet.trip.shopper).await.unwrap().unwrap();
    let counted: Vec<_> = open.approvals.iter().map(|one| one.amount).collect();
    assert_eq!(counted, [15]);
}

/// The advice of a proposal as the log holds it, at a slot of batch `index`.
fn rewording(proposal: &Proposal, index: u64, slot: u32) -> Rewording {
    Rewording {
        answer: answer(proposal),
        at: LogPosition { index, slot },
    }
}

fn rewording_step(log: Uuid, to: u64, rewordings: Vec<Rewording>) -> DrainStep {
    DrainStep {
        rewordings,
        ..step(log, to, Vec::new())
    }
}

/// What an edge said on its own of `proposal`.
fn isolated(proposal: &Proposal) -> Proposal {
    Proposal {
        rung: Rung::Isolated,
        why: Some(Why::Timeout),
        reason: Reason::WithinFloorLimit,
        ..proposal.clone()
    }
}

pub(super) async fn a_later_advice_of_the_same_log_has_the_last_word(world: World) {
    let ledger = &world.ledger;
    let (sheet, log) = (world.trip().await, uuid());
    let (held, primary, back) = (
        approve(&sheet, 10, 100),
        approve(&sheet, 20, 100),
        approve(&sheet, 30, 100),
    );
    ledger
        .hold(vec![held.clone(), primary.clone()])
        .await
        .unwrap();
    ledger.advise(advice(&primary)).await.unwrap();
    let outcomes = vec![
        outcome(&held, 1, 0),
        outcome(&primary, 1, 1),
        outcome(&back, 1, 2),
    ];
    let first = DrainStep {
        reversals: vec![reversal(&back, 30)],
        ..step(log, 1, outcomes.clone())
    };
    assert_eq!(ledger.book(first).await.unwrap(), moved(3, 0, 0));
    let mut expected = Vec::new();
    for proposal in [&held, &primary, &back] {
        let mut row = world.row(proposal).await.unwrap();
        row.answer = answer(&isolated(proposal));
        expected.push(row);
    }
    // Of two, the later one, be they in one step.
    let rewordings = vec![
        rewording(&stood_in(held.clone()), 2, 0),
        rewording(&isolated(&held), 2, 1),
        rewording(&isolated(&primary), 2, 2),
        rewording(&isolated(&back), 2, 3),
    ];
    let second = rewording_step(log, 2, rewordings.clone());
    assert_eq!(ledger.book(second).await.unwrap(), moved(0, 0, 0));
    for (proposal, expected) in [&held, &primary, &back].into_iter().zip(&expected) {
        assert_eq!(world.row(proposal).await.as_ref(), Some(expected));
    }
    // All of it again, as after a cursor that was lost: the first words do not come back.
    let again = DrainStep {
        rewordings,
        ..step(log, 3, outcomes)
    };
    assert_eq!(ledger.book(again).await.unwrap(), moved(0, 3, 0));
    for (proposal, expected) in [&held, &primary, &back].into_iter().zip(&expected) {
        assert_eq!(world.row(proposal).await.as_ref(), Some(expected));
    }
    assert_eq!(conflicts(&world, log).await, []);
    // The answer and its advice in one step.
    let both = approve(&sheet, 5, 100);
    let together = DrainStep {
        rewordings: vec![rewording(&isolated(&both), 4, 1)],
        ..step(log, 4, vec![outcome(&both, 4, 0)])
    };
    assert_eq!(ledger.book(together).await.unwrap(), moved(1, 0, 0));
    let row = world.row(&both).await.unwrap();
    assert_eq!(row.answer, answer(&isolated(&both)));
    assert_eq!(row.log, Some((log, LogPosition { index: 4, slot: 0 })));
}

pub(super) async fn a_rewording_changes_nothing_else(world: World) {
    let ledger = &world.ledger;
    let (sheet, here, there) = (world.trip().await, uuid(), uuid());
    let (theirs, later, held, dearer, unknown, unlogged) = (
        approve(&sheet, 1, 100),
        approve(&sheet, 2, 100),
        approve(&sheet, 3, 100),
        approve(&sheet, 4, 100),
        approve(&sheet, 5, 100),
        approve(&sheet, 6, 100),
    );
    let of_theirs = step(there, 1, vec![outcome(&theirs, 1, 0)]);
    ledger.book(of_theirs).await.unwrap();
    ledger
        .hold(vec![held.clone(), unlogged.clone()])
        .await
        .unwrap();
    ledger.advise(advice(&unlogged)).await.unwrap();
    let first = step(here, 1, vec![outcome(&dearer, 1, 0)]);
    ledger.book(first).await.unwrap();
    let second = step(here, 2, vec![outcome(&later, 2, 4)]);
    ledger.book(second).await.unwrap();
    let before = ledger.authorizations(None, 100_000).await.unwrap();
    let mut more = rewording(&isolated(&dearer), 2, 1);
    more.answer.amount = Money::from_minor(40, sheet.trip.currency);
    let rewordings = vec![
        // Of another region's log; before the entry that the row is of; at it.
        rewording(&isolated(&theirs), 2, 0),
        rewording(&isolated(&later), 2, 3),
        rewording(&isolated(&later), 2, 4),
        more,
        rewording(&declined(dearer.clone(), Reason::OverCap), 2, 2),
        // Not final, never heard of, of no log.
        rewording(&isolated(&held), 2, 5),
        rewording(&isolated(&unknown), 2, 6),
        rewording(&isolated(&unlogged), 2, 7),
    ];
    let third = rewording_step(here, 3, rewordings);
    assert_eq!(ledger.book(third).await.unwrap(), moved(0, 0, 0));
    assert_eq!(ledger.authorizations(None, 100_000).await.unwrap(), before);
    assert_eq!(conflicts(&world, here).await, []);
    // The id of one that was never heard of stays free.
    let free = ledger.hold(vec![unknown]).await.unwrap();
    assert!(matches!(free[..], [HoldReply::Held { .. }]));
    let many = vec![rewording(&isolated(&later), 2, 9); 1_001];
    let many = ledger.book(rewording_step(here, 4, many)).await;
    assert_eq!(many.unwrap_err().retry, Retry::Never);
}

pub(super) async fn a_payment_twice_in_one_step_is_final_once(world: World) {
    let (sheet, log) = (world.trip().await, uuid());
    let first = approve(&sheet, 10, 100);
    let other = declined(first.clone(), Reason::OverCap);
    let outcomes = vec![
        outcome(&first, 1, 0),
        outcome(&first, 1, 1),
        outcome(&other, 1, 2),
    ];
    let booked = world.ledger.book(step(log, 1, outcomes)).await.unwrap();
    assert_eq!(booked, moved(1, 1, 1));
    assert_eq!(world.row(&first).await.unwrap().answer, answer(&first));
    assert_eq!(conflicts(&world, log).await[0].at.slot, 2);
}

pub(super) async fn of_two_drainers_one_moves_the_cursor(world: World) {
    let (sheet, log) = (world.trip().await, uuid());
    let clients = world.clients(6);
    for index in 1..=5 {
        let outcomes: Vec<_> = (0..20)
            .map(|slot| outcome(&approve(&sheet, 1, 1_000), index, slot))
            .collect();
        let racing = clients
            .iter()
            .map(|ledger| ledger.book(step(log, index, outcomes.clone())));
        let booked: Vec<Booked> = join_all(racing)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let won = booked
            .iter()
            .filter(|booked| **booked == moved(20, 0, 0))
            .count();
        let raced = booked
            .iter()
            .filter(|b| **b == Booked::Raced { cursor: index })
            .count();
        assert_eq!((won, raced), (1, 5), "{booked:?}");
    }
    let open = world
        .ledger
        .open_trip(sheet.trip.shopper)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(open.approvals.len(), 100);
}

pub(super) async fn holds_and_drains_of_one_trip_run_beside_each_other(world: World) {
    let sheet = world.trip().await;
    let clients = world.clients(8);
    let racing = clients.iter().map(|ledger| {
        let sheet = sheet.clone();
        let log = uuid();
        async move {
            for index in 1..=10 {
                let proposals: Vec<_> = (0..4).map(|_| approve(&sheet, 1, 100_000)).collect();
                // Half of them were held first; a lock wait that ran out is no answer.
                if let Err(error) = ledger.hold(proposals[..2].to_vec()).await {
                    assert_ne!(error.retry, Retry::Never, "{error}");
                }
                let outcomes: Vec<_> = (0_u32..)
                    .zip(&proposals)
                    .map(|(slot, p)| outcome(p, index, slot))
                    .collect();
                let booked = ledger.book(step(log, index, outcomes)).await.unwrap();
                assert_eq!(booked, moved(4, 0, 0));
            }
        }
    });
    join_all(racing).await;
    let open = world
        .ledger
        .open_trip(sheet.trip.shopper)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(open.approvals.len(), 320);
    let states = world.ledger.authorizations(None, 100_000).await.unwrap();
    let mine = states
        .iter()
        .filter(|row| row.answer.shopper == sheet.trip.shopper);
    assert!(
        mine.into_iter()
            .all(|row| row.state == AuthorizationState::Final)
    );
}

pub(super) async fn operators_actions_are_audited_once(world: World) {
    let ledger = &world.ledger;
    let log = uuid();
    let sheet = world.trip().await;
    let id = approve(&sheet, 1, 1).transaction_id;
    let action = |operator: &str, ms, what| OperatorAction {
        id: uuid(),
        operator: operator.to_owned(),
        reason: "a drill\0".to_owned(),
        at: at(ms),
        what,
    };
    let actions = vec![
        action("ann", 2, OperatorOrder::StandIn(StandInMode::Force)),
        action("bob", 1, OperatorOrder::ClearAnswer(id)),
    ];
    let mut first = step(log, 1, Vec::new());
    first.actions.clone_from(&actions);
    ledger.book(first).await.unwrap();
    let mut again = step(log, 2, Vec::new());
    again.actions = actions;
    ledger.book(again).await.unwrap();
    let rows = ledger.audit(10_000).await.unwrap();
    let said: Vec<_> = rows
        .iter()
        .map(|row| (row.operator.as_str(), row.action.clone()))
        .collect();
    let clear = format!("answer.clear {id}");
    assert_eq!(said, [("bob", clear), ("ann", "stand_in.force".to_owned())]);
    assert!(
        rows.iter().all(|row| row.reason == "a drill\u{fffd}"),
        "{rows:?}"
    );
    assert_eq!(rows[0].at, at(1));
    assert_eq!(ledger.audit(1).await.unwrap().len(), 1);
}

pub(super) async fn a_run_is_recorded_once_and_a_probe_writes(world: World) {
    let ledger = &world.ledger;
    ledger.probe().await.unwrap();
    ledger.probe().await.unwrap();
    let finding = FindingRow {
        kind: "unbooked".to_owned(),
        transaction_id: None,
        detail: "an outcome of the log is not in the ledger".to_owned(),
        amount: 12,
        currency: None,
        bank: Some("first-bank".parse().unwrap()),
    };
    let run = ReconcileRun {
        id: uuid(),
        started_at: at(0),
        ended_at: at(5),
        report: serde_json::json!({"counts": {"matched": 3}}),
        findings: vec![finding.clone(), finding],
    };
    ledger.record_run(run.clone()).await.unwrap();
    ledger.record_run(run).await.unwrap();
}
