use standin_core::authorization::Merchant;
use standin_core::clock::SystemClock;
use standin_core::ledger::memory::MemoryLedger;
use standin_core::merchant::Resolution;

use super::*;

fn store(number: i64, name: &str) -> Store {
    Store {
        id: number.try_into().unwrap(),
        name: name.to_owned(),
        address: format!("{number} Main St"),
        lat_e6: 0,
        lon_e6: 0,
    }
}

fn id(network_id: &str, terminal: Option<&str>, store: i64) -> MerchantId {
    MerchantId {
        network_id: network_id.parse().unwrap(),
        terminal: terminal.map(|terminal| terminal.parse().unwrap()),
        store: store.try_into().unwrap(),
    }
}

fn open(ledger: &Arc<MemoryLedger>, dir: &Path) -> Stores {
    let ledger: Arc<dyn Ledger> = Arc::<MemoryLedger>::clone(ledger);
    let every = Duration::from_secs(1);
    Stores::open(ledger, dir.join("stores.json"), every, Vec::new()).unwrap()
}

fn by_id(stores: &Stores, network_id: &str) -> Resolution {
    let nowhere = Merchant {
        name: "Nobody".to_owned(),
        address: String::new(),
    };
    let directory = stores.directory();
    let directory = directory.load();
    directory.resolve_ids(Some(network_id), None, &nowhere)
}

#[tokio::test]
async fn stores_and_ids_are_refreshed_kept_and_known_without_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Arc::new(MemoryLedger::new(Arc::new(SystemClock), None));
    let stores = open(&ledger, dir.path());
    assert!(stores.directory().load().is_empty());
    for number in 1..=5_000 {
        ledger.put_store(store(number, "Target")).await.unwrap();
    }
    ledger.put_merchant_id(id("12", None, 7)).await.unwrap();
    assert!(stores.refresh().await);
    assert_eq!(stores.directory().load().len(), 5_000);
    let seven = Resolution::Store(7_i64.try_into().unwrap());
    assert_eq!(by_id(&stores, "12"), seven);
    // Nothing has changed: the directory is the very same.
    let before = stores.directory().load_full();
    assert!(stores.refresh().await);
    assert!(Arc::ptr_eq(&before, &stores.directory().load_full()));
    let empty = Arc::new(MemoryLedger::new(Arc::new(SystemClock), None));
    let kept = open(&empty, dir.path());
    assert_eq!(kept.directory().load().len(), 5_000);
    assert_eq!(by_id(&kept, "12"), seven);
    let key = id("12", None, 7).key();
    assert!(ledger.remove_merchant_id(key).await.unwrap());
    assert!(stores.refresh().await);
    assert_eq!(by_id(&stores, "12"), Resolution::Unknown);
}

#[tokio::test]
async fn a_copy_of_before_there_were_ids_opens() {
    let dir = tempfile::tempdir().unwrap();
    let list = serde_json::to_vec(&vec![store(1, "Target")]).unwrap();
    std::fs::write(dir.path().join("stores.json"), list).unwrap();
    let ledger = Arc::new(MemoryLedger::new(Arc::new(SystemClock), None));
    let stores = open(&ledger, dir.path());
    assert_eq!(stores.directory().load().len(), 1);
    std::fs::write(dir.path().join("stores.json"), "{").unwrap();
    let path = dir.path().join("stores.json");
    let ledger: Arc<dyn Ledger> = ledger;
    let opened = Stores::open(ledger, path, Duration::from_secs(1), Vec::new());
    assert!(matches!(opened, Err(StoresError::Parse { .. })));
}
