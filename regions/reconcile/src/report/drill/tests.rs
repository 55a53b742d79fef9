//! A judgement is shown histories with one thing wrong in each, and must say which.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::float_cmp,
    reason = "test code; the figures are exact"
)]

use standin_core::answer::{Reason, Verdict};
use standin_core::money::{Currency, Money};

use super::*;
use crate::history::{BodyHash, Expectation};

const EPOCH: i64 = 1_800_000_000_000;
const MARKS: Marks = Marks {
    epoch: EPOCH,
    fault_ms: 10_000,
    healed_ms: 20_000,
    end_ms: 40_000,
};
const LOAD: Load = Load {
    rate: 10,
    unsent: 0,
    deadline_ms: 1_000,
};

/// A payment that was due `at` and answered on a rung after so many milliseconds.
fn paid(at: i64, ms: i64, rung: Rung) -> Attempt {
    let reason = Reason::WithinCap;
    assert_eq!(reason.verdict(), Verdict::Approved);
    let body = format!(
        r#"{{"decision":"approved","reason":"{reason}","transaction_id":"{at:032x}","authorization_code":"ABC234","amount":"1.00","currency":"USD","rung":"{rung}"}}"#,
    );
    Attempt {
        payment: format!("p{at}"),
        transaction_id: None,
        bank: "acme".parse().unwrap(),
        shopper: 1_i64.try_into().unwrap(),
        body: BodyHash::of(b""),
        amount: Money::from_minor(100, Currency::USD),
        edge: "edge-1".to_owned(),
        verified: true,
        intended_at: EPOCH + at,
        sent_at: EPOCH + at,
        answered_at: EPOCH + at + ms,
        latency_us: u64::try_from(ms * 1_000).unwrap(),
        outcome: Outcome::of_reply(200, body.as_bytes(), None),
        expectation: Some(Expectation::Approved),
    }
}

/// Ten payments a second for 40 s; in the fault they are stood in for.
fn good() -> Vec<Attempt> {
    (0..400)
        .map(|n| n * 100)
        .map(|at| match at {
            10_000..20_000 => paid(at, 40, Rung::StandIn),
            _ => paid(at, 10, Rung::Primary),
        })
        .collect()
}

fn sample(at: i64, edge: u64, mode_changes: u64, applied: u64, drained: u64) -> Sample {
    Sample {
        at: EPOCH + at,
        edge,
        rung: "primary".to_owned(),
        mode_changes,
        applied,
        drained,
        backlog: applied - drained,
        exposed_minor: 5,
        worst_case_minor: 9,
    }
}

fn samples() -> Vec<Sample> {
    vec![
        sample(0, 1, 2, 10, 10),
        sample(9_900, 1, 2, 100, 100),
        sample(15_000, 1, 3, 150, 100),
        sample(19_950, 1, 3, 200, 100),
        sample(20_500, 1, 4, 210, 150),
        sample(22_000, 1, 4, 230, 200),
        sample(39_000, 1, 4, 400, 400),
    ]
}

fn limits() -> Limits {
    Limits {
        prompt_percent: Some(99.95),
        unanswered_of_10_000: 0,
        first_stand_in_ms: Some(500),
        drain: Some(DrainLimits {
            backlog_min: 100,
            within_ms_per_20_000: 20_000,
            p99_ratio: 1.5,
        }),
        goodput: Some(GoodputLimits {
            during: 80.0,
            after: 95.0,
        }),
        mode_changes_per_minute: Some(1),
        rungs: vec![Rung::StandIn],
    }
}

fn injection() -> Injection {
    Injection {
        what: "the primary is killed".to_owned(),
        proofs: vec![Proof {
            seen: "nothing listens".to_owned(),
            ok: true,
        }],
        restored: true,
    }
}

fn promises() -> Vec<Check> {
    ["S1", "S2", "S3"]
        .map(|id| check(id, true, String::new()))
        .to_vec()
}

