//! Advices, late marks, reversals, grants; and that all of it survives a snapshot.

use super::*;
use crate::entry::{Advice, Grant, LateMark, OperatorAction, Reversal, ReversalCause};

const RETRY_MS: u64 = 60_000;

fn id(key: u8) -> TransactionId {
    TransactionId::from_bytes([key; 16])
}

/// What an edge told the bank without the log.
fn advice(proposal: Proposal, rung: Rung) -> Entry {
    let proposal = Proposal { rung, ..proposal };
    Entry::Advice(Box::new(Advice {
        answer: proposal.answer(proposal.reason, 0),
        proposal,
        given_at: Timestamp::from_millis(0),
    }))
}

fn declined(proposal: Proposal) -> Proposal {
    Proposal {
        reason: Reason::FarFromStore,
        ..proposal
    }
}

fn reversal(key: u8, number: u128, amount: Option<i64>, cause: ReversalCause) -> Entry {
    Entry::Reverse(Reversal {
        // Reversals under different keys of the bank differ in the first half.
        id: Uuid::from_u128(number << 64),
        transaction_id: id(key),
        shopper: None,
        amount,
        cause,
        booked_in: None,
    })
}

fn late(key: u8, edge: u64) -> Entry {
    Entry::Late(LateMark {
        transaction_id: id(key),
        edge,
    })
}

fn spent(register: &Register) -> i64 {
    let approvals = register.approvals(trip(1, 1).id);
    approvals.iter().map(|approval| approval.amount).sum()
}

fn recalled(register: &Register, key: u8, amount: i64) -> Recall {
    let fingerprint = proposal(key, amount, 1_000, trip(1, 1)).fingerprint;
    register.recall(id(key), &fingerprint)
}

fn replays(register: &Register, key: u8, amount: i64) -> Answer {
    match recalled(register, key, amount) {
        Recall::Known(recalled) => *recalled.answer,
        other => panic!("{other:?}"),
    }
}

/// The register, as a keeper that starts from its snapshot has it.
fn restored(register: &Register) -> Register {
    let mut restored = Register::new(SIZE);
    restored.load(&register.save().unwrap()).unwrap();
    restored
}

#[test]
fn an_advice_is_always_taken_and_flagged_when_it_is_over() {
    let mut register = Register::new(SIZE);
    apply(&mut register, 1, 0, proposal(1, 600, 1_000, trip(1, 1)));
    let told = advice(proposal(2, 600, 1_000, trip(1, 1)), Rung::PrimaryOnly);
    let answer = answered(register.apply(at(2), 0, &told));
    assert_eq!(answer.verdict, Verdict::Approved);
    assert_eq!(
        (spent(&register), register.counts().advised_over),
        (1_200, 1)
    );
    assert_eq!(register.answer_at(id(2), at(2)), Some(answer));
    // The trip has no room left for others.
    let next = answered(apply(
        &mut register,
        3,
        0,
        proposal(3, 1, 1_000, trip(1, 1)),
    ));
    assert_eq!(next.reason, Reason::OverCap);
    // Carried again it changes nothing.
    assert!(matches!(register.apply(at(4), 0, &told), Outcome::Known(_)));
    assert_eq!((spent(&register), register.counts().advised), (1_200, 1));
    assert_eq!(register.counts().conflicts, 0);
}

#[test]
fn an_advice_that_meets_the_same_verdict_is_what_replays_unless_the_bank_heard_the_other() {
    for heard in [false, true] {
        let mut register = Register::new(SIZE);
        let logged = answered(apply(
            &mut register,
            1,
            0,
            proposal(1, 600, 1_000, trip(1, 1)),
        ));
        if heard {
            register.apply(at(2), 0, &Entry::Heard(id(1)));
        }
        let told = advice(proposal(1, 600, 1_000, trip(1, 1)), Rung::PrimaryOnly);
        register.apply(at(3), 0, &told);
        let rung = if heard {
            Rung::Primary
        } else {
            Rung::PrimaryOnly
        };
        assert_eq!(replays(&register, 1, 600).rung, rung);
        assert_eq!(spent(&register), 600, "once");
        assert!(
            register.answer_at(id(1), at(1)).is_some(),
            "booked where it was given"
        );
        assert!(register.answer_at(id(1), at(3)).is_none());
        let Entry::Advice(words) = &told else {
            unreachable!("an advice");
        };
        assert_eq!(register.is_reworded(words, at(3)), !heard);
        assert!(!register.is_reworded(words, at(1)), "not by the answer");
        assert_eq!(logged.rung, Rung::Primary);
        assert_eq!(register.counts().conflicts, 0);
    }
}

