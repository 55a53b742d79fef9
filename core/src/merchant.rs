//! Stores, and the resolution of what a bank wrote to one of them.
//!
//! [`StoreDirectory::resolve`] is pure, deterministic and never guesses: what is near several stores
//! is ambiguous, what is near none is unknown. Deliberately absent: learning from earlier answers,
//! acquirers' merchant ids, and any use of the shopper's trip (a text must mean the same store to
//! everybody).

use serde::{Deserialize, Serialize};

use crate::id::StoreId;

mod directory;
mod normal;

#[cfg(test)]
mod tests;

pub use directory::StoreDirectory;

/// Least likeness (mean of name and address; Dice's coefficient of trigrams), thousandths.
pub const SIMILARITY_MIN: usize = 700;
/// Least likeness of the name, and of the address where both have one, thousandths.
pub const PART_MIN: usize = 500;
/// By how much the likest store must be liker than the next, thousandths.
pub const MARGIN_MIN: usize = 80;
/// Most stores one text is compared with; when more could be near it, it is ambiguous.
pub const CANDIDATES_MAX: usize = 10_000;

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
