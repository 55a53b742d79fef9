use serde_json::{Value, json};
use standin_core::answer::Reason;
use standin_core::identity::{Operation, transaction_id};
use standin_core::money::{Currency, Money};

use super::super::Format;
use super::super::testing::{answer, authorization, declined, text, understand, wrong_field};
use super::*;

/// The event as Stripe documents it, with what it sends of a chip payment in a store.
fn event() -> Value {
    json!({
        "id": "evt_1", "object": "event", "api_version": "2025-03-31.basil", "created": 1_700_000_000,
        "livemode": false, "pending_webhooks": 1, "request": {"id": null, "idempotency_key": null},
        "type": "issuing_authorization.request",
        "data": {"object": {
            "id": "iauth_1", "object": "issuing.authorization", "amount": 0, "currency": "usd",
            "merchant_amount": 0, "merchant_currency": "usd", "approved": false, "status": "pending",
            "authorization_method": "chip", "created": 1_700_000_000, "livemode": false,
            "card": {"id": "ic_1", "status": "active", "last4": "4242", "metadata": {},
                "cardholder": {"id": "ich_1", "metadata": {}}, "spending_controls": {}},
            "cardholder": "ich_1",
            "merchant_data": {"category": "grocery_stores_supermarkets", "category_code": "5411",
                "name": "TARGET T-1234", "city": "San Francisco", "state": "CA",
                "postal_code": "94103", "country": "US", "network_id": "1234567890",
                "terminal_id": "00000001", "url": null, "tax_id": null},
            "network_data": {"acquiring_institution_id": null, "transaction_id": null},
            "pending_request": {"amount": 30_000, "currency": "usd", "merchant_amount": 30_000,
                "merchant_currency": "usd", "is_amount_controllable": false,
                "network_risk_score": null,
                "amount_details": {"atm_fee": null, "cashback_amount": null}},
            "request_history": [], "transactions": [], "balance_transactions": [],
            "verification_data": {"cvc_check": "match", "three_d_secure": null},
        }},
    })
}

fn read(event: &Value) -> Authorization {
    authorization(&understand(Format::Stripe, event).unwrap())
}

#[test]
fn the_documented_event_is_understood() {
    let expected = Authorization {
        bank: "first".parse().unwrap(),
        shopper: not_looked_up(&"first".parse().unwrap(), "ich_1"),
        amount: Money::from_minor(30_000, Currency::USD),
        merchant: Merchant {
            name: "TARGET T-1234".to_owned(),
            address: "San Francisco CA 94103".to_owned(),
        },
        bank_key: Some("iauth_1/0".to_owned()),
        received_at: standin_core::clock::Timestamp::from_millis(7),
        particulars: Particulars {
            card: Some("ich_1".to_owned()),
            network_id: Some("1234567890".to_owned()),
            terminal: Some("00000001".to_owned()),
            adds_to: None,
            partial: false,
        },
    };
    assert_eq!(read(&event()), expected);
}

#[test]
fn an_expanded_cardholder_is_the_same() {
    let mut expanded = event();
    expanded["data"]["object"]["cardholder"] = json!({"id": "ich_1", "name": "Jenny Rosen"});
    assert_eq!(read(&expanded), read(&event()));
}

#[test]
fn an_increment_is_another_payment_that_adds_to_the_first() {
    let first = read(&event());
    let mut increment = event();
    let object = &mut increment["data"]["object"];
    object["amount"] = json!(30_000);
    object["pending_request"]["amount"] = json!(500);
    object["request_history"] = json!([{"amount": 30_000, "approved": true}]);
    let increment = read(&increment);
    let id = |request: &Authorization| transaction_id(request, Operation::Authorize, None);
    assert_ne!(id(&increment), id(&first));
    assert_eq!(increment.particulars.adds_to, Some(id(&first)));
    assert_eq!(increment.amount.minor(), 500);
}

#[test]
fn wrong_fields_are_named() {
    for (pointer, value, field) in [
        ("/type", json!("issuing_authorization.created"), "type"),
        ("/type", json!(7), "type"),
        ("/api_version", json!("a\nb"), "api_version"),
        ("/data", json!([]), "data"),
        ("/data/object", json!(null), "data.object"),
        ("/data/object/id", json!(""), "data.object.id"),
        (
            "/data/object/cardholder",
            json!(null),
            "data.object.cardholder",
        ),
        (
            "/data/object/cardholder",
            json!("4111111111111111"),
            "card-number",
        ),
        (
            "/data/object/cardholder",
            json!({}),
            "data.object.cardholder",
        ),
        (
            "/data/object/request_history",
            json!({}),
            "data.object.request_history",
        ),
        (
            "/data/object/pending_request",
            json!(null),
            "data.object.pending_request",
        ),
        (
            "/data/object/pending_request/amount",
            json!(300.0),
            "data.object.pending_request.amount",
        ),
        (
            "/data/object/pending_request/amount",
            json!(-1),
            "data.object.pending_request.amount",
        ),
        (
            "/data/object/pending_request/currency",
            json!("dollars"),
            "data.object.pending_request.currency",
        ),
        (
            "/data/object/pending_request/is_amount_controllable",
            json!("yes"),
            "data.object.pending_request.is_amount_controllable",
        ),
        (
            "/data/object/merchant_data/network_id",
            json!(1_234_567_890),
            "data.object.merchant_data.network_id",
        ),
        (
            "/data/object/merchant_data/name",
            json!("x".repeat(201)),
            "data.object.merchant_data.name",
        ),
    ] {
        let named = wrong_field(Format::Stripe, &event(), pointer, value);
        assert_eq!(named, field, "{pointer}");
    }
}

#[test]
fn replies_read_like_this() {
    let understood = understand(Format::Stripe, &event()).unwrap();
    let (asked, reply) = (authorization(&understood), understood.reply);
    let approved = reply.answer(&answer(), asked.amount);
    let version = HeaderValue::from_static("2025-03-31.basil");
    assert_eq!(approved.header, Some((VERSION_HEADER, version)));
    assert_eq!(
        text(&approved),
        (200, r#"{"approved":true,"metadata":{"standin_reason":"within_cap","standin_transaction_id":"abababababababababababababababab","standin_rung":"primary","standin_code":"AAAAAA"}}"#.to_owned())
    );
    let refused = reply.answer(&declined(Reason::OverCap), asked.amount);
    assert_eq!(
        text(&refused),
        (200, r#"{"approved":false,"metadata":{"standin_reason":"over_cap","standin_transaction_id":"abababababababababababababababab","standin_rung":"primary"}}"#.to_owned())
    );
    let problem = Problem::OtherFingerprint {
        transaction_id: answer().transaction_id,
    };
    let reused = reply.problem(&problem).unwrap();
    assert_eq!(
        text(&reused),
        (
            200,
            r#"{"approved":false,"metadata":{"standin_reason":"transaction-id-reused"}}"#
                .to_owned()
        )
    );
    assert_eq!(reply.problem(&Problem::Internal), None);
}

#[test]
fn less_is_approved_where_the_event_and_the_bank_take_less() {
    let mut controllable = event();
    controllable["data"]["object"]["pending_request"]["is_amount_controllable"] = json!(true);
    let understood = understand(Format::Stripe, &controllable).unwrap();
    let (asked, reply) = (authorization(&understood), understood.reply);
    assert!(asked.particulars.partial);
    let part = Answer {
        amount: Money::from_minor(12_345, Currency::USD),
        ..answer()
    };
    let (_, body) = text(&reply.answer(&part, asked.amount));
    assert!(
        body.starts_with(r#"{"approved":true,"amount":12345,"#),
        "{body}"
    );
}
