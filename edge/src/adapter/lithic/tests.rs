use serde_json::{Value, json};
use standin_core::clock::Timestamp;
use standin_core::money::Currency;

use super::super::testing::{answer, authorization, bank, declined, text, understand, wrong_field};
use super::super::{Adapter, Format, Resource};
use super::*;

/// A request as Lithic documents it.
fn event() -> Value {
    json!({
        "event_type": "card_authorization.approval_request",
        "token": "a7f5e1b2-0000-4000-8000-000000000001", "status": "AUTHORIZATION",
        "transaction_initiator": "CARDHOLDER", "created": "2026-11-30T10:00:00Z",
        "amounts": {
            "cardholder": {"amount": 30_000, "conversion_rate": "1.000000", "currency": "USD"},
            "hold": null,
            "merchant": {"amount": 30_000, "currency": "USD"},
            "settlement": null},
        "amount": 30_000, "authorization_amount": 30_000, "merchant_amount": 30_000,
        "merchant_currency": "USD", "acquirer_fee": 0, "cash_amount": 0,
        "avs": {"address": "123 Evergreen Terrace", "zipcode": "95006",
            "address_on_file_match": "MATCH"},
        "card": {"token": "c0ffee00-0000-4000-8000-000000000002", "last_four": "1234",
            "memo": "x", "spend_limit": 0, "spend_limit_duration": "TRANSACTION",
            "state": "OPEN", "type": "VIRTUAL"},
        "merchant": {"acceptor_id": "333301802529120", "acquiring_institution_id": "191231",
            "city": "SAN FRANCISCO", "country": "USA", "descriptor": "TARGET T-1234",
            "mcc": "5411", "state": "CA", "postal_code": "94103",
            "street_address": "789 Mission St"},
        "pos": {"entry_mode": {"card": "PRESENT", "cardholder": "PRESENT", "pan": "ICC",
                "pin_entered": false},
            "terminal": {"attended": true, "on_premise": true, "operator": "MERCHANT",
                "partial_approval_capable": true, "pin_capability": "CAPABLE", "type": "POS",
                "card_retention_capable": false, "acceptor_terminal_id": "00000001"}},
        "network": "VISA", "network_risk_score": 17,
    })
}

fn read(event: &Value) -> Authorization {
    authorization(&understand(Format::Lithic, event).unwrap())
}

#[test]
fn the_documented_request_is_understood() {
    let card = "c0ffee00-0000-4000-8000-000000000002";
    let expected = Authorization {
        bank: "first".parse().unwrap(),
        shopper: not_looked_up(&"first".parse().unwrap(), card),
        amount: Money::from_minor(30_000, Currency::USD),
        merchant: Merchant {
            name: "TARGET T-1234".to_owned(),
            address: "789 Mission St SAN FRANCISCO CA 94103".to_owned(),
        },
        bank_key: Some("msg_1".to_owned()),
        received_at: Timestamp::from_millis(7),
        particulars: Particulars {
            card: Some(card.to_owned()),
            network_id: Some("333301802529120".to_owned()),
            terminal: Some("00000001".to_owned()),
            adds_to: None,
            partial: true,
        },
    };
    assert_eq!(read(&event()), expected);
}

#[test]
fn the_larger_of_charge_and_hold_counts() {
    let mut held = event();
    held["amounts"]["hold"] = json!({"amount": 31_000, "currency": "USD"});
    assert_eq!(read(&held).amount.minor(), 31_000);
    held["amounts"]["hold"] = json!({"amount": 29_000, "currency": "USD"});
    assert_eq!(read(&held).amount.minor(), 30_000);
    let pointer = "/amounts/hold";
    let euros = json!({"amount": 1, "currency": "EUR"});
    let named = wrong_field(Format::Lithic, &event(), pointer, euros);
    assert_eq!(named, "amounts.hold.currency");
}