#[test]
fn an_approval_that_meets_a_decline_counts_and_both_are_booked() {
    let mut register = Register::new(SIZE);
    let logged = declined(proposal(1, 600, 1_000, trip(1, 1)));
    let logged = answered(apply(&mut register, 1, 0, logged));
    let told = advice(proposal(1, 600, 1_000, trip(1, 1)), Rung::Isolated);
    register.apply(at(2), 0, &told);
    let mut register = restored(&register);
    assert_eq!(replays(&register, 1, 600).verdict, Verdict::Approved);
    assert_eq!(spent(&register), 600);
    assert_eq!(register.answer_at(id(1), at(1)), Some(logged));
    let booked = register.answer_at(id(1), at(2)).unwrap();
    assert_eq!(
        (booked.verdict, booked.rung),
        (Verdict::Approved, Rung::Isolated)
    );
    assert_eq!(register.counts().conflicts, 1);
    let conflict = register.conflicts().next().unwrap();
    assert_eq!(
        (conflict.logged, conflict.told, conflict.amount),
        (Some(Verdict::Declined), Verdict::Approved, 600)
    );
    // Carried again it is no second conflict.
    register.apply(at(3), 0, &told);
    assert_eq!((register.counts().conflicts, spent(&register)), (1, 600));
}

#[test]
fn a_decline_that_meets_an_approval_leaves_it_standing() {
    let mut register = Register::new(SIZE);
    apply(&mut register, 1, 0, proposal(1, 600, 1_000, trip(1, 1)));
    let told = advice(
        declined(proposal(1, 600, 1_000, trip(1, 1))),
        Rung::Isolated,
    );
    register.apply(at(2), 0, &told);
    assert_eq!(replays(&register, 1, 600).verdict, Verdict::Approved);
    assert_eq!((spent(&register), register.counts().conflicts), (600, 1));
}

#[test]
fn an_approval_that_was_told_stands_over_a_tombstone() {
    let mut register = Register::new(SIZE);
    register.apply(at(1), 0, &Entry::Tombstone(id(1)));
    let told = advice(proposal(1, 600, 1_000, trip(1, 1)), Rung::Isolated);
    register.apply(at(2), 0, &told);
    assert_eq!(replays(&register, 1, 600).verdict, Verdict::Approved);
    assert_eq!((spent(&register), register.counts().conflicts), (600, 1));
}

