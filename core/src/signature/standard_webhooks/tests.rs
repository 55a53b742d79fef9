#![allow(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    clippy::too_many_lines,
    reason = "test code"
)]

use super::super::{SecretError, TOLERANCE};
use super::*;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const SENT: i64 = 1_614_265_330;
const SENT_TEXT: &str = "1614265330";
const BODY: &[u8] = br#"{"test": 2432232314}"#;
const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

fn secret(text: &str) -> Secret {
    text.parse().unwrap()
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_millis(secs * 1_000)
}

fn message<'a>(id: &'a str, timestamp: &'a str, signature: &'a str, body: &'a [u8]) -> Signed<'a> {
    Signed {
        id,
        timestamp,
        signature,
        body,
    }
}

fn check(message: &Signed<'_>, now: i64) -> Result<(), SignatureError> {
    verify(&[secret(SECRET)], message, at(now), TOLERANCE)
}

#[test]
fn the_published_vector_verifies_and_is_reproduced() {
    assert_eq!(sign(&secret(SECRET), ID, SENT, BODY), SIGNATURE);
    assert_eq!(
        check(&message(ID, SENT_TEXT, SIGNATURE, BODY), SENT),
        Ok(())
    );
}

#[test]
fn any_of_two_secrets_and_any_of_several_signatures_will_do() {
    let by_other = sign(&secret(OTHER), ID, SENT, BODY);
    let both = [secret(SECRET), secret(OTHER)];
    for secrets in [
        [both[0].clone(), both[1].clone()],
        [both[1].clone(), both[0].clone()],
    ] {
        for signature in [SIGNATURE, by_other.as_str()] {
            let message = message(ID, SENT_TEXT, signature, BODY);
            assert_eq!(verify(&secrets, &message, at(SENT), TOLERANCE), Ok(()));
        }
    }
    for header in [
        format!("{by_other} {SIGNATURE}"),
        format!("{SIGNATURE} {by_other}"),
        format!("v1a,abcd {SIGNATURE}"),
        format!("v2,g0hM9SsE {SIGNATURE} v1,short"),
        format!("v1,!! {SIGNATURE}"),
    ] {
        assert_eq!(
            check(&message(ID, SENT_TEXT, &header, BODY), SENT),
            Ok(()),
            "{header}"
        );
    }
}

#[test]
fn the_edges_of_the_tolerance_are_inside() {
    let good = message(ID, SENT_TEXT, SIGNATURE, BODY);
    for now in [SENT - 300, SENT, SENT + 300] {
        assert_eq!(check(&good, now), Ok(()), "{now}");
    }
}

