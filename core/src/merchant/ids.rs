//! What card networks call our stores.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::StoreId;

/// Longest id of a network, in bytes.
pub const NETWORK_ID_BYTES_MAX: usize = 64;

/// An id in the words of a card network: of a merchant, or of one of its terminals. 1 to 64 bytes of
/// printable ASCII, upper case, without blanks at its ends.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetworkId(Box<str>);

/// Why a text is not a [`NetworkId`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a network's id is 1 to {NETWORK_ID_BYTES_MAX} bytes of printable ASCII")]
pub struct NetworkIdError;

/// What a network calls one of our stores. The pair of ids is the key; a merchant id has several
/// stores only under terminals that tell them apart.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MerchantId {
    /// The merchant's.
    pub network_id: NetworkId,
    /// The terminal's, where it takes that to tell the store.
    pub terminal: Option<NetworkId>,
    /// The store.
    pub store: StoreId,
}

/// The key of a [`MerchantId`]. In order, one without a terminal comes before those with.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct MerchantKey {
    /// The merchant's.
    pub network_id: NetworkId,
    /// The terminal's.
    pub terminal: Option<NetworkId>,
}

/// All of them, by key.
#[derive(Debug)]
pub(super) struct MerchantIds(Vec<MerchantId>);

// === impl NetworkId ===

impl NetworkId {
    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NetworkId {
    type Err = NetworkIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim_matches(' ');
        let printable = |byte: u8| (b' '..=b'~').contains(&byte);
        let fits = (1..=NETWORK_ID_BYTES_MAX).contains(&text.len());
        if !fits || !text.bytes().all(printable) {
            return Err(NetworkIdError);
        }
        Ok(Self(text.to_ascii_uppercase().into()))
    }
}

impl TryFrom<String> for NetworkId {
    type Error = NetworkIdError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<NetworkId> for String {
    fn from(id: NetworkId) -> Self {
        id.0.into()
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl MerchantId ===

impl MerchantId {
    /// Its key.
    pub fn key(&self) -> MerchantKey {
        MerchantKey {
            network_id: self.network_id.clone(),
            terminal: self.terminal.clone(),
        }
    }

    /// Before or behind another, by key.
    pub fn key_order(&self, other: &Self) -> std::cmp::Ordering {
        self.by_key().cmp(&other.by_key())
    }

    fn by_key(&self) -> (&NetworkId, Option<&NetworkId>) {
        (&self.network_id, self.terminal.as_ref())
    }
}

// === impl MerchantIds ===

impl MerchantIds {
    /// Of two with the same key the later holds.
    pub(super) fn new(mut ids: Vec<MerchantId>) -> Self {
        ids.sort_by(MerchantId::key_order);
        ids.dedup_by(|later, kept| {
            let same = later.by_key() == kept.by_key();
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
        ids.shrink_to_fit();
        Self(ids)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &MerchantId> {
        self.0.iter()
    }

    /// The store of a merchant's terminal.
    pub(super) fn by_terminal(
        &self,
        network_id: &NetworkId,
        terminal: &NetworkId,
    ) -> Option<StoreId> {
        let key = (network_id, Some(terminal));
        let found = self.0.binary_search_by(|id| id.by_key().cmp(&key)).ok()?;
        self.0.get(found).map(|id| id.store)
    }

    /// Every store of a merchant id, in order and once each.
    pub(super) fn stores(&self, network_id: &NetworkId) -> Vec<StoreId> {
        let from = self.0.partition_point(|id| id.network_id < *network_id);
        let here = self.0.iter().skip(from);
        let here = here.take_while(|id| id.network_id == *network_id);
        let mut stores: Vec<StoreId> = here.map(|id| id.store).collect();
        stores.sort_unstable();
        stores.dedup();
        stores
    }
}
