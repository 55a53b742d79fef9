#![allow(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    reason = "test code"
)]
use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::answer::{Code, Reason, Rung, Verdict};
use crate::authorization::{Authorization, Merchant, Particulars};
use crate::clock::Timestamp;
use crate::decide::{FloorLimits, Limits, StandInLimits};
use crate::entry::Proposal;
use crate::id::StoreId;
use crate::money::{Currency, Money};
use crate::trip::{Trip, TripStatus};

mod corrections;

const SIZE: RegisterConfig = RegisterConfig { answers_max: 1_000 };

fn at(index: u64) -> LogPosition {
    LogPosition { index, slot: 0 }
}

fn trip(number: u128, version: u64) -> Trip {
    Trip {
        id: TripId(Uuid::from_u128(number)),
        shopper: ShopperId::try_from(number as i64).unwrap(),
        store: StoreId::try_from(1_i64).unwrap(),
        currency: Currency::USD,
        status: TripStatus::Shopping,
        version,
        picked: 0,
        picked_listed: 0,
        mix: BTreeMap::new(),
        started_at: Timestamp::from_millis(0),
    }
}

fn proposal(key: u8, amount: i64, cap: i64, trip: Trip) -> Proposal {
    Proposal {
        edge: 1,
        start: 1,
        request: Authorization {
            bank: "acme".parse().unwrap(),
            shopper: trip.shopper,
            amount: Money::from_minor(amount, Currency::USD),
            merchant: Merchant {
                name: "Target".into(),
                address: "123 Main St".into(),
            },
            bank_key: Some(key.to_string()),
            received_at: Timestamp::from_millis(0),
            particulars: Particulars::default(),
        },
        transaction_id: TransactionId::from_bytes([key; 16]),
        fingerprint: Fingerprint::from_bytes([(amount % 251) as u8; 32]),
        code: Code::from_mac(&[key; 32]),
        reason: Reason::WithinCap,
        rung: Rung::Primary,
        why: None,
        trip: Some(trip),
        trip_age_ms: Some(1),
        store: None,
        cap: Some(cap),
        approved_before: 0,
        limits: Limits::Cap,
        seen: Vec::new(),
        policy_version: 1,
        swipe_window_ms: 0,
        shadow: None,
        approved: None,
    }
}

fn stand_in(mut proposal: Proposal, limits: StandInLimits) -> Proposal {
    proposal.rung = Rung::StandIn;
    proposal.why = Some(Why::Timeout);
    proposal.reason = Reason::WithinStandInLimits;
    proposal.limits = Limits::StandIn(limits);
    proposal
}

fn tally(amount: i64, count: u32) -> Tally {
    Tally { amount, count }
}

fn wide() -> StandInLimits {
    let much = tally(1_000_000, 1_000);
    StandInLimits {
        transaction: 1_000_000,
        trip: 1_000_000,
        shopper_outage: much,
        shopper_hour: much,
        bank_outage: much,
        bank_hour: much,
    }
}

fn answered(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Answered(answer) => *answer,
        other => panic!("not answered: {other:?}"),
    }
}

fn apply(register: &mut Register, index: u64, now_ms: u64, proposal: Proposal) -> Outcome {
    register.apply(at(index), now_ms, &Entry::Authorize(Box::new(proposal)))
}

#[test]
fn the_first_entry_of_a_transaction_id_wins() {
    let mut register = Register::new(SIZE);
    let first = answered(apply(
        &mut register,
        1,
        0,
        proposal(1, 100, 1_000, trip(1, 1)),
    ));
    let mut second = proposal(1, 100, 1_000, trip(1, 1));
    second.reason = Reason::NotShopping;
    match apply(&mut register, 2, 0, second) {
        Outcome::Known(recalled) => assert_eq!(*recalled.answer, first),
        other => panic!("{other:?}"),
    }
    assert!(register.answer_at(first.transaction_id, at(1)).is_some());
    assert!(register.answer_at(first.transaction_id, at(2)).is_none());
}

#[test]
fn another_fingerprint_under_the_same_id_changes_nothing() {
    let mut register = Register::new(SIZE);
    apply(&mut register, 1, 0, proposal(1, 100, 1_000, trip(1, 1)));
    let other = apply(&mut register, 2, 0, proposal(1, 101, 1_000, trip(1, 1)));
    assert_eq!(other, Outcome::OtherFingerprint);
    assert_eq!(register.approvals(trip(1, 1).id).len(), 1);
    assert_eq!(register.len(), 1);
}