#[test]
fn a_late_approval_counts_and_is_given_back_unless_the_bank_was_told() {
    for told in [false, true] {
        let mut register = Register::new(SIZE);
        // The mark may come before the entry that it is about.
        register.apply(at(1), 0, &late(1, 1));
        assert!(register.is_marked(id(1), 1) && !register.is_marked(id(1), 2));
        answered(apply(
            &mut register,
            2,
            0,
            proposal(1, 600, 1_000, trip(1, 1)),
        ));
        assert!(register.overdue(RETRY_MS, RETRY_MS - 1).is_empty());
        let overdue = register.overdue(RETRY_MS, RETRY_MS);
        assert_eq!(overdue, [(id(1), trip(1, 1).shopper)]);
        if told {
            let again = register.apply(at(3), 0, &Entry::Heard(id(1)));
            assert!(matches!(again, Outcome::Known(recalled) if recalled.heard));
            assert!(register.overdue(RETRY_MS, RETRY_MS).is_empty());
            assert!(!register.is_marked(id(1), 1));
        }
        let mut register = restored(&register);
        let release = reversal(1, 9, None, ReversalCause::Late);
        let released = register.apply(at(4), RETRY_MS, &release);
        if told {
            assert!(
                matches!(released, Outcome::Known(_)),
                "it stands: {released:?}"
            );
            assert_eq!(spent(&register), 600);
            continue;
        }
        assert_eq!(released, Outcome::Reversed(600));
        assert_eq!((spent(&register), register.counts().released), (0, 1));
        assert_eq!(
            register.reversal(id(1), Uuid::from_u128(9 << 64)),
            Some(600)
        );
        assert_eq!(recalled(&register, 1, 600), Recall::Tombstoned);
        assert_eq!(
            register.apply(at(5), RETRY_MS, &Entry::Heard(id(1))),
            Outcome::Tombstoned
        );
        let again = apply(
            &mut register,
            6,
            RETRY_MS,
            proposal(1, 600, 1_000, trip(1, 1)),
        );
        assert_eq!(again, Outcome::Tombstoned, "never answered any more");
        // An edge that could not ask has told the bank all the same: the money counts again.
        register.apply(at(7), RETRY_MS, &Entry::Told(id(1)));
        assert_eq!((spent(&register), register.counts().conflicts), (600, 1));
        assert_eq!(replays(&register, 1, 600).verdict, Verdict::Approved);
    }
}

#[test]
fn a_late_mark_says_nothing_of_what_another_edge_answered() {
    let mut register = Register::new(SIZE);
    answered(apply(
        &mut register,
        1,
        0,
        proposal(1, 600, 1_000, trip(1, 1)),
    ));
    register.apply(at(2), 0, &late(1, 2));
    let mut other = proposal(2, 100, 1_000, trip(1, 1));
    (other.edge, other.start) = (3, 3);
    register.apply(at(3), 0, &late(2, 2));
    answered(apply(&mut register, 4, 0, other));
    assert!(register.overdue(RETRY_MS, 2 * RETRY_MS).is_empty());
    let release = reversal(2, 9, None, ReversalCause::Late);
    register.apply(at(5), RETRY_MS, &release);
    assert_eq!(
        spent(&register),
        700,
        "what is not that edge's is not given back"
    );
}

#[test]
fn reversals_give_room_once_each_and_never_more_than_was_approved() {
    let mut register = Register::new(SIZE);
    answered(apply(
        &mut register,
        1,
        0,
        proposal(1, 600, 1_000, trip(1, 1)),
    ));
    let bank = ReversalCause::Bank;
    let part = reversal(1, 1, Some(200), bank);
    assert_eq!(register.apply(at(2), 0, &part), Outcome::Reversed(200));
    assert_eq!(register.apply(at(3), 0, &part), Outcome::Reversed(200));
    assert_eq!((spent(&register), register.counts().reversed), (400, 1));
    let room = answered(apply(
        &mut register,
        4,
        0,
        proposal(2, 600, 1_000, trip(1, 1)),
    ));
    assert_eq!(room.verdict, Verdict::Approved);
    let more = reversal(1, 2, Some(9_999), bank);
    assert_eq!(register.apply(at(5), 0, &more), Outcome::Reversed(400));
    let rest = reversal(1, 3, None, bank);
    assert_eq!(register.apply(at(6), 0, &rest), Outcome::Reversed(0));
    assert_eq!(spent(&register), 600, "the other payment");
    // A cache that has not heard of the reversal does not bring it back.
    let mut seen = proposal(3, 400, 1_000, trip(1, 1));
    seen.seen = vec![Approval {
        transaction_id: id(1),
        amount: 600,
        at: Timestamp::from_millis(0),
    }];
    assert_eq!(
        answered(apply(&mut register, 7, 0, seen)).verdict,
        Verdict::Approved
    );
}

