//! The decision: a pure function of (authorization, facts, policy, now) that explains itself.

use serde::{Deserialize, Serialize};

use crate::answer::Reason;
use crate::id::StoreId;
use crate::merchant::{Resolution, Store};
use crate::trip::{Approval, Position, Trip};

/// What is known at the edge about one authorization.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Which store the merchant is.
    pub merchant: Resolution,
    /// The shopper's open trip, if one is known.
    pub trip: Option<&'a Trip>,
    /// How old the cached trip is; `None` when it was read from the primary just now.
    pub trip_age_ms: Option<u64>,
    /// The trip's store, for the geofence.
    pub store: Option<&'a Store>,
    /// The shopper's last position.
    pub position: Option<Position>,
    /// Every approval of the trip known here (the cache's and the log's), without this payment.
    pub approvals: &'a [Approval],
    /// What was approved while standing in.
    pub stand_in: StandInUse,
}

/// Which rules to decide by. Both of the first two are evaluated on every request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rules {
    /// The primary is asked too: the cap decides.
    Primary,
    /// The primary is away: the tighter cap and the stand-in limits decide.
    StandIn,
    /// The trip is too old for that: the floor limit decides.
    Isolated,
}

/// A sum of approvals: minor units and number.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Tally {
    /// Minor units.
    pub amount: i64,
    /// How many.
    pub count: u32,
}

/// What was approved while standing in, as the register counts it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct StandInUse {
    /// Log time since the outage began; `None` when the log knows of none.
    pub outage_age_ms: Option<u64>,
    /// This shopper, this outage.
    pub shopper_outage: Tally,
    /// This shopper, the last hour.
    pub shopper_hour: Tally,
    /// This bank, this outage.
    pub bank_outage: Tally,
    /// This bank, the last hour.
    pub bank_hour: Tally,
    /// Log time since this shopper's last approval on a floor limit.
    pub since_floor_ms: Option<u64>,
    /// What this edge has spent of its reserve.
    pub reserve: Tally,
}

/// The limits in force for one stand-in answer, after decay with the age of the outage. They travel
/// with the entry and are enforced again, in log order, when it is applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StandInLimits {
    /// One approval, minor units.
    pub transaction: i64,
    /// Sum of the trip's approvals, minor units: the tighter cap.
    pub trip: i64,
    /// One shopper, one outage.
    pub shopper_outage: Tally,
    /// One shopper, one hour.
    pub shopper_hour: Tally,
    /// One bank, one outage.
    pub bank_outage: Tally,
    /// One bank, one hour.
    pub bank_hour: Tally,
}

/// The limits of an answer given on a trip that is too old.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FloorLimits {
    /// One approval, minor units.
    pub floor: i64,
    /// One approval a shopper in this time.
    pub window_ms: u64,
    /// This edge's reserve.
    pub reserve: Tally,
}

/// Limits that apply must enforce again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Limits {
    /// The cap alone.
    Cap,
    /// Standing in.
    StandIn(StandInLimits),
    /// On the floor limit.
    Floor(FloorLimits),
}

/// What the rules say, and how they came to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// Approve or decline, and why.
    pub reason: Reason,
    /// The trip's cap: picked + tolerance, clamped. `None` without a trip.
    pub cap: Option<i64>,
    /// Sum of the trip's approvals before this one.
    pub approved_before: i64,
    /// The store the merchant is, where it is exactly one.
    pub store: Option<StoreId>,
    /// What apply enforces again.
    pub limits: Limits,
    /// The threshold that gave the tolerance: `store 42 + PRODUCE`, `default`, …; several when the
    /// cart is mixed.
    pub rule: String,
}
