//! Stores page by page, what networks call them, and the state both are in.

use standin_core::id::StoreId;
use standin_core::ledger::DIRECTORY_PAGE_MAX;
use standin_core::merchant::{MerchantId, NetworkId};

use super::{World, number, store};

fn network_id() -> NetworkId {
    format!("network-{}", number()).parse().unwrap()
}

fn called(network_id: &NetworkId, terminal: Option<&str>, store: StoreId) -> MerchantId {
    MerchantId {
        network_id: network_id.clone(),
        terminal: terminal.map(|terminal| terminal.parse().unwrap()),
        store,
    }
}

/// Every id of one merchant, read in pages of `limit`.
async fn of(world: &World, network_id: &NetworkId, limit: u32) -> Vec<MerchantId> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = world.ledger.merchant_ids_after(after, limit).await.unwrap();
        assert!(page.len() <= usize::try_from(limit).unwrap());
        let Some(last) = page.last() else { break };
        after = Some(last.key());
        all.extend(page);
    }
    all.retain(|id| id.network_id == *network_id);
    all.sort_unstable_by(MerchantId::key_order);
    all
}

pub(super) async fn stores_are_told_page_by_page(world: World) {
    let ledger = &world.ledger;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(world.store().await);
    }
    let mut after = Some(StoreId::try_from(ids[0].get() - 1).unwrap());
    for pair in ids.chunks(2) {
        let page = ledger.stores_after(after, 2).await.unwrap();
        let told: Vec<StoreId> = page.iter().map(|store| store.id).collect();
        assert_eq!(told, pair);
        after = told.last().copied();
    }
    assert_eq!(ledger.stores_after(after, 2).await.unwrap(), []);
    let told = ledger.stores_after(None, u32::MAX).await.unwrap();
    assert!(told.len() <= usize::try_from(DIRECTORY_PAGE_MAX).unwrap());
    assert!(told.is_sorted_by_key(|store| store.id));
}

pub(super) async fn a_networks_id_is_put_replaced_and_removed(world: World) {
    let ledger = &world.ledger;
    let (one, other, network_id) = (world.store().await, world.store().await, network_id());
    let id = called(&network_id, None, one);
    ledger.put_merchant_id(id.clone()).await.unwrap();
    ledger.put_merchant_id(id.clone()).await.unwrap();
    assert_eq!(
        of(&world, &network_id, 100).await,
        std::slice::from_ref(&id)
    );
    let moved = called(&network_id, None, other);
    ledger.put_merchant_id(moved.clone()).await.unwrap();
    assert_eq!(of(&world, &network_id, 100).await, [moved]);
    for there in [true, false] {
        let removed = ledger.remove_merchant_id(id.key()).await.unwrap();
        assert_eq!(removed, there);
    }
    assert_eq!(of(&world, &network_id, 100).await, []);
    // An id may come before its store.
    let early = called(&network_id, None, number().try_into().unwrap());
    ledger.put_merchant_id(early.clone()).await.unwrap();
    assert_eq!(of(&world, &network_id, 100).await, [early]);
}

pub(super) async fn a_terminal_is_part_of_the_key(world: World) {
    let ledger = &world.ledger;
    let (store, network_id) = (world.store().await, network_id());
    let all = [None, Some("00041"), Some("00042"), Some("A-1 X")];
    let all = all.map(|terminal| called(&network_id, terminal, store));
    for id in all.iter().rev() {
        ledger.put_merchant_id(id.clone()).await.unwrap();
    }
    for limit in [1, 3, 100] {
        assert_eq!(of(&world, &network_id, limit).await, all);
    }
    assert!(ledger.remove_merchant_id(all[1].key()).await.unwrap());
    let left = of(&world, &network_id, 2).await;
    assert_eq!(left, [all[0].clone(), all[2].clone(), all[3].clone()]);
}

pub(super) async fn every_change_makes_another_version_and_a_repeat_none(world: World) {
    let ledger = &world.ledger;
    let version = async || ledger.directory_version().await.unwrap();
    let mut seen = vec![version().await];
    let id = StoreId::try_from(number()).unwrap();
    let network_id = network_id();
    for name in ["Target", "Target North", "Target"] {
        for _ in 0..2 {
            ledger.put_store(store(id, name)).await.unwrap();
            seen.push(version().await);
        }
    }
    let key = called(&network_id, None, id).key();
    for _ in 0..2 {
        ledger
            .put_merchant_id(called(&network_id, None, id))
            .await
            .unwrap();
        seen.push(version().await);
    }
    for _ in 0..2 {
        ledger.remove_merchant_id(key.clone()).await.unwrap();
        seen.push(version().await);
    }
    let changes = seen.windows(2).map(|pair| pair[0] != pair[1]);
    let changes: Vec<bool> = changes.collect();
    let expected = [true, false].repeat(5);
    assert_eq!(changes, expected);
    seen.dedup();
    for (at, version) in seen.iter().enumerate() {
        assert!(!seen[at + 1..].contains(version), "a version came twice");
    }
}
