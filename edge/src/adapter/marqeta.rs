//! Marqeta's Gateway JIT Funding: a transaction object, answered with 200 (funded) or 402 (declined)
//! and a `jit_funding` object within three seconds.
//!
//! Source: <https://www.marqeta.com/docs/core-api/gateway-jit-funding-messages>. Amounts are decimal
//! numbers of major units; they are read from their digits. What is funded is
//! `gpa_order.jit_funding.amount`, and `gpa_order.jit_funding.token` names the request. The holder of the
//! card is `acting_user_token`: `user_token` is the account's owner, whom many cards may share.

use http::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;
use standin_core::answer::{Answer, Reason, Verdict};
use standin_core::authorization::{Authorization, Merchant, Particulars};
use standin_core::entry::ReversalCause;
use standin_core::id::TransactionId;
use standin_core::identity;
use standin_core::money::{Currency, Money};

use super::json::{self, Fields, fields, object, optional_object, required, wrong};
use super::{Asked, Message, Rendered, Reply, ShopperBy, Understood, not_looked_up};
use crate::path::{TakeBack, TakenBack};
use crate::problem::Problem;

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Method {
    /// Money.
    Authorization,
    /// More money for an authorization.
    Incremental,
    /// Whether the card is good, or how much is left.
    Inquiry,
    /// Money comes back from an authorization.
    Reversal,
}

/// Replies to one request; every field but the last two is echoed.
#[derive(Clone, Debug)]
pub struct MarqetaReply {
    token: String,
    method: String,
    user_token: String,
    acting_user_token: Option<String>,
    original: Option<String>,
    asked: Money,
}

#[derive(Serialize)]
struct Body<'a> {
    jit_funding: Funding<'a>,
}

#[derive(Serialize)]
struct Funding<'a> {
    token: &'a str,
    method: &'a str,
    user_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    acting_user_token: Option<&'a str>,
    /// A number, written from its digits.
    amount: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_jit_funding_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decline_reason: Option<&'a str>,
    metadata: Metadata<'a>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    standin_reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    standin_transaction_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    standin_code: Option<&'a str>,
}

/// Reads a request.
pub fn understand(message: &Message<'_>) -> Result<Understood, Problem> {
    let text = json::text_of(message.body)?;
    let names = [
        "card_token",
        "acting_user_token",
        "user_token",
        "currency_code",
        "gpa_order",
        "card_acceptor",
        "pos",
    ];
    let Fields([card, acting, user, currency, order, acceptor, pos]) = fields(text, names)?;
    let (jit, currency) = read_order(required(order, "gpa_order")?, currency)?;
    let (reply, method) = read_funding(jit, currency)?;
    if method == Method::Reversal {
        return Ok(take_back(message, reply));
    }
    let token = match message.bank.shopper_by {
        ShopperBy::Card => json::token(required(card, "card_token")?, "card_token")?,
        ShopperBy::Cardholder => match acting {
            Some(acting) => json::token(acting, "acting_user_token")?,
            None => json::token(required(user, "user_token")?, "user_token")?,
        },
    };
    let names = ["terminal_id", "partial_approval_capable"];
    let Fields([terminal, partial]) = optional_object(pos, "pos", names)?;
    let partial = json::flag(partial, "pos.partial_approval_capable")?;
    let (merchant, network_id) = read_acceptor(acceptor)?;
    let bank = &message.bank.slug;
    let original = reply
        .original
        .as_ref()
        .filter(|_| method == Method::Incremental);
    let authorization = Authorization {
        bank: bank.clone(),
        shopper: not_looked_up(bank, &token),
        amount: match method {
            Method::Authorization | Method::Incremental => reply.asked,
            Method::Inquiry | Method::Reversal => Money::from_minor(0, reply.asked.currency()),
        },
        merchant,
        bank_key: Some(reply.token.clone()),
        received_at: message.at,
        particulars: Particulars {
            card: Some(token),
            network_id,
            terminal: json::optional_id(terminal, "pos.terminal_id")?,
            adds_to: original
                .map(|key| identity::of_key(bank, identity::Operation::Authorize, key)),
            partial: message.bank.partial_approvals && partial,
        },
    };
    Ok(Understood {
        asked: Asked::Authorization(Box::new(authorization)),
        reply: Box::new(reply),
    })
}

