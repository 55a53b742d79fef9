//! One corruption each: what it does to a good world, and which promise it breaks.

use uuid::Uuid;

use standin_core::answer::{Code, Reason, Verdict};
use standin_core::clock::Timestamp;
use standin_core::entry::{Entry, Reversal, ReversalCause};
use standin_core::id::TransactionId;
use standin_core::ledger::{AuthorizationRow, AuthorizationState};
use standin_core::money::{Currency, Money};
use standin_core::register::Outcome as Applied;
use standin_core::trip::TripStatus;
use standin_reconcile::history::{BodyHash, Outcome};
use standin_reconcile::log::{Damage, LogRecord};

use super::world::{World, answered};

/// One planted corruption.
pub(super) struct Corruption {
    pub(super) name: &'static str,
    pub(super) flagged: &'static str,
    pub(super) plant: fn(&mut World),
}

const fn corruption(
    flagged: &'static str,
    name: &'static str,
    plant: fn(&mut World),
) -> Corruption {
    Corruption {
        name,
        flagged,
        plant,
    }
}

/// Every corruption that is planted.
pub(super) const CORRUPTIONS: &[Corruption] = &[
    corruption("S1", "the row of an approval is lost", lose_row),
    corruption("S1", "an approval is booked twice", double_row),
    corruption("S1", "an approval is booked with another amount", |world| {
        let row = world.row_of(Verdict::Approved);
        row.answer.amount = Money::from_minor(row.answer.amount.minor() - 1, Currency::USD);
    }),
    corruption("S1", "an approval is booked with another code", |world| {
        world.row_of(Verdict::Approved).answer.code = Code::from_mac(&[0xff; 32]);
    }),
    corruption("S1", "an approval is only held", |world| {
        world.row_of(Verdict::Approved).state = AuthorizationState::Held;
    }),
    corruption("S1", "an approval was released", |world| {
        world.row_of(Verdict::Approved).state = AuthorizationState::Released;
    }),
    corruption("S2", "a replay tells another decision", |world| {
        flip_replay(world);
    }),
    corruption("S2", "the log gives one payment two answers", |world| {
        let log = &mut world.logs[0];
        let mut second = log.records[0].clone();
        if let Applied::Answered(answer) = &mut second.outcome {
            answer.reason = Reason::Velocity;
            answer.verdict = Verdict::Declined;
        }
        second.at = log.records.last().unwrap().at;
        second.at.slot += 1;
        log.records.push(second);
    }),
    corruption(
        "S2",
        "two regions answer one payment differently",
        |world| {
            let mut other = world.logs[0].clone();
            other.incarnation = Uuid::from_u128(100);
            for record in &mut other.records {
                if let Applied::Answered(answer) = &mut record.outcome {
                    answer.verdict = match answer.verdict {
                        Verdict::Approved => Verdict::Declined,
                        Verdict::Declined => Verdict::Approved,
                    };
                }
            }
            world.logs.push(other);
        },
    ),
    corruption("S2", "an answer has no readable body", |world| {
        if let Outcome::Answered { body, .. } = &mut world.answered(Verdict::Approved).outcome {
            body.pop();
        }
    }),
    corruption("S3", "a decline has no row", |world| {
        let id = world.row_of(Verdict::Declined).answer.transaction_id;
        world.rows.retain(|row| row.answer.transaction_id != id);
    }),
    corruption("S3", "a row has another reason than the answer", |world| {
        world.row_of(Verdict::Declined).answer.reason = Reason::Velocity;
    }),
    corruption("S3", "a decline is booked as an approval", |world| {
        let answer = &mut world.row_of(Verdict::Declined).answer;
        answer.verdict = Verdict::Approved;
        answer.reason = Reason::WithinCap;
    }),
    corruption("S3", "a drained outcome has no row", |world| {
        // The bank never got a reply, so only the log knows.
        let id = world.row_of(Verdict::Approved).answer.transaction_id;
        world
            .history
            .retain(|attempt| attempt.transaction_id != Some(id));
        world.rows.retain(|row| row.answer.transaction_id != id);
    }),
    corruption("S4", "a row that nobody asked for", |world| {
        let mut row = world.rows[0].clone();
        row.answer.transaction_id = TransactionId::from_bytes([9; 16]);
        row.answer.amount = Money::from_minor(1, Currency::USD);
        row.log = None;
        world.rows.push(row);
    }),
    corruption("S4", "a log entry that nobody asked for", |world| {
        let record = &mut world.logs[0].records[0];
        let Entry::Authorize(proposal) = &mut record.entry else {
            unreachable!("the first entry is a proposal");
        };
        proposal.transaction_id = TransactionId::from_bytes([8; 16]);
    }),
    corruption(
        "S4",
        "a row whose only request had a bad signature",
        |world| {
            let id = world.row_of(Verdict::Approved).answer.transaction_id;
            for attempt in &mut world.history {
                if attempt.transaction_id == Some(id) {
                    attempt.verified = false;
                    attempt.outcome = Outcome::Refused {
                        status: 401,
                        replayed: false,
                        cause: None,
                    };
                }
            }
        },
    ),
    corruption("S4", "a row older than its request", |world| {
        world.row_of(Verdict::Approved).held_at = Some(Timestamp::from_millis(0));
    }),
    corruption("S5", "one payment has two rows", double_row),
    corruption("S5", "draining again books a row", |world| {
        world.drains[0].again.finalized = 1;
    }),
    corruption("S5", "draining again changes a row", |world| {
        world.drains[0].rows_after ^= 1;
    }),
    corruption("S5", "nobody drained again", |world| world.drains.clear()),
    corruption("S5", "the drain stopped short", |world| {
        world.drains[0].cursor -= 1;
    }),
    corruption("S6", "approvals are over the cap that was seen", |world| {
        let Entry::Authorize(proposal) = &mut approval(world).entry else {
            unreachable!("an approval is proposed");
        };
        proposal.cap = Some(1);
    }),
    corruption(
        "S6",
        "a trip's approvals sum to more than its cap",
        |world| {
            let Applied::Answered(answer) = &mut approval(world).outcome else {
                unreachable!("an approval is answered");
            };
            answer.amount = Money::from_minor(1_000_000, Currency::USD);
        },
    ),
    corruption(
        "S8",
        "an acknowledged entry is gone after a crash",
        |world| {
            world.recoveries[0].recovered.remove(3);
        },
    ),
    corruption(
        "S8",
        "an acknowledged entry has other bytes after a crash",
        |world| {
            world.recoveries[0].recovered[4].1 ^= 1;
        },
    ),
    corruption("S8", "an answered payment is in no log", |world| {
        let id = world.answered(Verdict::Approved).transaction_id.unwrap();
        let kept = |record: &standin_reconcile::log::LogRecord| {
            record
                .answer()
                .is_none_or(|answer| answer.transaction_id != id)
        };
        world.logs[0].records.retain(kept);
    }),
    corruption(
        "S9",
        "a batch is missing from the middle of the log",
        |world| {
            world.logs[0].records.retain(|record| record.at.index != 20);
        },
    ),
    corruption("S9", "the log's tail is cut", |world| {
        let log = &mut world.logs[0];
        let last = log.last_index;
        log.records.retain(|record| record.at.index < last);
        log.last_index -= 1;
    }),
    corruption("S9", "durable batches cannot be read", |world| {
        let log = &mut world.logs[0];
        let last = log.last_index;
        log.records.retain(|record| record.at.index < last - 1);
    }),
    corruption("S9", "two entries changed places", |world| {
        let records = &mut world.logs[0].records;
        let (one, two) = (records[0].at, records[1].at);
        records[0].at = two;
        records[1].at = one;
    }),
    corruption("S9", "damage was not reported", |world| {
        world.logs[0].damage.push(Damage {
            place: "segment 3 offset 8192".to_owned(),
            reported: false,
        });
    }),
    corruption("S9", "log time goes back", |world| {
        world.logs[0].records.last_mut().unwrap().log_time_ms = 1;
    }),
    corruption("S11", "a replay has other bytes", |world| {
        let replay = replay_of(world);
        if let Outcome::Answered { body, .. } = &mut replay.outcome {
            body.push(' ');
        }
    }),
    corruption("S11", "another body was answered too", |world| {
        replay_of(world).body = BodyHash::of(b"another body");
    }),
    corruption("S11", "a 503 was stored", |world| {
        let attempt = world.answered(Verdict::Approved);
        attempt.outcome = Outcome::Refused {
            status: 503,
            replayed: true,
            cause: None,
        };
    }),
    corruption(
        "S11",
        "a request that got 422 changed the ledger",
        |world| {
            let refused = world
                .history
                .iter()
                .find(|attempt| matches!(attempt.outcome, Outcome::Refused { status: 422, .. }))
                .unwrap()
                .clone();
            let row = world
                .rows
                .iter_mut()
                .find(|row| Some(row.answer.transaction_id) == refused.transaction_id)
                .unwrap();
            row.answer.amount = refused.amount;
        },
    ),
    corruption("S11", "the same body got 422", |world| {
        replay_of(world).outcome = Outcome::Refused {
            status: 422,
            replayed: false,
            cause: None,
        };
    }),
    corruption(
        "S11",
        "a payment was decided anew after its answer",
        |world| {
            if let Outcome::Answered { replayed, .. } = &mut replay_of(world).outcome {
                *replayed = false;
            }
        },
    ),
    corruption("S14", "a trip was closed before it was paid for", |world| {
        let record = approval(world).clone();
        let Entry::Authorize(proposal) = &record.entry else {
            unreachable!("an approval is proposed");
        };
        let closed = LogRecord {
            entry: Entry::TripClosed(proposal.trip.as_ref().unwrap().id),
            outcome: Applied::Noted,
            ..record
        };
        world.logs[0].records.insert(0, closed);
    }),
    corruption("S14", "a trip that is over is paid for", |world| {
        let Entry::Authorize(proposal) = &mut approval(world).entry else {
            unreachable!("an approval is proposed");
        };
        proposal.trip.as_mut().unwrap().status = TripStatus::Delivering;
    }),
    corruption("S16", "an answer flips after it was unknown", |world| {
        let id = unknown_approval(world);
        let row = row(world, id);
        let mut flipped = row.answer.clone();
        (flipped.verdict, flipped.reason) = (Verdict::Declined, Reason::OverCap);
        let last = world
            .history
            .iter()
            .rfind(|attempt| attempt.transaction_id == Some(id));
        let mut again = last.unwrap().clone();
        again.outcome = answered(&flipped, true);
        world.history.push(again);
    }),
    corruption("S16", "the log turns what was unknown and told", |world| {
        let id = unknown_approval(world);
        let mut records = world.logs[0].records.iter_mut();
        let answer = records.find_map(|record| match &mut record.outcome {
            Applied::Answered(answer) if answer.transaction_id == id => Some(answer),
            _ => None,
        });
        answer.unwrap().verdict = Verdict::Declined;
    }),
    corruption("S16", "what was unknown and told is released", |world| {
        let id = unknown_approval(world);
        let mut rows = world.rows.iter_mut();
        let row = rows.find(|row| row.answer.transaction_id == id).unwrap();
        row.state = AuthorizationState::Released;
    }),
    corruption("S16", "what was unknown and told is given back", |world| {
        let id = unknown_approval(world);
        let last = world.logs[0].records.last().unwrap().clone();
        world.logs[0].records.push(LogRecord {
            entry: Entry::Reverse(Reversal {
                id: Uuid::from_u128(5),
                transaction_id: id,
                shopper: None,
                amount: None,
                cause: ReversalCause::Late,
                booked_in: None,
            }),
            outcome: Applied::Reversed(100),
            ..last
        });
    }),
    corruption("S15", "the reported sum is off by one", |world| {
        *world
            .reported
            .all
            .approved_minor
            .get_mut(&Currency::USD)
            .unwrap() += 1;
    }),
    corruption("S15", "a bank is missing from the report", |world| {
        world.reported.by_bank.pop_first();
    }),
    corruption("S15", "the report counts one decline too many", |world| {
        world.reported.all.declined += 1;
        world.reported.by_rung.values_mut().next().unwrap().declined += 1;
        world
            .reported
            .by_reason
            .values_mut()
            .next()
            .unwrap()
            .declined += 1;
        world.reported.by_bank.values_mut().next().unwrap().declined += 1;
    }),
    corruption(
        "S15",
        "the ledger holds less money than was approved",
        |world| {
            let row = world.row_of(Verdict::Approved);
            row.answer.amount = Money::from_minor(row.answer.amount.minor() - 1, Currency::USD);
            world.reported = standin_reconcile::totals::Totals::of_rows(&world.rows);
        },
    ),
];

