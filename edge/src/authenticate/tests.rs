#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use standin_core::clock::ManualClock;
use standin_core::money::Currency;
use standin_core::signature::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, sign};

use super::*;
use crate::alarm::{Alarm, Alarms};
use crate::metrics::Metrics;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const PATH: &str = "/v1/banks/first/authorizations";

fn secret(byte: u8) -> Secret {
    Secret::from_bytes(vec![byte; 32]).unwrap()
}

fn bank(slug: &str, scheme: Scheme, keys: Vec<Key>) -> BankConfig {
    let mut bank = BankConfig::for_tests(slug, Currency::USD);
    bank.secrets.scheme = scheme;
    bank.secrets.given = keys;
    bank
}

fn first() -> BankConfig {
    bank(
        "first",
        Scheme::StandardWebhooks,
        vec![Key::lasting(secret(7))],
    )
}

fn alarms() -> Arc<Alarms> {
    let metrics = Arc::new(Metrics::new().unwrap());
    Arc::new(Alarms::new(metrics, Arc::new(ManualClock::at(NOW))))
}

async fn knowing(banks: Vec<BankConfig>) -> Authenticator {
    let clock = Arc::new(ManualClock::at(NOW));
    let secrets = BankSecrets::open(&banks, clock, alarms()).await.unwrap();
    Authenticator::new(banks, Arc::new(secrets))
}

fn parts(headers: &[(&str, &str)]) -> Parts {
    let mut request = http::Request::post(PATH);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn signed(by: &Secret, body: &[u8]) -> Parts {
    let time = NOW.as_secs().to_string();
    let signature = sign(by, "msg_1", NOW.as_secs(), body);
    parts(&[
        (ID_HEADER, "msg_1"),
        (TIMESTAMP_HEADER, &time),
        (SIGNATURE_HEADER, &signature),
    ])
}

fn presented<'a>(slug: &'a str, parts: &'a Parts, body: &'a str) -> Presented<'a> {
    Presented {
        slug,
        parts,
        body: body.as_bytes(),
        peer_name: None,
    }
}

#[tokio::test]
async fn a_signed_request_of_a_known_bank_passes_and_its_id_is_known() {
    let known = knowing(vec![first()]).await;
    let parts = signed(&secret(7), b"{}");
    let sender = known.authenticate(&presented("first", &parts, "{}"), NOW);
    let sender = sender.unwrap();
    assert_eq!(sender.bank.slug.as_str(), "first");
    assert_eq!(sender.message_id, Some("msg_1"));
}

#[tokio::test]
async fn whatever_is_wrong_looks_the_same_outside_and_is_counted_apart() {
    let known = knowing(vec![first()]).await;
    let good = signed(&secret(7), b"{}");
    let without = |name: &'static str| {
        let mut parts = good.clone();
        parts.headers.remove(name);
        parts
    };
    let twice = |name: &'static str| {
        let mut parts = good.clone();
        parts.headers.append(name, good.headers[name].clone());
        parts
    };
    let later = NOW.plus(std::time::Duration::from_secs(301));
    let mut answers = std::collections::BTreeSet::new();
    for (slug, parts, body, now, cause) in [
        ("second", good.clone(), "{}", NOW, "unknown_bank"),
        ("", good.clone(), "{}", NOW, "unknown_bank"),
        ("First", good.clone(), "{}", NOW, "unknown_bank"),
        ("first", good.clone(), "{ }", NOW, "mismatch"),
        ("first", good.clone(), "{}", later, "old"),
        ("first", without(ID_HEADER), "{}", NOW, "header"),
        ("first", without(TIMESTAMP_HEADER), "{}", NOW, "header"),
        ("first", without(SIGNATURE_HEADER), "{}", NOW, "header"),
        ("first", twice(ID_HEADER), "{}", NOW, "header"),
        ("first", twice(SIGNATURE_HEADER), "{}", NOW, "header"),
        ("second", self::parts(&[]), "", NOW, "unknown_bank"),
    ] {
        let error = known.authenticate(&presented(slug, &parts, body), now);
        let error = error.unwrap_err();
        assert_eq!(error.as_str(), cause);
        let response = Problem::from(error).to_response();
        answers.insert(format!("{response:?}"));
    }
    assert_eq!(answers.len(), 1);
}

