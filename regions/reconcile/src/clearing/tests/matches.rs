//! One shopper's payments and lines.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "test code"
)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use standin_core::answer::{Answer, Code, Reason, Rung, Verdict};
use standin_core::clock::Timestamp;
use standin_core::id::{Fingerprint, ShopperId, StoreId, TransactionId, TripId};
use standin_core::ledger::clearing::{ClearingLine, LineKind, NamedBy, Receipt};
use standin_core::ledger::{AuthorizationRow, AuthorizationState};
use standin_core::money::{Currency, Money};
use uuid::Uuid;

use super::super::kind::{Age, DiscrepancyKind, LineState, PaymentState};
use super::super::matching::{Group, Line, Outcome, Payment, Scope, Standing, match_group};
use super::super::rules::Rules;

/// Nothing was found.
const NONE: [&str; 0] = [];
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
const BEGIN: i64 = 1_793_500_000_000;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(BEGIN + ms)
}

fn usd(minor: i64) -> Money {
    Money::from_minor(minor, Currency::USD)
}

fn scope() -> Scope {
    Scope {
        file: Uuid::from_u128(1),
        sha256: "ab".to_owned(),
        bank: "acme".parse().unwrap(),
        from: at(0),
        until: at(30 * DAY),
        as_of: at(40 * DAY),
        rules: Rules::default(),
    }
}

fn id(number: u8) -> TransactionId {
    TransactionId::from_bytes([number; 16])
}

/// An approval of 100.00 in its trip.
fn payment(number: u8) -> Payment {
    let answer = Answer {
        transaction_id: id(number),
        fingerprint: Fingerprint::from_bytes([0; 32]),
        bank: "acme".parse().unwrap(),
        shopper: ShopperId::try_from(7_i64).unwrap(),
        verdict: Verdict::Approved,
        reason: Reason::WithinCap,
        code: Code::try_from("ABCDEF".to_owned()).unwrap(),
        amount: usd(10_000),
        rung: Rung::Primary,
        why: None,
        cap: Some(50_000),
        approved_before: 0,
        trip: Some(TripId(Uuid::from_u128(u128::from(number)))),
        trip_age_ms: None,
        policy_version: 1,
    };
    Payment {
        row: AuthorizationRow {
            state: AuthorizationState::Final,
            answer,
            store: Some(StoreId::try_from(3_i64).unwrap()),
            picked: Some(10_000),
            reversed: 0,
            held_at: None,
            log: None,
            final_at: Some(at(HOUR)),
        },
        movements: Vec::new(),
        conflicted: false,
    }
}

/// A charge of a payment a day later.
fn charge(number: u64, of: Option<u8>, minor: i64) -> Line {
    Line {
        line: ClearingLine {
            file: Uuid::from_u128(1),
            line: number,
            reference: Some(Uuid::from_u128(1_000 + u128::from(number))),
            kind: LineKind::Capture,
            transaction_id: of.map(id),
            named_by: of.map(|_| NamedBy::Key),
            shopper: ShopperId::try_from(7_i64).ok(),
            code: None,
            merchant: None,
            network_id: None,
            terminal: None,
            amount: usd(minor),
            at: at(DAY),
        },
        store: StoreId::try_from(3_i64).ok(),
    }
}

fn matched(payments: Vec<Payment>, lines: Vec<Line>) -> Outcome {
    let group = Group {
        payments,
        lines,
        receipts: BTreeMap::new(),
    };
    match_group(&group, &scope())
}

fn kinds(outcome: &Outcome) -> Vec<&'static str> {
    outcome
        .found
        .iter()
        .map(|found| found.kind.as_str())
        .collect()
}

#[test]
fn within_the_tolerance_it_is_a_variance_and_past_it_a_discrepancy() {
    // 1 % of 100.00.
    for (charged, standing) in [
        (10_000, Standing::Fits(PaymentState::Matched)),
        (10_100, Standing::Fits(PaymentState::MatchedWithVariance)),
        (9_900, Standing::Fits(PaymentState::MatchedWithVariance)),
        (10_101, Standing::Off(DiscrepancyKind::OverCapture)),
        (9_899, Standing::Off(DiscrepancyKind::UnderCapture)),
    ] {
        let outcome = matched(vec![payment(1)], vec![charge(1, Some(1), charged)]);
        assert_eq!(outcome.payments[0].standing, standing, "{charged}");
        assert_eq!(
            outcome.lines[0].standing,
            Standing::Fits(LineState::MatchedByKey)
        );
    }
}

