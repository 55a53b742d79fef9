//! Answers: approve or decline, with a reason, a code and the rung they were given on.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{BankId, Fingerprint, ShopperId, TransactionId, TripId};
use crate::money::Money;

/// Approve or decline. Not answering is neither: that is an error.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The card may be charged.
    Approved,
    /// It may not.
    Declined,
}

/// How an answer was reached.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// Postgres held it in its budget, the log committed it.
    Primary,
    /// Postgres could not be asked; the trip cache and the log decided.
    StandIn,
    /// The log could not commit: Postgres turned the hold final by itself, and the edge keeps an
    /// advice for the log.
    PrimaryOnly,
    /// The trip was too old to stand in with, or neither Postgres nor the log could be had: floor
    /// limits and this edge's reserve decided.
    Isolated,
    /// The bank or its network decided by itself and told us afterwards.
    Bank,
}

/// Why an answer was given without the primary.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// No connection could be had.
    Connection,
    /// The budget for Postgres ran out.
    Timeout,
    /// Postgres answered with an error (read-only, full, lock wait, …).
    ApplicationError,
    /// An operator ordered it.
    Forced,
    /// The breaker was open: recent tries had failed.
    BreakerOpen,
}

/// Why the answer is what it is. Closed: a new reason must be placed everywhere to compile.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Approved: fits the cap.
    WithinCap,
    /// Approved: fits the tighter stand-in cap and limits.
    WithinStandInLimits,
    /// Approved: fits the floor limit.
    WithinFloorLimit,
    /// The trip's approvals and this one exceed the cap.
    OverCap,
    /// The shopper has no trip.
    NoTrip,
    /// The trip is not SHOPPING.
    NotShopping,
    /// The merchant resembles none of our stores.
    UnknownMerchant,
    /// The merchant resembles several of our stores.
    AmbiguousMerchant,
    /// The merchant is a store of ours, but not the trip's.
    WrongStore,
    /// The shopper's last position is too far from the store.
    FarFromStore,
    /// No recent position, and policy asks for one.
    PositionMissing,
    /// Too many approvals in a short time.
    Velocity,
    /// Same trip, store and amount moments ago under another key.
    DoubleSwipe,
    /// The payment's currency is not the trip's.
    CurrencyMismatch,
    /// Fits the cap, but not the limits while standing in.
    StandInLimit,
    /// More than is risked on a trip whose state is too old.
    FloorLimit,
    /// The table of cards does not know the card.
    UnknownCard,
    /// Approved: by the bank, without asking.
    ApprovedByBank,
}

/// Six characters of `A-Z2-7` that prove an approval is ours. The same on every edge and rung.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Code([u8; 6]);

/// The final answer to one authorization. What the bank reads is rendered from this and nothing
/// else, so that a replay has the same bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The payment.
    pub transaction_id: TransactionId,
    /// Of the request that was answered.
    pub fingerprint: Fingerprint,
    /// Who asked.
    pub bank: BankId,
    /// Whose card.
    pub shopper: ShopperId,
    /// Approve or decline.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// Authorization code; banks are shown it on approvals only.
    pub code: Code,
    /// The amount approved: what was asked for, or less where the bank takes less. Of a decline, what
    /// was asked for.
    pub amount: Money,
    /// How it was reached.
    pub rung: Rung,
    /// Why not on the primary; `None` exactly on [`Rung::Primary`],
    /// [`Rung::PrimaryOnly`] and [`Rung::Bank`].
    pub why: Option<Why>,
    /// The cap it was held against, minor units of the trip's currency; `None` without a trip.
    pub cap: Option<i64>,
    /// The trip's approvals before this one, minor units.
    pub approved_before: i64,
    /// The trip it was decided from.
    pub trip: Option<TripId>,
    /// How old the cached trip was.
    pub trip_age_ms: Option<u64>,
    /// Version of the policy it was decided by.
    pub policy_version: u32,
}

// === impl Answer ===

impl Answer {
    /// Whether another answer to the same request is the same to the bank and to the money, however it
    /// was reached.
    pub fn is_the_same(&self, other: &Self) -> bool {
        self.verdict == other.verdict && self.amount == other.amount && self.code == other.code
    }
}

// === impl Verdict ===

impl Verdict {
    /// The word in bodies, rows and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Declined => "declined",
        }
    }
}

// === impl Rung ===

impl Rung {
    /// Every rung on which an answer is given.
    pub const ALL: [Self; 5] = [
        Self::Primary,
        Self::StandIn,
        Self::PrimaryOnly,
        Self::Isolated,
        Self::Bank,
    ];

    /// The word in bodies, rows and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::StandIn => "stand_in",
            Self::PrimaryOnly => "primary_only",
            Self::Isolated => "isolated",
            Self::Bank => "bank",
        }
    }
}

