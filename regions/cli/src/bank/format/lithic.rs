//! Lithic's `card_authorization.approval_request`.

use bytes::Bytes;
use serde_json::{Value, json};
use standin_core::clock::{Clock, SystemClock};

use super::super::Payment;
use super::{Format, Heard, text};

/// The message of an authorization; the key is the id that it is signed under.
///
/// # Errors
/// When the amount is none.
pub fn body(payment: &Payment, key: &str) -> anyhow::Result<Bytes> {
    let money = payment.money()?;
    let charged = &payment.charged;
    let tokens = charged.tokens(Format::Lithic);
    let amount = json!({ "amount": money.minor(), "currency": money.currency().code() });
    let message = json!({
        "event_type": "card_authorization.approval_request",
        "token": key,
        "status": "AUTHORIZATION",
        "transaction_initiator": "CARDHOLDER",
        "created": SystemClock.now().to_string(),
        "amounts": {
            "cardholder": amount,
            "hold": amount,
            "merchant": amount,
        },
        "card": { "token": tokens.card, "state": "OPEN", "type": "PHYSICAL" },
        "merchant": {
            "acceptor_id": charged.network_id(),
            "descriptor": charged.merchant_name,
            "street_address": charged.merchant_address,
            "city": charged.merchant_city,
            "state": charged.merchant_state,
            "postal_code": charged.merchant_postal_code,
            "country": "USA",
            "mcc": "5411",
        },
        "pos": { "terminal": {
            "attended": true,
            "partial_approval_capable": payment.partial,
            "acceptor_terminal_id": charged.terminal_id,
        }},
    });
    Ok(serde_json::to_vec(&message)?.into())
}

pub(super) fn heard(body: &Value) -> Heard {
    match text(body, "/result") {
        Some(result) => Heard::of(
            result == "APPROVED",
            Some(result),
            text(body, "/approved_amount"),
        ),
        None => Heard::default(),
    }
}