/// What is wrong is changed in one place each; the signature is made for the changed text where
/// that is the only way to see the other check at work.
#[test]
fn every_flaw_is_refused_for_its_own_reason() {
    use SignatureError::{Form, Future, Id, Mismatch, Old, Timestamp};
    let tag = &SIGNATURE[3..];
    let resigned = |id: &str, text: &str| {
        let mac = secret(SECRET).mac(&signed(id, text, BODY));
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    };
    let long_id = "x".repeat(256);
    let plus = tag.replacen('+', "-", 1).replacen('/', "_", 1);
    let many = format!("{} {SIGNATURE}", "v2,x ".repeat(8).trim_end());
    let flipped = tag.replacen('g', "h", 1);
    let truncated = STANDARD.encode(&STANDARD.decode(tag).unwrap()[..16]);
    let longer = STANDARD.encode([STANDARD.decode(tag).unwrap().as_slice(), b"x"].concat());
    let loose_bits = tag.replacen("OE=", "OF=", 1);
    let by_other = sign(&secret(OTHER), ID, SENT, BODY);
    let cases: Vec<(String, String, String, &[u8], SignatureError)> = [
        // the body
        (
            ID,
            SENT_TEXT,
            SIGNATURE.to_owned(),
            b"".as_slice(),
            Mismatch,
        ),
        (
            ID,
            SENT_TEXT,
            SIGNATURE.to_owned(),
            br#"{"test":2432232314}"#,
            Mismatch,
        ),
        (
            ID,
            SENT_TEXT,
            SIGNATURE.to_owned(),
            br#"{"test": 2432232315}"#,
            Mismatch,
        ),
        (
            ID,
            SENT_TEXT,
            SIGNATURE.to_owned(),
            br#"{"test": 2432232314} "#,
            Mismatch,
        ),
        (ID, SENT_TEXT, SIGNATURE.to_owned(), b"\xff\xfe", Mismatch),
        // the id
        ("", SENT_TEXT, resigned("", SENT_TEXT), BODY, Id),
        (&long_id, SENT_TEXT, resigned(&long_id, SENT_TEXT), BODY, Id),
        ("a.b", SENT_TEXT, resigned("a.b", SENT_TEXT), BODY, Id),
        ("a b", SENT_TEXT, resigned("a b", SENT_TEXT), BODY, Id),
        ("a\tb", SENT_TEXT, resigned("a\tb", SENT_TEXT), BODY, Id),
        ("a\0b", SENT_TEXT, resigned("a\0b", SENT_TEXT), BODY, Id),
        ("ключ", SENT_TEXT, resigned("ключ", SENT_TEXT), BODY, Id),
        (
            "msg_p5jXN8AQM9LWM0D4loKWxJe",
            SENT_TEXT,
            SIGNATURE.to_owned(),
            BODY,
            Mismatch,
        ),
        (
            "MSG_p5jXN8AQM9LWM0D4loKWxJek",
            SENT_TEXT,
            SIGNATURE.to_owned(),
            BODY,
            Mismatch,
        ),
        // the time
        (ID, "", resigned(ID, ""), BODY, Timestamp),
        (ID, "now", resigned(ID, "now"), BODY, Timestamp),
        (
            ID,
            "-1614265330",
            resigned(ID, "-1614265330"),
            BODY,
            Timestamp,
        ),
        (
            ID,
            "+1614265330",
            resigned(ID, "+1614265330"),
            BODY,
            Timestamp,
        ),
        (
            ID,
            " 1614265330",
            resigned(ID, " 1614265330"),
            BODY,
            Timestamp,
        ),
        (
            ID,
            "01614265330",
            resigned(ID, "01614265330"),
            BODY,
            Timestamp,
        ),
        (
            ID,
            "1614265330.0",
            resigned(ID, "1614265330.0"),
            BODY,
            Timestamp,
        ),
        (ID, "1.6e9", resigned(ID, "1.6e9"), BODY, Timestamp),
        (
            ID,
            "0x60379d32",
            resigned(ID, "0x60379d32"),
            BODY,
            Timestamp,
        ),
        (
            ID,
            "99999999999999999999",
            resigned(ID, "99999999999999999999"),
            BODY,
            Timestamp,
        ),
        (ID, "0", resigned(ID, "0"), BODY, Old),
        (ID, "1614265029", resigned(ID, "1614265029"), BODY, Old),
        (ID, "1614265631", resigned(ID, "1614265631"), BODY, Future),
        (
            ID,
            "1614265330000",
            resigned(ID, "1614265330000"),
            BODY,
            Future,
        ),
        (
            ID,
            "9223372036854775807",
            resigned(ID, "9223372036854775807"),
            BODY,
            Future,
        ),
        (ID, "1614265331", SIGNATURE.to_owned(), BODY, Mismatch),
        // the signature
        (ID, SENT_TEXT, String::new(), BODY, Form),
        (ID, SENT_TEXT, tag.to_owned(), BODY, Form),
        (ID, SENT_TEXT, format!("v1{tag}"), BODY, Form),
        (ID, SENT_TEXT, format!("v1, {tag}"), BODY, Form),
        (ID, SENT_TEXT, format!("V1,{tag}"), BODY, Form),
        (ID, SENT_TEXT, format!("v2,{tag}"), BODY, Form),
        (ID, SENT_TEXT, format!("v1a,{tag}"), BODY, Form),
        (ID, SENT_TEXT, format!("v1={tag}"), BODY, Form),
        (ID, SENT_TEXT, "v1,".to_owned(), BODY, Form),
        (
            ID,
            SENT_TEXT,
            format!("v1,{}", tag.trim_end_matches('=')),
            BODY,
            Form,
        ),
        (ID, SENT_TEXT, format!("v1,{plus}"), BODY, Form),
        (ID, SENT_TEXT, format!("v1,{tag}="), BODY, Form),
        (ID, SENT_TEXT, format!("v1,{truncated}"), BODY, Form),
        (ID, SENT_TEXT, format!("v1,{longer}"), BODY, Form),
        (ID, SENT_TEXT, format!("v1,{loose_bits}"), BODY, Form),
        (ID, SENT_TEXT, format!("v1,{tag},"), BODY, Form),
        (ID, SENT_TEXT, format!("v1,{tag}\tv2,x"), BODY, Form),
        (ID, SENT_TEXT, many, BODY, Form),
        (ID, SENT_TEXT, format!("v1,{flipped}"), BODY, Mismatch),
        (ID, SENT_TEXT, by_other, BODY, Mismatch),
        (
            ID,
            SENT_TEXT,
            format!("v1,{}", STANDARD.encode([0; 32])),
            BODY,
            Mismatch,
        ),
    ]
    .map(|(id, time, signature, body, error)| {
        (id.to_owned(), time.to_owned(), signature, body, error)
    })
    .to_vec();
    assert!(cases.len() >= 40);
    for (id, time, signature, body, error) in &cases {
        let got = check(&message(id, time, signature, body), SENT);
        assert_eq!(
            got,
            Err(*error),
            "id {id:?} time {time:?} signature {signature:?}"
        );
    }
}

#[test]
fn moving_the_dot_between_the_parts_makes_no_second_message() {
    let body = b"2.{}".as_slice();
    let signature = sign(&secret(SECRET), "a", SENT, body);
    let moved = message("a.1614265330", "2", &signature, b"{}");
    assert_eq!(check(&moved, 2), Err(SignatureError::Id));
}

#[test]
fn no_secret_means_no_match() {
    let good = message(ID, SENT_TEXT, SIGNATURE, BODY);
    let none = verify::<Secret>(&[], &good, at(SENT), TOLERANCE);
    assert_eq!(none, Err(SignatureError::Mismatch));
}

#[test]
fn a_secret_is_read_strictly_and_never_shown() {
    let long = format!("whsec_{}", STANDARD.encode([7; 65]));
    for (text, error) in [
        ("", SecretError::Prefix),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", SecretError::Prefix),
        (
            "WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            SecretError::Prefix,
        ),
        (
            "whsec_",
            SecretError::Length {
                bytes: 0,
                within: (24, 64),
            },
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjU",
            SecretError::Length {
                bytes: 12,
                within: (24, 64),
            },
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS",
            SecretError::Encoding,
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw ",
            SecretError::Encoding,
        ),
        (
            &long,
            SecretError::Length {
                bytes: 65,
                within: (24, 64),
            },
        ),
    ] {
        assert_eq!(text.parse::<Secret>().map(drop), Err(error), "{text:?}");
    }
    assert_eq!(format!("{:?}", secret(SECRET)), "Secret(..)");
}
