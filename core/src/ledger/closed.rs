//! Reading which trips left SHOPPING without missing one.
//!
//! A trip's close carries the time it was written; its commit may become visible later than that of
//! a younger one. So a reader has two places: one behind the youngest close it was told of, and one
//! that only passes closes so old that every transaction of their time has ended. What the first ran
//! past, the second finds; what it found, the second tells again.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::id::{ShopperId, TripId};

/// A trip that left SHOPPING.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClosedTrip {
    /// Where to go on after it.
    pub cursor: ClosedCursor,
    /// The trip.
    pub trip: TripId,
    /// Whose.
    pub shopper: ShopperId,
}

/// How far a reader of closed trips has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClosedCursor {
    /// Behind the youngest close told.
    pub(super) fresh: ClosedKey,
    /// Behind the youngest close told when nothing could come before it any more.
    pub(super) settled: ClosedKey,
}

/// The order of closes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(super) struct ClosedKey {
    pub(super) at: Timestamp,
    pub(super) shopper: i64,
    pub(super) trip: Uuid,
}

// === impl ClosedCursor ===

impl ClosedCursor {
    /// Before every trip that was closed at `at` or later, by the ledger's clock.
    pub const fn since(at: Timestamp) -> Self {
        let key = ClosedKey {
            at,
            shopper: 0,
            trip: Uuid::nil(),
        };
        Self {
            fresh: key,
            settled: key,
        }
    }
}
