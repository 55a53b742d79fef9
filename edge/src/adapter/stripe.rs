//! Stripe Issuing's real-time authorizations: the event `issuing_authorization.request`, answered with
//! 200 and `{"approved": …}` within two seconds.
//!
//! Source: <https://docs.stripe.com/issuing/controls/real-time-authorizations> and the `Issuing.Authorization`
//! object of Stripe's API. What is decided on is `pending_request`: what is asked for on top of what was
//! approved before under the same authorization. `request_history` grows by one with each decision, so
//! authorization and its length name a payment: a redelivery says the same, an increment does not.
//!
//! Stripe sends no street: the merchant's id in the network comes first, then name, city, state and
//! postal code.

use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use standin_core::answer::{Answer, Verdict};
use standin_core::authorization::{Authorization, Merchant, Particulars};
use standin_core::id::{BankId, TransactionId};
use standin_core::identity;
use standin_core::money::Money;

use super::json::{self, Fields, fields, object, optional_object, required, wrong};
use super::{Asked, Message, Rendered, Reply, ShopperBy, Understood, not_looked_up};
use crate::problem::Problem;

/// The one event that is answered.
pub const EVENT: &str = "issuing_authorization.request";
/// Names the version of the API that the reply is written for; Stripe asks for it.
pub const VERSION_HEADER: HeaderName = HeaderName::from_static("stripe-version");
/// Where the event names none.
const VERSION: HeaderValue = HeaderValue::from_static("2024-12-18.acacia");
/// Longest list of earlier decisions of one authorization.
const HISTORY_MAX: usize = 100;

/// Replies to one event.
#[derive(Clone, Debug)]
pub struct StripeReply {
    version: HeaderValue,
}

#[derive(Serialize)]
struct Body<'a> {
    approved: bool,
    /// Where less was approved than was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<i64>,
    metadata: Metadata<'a>,
}

/// Kept by Stripe with the authorization, at most 500 characters each.
#[derive(Serialize)]
struct Metadata<'a> {
    standin_reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    standin_transaction_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    standin_rung: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    standin_code: Option<&'a str>,
}

/// Reads an event.
pub fn understand(message: &Message<'_>) -> Result<Understood, Problem> {
    let text = json::text_of(message.body)?;
    let Fields([kind, version, data]) = fields(text, ["type", "api_version", "data"])?;
    if json::word(required(kind, "type")?, "type")? != EVENT {
        return Err(wrong("type", "must be issuing_authorization.request"));
    }
    let Fields([object_]) = object(required(data, "data")?, "data", ["object"])?;
    let authorization = read(message, required(object_, "data.object")?)?;
    let version = match version {
        Some(raw) => read_version(raw)?,
        None => VERSION,
    };
    Ok(Understood {
        asked: Asked::Authorization(Box::new(authorization)),
        reply: Box::new(StripeReply { version }),
    })
}

/// The key of a decision: the `earlier`-th of an authorization of Stripe's.
fn key(authorization: &str, earlier: usize) -> String {
    format!("{authorization}/{earlier}")
}

/// The payment that increments of an authorization add to.
fn first(bank: &BankId, authorization: &str) -> TransactionId {
    identity::of_key(bank, identity::Operation::Authorize, &key(authorization, 0))
}

// === impl StripeReply ===

impl StripeReply {
    fn render(&self, body: &Body<'_>) -> Rendered {
        Rendered {
            header: Some((VERSION_HEADER, self.version.clone())),
            ..Rendered::json(StatusCode::OK, body)
        }
    }
}

impl Reply for StripeReply {
    fn answer(&self, answer: &Answer, asked: Money) -> Rendered {
        let approved = answer.verdict == Verdict::Approved;
        let less = approved && answer.amount != asked;
        self.render(&Body {
            approved,
            amount: less.then_some(answer.amount.minor()),
            metadata: Metadata {
                standin_reason: answer.reason.as_str(),
                standin_transaction_id: Some(answer.transaction_id.to_string()),
                standin_rung: Some(answer.rung.as_str()),
                standin_code: approved.then_some(answer.code.as_str()),
            },
        })
    }

