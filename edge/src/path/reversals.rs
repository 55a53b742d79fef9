//! Money that comes back: a bank takes an approval back, whole or in part, or says that it had not
//! waited for it.
//!
//! A reversal is an entry like an authorization, and as safe to send again: its id is made from what the
//! bank said. One that comes before its authorization forbids it. Of a payment older than what the log
//! remembers the ledger keeps account, so that one needs the primary.

use standin_core::answer::{Answer, Verdict};
use standin_core::entry::{Entry, Reversal, ReversalCause};
use standin_core::id::{BankId, TransactionId};
use standin_core::identity;
use standin_core::ledger::AuthorizationState;
use standin_core::money::Money;
use standin_core::register::Outcome;

use super::advised::no_commit;
use super::{Path, Refusal};
use crate::budget::Budget;
use crate::primary::Route;

/// What a bank takes back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TakeBack {
    /// The bank.
    pub bank: BankId,
    /// The payment.
    pub payment: TransactionId,
    /// The bank's own key of the reversal.
    pub key: String,
    /// How much; `None`: all that is left.
    pub amount: Option<Money>,
    /// On whose word, and why.
    pub cause: ReversalCause,
    /// The payment is named by the bank's own key, so that it is the bank's if it ever comes. An id alone
    /// may be another bank's: nobody may forbid that.
    pub by_key: bool,
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TakenBack {
    /// So much came back to the trip; the same again says the same.
    Money(Money),
    /// The payment was declined: there is nothing to take back.
    Nothing,
    /// The payment was not answered, and will not be.
    Forbidden,
}

/// What is known of the payment.
enum Known {
    /// Its answer; where the log has forgotten it, how much is left of it and whose it is.
    Answer(Box<Answer>, Option<i64>),
    /// Nobody has answered it.
    Nothing,
}

impl Path {
    /// Takes an approval back, or says why it is not known to be done.
    pub async fn take_back(&self, asked: &TakeBack, budget: &Budget) -> Result<TakenBack, Refusal> {
        // The log is yet to hear of an answer that was given without it.
        if self.advices.keeps(asked.payment) {
            return Err(Refusal::StillDeciding);
        }
        let id = asked.payment;
        let known = match self.log.read(|register| register.answer(id)) {
            Some(answer) => Known::Answer(Box::new(answer), None),
            None if self.log.read(|register| register.knows(id)) => Known::Nothing,
            None => self.booked(&asked.bank, id, budget).await?,
        };
        let (shopper, currency, left) = match &known {
            Known::Nothing if !asked.by_key => return Err(Refusal::NoSuchPayment),
            Known::Nothing => (None, None, None),
            Known::Answer(answer, left) => {
                if answer.bank != asked.bank {
                    return Err(Refusal::NoSuchPayment);
                }
                if answer.verdict == Verdict::Declined {
                    return Ok(TakenBack::Nothing);
                }
                let currency = answer.amount.currency();
                if asked.amount.is_some_and(|one| one.currency() != currency) {
                    return Err(Refusal::OtherCurrency);
                }
                (Some(answer.shopper), Some(currency), *left)
            }
        };
        let minor = asked.amount.map(Money::minor);
        let entry = Entry::Reverse(Reversal {
            id: identity::reversal_id(&asked.bank, id, &asked.key, minor),
            transaction_id: id,
            shopper,
            amount: match left {
                Some(left) => Some(minor.map_or(left, |minor| minor.min(left))),
                None => minor,
            },
            cause: asked.cause,
            booked_in: currency.filter(|_| left.is_some()),
        });
        match self.log.propose(&entry, budget.wal()).await {
            Ok(Outcome::Reversed(back)) => {
                let answer = match known {
                    Known::Answer(answer, _) => Some(answer),
                    // It was answered while the reversal was on its way.
                    Known::Nothing => self.log.read(|register| register.answer(id)).map(Box::new),
                };
                let answer = answer.ok_or(Refusal::Unknown)?;
                self.show_reduced(&answer);
                let currency = answer.amount.currency();
                Ok(TakenBack::Money(Money::from_minor(back, currency)))
            }
            Ok(Outcome::Tombstoned) => Ok(TakenBack::Forbidden),
            Ok(Outcome::OtherFingerprint) => Err(Refusal::OtherFingerprint(id)),
            Ok(Outcome::Noted | Outcome::Answered(_) | Outcome::Known(_)) => Ok(TakenBack::Nothing),
            Err(error) => Err(no_commit(&error)),
        }
    }

    /// The trip cache hears what is left, for the regions that decide from it.
    fn show_reduced(&self, answer: &Answer) {
        let Some(trip) = answer.trip else { return };
        let approvals = self.log.read(|register| register.approvals(trip));
        let mut approvals = approvals.into_iter();
        let id = answer.transaction_id;
        if let Some(left) = approvals.find(|approval| approval.transaction_id == id) {
            self.afterwards.counts(trip, left);
        }
    }

    /// What the ledger has of a payment that the log does not know: it may be older than the window.
    async fn booked(
        &self,
        bank: &BankId,
        id: TransactionId,
        budget: &Budget,
    ) -> Result<Known, Refusal> {
        match self.route(bank) {
            Route::Refuse(why) | Route::StandIn(why) => return Err(Refusal::PaymentUnseen(why)),
            Route::Ask | Route::AskOnly => {}
        }
        let row = self.ledger.authorization(id);
        match self.in_time(row, "looking a payment up", budget).await {
            Err(error) => Err(Refusal::PaymentUnseen(error.why)),
            Ok(None) => Ok(Known::Nothing),
            Ok(Some(row)) => Ok(match row.state {
                AuthorizationState::Held | AuthorizationState::Released => Known::Nothing,
                AuthorizationState::Final | AuthorizationState::Reversed => {
                    let left = row.answer.amount.minor().saturating_sub(row.reversed);
                    Known::Answer(Box::new(row.answer), Some(left))
                }
            }),
        }
    }
}
