//! What a reconciliation run came to, as `report.json` has it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use standin_core::answer::Why;
use standin_core::id::{BankId, TransactionId};
use standin_core::money::{Currency, Money};

use crate::totals::{Line, Sums, Totals};

/// What a reconciliation run came to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reconciliation {
    /// When it began, RFC 3339.
    pub started_at: String,
    /// When it ended.
    pub ended_at: String,
    /// The ledger's final answers, counted and summed.
    pub totals: Totals,
    /// Each log against the ledger.
    pub logs: Vec<LogMatch>,
    /// Each outage, entry by entry.
    pub outages: Vec<OutageProof>,
    /// Holds: released by this run, and still open.
    pub holds: HoldFigures,
    /// Answers that took longer than the bank's deadline to commit.
    pub late: Line,
    /// Final answers that no log given to this run holds; they were drained from others.
    pub elsewhere: u64,
    /// Between cap, picked and charged.
    pub variance: Variance,
    /// Approved beyond what the primary would have allowed.
    pub exposure: Exposure,
    /// What needs somebody's attention, oldest first.
    pub findings: Vec<Finding>,
    /// Findings past the bound, which are counted and not listed.
    pub findings_unlisted: u64,
}

/// One log against the ledger.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogMatch {
    /// Which log.
    pub log: Uuid,
    /// Its oldest kept batch.
    pub first_index: u64,
    /// Its last batch when the run began.
    pub last_index: u64,
    /// How far it is drained.
    pub cursor: u64,
    /// Entries read.
    pub entries: u64,
    /// Payments they answered.
    pub outcomes: u64,
    /// Of these: the final row has the same answer.
    pub matched: u64,
    /// No final row.
    pub missing: u64,
    /// The final row has another answer.
    pub differing: u64,
    /// The ledger could not book it as it is.
    pub conflicts: u64,
    /// Outcomes that this run itself booked, because the edge had not yet.
    pub drained_here: u64,
    /// Final rows that name a place in this log which does not hold them.
    pub extra: u64,
}

/// One outage of the primary: what its entries became.
///
/// `entries = drained + already + conflicts + missing + unanswered + other`; `sums` is of the
/// outcomes, `drained_sums` of those that are final rows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OutageProof {
    /// Which log.
    pub log: Uuid,
    /// Why it began.
    pub why: Why,
    /// Log time of its beginning, RFC 3339.
    pub from: String,
    /// Log time of its end; absent while it lasts.
    pub until: Option<String>,
    /// Milliseconds it lasted, to the log's end while it lasts.
    pub lasted_ms: u64,
    /// Entries between the two.
    pub entries: u64,
    /// Outcomes that are final rows with the same answer.
    pub drained: u64,
    /// Entries that repeated a payment answered before: booked once, with the first.
    pub already: u64,
    /// Outcomes that met another answer in the ledger, or that it rejected.
    pub conflicts: u64,
    /// Outcomes without a final row or conflict.
    pub missing: u64,
    /// Proposals that were given no answer: another fingerprint, or a released hold.
    pub unanswered: u64,
    /// Entries that answer no payment.
    pub other: u64,
    /// Of the outcomes.
    pub sums: Line,
    /// Of the final rows they became.
    pub drained_sums: Line,
}

/// Holds without an outcome.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct HoldFigures {
    /// Old enough to release when the run began.
    pub stale: u64,
    /// Released by this run.
    pub released: u64,
    /// Found to have an outcome after all.
    pub answered: u64,
    /// Still held at the end: too young, or not released.
    pub open: u64,
    /// Their money.
    pub open_minor: Sums,
}

