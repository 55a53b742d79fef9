//! The decision: a pure function of (authorization, facts, policy, now) that explains itself.
//!
//! Rules are asked in one fixed order and the first that speaks gives the reason: card, no trip, currency,
//! trip status, merchant, store, position, double swipe, velocity, cap, then the limits of standing
//! in or of the floor. The stand-in and floor rules only ever add declines to the primary's.
//!
//! A missing trip speaks before the merchant: without a trip no merchant could be right, and whoever
//! tries stolen cards learns nothing about which texts resolve to a store.
//!
//! Deliberately absent: I/O, clocks, randomness, and the choice of the rules to decide by.

use serde::{Deserialize, Serialize};

use crate::answer::{Reason, Verdict};
use crate::authorization::Authorization;
use crate::clock::Timestamp;
use crate::id::StoreId;
use crate::merchant::{Resolution, Store};
use crate::policy::{Geofence, MissingPosition, Policy};
use crate::trip::{Approval, Position, Trip, TripStatus};

mod distance;

#[cfg(test)]
mod tests;

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
    /// Minor units: what was asked for, or, approved, as much of it as there is room for where the
    /// bank takes less.
    pub amount: i64,
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

/// Where the shopper is, as far as the geofence is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Whereabouts {
    Near,
    Far,
    Missing,
}

/// Decides one authorization by `rules`. Total: every input has an answer.
pub fn decide(
    request: &Authorization,
    facts: &Facts<'_>,
    policy: &Policy,
    rules: Rules,
    now: Timestamp,
) -> Decision {
    // A trip of somebody else is no trip.
    let trip = facts.trip.filter(|trip| trip.shopper == request.shopper);
    let cap = trip.map(|trip| policy.cap(trip));
    let limits = limits(
        facts,
        policy,
        rules,
        trip.zip(cap.as_ref().map(|cap| cap.amount)),
    );
    let mut decision = Decision {
        reason: if request.shopper.is_of_unknown_card() {
            Reason::UnknownCard
        } else {
            Reason::NoTrip
        },
        amount: request.amount.minor(),
        cap: cap.as_ref().map(|cap| cap.amount),
        approved_before: approved_before(facts.approvals),
        store: match facts.merchant {
            Resolution::Store(store) => Some(store),
            Resolution::Unknown | Resolution::Ambiguous => None,
        },
        limits,
        rule: cap.map_or_else(|| "none".to_owned(), |cap| cap.rule),
    };
    let Some(trip) = trip else {
        return decision;
    };
    let whereabouts = whereabouts(trip, facts, &policy.geofence, now);
    if whereabouts == Whereabouts::Missing {
        decision.rule.push_str("; position missing");
    }
    let refused = wrong_trip(request, trip, policy)
        .or_else(|| wrong_place(trip, facts, whereabouts, policy))
        .or_else(|| too_often(request, facts, policy, now));
    (decision.reason, decision.amount) = match refused {
        Some(reason) => (reason, decision.amount),
        None => as_much_as_fits(request, facts, &decision),
    };
    decision
}

/// What was asked for, or, if it does not fit and the bank takes less, what does.
fn as_much_as_fits(
    request: &Authorization,
    facts: &Facts<'_>,
    decision: &Decision,
) -> (Reason, i64) {
    let asked = request.amount.minor();
    let whole = within_limits(asked, facts, decision);
    if whole.verdict() == Verdict::Approved || !request.particulars.partial {
        return (whole, asked);
    }
    let part = room(facts, decision).min(asked);
    match within_limits(part, facts, decision) {
        reason if part > 0 && reason.verdict() == Verdict::Approved => (reason, part),
        _ => (whole, asked),
    }
}

/// The most that could fit, minor units; not positive when nothing does.
fn room(facts: &Facts<'_>, decision: &Decision) -> i64 {
    let before = decision.approved_before;
    let used = &facts.stand_in;
    let left = |limit: Tally, used: Tally| limit.amount.saturating_sub(used.amount);
    let cap = decision.cap.unwrap_or(0).saturating_sub(before);
    match &decision.limits {
        Limits::Cap => cap,
        Limits::StandIn(limits) => cap
            .min(limits.transaction)
            .min(limits.trip.saturating_sub(before))
            .min(left(limits.shopper_outage, used.shopper_outage))
            .min(left(limits.shopper_hour, used.shopper_hour))
            .min(left(limits.bank_outage, used.bank_outage))
            .min(left(limits.bank_hour, used.bank_hour)),
        Limits::Floor(limits) => cap
            .min(limits.floor)
            .min(left(limits.reserve, used.reserve)),
    }
}

/// Whether the stand-in rules would have told the bank something else than the primary's: a metric.
pub fn stand_in_differs(primary: &Decision, stand_in: &Decision) -> bool {
    primary.reason.verdict() != stand_in.reason.verdict()
}

/// The limits in force by `rules`, which apply enforces again.
fn limits(facts: &Facts<'_>, policy: &Policy, rules: Rules, trip: Option<(&Trip, i64)>) -> Limits {
    match rules {
        Rules::Primary => Limits::Cap,
        Rules::StandIn => {
            let outage_age_ms = facts.stand_in.outage_age_ms.unwrap_or(0);
            Limits::StandIn(policy.stand_in_limits(trip, outage_age_ms))
        }
        Rules::Isolated => {
            let cap = trip.map(|(_, cap)| cap);
            Limits::Floor(policy.floor_limits(cap, facts.trip_age_ms.unwrap_or(0)))
        }
    }
}