/// The first entry that approves a payment.
fn approval(world: &mut World) -> &mut LogRecord {
    let approves = |record: &&mut LogRecord| {
        let answer = record.first_answer();
        answer.is_some_and(|answer| answer.verdict == Verdict::Approved)
    };
    world.logs[0].records.iter_mut().find(approves).unwrap()
}

/// A payment that got no answer at first, and was approved.
fn unknown_approval(world: &World) -> TransactionId {
    let unknown = |attempt: &&standin_reconcile::history::Attempt| match attempt.outcome {
        Outcome::NoReply => true,
        Outcome::Refused { status, .. } => status == 503,
        Outcome::Answered { .. } => false,
    };
    let unknown = world.history.iter().filter(unknown);
    let mut unknown = unknown.filter_map(|attempt| attempt.transaction_id);
    let approved = |id: &TransactionId| row(world, *id).answer.verdict == Verdict::Approved;
    unknown.find(approved).unwrap()
}

fn row(world: &World, id: TransactionId) -> &AuthorizationRow {
    let mut rows = world.rows.iter();
    rows.find(|row| row.answer.transaction_id == id).unwrap()
}

fn lose_row(world: &mut World) {
    let id = world.row_of(Verdict::Approved).answer.transaction_id;
    world.rows.retain(|row| row.answer.transaction_id != id);
}

fn double_row(world: &mut World) {
    let row = world.row_of(Verdict::Approved).clone();
    world.rows.push(row);
}

/// An attempt that replays an answer another attempt got first.
fn replay_of(world: &mut World) -> &mut standin_reconcile::history::Attempt {
    let replays = |n: &usize| {
        let (first, second) = (&world.history[*n - 1], &world.history[*n]);
        let replayed = matches!(second.outcome, Outcome::Answered { replayed: true, .. });
        let answered = matches!(first.outcome, Outcome::Answered { .. });
        replayed && answered && first.payment == second.payment
    };
    let at = (1..world.history.len()).find(replays).unwrap();
    &mut world.history[at]
}

fn flip_replay(world: &mut World) {
    let id = replay_of(world).transaction_id.unwrap();
    let row = world
        .rows
        .iter()
        .find(|row| row.answer.transaction_id == id)
        .unwrap();
    let mut flipped = row.answer.clone();
    (flipped.verdict, flipped.reason) = match flipped.verdict {
        Verdict::Approved => (Verdict::Declined, Reason::OverCap),
        Verdict::Declined => (Verdict::Approved, Reason::WithinCap),
    };
    replay_of(world).outcome = answered(&flipped, true);
}
