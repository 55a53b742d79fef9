//! Our own format.

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use standin_core::money::Money;

use super::super::Payment;
use super::{Heard, text};

#[derive(Serialize)]
struct Body<'a> {
    shopper_id: u64,
    amount: &'a RawValue,
    merchant: Merchant<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_id: Option<&'a str>,
    #[serde(skip_serializing_if = "is_false")]
    partial_approval: bool,
}

#[derive(Serialize)]
struct Merchant<'a> {
    name: &'a str,
    address: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    network_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    terminal_id: Option<&'a str>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes what it asks about by reference"
)]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// The body of an authorization, under a key unless the payment has one. The amount's digits stay as
/// they are; what is no JSON number goes as a string, for the edge to judge.
///
/// # Errors
/// Never for texts, which have a JSON form.
pub fn body(payment: &Payment, key: Option<&str>) -> serde_json::Result<Bytes> {
    let is_number = serde_json::from_str::<serde_json::Number>(&payment.amount).is_ok();
    let amount = if is_number {
        RawValue::from_string(payment.amount.clone())?
    } else {
        serde_json::value::to_raw_value(&payment.amount)?
    };
    let charged = &payment.charged;
    let body = Body {
        shopper_id: charged.shopper,
        amount: &amount,
        merchant: Merchant {
            name: &charged.merchant_name,
            address: &charged.merchant_address,
            network_id: charged.network_id.as_deref(),
            terminal_id: charged.terminal_id.as_deref(),
        },
        currency: charged.currency.as_deref(),
        transaction_id: payment.transaction_id.as_deref().or(key),
        partial_approval: payment.partial,
    };
    Ok(serde_json::to_vec(&body)?.into())
}

/// Takes `amount` of the payment with this key back.
///
/// # Errors
/// As [`body`].
pub fn reversal(key: &str, reversal: &str, amount: Money) -> serde_json::Result<(String, Bytes)> {
    let body = serde_json::json!({
        "authorization": format!("key:{key}"),
        "reversal_id": reversal,
        "amount": amount.to_decimal(),
        "currency": amount.currency().code(),
    });
    Ok((tail(key, "reversals"), serde_json::to_vec(&body)?.into()))
}

/// Says that the bank did not wait for the answer to the payment with this key.
///
/// # Errors
/// As [`body`].
pub fn timed_out(key: &str) -> serde_json::Result<(String, Bytes)> {
    let body = serde_json::json!({
        "authorization": format!("key:{key}"),
        "outcome": "timed_out",
    });
    Ok((tail(key, "outcomes"), serde_json::to_vec(&body)?.into()))
}

pub(super) fn heard(body: &Value) -> Heard {
    if let Some(state) = text(body, "/state") {
        return Heard {
            verdict: None,
            reason: Some(state),
            amount: text(body, "/reversed"),
        };
    }
    match text(body, "/decision").as_deref() {
        Some(decision) => Heard::of(
            decision == "approved",
            text(body, "/reason"),
            text(body, "/amount"),
        ),
        None => Heard::default(),
    }
}

fn tail(key: &str, what: &str) -> String {
    let mut tail = "/key:".to_owned();
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            tail.push(char::from(byte));
        } else {
            tail.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("{tail}/{what}")
}
