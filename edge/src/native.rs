//! Between a bank's bytes and our words. An [`Adapter`] reads one bank format and writes its
//! answers; [`Native`] is our own format.
//!
//! Reading is strict where a mistake could be money (amounts, duplicate keys, wrong types, texts
//! that some later part would cut or refuse) and lenient where it cannot be (unknown fields). A card
//! number anywhere in a body is refused: what is read here comes to be in logs on disk for good.
//! Rendering is a function of the [`Answer`] alone, so that a replay has the same bytes.

use std::collections::HashSet;
use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use serde::Serialize;
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use standin_core::answer::{Answer, Reason, Rung, Verdict};
use standin_core::authorization::{
    Authorization, BANK_KEY_BYTES_MAX, MERCHANT_TEXT_BYTES_MAX, Merchant,
};
use standin_core::card_number::holds_card_number;
use standin_core::clock::Timestamp;
use standin_core::id::ShopperId;
use standin_core::money::{Currency, Money, MoneyError};

use crate::config::BankConfig;
use crate::problem::Problem;

/// Deepest nesting of objects and arrays in a body; ours needs two.
pub const DEPTH_MAX: usize = 16;
/// Longest amount, in bytes as written.
pub const AMOUNT_BYTES_MAX: usize = 40;

/// One bank format.
pub trait Adapter: Send + Sync + 'static {
    /// Reads a request whose signature was right.
    fn understand(
        &self,
        bank: &BankConfig,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Authorization, Problem>;

    /// Writes an answer. Equal answers give equal bytes.
    fn render(&self, answer: &Answer) -> Rendered;
}

/// A response to a bank, before transport.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rendered {
    /// 200 approved, 402 declined.
    pub status: StatusCode,
    /// JSON.
    pub body: Bytes,
}

/// Our own format: `{"shopper_id":123,"amount":300,"merchant":{"name":…,"address":…}}`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Native;

/// Requires `Content-Type: application/json`, with or without parameters.
pub fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let essence = match (types.next(), types.next()) {
        (Some(only), None) => only.to_str().ok().and_then(|text| text.split(';').next()),
        _ => None,
    };
    match essence {
        Some(essence) if essence.trim().eq_ignore_ascii_case("application/json") => Ok(()),
        _ => Err(Problem::UnsupportedMediaType),
    }
}

// === impl Native ===

impl Adapter for Native {
    fn understand(
        &self,
        bank: &BankConfig,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Authorization, Problem> {
        let text = std::str::from_utf8(body).map_err(|_| Problem::Malformed {
            detail: "the body is not UTF-8",
        })?;
        check_depth(text)?;
        if holds_card_number(text) {
            return Err(Problem::CardNumber);
        }
        let Fields([shopper, amount, merchant, currency, key]) = fields(text, REQUEST)?;
        let currency = match currency {
            None => bank.currency,
            Some(raw) => read_currency(raw)?,
        };
        Ok(Authorization {
            bank: bank.slug.clone(),
            shopper: read_shopper(required(shopper, "shopper_id")?)?,
            amount: read_amount(required(amount, "amount")?, currency)?,
            merchant: read_merchant(required(merchant, "merchant")?)?,
            bank_key: key.map(read_key).transpose()?,
            received_at: now,
        })
    }

    fn render(&self, answer: &Answer) -> Rendered {
        let status = match answer.verdict {
            Verdict::Approved => StatusCode::OK,
            Verdict::Declined => StatusCode::PAYMENT_REQUIRED,
        };
        let body = serde_json::to_vec(&AnswerBody::of(answer))
            .expect("an answer is plain text and numbers");
        Rendered {
            status,
            body: body.into(),
        }
    }
}

// === reading ===

const REQUEST: [&str; 5] = [
    "shopper_id",
    "amount",
    "merchant",
    "currency",
    "transaction_id",
];
const MERCHANT: [&str; 2] = ["name", "address"];

/// The raw values of the known keys of one object; `null` counts as absent.
struct Fields<'a, const N: usize>([Option<&'a RawValue>; N]);

