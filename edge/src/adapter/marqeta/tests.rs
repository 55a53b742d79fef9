use serde_json::{Value, json};
use standin_core::clock::Timestamp;
use standin_core::identity::{Operation, of_key};

use super::super::Format;
use super::super::testing::{answer, authorization, declined, text, understand, wrong_field};
use super::*;

/// A request as Marqeta documents it.
fn event() -> Value {
    json!({
        "type": "authorization", "state": "PENDING", "token": "tx-1", "user_token": "user-1",
        "acting_user_token": "user-1", "card_token": "card-1",
        "created_time": "2026-11-30T15:14:04Z", "user_transaction_time": "2026-11-30T15:14:04Z",
        "request_amount": 300.0, "amount": 300.0, "currency_code": "USD", "network": "MASTERCARD",
        "gpa": {"currency_code": "USD", "ledger_balance": 0, "available_balance": 0},
        "gpa_order": {"token": "order-1", "amount": 300.0, "transaction_token": "tx-1",
            "state": "PENDING", "funding_source_token": "fs-1", "currency_code": "USD",
            "funding": {"amount": 300.0, "source": {"type": "programgateway", "token": "fs-1"}},
            "jit_funding": {"token": "jit-1", "method": "pgfs.authorization",
                "user_token": "user-1", "acting_user_token": "user-1", "amount": 300.1,
                "original_jit_funding_token": null, "address_verification": {}}},
        "card_acceptor": {"mid": "123456890", "mcc": "5411", "name": "TARGET T-1234",
            "city": "San Francisco", "state": "CA", "postal_code": "94103", "country_code": "USA"},
        "acquirer": {"institution_id_code": "428399181"},
        "pos": {"pan_entry_mode": "CHIP", "terminal_id": "TR100000", "card_presence": true,
            "partial_approval_capable": true},
        "user": {"metadata": {}}, "card": {"last_four": "6491", "metadata": {}},
    })
}

fn read(event: &Value) -> Authorization {
    authorization(&understand(Format::Marqeta, event).unwrap())
}

#[test]
fn the_documented_request_is_understood() {
    let expected = Authorization {
        bank: "first".parse().unwrap(),
        shopper: not_looked_up(&"first".parse().unwrap(), "user-1"),
        amount: Money::from_minor(30_010, Currency::USD),
        merchant: Merchant {
            name: "TARGET T-1234".to_owned(),
            address: "San Francisco CA 94103".to_owned(),
        },
        bank_key: Some("jit-1".to_owned()),
        received_at: Timestamp::from_millis(7),
        particulars: Particulars {
            card: Some("user-1".to_owned()),
            network_id: Some("123456890".to_owned()),
            terminal: Some("TR100000".to_owned()),
            adds_to: None,
            partial: true,
        },
    };
    assert_eq!(read(&event()), expected);
}

#[test]
fn of_a_shared_account_the_holder_is_who_acts() {
    let mut shared = event();
    shared["user_token"] = json!("company-1");
    let of = |event: &Value| read(event).particulars.card;
    assert_eq!(of(&shared).as_deref(), Some("user-1"));
    shared["acting_user_token"] = json!(null);
    assert_eq!(of(&shared).as_deref(), Some("company-1"));
    let named = |value| wrong_field(Format::Marqeta, &shared, "/user_token", value);
    assert_eq!(named(json!(null)), "user_token");
    assert_eq!(named(json!("4111111111111111")), "card-number");
}

#[test]
fn the_accounts_currency_counts_and_decimals_are_exact() {
    let mut zloty = event();
    zloty["currency_code"] = json!("PLN");
    assert_eq!(read(&zloty).amount.currency(), Currency::USD);
    zloty["gpa_order"]["currency_code"] = json!(null);
    assert_eq!(read(&zloty).amount.currency().code(), "PLN");
    let text = event().to_string().replace("300.1", "1.91");
    let cents = super::super::testing::understand_text(Format::Marqeta, &text).unwrap();
    assert_eq!(authorization(&cents).amount.minor(), 191);
}

