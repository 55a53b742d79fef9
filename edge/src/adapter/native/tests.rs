#![allow(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    clippy::too_many_lines,
    reason = "test code"
)]

use standin_core::answer::Why;
use standin_core::clock::Timestamp;

use super::super::testing::{answer, authorization};
use super::*;
use crate::config::BankConfig;

const SEED: &str =
    r#"{"shopper_id":123,"amount":300,"merchant":{"name":"Target","address":"123 Main St"}}"#;

fn understand(body: &[u8]) -> Result<Authorization, Problem> {
    let bank = BankConfig::for_tests("first", Currency::USD);
    let message = Message {
        bank: &bank,
        id: None,
        resource: Resource::Authorizations,
        body,
        at: Timestamp::from_millis(7),
    };
    super::understand(&message).map(|understood| authorization(&understood))
}

fn seed() -> Authorization {
    understand(SEED.as_bytes()).unwrap()
}

#[test]
fn the_body_of_the_seed_is_understood() {
    let expected = Authorization {
        bank: "first".parse().unwrap(),
        shopper: ShopperId::try_from(123_u64).unwrap(),
        amount: Money::from_minor(30_000, Currency::USD),
        merchant: Merchant {
            name: "Target".to_owned(),
            address: "123 Main St".to_owned(),
        },
        bank_key: None,
        received_at: Timestamp::from_millis(7),
        particulars: Particulars::default(),
    };
    assert_eq!(understand(SEED.as_bytes()), Ok(expected));
}

#[test]
fn optional_fields_are_read_and_unknown_ones_are_not() {
    let body =
        br#" {"note":{"a":[1,{"b":null}]},"amount":"1e2","transaction_id":"p-1","currency":"jpy",
        "shopper_id":4611686018427387903,"merchant":{"name":"A\tB \u00e9","mcc":5411}} "#;
    let request = understand(body).unwrap();
    assert_eq!(
        request.amount,
        Money::from_minor(100, "JPY".parse().unwrap())
    );
    assert_eq!(request.bank_key.as_deref(), Some("p-1"));
    assert_eq!(request.merchant.name, "A\tB é");
    assert_eq!(request.merchant.address, "");
    let body = SEED.replace('}', "").replace(
        "\"123 Main St\"",
        "null},\"currency\":null,\"transaction_id\":null}",
    );
    let request = understand(body.as_bytes()).unwrap();
    assert_eq!(
        (request.bank_key, request.amount.currency()),
        (None, Currency::USD)
    );
}

#[test]
fn amounts_are_exact() {
    for (text, minor) in [
        ("0", 0),
        ("0.00", 0),
        ("0.01", 1),
        ("100.2", 10_020),
        ("100.20", 10_020),
        ("100.200", 10_020),
        ("\"100.2\"", 10_020),
        ("1e2", 10_000),
        ("1E+2", 10_000),
        ("1.15", 115),
        ("2.675e0", -1),
        ("8.41", 841),
        ("90071992547409.93", 9_007_199_254_740_993),
        ("92233720368547758.07", i64::MAX),
    ] {
        let body = SEED.replace("300", text);
        match understand(body.as_bytes()) {
            Ok(request) => assert_eq!(request.amount.minor(), minor, "{text}"),
            Err(problem) => {
                assert_eq!((problem.slug(), minor), ("invalid-field", -1), "{text}");
            }
        }
    }
}

