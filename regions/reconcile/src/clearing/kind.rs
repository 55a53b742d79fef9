//! The words of what does not fit, of where payments and lines stand, and of ages.

use serde::{Deserialize, Serialize};

use standin_core::clock::Timestamp;

macro_rules! words {
    ($($(#[doc = $of:literal])* $name:ident {
        $($(#[doc = $doc:literal])* $variant:ident = $word:literal),* $(,)?
    })*) => {$(
        $(#[doc = $of])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[doc = $doc])* $variant),* }

        impl $name {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word in rows and reports.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            /// What it means, in words.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),*).trim_start()),* }
            }
        }
    )*};
}

words! {
    /// Sorts of discrepancies, the worst first: a payment with several stands under its first.
    DiscrepancyKind {
        /// The bank charged what we had declined.
        ClearedDeclined = "cleared_declined",
        /// The bank charged what never got an answer: a hold, or one that was released.
        ClearedUnanswered = "cleared_unanswered",
        /// The bank charged what had been reversed in full.
        ClearedAfterReversal = "cleared_after_reversal",
        /// The payment has an answer that the ledger could not book beside another one.
        Conflicted = "conflicted",
        /// One approval was charged more than once.
        DuplicateClearing = "duplicate_clearing",
        /// More was charged than was approved.
        OverCapture = "over_capture",
        /// It was charged in another currency than it was approved in.
        CurrencyMismatch = "currency_mismatch",
        /// It was charged to another shopper's card than it was approved for.
        ShopperMismatch = "shopper_mismatch",
        /// What the bank told an edge of the money that moved is not what its file says.
        BankDisagrees = "bank_disagrees",
        /// More went back than was charged, or something of a payment that nobody knows.
        RefundUnmatched = "refund_unmatched",
        /// The bank reversed more than our ledger has reversed, or a payment that nobody knows.
        ReversalUnmatched = "reversal_unmatched",
        /// We approved, and the bank declined in the end: our answer came late or was not heeded.
        MissingAtBank = "missing_at_bank",
        /// Less was charged than was approved.
        UnderCapture = "under_capture",
        /// An approval was never charged: its hold has expired.
        NoClearing = "no_clearing",
        /// It was charged late.
        LateClearing = "late_clearing",
        /// The bank charged what we know nothing of.
        MissingAtUs = "missing_at_us",
        /// The bank charged without asking, and says so.
        ForcePost = "force_post",
        /// A line without an id fits several payments equally.
        Ambiguous = "ambiguous",
        /// A line that was told before.
        RepeatedLine = "repeated_line",
        /// A trip's approvals together exceed the highest cap any of them was held against.
        OverCap = "over_cap",
        /// One purchase was approved twice.
        DuplicateApproval = "duplicate_approval",
        /// A trip was charged more than its cart came to.
        OverReceipt = "over_receipt",
        /// A trip was charged less than its cart came to.
        UnderReceipt = "under_receipt",
    }

    /// Where a payment stands that no discrepancy was found of.
    PaymentState {
        /// Approved and charged alike.
        Matched = "matched",
        /// Approved and charged nearly alike.
        MatchedWithVariance = "matched_with_variance",
        /// Approved, and its clearing may still come.
        Pending = "pending",
        /// Declined, and not charged.
        Declined = "declined",
        /// Reversed in full, and not charged.
        Reversed = "reversed",
    }

    /// How a line found its payment, or why it needs none.
    LineState {
        /// By our transaction id.
        MatchedById = "matched_by_id",
        /// By the bank's own key.
        MatchedByKey = "matched_by_key",
        /// By shopper, merchant, amount and time.
        MatchedNear = "matched_near",
        /// The bank declined what we never saw: no money moved.
        DeclinedElsewhere = "declined_elsewhere",
    }

    /// How old something is.
    Age {
        /// Up to an hour.
        Hour = "0-1 h",
        /// Up to a day.
        Day = "1-24 h",
        /// Up to three days.
        ThreeDays = "1-3 d",
        /// Up to a week.
        Week = "3-7 d",
        /// Up to 31 days.
        Month = "7-31 d",
        /// Older.
        Older = "> 31 d",
    }
}

// === impl Age ===

impl Age {
    /// Of something that happened at `at`, as of `now`.
    pub fn of(at: Timestamp, now: Timestamp) -> Self {
        const HOUR_MS: u64 = 3_600_000;
        const DAY_MS: u64 = 24 * HOUR_MS;
        let most = |days: u64| DAY_MS.saturating_mul(days);
        match now.millis_since(at) {
            age if age <= HOUR_MS => Self::Hour,
            age if age <= DAY_MS => Self::Day,
            age if age <= most(3) => Self::ThreeDays,
            age if age <= most(7) => Self::Week,
            age if age <= most(31) => Self::Month,
            _ => Self::Older,
        }
    }
}
