//! Everything a run leaves behind, made from a seed: a history, a log replayed through the real
//! register, and the rows that draining it would book.

use std::collections::BTreeMap;

use uuid::Uuid;

use standin_core::answer::{Answer, Code, Reason, Rung, Verdict, Why};
use standin_core::authorization::{Authorization, Merchant, Particulars};
use standin_core::clock::Timestamp;
use standin_core::decide::Limits;
use standin_core::entry::{Entry, LogPosition, Proposal};
use standin_core::id::{ShopperId, StoreId, TripId};
use standin_core::identity::{self, Operation};
use standin_core::ledger::{AuthorizationRow, AuthorizationState, BookedCounts};
use standin_core::money::{Currency, Money};
use standin_core::trip::{Trip, TripStatus};
use standin_reconcile::checker::{DrainEvidence, Evidence, Recovery, rows_digest};
use standin_reconcile::history::{Attempt, BodyHash, Outcome};
use standin_reconcile::log::{LogBatch, LogContents};
use standin_reconcile::totals::Totals;

const BEGIN: i64 = 1_800_000_000_000;
const CAP: i64 = 50_000;

/// What a run leaves behind.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) history: Vec<Attempt>,
    pub(super) rows: Vec<AuthorizationRow>,
    pub(super) logs: Vec<LogContents>,
    pub(super) drains: Vec<DrainEvidence>,
    pub(super) recoveries: Vec<Recovery>,
    pub(super) reported: Totals,
}

/// SplitMix64: the same numbers from the same seed, everywhere.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

impl World {
    /// A run without a fault in it, of `payments` payments.
    pub(super) fn good(seed: u64, payments: u64) -> Self {
        let mut random = Random(seed);
        let proposals: Vec<Proposal> = (0..payments).map(|n| propose(n, &mut random)).collect();
        let log = write_log(&proposals, &mut random);
        let rows: Vec<AuthorizationRow> = log
            .records
            .iter()
            .filter_map(|record| record.booking())
            .map(|booking| AuthorizationRow {
                state: AuthorizationState::Final,
                store: booking.proposal.store,
                picked: booking.proposal.trip.map(|trip| trip.picked),
                reversed: 0,
                held_at: Some(Timestamp::from_millis(booking.log_time_ms as i64 - 2)),
                log: Some((log.incarnation, booking.at)),
                final_at: Some(Timestamp::from_millis(booking.log_time_ms as i64)),
                answer: booking.answer,
            })
            .collect();
        let mut history = Vec::new();
        for (n, (proposal, row)) in proposals.iter().zip(&rows).enumerate() {
            assert_eq!(proposal.transaction_id, row.answer.transaction_id);
            history.extend(ask(n as u64, proposal, &row.answer, &mut random));
        }
        let digest = rows_digest(&rows);
        let acked: Vec<(LogPosition, u64)> = log
            .records
            .iter()
            .map(|record| (record.at, random.next()))
            .collect();
        let drains = vec![DrainEvidence {
            log: log.incarnation,
            cursor: log.last_index,
            again: BookedCounts {
                already: rows.len() as u64,
                ..BookedCounts::default()
            },
            rows_before: digest,
            rows_after: digest,
        }];
        let recoveries = vec![Recovery {
            moment: "kill 1".to_owned(),
            acked: acked[..acked.len() - 2].to_vec(),
            recovered: acked,
        }];
        let reported = Totals::of_rows(&rows);
        Self {
            history,
            rows,
            logs: vec![log],
            drains,
            recoveries,
            reported,
        }
    }

    pub(super) fn evidence(&self) -> Evidence<'_> {
        Evidence {
            history: &self.history,
            rows: &self.rows,
            logs: &self.logs,
            drains: &self.drains,
            recoveries: &self.recoveries,
            reported: &self.reported,
        }
    }

    /// The history's first attempt that got an answer with this verdict.
    pub(super) fn answered(&mut self, verdict: Verdict) -> &mut Attempt {
        let wanted = match verdict {
            Verdict::Approved => 200,
            Verdict::Declined => 402,
        };
        self.history
            .iter_mut()
            .find(|attempt| match &attempt.outcome {
                Outcome::Answered {
                    status, replayed, ..
                } => *status == wanted && !replayed,
                Outcome::Refused { .. } | Outcome::NoReply => false,
            })
            .unwrap()
    }

    /// The row of that attempt.
    pub(super) fn row_of(&mut self, verdict: Verdict) -> &mut AuthorizationRow {
        let id = self.answered(verdict).transaction_id.unwrap();
        self.rows
            .iter_mut()
            .find(|row| row.answer.transaction_id == id)
            .unwrap()
    }
}

