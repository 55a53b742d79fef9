//! Our own format: `{"shopper_id":123,"amount":300,"merchant":{"name":…,"address":…}}`, answered with
//! 200 or 402 and a body that says everything.
//!
//! A card number anywhere in a body is refused: what is read here comes to be in logs on disk for good.

use http::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;
use standin_core::answer::{Answer, Reason, Rung, Verdict};
use standin_core::authorization::{Authorization, Merchant, Particulars};
use standin_core::card_number::holds_card_number;
use standin_core::id::{ShopperId, TransactionId};
use standin_core::money::{Currency, Money};

use super::json::{self, Fields, fields, object, required, wrong};
use super::{Asked, Message, Rendered, Reply, Resource, Understood};
use crate::path::TakenBack;
use crate::problem::Problem;

mod lifecycle;

const REQUEST: [&str; 6] = [
    "shopper_id",
    "amount",
    "merchant",
    "currency",
    "transaction_id",
    "partial_approval",
];
const MERCHANT: [&str; 4] = ["name", "address", "network_id", "terminal_id"];

/// Replies to a request in our own format: its answer says everything.
#[derive(Clone, Copy, Debug)]
pub struct Native;

/// Reads a request.
pub fn understand(message: &Message<'_>) -> Result<Understood, Problem> {
    let text = json::text_of(message.body)?;
    if holds_card_number(text) {
        return Err(Problem::CardNumber);
    }
    match message.resource {
        Resource::Authorizations => authorization(message, text, Particulars::default()),
        Resource::Increments(payment) => increment(message, text, payment),
        Resource::Reversals(payment) => lifecycle::reversal(message, text, payment),
        Resource::Outcomes(payment) => lifecycle::outcome(message, text, payment),
        Resource::Advices => advice(message, text),
        Resource::Settlements => lifecycle::settlement(message, text),
    }
}

/// An advice is an authorization with a key of its own that says what the bank decided.
fn advice(message: &Message<'_>, text: &str) -> Result<Understood, Problem> {
    let Fields([decision, key]) = fields(text, ["decision", "transaction_id"])?;
    required(key, "transaction_id")?;
    let decision: String = json::word(required(decision, "decision")?, "decision")?;
    let understood = authorization(message, text, Particulars::default())?;
    let asked = match (decision.as_str(), understood.asked) {
        ("approved", Asked::Authorization(asked)) => Asked::Advice(asked),
        ("declined", _) => Asked::Notice,
        _ => return Err(wrong("decision", "must be approved or declined")),
    };
    Ok(Understood {
        asked,
        reply: understood.reply,
    })
}

/// An increment is an authorization with a key of its own that says what it adds to.
fn increment(message: &Message<'_>, text: &str, payment: &str) -> Result<Understood, Problem> {
    let Fields([said, key]) = fields(text, ["authorization", "transaction_id"])?;
    required(key, "transaction_id")?;
    let particulars = Particulars {
        adds_to: Some(lifecycle::payment(message, payment, said)?),
        ..Particulars::default()
    };
    authorization(message, text, particulars)
}

fn authorization(
    message: &Message<'_>,
    text: &str,
    mut particulars: Particulars,
) -> Result<Understood, Problem> {
    let Fields([shopper, amount, merchant, currency, key, partial]) = fields(text, REQUEST)?;
    let partial = json::flag(partial, "partial_approval")?;
    particulars.partial = message.bank.partial_approvals && partial;
    let currency = match currency {
        None => message.bank.currency,
        Some(raw) => json::currency(raw, "currency")?,
    };
    let authorization = Authorization {
        bank: message.bank.slug.clone(),
        shopper: read_shopper(required(shopper, "shopper_id")?)?,
        amount: json::major_units(required(amount, "amount")?, "amount", currency)?,
        merchant: read_merchant(required(merchant, "merchant")?, &mut particulars)?,
        bank_key: key
            .map(|raw| json::key(raw, "transaction_id"))
            .transpose()?,
        received_at: message.at,
        particulars,
    };
    Ok(Understood {
        asked: Asked::Authorization(Box::new(authorization)),
        reply: Box::new(Native),
    })
}