/// The names of what is not kept.
fn broken(history: &[Attempt], samples: &[Sample], injection: &Injection) -> Vec<String> {
    let figures = figures(history, samples, &MARKS, LOAD);
    let verdicts = verdicts(&figures, &limits(), injection, &promises());
    let broken = verdicts.into_iter().filter(|check| !check.ok);
    broken.map(|check| check.id).collect()
}

#[test]
fn a_drill_as_it_should_be_keeps_everything() {
    let figures = figures(&good(), &samples(), &MARKS, LOAD);
    assert_eq!((figures.payments, figures.requests), (400, 400));
    assert_eq!(
        (figures.prompt, figures.late, figures.unanswered),
        (400, 0, 0)
    );
    assert_eq!(figures.rate_held, 10.0);
    assert_eq!(figures.first_stand_in_ms, Some(40));
    assert_eq!((figures.p99_steady_ms, figures.p99_fault_ms), (10.0, 40.0));
    assert_eq!((figures.backlog, figures.drained_in_ms), (100, Some(2_000)));
    assert_eq!((figures.mode_changes, figures.fault_minutes), (1, 1));
    assert_eq!(
        (figures.goodput_steady, figures.goodput_after),
        (10.0, 10.0)
    );
    assert_eq!(figures.rungs_in_fault["stand_in"], 100);
    assert_eq!((figures.exposed_minor, figures.worst_case_minor), (5, 9));
    assert_eq!(broken(&good(), &samples(), &injection()), [""; 0]);
}

#[test]
fn a_retry_counts_from_the_moment_the_payment_was_due() {
    let mut history = good();
    let mut first = history[120].clone();
    first.outcome = Outcome::NoReply;
    first.expectation = Some(Expectation::AskedAgain);
    history.push(first);
    let figures = figures(&history, &samples(), &MARKS, LOAD);
    assert_eq!((figures.payments, figures.requests), (400, 401));
    assert_eq!((figures.prompt, figures.unanswered), (400, 0));
}

#[test]
fn answers_past_300_ms_and_past_the_deadline_break_l1() {
    let mut history = good();
    history[150] = paid(15_000, 301, Rung::StandIn);
    assert_eq!(broken(&history, &samples(), &injection()), ["L1"]);
    let mut history = good();
    history[350] = paid(35_000, 1_001, Rung::Primary);
    let figures = figures(&history, &samples(), &MARKS, LOAD);
    assert_eq!((figures.late, figures.unanswered), (1, 0));
    assert_eq!(broken(&history, &samples(), &injection()), ["L1"]);
}

