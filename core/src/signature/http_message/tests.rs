#![allow(
    clippy::arithmetic_side_effects,
    clippy::too_many_lines,
    reason = "test code: tables of cases"
)]

use super::super::{Key, Keys, Scheme};
use super::*;

const NOW: i64 = 1_700_000_000;
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const BODY: &[u8] =
    br#"{"shopper_id":123,"amount":300,"merchant":{"name":"Target","address":"123 Main St"}}"#;
/// The next three were computed apart from this code, from the text of the RFC.
const DIGEST: &str = "sha-256=:Yt/M/RbX533F+dvNAnKDRMdaz15Pw45zcqHgVLokwv4=:";
const INPUT: &str = r#"standin=("@method" "@authority" "@path" "content-digest" "content-type" "idempotency-key");created=1700000000;expires=1700000060;nonce="b3k2pp5k7z-50gnwp_yemd";keyid="2023-11";alg="hmac-sha256";tag="standin-v1""#;
const SIGNATURE: &str = "standin=:EcfemQiPifg1rkpKOX/IcWzVttela/MjpblGWoCMDJM=:";

fn keys() -> Keys {
    let other = "standin".repeat(4);
    let text = format!("{KEY} id=2023-11\n{} id=2023-12", STANDARD.encode(other));
    Keys::parse(&text, Scheme::HttpMessage).unwrap()
}

fn good() -> Signed<'static> {
    Signed {
        method: "POST",
        authority: "edge.example.com:8443",
        target: "/v1/banks/first/authorizations",
        content_type: "application/json",
        content_digest: DIGEST,
        idempotency_key: "8e03978e-40d5-43e8-bc93-6894a57f9324",
        signature_input: INPUT,
        signature: SIGNATURE,
        body: BODY,
    }
}

fn check_at(message: &Signed<'_>, now: i64) -> Result<(), SignatureError> {
    let now = Timestamp::from_millis(now.saturating_mul(1_000));
    verify(&keys().live(now), message, now)
}

fn check(message: &Signed<'_>) -> Result<(), SignatureError> {
    check_at(message, NOW)
}

/// Checks a message whose signature is made for it, so that only what is wrong with it is found.
fn resigned(message: Signed<'_>) -> Result<(), SignatureError> {
    let params = message.signature_input.strip_prefix(LABEL).unwrap_or("");
    let base = base(&message, params);
    let secret = Scheme::HttpMessage.secret(KEY).unwrap();
    let tag = secret.mac(&[base.as_bytes()]).finalize().into_bytes();
    let signature = format!("{LABEL}:{}:", STANDARD.encode(tag));
    check(&Signed {
        signature: &signature,
        ..message
    })
}

#[test]
fn the_vector_verifies_and_is_reproduced() {
    assert_eq!(digest(BODY), DIGEST);
    let terms = Terms {
        created: NOW,
        expires: NOW + 60,
        nonce: "b3k2pp5k7z-50gnwp_yemd",
        keyid: "2023-11",
    };
    let secret = Scheme::HttpMessage.secret(KEY).unwrap();
    let (input, signature) = sign(&secret, &good(), &terms);
    assert_eq!((input.as_str(), signature.as_str()), (INPUT, SIGNATURE));
    for now in [NOW - 60, NOW, NOW + 60, NOW + 120] {
        assert_eq!(check_at(&good(), now), Ok(()), "{now}");
    }
    assert_eq!(check_at(&good(), NOW - 61), Err(SignatureError::Future));
    assert_eq!(check_at(&good(), NOW + 121), Err(SignatureError::Old));
    // The host's letters have no case.
    let shouted = Signed {
        authority: "EDGE.Example.com:8443",
        ..good()
    };
    assert_eq!(check(&shouted), Ok(()));
}