#[test]
fn an_approval_that_no_longer_fits_the_cap_becomes_a_decline() {
    let mut register = Register::new(SIZE);
    answered(apply(
        &mut register,
        1,
        0,
        proposal(1, 600, 1_000, trip(1, 1)),
    ));
    let second = answered(apply(
        &mut register,
        2,
        0,
        proposal(2, 401, 1_000, trip(1, 1)),
    ));
    assert_eq!(
        (second.reason, second.approved_before),
        (Reason::OverCap, 600)
    );
    let third = answered(apply(
        &mut register,
        3,
        0,
        proposal(3, 400, 1_000, trip(1, 1)),
    ));
    assert_eq!(third.verdict, Verdict::Approved);
    assert_eq!(register.counts().turned, 1);
}

#[test]
fn the_cap_of_the_highest_version_counts() {
    let mut register = Register::new(SIZE);
    answered(apply(
        &mut register,
        1,
        0,
        proposal(1, 100, 500, trip(1, 7)),
    ));
    let old = answered(apply(
        &mut register,
        2,
        0,
        proposal(2, 450, 9_999, trip(1, 6)),
    ));
    assert_eq!(old.reason, Reason::OverCap);
    let newer = answered(apply(
        &mut register,
        3,
        0,
        proposal(3, 450, 600, trip(1, 8)),
    ));
    assert_eq!(newer.verdict, Verdict::Approved);
}

#[test]
fn approvals_that_the_entry_saw_elsewhere_count_too() {
    let mut register = Register::new(SIZE);
    let mut entry = proposal(1, 500, 1_000, trip(1, 1));
    let seen = TransactionId::from_bytes([99; 16]);
    entry.seen = vec![Approval {
        transaction_id: seen,
        amount: 501,
        at: Timestamp::from_millis(0),
    }];
    assert_eq!(
        answered(apply(&mut register, 1, 0, entry)).reason,
        Reason::OverCap
    );
}

#[test]
fn a_closed_trip_takes_no_approval() {
    let mut register = Register::new(SIZE);
    answered(apply(
        &mut register,
        1,
        0,
        proposal(1, 1, 1_000, trip(1, 1)),
    ));
    register.apply(at(2), 0, &Entry::TripClosed(trip(1, 1).id));
    let late = answered(apply(
        &mut register,
        3,
        0,
        proposal(2, 1, 1_000, trip(1, 1)),
    ));
    assert_eq!(late.reason, Reason::NotShopping);
    // A status that is not SHOPPING closes it as well.
    let mut delivering = trip(2, 1);
    delivering.status = TripStatus::Delivering;
    let mut entry = proposal(3, 1, 1_000, delivering);
    entry.reason = Reason::NotShopping;
    answered(apply(&mut register, 4, 0, entry));
    let late = answered(apply(
        &mut register,
        5,
        0,
        proposal(4, 1, 1_000, trip(2, 1)),
    ));
    assert_eq!(late.reason, Reason::NotShopping);
}

#[test]
fn each_stand_in_limit_holds_when_applied() {
    let start = |register: &mut Register| {
        register.apply(
            at(1),
            0,
            &Entry::OutageStarted {
                edge: 1,
                why: Why::Timeout,
            },
        );
    };
    type Tighten = fn(&mut StandInLimits);
    let cases: [(&str, Tighten); 6] = [
        ("transaction", |limits| limits.transaction = 99),
        ("trip", |limits| limits.trip = 199),
        ("shopper_outage amount", |limits| {
            limits.shopper_outage.amount = 199
        }),
        ("shopper_hour count", |limits| limits.shopper_hour.count = 1),
        ("bank_outage amount", |limits| {
            limits.bank_outage.amount = 199
        }),
        ("bank_hour count", |limits| limits.bank_hour.count = 1),
    ];
    for (name, tighten) in cases {
        let mut register = Register::new(SIZE);
        start(&mut register);
        answered(apply(
            &mut register,
            2,
            0,
            stand_in(proposal(1, 100, 1_000, trip(1, 1)), wide()),
        ));
        let mut limits = wide();
        tighten(&mut limits);
        let second = stand_in(proposal(2, 100, 1_000, trip(1, 1)), limits);
        let second = answered(apply(&mut register, 3, 0, second));
        assert_eq!(second.reason, Reason::StandInLimit, "{name}");
        let third = stand_in(proposal(3, 100, 1_000, trip(1, 1)), wide());
        let third = answered(apply(&mut register, 4, 0, third));
        assert_eq!(third.verdict, Verdict::Approved, "{name}");
    }
}

