//! What reconciliation keeps beside the ledger: a bank's clearing files, line by line, and findings
//! as cases that people work on.
//!
//! A port of its own, because only reconciliation asks it; the adapters are those of the ledger and
//! pass the same suite. Every call is harmless when repeated.

use std::collections::BTreeSet;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Ledger, LedgerError};
use crate::BoxFuture;
use crate::answer::UnknownWord;
use crate::clock::Timestamp;
use crate::entry::Settlement;
use crate::id::{BankId, ShopperId, TransactionId, TripId};
use crate::ledger::Card;
use crate::money::{Currency, Money};

/// Most lines staged, and most payments, shoppers, trips or lines asked about, in one call.
pub const CLEARING_ROWS_MAX: usize = 5_000;
/// Most cases kept or told in one call.
pub const CASE_ROWS_MAX: usize = 1_000;
/// Most runs told in one call: a report may be long.
pub const RUN_ROWS_MAX: usize = 20;
/// Longest word an operator may give, in bytes: a name, a reason.
pub const CASE_WORD_BYTES_MAX: usize = 1_000;

/// The books of reconciliation.
pub trait ClearingBooks: Ledger {
    /// Opens a file for staging, or finds it as it is: the first opening's time stays.
    fn open_file(&self, file: ClearingFile) -> BoxFuture<'_, Result<ClearingFile, LedgerError>>;

    /// Stages lines and moves the file's `staged_to`, in one transaction, by compare-and-set. Gives
    /// where it is then: not `step.to` when somebody else stages too.
    fn stage(&self, step: StageStep) -> BoxFuture<'_, Result<u64, LedgerError>>;

    /// Lets a file whose lines are all staged count, in the place of the same file under another
    /// mapping.
    fn complete_file(&self, file: Uuid) -> BoxFuture<'_, Result<(), LedgerError>>;

    /// A bank's complete files, in the order in which they were opened; at most 10,000.
    fn clearing_files(&self, bank: BankId)
    -> BoxFuture<'_, Result<Vec<ClearingFile>, LedgerError>>;

    /// What stands beside some payments.
    fn beside(&self, ask: BesideAsk) -> BoxFuture<'_, Result<Beside, LedgerError>>;

    /// Lines of a file by their numbers, in order.
    fn lines_at(
        &self,
        file: Uuid,
        lines: Vec<u64>,
    ) -> BoxFuture<'_, Result<Vec<ClearingLine>, LedgerError>>;

    /// Those of these payments that have a row in the ledger.
    fn known_payments(
        &self,
        payments: Vec<TransactionId>,
    ) -> BoxFuture<'_, Result<BTreeSet<TransactionId>, LedgerError>>;

    /// How far every log was drained, by log; at most 10,000.
    fn cursors(&self) -> BoxFuture<'_, Result<Vec<(Uuid, u64)>, LedgerError>>;

    /// Keeps findings as cases, at most [`CASE_ROWS_MAX`]; gives each as it stands, in the order
    /// given. A new one is open. One that is there keeps its owner and state, unless it was resolved
    /// or written off and its facts are others now: then it is open again. Of two under one id in one
    /// call the first counts.
    fn keep_cases(
        &self,
        found: Vec<FoundCase>,
        at: Timestamp,
    ) -> BoxFuture<'_, Result<Vec<CaseStanding>, LedgerError>>;