#[test]
fn several_charges_of_one_payment_are_one_match_or_one_too_many() {
    let split = vec![charge(1, Some(1), 4_000), charge(2, Some(1), 6_000)];
    let outcome = matched(vec![payment(1)], split);
    assert_eq!(kinds(&outcome), NONE);
    let twice = vec![charge(1, Some(1), 10_000), charge(2, Some(1), 10_000)];
    let outcome = matched(vec![payment(1)], twice);
    assert_eq!(kinds(&outcome), ["duplicate_clearing"]);
    assert_eq!(outcome.found[0].at_stake, usd(10_000));
    // Of which the second is the first told again.
    let mut again = vec![charge(1, Some(1), 10_000), charge(2, Some(1), 10_000)];
    again[1].line.reference = again[0].line.reference;
    let outcome = matched(vec![payment(1)], again);
    assert_eq!(kinds(&outcome), ["repeated_line"]);
    assert_eq!(
        outcome.payments[0].standing,
        Standing::Fits(PaymentState::Matched)
    );
}

#[test]
fn the_times_of_waiting_and_lateness_are_exact() {
    let late = Rules::default().late_ms();
    for (after, expected) in [(late, None), (late + 1, Some("late_clearing"))] {
        let mut line = charge(1, Some(1), 10_000);
        line.line.at = at(HOUR + after);
        let outcome = matched(vec![payment(1)], vec![line]);
        assert_eq!(kinds(&outcome), Vec::from_iter(expected));
    }
    for (age, expected) in [(late, None), (late + 1, Some("no_clearing"))] {
        let mut scope = scope();
        scope.as_of = at(HOUR + age);
        scope.until = scope.as_of;
        let group = Group {
            payments: vec![payment(1)],
            ..Group::default()
        };
        let outcome = match_group(&group, &scope);
        assert_eq!(kinds(&outcome), Vec::from_iter(expected));
        let pending = matches!(
            outcome.payments[0].standing,
            Standing::Fits(PaymentState::Pending)
        );
        assert_eq!(pending, expected.is_none());
    }
}

#[test]
fn a_line_without_a_key_finds_the_one_that_is_near_and_no_other() {
    let near = |minor, of: &dyn Fn(&mut Line)| {
        let mut line = charge(1, None, minor);
        of(&mut line);
        let outcome = matched(vec![payment(1)], vec![line]);
        outcome.lines[0].standing == Standing::Fits(LineState::MatchedNear)
    };
    assert!(near(12_000, &|_| {}));
    assert!(!near(12_001, &|_| {}), "past 20 %");
    assert!(!near(10_000, &|line| line.store = None), "no store");
    assert!(!near(10_000, &|line| line.line.at = at(0)), "before it");
    assert!(
        !near(10_000, &|line| line.line.at = at(HOUR + 7 * DAY + 1)),
        "past the window"
    );
    assert!(
        !near(10_000, &|line| {
            line.line.amount = Money::from_minor(10_000, "EUR".parse().unwrap());
        }),
        "another currency"
    );
    let mut of_another = payment(1);
    of_another.row.answer.bank = "other".parse().unwrap();
    let outcome = matched(vec![of_another], vec![charge(1, None, 10_000)]);
    assert_eq!(kinds(&outcome), ["missing_at_us"]);
}

