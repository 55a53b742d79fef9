//! Lithic's Auth Stream Access: `card_authorization.approval_request`, answered with 200 and
//! `{"result": …}`; Lithic waits six seconds and advises three.
//!
//! Source: <https://docs.lithic.com/docs/auth-stream-access-asa> and Lithic's published OpenAPI. Amounts
//! are minor units. `token` names a group of messages and may come again, so the key of a payment is
//! the signed `webhook-id`, which a redelivery repeats.

use http::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;
use standin_core::answer::{Answer, Reason, Verdict};
use standin_core::authorization::{Authorization, BANK_KEY_BYTES_MAX, Merchant, Particulars};
use standin_core::card_number::holds_card_number;
use standin_core::money::Money;

use super::json::{self, Fields, fields, object, optional_object, required, wrong};
use super::{Asked, Message, Rendered, Reply, Understood, not_looked_up};
use crate::problem::Problem;

/// The one event that is answered.
pub const EVENT: &str = "card_authorization.approval_request";

/// What a message is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Status {
    /// Money is to be held, or moved at once.
    Authorization,
    /// How much is left?
    BalanceInquiry,
}

/// Replies to one message.
#[derive(Clone, Debug)]
pub struct LithicReply {
    token: String,
    status: Status,
}

#[derive(Serialize)]
struct Body<'a> {
    result: &'a str,
    token: &'a str,
    /// Its presence makes an approval a partial one.
    #[serde(skip_serializing_if = "Option::is_none")]
    approved_amount: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    balance: Option<Balance>,
}

#[derive(Serialize)]
struct Balance {
    amount: i64,
    available: i64,
}

/// Reads a message.
pub fn understand(message: &Message<'_>) -> Result<Understood, Problem> {
    let text = json::text_of(message.body)?;
    let names = [
        "event_type",
        "token",
        "status",
        "amounts",
        "card",
        "merchant",
        "pos",
    ];
    let Fields([event, token, status, amounts, card, merchant, pos]) = fields(text, names)?;
    if let Some(event) = event
        && json::word(event, "event_type")? != EVENT
    {
        return Err(wrong(
            "event_type",
            "must be card_authorization.approval_request",
        ));
    }
    let token = json::token(required(token, "token")?, "token")?;
    let status = read_status(required(status, "status")?)?;
    let Fields([card]) = object(required(card, "card")?, "card", ["token"])?;
    let card = json::token(required(card, "card.token")?, "card.token")?;
    let (merchant, network_id) = read_merchant(required(merchant, "merchant")?)?;
    let Fields([terminal]) = optional_object(pos, "pos", ["terminal"])?;
    let names = ["acceptor_terminal_id", "partial_approval_capable"];
    let Fields([terminal, partial]) = optional_object(terminal, "pos.terminal", names)?;
    let partial = json::flag(partial, "pos.terminal.partial_approval_capable")?;
    let amount = read_amount(required(amounts, "amounts")?)?;
    let authorization = Authorization {
        bank: message.bank.slug.clone(),
        shopper: not_looked_up(&message.bank.slug, &card),
        amount: match status {
            Status::Authorization => amount,
            Status::BalanceInquiry => Money::from_minor(0, amount.currency()),
        },
        merchant,
        bank_key: Some(read_key(message.id)?),
        received_at: message.at,
        particulars: Particulars {
            card: Some(card),
            network_id,
            terminal: json::optional_id(terminal, "pos.terminal.acceptor_terminal_id")?,
            adds_to: None,
            partial: message.bank.partial_approvals && partial,
        },
    };
    Ok(Understood {
        asked: Asked::Authorization(Box::new(authorization)),
        reply: Box::new(LithicReply { token, status }),
    })
}

/// Lithic's word for a decline. An unknown word would decline too, and say less.
pub const fn result(reason: Reason) -> &'static str {
    match reason {
        Reason::WithinCap
        | Reason::WithinStandInLimits
        | Reason::WithinFloorLimit
        | Reason::ApprovedByBank => "APPROVED",
        Reason::OverCap | Reason::CurrencyMismatch => "INSUFFICIENT_FUNDS",
        Reason::NoTrip | Reason::NotShopping | Reason::UnknownCard => "CARD_PAUSED",
        Reason::UnknownMerchant | Reason::AmbiguousMerchant | Reason::WrongStore => {
            "UNAUTHORIZED_MERCHANT"
        }
        Reason::FarFromStore | Reason::PositionMissing => "SUSPECTED_FRAUD",
        Reason::Velocity | Reason::DoubleSwipe | Reason::StandInLimit | Reason::FloorLimit => {
            "VELOCITY_EXCEEDED"
        }
    }
}