#[test]
fn every_signed_part_counts() {
    for changed in [
        Signed {
            method: "PUT",
            ..good()
        },
        Signed {
            method: "post",
            ..good()
        },
        Signed {
            authority: "edge.example.com",
            ..good()
        },
        Signed {
            authority: "edge.example.com:443",
            ..good()
        },
        Signed {
            authority: "other.example.com:8443",
            ..good()
        },
        Signed {
            target: "/v1/banks/second/authorizations",
            ..good()
        },
        Signed {
            target: "/v1/banks/first/authorizations/",
            ..good()
        },
        Signed {
            target: "/V1/banks/first/authorizations",
            ..good()
        },
        Signed {
            content_type: "application/json; charset=utf-8",
            ..good()
        },
        Signed {
            content_type: "text/plain",
            ..good()
        },
        Signed {
            idempotency_key: "8e03978e-40d5-43e8-bc93-6894a57f9325",
            ..good()
        },
        Signed {
            idempotency_key: "\"8e03978e-40d5-43e8-bc93-6894a57f9324\"",
            ..good()
        },
    ] {
        assert_eq!(
            check(&changed),
            Err(SignatureError::Mismatch),
            "{changed:?}"
        );
    }
    for (from, to) in [
        ("created=1700000000", "created=1700000001"),
        ("expires=1700000060", "expires=1700000061"),
        ("b3k2pp", "B3k2pp"),
        ("2023-11", "2023-12"),
        ("2023-11", "2023-10"),
    ] {
        let input = INPUT.replacen(from, to, 1);
        let changed = Signed {
            signature_input: &input,
            ..good()
        };
        assert_eq!(check(&changed), Err(SignatureError::Mismatch), "{input}");
    }
    let body = Signed {
        body: b"{}",
        ..good()
    };
    assert_eq!(check(&body), Err(SignatureError::Digest));
    let of_other = digest(b"{}");
    let both = Signed {
        content_digest: &of_other,
        ..body
    };
    assert_eq!(check(&both), Err(SignatureError::Mismatch));
}

