//! The home of the trip cache: who promotes another raises its epoch once, and is audited.

use standin_core::ledger::{CacheHome, CachePromotion};

use super::{World, at, uuid};

pub(super) async fn another_home_of_the_trip_cache_is_promoted_once_and_audited(world: World) {
    let ledger = &world.ledger;
    let before = ledger.cache_home().await.unwrap();
    let (mark, first) = (uuid().to_string(), format!("{}:6379", uuid()));
    let order = |to: &str, epoch_seen| CachePromotion {
        id: uuid(),
        to: to.to_owned(),
        epoch_seen,
        operator: "ada\0".to_owned(),
        reason: mark.clone(),
        at: at(70),
    };
    let raised = ledger.promote_cache_home(order(&first, 0)).await.unwrap();
    let expected = CacheHome {
        epoch: before.epoch + 1,
        address: first.clone(),
    };
    assert_eq!(raised, expected);
    // Ordered again, by whoever: the same, also when the new home says its epoch already.
    for epoch_seen in [0, raised.epoch] {
        let again = ledger.promote_cache_home(order(&first, epoch_seen));
        assert_eq!(again.await.unwrap(), expected);
    }
    let other = world.clients(1).remove(0);
    assert_eq!(other.cache_home().await.unwrap(), expected);
    // Another one, and the first again: each is above all before. One that shows a higher epoch than
    // the ledger has (which lost commits) is outdone as well.
    let second = format!("{}:6379", uuid());
    let epochs = [
        other.promote_cache_home(order(&second, 0)).await,
        other.promote_cache_home(order(&first, 1)).await,
        other
            .promote_cache_home(order(&first, raised.epoch + 10))
            .await,
    ]
    .map(|home| home.unwrap().epoch - raised.epoch);
    assert_eq!(epochs, [1, 2, 11]);
    let mut audit = ledger.audit(u32::MAX).await.unwrap();
    audit.retain(|row| row.reason == mark);
    let mut actions: Vec<String> = audit.iter().map(|row| row.action.clone()).collect();
    actions.sort_unstable();
    let action =
        |to: &str, more: u64| format!("trips.promote_home {to} epoch {}", raised.epoch + more);
    let mut expected = vec![
        action(&first, 0),
        action(&first, 0),
        action(&first, 0),
        action(&second, 1),
        action(&first, 2),
        action(&first, 11),
    ];
    expected.sort_unstable();
    assert_eq!(actions, expected);
    assert!(audit.iter().all(|row| row.operator == "ada\u{fffd}"));
}
