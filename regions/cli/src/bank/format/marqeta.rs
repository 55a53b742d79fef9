//! Marqeta's Gateway JIT Funding.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use standin_core::clock::{Clock, SystemClock};
use standin_core::money::Money;

use super::super::Payment;
use super::{Format, Heard, Tokens, text};

/// A transaction that is to be funded.
#[derive(Serialize)]
struct Transaction<'a> {
    r#type: &'a str,
    state: &'a str,
    token: &'a str,
    user_token: &'a str,
    acting_user_token: &'a str,
    card_token: &'a str,
    created_time: String,
    amount: &'a RawValue,
    currency_code: &'a str,
    gpa_order: Order<'a>,
    card_acceptor: Value,
    pos: Value,
}

#[derive(Serialize)]
struct Order<'a> {
    amount: &'a RawValue,
    currency_code: &'a str,
    jit_funding: Funding<'a>,
}

#[derive(Serialize)]
struct Funding<'a> {
    token: &'a str,
    method: &'a str,
    user_token: &'a str,
    acting_user_token: &'a str,
    /// A number, written from its digits.
    amount: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_jit_funding_token: Option<&'a str>,
}

/// The request to fund an authorization; the key is the token of the funding.
///
/// # Errors
/// When the amount is none.
pub fn body(payment: &Payment, key: &str) -> anyhow::Result<Bytes> {
    write(payment, payment.money()?, "authorization", key, None)
}

/// Takes `amount` of the payment with this key back.
///
/// # Errors
/// Never for texts, which have a JSON form.
pub fn reversal(
    payment: &Payment,
    key: &str,
    reversal: &str,
    amount: Money,
) -> anyhow::Result<Bytes> {
    let kind = "authorization.reversal";
    write(payment, amount, kind, reversal, Some(key))
}

fn write(
    payment: &Payment,
    money: Money,
    kind: &str,
    token: &str,
    original: Option<&str>,
) -> anyhow::Result<Bytes> {
    let charged = &payment.charged;
    let tokens = charged.tokens(Format::Marqeta);
    let Tokens { card, cardholder } = &tokens;
    let amount = RawValue::from_string(money.to_decimal())?;
    let (currency, method) = (money.currency(), format!("pgfs.{kind}"));
    let transaction = Transaction {
        r#type: kind,
        state: "PENDING",
        token,
        user_token: cardholder,
        acting_user_token: cardholder,
        card_token: card,
        created_time: SystemClock.now().to_string(),
        amount: &amount,
        currency_code: currency.code(),
        gpa_order: Order {
            amount: &amount,
            currency_code: currency.code(),
            jit_funding: Funding {
                token,
                method: &method,
                user_token: cardholder,
                acting_user_token: cardholder,
                amount: &amount,
                original_jit_funding_token: original,
            },
        },
        card_acceptor: json!({
            "mid": charged.network_id(),
            "mcc": "5411",
            "name": charged.merchant_name,
            "address": charged.merchant_address,
            "city": charged.merchant_city,
            "state": charged.merchant_state,
            "postal_code": charged.merchant_postal_code,
            "country_code": "USA",
        }),
        pos: json!({
            "card_presence": true,
            "terminal_id": charged.terminal_id,
            "partial_approval_capable": payment.partial,
        }),
    };
    Ok(serde_json::to_vec(&transaction)?.into())
}

pub(super) fn heard(status: u16, body: &Value) -> Heard {
    let Some(funding) = body.get("jit_funding") else {
        return Heard::default();
    };
    let declined = text(funding, "/decline_reason");
    let reason = text(funding, "/metadata/standin_reason");
    let approved = status == 200 && declined.is_none();
    Heard::of(approved, reason.or(declined), text(funding, "/amount"))
}
