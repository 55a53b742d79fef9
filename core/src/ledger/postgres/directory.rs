//! Stores, what networks call them, and the state both are in.

use std::hash::{DefaultHasher, Hash, Hasher};

use deadpool_postgres::{GenericClient, Object};
use tokio_postgres::Row;
use uuid::Uuid;

use super::super::{DIRECTORY_PAGE_MAX, DirectoryVersion};
use super::decode::{Params, execute, get, number, query, unreadable, word};
use super::link::Failure;
use crate::id::StoreId;
use crate::merchant::{MerchantId, MerchantKey, NetworkId, Store};

/// Rows that changes spread over.
const SLOTS: u64 = 16;

pub(super) async fn put_store(client: &mut Object, store: &Store) -> Result<(), Failure> {
    let sql = "insert into stores (store_id, name, address, lat_e6, lon_e6) \
         values ($1, $2, $3, $4, $5) on conflict (store_id) do update set \
         name = excluded.name, address = excluded.address, \
         lat_e6 = excluded.lat_e6, lon_e6 = excluded.lon_e6 \
         where stores.name <> excluded.name or stores.address <> excluded.address \
         or stores.lat_e6 <> excluded.lat_e6 or stores.lon_e6 <> excluded.lon_e6";
    let Store {
        id,
        name,
        address,
        lat_e6,
        lon_e6,
    } = store;
    change(client, sql, &[&id.get(), name, address, lat_e6, lon_e6], id).await?;
    Ok(())
}

pub(super) async fn put_merchant_id(client: &mut Object, id: &MerchantId) -> Result<(), Failure> {
    let sql = "insert into merchant_ids (network_id, terminal, store_id) values ($1, $2, $3) \
         on conflict (network_id, terminal) do update set store_id = excluded.store_id \
         where merchant_ids.store_id <> excluded.store_id";
    let key = id.key();
    let (network_id, terminal) = columns(&key);
    let params: Params<'_> = &[&network_id, &terminal, &id.store.get()];
    change(client, sql, params, &key).await?;
    Ok(())
}

pub(super) async fn remove_merchant_id(
    client: &mut Object,
    key: &MerchantKey,
) -> Result<bool, Failure> {
    let sql = "delete from merchant_ids where network_id = $1 and terminal = $2";
    let (network_id, terminal) = columns(key);
    change(client, sql, &[&network_id, &terminal], key).await
}

/// Runs a statement that changes at most one row and, if it did, says so to whoever keeps a copy.
async fn change(
    client: &mut Object,
    sql: &str,
    params: Params<'_>,
    what: &impl Hash,
) -> Result<bool, Failure> {
    let tx = client.transaction().await?;
    let changed = execute(&tx, sql, params).await? > 0;
    if changed {
        // Last, so that nobody waits for it longer than for a commit.
        let sql = "insert into directory_changes (slot, token) values ($1, $2) \
             on conflict (slot) do update set token = excluded.token";
        execute(&tx, sql, &[&slot(what), &Uuid::new_v4()]).await?;
    }
    tx.commit().await.map_err(Failure::committing)?;
    Ok(changed)
}

fn slot(what: &impl Hash) -> i32 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    let slot = hasher.finish().checked_rem(SLOTS);
    slot.and_then(|slot| i32::try_from(slot).ok()).unwrap_or(0)
}

pub(super) async fn version(client: &Object) -> Result<DirectoryVersion, Failure> {
    let sql = "select slot, token from directory_changes order by slot";
    let rows = query(client, sql, &[]).await?;
    let mut version = 0_u128;
    for row in rows {
        let (slot, token): (i32, Uuid) = (get(&row, "slot")?, get(&row, "token")?);
        let turned = token.as_u128().rotate_left(slot.unsigned_abs());
        version = version.wrapping_add(turned);
    }
    Ok(DirectoryVersion(version))
}

pub(super) async fn stores(
    client: &Object,
    after: Option<StoreId>,
    limit: u32,
) -> Result<Vec<Store>, Failure> {
    let sql = "select store_id, name, address, lat_e6, lon_e6 from stores \
         where store_id > $1 order by store_id limit $2";
    let store = |row: &Row| -> Result<Store, Failure> {
        Ok(Store {
            id: number(row, "store_id")?,
            name: get(row, "name")?,
            address: get(row, "address")?,
            lat_e6: get(row, "lat_e6")?,
            lon_e6: get(row, "lon_e6")?,
        })
    };
    // Stores are numbered from 1.
    let after = after.map_or(0, StoreId::get);
    let rows = query(client, sql, &[&after, &page(limit)]).await?;
    rows.iter().map(store).collect()
}

pub(super) async fn merchant_ids(
    client: &Object,
    after: Option<MerchantKey>,
    limit: u32,
) -> Result<Vec<MerchantId>, Failure> {
    let sql = "select network_id, terminal, store_id from merchant_ids \
         where (network_id, terminal) > ($1, $2) order by network_id, terminal limit $3";
    let id = |row: &Row| -> Result<MerchantId, Failure> {
        let terminal: &str = get(row, "terminal")?;
        let terminal = match terminal {
            "" => None,
            written => Some(written.parse().map_err(|_| unreadable("terminal"))?),
        };
        Ok(MerchantId {
            network_id: word(row, "network_id")?,
            terminal,
            store: number(row, "store_id")?,
        })
    };
    // No network's id is empty, so that ('', '') is before every key.
    let (network_id, terminal) = after.as_ref().map_or(("", ""), columns);
    let rows = query(client, sql, &[&network_id, &terminal, &page(limit)]).await?;
    rows.iter().map(id).collect()
}

fn page(limit: u32) -> i64 {
    i64::from(limit.min(DIRECTORY_PAGE_MAX))
}

fn columns(key: &MerchantKey) -> (&str, &str) {
    let terminal = key.terminal.as_ref().map_or("", NetworkId::as_str);
    (key.network_id.as_str(), terminal)
}