struct FieldsOf<const N: usize>([&'static str; N]);

impl<'de, const N: usize> Visitor<'de> for FieldsOf<N> {
    type Value = Fields<'de, N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = [None; N];
        // Bounded by the body's limit: a key takes four bytes at least.
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let known = self.0.iter().position(|name| *name == key);
            if !seen.insert(key) {
                return Err(serde::de::Error::custom(DUPLICATE));
            }
            match known.and_then(|at| values.get_mut(at)) {
                Some(value) => {
                    let raw = map.next_value::<&RawValue>()?;
                    *value = (raw.get() != "null").then_some(raw);
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Fields(values))
    }
}

const DUPLICATE: &str = "duplicate key";

fn fields<'a, const N: usize>(
    text: &'a str,
    names: [&'static str; N],
) -> Result<Fields<'a, N>, Problem> {
    let mut json = serde_json::Deserializer::from_str(text);
    let fields = json
        .deserialize_map(FieldsOf(names))
        .and_then(|fields| json.end().map(|()| fields));
    fields.map_err(|error| Problem::Malformed {
        detail: match error.classify() {
            serde_json::error::Category::Data if error.to_string().starts_with(DUPLICATE) => {
                "a key appears twice"
            }
            serde_json::error::Category::Data => "the body is not a JSON object",
            serde_json::error::Category::Eof => "the body ends in the middle of its JSON",
            serde_json::error::Category::Syntax | serde_json::error::Category::Io => {
                "the body is not valid JSON"
            }
        },
    })
}

/// Refuses deep nesting before any recursive code sees it.
fn check_depth(text: &str) -> Result<(), Problem> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth = depth.saturating_add(1),
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(Problem::Malformed {
                detail: "the body is nested too deeply",
            });
        }
    }
    Ok(())
}

fn required<'a>(raw: Option<&'a RawValue>, field: &'static str) -> Result<&'a RawValue, Problem> {
    raw.ok_or(Problem::Field {
        field,
        detail: "is required",
    })
}

fn read_shopper(raw: &RawValue) -> Result<ShopperId, Problem> {
    let number = serde_json::from_str::<u64>(raw.get()).ok();
    number
        .and_then(|number| ShopperId::try_from(number).ok())
        .ok_or(Problem::Field {
            field: "shopper_id",
            detail: "must be a whole number from 1 to 9223372036854775807",
        })
}

/// Reads major units from the digits as they were written; no float is ever made of them.
fn read_amount(raw: &RawValue, currency: Currency) -> Result<Money, Problem> {
    let wrong = |detail| Problem::Field {
        field: "amount",
        detail,
    };
    let text = raw.get();
    if text.len() > AMOUNT_BYTES_MAX {
        return Err(wrong("is too long"));
    }
    let money = match text.bytes().next() {
        Some(b'"') => {
            let digits: String = serde_json::from_str(text)
                .map_err(|_| wrong("must be a decimal number in major units"))?;
            Money::parse(&digits, currency)
        }
        Some(b'-' | b'0'..=b'9') => Money::parse(text, currency),
        _ => Err(MoneyError::Syntax),
    };
    match money {
        Ok(money) if money.minor() > 0 => Ok(money),
        Ok(_) => Err(wrong("must be more than zero")),
        Err(MoneyError::Syntax | MoneyError::UnknownCurrency) => {
            Err(wrong("must be a decimal number in major units"))
        }
        Err(MoneyError::TooPrecise { .. }) => Err(wrong("has more decimals than its currency has")),
        Err(MoneyError::TooLarge) => Err(wrong("is too large")),
    }
}

fn read_currency(raw: &RawValue) -> Result<Currency, Problem> {
    serde_json::from_str::<&str>(raw.get())
        .ok()
        .and_then(|code| code.parse().ok())
        .ok_or(Problem::Field {
            field: "currency",
            detail: "must be an ISO 4217 code",
        })
}

fn read_merchant(raw: &RawValue) -> Result<Merchant, Problem> {
    if !raw.get().starts_with('{') {
        return Err(Problem::Field {
            field: "merchant",
            detail: "must be an object",
        });
    }
    let Fields([name, address]) = fields(raw.get(), MERCHANT)?;
    let name = read_text(required(name, "merchant.name")?, "merchant.name")?;
    if name.trim().is_empty() {
        return Err(Problem::Field {
            field: "merchant.name",
            detail: "must not be empty",
        });
    }
    let address = address.map(|raw| read_text(raw, "merchant.address"));
    Ok(Merchant {
        name,
        address: address.transpose()?.unwrap_or_default(),
    })
}

fn read_text(raw: &RawValue, field: &'static str) -> Result<String, Problem> {
    let wrong = |detail| Problem::Field { field, detail };
    let text: String = serde_json::from_str(raw.get()).map_err(|_| wrong("must be text"))?;
    if text.len() > MERCHANT_TEXT_BYTES_MAX {
        return Err(wrong("is longer than 200 bytes"));
    }
    if text.contains('\0') {
        // Postgres cannot hold it.
        return Err(wrong("must not contain NUL"));
    }
    Ok(text)
}

fn read_key(raw: &RawValue) -> Result<String, Problem> {
    let wrong = |detail| Problem::Field {
        field: "transaction_id",
        detail,
    };
    let key: String = serde_json::from_str(raw.get()).map_err(|_| wrong("must be text"))?;
    if key.is_empty() || key.len() > BANK_KEY_BYTES_MAX {
        return Err(wrong("must have 1 to 255 bytes"));
    }
    if key.chars().any(char::is_control) {
        return Err(wrong("must not contain control characters"));
    }
    Ok(key)
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
