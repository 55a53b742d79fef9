//! How a bank's platform writes what it asks, and how it reads the answer: one file a format.
//!
//! What is written here is what the platforms send, as far as their documentation says it, with more
//! fields than an edge reads. What an edge makes of it is the edge's; nothing is shared but, of ISO 8583,
//! the codec.

pub mod iso8583;
pub mod lithic;
pub mod marqeta;
pub mod native;
pub mod stripe;

use anyhow::Context;
use bytes::Bytes;
use clap::builder::PossibleValue;
use serde::Serialize;
use serde_json::Value;
use standin_core::answer::Verdict;
use standin_core::money::{Currency, Money};
use standin_core::signature::Scheme;

use super::{Charged, Payment, key_in_letters};
use crate::client::Reply;

/// The merchant's id in the network, unless another is given.
const NETWORK_ID: &str = "GROCER-0042";

/// A format that a bank speaks over HTTP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Format {
    /// Ours.
    Native,
    /// Stripe Issuing's real-time authorizations.
    Stripe,
    /// Lithic's Auth Stream Access.
    Lithic,
    /// Marqeta's Gateway JIT Funding.
    Marqeta,
}

/// Whose words a bank speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Words {
    /// In a body of JSON over HTTP.
    Http(Format),
    /// ISO 8583:1987, over TCP.
    Iso8583,
}

/// A message, before it is signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    /// What its path has behind the bank's authorizations.
    pub tail: String,
    /// Its body.
    pub body: Bytes,
    /// Its id, for schemes that sign one.
    pub id: String,
}

/// What a reply says, in words that all formats share.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Heard {
    /// Approve, decline, or neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Why, in the format's own words; of a problem its type and what is said of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What was approved or came back, where the reply says so: major units, or minor ones as the
    /// format writes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<String>,
}

/// The tokens by which a platform knows a card and its holder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tokens {
    /// The card's.
    pub card: String,
    /// Its holder's.
    pub cardholder: String,
}

/// The authorization that a payment asks for, under a key.
///
/// # Errors
/// When the amount is none in the payment's currency.
pub fn authorization(format: Format, payment: &Payment, key: &str) -> anyhow::Result<Written> {
    let body = match format {
        Format::Native => native::body(payment, Some(key))?,
        Format::Stripe => stripe::body(payment, key)?,
        Format::Lithic => lithic::body(payment, key)?,
        Format::Marqeta => marqeta::body(payment, key)?,
    };
    Ok(Written {
        tail: String::new(),
        body,
        // What names a payment of Lithic's; of others it is a new message each time.
        id: match format {
            Format::Lithic => key.to_owned(),
            Format::Native | Format::Stripe | Format::Marqeta => message_id(),
        },
    })
}

/// Takes a payment back, or a part of it, under a key of the reversal's own. `None`: the format has no
/// words for it.
///
/// # Errors
/// When the amount is none in the payment's currency.
pub fn reversal(
    format: Format,
    payment: &Payment,
    key: &str,
    reversal: &str,
    amount: Money,
) -> anyhow::Result<Option<Written>> {
    let (tail, body) = match format {
        Format::Native => native::reversal(key, reversal, amount)?,
        Format::Marqeta => (
            String::new(),
            marqeta::reversal(payment, key, reversal, amount)?,
        ),
        Format::Stripe | Format::Lithic => return Ok(None),
    };
    let id = message_id();
    Ok(Some(Written { tail, body, id }))
}

/// What a reply says.
pub fn heard(format: Format, reply: &Reply) -> Heard {
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    if let Some(problem) = problem(&body) {
        return problem;
    }
    match format {
        Format::Native => native::heard(&body),
        Format::Stripe => stripe::heard(&body),
        Format::Lithic => lithic::heard(&body),
        Format::Marqeta => marqeta::heard(reply.status, &body),
    }
}

/// The tokens of a shopper of `standin bank listen`.
pub fn tokens(format: Format, shopper: u64) -> Tokens {
    let (card, cardholder) = match format {
        Format::Native => (shopper.to_string(), shopper.to_string()),
        Format::Stripe => (
            format!("ic_example_{shopper}"),
            format!("ich_example_{shopper}"),
        ),
        // Lithic's are UUIDs.
        Format::Lithic => (
            format!("5e0a1b7c-3f42-4d68-9a1e-{shopper:012}"),
            format!("7d1c2b8e-3f42-4d68-9a1e-{shopper:012}"),
        ),
        Format::Marqeta => (
            format!("card-example-{shopper}"),
            format!("user-example-{shopper}"),
        ),
    };
    Tokens { card, cardholder }
}