    /// Cases by id, from after `after` on, at most `limit` and [`CASE_ROWS_MAX`].
    fn cases(
        &self,
        filter: CaseFilter,
        after: Option<Uuid>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<Case>, LedgerError>>;

    /// One case and everything that happened to it.
    fn case(&self, id: Uuid) -> BoxFuture<'_, Result<Option<CaseTrail>, LedgerError>>;

    /// Does something to a case, and writes down who did it.
    fn act_on_case(&self, action: CaseAction) -> BoxFuture<'_, Result<Acted, LedgerError>>;

    /// Runs that were kept, of the log's job and of clearing files, the last that ended first: those
    /// before `before`, at most `limit` and [`RUN_ROWS_MAX`].
    fn runs(
        &self,
        before: Option<RunPlace>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<KeptRun>, LedgerError>>;
}

/// Where a run stands among the others: when it ended, and its id.
pub type RunPlace = (Timestamp, Uuid);

/// A run as it was kept.
#[derive(Clone, PartialEq, Debug)]
pub struct KeptRun {
    /// Its id.
    pub id: Uuid,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Its report.
    pub report: serde_json::Value,
}

/// A bank's clearing file under one mapping.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClearingFile {
    /// Of bank, content and mapping.
    pub id: Uuid,
    /// Whose.
    pub bank: BankId,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
    /// SHA-256 of the mapping it is read by, hexadecimal.
    pub mapping: String,
    /// Its name when it was first opened, without folders.
    pub name: String,
    /// Number of its last line.
    pub last_line: u64,
    /// Every line up to this one is staged.
    pub staged_to: u64,
    /// Whether its lines count.
    pub state: FileState,
    /// When it was first opened: ages are counted up to here.
    pub opened_at: Timestamp,
}

/// Whether a file's lines count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// Not yet: some are not staged.
    Staging,
    /// They do.
    Complete,
    /// No more: the same file was read by another mapping.
    Replaced,
}

/// What a line of a clearing file says happened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineKind {
    /// An approval was charged, whole, in part or more.
    Capture,
    /// Something was charged without an approval.
    ForcePost,
    /// Money went back to the card.
    Refund,
    /// An approval was taken back before it was charged.
    Reversal,
    /// The bank declined in the end, whatever we had answered.
    Declined,
}

/// How a line names its payment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamedBy {
    /// By our transaction id.
    Id,
    /// By the bank's own key (a token, or acquirer, trace number, time, terminal and merchant).
    Key,
}

/// One line of a clearing file, read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClearingLine {
    /// The file.
    pub file: Uuid,
    /// Number in it, from 1.
    pub line: u64,
    /// Of the bank's own reference of the line, where it has one: a line told again has the same.
    pub reference: Option<Uuid>,
    /// What happened.
    pub kind: LineKind,
    /// The payment, where the line names one.
    pub transaction_id: Option<TransactionId>,
    /// How it names it.
    pub named_by: Option<NamedBy>,
    /// Whose card, where the line or the table of cards says.
    pub shopper: Option<ShopperId>,
    /// The approval code on it.
    pub code: Option<String>,
    /// The merchant's name on it.
    pub merchant: Option<String>,
    /// The merchant's id in the card network.
    pub network_id: Option<String>,
    /// The terminal's.
    pub terminal: Option<String>,
    /// How much; never negative.
    pub amount: Money,
    /// When it was cleared.
    pub at: Timestamp,
}

/// Lines to stage: those of `from+1 ..= to`.
#[derive(Clone, Debug)]
pub struct StageStep {
    /// The file.
    pub file: Uuid,
    /// Where `staged_to` must be.
    pub from: u64,
    /// Where it goes.
    pub to: u64,
    /// The lines, at most [`CLEARING_ROWS_MAX`], in order; what was bad is not among them.
    pub lines: Vec<StagedLine>,
}

/// A line, and the card on it by which its shopper may be found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StagedLine {
    /// The line.
    pub line: ClearingLine,
    /// Whose card, by token, where no shopper is named.
    pub card: Option<Card>,
}

/// Payments, shoppers and trips to be asked about, at most [`CLEARING_ROWS_MAX`] of each.
#[derive(Clone, Default, Debug)]
pub struct BesideAsk {
    /// Payments: lines, the bank's movements and conflicts are told of these.
    pub payments: Vec<TransactionId>,
    /// Shoppers whose lines are told, whatever payment they name.
    pub shoppers: Vec<ShopperId>,
    /// Trips whose receipts are told.
    pub trips: Vec<(ShopperId, TripId)>,
}

