//! What our own format says of a payment after its authorization: reversals and the bank's outcomes.
//!
//! A payment is named by our `transaction_id`, or by the bank's own key as `key:` and the key. The
//! path's name is repeated in the body, which is what is signed.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::value::RawValue;
use standin_core::entry::{ReversalCause, Settlement, SettlementKind};
use standin_core::id::TransactionId;
use standin_core::identity::{Operation, of_key, settlement_id};
use standin_core::money::Money;

use super::super::json::{self, Fields, fields, required, wrong};
use super::super::{Asked, Message, Understood};
use super::Native;
use crate::path::{TakeBack, TakenBack};
use crate::problem::Problem;

/// Before a bank's own key, in paths and bodies.
const BY_KEY: &str = "key:";

/// What a bank reads of money that came back.
#[derive(Serialize)]
pub(super) struct TakenBody {
    transaction_id: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reversed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<String>,
}

/// Reads `{"authorization": …, "reversal_id": …, "amount": …, "currency": …}`; without an amount
/// all that is left comes back.
pub(super) fn reversal(
    message: &Message<'_>,
    text: &str,
    payment: &str,
) -> Result<Understood, Problem> {
    let names = ["authorization", "reversal_id", "amount", "currency"];
    let Fields([said, key, amount, currency]) = fields(text, names)?;
    let currency = match currency {
        None => message.bank.currency,
        Some(raw) => json::currency(raw, "currency")?,
    };
    let amount = match amount {
        None => None,
        Some(raw) => Some(json::major_units(raw, "amount", currency)?),
    };
    if amount.is_some_and(|amount| amount.minor() == 0) {
        return Err(wrong("amount", "must be more than zero"));
    }
    let key = json::key(required(key, "reversal_id")?, "reversal_id")?;
    let by_key = names_by_key(said);
    let payment = self::payment(message, payment, said)?;
    let cause = ReversalCause::Bank;
    Ok(take_back(message, (payment, by_key), key, amount, cause))
}

/// Reads `{"authorization": …, "outcome": …}`: what the bank made of our approval. One that it did not
/// heed is taken back.
pub(super) fn outcome(
    message: &Message<'_>,
    text: &str,
    payment: &str,
) -> Result<Understood, Problem> {
    let Fields([said, outcome]) = fields(text, ["authorization", "outcome"])?;
    let outcome: String = json::word(required(outcome, "outcome")?, "outcome")?;
    if !matches!(outcome.as_str(), "timed_out" | "declined") {
        return Err(wrong("outcome", "must be timed_out or declined"));
    }
    let by_key = names_by_key(said);
    let payment = self::payment(message, payment, said)?;
    // A payment has one outcome, however often and in whichever words it is told.
    let (key, cause) = ("outcome".to_owned(), ReversalCause::Unheeded);
    Ok(take_back(message, (payment, by_key), key, None, cause))
}

/// Reads `{"settlement_id": …, "kind": …, "amount": …, "currency": …, "authorization": …, "shopper_id": …}`:
/// money that moved. Which payment and whose card may be left out.
pub(super) fn settlement(message: &Message<'_>, text: &str) -> Result<Understood, Problem> {
    let names = [
        "settlement_id",
        "kind",
        "amount",
        "currency",
        "authorization",
        "shopper_id",
    ];
    let Fields([key, kind, amount, currency, payment, shopper]) = fields(text, names)?;
    let key = json::key(required(key, "settlement_id")?, "settlement_id")?;
    let kind = json::word(required(kind, "kind")?, "kind")?;
    let kind: SettlementKind = kind
        .parse()
        .map_err(|_| wrong("kind", "must be capture, force_post or refund"))?;
    let currency = match currency {
        None => message.bank.currency,
        Some(raw) => json::currency(raw, "currency")?,
    };
    let amount = json::major_units(required(amount, "amount")?, "amount", currency)?;
    if amount.minor() == 0 {
        return Err(wrong("amount", "must be more than zero"));
    }
    let payment = match payment {
        None => None,
        Some(raw) => Some(named(message, &json::word(raw, "authorization")?)?),
    };
    if payment.is_none() && kind == SettlementKind::Capture {
        return Err(wrong("authorization", "is what a capture is of"));
    }
    let bank = message.bank.slug.clone();
    Ok(Understood {
        asked: Asked::Settlement(Box::new(Settlement {
            id: settlement_id(&bank, &key),
            bank,
            kind,
            transaction_id: payment,
            shopper: shopper.map(super::read_shopper).transpose()?,
            amount,
            at: message.at,
        })),
        reply: Box::new(Native),
    })
}

/// Whether a payment is named by the bank's own key.
fn names_by_key(said: Option<&RawValue>) -> bool {
    said.is_some_and(|raw| raw.get().trim_start_matches('"').starts_with(BY_KEY))
}

/// The payment that path and body name.
pub(super) fn payment(
    message: &Message<'_>,
    in_path: &str,
    in_body: Option<&RawValue>,
) -> Result<TransactionId, Problem> {
    let field = "authorization";
    let said: String = json::word(required(in_body, field)?, field)?;
    let in_path: Cow<'_, str> = percent_decode_str(in_path)
        .decode_utf8()
        .map_err(|_| Problem::NotFound)?;
    if said != in_path {
        return Err(wrong(field, "must be the payment that the path names"));
    }
    named(message, &said)
}

/// A payment by our id, or by the bank's own key.
fn named(message: &Message<'_>, said: &str) -> Result<TransactionId, Problem> {
    match said.strip_prefix(BY_KEY) {
        Some(key) if !key.is_empty() => Ok(of_key(&message.bank.slug, Operation::Authorize, key)),
        Some(_) => Err(Problem::NotFound),
        None => said.parse().map_err(|_| Problem::NotFound),
    }
}

fn take_back(
    message: &Message<'_>,
    (payment, by_key): (TransactionId, bool),
    key: String,
    amount: Option<Money>,
    cause: ReversalCause,
) -> Understood {
    let bank = message.bank.slug.clone();
    Understood {
        asked: Asked::TakeBack(TakeBack {
            bank,
            payment,
            key,
            amount,
            cause,
            by_key,
        }),
        reply: Box::new(Native),
    }
}

// === impl TakenBody ===

impl TakenBody {
    pub(super) fn of(payment: TransactionId, taken: &TakenBack) -> Self {
        let (state, back) = match taken {
            TakenBack::Money(back) => ("reversed", Some(*back)),
            TakenBack::Nothing => ("nothing_to_reverse", None),
            TakenBack::Forbidden => ("forbidden", None),
        };
        Self {
            transaction_id: payment.to_string(),
            state,
            reversed: back.map(Money::to_decimal),
            currency: back.map(|back| back.currency().code().to_owned()),
        }
    }
}