    fn problem(&self, problem: &Problem) -> Option<Rendered> {
        let Problem::OtherFingerprint { .. } = problem else {
            return None;
        };
        Some(self.render(&Body {
            approved: false,
            amount: None,
            metadata: Metadata {
                standin_reason: problem.slug(),
                standin_transaction_id: None,
                standin_rung: None,
                standin_code: None,
            },
        }))
    }
}

// === reading ===

fn read(message: &Message<'_>, raw: &RawValue) -> Result<Authorization, Problem> {
    let names = [
        "id",
        "card",
        "cardholder",
        "merchant_data",
        "pending_request",
        "request_history",
    ];
    let Fields([id, card, cardholder, merchant, pending, history]) =
        object(raw, "data.object", names)?;
    let bank = message.bank;
    let id = json::token(required(id, "data.object.id")?, "data.object.id")?;
    let earlier = read_history(history)?;
    let token = match bank.shopper_by {
        ShopperBy::Card => read_id(card, "data.object.card")?,
        ShopperBy::Cardholder => read_id(cardholder, "data.object.cardholder")?,
    };
    let names = ["amount", "currency", "is_amount_controllable"];
    let field = "data.object.pending_request";
    let Fields([amount, currency, controllable]) = object(required(pending, field)?, field, names)?;
    let field = "data.object.pending_request.currency";
    let currency = json::currency(required(currency, field)?, field)?;
    let field = "data.object.pending_request.amount";
    let amount = json::minor_units(required(amount, field)?, field, currency)?;
    let field = "data.object.pending_request.is_amount_controllable";
    let controllable = json::flag(controllable, field)?;
    let (merchant, network_id, terminal) = read_merchant(merchant)?;
    Ok(Authorization {
        bank: bank.slug.clone(),
        shopper: not_looked_up(&bank.slug, &token),
        amount,
        merchant,
        bank_key: Some(key(&id, earlier)),
        received_at: message.at,
        particulars: Particulars {
            card: Some(token),
            network_id,
            terminal,
            adds_to: (earlier > 0).then(|| first(&bank.slug, &id)),
            partial: bank.partial_approvals && controllable,
        },
    })
}

/// How many decisions went before.
fn read_history(raw: Option<&RawValue>) -> Result<usize, Problem> {
    let field = "data.object.request_history";
    let Some(raw) = raw else { return Ok(0) };
    let history: Vec<IgnoredAny> =
        serde_json::from_str(raw.get()).map_err(|_| wrong(field, "must be a list"))?;
    if history.len() > HISTORY_MAX {
        return Err(wrong(field, "has more than 100 entries"));
    }
    Ok(history.len())
}

/// The id of something that is expanded to an object, or is its id.
fn read_id(raw: Option<&RawValue>, field: &'static str) -> Result<String, Problem> {
    let raw = required(raw, field)?;
    if !raw.get().starts_with('{') {
        return json::token(raw, field);
    }
    let Fields([id]) = object(raw, field, ["id"])?;
    json::token(required(id, field)?, field)
}

type Where = (Merchant, Option<String>, Option<String>);

fn read_merchant(raw: Option<&RawValue>) -> Result<Where, Problem> {
    let names = [
        "name",
        "city",
        "state",
        "postal_code",
        "network_id",
        "terminal_id",
    ];
    let field = "data.object.merchant_data";
    let Fields([name, city, state, postal_code, network_id, terminal]) =
        optional_object(raw, field, names)?;
    let name = name.map(|raw| json::merchant_text(raw, "data.object.merchant_data.name"));
    let merchant = Merchant {
        name: name.transpose()?.unwrap_or_default(),
        address: json::address([
            (city, "data.object.merchant_data.city"),
            (state, "data.object.merchant_data.state"),
            (postal_code, "data.object.merchant_data.postal_code"),
        ])?,
    };
    Ok((
        merchant,
        json::optional_id(network_id, "data.object.merchant_data.network_id")?,
        json::optional_id(terminal, "data.object.merchant_data.terminal_id")?,
    ))
}

fn read_version(raw: &RawValue) -> Result<HeaderValue, Problem> {
    let version: String = json::word(raw, "api_version")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    if version.is_empty() || version.len() > 40 || !version.bytes().all(plain) {
        return Err(wrong("api_version", "must be a version of Stripe's API"));
    }
    HeaderValue::from_str(&version)
        .map_err(|_| wrong("api_version", "must be a version of Stripe's API"))
}

#[cfg(test)]
mod tests;