#[tokio::test]
async fn a_request_signed_for_one_bank_is_not_anothers() {
    let second = bank(
        "second",
        Scheme::StandardWebhooks,
        vec![Key::lasting(secret(8))],
    );
    let known = knowing(vec![first(), second]).await;
    let parts = signed(&secret(7), b"{}");
    let error = known.authenticate(&presented("second", &parts, "{}"), NOW);
    assert_eq!(error.unwrap_err().as_str(), "mismatch");
}

#[tokio::test]
async fn a_certificate_must_be_the_banks_and_may_be_demanded() {
    let mut demanding = first();
    demanding.mutual_tls = true;
    let (lax, strict) = (knowing(vec![first()]).await, knowing(vec![demanding]).await);
    let parts = signed(&secret(7), b"{}");
    let check = |known: &Authenticator, peer_name: Option<&str>| {
        let request = Presented {
            peer_name,
            ..presented("first", &parts, "{}")
        };
        known
            .authenticate(&request, NOW)
            .map(drop)
            .map_err(AuthenticationError::as_str)
    };
    assert_eq!(check(&lax, None), Ok(()));
    assert_eq!(check(&strict, None), Err("certificate"));
    for known in [&lax, &strict] {
        assert_eq!(check(known, Some("standin://bank/first")), Ok(()));
        for other in [
            "standin://bank/second",
            "standin://bank/first/",
            "standin://Bank/first",
            "standin://operator/first",
            "standin://edge/first/1",
            "first",
            "",
        ] {
            assert_eq!(check(known, Some(other)), Err("certificate"), "{other}");
        }
    }
    // A good certificate does not make up for a signature.
    let unsigned = self::parts(&[]);
    let request = Presented {
        peer_name: Some("standin://bank/first"),
        ..presented("first", &unsigned, "{}")
    };
    assert_eq!(
        strict.authenticate(&request, NOW).unwrap_err().as_str(),
        "header"
    );
}

/// A request with an HTTP message signature.
fn message_signed(by: &Secret, body: &str) -> Parts {
    let now = NOW.as_secs();
    let digest = http_message::digest(body.as_bytes());
    let message = http_message::Signed {
        method: "POST",
        authority: "edge.example.com",
        target: PATH,
        content_type: "application/json",
        content_digest: &digest,
        idempotency_key: "key-1",
        signature_input: "",
        signature: "",
        body: body.as_bytes(),
    };
    let terms = http_message::Terms {
        created: now,
        expires: now + 60,
        nonce: "0123456789abcdef",
        keyid: "2023-11",
    };
    let (input, signature) = http_message::sign(by, &message, &terms);
    parts(&[
        ("host", "edge.example.com"),
        ("content-type", "application/json"),
        (http_message::DIGEST_HEADER, &digest),
        (http_message::KEY_HEADER, "key-1"),
        (http_message::INPUT_HEADER, &input),
        (http_message::SIGNATURE_HEADER, &signature),
    ])
}

