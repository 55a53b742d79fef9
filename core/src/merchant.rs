//! Stores, and the resolution of what a bank wrote to one of them.

use serde::{Deserialize, Serialize};

use crate::id::StoreId;

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
