//! Stripe Issuing's event `issuing_authorization.request`.

use bytes::Bytes;
use serde_json::{Value, json};
use standin_core::clock::{Clock, SystemClock};

use super::super::Payment;
use super::{Format, Heard, text};

/// The version of Stripe's API that the event says it is written for.
pub const VERSION: &str = "2024-12-18.acacia";

/// The event of an authorization's first decision; the key is the authorization's id.
///
/// # Errors
/// When the amount is none.
pub fn body(payment: &Payment, key: &str) -> anyhow::Result<Bytes> {
    let money = payment.money()?;
    let (amount, currency) = (money.minor(), money.currency().code().to_lowercase());
    let (charged, now) = (&payment.charged, SystemClock.now().as_secs());
    let tokens = charged.tokens(Format::Stripe);
    let event = json!({
        "id": format!("evt_{key}"),
        "object": "event",
        "api_version": VERSION,
        "created": now,
        "livemode": false,
        "type": "issuing_authorization.request",
        "data": { "object": {
            "id": key,
            "object": "issuing.authorization",
            "amount": 0,
            "currency": currency,
            "approved": false,
            "status": "pending",
            "authorization_method": "contactless",
            "created": now,
            "livemode": false,
            "card": {
                "id": tokens.card,
                "object": "issuing.card",
                "status": "active",
                "cardholder": { "id": tokens.cardholder, "object": "issuing.cardholder" },
            },
            "cardholder": tokens.cardholder,
            "merchant_data": {
                "category": "grocery_stores_supermarkets",
                "category_code": "5411",
                "name": charged.merchant_name,
                "city": charged.merchant_city,
                "state": charged.merchant_state,
                "postal_code": charged.merchant_postal_code,
                "country": "US",
                "network_id": charged.network_id(),
                "terminal_id": charged.terminal_id,
            },
            "pending_request": {
                "amount": amount,
                "currency": currency,
                "merchant_amount": amount,
                "merchant_currency": currency,
                "is_amount_controllable": payment.partial,
            },
            "request_history": [],
            "transactions": [],
        }},
    });
    Ok(serde_json::to_vec(&event)?.into())
}

pub(super) fn heard(body: &Value) -> Heard {
    match body.get("approved").and_then(Value::as_bool) {
        Some(approved) => Heard::of(
            approved,
            text(body, "/metadata/standin_reason"),
            text(body, "/amount"),
        ),
        None => Heard::default(),
    }
}
