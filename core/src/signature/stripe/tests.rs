#![allow(
    clippy::arithmetic_side_effects,
    clippy::too_many_lines,
    reason = "test code: tables of cases"
)]

use super::super::{Scheme, TOLERANCE};
use super::*;

const SENT: i64 = 1_700_000_000;
const BODY: &[u8] = br#"{"id":"evt_1"}"#;
/// Computed by hand from Stripe's description.
const TAG: &str = "248a374f50f943a28b0f6ab50faf9a7e7e29b710fa26df9fb1618b9bf8ea9c9a";

fn secret(text: &str) -> Secret {
    Scheme::Stripe.secret(text).unwrap()
}

fn ours() -> Secret {
    secret("whsec_test_secret")
}

fn check(header: &str, body: &[u8], now: i64) -> Result<(), SignatureError> {
    let now = Timestamp::from_millis(now.saturating_mul(1_000));
    verify(&[ours()], header, body, now, TOLERANCE)
}

#[test]
fn the_vector_verifies_and_is_reproduced() {
    let header = format!("t={SENT},v1={TAG}");
    assert_eq!(sign(&ours(), SENT, BODY), header);
    for now in [SENT - 300, SENT, SENT + 300] {
        assert_eq!(check(&header, BODY, now), Ok(()), "{now}");
    }
}

#[test]
fn any_of_two_secrets_and_any_of_several_signatures_will_do() {
    let other = secret("whsec_another_secret");
    let by_other = sign(&other, SENT, BODY);
    let other_tag = by_other.rsplit_once('=').unwrap().1.to_owned();
    let now = Timestamp::from_millis(SENT * 1_000);
    let both = [ours(), other];
    for header in [
        format!("t={SENT},v1={TAG}"),
        by_other,
        format!("t={SENT},v1={other_tag},v1={TAG}"),
    ] {
        assert_eq!(verify(&both, &header, BODY, now, TOLERANCE), Ok(()));
    }
    for header in [
        format!("t={SENT},v1={other_tag},v1={TAG}"),
        format!("v1={TAG},t={SENT}"),
        format!("t={SENT},v0={TAG},v1={TAG}"),
        format!("t={SENT},v1=short,v1={TAG},x"),
    ] {
        assert_eq!(check(&header, BODY, SENT), Ok(()), "{header}");
    }
}

#[test]
fn every_flaw_is_refused_for_its_own_reason() {
    use SignatureError::{Form, Future, Mismatch, Old, Timestamp as Time};
    let good = format!("t={SENT},v1={TAG}");
    // Signed over the time as it is written there, so that only the time is wrong.
    let resigned = |time: &str| {
        let tag = ours().mac(&signed(time, BODY)).finalize().into_bytes();
        let hex: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("t={time},v1={hex}")
    };
    let upper = TAG.to_ascii_uppercase();
    let flipped = TAG.replacen('2', "3", 1);
    let many = format!(
        "t={SENT}{}",
        format!(",v1={TAG}").repeat(SIGNATURES_MAX + 1)
    );
    for (header, body, error) in [
        // the body
        (good.as_str(), b"".as_slice(), Mismatch),
        (&good, br#"{"id":"evt_2"}"#, Mismatch),
        (&good, br#"{"id": "evt_1"}"#, Mismatch),
        (&good, b"{\"id\":\"evt_1\"}\n", Mismatch),
        (&good, b"\xff", Mismatch),
        (&good, b"1700000000.{\"id\":\"evt_1\"}", Mismatch),
        // the time
        ("", BODY, Time),
        (&format!("v1={TAG}"), BODY, Time),
        (&format!("t=,v1={TAG}"), BODY, Time),
        (&format!("t={SENT},t={SENT},v1={TAG}"), BODY, Time),
        (&format!("T={SENT},v1={TAG}"), BODY, Time),
        (&format!(" t={SENT},v1={TAG}"), BODY, Time),
        (&resigned("now"), BODY, Time),
        (&resigned("-1700000000"), BODY, Time),
        (&resigned("+1700000000"), BODY, Time),
        (&resigned(" 1700000000"), BODY, Time),
        (&resigned("01700000000"), BODY, Time),
        (&resigned("1700000000.0"), BODY, Time),
        (&resigned("1.7e9"), BODY, Time),
        (&resigned("99999999999999999999"), BODY, Time),
        (&resigned("0"), BODY, Old),
        (&resigned("1699999699"), BODY, Old),
        (&resigned("1700000301"), BODY, Future),
        (&resigned("1700000000000"), BODY, Future),
        (&resigned("9223372036854775807"), BODY, Future),
        (&format!("t=1700000001,v1={TAG}"), BODY, Mismatch),
        (&format!("t=1699999999,v1={TAG}"), BODY, Mismatch),
        // the signature
        (&format!("t={SENT}"), BODY, Form),
        (&format!("t={SENT},v1="), BODY, Form),
        (&format!("t={SENT},v0={TAG}"), BODY, Form),
        (&format!("t={SENT},V1={TAG}"), BODY, Form),
        (&format!("t={SENT},v1:{TAG}"), BODY, Form),
        (&format!("t={SENT}, v1={TAG}"), BODY, Form),
        (&format!("t={SENT},v1= {TAG}"), BODY, Form),
        (&format!("t={SENT},v1={TAG} "), BODY, Form),
        (&format!("t={SENT},v1=={TAG}"), BODY, Form),
        (&format!("t={SENT};v1={TAG}"), BODY, Time),
        (&format!("t={SENT},v1={upper}"), BODY, Form),
        (&format!("t={SENT},v1={}", &TAG[..62]), BODY, Form),
        (&format!("t={SENT},v1={}", &TAG[..63]), BODY, Form),
        (&format!("t={SENT},v1={TAG}00"), BODY, Form),
        (&format!("t={SENT},v1=0x{}", &TAG[2..]), BODY, Form),
        (&format!("t={SENT},v1={}", "é".repeat(32)), BODY, Form),
        (&format!("t={SENT},v1={flipped}"), BODY, Mismatch),
        (&format!("t={SENT},v1={}", "0".repeat(64)), BODY, Mismatch),
        (
            &sign(&secret("whsec_test_secret2"), SENT, BODY),
            BODY,
            Mismatch,
        ),
        (
            &sign(&secret("test_secret_without"), SENT, BODY),
            BODY,
            Mismatch,
        ),
        (&many, BODY, Form),
    ] {
        assert_eq!(check(header, body, SENT), Err(error), "{header:?}");
    }
    let now = Timestamp::from_millis(SENT * 1_000);
    let none = verify::<Secret>(&[], &good, BODY, now, TOLERANCE);
    assert_eq!(none, Err(Mismatch));
}

#[test]
fn moving_the_dot_makes_no_second_message() {
    let header = sign(&ours(), SENT, b"5.{}");
    let moved = header.replacen("t=1700000000", "t=1700000000.5", 1);
    assert_eq!(check(&moved, b"{}", SENT), Err(SignatureError::Timestamp));
}