#[tokio::test]
async fn each_scheme_is_checked_by_its_own_headers() {
    let text = |scheme: Scheme, text: &str| scheme.secret(text).unwrap();
    let by_stripe = text(Scheme::Stripe, "whsec_test_secret");
    let by_basic = text(Scheme::Basic, "marqeta:sesame-street");
    let by_message = secret(9);
    let named = Key {
        id: Some("2023-11".to_owned()),
        ..Key::lasting(by_message.clone())
    };
    let known = knowing(vec![
        bank(
            "stripe",
            Scheme::Stripe,
            vec![Key::lasting(by_stripe.clone())],
        ),
        bank(
            "marqeta",
            Scheme::Basic,
            vec![Key::lasting(by_basic.clone())],
        ),
        bank("message", Scheme::HttpMessage, vec![named]),
    ])
    .await;
    let body = "{}";
    let now = NOW.as_secs();
    let stripe_header = stripe::sign(&by_stripe, now, body.as_bytes());
    let of_stripe = parts(&[(stripe::SIGNATURE_HEADER, &stripe_header)]);
    let of_marqeta = parts(&[(basic::HEADER, &basic::credentials(&by_basic))]);
    let of_message = message_signed(&by_message, body);
    for (slug, parts, id) in [
        ("stripe", &of_stripe, None),
        ("marqeta", &of_marqeta, None),
        ("message", &of_message, Some("key-1")),
    ] {
        let sender = known
            .authenticate(&presented(slug, parts, body), NOW)
            .unwrap();
        assert_eq!(sender.message_id, id, "{slug}");
        for other in ["stripe", "marqeta", "message"] {
            if other != slug {
                let error = known.authenticate(&presented(other, parts, body), NOW);
                assert_eq!(error.unwrap_err().as_str(), "header", "{slug} as {other}");
            }
        }
    }
    // HTTP/2 names the host in the target.
    let mut http2 = of_message.clone();
    http2.headers.remove("host");
    http2.uri = format!("https://edge.example.com{PATH}").parse().unwrap();
    assert!(
        known
            .authenticate(&presented("message", &http2, body), NOW)
            .is_ok()
    );
}

#[tokio::test]
async fn an_edge_that_lacks_a_key_says_come_again_and_takes_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secrets");
    let mut rotating = first();
    rotating.secrets.given = Vec::new();
    rotating.secrets.file = Some(path.clone());
    let text = |byte: u8| format!("whsec_{}", base64_of(&[byte; 32]));
    let alarms = alarms();
    let clock = Arc::new(ManualClock::at(NOW));
    let banks = vec![rotating];
    let opened = BankSecrets::open(&banks, clock, Arc::clone(&alarms)).await;
    let secrets = Arc::new(opened.unwrap());
    let known = Authenticator::new(banks, Arc::clone(&secrets));
    let check = |by: u8| {
        let parts = signed(&secret(by), b"{}");
        let checked = known.authenticate(&presented("first", &parts, "{}"), NOW);
        checked.map(drop).map_err(AuthenticationError::as_str)
    };
    let is_alarmed = || {
        alarms
            .raised()
            .iter()
            .any(|it| it.name == Alarm::BankSecrets.as_str())
    };
    // No file yet: nobody can tell who this is.
    assert_eq!((check(1), is_alarmed()), (Err("key_missing"), true));
    let problem = Problem::from(AuthenticationError::KeyMissing).to_response();
    assert_eq!(problem.status(), 503);
    // One key came, one was announced.
    std::fs::write(&path, format!("{}\n- id=next\n", text(1))).unwrap();
    secrets.reload().await;
    assert_eq!((check(1), check(2)), (Ok(()), Err("key_missing")));
    // Both are good while one takes the other's place.
    std::fs::write(&path, format!("{}\n{} id=next\n", text(1), text(2))).unwrap();
    secrets.reload().await;
    assert_eq!(
        (check(1), check(2), check(3)),
        (Ok(()), Ok(()), Err("mismatch"))
    );
    assert!(!is_alarmed());
    // What does not serve changes nothing, and is said.
    for bad in ["", "hunter2", "whsec_short"] {
        std::fs::write(&path, bad).unwrap();
        secrets.reload().await;
        assert_eq!((check(1), check(2), is_alarmed()), (Ok(()), Ok(()), true));
    }
    std::fs::remove_file(&path).unwrap();
    secrets.reload().await;
    assert_eq!((check(1), is_alarmed()), (Ok(()), true));
    std::fs::write(&path, text(2)).unwrap();
    secrets.reload().await;
    assert_eq!(
        (check(1), check(2), is_alarmed()),
        (Err("mismatch"), Ok(()), false)
    );
}

fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
