//! What an edge proposes to its log, and the one byte form it has there.
//!
//! An entry is a schema number (two bytes, little-endian) and a postcard body. A reader knows its
//! own schema and the one before; an unknown schema is refused, never skipped.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::answer::{Answer, Code, Reason, Rung, Why};
use crate::authorization::Authorization;
use crate::clock::Timestamp;
use crate::decide::Limits;
use crate::id::{Fingerprint, OrderId, ShopperId, StoreId, TransactionId, TripId};
use crate::merchant::Store;
use crate::trip::{Approval, Order, Trip, TripEvent};

/// The schema this build writes.
pub const SCHEMA: u16 = 1;

/// One proposal to the log.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Entry {
    /// An answer to an authorization; applying it makes it final, or says which one is.
    Authorize(Box<Proposal>),
    /// The trip takes no more approvals.
    TripClosed(TripId),
    /// The edge lost the primary.
    OutageStarted(Why),
    /// The edge has the primary again.
    OutageEnded,
    /// A hold without an outcome: the payment may never be answered from now on.
    Tombstone(TransactionId),
    /// Every batch up to this one is in the ledger: answers may be forgotten once their window passed.
    Drained(u64),
    /// We failed after the commit: the payment's answer is a 500 until an operator clears it.
    Faulted(TransactionId),
    /// An operator did something.
    Operator(OperatorAction),
    /// The platform did something (embedded mode, where the log is also the ledger's journal).
    Platform(PlatformEvent),
}

/// The answer an edge proposes, and everything that applying and booking it needs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proposal {
    /// What the bank asked.
    pub request: Authorization,
    /// Identity of the payment.
    pub transaction_id: TransactionId,
    /// Of the bank's semantic fields.
    pub fingerprint: Fingerprint,
    /// The code the answer carries if it approves.
    pub code: Code,
    /// What the rules (and the primary) said.
    pub reason: Reason,
    /// How it was reached.
    pub rung: Rung,
    /// Why not on the primary.
    pub why: Option<Why>,
    /// The trip it was decided from.
    pub trip: Option<Trip>,
    /// How old the cached trip was.
    pub trip_age_ms: Option<u64>,
    /// The store the merchant was resolved to.
    pub store: Option<StoreId>,
    /// The trip's cap at the trip's version.
    pub cap: Option<i64>,
    /// Sum of the trip's approvals that the decision saw.
    pub approved_before: i64,
    /// Limits to enforce again in log order.
    pub limits: Limits,
    /// The trip's approvals that the entry saw in the cache or the ledger.
    pub seen: Vec<Approval>,
    /// Version of the policy it was decided by.
    pub policy_version: u32,
    /// What the other rules (stand-in on rung `primary`, primary on `stand_in`) said.
    pub shadow: Option<Reason>,
}

/// Something an operator ordered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OperatorAction {
    /// Makes booking it twice harmless.
    pub id: Uuid,
    /// Who.
    pub operator: String,
    /// Why.
    pub reason: String,
    /// When, by the edge's clock.
    pub at: Timestamp,
    /// What.
    pub what: OperatorOrder,
}

/// What an operator can order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum OperatorOrder {
    /// Stand-in by the breaker, always, or never.
    StandIn(StandInMode),
    /// The stored 500 of a payment gives way to the answer that was committed.
    ClearAnswer(TransactionId),
}

/// Who decides whether to stand in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StandInMode {
    /// The breaker and each request's budget.
    Auto,
    /// Always: the primary is not asked.
    Force,
    /// Never: without the primary there is no answer.
    Forbid,
}

/// A change of the platform's tables, as the embedded ledger journals it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum PlatformEvent {
    /// A store was added or changed.
    StorePut(Store),
    /// An order was placed.
    OrderPlaced(Order),
    /// An order was claimed.
    OrderClaimed {
        /// The order.
        order: OrderId,
        /// By whom.
        shopper: ShopperId,
    },
    /// A trip was started.
    TripStarted {
        /// Its id.
        trip: TripId,
        /// Whose.
        shopper: ShopperId,
        /// With which orders.
        orders: Vec<OrderId>,
        /// When.
        at: Timestamp,
    },
    /// Something happened on a trip.
    TripChanged(TripEvent),
    /// A trip was completed.
    TripCompleted {
        /// The trip.
        trip: TripId,
        /// Whose.
        shopper: ShopperId,
    },
}

/// One entry's outcome with everything the ledger books of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Booking {
    /// The final answer.
    pub answer: Answer,
    /// What was proposed.
    pub proposal: Proposal,
    /// Where in the log.
    pub at: LogPosition,
    /// Log time of the entry, milliseconds since the epoch.
    pub log_time_ms: u64,
}

/// A place in a region's log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct LogPosition {
    /// Index of the batch, from 1.
    pub index: u64,
    /// Place in the batch.
    pub slot: u32,
}

/// Why bytes are not an entry.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Too short to hold a schema number.
    #[error("an entry of {0} bytes has no schema number")]
    Short(usize),
    /// Written by a newer build.
    #[error("entry schema {0} is not known to this build (it reads {SCHEMA})")]
    Schema(u16),
    /// The body does not decode.
    #[error("entry does not decode: {0}")]
    Body(#[from] postcard::Error),
}

// === impl Entry ===

impl Entry {
    /// The bytes for the log.
    pub fn encode(&self) -> Result<Vec<u8>, EntryError> {
        let head = SCHEMA.to_le_bytes().to_vec();
        Ok(postcard::to_extend(self, head)?)
    }

    /// Reads an entry back.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let Some((head, body)) = bytes.split_first_chunk::<2>() else {
            return Err(EntryError::Short(bytes.len()));
        };
        match u16::from_le_bytes(*head) {
            SCHEMA => Ok(postcard::from_bytes(body)?),
            other => Err(EntryError::Schema(other)),
        }
    }
}

// === impl StandInMode ===

impl StandInMode {
    /// The word in paths, rows and pages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Force => "force",
            Self::Forbid => "forbid",
        }
    }
}