// === impl Native ===

impl Reply for Native {
    fn answer(&self, answer: &Answer, _asked: Money) -> Rendered {
        let status = match answer.verdict {
            Verdict::Approved => StatusCode::OK,
            Verdict::Declined => StatusCode::PAYMENT_REQUIRED,
        };
        Rendered::json(status, &AnswerBody::of(answer))
    }

    fn recorded(&self) -> Rendered {
        let body = serde_json::json!({ "state": "recorded" });
        Rendered::json(StatusCode::OK, &body)
    }

    fn taken_back(&self, payment: TransactionId, taken: &TakenBack) -> Rendered {
        Rendered::json(StatusCode::OK, &lifecycle::TakenBody::of(payment, taken))
    }
}

// === reading ===

fn read_shopper(raw: &RawValue) -> Result<ShopperId, Problem> {
    let number = serde_json::from_str::<u64>(raw.get()).ok();
    number
        .and_then(|number| ShopperId::try_from(number).ok())
        .filter(|shopper| !shopper.is_of_unknown_card())
        .ok_or(wrong(
            "shopper_id",
            "must be a whole number from 1 to 4611686018427387903",
        ))
}

fn read_merchant(raw: &RawValue, particulars: &mut Particulars) -> Result<Merchant, Problem> {
    let Fields([name, address, network_id, terminal]) = object(raw, "merchant", MERCHANT)?;
    let name = json::merchant_text(required(name, "merchant.name")?, "merchant.name")?;
    if name.trim().is_empty() {
        return Err(wrong("merchant.name", "must not be empty"));
    }
    let address = address.map(|raw| json::merchant_text(raw, "merchant.address"));
    particulars.network_id = json::optional_id(network_id, "merchant.network_id")?;
    particulars.terminal = json::optional_id(terminal, "merchant.terminal_id")?;
    Ok(Merchant {
        name,
        address: address.transpose()?.unwrap_or_default(),
    })
}

// === writing ===

#[derive(Serialize)]
struct AnswerBody<'a> {
    decision: Verdict,
    reason: Reason,
    transaction_id: String,
    /// On approvals only: a code on a decline could be taken for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    authorization_code: Option<&'a str>,
    amount: String,
    currency: Currency,
    rung: Rung,
    cap: Option<String>,
    approved_before: Option<String>,
    trip_id: Option<String>,
    trip_age_ms: Option<u64>,
    policy_version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exposed: Option<bool>,
}

impl<'a> AnswerBody<'a> {
    fn of(answer: &'a Answer) -> Self {
        // Cap and sum are in the trip's currency. Where the payment's is another one, the answer
        // does not say which, so there is nothing true to print.
        let comparable = answer.reason != Reason::CurrencyMismatch;
        let major = |minor: i64| {
            comparable.then(|| Money::from_minor(minor, answer.amount.currency()).to_decimal())
        };
        Self {
            decision: answer.verdict,
            reason: answer.reason,
            transaction_id: answer.transaction_id.to_string(),
            authorization_code: match answer.verdict {
                Verdict::Approved => Some(answer.code.as_str()),
                Verdict::Declined => None,
            },
            amount: answer.amount.to_decimal(),
            currency: answer.amount.currency(),
            rung: answer.rung,
            cap: answer.cap.and_then(major),
            approved_before: major(answer.approved_before),
            trip_id: answer.trip.map(|trip| trip.to_string()),
            trip_age_ms: answer.trip_age_ms,
            policy_version: answer.policy_version,
            why: answer.why.map(standin_core::answer::Why::as_str),
            exposed: (answer.rung == Rung::Isolated).then_some(true),
        }
    }
}

#[cfg(test)]
mod tests;