// === impl Why ===

impl Why {
    /// Every cause.
    pub const ALL: [Self; 5] = [
        Self::Connection,
        Self::Timeout,
        Self::ApplicationError,
        Self::Forced,
        Self::BreakerOpen,
    ];

    /// The word in bodies, rows and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Timeout => "timeout",
            Self::ApplicationError => "application_error",
            Self::Forced => "forced",
            Self::BreakerOpen => "breaker_open",
        }
    }
}

// === impl Reason ===

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 18] = [
        Self::WithinCap,
        Self::WithinStandInLimits,
        Self::WithinFloorLimit,
        Self::OverCap,
        Self::NoTrip,
        Self::NotShopping,
        Self::UnknownMerchant,
        Self::AmbiguousMerchant,
        Self::WrongStore,
        Self::FarFromStore,
        Self::PositionMissing,
        Self::Velocity,
        Self::DoubleSwipe,
        Self::CurrencyMismatch,
        Self::StandInLimit,
        Self::FloorLimit,
        Self::UnknownCard,
        Self::ApprovedByBank,
    ];

    /// The word in bodies, rows and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WithinCap => "within_cap",
            Self::WithinStandInLimits => "within_stand_in_limits",
            Self::WithinFloorLimit => "within_floor_limit",
            Self::OverCap => "over_cap",
            Self::NoTrip => "no_trip",
            Self::NotShopping => "not_shopping",
            Self::UnknownMerchant => "unknown_merchant",
            Self::AmbiguousMerchant => "ambiguous_merchant",
            Self::WrongStore => "wrong_store",
            Self::FarFromStore => "far_from_store",
            Self::PositionMissing => "position_missing",
            Self::Velocity => "velocity",
            Self::DoubleSwipe => "double_swipe",
            Self::CurrencyMismatch => "currency_mismatch",
            Self::StandInLimit => "stand_in_limit",
            Self::FloorLimit => "floor_limit",
            Self::UnknownCard => "unknown_card",
            Self::ApprovedByBank => "approved_by_bank",
        }
    }

    /// The verdict this reason stands for.
    pub const fn verdict(self) -> Verdict {
        match self {
            Self::WithinCap
            | Self::WithinStandInLimits
            | Self::WithinFloorLimit
            | Self::ApprovedByBank => Verdict::Approved,
            Self::OverCap
            | Self::NoTrip
            | Self::NotShopping
            | Self::UnknownMerchant
            | Self::AmbiguousMerchant
            | Self::WrongStore
            | Self::FarFromStore
            | Self::PositionMissing
            | Self::Velocity
            | Self::DoubleSwipe
            | Self::CurrencyMismatch
            | Self::StandInLimit
            | Self::FloorLimit
            | Self::UnknownCard => Verdict::Declined,
        }
    }
}

macro_rules! words {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}
words!(Verdict, Rung, Why, Reason);

/// A word that names no verdict, rung, reason or cause, as read back from a row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown word {0:?}")]
pub struct UnknownWord(pub String);

macro_rules! parsed_words {
    ($($name:ident: $all:expr),*) => {$(
        impl std::str::FromStr for $name {
            type Err = UnknownWord;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $all.into_iter()
                    .find(|word| word.as_str() == text)
                    .ok_or_else(|| UnknownWord(text.to_owned()))
            }
        }
    )*};
}
parsed_words!(
    Verdict: [Verdict::Approved, Verdict::Declined],
    Rung: Rung::ALL,
    Why: Why::ALL,
    Reason: Reason::ALL
);

// === impl Code ===

impl Code {
    /// Spells six characters from the first 30 bits of a MAC.
    pub fn from_mac(mac: &[u8; 32]) -> Self {
        const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let word = u32::from_be_bytes([mac[0], mac[1], mac[2], mac[3]]);
        let letter = |at: u32| {
            let five_bits = (word >> (27_u32.saturating_sub(at.saturating_mul(5)))) & 31;
            usize::try_from(five_bits)
                .ok()
                .and_then(|index| LETTERS.get(index))
                .map_or(b'A', |l| *l)
        };
        Self([
            letter(0),
            letter(1),
            letter(2),
            letter(3),
            letter(4),
            letter(5),
        ])
    }

    /// The six characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("??????")
    }
}

impl TryFrom<String> for Code {
    type Error = UnknownWord;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let valid = |byte: &u8| byte.is_ascii_uppercase() || (b'2'..=b'7').contains(byte);
        match <[u8; 6]>::try_from(text.as_bytes()) {
            Ok(bytes) if bytes.iter().all(valid) => Ok(Self(bytes)),
            Ok(_) | Err(_) => Err(UnknownWord(text)),
        }
    }
}

impl From<Code> for String {
    fn from(code: Code) -> Self {
        code.as_str().to_owned()
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