#[test]
fn of_two_that_are_equally_near_none_is_guessed_unless_the_code_says() {
    let two = || vec![payment(1), payment(2)];
    let outcome = matched(two(), vec![charge(1, None, 10_000)]);
    assert!(kinds(&outcome).contains(&"ambiguous"));
    let mut coded = two();
    coded[1].row.answer.code = Code::try_from("ZZZZZZ".to_owned()).unwrap();
    let mut line = charge(1, None, 10_000);
    line.line.code = Some("ZZZZZZ".to_owned());
    let outcome = matched(coded, vec![line]);
    assert_eq!(
        outcome.lines[0].standing,
        Standing::Fits(LineState::MatchedNear)
    );
    assert_eq!(outcome.payments[1].cleared, usd(10_000));
    // One that a line names is nobody else's.
    let lines = vec![charge(1, Some(1), 10_000), charge(2, None, 10_000)];
    let outcome = matched(two(), lines);
    assert_eq!(kinds(&outcome), NONE);
}

#[test]
fn a_payment_of_another_bank_is_not_charged_by_this_ones_file() {
    let mut other = payment(1);
    other.row.answer.bank = "other".parse().unwrap();
    let outcome = matched(vec![other], vec![charge(1, Some(1), 10_000)]);
    assert_eq!(kinds(&outcome), ["missing_at_us"]);
    assert_eq!(outcome.payments, []);
}

#[test]
fn lines_of_other_files_count_and_are_not_reported() {
    let mut before = charge(9, Some(1), 10_000);
    before.line.file = Uuid::from_u128(2);
    let outcome = matched(vec![payment(1)], vec![before.clone()]);
    // It belongs to that file's report.
    assert_eq!(outcome, Outcome::default());
    let outcome = matched(vec![payment(1)], vec![before, charge(1, Some(1), 10_000)]);
    assert_eq!(kinds(&outcome), ["duplicate_clearing"]);
    assert_eq!(outcome.lines.len(), 1);
}

#[test]
fn what_is_before_the_period_is_looked_at_only_for_a_clearing_that_never_came() {
    let mut old = payment(1);
    old.row.final_at = Some(at(-20 * DAY));
    assert_eq!(kinds(&matched(vec![old.clone()], vec![])), ["no_clearing"]);
    let mut declined = old.clone();
    declined.row.answer.verdict = Verdict::Declined;
    assert_eq!(matched(vec![declined], vec![]), Outcome::default());
    old.row.final_at = Some(at(-32 * DAY));
    assert_eq!(matched(vec![old], vec![]), Outcome::default());
}

#[test]
fn a_trip_is_held_against_its_cap_and_its_receipt() {
    let mut two = vec![payment(1), payment(2)];
    let trip = two[0].row.answer.trip.unwrap();
    two[1].row.answer.trip = Some(trip);
    two[1].row.final_at = Some(at(3 * HOUR));
    for payment in &mut two {
        payment.row.answer.cap = Some(19_999);
    }
    let lines = || vec![charge(1, Some(1), 10_000), charge(2, Some(2), 10_000)];
    let with_receipt = |payments: &[Payment], picked: i64| {
        let receipt = Receipt {
            trip,
            picked: usd(picked),
            closed: true,
        };
        let group = Group {
            payments: payments.to_vec(),
            lines: lines(),
            receipts: BTreeMap::from([(trip, receipt)]),
        };
        match_group(&group, &scope())
    };
    let outcome = with_receipt(&two, 20_000);
    assert_eq!(kinds(&outcome), ["over_cap"]);
    assert_eq!(outcome.found[0].at_stake, usd(1));
    assert_eq!(outcome.found[0].transaction_id, Some(id(2)));
    for payment in &mut two {
        payment.row.answer.cap = Some(20_000);
    }
    // 15 % of the cart, of which the trip was charged 200.00.
    for (picked, expected) in [
        (20_000, None),
        (17_391, Some("over_receipt")),
        (17_392, None),
        (23_529, None),
        (23_530, Some("under_receipt")),
    ] {
        let outcome = with_receipt(&two, picked);
        assert_eq!(kinds(&outcome), Vec::from_iter(expected), "{picked}");
    }
    two[1].row.final_at = Some(at(HOUR + 90_000));
    assert_eq!(kinds(&with_receipt(&two, 20_000)), ["duplicate_approval"]);
    two[1].row.final_at = Some(at(HOUR + 90_001));
    assert_eq!(kinds(&with_receipt(&two, 20_000)), NONE);
}

