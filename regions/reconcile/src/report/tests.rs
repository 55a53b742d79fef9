#![allow(
    clippy::arithmetic_side_effects,
    clippy::float_cmp,
    reason = "test code; the figures are exact"
)]

use standin_core::money::{Currency, Money};

use super::*;
use crate::history::BodyHash;

const START: i64 = 1_800_000_000_000;

fn attempt(at: i64, latency_us: u64, outcome: Outcome) -> Attempt {
    Attempt {
        payment: "k".to_owned(),
        transaction_id: None,
        bank: "acme".parse().unwrap(),
        shopper: 1_i64.try_into().unwrap(),
        body: BodyHash::of(b""),
        amount: Money::from_minor(100, Currency::USD),
        edge: "e".to_owned(),
        verified: true,
        intended_at: START + at,
        sent_at: START + at,
        answered_at: START + at,
        latency_us,
        outcome,
        expectation: None,
    }
}

fn answer(reason: Reason, rung: Rung) -> Outcome {
    let (status, code) = match reason.verdict() {
        Verdict::Approved => (200, r#""authorization_code":"ABC234","#),
        Verdict::Declined => (402, ""),
    };
    let body = format!(
        r#"{{"decision":"{}","reason":"{reason}","transaction_id":"{:032x}",{code}"amount":"1.00","currency":"USD","rung":"{rung}"}}"#,
        reason.verdict(),
        7
    );
    Outcome::of_reply(status, body.as_bytes(), None)
}

#[test]
fn a_phase_counts_every_attempt_once() {
    let mut attempts: Vec<Attempt> = (1..=98)
        .map(|ms| attempt(0, ms * 1_000, answer(Reason::WithinCap, Rung::Primary)))
        .collect();
    attempts.push(attempt(0, 99_000, answer(Reason::OverCap, Rung::StandIn)));
    attempts.push(attempt(0, 100_500, Outcome::NoReply));
    let phase = PhaseReport::of("primary", &attempts);
    assert_eq!((phase.requests, phase.approved), (100, 98));
    assert_eq!(
        (phase.p50_ms, phase.p99_ms, phase.max_ms),
        (50.0, 99.0, 100.5)
    );
    assert_eq!(phase.declined, BTreeMap::from([(Reason::OverCap, 1)]));
    let rungs: Vec<(&str, u64)> = phase
        .rungs
        .iter()
        .map(|(rung, n)| (rung.as_str(), *n))
        .collect();
    assert_eq!(rungs, [("primary", 98), ("refused", 1), ("stand_in", 1)]);
    assert_eq!(PhaseReport::of("none", []).max_ms, 0.0);
}

#[test]
fn the_timeline_has_a_tick_for_every_step_also_the_empty_ones() {
    let approved = || answer(Reason::WithinCap, Rung::Primary);
    let history = [
        attempt(-5, 1_000, approved()),
        attempt(10, 2_000, approved()),
        attempt(999, 4_000, approved()),
        attempt(
            2_500,
            9_000,
            answer(Reason::WithinStandInLimits, Rung::StandIn),
        ),
    ];
    let sample = |at, backlog| BacklogSample {
        at: START + at,
        backlog,
    };
    let samples = [sample(100, 1), sample(1_900, 5), sample(4_100, 0)];
    let ticks = timeline(&history, &samples, START, 1_000);
    let backlog: Vec<u64> = ticks.iter().map(|tick| tick.backlog).collect();
    assert_eq!(backlog, [1, 5, 5, 5, 0]);
    assert_eq!(ticks[0].replies["primary"], 2);
    assert_eq!(ticks[0].p99_ms["primary"], 4.0);
    assert_eq!(ticks[1].replies, BTreeMap::new());
    assert_eq!(ticks[2].replies["stand_in"], 1);
    assert_eq!(ticks[4].at_ms, 4_000);
    assert_eq!(timeline(&[], &[], START, 1_000), []);
}

/// A payment due from a moment on, with what came of it and when.
fn due(name: &str, from: i64, at: i64, outcome: Outcome) -> Attempt {
    Attempt {
        payment: name.to_owned(),
        intended_at: START + from,
        expectation: Some(Expectation::Approved),
        ..attempt(at, 0, outcome)
    }
}

#[test]
fn a_gap_is_as_long_as_payments_were_due_and_nobody_answered() {
    let approved = || answer(Reason::WithinCap, Rung::Primary);
    let replayed = || match approved() {
        Outcome::Answered { status, body, .. } => Outcome::Answered {
            status,
            body,
            replayed: true,
        },
        other => other,
    };
    let gap = |history: &[Attempt]| longest_gap_ms(history, 1_000);
    assert_eq!(gap(&[]), 0);
    // Nobody asks from 10 to 900: that is no gap.
    let quiet = [
        due("a", 0, 10, approved()),
        due("b", 900, 910, approved()),
        due("c", 910, 925, approved()),
    ];
    assert_eq!(gap(&quiet), 15);
    // From the answer before, while one is due all along.
    let stalled = [
        due("a", 0, 10, approved()),
        due("b", 5, 500, approved()),
        due("c", 490, 505, approved()),
    ];
    assert_eq!(gap(&stalled), 490);
    // A replay answers its payment and ends no gap.
    let mut replay = stalled.to_vec();
    replay.push(due("d", 200, 300, replayed()));
    assert_eq!(gap(&replay), 490);
    // A payment that nobody answers is due until its deadline.
    let lost = [
        due("a", 0, 10, approved()),
        due("b", 5, 20, Outcome::NoReply),
        due("c", 1_400, 1_410, approved()),
    ];
    assert_eq!(gap(&lost), 995);
    // A refusal that was to come is an end as well.
    let mut refused = lost.clone();
    refused[1].expectation = Some(Expectation::Refused(401));
    assert_eq!(gap(&refused), 10, "b was settled at 20, c is due from 1400");
}
