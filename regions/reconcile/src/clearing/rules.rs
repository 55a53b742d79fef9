//! How near is near enough, and how late is late.

use serde::{Deserialize, Serialize};

/// How near is near enough, and how late is late. The defaults are those of card networks: issuers
/// match within 20 % and a week, a capture normally comes within a day and may come within 31.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// A capture may differ from its approval by so many minor units and be a variance only.
    pub variance_minor: i64,
    /// Or by so many hundredths of a percent of it, whichever is more.
    pub variance_bp: i64,
    /// The same of what a trip was charged against its receipt, minor units.
    pub receipt_minor: i64,
    /// The same, hundredths of a percent.
    pub receipt_bp: i64,
    /// A line without an id may differ from its payment by so many hundredths of a percent.
    pub near_bp: i64,
    /// And be so many days later.
    pub near_days: i64,
    /// A capture that comes so many days after its approval is late; an approval that has none by
    /// then has no clearing.
    pub late_days: i64,
    /// Approvals of so many days before the period are looked at for a clearing that never came.
    pub back_days: i64,
    /// Two approvals of one trip and amount within so many seconds are one purchase approved twice.
    pub twice_seconds: i64,
}

const DAY_MS: i64 = 86_400_000;

// === impl Rules ===

impl Rules {
    /// Says what is wrong with them, if anything.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let Self {
            variance_minor,
            variance_bp,
            receipt_minor,
            receipt_bp,
            near_bp,
            near_days,
            late_days,
            back_days,
            twice_seconds,
        } = *self;
        let amounts = [
            variance_minor,
            variance_bp,
            receipt_minor,
            receipt_bp,
            near_bp,
        ];
        if amounts.iter().any(|amount| *amount < 0) {
            return Err("a tolerance is not negative");
        }
        if [near_days, late_days, back_days]
            .iter()
            .any(|days| !(1..=366).contains(days))
        {
            return Err("days are from 1 to 366");
        }
        if !(0..=86_400).contains(&twice_seconds) {
            return Err("seconds are from 0 to 86,400");
        }
        Ok(())
    }

    /// How far a capture may be from its approval.
    pub fn variance(&self, approved: i64) -> i64 {
        share(approved, self.variance_bp).max(self.variance_minor)
    }

    /// How far a trip's charges may be from its receipt.
    pub fn receipt(&self, picked: i64) -> i64 {
        share(picked, self.receipt_bp).max(self.receipt_minor)
    }

    /// How far a line without an id may be from its payment.
    pub fn near(&self, approved: i64) -> i64 {
        share(approved, self.near_bp).max(self.variance_minor)
    }

    /// Milliseconds of [`Self::near_days`].
    pub const fn near_ms(&self) -> i64 {
        self.near_days.saturating_mul(DAY_MS)
    }

    /// Milliseconds of [`Self::late_days`].
    pub const fn late_ms(&self) -> i64 {
        self.late_days.saturating_mul(DAY_MS)
    }

    /// Milliseconds of [`Self::back_days`].
    pub const fn back_ms(&self) -> i64 {
        self.back_days.saturating_mul(DAY_MS)
    }

    /// Milliseconds of [`Self::twice_seconds`].
    pub const fn twice_ms(&self) -> i64 {
        self.twice_seconds.saturating_mul(1_000)
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            variance_minor: 50,
            variance_bp: 100,
            receipt_minor: 500,
            receipt_bp: 1_500,
            near_bp: 2_000,
            near_days: 7,
            late_days: 7,
            back_days: 31,
            twice_seconds: 90,
        }
    }
}

/// So many hundredths of a percent of an amount, rounded down.
fn share(amount: i64, bp: i64) -> i64 {
    let share = i128::from(amount)
        .saturating_mul(i128::from(bp))
        .div_euclid(10_000);
    i64::try_from(share).unwrap_or(i64::MAX)
}