#[test]
fn a_reversal_before_its_authorization_forbids_it() {
    let mut register = Register::new(SIZE);
    let before = reversal(1, 1, None, ReversalCause::Bank);
    assert_eq!(register.apply(at(1), 0, &before), Outcome::Tombstoned);
    let after = apply(&mut register, 2, 0, proposal(1, 600, 1_000, trip(1, 1)));
    assert_eq!(after, Outcome::Tombstoned);
    let never = reversal(2, 2, None, ReversalCause::Late);
    assert_eq!(register.apply(at(3), 0, &never), Outcome::Noted);
    answered(apply(
        &mut register,
        4,
        0,
        proposal(2, 1, 1_000, trip(1, 1)),
    ));
}

#[test]
fn a_grant_is_void_for_another_start_of_the_edge() {
    let mut register = Register::new(SIZE);
    let grant = |start, amount| {
        Entry::Grant(Grant {
            edge: 2,
            incarnation: Uuid::from_u128(start),
            reserve: tally(amount, 5),
        })
    };
    register.apply(at(1), 0, &grant(1, 100));
    register.apply(at(2), 0, &grant(2, 70));
    let register = restored(&register);
    assert_eq!(register.granted(2, Uuid::from_u128(1)), None);
    assert_eq!(register.granted(2, Uuid::from_u128(2)), Some(tally(70, 5)));
    assert_eq!(register.granted(3, Uuid::from_u128(2)), None);
}

#[test]
fn the_first_name_of_the_log_stays_and_the_ledgers_epoch_only_grows() {
    let mut register = Register::new(SIZE);
    register.apply(at(1), 0, &Entry::Founded(Uuid::from_u128(1)));
    register.apply(at(2), 0, &Entry::Founded(Uuid::from_u128(2)));
    register.apply(at(3), 0, &Entry::LedgerEpoch(7));
    register.apply(at(4), 0, &Entry::LedgerEpoch(6));
    let register = restored(&register);
    assert_eq!(register.incarnation(), Some(Uuid::from_u128(1)));
    assert_eq!(register.ledger_epoch(), 7);
}

#[test]
fn an_order_for_a_time_ends_by_its_own_word_and_no_other() {
    let order = |what| {
        Entry::Operator(OperatorAction {
            id: Uuid::from_u128(9),
            operator: "ada".into(),
            reason: "drill".into(),
            at: Timestamp::from_millis(0),
            what,
        })
    };
    let force = |for_ms| {
        let mode = StandInMode::Force;
        order(OperatorOrder::StandInFor { mode, for_ms })
    };
    let over = |until_ms| order(OperatorOrder::StandInOver { until_ms });
    let mut register = Register::new(SIZE);
    register.apply(at(1), 1_000, &force(5_000));
    let known = |register: &Register| (register.mode(), register.mode_until_ms());
    assert_eq!(known(&register), (StandInMode::Force, Some(6_000)));
    register = restored(&register);
    assert_eq!(known(&register), (StandInMode::Force, Some(6_000)));
    // Log time alone ends nothing: every edge would see it end at another moment.
    register.apply(at(2), 9_000, &Entry::Drained(1));
    assert_eq!(register.mode(), StandInMode::Force);
    // Another order was given before the first one's end was said.
    register.apply(at(3), 9_000, &force(60_000));
    register.apply(at(4), 9_001, &over(6_000));
    assert_eq!(known(&register), (StandInMode::Force, Some(69_000)));
    register.apply(at(5), 69_000, &over(69_000));
    assert_eq!(known(&register), (StandInMode::Auto, None));
    // One without an end takes the place of one that has one.
    register.apply(at(6), 70_000, &force(1_000));
    let forbid = OperatorOrder::StandIn(StandInMode::Forbid);
    register.apply(at(7), 70_001, &order(forbid));
    register.apply(at(8), 71_000, &over(71_000));
    assert_eq!(known(&register), (StandInMode::Forbid, None));
}

