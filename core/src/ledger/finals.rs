//! How answers become final in the ledger: from the log by the drain, or by an advice without it.

use uuid::Uuid;

use super::BOOK_ROWS_MAX;
use crate::answer::Answer;
use crate::clock::Timestamp;
use crate::entry::{
    Booking, LogPosition, OperatorAction, Proposal, Reversal, ReversalCause, Settlement,
};
use crate::id::{ShopperId, TransactionId};
use crate::money::Currency;
use crate::register::Register;

/// An answer that Postgres alone commits, over the hold of its proposal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advice {
    /// What was held.
    pub proposal: Proposal,
    /// The answer, of the verdict that was proposed to the log.
    pub answer: Answer,
    /// When, by the edge's clock: there is no log time.
    pub at: Timestamp,
}

/// What became of an advice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Advised {
    /// The answer is final.
    Final,
    /// The payment has a final answer: this one. (A repeat after a lost reply finds its own.)
    Stored(Box<Answer>),
    /// The transaction id belongs to a request that said something else.
    OtherFingerprint,
    /// The hold was released: the payment may not be answered any more.
    Released,
    /// Nothing is held; nothing was changed. Of a decline the claim of its id is the hold.
    NoHold,
}

/// One step of the drain: what batches `from+1 ..= to` hold.
#[derive(Clone, Debug, Default)]
pub struct DrainStep {
    /// Incarnation of the log.
    pub log: Uuid,
    /// Where the cursor must be.
    pub from: u64,
    /// Where it goes.
    pub to: u64,
    /// Outcomes, in log order; at most [`BOOK_ROWS_MAX`].
    pub outcomes: Vec<Booking>,
    /// Other words for answers of this log, in log order; at most [`BOOK_ROWS_MAX`]. Booked after the
    /// outcomes.
    pub rewordings: Vec<Rewording>,
    /// Reversals, in log order; at most [`BOOK_ROWS_MAX`]. Booked after the outcomes.
    pub reversals: Vec<ReversalRow>,
    /// Movements of money, in log order; at most [`BOOK_ROWS_MAX`].
    pub settlements: Vec<SettlementRow>,
    /// Operators' actions, in log order.
    pub actions: Vec<OperatorAction>,
}

/// The words of an advice that the bank holds, for an answer that the log had given before it: the
/// same verdict, amount and code, reached otherwise.
///
/// A row that came from an earlier entry of the same log says these words from then on; where and when
/// the payment was answered stays, as it does in the register. Of any other row nothing changes, and
/// nothing of it is a conflict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rewording {
    /// The answer in these words.
    pub answer: Answer,
    /// Where the advice stands.
    pub at: LogPosition,
}

/// A movement of money, and where in the log it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SettlementRow {
    /// The movement.
    pub settlement: Settlement,
    /// Where.
    pub at: LogPosition,
}

/// Money of an authorization that a bank took back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReversalRow {
    /// Whose card, where it is known.
    pub shopper: Option<ShopperId>,
    /// The payment; it may not have a row (yet).
    pub transaction_id: TransactionId,
    /// With the payment the key: booking it twice is booking it once.
    pub reversal_id: Uuid,
    /// Minor units; zero or less is kept and takes nothing back.
    pub amount: i64,
    /// Counts only when it is the authorization's.
    pub currency: Currency,
    /// Why, in the bank's words.
    pub reason: String,
    /// Log time.
    pub at: Timestamp,
}

/// What a drain step did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BookedCounts {
    /// Rows that became final, or that the primary had made final by itself and that now say the log's
    /// words.
    pub finalized: u64,
    /// Rows that were final already with the same answer, however it was reached.
    pub already: u64,
    /// Rows that went to `conflicts`.
    pub conflicts: u64,
}

/// What a drain step did, or that another drainer was there first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Booked {
    /// The cursor moved.
    Moved(BookedCounts),
    /// The cursor was elsewhere; nothing changed.
    Raced {
        /// Where it is.
        cursor: u64,
    },
}

// === impl ReversalRow ===

impl ReversalRow {
    /// What a reversal that the log has applied took back; `None` when it took nothing.
    pub fn of(register: &Register, reversal: &Reversal, log_time_ms: u64) -> Option<Self> {
        let id = reversal.transaction_id;
        let at = Timestamp::from_millis(i64::try_from(log_time_ms).unwrap_or(i64::MAX));
        if let Some(currency) = reversal.booked_in.filter(|_| !register.knows(id)) {
            return Some(Self {
                shopper: reversal.shopper,
                transaction_id: id,
                reversal_id: reversal.id,
                amount: reversal.amount.filter(|amount| *amount > 0)?,
                currency,
                reason: reason(reversal.cause).to_owned(),
                at,
            });
        }
        let amount = register
            .reversal(id, reversal.id)
            .filter(|amount| *amount > 0)?;
        let answer = register.answer(id)?;
        Some(Self {
            shopper: Some(answer.shopper),
            transaction_id: id,
            reversal_id: reversal.id,
            amount,
            currency: answer.amount.currency(),
            reason: reason(reversal.cause).to_owned(),
            at,
        })
    }
}

const fn reason(cause: ReversalCause) -> &'static str {
    match cause {
        ReversalCause::Bank => "the bank took it back",
        ReversalCause::Late => "approved too late to be told, and the bank did not ask again",
        ReversalCause::Unheeded => "the bank had not waited for the approval",
    }
}

// === impl DrainStep ===

impl DrainStep {
    /// Rows of payments and of movements of money that the ledger writes for it.
    pub fn rows(&self) -> usize {
        let lists = [
            self.outcomes.len(),
            self.rewordings.len(),
            self.reversals.len(),
            self.settlements.len(),
        ];
        lists.into_iter().fold(0, usize::saturating_add)
    }

    /// Whether one transaction takes it.
    pub(super) fn fits(&self) -> bool {
        self.outcomes.len() <= BOOK_ROWS_MAX
            && self.rewordings.len() <= BOOK_ROWS_MAX
            && self.reversals.len() <= BOOK_ROWS_MAX
            && self.settlements.len() <= BOOK_ROWS_MAX
    }
}
