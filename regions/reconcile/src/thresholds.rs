//! Advice on thresholds: how far above what was picked a trip must be allowed to go, from what trips
//! were really charged.
//!
//! Read in this order: [`quantile`] (what a sample says of a share of everything), [`fit`] (from trips
//! to rules), [`judge`] (how rules did on trips that they had not seen), [`advise`] (all of it, in the
//! order in which it must be done), [`simulate`] (approval rate against exposure).
//!
//! Pure and deterministic: the same trips give the same advice. Amounts are minor units of one currency,
//! shares are basis points. Nothing here changes a policy: what is advised is a proposal
//! ([`standin_core::policy::promote`]).

use std::collections::BTreeMap;

use serde::Serialize;
use standin_core::clock::Timestamp;
use standin_core::id::StoreId;

pub mod advise;
pub mod fit;
pub mod judge;
pub mod quantile;
pub mod simulate;

#[cfg(test)]
pub(crate) mod tests;

/// Basis points in a whole.
pub const WHOLE: i64 = 10_000;

/// One trip that was paid, or would have been.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trip {
    /// When it was paid.
    pub at: Timestamp,
    /// Where.
    pub store: StoreId,
    /// What the shopper had picked, at actual prices where they were known, else listed.
    pub picked: i64,
    /// What the till charged.
    pub charged: i64,
    /// `picked` by category.
    pub mix: BTreeMap<String, i64>,
}

/// A share of all trips, basis points, above none and below all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(transparent)]
pub struct Share(u32);

/// What makes carts different enough to have rules of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// One rule for all.
    None,
    /// The category that most of a cart is of.
    Category,
    /// The store.
    Store,
    /// The category, and then the store.
    Both,
}

/// Why there is no advice.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AdviseError {
    /// A bound at this share and confidence takes more trips.
    #[error("{have} trips to learn from: a bound for this share takes at least {need}")]
    TooFew {
        /// Trips in the part that is learnt from.
        have: usize,
        /// Trips needed there.
        need: usize,
    },
    /// Nothing is left to judge by.
    #[error("no trip in the last quarter of the time: nothing to judge the advice by")]
    NothingToJudge,
    /// What is advised contradicts the policy it is made from.
    #[error("the advice does not fit the policy: {0}")]
    Policy(#[from] standin_core::policy::PolicyError),
}

// === impl Share ===

impl Share {
    /// From basis points; `None` for none or all.
    pub const fn from_bp(bp: u32) -> Option<Self> {
        if bp > 0 && bp < 10_000 {
            Some(Self(bp))
        } else {
            None
        }
    }

    /// The share to cover when a false decline and an over-approval cost so much:
    /// decline / (decline + over), to the nearest basis point. `None` when neither costs anything or
    /// one costs nothing beside the other.
    pub fn from_costs(decline: i64, over: i64) -> Option<Self> {
        let (decline, over) = (i128::from(decline.max(0)), i128::from(over.max(0)));
        let sum = decline.checked_add(over)?;
        let half = sum.checked_div(2)?;
        let bp = decline
            .checked_mul(i128::from(WHOLE))?
            .checked_add(half)?
            .checked_div(sum)?;
        u32::try_from(bp).ok().and_then(Self::from_bp)
    }

    /// Basis points.
    pub const fn bp(self) -> u32 {
        self.0
    }

    /// As a fraction.
    #[allow(
        clippy::float_arithmetic,
        reason = "statistics: no amount is computed from it"
    )]
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&percent(i64::from(self.0)))
    }
}

/// Basis points as percent, as short as it goes: `98.5 %`.
pub fn percent(bp: i64) -> String {
    let sign = if bp < 0 { "-" } else { "" };
    let bp = bp.unsigned_abs();
    let (whole, rest) = (bp.div_euclid(100), bp.rem_euclid(100));
    match (rest, rest.rem_euclid(10)) {
        (0, _) => format!("{sign}{whole} %"),
        (_, 0) => format!("{sign}{whole}.{} %", rest.div_euclid(10)),
        (_, _) => format!("{sign}{whole}.{rest:02} %"),
    }
}

/// `part` of `whole` in basis points, rounded down; zero of nothing.
pub(crate) fn share_of(part: i128, whole: i128) -> i64 {
    part.saturating_mul(i128::from(WHOLE))
        .checked_div(whole)
        .and_then(|bp| i64::try_from(bp).ok())
        .unwrap_or(0)
}