#[test]
fn what_is_no_saved_register_is_refused_and_changes_nothing() {
    let mut register = Register::new(SIZE);
    answered(apply(
        &mut register,
        1,
        0,
        proposal(1, 600, 1_000, trip(1, 1)),
    ));
    let saved = register.save().unwrap();
    for cut in [0, 1, 2, saved.len() / 2, saved.len() - 1] {
        assert!(register.load(&saved[..cut]).is_err(), "cut at {cut}");
    }
    // What the build before this one reads is written as it did.
    assert_eq!(saved[..2], [1, 0]);
    let mut newer = saved.clone();
    newer[0] = 9;
    assert!(matches!(register.load(&newer), Err(LoadError::Schema(9))));
    assert_eq!(register.save().unwrap(), saved);
}

#[test]
fn a_reversals_key_that_says_something_else_is_refused() {
    let mut register = Register::new(SIZE);
    let on = trip(1, 1);
    apply(&mut register, 1, 0, proposal(1, 500, 1_000, on));
    let said = |amount: i64, half: u128| {
        Entry::Reverse(Reversal {
            id: Uuid::from_u128((7 << 64) | half),
            transaction_id: id(1),
            shopper: None,
            amount: Some(amount),
            cause: ReversalCause::Bank,
            booked_in: None,
        })
    };
    let back = |register: &mut Register, n, entry: &Entry| register.apply(at(n), 0, entry);
    assert_eq!(
        back(&mut register, 2, &said(100, 1)),
        Outcome::Reversed(100)
    );
    assert_eq!(
        back(&mut register, 3, &said(100, 1)),
        Outcome::Reversed(100)
    );
    assert_eq!(
        back(&mut register, 4, &said(200, 2)),
        Outcome::OtherFingerprint
    );
    assert_eq!(
        register.approvals(TripId(Uuid::from_u128(1)))[0].amount,
        400
    );
}

#[test]
fn what_the_bank_did_not_heed_comes_back_and_counts_as_late() {
    let mut register = Register::new(SIZE);
    apply(&mut register, 1, 0, proposal(1, 500, 1_000, trip(1, 1)));
    let unheeded = reversal(1, 1, None, ReversalCause::Unheeded);
    assert_eq!(register.apply(at(2), 0, &unheeded), Outcome::Reversed(500));
    assert_eq!(register.apply(at(3), 0, &unheeded), Outcome::Reversed(500));
    assert_eq!(register.counts().late, 1);
    // Never answered: it never will be.
    let before = reversal(2, 1, None, ReversalCause::Unheeded);
    assert_eq!(register.apply(at(4), 0, &before), Outcome::Tombstoned);
    let never = Entry::Authorize(Box::new(proposal(2, 500, 1_000, trip(1, 1))));
    assert_eq!(register.apply(at(5), 0, &never), Outcome::Tombstoned);
}

#[test]
fn a_reversal_of_a_payment_that_only_the_ledger_knows_forbids_nothing() {
    let mut register = Register::new(SIZE);
    let old = Entry::Reverse(Reversal {
        id: Uuid::from_u128(1 << 64),
        transaction_id: id(1),
        shopper: None,
        amount: Some(300),
        cause: ReversalCause::Bank,
        booked_in: Some(Currency::USD),
    });
    assert_eq!(register.apply(at(1), 0, &old), Outcome::Reversed(300));
    assert!(!register.knows(id(1)));
}

#[test]
fn a_payment_of_nothing_counts_nowhere() {
    let mut register = Register::new(SIZE);
    let answer = answered(apply(
        &mut register,
        1,
        0,
        proposal(1, 0, 1_000, trip(1, 1)),
    ));
    assert_eq!(answer.verdict, Verdict::Approved);
    let limits = StandInLimits {
        transaction: 0,
        ..wide()
    };
    let checked = stand_in(proposal(2, 0, 1_000, trip(1, 1)), limits);
    let answer = answered(apply(&mut register, 2, 0, checked));
    assert_eq!(answer.verdict, Verdict::Approved);
    assert!(register.approvals(TripId(Uuid::from_u128(1))).is_empty());
    assert_eq!(register.counts().exposed_minor, 0);
}