#[test]
fn a_wrong_field_is_named() {
    let long = format!("\"{}\"", "x".repeat(201));
    let key = format!("\"{}\"", "x".repeat(256));
    for (from, to, field) in [
        ("123,", "\"123\",", "shopper_id"),
        ("123,", "0,", "shopper_id"),
        ("123,", "-1,", "shopper_id"),
        ("123,", "1.0,", "shopper_id"),
        ("123,", "1e2,", "shopper_id"),
        ("123,", "4611686018427387904,", "shopper_id"),
        ("123,", "9223372036854775808,", "shopper_id"),
        ("123,", "null,", "shopper_id"),
        ("123,", "[123],", "shopper_id"),
        ("shopper_id", "shopper", "shopper_id"),
        ("300", "-0", "amount"),
        ("300", "-0.00", "amount"),
        ("300", "-300", "amount"),
        ("300", "\"-300\"", "amount"),
        ("300", "300.001", "amount"),
        ("300", "\"\"", "amount"),
        ("300", "\" 300\"", "amount"),
        ("300", "\"300,00\"", "amount"),
        ("300", "\"0x12c\"", "amount"),
        ("300", "\"NaN\"", "amount"),
        ("300", "\"1e99999\"", "amount"),
        ("300", "1e400", "amount"),
        ("300", "92233720368547758.08", "amount"),
        ("300", "99999999999999999999999999999999999999999", "amount"),
        ("300", "true", "amount"),
        ("300", "null", "amount"),
        ("300", "[300]", "amount"),
        ("300", "{}", "amount"),
        ("300", "300,\"currency\":\"XXX\"", "currency"),
        ("300", "300,\"currency\":840", "currency"),
        ("300", "300,\"currency\":\"\"", "currency"),
        ("300", "300,\"currency\":\"JPY \"", "currency"),
        ("300", "300.5,\"currency\":\"JPY\"", "amount"),
        ("300", "300,\"transaction_id\":\"\"", "transaction_id"),
        ("300", "300,\"transaction_id\":7", "transaction_id"),
        (
            "300",
            "300,\"transaction_id\":\"a\\u0000b\"",
            "transaction_id",
        ),
        ("300", "300,\"transaction_id\":\"a\\nb\"", "transaction_id"),
        (
            "300",
            &format!("300,\"transaction_id\":{key}"),
            "transaction_id",
        ),
        ("\"Target\"", "\"\"", "merchant.name"),
        ("\"Target\"", "\"  \"", "merchant.name"),
        ("\"Target\"", "7", "merchant.name"),
        ("\"Target\"", "null", "merchant.name"),
        ("\"Target\"", "\"a\\u0000b\"", "merchant.name"),
        ("\"Target\"", "\"\\ud800\"", "merchant.name"),
        ("\"Target\"", &long, "merchant.name"),
        ("\"name\"", "\"nom\"", "merchant.name"),
        ("\"123 Main St\"", "{}", "merchant.address"),
        ("\"123 Main St\"", &long, "merchant.address"),
        (
            "{\"name\":\"Target\",\"address\":\"123 Main St\"}",
            "\"Target\"",
            "merchant",
        ),
        (
            "{\"name\":\"Target\",\"address\":\"123 Main St\"}",
            "[]",
            "merchant",
        ),
    ] {
        let body = SEED.replacen(from, to, 1);
        assert_ne!(body, SEED);
        match understand(body.as_bytes()) {
            Err(Problem::Field { field: named, .. }) => assert_eq!(named, field, "{body}"),
            other => panic!("{body}: {other:?}"),
        }
    }
}

#[test]
fn what_is_not_a_json_object_is_malformed() {
    let deep = format!(
        "{}{}{}",
        SEED.trim_end_matches('}'),
        "},\"x\":",
        "[".repeat(5_000)
    );
    let deep_closed = SEED.replacen(
        "300",
        &format!("300,\"x\":{}1{}", "[".repeat(40), "]".repeat(40)),
        1,
    );
    for body in [
        "",
        " ",
        "null",
        "[]",
        "300",
        "\"{}\"",
        "{",
        &SEED[..SEED.len() - 1],
        &format!("{SEED}{SEED}"),
        &format!("{SEED}x"),
        &format!("\u{feff}{SEED}"),
        &SEED.replace("300", "0300"),
        &SEED.replace("300", "+300"),
        &SEED.replace("300", ".5"),
        &SEED.replace("300", "5."),
        &SEED.replace("300", "NaN"),
        &SEED.replace("300", "Infinity"),
        &SEED.replace("300", "3_00"),
        &SEED.replace("300", "300,"),
        &SEED.replace('"', "'"),
        &SEED.replace("Target", "Tar\nget"),
        &SEED.replace("Target", "Tar\0get"),
        &SEED.replacen("300", "300,\"amount\":300", 1),
        &SEED.replacen("300", "300,\"am\\u006funt\":3000", 1),
        &SEED.replacen("300", "300,\"x\":1,\"x\":1", 1),
        &SEED.replacen("\"Target\"", "\"Target\",\"name\":\"Target\"", 1),
        &deep,
        &deep_closed,
    ] {
        let got = understand(body.as_bytes());
        assert!(
            matches!(got, Err(Problem::Malformed { .. })),
            "{body:.120}: {got:?}"
        );
    }
    let not_utf8 = [SEED.as_bytes(), b"\xff"].concat();
    assert!(matches!(
        understand(&not_utf8),
        Err(Problem::Malformed { .. })
    ));
    let in_ignored = SEED.replacen("300", "300,\"x\":\"?\"", 1).into_bytes();
    let in_ignored: Vec<u8> = in_ignored
        .iter()
        .map(|b| if *b == b'?' { 0xff } else { *b })
        .collect();
    assert!(matches!(
        understand(&in_ignored),
        Err(Problem::Malformed { .. })
    ));
}