#[test]
fn any_other_form_is_refused_however_it_is_signed() {
    use SignatureError::{Digest, Form, Id, Timestamp};
    for (from, to) in [
        ("standin=", "sig1="),
        ("standin=", " standin="),
        ("standin=", "standin= "),
        ("standin=", ""),
        ("\"@method\" ", ""),
        ("\"@method\" \"@authority\"", "\"@authority\" \"@method\""),
        ("\"@method\"", "\"@method\";req"),
        ("\"@path\"", "\"@target-uri\""),
        ("\"@path\"", "\"@path\" \"@query\""),
        (" \"idempotency-key\"", ""),
        ("\"content-digest\"", "\"Content-Digest\""),
        ("(\"@", "( \"@"),
        (");created", ") ;created"),
        (";created=1700000000", ""),
        (";expires=1700000060", ""),
        (";nonce=\"b3k2pp5k7z-50gnwp_yemd\"", ""),
        ("b3k2pp5k7z-50gnwp_yemd", ""),
        ("b3k2pp5k7z-50gnwp_yemd", "b3k2pp5k7z-50gn"),
        ("b3k2pp5k7z-50gnwp_yemd", "b3k2pp5k7z 50gnwp_yemd"),
        ("b3k2pp5k7z-50gnwp_yemd", "b3k2pp5k7z\\\"50gnwp_yemd"),
        (";keyid=\"2023-11\"", ""),
        ("keyid=\"2023-11\"", "keyid=\"\""),
        ("keyid=\"2023-11\"", "keyid=2023-11"),
        (";alg=\"hmac-sha256\"", ""),
        ("hmac-sha256", "hmac-sha512"),
        ("hmac-sha256", "HMAC-SHA256"),
        ("hmac-sha256", "none"),
        (";tag=\"standin-v1\"", ""),
        ("standin-v1", "standin-v2"),
        ("standin-v1\"", "standin-v1\";x=1"),
        ("standin-v1\"", "standin-v1\", sig2=()"),
        ("standin-v1\"", "standin-v1\" "),
        ("alg=", "ALG="),
    ] {
        let input = INPUT.replacen(from, to, 1);
        assert_ne!(input, INPUT, "{from} is not there");
        let changed = Signed {
            signature_input: &input,
            ..good()
        };
        assert_eq!(resigned(changed), Err(Form), "{input}");
    }
    for (created, expires) in [
        ("1700000000", "1700000000"),
        ("1700000060", "1700000000"),
        ("1700000000", "1700000301"),
        ("01700000000", "1700000060"),
        ("-1700000000", "1700000060"),
        ("1700000000.5", "1700000060"),
        ("", "1700000060"),
        ("1700000000", "x"),
        ("0", "9223372036854775807"),
        ("1700000000", "99999999999999999999"),
    ] {
        let input = INPUT
            .replacen("created=1700000000", &format!("created={created}"), 1)
            .replacen("expires=1700000060", &format!("expires={expires}"), 1);
        let changed = Signed {
            signature_input: &input,
            ..good()
        };
        assert_eq!(resigned(changed), Err(Timestamp), "{input}");
    }
    let long = "k".repeat(256);
    for key in ["", "a b", "a\tb", "a\nb", "ключ", &long] {
        let changed = Signed {
            idempotency_key: key,
            ..good()
        };
        assert_eq!(resigned(changed), Err(Id), "{key:?}");
    }
    for changed in [
        Signed {
            target: "/v1/banks/first/authorizations?x=1",
            ..good()
        },
        Signed {
            target: "/v1/banks/first/authorizations?",
            ..good()
        },
        Signed {
            target: "/v1/banks/first/authorizations#a",
            ..good()
        },
        Signed {
            target: "",
            ..good()
        },
        Signed {
            authority: "",
            ..good()
        },
        Signed {
            content_type: "",
            ..good()
        },
        Signed {
            content_type: "application/json\n\"@path\": /",
            ..good()
        },
    ] {
        assert_eq!(resigned(changed), Err(Form), "{changed:?}");
    }
    for digest in [
        "",
        "Yt/M/RbX533F+dvNAnKDRMdaz15Pw45zcqHgVLokwv4=",
        "sha-256=Yt/M/RbX533F+dvNAnKDRMdaz15Pw45zcqHgVLokwv4=",
        "SHA-256=:Yt/M/RbX533F+dvNAnKDRMdaz15Pw45zcqHgVLokwv4=:",
        "sha-512=:Yt/M/RbX533F+dvNAnKDRMdaz15Pw45zcqHgVLokwv4=:",
        "sha-256=:Yt/M/RbX533F+dvNAnKDRMdaz15Pw45zcqHgVLokwv4:",
        "sha-256=:Yt/M/RbX533F+dvNAnKDRMdaz15Pw45zcqHgVLokwv5=:",
        "sha-256=:Yt/M/RbX533F+dvNAnKDRMdaz15Pw45zcqHgVLokwv4=:, sha-512=:x:",
    ] {
        let changed = Signed {
            content_digest: digest,
            ..good()
        };
        assert_eq!(resigned(changed), Err(Digest), "{digest:?}");
    }
    let tag = SIGNATURE.strip_prefix("standin=").unwrap();
    for signature in [
        String::new(),
        tag.to_owned(),
        format!("sig1={tag}"),
        format!("standin={}", tag.trim_matches(':')),
        format!("standin={}", tag.trim_end_matches(':')),
        SIGNATURE.replacen("=:", ":", 2),
        SIGNATURE.replacen("M=:", "N=:", 1),
        format!("{SIGNATURE}, sig2={tag}"),
        format!("{SIGNATURE} "),
        "standin=::".to_owned(),
    ] {
        let changed = Signed {
            signature: &signature,
            ..good()
        };
        assert_eq!(check(&changed), Err(Form), "{signature:?}");
    }
}

#[test]
fn a_key_signs_under_its_own_name_only_and_none_means_no_match() {
    let now = Timestamp::from_millis(NOW * 1_000);
    let swapped = Keys::of(
        [
            ("2023-12", KEY),
            ("2023-11", "c3RhbmRpbnN0YW5kaW5zdGFuZGluc3RhbmRpbg=="),
        ]
        .map(|(id, secret)| Key {
            id: Some(id.to_owned()),
            ..Key::lasting(Scheme::HttpMessage.secret(secret).unwrap())
        })
        .to_vec(),
    )
    .unwrap();
    let checked = verify(&swapped.live(now), &good(), now);
    assert_eq!(checked, Err(SignatureError::Mismatch));
    let none = verify(&Live::default(), &good(), now);
    assert_eq!(none, Err(SignatureError::Mismatch));
}
