use serde_json::json;

use super::*;

fn payment(format: Format) -> Payment {
    Payment {
        charged: Charged {
            shopper: 7,
            merchant_name: "Target".to_owned(),
            merchant_address: "123 Main St".to_owned(),
            ..Charged::default()
        },
        amount: "100.20".to_owned(),
        transaction_id: (format == Format::Native).then(|| "k/1".to_owned()),
        partial: true,
    }
}

fn reply(status: u16, body: &str) -> Reply {
    Reply {
        status,
        replayed: None,
        retry_after: None,
        stripe_version: None,
        body: Bytes::from(body.to_owned()),
    }
}

#[test]
fn each_format_says_amount_key_card_and_that_less_will_do() {
    for (format, pointers) in [
        (
            Format::Native,
            [
                ("/amount", "100.2"),
                ("/transaction_id", "k/1"),
                ("/shopper_id", "7"),
                ("/partial_approval", "true"),
            ],
        ),
        (
            Format::Stripe,
            [
                ("/data/object/pending_request/amount", "10020"),
                ("/data/object/id", "k/1"),
                ("/data/object/card/id", "ic_example_7"),
                (
                    "/data/object/pending_request/is_amount_controllable",
                    "true",
                ),
            ],
        ),
        (
            Format::Lithic,
            [
                ("/amounts/cardholder/amount", "10020"),
                ("/token", "k/1"),
                ("/card/token", "5e0a1b7c-3f42-4d68-9a1e-000000000007"),
                ("/pos/terminal/partial_approval_capable", "true"),
            ],
        ),
        (
            Format::Marqeta,
            [
                ("/gpa_order/jit_funding/amount", "100.2"),
                ("/gpa_order/jit_funding/token", "k/1"),
                ("/card_token", "card-example-7"),
                ("/pos/partial_approval_capable", "true"),
            ],
        ),
    ] {
        let written = authorization(format, &payment(format), "k/1").unwrap();
        let body: Value = serde_json::from_slice(&written.body).unwrap();
        for (pointer, expected) in pointers {
            let said = body.pointer(pointer).unwrap();
            let said = said
                .as_str()
                .map_or_else(|| said.to_string(), str::to_owned);
            assert_eq!(said, expected, "{} {pointer}", format.as_str());
        }
    }
    let marqeta = authorization(Format::Marqeta, &payment(Format::Marqeta), "k").unwrap();
    let text = String::from_utf8(marqeta.body.to_vec()).unwrap();
    assert!(text.contains("\"amount\":100.20,"), "{text}");
}

#[test]
fn a_reversal_names_the_payment_in_path_and_body() {
    let amount = payment(Format::Native).money().unwrap();
    let of = |format| reversal(format, &payment(format), "k/1", "r-1", amount).unwrap();
    let native = of(Format::Native).unwrap();
    assert_eq!(native.tail, "/key:k%2F1/reversals");
    let body: Value = serde_json::from_slice(&native.body).unwrap();
    assert_eq!(body["authorization"], "key:k/1");
    let marqeta: Value = serde_json::from_slice(&of(Format::Marqeta).unwrap().body).unwrap();
    let jit = &marqeta["gpa_order"]["jit_funding"];
    assert_eq!(jit["original_jit_funding_token"], "k/1");
    assert_eq!(jit["method"], "pgfs.authorization.reversal");
    assert_eq!((of(Format::Stripe), of(Format::Lithic)), (None, None));
}

#[test]
fn replies_are_read_in_each_formats_words() {
    let problem =
        r#"{"type":"urn:standin:problem:invalid-field","field":"amount","detail":"is required"}"#;
    for (format, status, body, words) in [
        (
            Format::Native,
            200,
            r#"{"decision":"approved","reason":"within_cap","amount":"3.00"}"#,
            "approved: within_cap, 3.00",
        ),
        (
            Format::Native,
            402,
            r#"{"decision":"declined","reason":"over_cap","amount":"3.00"}"#,
            "declined: over_cap, 3.00",
        ),
        (
            Format::Native,
            200,
            r#"{"state":"reversed","reversed":"1.00"}"#,
            "no answer: reversed, 1.00",
        ),
        (
            Format::Stripe,
            200,
            r#"{"approved":false,"metadata":{"standin_reason":"over_cap"}}"#,
            "declined: over_cap",
        ),
        (
            Format::Lithic,
            200,
            r#"{"result":"APPROVED","token":"t","approved_amount":500}"#,
            "approved: APPROVED, 500",
        ),
        (
            Format::Marqeta,
            402,
            r#"{"jit_funding":{"decline_reason":"INVALID_CARD","amount":1.5,"metadata":{"standin_reason":"unknown_card"}}}"#,
            "declined: unknown_card, 1.5",
        ),
        (
            Format::Lithic,
            400,
            problem,
            "no answer: invalid-field: amount is required",
        ),
        (Format::Stripe, 200, "hello", "no answer"),
    ] {
        assert_eq!(heard(format, &reply(status, body)).words(), words);
    }
}

#[test]
fn an_amount_is_what_it_is_worth_however_it_is_written() {
    let body =
        json!({"jit_funding": {"amount": 2.70, "metadata": {"standin_reason": "taken_back"}}});
    let heard = marqeta::heard(200, &body);
    assert_eq!(heard.amount.as_deref(), Some("2.7"));
    let dollars = |minor| Money::from_minor(minor, Currency::USD);
    assert!(heard.says(dollars(270)));
    assert!(!heard.says(dollars(271)));
    assert!(!Heard::default().says(dollars(0)));
}