#[test]
fn ages_fall_into_their_buckets() {
    for (ms, age) in [
        (HOUR, Age::Hour),
        (HOUR + 1, Age::Day),
        (DAY, Age::Day),
        (3 * DAY, Age::ThreeDays),
        (7 * DAY, Age::Week),
        (31 * DAY, Age::Month),
        (31 * DAY + 1, Age::Older),
    ] {
        assert_eq!(Age::of(at(0), at(ms)), age, "{ms}");
    }
}

fn any_payment() -> impl Strategy<Value = Payment> {
    (
        1_u8..5,
        0_i64..20_000,
        0_i64..3,
        any::<bool>(),
        0_i64..40,
        any::<bool>(),
    )
        .prop_map(|(number, minor, state, declined, days, conflicted)| {
            let mut one = payment(number);
            one.row.answer.amount = usd(minor);
            one.row.final_at = Some(at(days * DAY - 5 * DAY));
            one.conflicted = conflicted;
            match state {
                0 => one.row.state = AuthorizationState::Released,
                1 => one.row.reversed = minor / 2,
                _ => {}
            }
            if declined {
                one.row.answer.verdict = Verdict::Declined;
                one.row.reversed = 0;
            }
            one
        })
}

fn any_line() -> impl Strategy<Value = Line> {
    (
        0_u8..7,
        0_i64..20_000,
        0_usize..5,
        0_i64..40,
        1_u128..3,
        0_u128..9,
    )
        .prop_map(|(of, minor, kind, days, file, reference)| {
            let mut line = charge(0, (of > 0).then_some(of), minor);
            line.line.kind = LineKind::ALL[kind];
            line.line.at = at(days * DAY);
            line.line.file = Uuid::from_u128(file);
            line.line.reference = (reference > 0).then(|| Uuid::from_u128(reference));
            line
        })
}

proptest! {
    /// Each line of the file and each payment is told once, nothing at stake is negative, a line's
    /// discrepancy has its line, and the order in which payments come changes nothing.
    #[test]
    fn every_line_and_payment_is_accounted_for_once(
        payments in proptest::collection::btree_map(1_u8..5, any_payment(), 0..4),
        lines in proptest::collection::vec(any_line(), 0..8),
    ) {
        let payments: Vec<Payment> = payments
            .into_iter()
            .map(|(number, mut payment)| {
                payment.row.answer.transaction_id = id(number);
                payment
            })
            .collect();
        let lines: Vec<Line> = (1..)
            .zip(lines)
            .map(|(number, mut line)| {
                line.line.line = number;
                line
            })
            .collect();
        let outcome = matched(payments.clone(), lines.clone());
        let ours = lines.iter().filter(|line| line.line.file == scope().file);
        let numbers: Vec<u64> = ours.map(|line| line.line.line).collect();
        let told: Vec<u64> = outcome.lines.iter().map(|line| line.line).collect();
        prop_assert_eq!(&told, &numbers);
        let ids: BTreeSet<_> = outcome.payments.iter().map(|one| one.transaction_id).collect();
        prop_assert_eq!(ids.len(), outcome.payments.len());
        for found in &outcome.found {
            prop_assert!(found.at_stake.minor() >= 0);
            prop_assert!(found.row.is_some() || found.line.is_some());
        }
        for line in &outcome.lines {
            let off = matches!(line.standing, Standing::Off(_));
            let found = outcome
                .found
                .iter()
                .any(|found| found.row.is_none() && found.line == Some(line.line));
            prop_assert_eq!(off, found);
        }
        // Its worst discrepancy is what a payment stands under.
        for payment in &outcome.payments {
            if let Standing::Off(kind) = payment.standing {
                let mut of = outcome.found.iter().filter(|found| found.kind == kind);
                prop_assert!(of.any(|found| found.transaction_id == Some(payment.transaction_id)));
            }
        }
        let mut turned = payments;
        turned.reverse();
        let again = matched(turned, lines);
        prop_assert_eq!(again.lines, outcome.lines);
        prop_assert_eq!(again.found.len(), outcome.found.len());
    }
}
