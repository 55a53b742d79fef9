//! What a settlement report says: one struct that is `settlement.json` as it is and that
//! `settlement.html` is made from, and the CSV files with every discrepancy and every bad line.
//!
//! The same file, mapping and ledger give the same bytes: nothing here says when or how often it ran.

pub mod files;
pub mod html;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use standin_core::answer::{Rung, Why};
use standin_core::id::{BankId, ShopperId, StoreId, TransactionId, TripId};
use standin_core::ledger::clearing::CaseState;
use standin_core::money::Currency;

use super::file::{BadLine, FileSums};
use super::kind::{Age, DiscrepancyKind};
use super::rules::Rules;
use super::tally::Tally;

/// Most discrepancies and bad lines listed in the report; `findings.csv` and `bad-lines.csv` have all.
pub const LISTED_MAX: usize = 1_000;

/// What a bank's clearing file came to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SettlementReport {
    /// Whose file.
    pub bank: BankId,
    /// What the layout is called.
    pub layout: String,
    /// The file's name when it was first read.
    pub file: String,
    /// SHA-256 of the mapping, hexadecimal.
    pub mapping_sha256: String,
    /// What the file holds.
    pub sums: FileSums,
    /// Other files of the bank whose lines were looked at.
    pub other_files: Vec<OtherFile>,
    /// The period and the zone it is in.
    pub period: Period,
    /// How far each log was drained into the ledger when the payments were read.
    pub watermark: Vec<Watermark>,
    /// How near was near enough.
    pub rules: Rules,
    /// Counts and sums.
    pub tally: Tally,
    /// What does not add up; empty when everything does.
    pub broken: Vec<String>,
    /// Discrepancies, the first [`LISTED_MAX`].
    pub findings: Vec<FindingLine>,
    /// Further ones, which are in `findings.csv`.
    pub findings_unlisted: u64,
    /// Bad lines, the first [`LISTED_MAX`].
    pub bad_lines: Vec<BadLine>,
    /// Further ones, which are in `bad-lines.csv`.
    pub bad_lines_unlisted: u64,
}

/// Another file whose lines were looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OtherFile {
    /// Its name.
    pub name: String,
    /// Its hash.
    pub sha256: String,
}

/// What time a report is about; RFC 3339 with the zone's offset.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Period {
    /// Its beginning.
    pub from: String,
    /// Its end, not included.
    pub until: String,
    /// Ages are counted up to here.
    pub as_of: String,
    /// The zone, by its IANA name.
    pub zone: String,
}

/// How far a log was drained.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Watermark {
    /// The log.
    pub log: Uuid,
    /// Index of its last batch in the ledger.
    pub index: u64,
}

/// One discrepancy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FindingLine {
    /// Its case: the same in every run.
    pub id: Uuid,
    /// What sort.
    pub kind: DiscrepancyKind,
    /// Where the case stands.
    pub state: CaseState,
    /// Whose it is.
    pub owner: Option<String>,
    /// How old it is.
    pub age: Age,
    /// When what it is about happened, RFC 3339.
    pub at: String,
    /// The payment.
    pub transaction_id: Option<TransactionId>,
    /// The line in the file.
    pub line: Option<u64>,
    /// Whose card.
    pub shopper: Option<ShopperId>,
    /// The trip.
    pub trip: Option<TripId>,
    /// The store.
    pub store: Option<StoreId>,
    /// How the payment was answered.
    pub rung: Option<Rung>,
    /// Why not on the primary.
    pub why: Option<Why>,
    /// The log its answer came from.
    pub log: Option<Uuid>,
    /// Where there: the batch, …
    pub log_index: Option<u64>,
    /// … and the place in it.
    pub log_slot: Option<u32>,
    /// Amounts are minor units of this.
    pub currency: Currency,
    /// What was picked when it was answered.
    pub picked: Option<i64>,
    /// The cap it was held against.
    pub cap: Option<i64>,
    /// Approved less reversed.
    pub authorized: Option<i64>,
    /// Charged less refunded.
    pub cleared: Option<i64>,
    /// What the cart came to.
    pub receipt: Option<i64>,
    /// Money at stake.
    pub at_stake: i64,
    /// What was found, in words.
    pub detail: String,
}

// === impl SettlementReport ===

impl SettlementReport {
    /// Whether nothing needs attention.
    pub fn is_clean(&self) -> bool {
        self.tally.unsettled() == 0 && self.sums.bad == 0 && self.broken.is_empty()
    }

    /// The exit code of the command: 0 clean, 2 findings. (1 is for a run that could not run.)
    pub fn exit_code(&self) -> u8 {
        if self.is_clean() { 0 } else { 2 }
    }
}