#[test]
fn an_hour_is_forgotten_and_an_outage_is_not_until_the_next() {
    let mut register = Register::new(SIZE);
    let bank = "acme".parse().unwrap();
    let shopper = trip(1, 1).shopper;
    register.apply(
        at(1),
        0,
        &Entry::OutageStarted {
            edge: 1,
            why: Why::Timeout,
        },
    );
    apply(
        &mut register,
        2,
        0,
        stand_in(proposal(1, 100, 1_000, trip(1, 1)), wide()),
    );
    let hours = 2 * 3_600_000;
    apply(
        &mut register,
        3,
        hours,
        stand_in(proposal(2, 50, 1_000, trip(1, 1)), wide()),
    );
    let used = register.stand_in_use(shopper, &bank);
    assert_eq!(
        (used.shopper_outage, used.shopper_hour),
        (tally(150, 2), tally(50, 1))
    );
    assert_eq!(used.outage_age_ms, Some(hours));
    register.apply(at(4), hours, &Entry::OutageEnded { edge: 1 });
    assert_eq!(register.stand_in_use(shopper, &bank).outage_age_ms, None);
    register.apply(
        at(5),
        hours,
        &Entry::OutageStarted {
            edge: 1,
            why: Why::Connection,
        },
    );
    let used = register.stand_in_use(shopper, &bank);
    assert_eq!(
        used.shopper_outage,
        tally(150, 2),
        "an outage that comes back goes on counting"
    );
    register.apply(at(6), hours, &Entry::OutageEnded { edge: 1 });
    let later = hours + OUTAGE_FORGOTTEN_MS + 1;
    register.apply(
        at(7),
        later,
        &Entry::OutageStarted {
            edge: 1,
            why: Why::Connection,
        },
    );
    let used = register.stand_in_use(shopper, &bank);
    assert_eq!(
        (used.shopper_outage, used.bank_outage),
        (tally(0, 0), tally(0, 0))
    );
    assert_eq!(register.outages().count(), 3);
    assert_eq!(register.counts().exposed_minor, 0);
}

#[test]
fn the_floor_allows_one_approval_a_window_inside_the_reserve() {
    let mut register = Register::new(SIZE);
    let floor = |key, amount| {
        let mut entry = proposal(key, amount, 10_000, trip(u128::from(key % 2) + 1, 1));
        entry.rung = Rung::Isolated;
        entry.reason = Reason::WithinFloorLimit;
        let reserve = tally(250, 9);
        entry.limits = Limits::Floor(FloorLimits {
            floor: 100,
            window_ms: 1_000,
            reserve,
        });
        entry
    };
    let mut reason = |index, now, entry| answered(apply(&mut register, index, now, entry)).reason;
    assert_eq!(reason(1, 0, floor(1, 101)), Reason::FloorLimit);
    assert_eq!(reason(2, 0, floor(3, 100)), Reason::WithinFloorLimit);
    assert_eq!(reason(3, 999, floor(5, 100)), Reason::FloorLimit);
    assert_eq!(reason(4, 999, floor(2, 100)), Reason::WithinFloorLimit);
    assert_eq!(reason(5, 1_000, floor(7, 51)), Reason::FloorLimit);
    assert_eq!(reason(6, 1_000, floor(9, 50)), Reason::WithinFloorLimit);
}

#[test]
fn two_swipes_that_were_decided_at_once_meet_in_the_log() {
    let mut register = Register::new(SIZE);
    let swipe = |key| {
        let mut entry = proposal(key, 100, 1_000, trip(1, 1));
        entry.swipe_window_ms = 90_000;
        entry
    };
    let reason = |answer: Answer| answer.reason;
    assert_eq!(
        reason(answered(apply(&mut register, 1, 5_000, swipe(1)))),
        Reason::WithinCap
    );
    assert_eq!(
        reason(answered(apply(&mut register, 2, 94_999, swipe(2)))),
        Reason::DoubleSwipe
    );
    assert_eq!(
        reason(answered(apply(&mut register, 3, 95_000, swipe(3)))),
        Reason::WithinCap
    );
}