/// What stands beside payments.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Beside {
    /// Lines of the payments or of the shoppers, each once, by file and number; those of files that
    /// do not count are among them.
    pub lines: Vec<ClearingLine>,
    /// What the bank told an edge of money that moved.
    pub movements: Vec<Settlement>,
    /// Payments with an outcome that the ledger could not book.
    pub conflicted: BTreeSet<TransactionId>,
    /// Receipts of the trips that are there.
    pub receipts: Vec<Receipt>,
}

/// What a trip's cart came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Receipt {
    /// The trip.
    pub trip: TripId,
    /// Sum of what was picked, actual prices where known.
    pub picked: Money,
    /// Whether shopping is over, so that it is the final one.
    pub closed: bool,
}

/// The states of a case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaseState {
    /// Nobody's yet.
    Open,
    /// Somebody works on it.
    Assigned,
    /// It is settled.
    Resolved,
    /// The money is given up.
    WrittenOff,
}

/// A finding to keep as a case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundCase {
    /// Of kind, bank and subject: the same finding has the same id in every run.
    pub id: Uuid,
    /// Kind of finding.
    pub kind: String,
    /// The bank, where it is about one.
    pub bank: Option<BankId>,
    /// The payment, where it is about one.
    pub transaction_id: Option<TransactionId>,
    /// Whose card.
    pub shopper: Option<ShopperId>,
    /// What it is about: a payment, a line, a trip.
    pub subject: String,
    /// What was found.
    pub detail: String,
    /// Minor units at stake.
    pub amount: i64,
    /// Their currency.
    pub currency: Option<Currency>,
    /// When what it is about happened: its age is counted from here.
    pub occurred_at: Timestamp,
    /// Of everything that would make it another finding.
    pub facts: String,
}

/// A case as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// What was found.
    pub found: FoundCase,
    /// Where it stands.
    pub state: CaseState,
    /// Whose it is.
    pub owner: Option<String>,
    /// When it was first found.
    pub found_at: Timestamp,
}

/// A case and everything that happened to it, in order.
pub type CaseTrail = (Case, Vec<CaseEvent>);

/// Where a case stands, and what keeping it did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CaseStanding {
    /// State after it was kept.
    pub state: CaseState,
    /// Its owner.
    pub owner: Option<String>,
    /// What keeping it did.
    pub kept: Kept,
}

/// What keeping a finding did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    /// A new case.
    New,
    /// It was there, as it is.
    Known,
    /// Its facts are others now.
    Changed,
    /// Its facts are others now, and it had been settled: it is open again.
    Reopened,
}

/// Which cases.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct CaseFilter {
    /// Of one bank.
    pub bank: Option<BankId>,
    /// Of one kind.
    pub kind: Option<String>,
    /// In one state.
    pub state: Option<CaseState>,
    /// Of one owner.
    pub owner: Option<String>,
}

/// Something that happened to a case.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CaseEvent {
    /// When.
    pub at: Timestamp,
    /// Who: an operator, or `reconcile`.
    pub actor: String,
    /// What: `found`, `changed`, `reopened`, `assigned`, `resolved`, `written_off`.
    pub action: String,
    /// The owner from then on.
    pub owner: Option<String>,
    /// Why.
    pub reason: String,
}

/// What somebody does to a case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CaseAction {
    /// The case.
    pub case: Uuid,
    /// Who does it.
    pub actor: String,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
    /// What.
    pub what: CaseOrder,
}

/// What can be done to a case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CaseOrder {
    /// It is somebody's now; one that was settled is not any more.
    Assign {
        /// Whose.
        to: String,
    },
    /// It is settled.
    Resolve,
    /// The money is given up.
    WriteOff,
}

/// What became of an action.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Acted {
    /// The case stands like this.
    Done(Box<Case>),
    /// It is in that state already; nothing was changed.
    Already(CaseState),
    /// No such case.
    Unknown,
}

