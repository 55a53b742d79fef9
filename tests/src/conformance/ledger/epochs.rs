//! The ledger's epoch: a primary of the past is refused.

use standin_core::ledger::{Fate, HoldReply, LedgerError, Retry};

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

    ledger.require_epoch(raised + 5);
    assert_eq!(ledger.epoch(), raised + 5);
    for _ in 0..3 {
        refused(ledger.hold(vec![new.clone()]).await);
        refused(ledger.advise(advice(&held)).await);
        let outcomes = vec![outcome(&new, 1, 0)];
        refused(ledger.book(step(log, 1, outcomes)).await);
        refused(ledger.probe().await);
    }
    // What is promoted is above everything seen.
    assert_eq!(ledger.promote_epoch().await.unwrap(), raised + 6);
    assert_eq!(world.row(&new).await, None);
    assert_eq!(ledger.cursor(log).await.unwrap(), 0);
    ledger.probe().await.unwrap();
    let reply = ledger.hold(vec![new, held]).await.unwrap();
    let again = |approved_before| HoldReply::Held { approved_before };
    assert_eq!(reply, [again(10), again(20)]);
    // Another client learns it from its first call.
    let other = world.clients(1).remove(0);
    other.probe().await.unwrap();
    other.hold(vec![approve(&sheet, 1, 100)]).await.unwrap();
    assert_eq!(other.epoch(), raised + 6);
}