#[test]
fn every_cut_and_every_changed_byte_is_read_or_refused() {
    for at in 0..SEED.len() {
        assert!(understand(&SEED.as_bytes()[..at]).is_err(), "cut at {at}");
        for bit in 0..8 {
            let mut body = SEED.as_bytes().to_vec();
            body[at] ^= 1 << bit;
            drop(understand(&body));
        }
    }
}

fn rendered(answer: &Answer) -> (u16, String) {
    let rendered = Native.answer(answer, seed().amount);
    (
        rendered.status.as_u16(),
        String::from_utf8(rendered.body.to_vec()).unwrap(),
    )
}

#[test]
fn an_approval_reads_like_this() {
    let expected = r#"{"decision":"approved","reason":"within_cap","transaction_id":"abababababababababababababababab","authorization_code":"AAAAAA","amount":"300.00","currency":"USD","rung":"primary","cap":"345.50","approved_before":"0.00","trip_id":"02020202-0202-0202-0202-020202020202","trip_age_ms":12,"policy_version":3}"#;
    assert_eq!(rendered(&answer()), (200, expected.to_owned()));
}

#[test]
fn a_decline_has_no_code_and_an_answer_without_the_primary_says_why() {
    let declined = Answer {
        verdict: Verdict::Declined,
        reason: Reason::NoTrip,
        rung: Rung::Isolated,
        why: Some(Why::Timeout),
        cap: None,
        trip: None,
        trip_age_ms: None,
        ..answer()
    };
    let expected = r#"{"decision":"declined","reason":"no_trip","transaction_id":"abababababababababababababababab","amount":"300.00","currency":"USD","rung":"isolated","cap":null,"approved_before":"0.00","trip_id":null,"trip_age_ms":null,"policy_version":3,"why":"timeout","exposed":true}"#;
    assert_eq!(rendered(&declined), (402, expected.to_owned()));
}

#[test]
fn sums_in_another_currency_are_not_printed_in_this_one() {
    let declined = Answer {
        verdict: Verdict::Declined,
        reason: Reason::CurrencyMismatch,
        amount: Money::from_minor(500, "JPY".parse().unwrap()),
        ..answer()
    };
    let (status, body) = rendered(&declined);
    assert_eq!(status, 402);
    assert!(
        body.contains(r#""amount":"500","currency":"JPY""#),
        "{body}"
    );
    assert!(
        body.contains(r#""cap":null,"approved_before":null"#),
        "{body}"
    );
}

#[test]
fn a_card_number_is_refused_wherever_it_stands() {
    for body in [
        SEED.replace("123 Main St", "4111111111111111"),
        SEED.replace("123 Main St", "card 4111 1111 1111 1111, thanks"),
        SEED.replace("Target", "\\u0034111111111111111"),
        SEED.replace(
            "{\"shopper_id\"",
            "{\"note\":{\"deep\":[378282246310005]},\"shopper_id\"",
        ),
        SEED.replace("{\"shopper_id\"", "{\"5555555555554444\":1,\"shopper_id\""),
        SEED.replace(
            "{\"shopper_id\"",
            "{\"transaction_id\":\"6011111111111117\",\"shopper_id\"",
        ),
    ] {
        let refused = understand(body.as_bytes()).unwrap_err();
        assert_eq!(refused, Problem::CardNumber, "{body}");
        assert!(!String::from_utf8_lossy(&refused.to_bytes()).contains("1111"));
    }
    let other = SEED.replace("123 Main St", "4111111111111112");
    assert!(understand(other.as_bytes()).is_ok());
}
