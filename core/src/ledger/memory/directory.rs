//! Stores and what networks call them, in memory.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound::{Excluded, Unbounded};

use super::super::{DIRECTORY_PAGE_MAX, DirectoryVersion, LedgerError};
use super::{MERCHANT_IDS_MAX, full};
use crate::id::StoreId;
use crate::merchant::{MerchantId, MerchantKey, Store};

/// The two tables.
#[derive(Clone, Default)]
pub(super) struct Directory {
    stores: BTreeMap<StoreId, Store>,
    ids: BTreeMap<MerchantKey, StoreId>,
    /// Of every change, each upon the one before.
    version: u64,
}

// === impl Directory ===

impl Directory {
    /// Whether it changed anything; so does each below.
    pub(super) fn put_store(&mut self, store: Store) -> bool {
        let before = self.stores.insert(store.id, store.clone());
        let changed = before.as_ref() != Some(&store);
        if changed {
            let Store {
                id,
                name,
                address,
                lat_e6,
                lon_e6,
            } = store;
            self.note(&(id, name, address, lat_e6, lon_e6));
        }
        changed
    }

    pub(super) fn put_id(&mut self, id: MerchantId) -> Result<bool, LedgerError> {
        let key = id.key();
        let before = self.ids.get(&key).copied();
        if before == Some(id.store) {
            return Ok(false);
        }
        if before.is_none() && self.ids.len() >= MERCHANT_IDS_MAX {
            return Err(full("merchant ids"));
        }
        self.note(&(&key, id.store));
        self.ids.insert(key, id.store);
        Ok(true)
    }

    pub(super) fn remove_id(&mut self, key: &MerchantKey) -> bool {
        let removed = self.ids.remove(key).is_some();
        if removed {
            self.note(key);
        }
        removed
    }

    pub(super) fn has_store(&self, id: StoreId) -> bool {
        self.stores.contains_key(&id)
    }

    pub(super) fn version(&self) -> DirectoryVersion {
        DirectoryVersion(u128::from(self.version))
    }

    pub(super) fn stores_after(&self, after: Option<StoreId>, limit: u32) -> Vec<Store> {
        let from = after.map_or(Unbounded, Excluded);
        let stores = self.stores.range((from, Unbounded)).take(page(limit));
        stores.map(|(_, store)| store.clone()).collect()
    }

    pub(super) fn ids_after(&self, after: Option<MerchantKey>, limit: u32) -> Vec<MerchantId> {
        let from = after.map_or(Unbounded, Excluded);
        let ids = self.ids.range((from, Unbounded)).take(page(limit));
        ids.map(|(key, store)| MerchantId {
            network_id: key.network_id.clone(),
            terminal: key.terminal.clone(),
            store: *store,
        })
        .collect()
    }

    fn note(&mut self, change: &impl Hash) {
        let mut hasher = DefaultHasher::new();
        self.version.hash(&mut hasher);
        change.hash(&mut hasher);
        self.version = hasher.finish();
    }
}

fn page(limit: u32) -> usize {
    usize::try_from(limit.min(DIRECTORY_PAGE_MAX)).unwrap_or(usize::MAX)
}