// === impl LithicReply ===

impl Reply for LithicReply {
    fn answer(&self, answer: &Answer, asked: Money) -> Rendered {
        let approved = answer.verdict == Verdict::Approved;
        let less = approved && answer.amount != asked;
        let left = answer
            .cap
            .map(|cap| cap.saturating_sub(answer.approved_before).max(0))
            .filter(|_| approved && self.status == Status::BalanceInquiry);
        let body = Body {
            result: result(answer.reason),
            token: &self.token,
            approved_amount: less.then_some(answer.amount.minor()),
            balance: left.map(|left| Balance {
                amount: left,
                available: left,
            }),
        };
        Rendered::json(StatusCode::OK, &body)
    }

    fn problem(&self, problem: &Problem) -> Option<Rendered> {
        let Problem::OtherFingerprint { .. } = problem else {
            return None;
        };
        let body = Body {
            result: "VELOCITY_EXCEEDED",
            token: &self.token,
            approved_amount: None,
            balance: None,
        };
        Some(Rendered::json(StatusCode::OK, &body))
    }
}

// === reading ===

fn read_status(raw: &RawValue) -> Result<Status, Problem> {
    match json::word(raw, "status")?.as_str() {
        "AUTHORIZATION" | "FINANCIAL_AUTHORIZATION" => Ok(Status::Authorization),
        "BALANCE_INQUIRY" => Ok(Status::BalanceInquiry),
        _ => Err(wrong(
            "status",
            "must be AUTHORIZATION, FINANCIAL_AUTHORIZATION or BALANCE_INQUIRY",
        )),
    }
}

/// What the cardholder is charged, or what is held of it, if that is more.
fn read_amount(raw: &RawValue) -> Result<Money, Problem> {
    let Fields([cardholder, hold]) = object(raw, "amounts", ["cardholder", "hold"])?;
    let names = ["amount", "currency"];
    let field = "amounts.cardholder";
    let Fields([amount, currency]) = object(required(cardholder, field)?, field, names)?;
    let field = "amounts.cardholder.currency";
    let currency = json::currency(required(currency, field)?, field)?;
    let field = "amounts.cardholder.amount";
    let charged = json::minor_units(required(amount, field)?, field, currency)?;
    let Some(hold) = hold else {
        return Ok(charged);
    };
    let Fields([amount, currency]) = object(hold, "amounts.hold", names)?;
    let field = "amounts.hold.currency";
    if json::currency(required(currency, field)?, field)? != charged.currency() {
        return Err(wrong(field, "must be the cardholder's"));
    }
    let field = "amounts.hold.amount";
    let held = json::minor_units(required(amount, field)?, field, charged.currency())?;
    Ok(if held.minor() > charged.minor() {
        held
    } else {
        charged
    })
}

fn read_merchant(raw: &RawValue) -> Result<(Merchant, Option<String>), Problem> {
    let names = [
        "descriptor",
        "street_address",
        "city",
        "state",
        "postal_code",
        "acceptor_id",
    ];
    let Fields([name, street, city, state, postal_code, acceptor]) =
        object(raw, "merchant", names)?;
    let name = name.map(|raw| json::merchant_text(raw, "merchant.descriptor"));
    let merchant = Merchant {
        name: name.transpose()?.unwrap_or_default(),
        address: json::address([
            (street, "merchant.street_address"),
            (city, "merchant.city"),
            (state, "merchant.state"),
            (postal_code, "merchant.postal_code"),
        ])?,
    };
    Ok((
        merchant,
        json::optional_id(acceptor, "merchant.acceptor_id")?,
    ))
}

/// The signed name of the message.
fn read_key(id: Option<&str>) -> Result<String, Problem> {
    match id {
        Some(id) if holds_card_number(id) => Err(Problem::CardNumber),
        Some(id) if !id.is_empty() && id.len() <= BANK_KEY_BYTES_MAX => Ok(id.to_owned()),
        Some(_) => Err(wrong("webhook-id", "must have 1 to 255 bytes")),
        None => Err(wrong("webhook-id", "is what names a payment")),
    }
}

#[cfg(test)]
mod tests;