/// A reversal names its original; reading made sure of it.
fn take_back(message: &Message<'_>, reply: MarqetaReply) -> Understood {
    let bank = &message.bank.slug;
    let original = reply.original.as_deref().unwrap_or_default();
    let asked = TakeBack {
        bank: bank.clone(),
        payment: identity::of_key(bank, identity::Operation::Authorize, original),
        key: reply.token.clone(),
        amount: Some(reply.asked),
        cause: ReversalCause::Bank,
        by_key: true,
    };
    Understood {
        asked: Asked::TakeBack(asked),
        reply: Box::new(reply),
    }
}

/// Marqeta's word for a decline; `None` of an approval.
pub const fn decline_reason(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::WithinCap
        | Reason::WithinStandInLimits
        | Reason::WithinFloorLimit
        | Reason::ApprovedByBank => None,
        Reason::OverCap | Reason::StandInLimit | Reason::FloorLimit => {
            Some("AMOUNT_LIMIT_EXCEEDED")
        }
        Reason::NoTrip | Reason::NotShopping => Some("TRANSACTION_NOT_PERMITTED"),
        Reason::UnknownMerchant | Reason::AmbiguousMerchant | Reason::WrongStore => {
            Some("INVALID_MERCHANT")
        }
        Reason::FarFromStore | Reason::PositionMissing => Some("SUSPECTED_FRAUD"),
        Reason::Velocity => Some("TRANSACTION_COUNT_LIMIT_EXCEEDED"),
        Reason::DoubleSwipe => Some("DUPLICATE_TRANSACTION"),
        Reason::CurrencyMismatch => Some("INVALID_AMOUNT"),
        Reason::UnknownCard => Some("INVALID_CARD"),
    }
}

// === impl MarqetaReply ===

impl MarqetaReply {
    fn render(&self, amount: Money, declined: Option<&str>, metadata: Metadata<'_>) -> Rendered {
        let status = match declined {
            None => StatusCode::OK,
            Some(_) => StatusCode::PAYMENT_REQUIRED,
        };
        let amount = RawValue::from_string(amount.to_decimal());
        let body = Body {
            jit_funding: Funding {
                token: &self.token,
                method: &self.method,
                user_token: &self.user_token,
                acting_user_token: self.acting_user_token.as_deref(),
                amount: amount.expect("a decimal is a JSON number"),
                original_jit_funding_token: self.original.as_deref(),
                decline_reason: declined,
                metadata,
            },
        };
        Rendered::json(status, &body)
    }
}

impl Reply for MarqetaReply {
    fn answer(&self, answer: &Answer, _asked: Money) -> Rendered {
        let approved = answer.verdict == Verdict::Approved;
        let metadata = Metadata {
            standin_reason: answer.reason.as_str(),
            standin_transaction_id: Some(answer.transaction_id.to_string()),
            standin_code: approved.then_some(answer.code.as_str()),
        };
        let declined = decline_reason(answer.reason);
        // Of an inquiry too: nothing is funded.
        self.render(answer.amount, declined, metadata)
    }

    fn taken_back(&self, payment: TransactionId, taken: &TakenBack) -> Rendered {
        // Accepted in any case: what was declined, or never came, holds nothing.
        let (reason, back) = match taken {
            TakenBack::Money(back) => ("taken_back", *back),
            TakenBack::Nothing => ("nothing_to_take_back", self.asked),
            TakenBack::Forbidden => ("forbidden", self.asked),
        };
        let metadata = Metadata {
            standin_reason: reason,
            standin_transaction_id: Some(payment.to_string()),
            standin_code: None,
        };
        self.render(back, None, metadata)
    }