#[test]
fn a_finished_trip_is_closed_by_the_platforms_own_entry() {
    let mut register = Register::new(SIZE);
    answered(apply(
        &mut register,
        1,
        0,
        proposal(1, 1, 1_000, trip(1, 1)),
    ));
    assert_eq!(register.open_trip(trip(1, 1).shopper), Some(trip(1, 1).id));
    let finish = TripEvent {
        id: Uuid::from_u128(1),
        trip: trip(1, 1).id,
        shopper: trip(1, 1).shopper,
        at: Timestamp::from_millis(0),
        what: TripChange::Finish,
    };
    register.apply(
        at(2),
        0,
        &Entry::Platform(PlatformEvent::TripChanged(finish)),
    );
    let late = answered(apply(
        &mut register,
        3,
        0,
        proposal(2, 1, 1_000, trip(1, 1)),
    ));
    assert_eq!(late.reason, Reason::NotShopping);
    assert_eq!(register.open_trip(trip(1, 1).shopper), None);
}

#[test]
fn a_tombstone_must_be_first() {
    let mut register = Register::new(SIZE);
    let id = TransactionId::from_bytes([1; 16]);
    assert_eq!(
        register.apply(at(1), 0, &Entry::Tombstone(id)),
        Outcome::Tombstoned
    );
    let late = apply(&mut register, 2, 0, proposal(1, 1, 10, trip(1, 1)));
    assert_eq!(late, Outcome::Tombstoned);
    let answer = answered(apply(&mut register, 3, 0, proposal(2, 1, 10, trip(1, 1))));
    match register.apply(at(4), 0, &Entry::Tombstone(answer.transaction_id)) {
        Outcome::Known(recalled) => assert_eq!(*recalled.answer, answer),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stored_fault_replays_until_it_is_cleared() {
    let mut register = Register::new(SIZE);
    let answer = answered(apply(&mut register, 1, 0, proposal(1, 1, 10, trip(1, 1))));
    let faulted =
        |register: &Register| match register.recall(answer.transaction_id, &answer.fingerprint) {
            Recall::Known(recalled) => recalled.faulted,
            other => panic!("{other:?}"),
        };
    assert!(!faulted(&register));
    let fault = Entry::Faulted(answer.transaction_id);
    register.apply(at(2), 0, &fault);
    register.apply(at(2), 0, &fault);
    assert!(faulted(&register));
    assert_eq!(register.faulted(), 1, "twice is once");
    let clear = crate::entry::OperatorAction {
        id: Uuid::from_u128(1),
        operator: "ops".into(),
        reason: "looked at it".into(),
        at: Timestamp::from_millis(0),
        what: OperatorOrder::ClearAnswer(answer.transaction_id),
    };
    let clear = Entry::Operator(clear);
    register.apply(at(3), 0, &clear);
    register.apply(at(3), 0, &clear);
    assert!(!faulted(&register));
    assert_eq!(register.faulted(), 0);
    register.apply(at(4), 0, &fault);
    register.apply(at(5), 0, &Entry::Drained(5));
    register.apply(at(6), WINDOW_MS + 1, &Entry::OutageEnded { edge: 1 });
    assert!(!register.knows(answer.transaction_id));
    assert_eq!(register.faulted(), 0, "a forgotten fault is none");
}

#[test]
fn answers_leave_after_their_window_and_only_when_drained() {
    let mut register = Register::new(SIZE);
    apply(&mut register, 1, 0, proposal(1, 1, 10, trip(1, 1)));
    let past = WINDOW_MS + 1;
    register.apply(at(2), past, &Entry::OutageEnded { edge: 1 });
    assert_eq!(register.len(), 1, "not drained yet");
    register.apply(at(3), past, &Entry::Drained(1));
    register.apply(at(4), past, &Entry::OutageEnded { edge: 1 });
    assert_eq!(register.len(), 0);
    assert_eq!(
        register.latest_trip(trip(1, 1).shopper),
        None,
        "an idle trip goes with it"
    );
    assert!(matches!(
        apply(&mut register, 5, past, proposal(1, 1, 10, trip(1, 1))),
        Outcome::Answered(_)
    ));
}

#[derive(Clone, Debug)]
struct Step {
    key: u8,
    amount: i64,
    trip: u128,
    version: u64,
    seen: Option<(u8, i64)>,
    approve: bool,
    close: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let seen = proptest::option::weighted(0.2, (200_u8..220, 1_i64..400));
    let step = (
        0_u8..40,
        1_i64..500,
        1_u128..4,
        1_u64..4,
        seen,
        any::<bool>(),
        0_u8..20,
    )
        .prop_map(|(key, amount, trip, version, seen, approve, close)| Step {
            key,
            amount,
            trip,
            version,
            seen,
            approve,
            close: close == 0,
        });
    proptest::collection::vec(step, 1..120)
}

/// A trip's cap follows from its version, as it does in life.
fn cap_of(version: u64) -> i64 {
    300 + 250 * i64::try_from(version).unwrap()
}

proptest! {
    #[test]
    fn whatever_is_proposed_no_trip_exceeds_its_cap_and_no_answer_changes(steps in steps()) {
        let mut register = Register::new(SIZE);
        let mut twin = Register::new(SIZE);
        let mut given: HashMap<TransactionId, Answer> = HashMap::new();
        let mut highest: HashMap<u128, u64> = HashMap::new();
        let mut closed: Vec<u128> = Vec::new();
        for (index, step) in (1_u64..).zip(&steps) {
            if step.close {
                closed.push(step.trip);
                register.apply(at(index), index, &Entry::TripClosed(trip(step.trip, 1).id));
                twin.apply(at(index), index, &Entry::TripClosed(trip(step.trip, 1).id));
                continue;
            }
            let mut entry = proposal(step.key, step.amount, cap_of(step.version), trip(step.trip, step.version));
            if !step.approve { entry.reason = Reason::FarFromStore; }
            if let Some((key, amount)) = step.seen {
                let transaction_id = TransactionId::from_bytes([key; 16]);
                entry.seen = vec![Approval { transaction_id, amount, at: Timestamp::from_millis(0) }];
            }
            let id = entry.transaction_id;
            let fingerprint = entry.fingerprint;
            if index % 7 == 0 {
                // A keeper that starts from a snapshot goes on like the others.
                let mut restored = Register::new(SIZE);
                restored.load(&twin.save().unwrap()).unwrap();
                prop_assert_eq!(restored.save().unwrap(), twin.save().unwrap());
                twin = restored;
            }
            let outcome = apply(&mut register, index, index, entry.clone());
            prop_assert_eq!(&outcome, &apply(&mut twin, index, index, entry));
            // What a repeated proposal saw of its trip is news too.
            if matches!(outcome, Outcome::Answered(_) | Outcome::Known(_)) {
                let seen = highest.entry(step.trip).or_default();
                *seen = (*seen).max(step.version);
            }
            match outcome {
                Outcome::Answered(answer) => {
                    let seen = highest.entry(step.trip).or_default();
                    if answer.verdict == Verdict::Approved {
                        prop_assert!(step.approve && !closed.contains(&step.trip));
                        let sum: i64 = register.approvals(trip(step.trip, 1).id).iter().map(|one| one.amount).sum();
                        prop_assert!(sum <= cap_of(*seen), "{} over {}", sum, cap_of(*seen));
                    }
                    prop_assert!(given.insert(id, *answer).is_none());
                }
                Outcome::Known(recalled) => prop_assert_eq!(given.get(&id), Some(&*recalled.answer)),
                Outcome::OtherFingerprint => prop_assert_ne!(given[&id].fingerprint, fingerprint),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}

#[test]
fn an_outage_lasts_while_any_edge_has_lost_the_primary() {
    let mut register = Register::new(SIZE);
    let lost = |edge| Entry::OutageStarted {
        edge,
        why: Why::Timeout,
    };
    register.apply(at(1), 5, &lost(1));
    register.apply(at(2), 6, &lost(2));
    register.apply(at(3), 7, &Entry::OutageEnded { edge: 1 });
    assert_eq!(register.outage().map(|outage| outage.from_ms), Some(5));
    assert_eq!(register.edges_cut_off(), [2]);
    register.apply(at(4), 8, &Entry::OutageEnded { edge: 2 });
    assert!(register.outage().is_none());
    assert_eq!(register.outages().count(), 1);
}