/// Between cap, picked and charged, over trips with approvals.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Variance {
    /// Trips with an approval.
    pub trips: u64,
    /// Sum of what was picked when each trip was last charged.
    pub picked_minor: Sums,
    /// Sum of their caps then.
    pub cap_minor: Sums,
    /// Sum of what they were charged.
    pub charged_minor: Sums,
    /// Trips charged more than was picked.
    pub over_picked: u64,
    /// By how much, together.
    pub over_picked_minor: Sums,
    /// Trips charged less than was picked.
    pub under_picked: u64,
    /// By how much, together.
    pub under_picked_minor: Sums,
    /// Trips by what they were charged, in percent of what was picked.
    pub charged_of_picked: Vec<Bucket>,
}

/// Trips whose share lies between two bounds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Bucket {
    /// The bounds, in words: `90-100 %`.
    pub share: String,
    /// How many.
    pub trips: u64,
}

/// Money approved without the primary.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Exposure {
    /// Approved on `stand_in`.
    pub stand_in: Line,
    /// Approved on `isolated`.
    pub isolated: Line,
    /// Of both: what the primary's rules would have declined.
    pub beyond_primary: Line,
    /// Trips whose final approvals exceed the highest cap any of them was held against.
    pub over_cap_trips: u64,
    /// By how much, together.
    pub over_cap_minor: Sums,
}

/// Something that needs attention.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// What sort.
    pub kind: FindingKind,
    /// The payment, where it is about one.
    pub transaction_id: Option<TransactionId>,
    /// What was found.
    pub detail: String,
    /// Minor units at stake.
    pub amount_minor: i64,
    /// Their currency.
    pub currency: Option<Currency>,
    /// The bank, where it is about one.
    pub bank: Option<BankId>,
}

/// Sorts of findings.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// An outcome without a final row.
    Missing,
    /// An outcome whose final row has another answer.
    Differing,
    /// A final row that its log does not hold.
    Extra,
    /// An outcome the ledger could not book.
    Conflict,
    /// A hold that is stale and could not be released.
    StaleHold,
    /// A breakdown or a proof that does not add up.
    Sums,
    /// A log that ends below what was drained from it.
    LogCut,
}

/// Most findings listed; further ones are counted.
pub const FINDINGS_MAX: usize = 1_000;

// === impl Reconciliation ===

impl Reconciliation {
    /// The exit code of the command: 0 clean, 2 findings. (1 is for a run that could not run.)
    pub fn exit_code(&self) -> u8 {
        if self.findings.is_empty() { 0 } else { 2 }
    }

    /// Findings, listed or not.
    pub fn all_findings(&self) -> u64 {
        let listed = u64::try_from(self.findings.len()).unwrap_or(u64::MAX);
        listed.saturating_add(self.findings_unlisted)
    }

    /// Lists a finding, or counts it past [`FINDINGS_MAX`].
    pub fn find(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.findings_unlisted = self.findings_unlisted.saturating_add(1);
        }
    }
}

// === impl OutageProof ===

impl OutageProof {
    /// Whether every entry is accounted for, and what was booked sums to what was answered unless
    /// an outcome is in conflict or missing.
    pub fn adds_up(&self) -> bool {
        let parts = [
            self.drained,
            self.already,
            self.conflicts,
            self.missing,
            self.unanswered,
            self.other,
        ];
        let sum = parts.into_iter().fold(0_u64, u64::saturating_add);
        let all_booked = self.conflicts == 0 && self.missing == 0;
        sum == self.entries
            && self.drained == self.drained_sums.count()
            && (!all_booked || self.sums == self.drained_sums)
    }
}

// === impl Finding ===

impl Finding {
    /// The money it is about, as people read it.
    pub fn at_stake(&self) -> String {
        match self.currency {
            Some(currency) => Money::from_minor(self.amount_minor, currency).to_string(),
            None if self.amount_minor == 0 => "0".to_owned(),
            None => format!("{} minor units", self.amount_minor),
        }
    }
}

// === impl FindingKind ===

impl FindingKind {
    /// The word in rows and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Differing => "differing",
            Self::Extra => "extra",
            Self::Conflict => "conflict",
            Self::StaleHold => "stale_hold",
            Self::Sums => "sums",
            Self::LogCut => "log_cut",
        }
    }
}