#[test]
fn refusals_in_the_fault_are_counted_by_cause() {
    let mut history = good();
    // Before the fault, in it, and after it.
    for at in [50, 150, 160, 170, 350] {
        history[at].outcome = Outcome::of_reply(503, br#"{"cause":"log_timeout"}"#, None);
    }
    history[160].outcome = Outcome::of_reply(401, b"", None);
    history[170].outcome = Outcome::NoReply;
    let figures = figures(&history, &samples(), &MARKS, LOAD);
    let counted: Vec<_> = figures.refusals_in_fault.into_iter().collect();
    let expected = ["401", "503 log_timeout", "no reply"].map(|why| (why.to_owned(), 1));
    assert_eq!(counted, expected);
}

#[test]
fn a_payment_without_an_answer_breaks_l1() {
    let mut history = good();
    history[150].outcome = Outcome::NoReply;
    assert_eq!(broken(&history, &samples(), &injection()), ["L1"]);
}

#[test]
fn a_wrong_verdict_breaks_l3() {
    let mut history = good();
    history[150].expectation = Some(Expectation::Declined(Vec::new()));
    assert_eq!(broken(&history, &samples(), &injection()), ["L3"]);
}

#[test]
fn a_broken_promise_or_one_not_judged_breaks_l3() {
    let figures = figures(&good(), &samples(), &MARKS, LOAD);
    let l3 = |checks: &[Check]| {
        let verdicts = verdicts(&figures, &limits(), &injection(), checks);
        verdicts.iter().find(|check| check.id == "L3").unwrap().ok
    };
    assert!(l3(&promises()));
    let mut lost = promises();
    lost[0].ok = false;
    assert!(!l3(&lost));
    assert!(!l3(&promises()[..2]));
}

#[test]
fn a_fault_that_nothing_proves_or_that_stays_fails_the_drill() {
    let none = Injection {
        proofs: Vec::new(),
        ..injection()
    };
    assert_eq!(broken(&good(), &samples(), &none), ["injected"]);
    let mut half = injection();
    half.proofs.push(Proof {
        seen: "the server still answers".to_owned(),
        ok: false,
    });
    assert_eq!(broken(&good(), &samples(), &half), ["injected"]);
    let stays = Injection {
        restored: false,
        ..injection()
    };
    assert_eq!(broken(&good(), &samples(), &stays), ["restored"]);
}

#[test]
fn a_drill_without_a_steady_state_fails() {
    let mut history = good();
    for attempt in &mut history[..5] {
        attempt.outcome = Outcome::NoReply;
    }
    let broken = broken(&history, &samples(), &injection());
    assert!(broken.contains(&"steady".to_owned()), "{broken:?}");
}

#[test]
fn edges_that_stand_in_already_are_no_steady_state() {
    let mut history = good();
    for attempt in &mut history[..11] {
        *attempt = paid(attempt.intended_at - EPOCH, 10, Rung::StandIn);
    }
    assert_eq!(broken(&history, &samples(), &injection()), ["steady"]);
}

#[test]
fn nobody_who_stands_in_or_too_late_breaks_l2() {
    let on_primary: Vec<Attempt> = (0..400).map(|n| paid(n * 100, 10, Rung::Primary)).collect();
    assert_eq!(
        broken(&on_primary, &samples(), &injection()),
        ["L2", "rungs"]
    );
    let mut late = good();
    for attempt in &mut late[100..106] {
        *attempt = paid(attempt.intended_at - EPOCH, 10, Rung::Primary);
    }
    assert_eq!(broken(&late, &samples(), &injection()), ["L2"]);
}

#[test]
fn a_backlog_that_stays_hurts_or_was_none_breaks_l4() {
    let mut stays = samples();
    for sample in &mut stays[4..] {
        sample.drained = 199;
    }
    assert_eq!(broken(&good(), &stays, &injection()), ["L4"]);
    let mut small = samples();
    for sample in &mut small[3..] {
        sample.backlog = 99;
    }
    assert_eq!(broken(&good(), &small, &injection()), ["L4"]);
    let mut hurt = good();
    for attempt in &mut hurt[200..220] {
        *attempt = paid(attempt.intended_at - EPOCH, 16, Rung::Primary);
    }
    assert_eq!(broken(&hurt, &samples(), &injection()), ["L4"]);
}

#[test]
fn goodput_that_falls_or_does_not_return_breaks_l5() {
    let mut falls = good();
    falls.retain(|attempt| {
        let at = attempt.intended_at - EPOCH;
        !(11_000..14_000).contains(&at)
    });
    assert_eq!(broken(&falls, &samples(), &injection()), ["L5"]);
    let mut gone = good();
    gone.retain(|attempt| attempt.intended_at - EPOCH < 38_000);
    assert_eq!(broken(&gone, &samples(), &injection()), ["L5"]);
}

#[test]
fn flapping_breaks_l6_and_an_edge_that_starts_again_counts_from_nothing() {
    let mut flaps = samples();
    flaps[3].mode_changes = 4;
    assert_eq!(broken(&good(), &flaps, &injection()), ["L6"]);
    let mut restarted = samples();
    restarted[2].mode_changes = 0;
    restarted[3].mode_changes = 1;
    assert_eq!(broken(&good(), &restarted, &injection()), [""; 0]);
}

#[test]
fn what_comes_before_the_load_begins_does_not_count() {
    let mut history = good();
    let mut warm = paid(-500, 5_000, Rung::Isolated);
    warm.outcome = Outcome::NoReply;
    history.push(warm);
    assert_eq!(figures(&history, &samples(), &MARKS, LOAD).payments, 400);
}
