#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use super::*;

const APPROVED: &str = r#"{"decision":"approved","reason":"within_cap","transaction_id":"0123456789abcdef0123456789abcdef","authorization_code":"ABC234","amount":"300.00","currency":"USD","rung":"primary","cap":"330.00","approved_before":"0.00","trip_id":null,"trip_age_ms":12,"policy_version":1}"#;
const DECLINED: &str = r#"{"decision":"declined","reason":"over_cap","transaction_id":"0123456789abcdef0123456789abcdef","amount":"3000.00","currency":"USD","rung":"stand_in","why":"timeout"}"#;

fn attempt(outcome: Outcome, expectation: Option<Expectation>) -> Attempt {
    Attempt {
        payment: "k1".to_owned(),
        transaction_id: None,
        bank: "acme".parse().unwrap(),
        shopper: 123_i64.try_into().unwrap(),
        body: BodyHash::of(b"{}"),
        amount: Money::from_minor(30_000, Currency::USD),
        edge: "e1".to_owned(),
        verified: true,
        intended_at: 1_000,
        sent_at: 1_001,
        answered_at: 1_005,
        latency_us: 5_000,
        outcome,
        expectation,
    }
}

#[test]
fn a_history_reads_back_as_it_was_written() {
    let history = vec![
        attempt(
            Outcome::of_reply(200, APPROVED.as_bytes(), None),
            Some(Expectation::Approved),
        ),
        attempt(Outcome::of_reply(503, b"{}", None), None),
        attempt(
            Outcome::NoReply,
            Some(Expectation::Declined(vec![Reason::OverCap])),
        ),
        attempt(
            Outcome::of_reply(422, b"{}", None),
            Some(Expectation::Refused(422)),
        ),
    ];
    let mut bytes = Vec::new();
    write(&mut bytes, &history).unwrap();
    assert_eq!(read(bytes.as_slice()).unwrap(), history);
}

#[test]
fn a_line_that_is_no_attempt_is_named() {
    let mut bytes = Vec::new();
    write(&mut bytes, &[attempt(Outcome::NoReply, None)]).unwrap();
    bytes.extend_from_slice(b"{\"payment\":\n");
    assert!(matches!(
        read(bytes.as_slice()),
        Err(HistoryError::Line { line: 2, .. })
    ));
    let long = vec![b' '; LINE_BYTES_MAX + 10];
    assert!(matches!(
        read(long.as_slice()),
        Err(HistoryError::Long { line: 1 })
    ));
}

#[test]
fn an_answer_is_read_from_its_body() {
    let said = Said::read(200, APPROVED).unwrap();
    assert_eq!(said.amount, Money::from_minor(30_000, Currency::USD));
    assert_eq!(said.code.unwrap().as_str(), "ABC234");
    let declined = Said::read(402, DECLINED).unwrap();
    assert_eq!((declined.reason, declined.code), (Reason::OverCap, None));
    assert!(matches!(
        Said::read(402, APPROVED),
        Err(SaidError::Status { .. })
    ));
    assert!(Said::read(200, "{}").is_err());
}

#[test]
fn what_is_wrong_and_what_is_no_answer_are_told_apart() {
    let approved = Outcome::of_reply(200, APPROVED.as_bytes(), None);
    let declined = Outcome::of_reply(402, DECLINED.as_bytes(), None);
    let over_cap = Expectation::Declined(vec![Reason::OverCap]);
    let wrong_store = Expectation::Declined(vec![Reason::WrongStore]);
    let cases = [
        (approved.clone(), Expectation::Approved, false, false),
        (approved.clone(), over_cap.clone(), true, false),
        (approved, Expectation::Refused(422), true, false),
        (declined.clone(), over_cap.clone(), false, false),
        (declined.clone(), wrong_store, true, false),
        (
            declined.clone(),
            Expectation::Declined(vec![]),
            false,
            false,
        ),
        (declined, Expectation::Approved, true, false),
        (Outcome::NoReply, Expectation::Approved, false, true),
        (Outcome::of_reply(503, b"", None), over_cap, false, true),
        (
            Outcome::of_reply(422, b"", None),
            Expectation::Refused(422),
            false,
            false,
        ),
        (
            Outcome::of_reply(401, b"", None),
            Expectation::Refused(422),
            true,
            false,
        ),
        (Outcome::NoReply, Expectation::AskedAgain, false, false),
        (
            Outcome::of_reply(503, b"", None),
            Expectation::AskedAgain,
            false,
            false,
        ),
        (
            Outcome::of_reply(200, APPROVED.as_bytes(), None),
            Expectation::AskedAgain,
            true,
            false,
        ),
    ];
    for (outcome, expectation, wrong, unanswered) in cases {
        let attempt = attempt(outcome, Some(expectation));
        assert_eq!(attempt.is_wrong(), wrong, "{attempt:?}");
        assert_eq!(attempt.is_unanswered(), unanswered, "{attempt:?}");
        let counts = Counts::of([&attempt], 4);
        assert_eq!(counts.wrong, u64::from(wrong));
        assert_eq!(counts.no_answer, u64::from(unanswered));
        let answered = matches!(attempt.outcome, Outcome::Answered { .. });
        assert_eq!(counts.late, u64::from(answered), "5 ms are late after 4");
        assert_eq!(Counts::of([&attempt], 5).late, 0);
    }
}

#[test]
fn a_500_is_an_answer_only_when_it_is_replayed() {
    assert!(matches!(
        Outcome::of_reply(500, b"{}", None),
        Outcome::Refused { status: 500, .. }
    ));
    assert!(matches!(
        Outcome::of_reply(500, b"{}", Some("true")),
        Outcome::Answered { status: 500, .. }
    ));
}

#[test]
fn a_refusal_keeps_the_cause_that_a_problem_gave() {
    let body = br#"{"type":"urn:standin:problem:unavailable","status":503,"cause":"log_full"}"#;
    for (body, cause) in [
        (&body[..], Some("log_full")),
        (b"{}", None),
        (b"<html>", None),
    ] {
        let refused = Outcome::of_reply(503, body, None);
        let expected = Outcome::Refused {
            status: 503,
            replayed: false,
            cause: cause.map(str::to_owned),
        };
        assert_eq!(refused, expected);
        let written = serde_json::to_string(&refused).unwrap();
        assert_eq!(serde_json::from_str::<Outcome>(&written).unwrap(), refused);
    }
    // A history from before causes were kept.
    let old = r#"{"refused":{"status":503,"replayed":false}}"#;
    assert_eq!(
        serde_json::from_str::<Outcome>(old).unwrap(),
        Outcome::of_reply(503, b"", None)
    );
}
