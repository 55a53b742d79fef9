//! Signed messages with bits changed: none may pass.
//!
//! `STANDIN_MUTATIONS` says how many of each scheme (20,000 unless it is set), `STANDIN_TEST_SEED`
//! which.

#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use super::*;

const NOW: i64 = 1_700_000_000;
const BODY: &[u8] = br#"{"shopper_id":123,"amount":300,"merchant":{"name":"Target"}}"#;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap();
        usize::try_from(self.next() % bound).unwrap()
    }
}

fn setting(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().unwrap())
}

/// Changes one to four bits of a message's parts each time and asks `passes`; the last part is the
/// body, the others are text. Gives how many were asked.
fn mutate(name: &str, parts: &[Vec<u8>], passes: impl Fn(&[&str], &[u8]) -> bool) {
    let seed = setting("STANDIN_TEST_SEED").unwrap_or(7);
    let count = setting("STANDIN_MUTATIONS").unwrap_or(20_000);
    let (mut random, mut asked) = (Random(seed), 0_u64);
    let check = |parts: &[Vec<u8>]| {
        let (body, texts) = parts.split_last().unwrap();
        let texts: Option<Vec<&str>> = texts
            .iter()
            .map(|part| std::str::from_utf8(part).ok())
            .collect();
        // What is no text is no header: it never comes here.
        texts.map(|texts| passes(&texts, body))
    };
    assert_eq!(
        check(parts),
        Some(true),
        "{name}: the message is good as it is"
    );
    while asked < count {
        let mut changed = parts.to_vec();
        for _ in 0..=random.below(4) {
            let part = random.below(changed.len());
            let bits = changed[part].len() * 8;
            let bit = random.below(bits);
            changed[part][bit / 8] ^= 1 << (bit % 8);
        }
        // Two changes of one bit are none.
        if changed == parts {
            continue;
        }
        if let Some(passed) = check(&changed) {
            assert!(!passed, "{name}, seed {seed}: {changed:?} passed");
            asked += 1;
        }
    }
    println!("{name}: {asked} changed messages, none passed (STANDIN_TEST_SEED={seed})");
}

fn now() -> Timestamp {
    Timestamp::from_millis(NOW * 1_000)
}

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

#[test]
fn no_changed_webhook_passes() {
    let secret = Secret::from_bytes(vec![7; 32]).unwrap();
    let time = NOW.to_string();
    let parts = [
        bytes("msg_1"),
        bytes(&time),
        bytes(&sign(&secret, "msg_1", NOW, BODY)),
        BODY.to_vec(),
    ];
    mutate("standard-webhooks", &parts, |texts, body| {
        let message = Signed {
            id: texts[0],
            timestamp: texts[1],
            signature: texts[2],
            body,
        };
        verify(&[&secret], &message, now(), TOLERANCE).is_ok()
    });
}

#[test]
fn no_changed_stripe_event_passes() {
    let secret = Scheme::Stripe.secret("whsec_test_secret").unwrap();
    let parts = [bytes(&stripe::sign(&secret, NOW, BODY)), BODY.to_vec()];
    mutate("stripe", &parts, |texts, body| {
        stripe::verify(&[&secret], texts[0], body, now(), TOLERANCE).is_ok()
    });
}

#[test]
fn no_changed_http_message_passes() {
    let secret = Secret::from_bytes(vec![7; 32]).unwrap();
    let key = Key {
        id: Some("2023-11".to_owned()),
        ..Key::lasting(secret.clone())
    };
    let keys = Keys::of(vec![key]).unwrap();
    let digest = http_message::digest(BODY);
    // No letters in the host: they have no case, so changing it is no change.
    let good = http_message::Signed {
        method: "POST",
        authority: "127.0.0.1:8443",
        target: "/v1/banks/first/authorizations",
        content_type: "application/json",
        content_digest: &digest,
        idempotency_key: "8e03978e-40d5-43e8-bc93-6894a57f9324",
        signature_input: "",
        signature: "",
        body: BODY,
    };
    let terms = http_message::Terms {
        created: NOW,
        expires: NOW + 60,
        nonce: "b3k2pp5k7z-50gnwp_yemd",
        keyid: "2023-11",
    };
    let (input, signature) = http_message::sign(&secret, &good, &terms);
    let texts = [
        good.method,
        good.authority,
        good.target,
        good.content_type,
        &digest,
        good.idempotency_key,
        &input,
        &signature,
    ];
    let mut parts = texts.map(bytes).to_vec();
    parts.push(BODY.to_vec());
    mutate("http-message", &parts, |texts, body| {
        let message = http_message::Signed {
            method: texts[0],
            authority: texts[1],
            target: texts[2],
            content_type: texts[3],
            content_digest: texts[4],
            idempotency_key: texts[5],
            signature_input: texts[6],
            signature: texts[7],
            body,
        };
        http_message::verify(&keys.live(now()), &message, now()).is_ok()
    });
}

#[test]
fn no_changed_credentials_pass() {
    let secret = Scheme::Basic.secret("marqeta:sesame-street").unwrap();
    // The scheme's letters have no case, so they stay out.
    let credentials = basic::credentials(&secret);
    let encoded = credentials.strip_prefix("Basic ").unwrap();
    // What is signed is nothing; the body stands for itself.
    let parts = [bytes(encoded), b"x".to_vec()];
    mutate("basic", &parts, |texts, body| {
        basic::verify(&[&secret], &format!("Basic {}", texts[0])).is_ok() && body == b"x"
    });
}
