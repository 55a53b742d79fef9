//! A judgement is shown counts with one thing wrong in each, and must say which.

use standin_core::answer::Rung;

use super::*;
use crate::report::drill::{DrainLimits, Proof};

fn part(ms: u64, answered: u64, rung: &str) -> Part {
    Part {
        ms,
        answered,
        prompt: answered,
        rungs: BTreeMap::from([(rung.to_owned(), answered)]),
        p99_ms: Some(12.0),
        ..Part::default()
    }
}

fn good() -> Counted {
    Counted {
        before: part(10_000, 1_000, "primary"),
        fault: part(10_000, 1_000, "stand_in"),
        after: part(20_000, 2_000, "primary"),
        played_before: part(10_000, 600, "primary"),
        played: part(10_000, 600, "stand_in"),
        first_stand_in: Some(Between {
            after_ms: 30,
            by_ms: 140,
        }),
        mode_changes: 1,
        fault_minutes: 1,
        backlog: 600,
        drained_in_ms: Some(900),
        settled_in_ms: Some(4_000),
        settle_ms: 60_000,
        exposed_minor: 5,
        worst_case_minor: 9,
    }
}

fn limits() -> Limits {
    Limits {
        prompt_percent: Some(99.9),
        unanswered_of_10_000: 5,
        first_stand_in_ms: Some(500),
        drain: Some(DrainLimits {
            backlog_min: 0,
            within_ms_per_20_000: 20_000,
            p99_ratio: 1.5,
        }),
        goodput: None,
        mode_changes_per_minute: Some(1),
        rungs: vec![Rung::StandIn],
    }
}

fn injection() -> Injection {
    Injection {
        what: "the primary is killed".to_owned(),
        proofs: vec![Proof {
            seen: "600 calls".to_owned(),
            ok: true,
        }],
        restored: true,
    }
}

/// The names of what is not kept.
fn broken(counted: &Counted) -> Vec<String> {
    let verdicts = verdicts(counted, &limits(), 0, &injection(), None);
    let broken = verdicts.into_iter().filter(|check| !check.ok);
    broken.map(|check| check.id).collect()
}

#[test]
fn a_drill_as_it_should_be_keeps_everything() {
    assert_eq!(broken(&good()), [""; 0]);
}

#[test]
fn one_thing_wrong_breaks_its_own_expectation() {
    let check = |wrong: fn(&mut Counted), expected: &str| {
        let mut counted = good();
        wrong(&mut counted);
        assert_eq!(broken(&counted), [expected]);
    };
    check(|of| of.fault.late = 1, "L1");
    // Two of 4,000 may be.
    check(|of| of.fault.unanswered = 3, "L1");
    check(|of| of.fault.prompt = 990, "L1");
    check(
        |of| of.before.rungs = part(1, 500, "primary").rungs,
        "steady",
    );
    check(|of| of.drained_in_ms = None, "L4");
    check(|of| of.drained_in_ms = Some(20_001), "L4");
    check(|of| of.settled_in_ms = None, "settled");
    check(|of| of.mode_changes = 2, "L6");
    check(|of| of.played.rungs.clear(), "rungs");
    check(|of| of.first_stand_in = None, "L2");
    let late = Between {
        after_ms: 501,
        by_ms: 520,
    };
    let mut counted = good();
    counted.first_stand_in = Some(late);
    assert_eq!(broken(&counted), ["L2"]);
}

#[test]
fn what_thin_traffic_cannot_tell_is_said_and_not_held_against_it() {
    let mut counted = good();
    // Nine a second: four in half a second.
    counted.played_before.answered = 90;
    counted.first_stand_in = None;
    let verdicts = verdicts(&counted, &limits(), 0, &injection(), None);
    let l2 = verdicts.iter().find(|check| check.id == "L2").unwrap();
    assert!(l2.ok && l2.detail.contains("cannot be told"), "{l2:?}");
}

#[test]
fn what_is_not_proved_not_restored_or_not_whole_does_not_pass() {
    let names = |injection: &Injection, aborted| -> Vec<String> {
        let verdicts = verdicts(&good(), &limits(), 0, injection, aborted);
        let broken = verdicts.into_iter().filter(|check| !check.ok);
        broken.map(|check| check.id).collect()
    };
    let mut unproved = injection();
    unproved.proofs[0].ok = false;
    assert_eq!(names(&unproved, None), ["injected"]);
    unproved.proofs.clear();
    assert_eq!(names(&unproved, None), ["injected"]);
    let left = Injection {
        restored: false,
        ..injection()
    };
    assert_eq!(names(&left, None), ["restored"]);
    assert_eq!(names(&injection(), Some("too many unanswered")), ["whole"]);
}

#[test]
fn what_may_be_late_is_said_by_whoever_names_the_deployment() {
    let mut counted = good();
    counted.fault.late = 4;
    let l1 = |may_be_late| {
        let verdicts = verdicts(&counted, &limits(), may_be_late, &injection(), None);
        verdicts.iter().find(|check| check.id == "L1").unwrap().ok
    };
    assert!(!l1(9) && l1(10));
}