#[test]
fn an_increment_adds_to_its_original() {
    let mut increment = event();
    let jit = &mut increment["gpa_order"]["jit_funding"];
    jit["token"] = json!("jit-2");
    jit["method"] = json!("pgfs.authorization.incremental");
    jit["original_jit_funding_token"] = json!("jit-1");
    let original = of_key(&"first".parse().unwrap(), Operation::Authorize, "jit-1");
    assert_eq!(read(&increment).particulars.adds_to, Some(original));
    let pointer = "/gpa_order/jit_funding/original_jit_funding_token";
    let named = wrong_field(Format::Marqeta, &increment, pointer, json!(null));
    assert_eq!(named, "gpa_order.jit_funding.original_jit_funding_token");
}

#[test]
fn inquiries_ask_for_nothing() {
    for method in [
        "pgfs.authorization.account_verification",
        "pgfs.balanceinquiry",
    ] {
        let mut inquiry = event();
        inquiry["gpa_order"]["jit_funding"]["method"] = json!(method);
        assert_eq!(read(&inquiry).amount.minor(), 0);
    }
}

#[test]
fn wrong_fields_are_named() {
    for (pointer, value, field) in [
        ("/acting_user_token", json!(7), "acting_user_token"),
        (
            "/acting_user_token",
            json!("4111111111111111"),
            "card-number",
        ),
        (
            "/gpa_order/jit_funding/token",
            json!("4111111111111111"),
            "card-number",
        ),
        (
            "/card_acceptor/name",
            json!("PAY 4111111111111111"),
            "card-number",
        ),
        ("/gpa_order", json!(null), "gpa_order"),
        ("/gpa_order/jit_funding", json!([]), "gpa_order.jit_funding"),
        (
            "/gpa_order/jit_funding/token",
            json!(1),
            "gpa_order.jit_funding.token",
        ),
        (
            "/gpa_order/jit_funding/method",
            json!("pgfs.x"),
            "gpa_order.jit_funding.method",
        ),
        (
            "/gpa_order/jit_funding/amount",
            json!(-1),
            "gpa_order.jit_funding.amount",
        ),
        (
            "/gpa_order/jit_funding/amount",
            json!(1.234),
            "gpa_order.jit_funding.amount",
        ),
        (
            "/gpa_order/currency_code",
            json!("?"),
            "gpa_order.currency_code",
        ),
        ("/card_acceptor/mid", json!(5), "card_acceptor.mid"),
        ("/pos", json!(5), "pos"),
        (
            "/pos/partial_approval_capable",
            json!("1"),
            "pos.partial_approval_capable",
        ),
    ] {
        let named = wrong_field(Format::Marqeta, &event(), pointer, value);
        assert_eq!(named, field, "{pointer}");
    }
}

#[test]
fn replies_read_like_this() {
    let understood = understand(Format::Marqeta, &event()).unwrap();
    let (asked, reply) = (authorization(&understood), understood.reply);
    assert_eq!(
        text(&reply.answer(&answer(), asked.amount)),
        (200, r#"{"jit_funding":{"token":"jit-1","method":"pgfs.authorization","user_token":"user-1","acting_user_token":"user-1","amount":300.00,"metadata":{"standin_reason":"within_cap","standin_transaction_id":"abababababababababababababababab","standin_code":"AAAAAA"}}}"#.to_owned())
    );
    assert_eq!(
        text(&reply.answer(&declined(Reason::OverCap), asked.amount)),
        (402, r#"{"jit_funding":{"token":"jit-1","method":"pgfs.authorization","user_token":"user-1","acting_user_token":"user-1","amount":300.00,"decline_reason":"AMOUNT_LIMIT_EXCEEDED","metadata":{"standin_reason":"over_cap","standin_transaction_id":"abababababababababababababababab"}}}"#.to_owned())
    );
    for reason in Reason::ALL {
        let approves = reason.verdict() == Verdict::Approved;
        assert_eq!(decline_reason(reason).is_none(), approves, "{reason}");
    }
    let problem = Problem::OtherFingerprint {
        transaction_id: answer().transaction_id,
    };
    let (status, body) = text(&reply.problem(&problem).unwrap());
    assert_eq!(status, 402);
    assert!(
        body.contains(r#""decline_reason":"DUPLICATE_TRANSACTION""#),
        "{body}"
    );
    assert!(body.contains(r#""amount":300.10"#), "{body}");
}