/// Sum of the approvals. It saturates, and past the largest amount nothing fits any cap.
fn approved_before(approvals: &[Approval]) -> i64 {
    approvals.iter().fold(0_i64, |sum, approval| {
        sum.saturating_add(approval.amount.max(0))
    })
}

fn wrong_trip(request: &Authorization, trip: &Trip, policy: &Policy) -> Option<Reason> {
    // The policy's amounts mean nothing in another currency.
    if request.amount.currency() != trip.currency || trip.currency != policy.currency {
        return Some(Reason::CurrencyMismatch);
    }
    match trip.status {
        TripStatus::Shopping => None,
        TripStatus::Delivering | TripStatus::Complete => Some(Reason::NotShopping),
    }
}

fn wrong_place(
    trip: &Trip,
    facts: &Facts<'_>,
    whereabouts: Whereabouts,
    policy: &Policy,
) -> Option<Reason> {
    match facts.merchant {
        Resolution::Unknown => return Some(Reason::UnknownMerchant),
        Resolution::Ambiguous => return Some(Reason::AmbiguousMerchant),
        Resolution::Store(store) if store != trip.store => return Some(Reason::WrongStore),
        Resolution::Store(_) => {}
    }
    match (whereabouts, policy.geofence.missing) {
        (Whereabouts::Near, _) | (Whereabouts::Missing, MissingPosition::Flag) => None,
        (Whereabouts::Far, _) => Some(Reason::FarFromStore),
        (Whereabouts::Missing, MissingPosition::Decline) => Some(Reason::PositionMissing),
    }
}

/// A position that is too old, from the future beyond skew, or cannot be held against the trip's
/// store counts as missing.
fn whereabouts(trip: &Trip, facts: &Facts<'_>, fence: &Geofence, now: Timestamp) -> Whereabouts {
    let store = facts.store.filter(|store| store.id == trip.store);
    let (Some(position), Some(store)) = (facts.position, store) else {
        return Whereabouts::Missing;
    };
    let too_old = now.millis_since(position.at) > fence.position_age_max_ms;
    let from_the_future = position.at.millis_since(now) > fence.future_skew_max_ms;
    if too_old || from_the_future {
        return Whereabouts::Missing;
    }
    let here = (position.lat_e6, position.lon_e6);
    if distance::within_metres(here, (store.lat_e6, store.lon_e6), fence.radius_m) {
        Whereabouts::Near
    } else {
        Whereabouts::Far
    }
}

/// Approvals from the future (another edge's clock is ahead) count as made now.
fn too_often(
    request: &Authorization,
    facts: &Facts<'_>,
    policy: &Policy,
    now: Timestamp,
) -> Option<Reason> {
    let amount = request.amount.minor();
    if amount == 0 {
        return None;
    }
    // What adds to a payment says itself that it is another one.
    let distinct = request.particulars.adds_to.is_some();
    let swiped = !distinct
        && facts.approvals.iter().any(|approval| {
            approval.amount == amount
                && now.millis_since(approval.at) <= policy.double_swipe.window_ms
        });
    if swiped {
        return Some(Reason::DoubleSwipe);
    }
    let recent = facts
        .approvals
        .iter()
        .filter(|approval| now.millis_since(approval.at) <= policy.velocity.window_ms)
        .count();
    let max = usize::try_from(policy.velocity.approvals_max).unwrap_or(usize::MAX);
    (recent >= max).then_some(Reason::Velocity)
}

/// The cap first, then the limits of the rules in force. An amount of zero charges nothing and touches
/// no limit. A negative one never gets here from an edge; approved, it would raise what is left, so it
/// is declined.
fn within_limits(amount: i64, facts: &Facts<'_>, decision: &Decision) -> Reason {
    let cap = decision.cap.unwrap_or(0);
    let total = match decision.approved_before.checked_add(amount) {
        Some(total) if amount >= 0 => total,
        Some(_) | None => return Reason::OverCap,
    };
    if total > cap {
        return Reason::OverCap;
    }
    match decision.limits {
        Limits::Cap => Reason::WithinCap,
        Limits::StandIn(_) if amount == 0 => Reason::WithinStandInLimits,
        Limits::Floor(_) if amount == 0 => Reason::WithinFloorLimit,
        Limits::StandIn(limits) => {
            let used = &facts.stand_in;
            let fits = amount <= limits.transaction
                && total <= limits.trip
                && used.shopper_outage.fits(amount, limits.shopper_outage)
                && used.shopper_hour.fits(amount, limits.shopper_hour)
                && used.bank_outage.fits(amount, limits.bank_outage)
                && used.bank_hour.fits(amount, limits.bank_hour);
            if fits {
                Reason::WithinStandInLimits
            } else {
                Reason::StandInLimit
            }
        }
        Limits::Floor(limits) => {
            let used = &facts.stand_in;
            let rested = used
                .since_floor_ms
                .is_none_or(|since| since >= limits.window_ms);
            if amount <= limits.floor && rested && used.reserve.fits(amount, limits.reserve) {
                Reason::WithinFloorLimit
            } else {
                Reason::FloorLimit
            }
        }
    }
}
