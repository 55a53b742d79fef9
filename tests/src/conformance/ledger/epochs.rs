//! The ledger's epoch: a primary of the past is refused.

use standin_core::ledger::{AuthorizationState, Fate, HoldReply, LedgerError, Retry};

use super::{World, advice, approve, outcome, step, uuid};

fn refused<T: std::fmt::Debug>(result: Result<T, LedgerError>) {
    let error = result.unwrap_err();
    assert_eq!((error.fate, error.retry), (Fate::NotDone, Retry::Later));
    assert!(error.detail.contains("epoch"), "{error}");
}

pub(super) async fn a_ledger_of_a_past_epoch_writes_nothing(world: World) {
    let ledger = &world.ledger;
    let (sheet, log) = (world.trip().await, uuid());
    let (held, new) = (approve(&sheet, 10, 100), approve(&sheet, 20, 100));
    ledger.hold(vec![held.clone()]).await.unwrap();
    let seen = ledger.epoch();
    assert!(seen >= 1, "a hold says which epoch it was made in");
    let raised = ledger.promote_epoch().await.unwrap();
    assert_eq!((raised, ledger.epoch()), (seen + 1, seen + 1));
    // Less than what was seen asks for nothing.
    ledger.require_epoch(seen);
    ledger.hold(vec![held.clone()]).await.unwrap();

    // Each call refuses by itself, on a connection that was good a moment ago.
    for first in 0..4 {
        ledger.hold(vec![held.clone()]).await.unwrap();
        ledger.probe().await.unwrap();
        assert_eq!(ledger.cursor(log).await.unwrap(), 0);
        let past = ledger.epoch();
        ledger.require_epoch(past + 5);
        assert_eq!(ledger.epoch(), past + 5);
        for call in (0..4).cycle().skip(first).take(8) {
            let outcomes = vec![outcome(&new, 1, 0)];
            match call {
                0 => refused(ledger.advise(advice(&held)).await),
                1 => refused(ledger.hold(vec![new.clone()]).await),
                2 => refused(ledger.book(step(log, 1, outcomes)).await),
                _ => refused(ledger.probe().await),
            }
        }
        // What is promoted is above everything seen, and has what was there.
        assert_eq!(ledger.promote_epoch().await.unwrap(), past + 6);
        assert_eq!(world.row(&new).await, None);
        let row = world.row(&held).await.unwrap();
        assert_eq!(row.state, AuthorizationState::Held);
    }
    let reply = ledger.hold(vec![new, held]).await.unwrap();
    let again = |approved_before| HoldReply::Held { approved_before };
    assert_eq!(reply, [again(10), again(20)]);
    // Another client learns it from its first call.
    let other = world.clients(1).remove(0);
    other.probe().await.unwrap();
    other.hold(vec![approve(&sheet, 1, 100)]).await.unwrap();
    assert_eq!(other.epoch(), ledger.epoch());
}