/// A fresh key.
pub fn fresh_key(format: Format) -> String {
    let key = key_in_letters();
    match format {
        Format::Native | Format::Marqeta => key,
        Format::Stripe => format!("iauth_{key}"),
        Format::Lithic => format!("msg_{key}"),
    }
}

fn message_id() -> String {
    format!("msg_{}", key_in_letters())
}

/// `application/problem+json`: no answer.
fn problem(body: &Value) -> Option<Heard> {
    let kind = body.get("type")?.as_str()?;
    let kind = kind.strip_prefix("urn:standin:problem:")?;
    let mut reason = kind.to_owned();
    for name in ["cause", "field", "detail"] {
        if let Some(text) = body.get(name).and_then(Value::as_str) {
            reason.push_str(if name == "detail" { " " } else { ": " });
            reason.push_str(text);
        }
    }
    Some(Heard {
        reason: Some(reason),
        ..Heard::default()
    })
}

fn text(body: &Value, pointer: &str) -> Option<String> {
    match body.pointer(pointer)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

// === impl Words ===

impl Words {
    /// The word in commands and configurations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http(format) => format.as_str(),
            Self::Iso8583 => "iso8583",
        }
    }
}

impl clap::ValueEnum for Words {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::Http(Format::Native),
            Self::Http(Format::Stripe),
            Self::Http(Format::Lithic),
            Self::Http(Format::Marqeta),
            Self::Iso8583,
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::Http(format) => clap::ValueEnum::to_possible_value(format),
            Self::Iso8583 => Some(PossibleValue::new("iso8583").help("ISO 8583:1987, over TCP")),
        }
    }
}

// === impl Format ===

impl Format {
    /// The word in commands and configurations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Stripe => "stripe",
            Self::Lithic => "lithic",
            Self::Marqeta => "marqeta",
        }
    }

    /// How its platform signs.
    pub const fn scheme(self) -> Scheme {
        match self {
            Self::Native | Self::Lithic => Scheme::StandardWebhooks,
            Self::Stripe => Scheme::Stripe,
            Self::Marqeta => Scheme::Basic,
        }
    }
}

// === impl Heard ===

impl Heard {
    fn of(approved: bool, reason: Option<String>, amount: Option<String>) -> Self {
        let verdict = if approved {
            Verdict::Approved
        } else {
            Verdict::Declined
        };
        Self {
            verdict: Some(verdict),
            reason,
            amount,
        }
    }

    /// Whether its amount, in major units, is this one. A JSON number has lost the zeros at its end:
    /// 2.70 came as 2.7.
    pub fn says(&self, amount: Money) -> bool {
        let heard = self.amount.as_deref();
        heard.is_some_and(|text| Money::parse(text, amount.currency()) == Ok(amount))
    }

    /// For people: the verdict and why.
    pub fn words(&self) -> String {
        let verdict = self.verdict.map_or("no answer", Verdict::as_str);
        let reason = self.reason.as_deref().map(|reason| format!(": {reason}"));
        let amount = self.amount.as_deref().map(|amount| format!(", {amount}"));
        format!(
            "{verdict}{}{}",
            reason.unwrap_or_default(),
            amount.unwrap_or_default()
        )
    }
}

// === impl Payment ===

impl Payment {
    /// The amount in the payment's currency, else in USD.
    ///
    /// # Errors
    /// When it is none.
    pub fn money(&self) -> anyhow::Result<Money> {
        let currency: Currency = match &self.charged.currency {
            None => Currency::USD,
            Some(code) => code
                .parse()
                .ok()
                .with_context(|| format!("{code} is no ISO 4217 code"))?,
        };
        Money::parse(&self.amount, currency).with_context(|| {
            format!(
                "{} is no amount in {}",
                self.amount,
                currency.code().to_uppercase()
            )
        })
    }

    /// The key it is sent under: its own, else a fresh one.
    pub fn key(&self, format: Format) -> String {
        let own = self.transaction_id.clone();
        own.unwrap_or_else(|| fresh_key(format))
    }
}

// === impl Charged ===

impl Charged {
    fn tokens(&self, format: Format) -> Tokens {
        let example = tokens(format, self.shopper);
        Tokens {
            card: self.card.clone().unwrap_or(example.card),
            cardholder: self.cardholder.clone().unwrap_or(example.cardholder),
        }
    }

    fn network_id(&self) -> &str {
        self.network_id.as_deref().unwrap_or(NETWORK_ID)
    }
}

#[cfg(test)]
mod tests;