    fn problem(&self, problem: &Problem) -> Option<Rendered> {
        let Problem::OtherFingerprint { .. } = problem else {
            return None;
        };
        let metadata = Metadata {
            standin_reason: problem.slug(),
            standin_transaction_id: None,
            standin_code: None,
        };
        Some(self.render(self.asked, Some("DUPLICATE_TRANSACTION"), metadata))
    }
}

// === reading ===

/// The funding that is asked for, and its currency: the account's, which need not be the merchant's.
fn read_order<'a>(
    raw: &'a RawValue,
    outer: Option<&RawValue>,
) -> Result<(&'a RawValue, Currency), Problem> {
    let names = ["jit_funding", "currency_code"];
    let Fields([jit, currency]) = object(raw, "gpa_order", names)?;
    let jit = required(jit, "gpa_order.jit_funding")?;
    let currency = match (currency, outer) {
        (Some(own), _) => json::currency(own, "gpa_order.currency_code")?,
        (None, outer) => {
            json::currency(required(outer, "gpa_order.currency_code")?, "currency_code")?
        }
    };
    Ok((jit, currency))
}

fn read_funding(raw: &RawValue, currency: Currency) -> Result<(MarqetaReply, Method), Problem> {
    let names = [
        "token",
        "method",
        "user_token",
        "acting_user_token",
        "amount",
        "original_jit_funding_token",
    ];
    let field = "gpa_order.jit_funding";
    let Fields([token, method, user, acting, amount, original]) = object(raw, field, names)?;
    let field = "gpa_order.jit_funding.method";
    let word = json::word(required(method, field)?, field)?;
    let method = match word.as_str() {
        "pgfs.authorization" | "pgfs.auth_plus_capture" => Method::Authorization,
        "pgfs.authorization.incremental" => Method::Incremental,
        "pgfs.authorization.account_verification" | "pgfs.balanceinquiry" => Method::Inquiry,
        "pgfs.authorization.reversal" => Method::Reversal,
        _ => return Err(wrong(field, "is not one that is answered here")),
    };
    let original = match (original, method) {
        (None, Method::Incremental | Method::Reversal) => {
            return Err(wrong(
                "gpa_order.jit_funding.original_jit_funding_token",
                "is what an increment or a reversal is about",
            ));
        }
        (original, _) => {
            json::optional_token(original, "gpa_order.jit_funding.original_jit_funding_token")?
        }
    };
    let field = "gpa_order.jit_funding.token";
    let token = json::token(required(token, field)?, field)?;
    let field = "gpa_order.jit_funding.user_token";
    let user_token = json::token(required(user, field)?, field)?;
    let field = "gpa_order.jit_funding.amount";
    let asked = json::major_units(required(amount, field)?, field, currency)?;
    let acting = json::optional_token(acting, "gpa_order.jit_funding.acting_user_token")?;
    let reply = MarqetaReply {
        token,
        method: word,
        user_token,
        acting_user_token: acting,
        original,
        asked,
    };
    Ok((reply, method))
}

fn read_acceptor(raw: Option<&RawValue>) -> Result<(Merchant, Option<String>), Problem> {
    let names = [
        "mid",
        "name",
        "address",
        "city",
        "state",
        "postal_code",
        "zip",
    ];
    let Fields([mid, name, street, city, state, postal_code, zip]) =
        optional_object(raw, "card_acceptor", names)?;
    let name = name.map(|raw| json::merchant_text(raw, "card_acceptor.name"));
    let merchant = Merchant {
        name: name.transpose()?.unwrap_or_default(),
        address: json::address([
            (street, "card_acceptor.address"),
            (city, "card_acceptor.city"),
            (state, "card_acceptor.state"),
            (postal_code.or(zip), "card_acceptor.postal_code"),
        ])?,
    };
    Ok((merchant, json::optional_id(mid, "card_acceptor.mid")?))
}

#[cfg(test)]
mod tests;
