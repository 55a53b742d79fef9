//! Stores, and the resolution of what a bank wrote to one of them.
//!
//! [`StoreDirectory::resolve_ids`] is pure, deterministic and never guesses: what is near several
//! stores is ambiguous, what is near none is unknown. Deliberately absent: learning from earlier
//! answers, and any use of the shopper's trip (a text must mean the same store to everybody).

use serde::{Deserialize, Serialize};

use crate::id::StoreId;

mod alike;
mod directory;
mod ids;
mod near;
mod normal;
#[cfg(any(test, feature = "testing"))]
pub mod sample;

#[cfg(test)]
mod tests;

pub use directory::StoreDirectory;
pub use ids::{MerchantId, MerchantKey, NETWORK_ID_BYTES_MAX, NetworkId, NetworkIdError};

/// Least likeness of two addresses without a house number (Dice's coefficient of trigrams),
/// thousandths.
pub const ADDRESS_MIN: usize = 700;
/// By how much the likest store must be liker than the next, thousandths of name and address
/// together.
pub const MARGIN_MIN: usize = 80;
/// Most stores one text is compared with; when more could be near it, it is ambiguous.
pub const CANDIDATES_MAX: usize = 2_000;

/// One of our stores.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Store {
    /// Its id.
    pub id: StoreId,
    /// Its name on receipts.
    pub name: String,
    /// Its street address.
    pub address: String,
    /// Latitude in millionths of a degree.
    pub lat_e6: i32,
    /// Longitude in millionths of a degree.
    pub lon_e6: i32,
}

/// Which store a merchant is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// Exactly one.
    Store(StoreId),
    /// None is near enough.
    Unknown,
    /// Several are equally near: no guess is made.
    Ambiguous,
}