#[test]
fn a_message_without_a_signed_name_is_no_payment() {
    let bank = bank();
    let body = event().to_string();
    let message = Message {
        bank: &bank,
        id: None,
        resource: Resource::Authorizations,
        body: body.as_bytes(),
        at: Timestamp::from_millis(7),
    };
    match Format::Lithic.understand(&message) {
        Err(Problem::Field { field, .. }) => assert_eq!(field, "webhook-id"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn wrong_fields_are_named() {
    for (pointer, value, field) in [
        ("/event_type", json!("card.created"), "event_type"),
        ("/token", json!(null), "token"),
        ("/status", json!("CREDIT_AUTHORIZATION"), "status"),
        ("/status", json!(null), "status"),
        ("/amounts", json!(null), "amounts"),
        ("/amounts/cardholder", json!(null), "amounts.cardholder"),
        (
            "/amounts/cardholder/amount",
            json!("30000"),
            "amounts.cardholder.amount",
        ),
        (
            "/amounts/cardholder/amount",
            json!(1.5),
            "amounts.cardholder.amount",
        ),
        (
            "/amounts/cardholder/currency",
            json!("ZZZ"),
            "amounts.cardholder.currency",
        ),
        ("/card/token", json!(7), "card.token"),
        ("/card/token", json!("4111 1111 1111 1111"), "card-number"),
        ("/merchant", json!(null), "merchant"),
        ("/merchant/acceptor_id", json!(7), "merchant.acceptor_id"),
        ("/pos/terminal", json!("x"), "pos.terminal"),
        (
            "/pos/terminal/partial_approval_capable",
            json!(1),
            "pos.terminal.partial_approval_capable",
        ),
    ] {
        let named = wrong_field(Format::Lithic, &event(), pointer, value);
        assert_eq!(named, field, "{pointer}");
    }
}

#[test]
fn replies_read_like_this() {
    let understood = understand(Format::Lithic, &event()).unwrap();
    let (asked, reply) = (authorization(&understood), understood.reply);
    let said = |answer: &Answer| text(&reply.answer(answer, asked.amount)).1;
    let token = "\"token\":\"a7f5e1b2-0000-4000-8000-000000000001\"";
    assert_eq!(
        said(&answer()),
        format!(r#"{{"result":"APPROVED",{token}}}"#)
    );
    let part = Answer {
        amount: Money::from_minor(12_345, Currency::USD),
        ..answer()
    };
    assert_eq!(
        said(&part),
        format!(r#"{{"result":"APPROVED",{token},"approved_amount":12345}}"#)
    );
    for reason in Reason::ALL {
        let approves = reason.verdict() == Verdict::Approved;
        assert_eq!(result(reason) == "APPROVED", approves, "{reason}");
        if !approves {
            let expected = format!(r#"{{"result":"{}",{token}}}"#, result(reason));
            assert_eq!(said(&declined(reason)), expected);
        }
    }
    let problem = Problem::OtherFingerprint {
        transaction_id: answer().transaction_id,
    };
    let (status, body) = text(&reply.problem(&problem).unwrap());
    assert_eq!(
        (status, body),
        (200, format!(r#"{{"result":"VELOCITY_EXCEEDED",{token}}}"#))
    );
}

#[test]
fn an_inquiry_asks_for_nothing_and_is_told_what_is_left() {
    let mut inquiry = event();
    inquiry["status"] = json!("BALANCE_INQUIRY");
    let understood = understand(Format::Lithic, &inquiry).unwrap();
    let (asked, reply) = (authorization(&understood), understood.reply);
    assert_eq!(asked.amount.minor(), 0);
    let left = Answer {
        amount: Money::from_minor(0, Currency::USD),
        approved_before: 10_000,
        ..answer()
    };
    let (_, body) = text(&reply.answer(&left, asked.amount));
    assert!(
        body.ends_with(r#""balance":{"amount":24550,"available":24550}}"#),
        "{body}"
    );
}