fn propose(n: u64, random: &mut Random) -> Proposal {
    let shopper = ShopperId::try_from(n / 3 + 1).unwrap();
    let request = Authorization {
        bank: ["acme", "first", "zenith"][random.below(3) as usize]
            .parse()
            .unwrap(),
        shopper,
        amount: Money::from_minor(random.below(30_000) as i64 + 100, Currency::USD),
        merchant: Merchant {
            name: "Target".to_owned(),
            address: "123 Main St".to_owned(),
        },
        bank_key: Some(format!("key-{n}")),
        received_at: Timestamp::from_millis(BEGIN + n as i64 * 10),
        particulars: Particulars::default(),
    };
    let trip = Trip {
        id: TripId(Uuid::from_u128(u128::from(n / 3) + 1)),
        shopper,
        store: StoreId::try_from(42_i64).unwrap(),
        currency: Currency::USD,
        status: TripStatus::Shopping,
        version: n,
        picked: CAP - 5_000,
        picked_listed: CAP - 5_000,
        mix: BTreeMap::new(),
        started_at: Timestamp::from_millis(BEGIN),
    };
    let stands_in = random.one_in(4);
    let (reason, rung, why) = match (random.below(10), stands_in) {
        (0, false) => (Reason::WrongStore, Rung::Primary, None),
        (0, true) => (Reason::WrongStore, Rung::StandIn, Some(Why::Timeout)),
        (_, false) => (Reason::WithinCap, Rung::Primary, None),
        (_, true) => (
            Reason::WithinStandInLimits,
            Rung::StandIn,
            Some(Why::Connection),
        ),
    };
    let mut mac = [7; 32];
    mac[..8].copy_from_slice(&random.next().to_be_bytes());
    Proposal {
        edge: 1,
        start: 1,
        transaction_id: identity::transaction_id(&request, Operation::Authorize, Some(trip.id)),
        fingerprint: identity::fingerprint(&request),
        code: Code::from_mac(&mac),
        reason,
        rung,
        why,
        trip_age_ms: Some(random.below(50)),
        store: Some(trip.store),
        cap: Some(CAP),
        approved_before: 0,
        limits: Limits::Cap,
        seen: Vec::new(),
        policy_version: 1,
        swipe_window_ms: 0,
        shadow: None,
        approved: None,
        request,
        trip: Some(trip),
    }
}

/// Batches of one to four entries; some proposals twice, some with another fingerprint.
fn write_log(proposals: &[Proposal], random: &mut Random) -> LogContents {
    let mut batches: Vec<LogBatch> = Vec::new();
    for (index, chunk) in (1..).zip(proposals.chunks(3)) {
        let mut entries: Vec<Entry> = chunk
            .iter()
            .map(|proposal| Entry::Authorize(Box::new(proposal.clone())))
            .collect();
        if random.one_in(3) {
            entries.push(Entry::Authorize(Box::new(chunk[0].clone())));
        }
        if random.one_in(9) {
            entries.push(Entry::OutageStarted {
                edge: 1,
                why: Why::Timeout,
            });
            entries.push(Entry::OutageEnded { edge: 1 });
        }
        let last = chunk.last().unwrap().request.received_at.as_millis();
        batches.push(LogBatch {
            index,
            log_time_ms: (last + 3) as u64,
            entries,
        });
    }
    LogContents::replay(Uuid::from_u128(99), batches)
}

/// What the bank did about one payment, and what it saw.
fn ask(n: u64, proposal: &Proposal, answer: &Answer, random: &mut Random) -> Vec<Attempt> {
    let mut first = Attempt {
        payment: format!("key-{n}"),
        transaction_id: Some(proposal.transaction_id),
        bank: proposal.request.bank.clone(),
        shopper: proposal.request.shopper,
        body: BodyHash::of(&n.to_be_bytes()),
        amount: proposal.request.amount,
        edge: "edge-1".to_owned(),
        verified: true,
        intended_at: proposal.request.received_at.as_millis() - 1,
        sent_at: proposal.request.received_at.as_millis(),
        answered_at: proposal.request.received_at.as_millis() + 40,
        latency_us: 41_000,
        outcome: answered(answer, false),
        expectation: None,
    };
    let model = first.clone();
    let again = |outcome| Attempt {
        sent_at: model.sent_at + 100,
        answered_at: model.answered_at + 100,
        outcome,
        ..model.clone()
    };
    let refused = |status| Outcome::Refused {
        status,
        replayed: false,
        cause: None,
    };
    let mut attempts = Vec::new();
    match random.below(12) {
        0 => attempts.push(again(answered(answer, true))),
        1 => attempts.push(Attempt {
            body: BodyHash::of(b"another"),
            amount: Money::from_minor(model.amount.minor() + 1, Currency::USD),
            ..again(refused(422))
        }),
        2 => {
            // The first reply was lost; the retry brings the answer again.
            attempts.push(again(answered(answer, true)));
            first.outcome = Outcome::NoReply;
        }
        3 => {
            attempts.push(again(answered(answer, false)));
            first.outcome = refused(503);
        }
        4 => attempts.push(Attempt {
            payment: format!("forged-{n}"),
            transaction_id: None,
            verified: false,
            ..again(refused(401))
        }),
        5 => attempts.push(Attempt {
            payment: format!("limited-{n}"),
            transaction_id: None,
            ..again(refused(429))
        }),
        // No key and no reply: the row is accounted for by who, whose and how much.
        6 => {
            first.transaction_id = None;
            first.outcome = Outcome::NoReply;
        }
        _ => {}
    }
    attempts.insert(0, first);
    attempts
}

/// The reply that an edge renders from an answer.
pub(super) fn answered(answer: &Answer, replayed: bool) -> Outcome {
    let code = match answer.verdict {
        Verdict::Approved => format!(r#""authorization_code":"{}","#, answer.code.as_str()),
        Verdict::Declined => String::new(),
    };
    Outcome::Answered {
        status: match answer.verdict {
            Verdict::Approved => 200,
            Verdict::Declined => 402,
        },
        body: format!(
            r#"{{"decision":"{}","reason":"{}","transaction_id":"{}",{code}"amount":"{}","currency":"{}","rung":"{}"}}"#,
            answer.verdict,
            answer.reason,
            answer.transaction_id,
            answer.amount.to_decimal(),
            answer.amount.currency(),
            answer.rung,
        ),
        replayed,
    }
}