/// The actor of what runs do themselves.
pub(super) const RECONCILE: &str = "reconcile";

macro_rules! words {
    ($($name:ident { $($variant:ident = $word:literal),* $(,)? })*) => {$(
        impl $name {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word in rows and reports.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;
            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                let found = Self::ALL.iter().find(|one| one.as_str() == word);
                found.copied().ok_or_else(|| UnknownWord(word.to_owned()))
            }
        }
    )*};
}
words! {
    FileState { Staging = "staging", Complete = "complete", Replaced = "replaced" }
    LineKind {
        Capture = "capture", ForcePost = "force_post", Refund = "refund", Reversal = "reversal",
        Declined = "declined",
    }
    NamedBy { Id = "id", Key = "key" }
    CaseState {
        Open = "open", Assigned = "assigned", Resolved = "resolved", WrittenOff = "written_off",
    }
}

// === impl LineKind ===

impl LineKind {
    /// Whether it takes money.
    pub const fn charges(self) -> bool {
        match self {
            Self::Capture | Self::ForcePost => true,
            Self::Refund | Self::Reversal | Self::Declined => false,
        }
    }
}

// === impl KeptRun ===

impl KeptRun {
    /// Its place among the others.
    pub const fn place(&self) -> RunPlace {
        (self.ended_at, self.id)
    }
}

// === impl CaseState ===

impl CaseState {
    /// Whether nobody need look at it any more.
    pub const fn is_settled(self) -> bool {
        match self {
            Self::Open | Self::Assigned => false,
            Self::Resolved | Self::WrittenOff => true,
        }
    }

    /// What becomes of a case in this state when it is found again.
    pub(super) const fn kept(self, same_facts: bool) -> Kept {
        match (same_facts, self.is_settled()) {
            (true, _) => Kept::Known,
            (false, false) => Kept::Changed,
            (false, true) => Kept::Reopened,
        }
    }
}

// === impl CaseAction ===

impl CaseAction {
    /// What it makes of a case in a state with an owner; `None` where nothing changes.
    pub(super) fn on(
        &self,
        state: CaseState,
        owner: Option<&str>,
    ) -> Option<(CaseState, Option<String>)> {
        let stays = owner.map(str::to_owned);
        let (next, owner_next) = match &self.what {
            CaseOrder::Assign { to } => (CaseState::Assigned, Some(to.clone())),
            CaseOrder::Resolve => (CaseState::Resolved, stays),
            CaseOrder::WriteOff => (CaseState::WrittenOff, stays),
        };
        let same = next == state && owner_next.as_deref() == owner;
        (!same).then_some((next, owner_next))
    }

    /// Refuses words that are missing, too long or not to be kept.
    pub(super) fn check(&self) -> Result<(), LedgerError> {
        let to = match &self.what {
            CaseOrder::Assign { to } => to.as_str(),
            CaseOrder::Resolve | CaseOrder::WriteOff => "-",
        };
        let words = [self.actor.as_str(), self.reason.as_str(), to];
        let good = |word: &&str| {
            !word.trim().is_empty() && word.len() <= CASE_WORD_BYTES_MAX && !word.contains('\0')
        };
        if words.iter().all(good) {
            return Ok(());
        }
        Err(super::rows::wrong(
            "who, whose and why are 1 to 1,000 bytes each",
        ))
    }

    /// The word of what was done.
    pub(super) const fn word(&self) -> &'static str {
        match self.what {
            CaseOrder::Assign { .. } => "assigned",
            CaseOrder::Resolve => "resolved",
            CaseOrder::WriteOff => "written_off",
        }
    }
}

// === impl Kept ===

impl Kept {
    /// The word in a case's trail; `None` where nothing happened.
    pub(super) const fn word(self) -> Option<&'static str> {
        match self {
            Self::New => Some("found"),
            Self::Known => None,
            Self::Changed => Some("changed"),
            Self::Reopened => Some("reopened"),
        }
    }
}
