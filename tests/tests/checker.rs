//! The history checker, judged: a good history passes, and every planted corruption of one is
//! flagged under the promise it breaks.

#![allow(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    reason = "test code"
)]

mod corruptions;
mod world;

use standin_core::answer::{Answer, Rung, Verdict};
use standin_core::entry::{Advice, Entry, LogPosition};
use standin_core::id::TransactionId;
use standin_core::register::{Outcome, Recalled};
use standin_reconcile::checker::{self, Check, Copy, MAJORITY, PROMISES, judge_group};
use standin_reconcile::history;
use standin_reconcile::log::{LogContents, LogRecord};

use self::corruptions::{CORRUPTIONS, Corruption};
use self::world::World;

/// Seeds of the histories tried; `STANDIN_TEST_SEED=n` tries that one.
fn seeds() -> Vec<u64> {
    match std::env::var("STANDIN_TEST_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (1..=6).collect(),
    }
}

fn judge(world: &World) -> Vec<Check> {
    checker::judge(&world.evidence())
}

#[test]
fn a_good_history_keeps_every_promise() {
    for seed in seeds() {
        let checks = judge(&World::good(seed, 300));
        let ids: Vec<&str> = checks.iter().map(|check| check.id.as_str()).collect();
        assert_eq!(ids, PROMISES.map(|(id, _)| id));
        for check in checks {
            assert!(check.ok, "STANDIN_TEST_SEED={seed}: {check:?}");
        }
    }
}

#[test]
fn every_planted_corruption_is_flagged_under_its_promise() {
    for seed in seeds() {
        let good = World::good(seed, 200);
        for Corruption {
            name,
            flagged,
            plant,
        } in CORRUPTIONS
        {
            let mut world = good.clone();
            plant(&mut world);
            let checks = judge(&world);
            let check = checks.iter().find(|check| check.id == *flagged).unwrap();
            assert!(
                !check.ok,
                "STANDIN_TEST_SEED={seed}: {name} was not flagged by {flagged}: {checks:#?}"
            );
            assert!(check.detail.contains("breach"), "{name}: {}", check.detail);
        }
    }
}

#[test]
fn every_promise_has_a_planted_corruption() {
    assert!(CORRUPTIONS.len() >= 15, "{}", CORRUPTIONS.len());
    for (id, _) in PROMISES {
        assert!(
            CORRUPTIONS
                .iter()
                .any(|corruption| corruption.flagged == id),
            "nothing is planted for {id}"
        );
    }
}

/// What is done to the logs of three keepers.
type Harm = fn(&mut [LogContents; 3]);

#[test]
fn the_logs_of_all_keepers_are_judged_and_every_harm_to_them_is_flagged() {
    let harms: [(&str, &str, Harm); 5] = [
        ("S7", "an answer lies on one disk of three", |logs| {
            for log in &mut logs[..2] {
                log.records.remove(0);
            }
        }),
        ("S7", "another entry lies in its place", |logs| {
            for log in &mut logs[1..] {
                log.records[0].entry = Entry::Drained(7);
            }
        }),
        (
            "S2",
            "a keeper's log answers a payment in another way",
            |logs| {
                if let Outcome::Answered(answer) = &mut logs[1].records[0].outcome {
                    answer.approved_before += 1;
                }
            },
        ),
        ("S9", "a keeper's log has a gap", |logs| {
            logs[2].records.retain(|record| record.at.index != 20);
        }),
        ("S9", "only one keeper has all that was committed", |logs| {
            for log in &mut logs[1..] {
                let last = log.last_index;
                log.records.retain(|record| record.at.index < last);
                log.last_index -= 1;
            }
        }),
    ];
    for seed in seeds() {
        let world = World::good(seed, 200);
        let log = &world.logs[0];
        let judge = |logs: &[LogContents; 3]| {
            let copies = logs.iter().map(|log| Copy {
                keeper: "edge-1".to_owned(),
                log,
            });
            judge_group(&world.evidence(), &copies.collect::<Vec<_>>())
        };
        let good = [log.clone(), log.clone(), log.clone()];
        let checks = judge(&good);
        let ids: Vec<&str> = checks.iter().map(|check| check.id.as_str()).collect();
        assert_eq!(ids.iter().filter(|id| **id == MAJORITY.0).count(), 1);
        assert_eq!(ids.len(), PROMISES.len() + 1);
        for check in checks {
            assert!(check.ok, "STANDIN_TEST_SEED={seed}: {check:?}");
        }
        // One that is behind, or was cut by its crash, is no breach while two are whole.
        let mut behind = good.clone();
        behind[0].records.truncate(10);
        behind[0].last_index = behind[0].records[9].at.index;
        assert!(judge(&behind).iter().all(|check| check.ok));
        for (flagged, name, harm) in harms {
            let mut logs = good.clone();
            harm(&mut logs);
            let checks = judge(&logs);
            let check = checks.iter().find(|check| check.id == flagged).unwrap();
            assert!(!check.ok, "STANDIN_TEST_SEED={seed}: {name}: {checks:#?}");
        }
    }
}

/// A reply from an edge that could not hear the first one: other bytes, which S11 takes only with the
/// advice in the log. Says whether any bank was told of the payment.
fn says_it_in_other_words(world: &World, id: TransactionId, advice: &LogRecord) -> bool {
    let told = world.history.iter().find_map(|attempt| {
        let history::Outcome::Answered { status, body, .. } = &attempt.outcome else {
            return None;
        };
        let said = history::Said::read(*status, body).ok()?;
        (said.transaction_id == id).then(|| (attempt.clone(), said.rung))
    });
    let Some((mut elsewhere, said_on)) = told else {
        return false;
    };
    if let history::Outcome::Answered { body, .. } = &mut elsewhere.outcome {
        let word = |rung: Rung| format!("\"rung\":\"{rung}\"");
        *body = body.replace(&word(said_on), &word(Rung::Isolated));
    }
    let s11 = |world: &World| {
        let checks = judge(world);
        checks.iter().find(|check| check.id == "S11").unwrap().ok
    };
    let mut with = world.clone();
    with.history.push(elsewhere);
    assert!(!s11(&with), "other bytes for no reason");
    with.logs[0].records.push(advice.clone());
    with.logs[0].last_index = with.logs[0].last_index.saturating_add(1);
    assert!(s11(&with), "an advice has words of its own");
    true
}

#[test]
fn an_advice_may_say_how_it_was_reached_in_other_words_but_no_other_verdict() {
    let mut in_other_words = 0_u64;
    for seed in seeds() {
        let mut world = World::good(seed, 200);
        let log = &world.logs[0];
        let first = log.records[0].clone();
        let (Entry::Authorize(proposal), Some(answer)) = (&first.entry, first.first_answer())
        else {
            unreachable!("the first entry is answered");
        };
        let mut told = answer.clone();
        told.rung = Rung::Isolated;
        let advice = Advice {
            proposal: proposal.as_ref().clone(),
            answer: told.clone(),
            given_at: proposal.request.received_at,
        };
        let advised = |answer: Answer| LogRecord {
            at: LogPosition {
                index: log.last_index.saturating_add(1),
                slot: 0,
            },
            log_time_ms: log.records.last().unwrap().log_time_ms,
            entry: Entry::Advice(Box::new(advice.clone())),
            outcome: Outcome::Known(Recalled {
                answer: Box::new(answer),
                faulted: false,
                edge: 1,
                heard: false,
            }),
        };
        let mut flipped = told.clone();
        flipped.verdict = match told.verdict {
            Verdict::Approved => Verdict::Declined,
            Verdict::Declined => Verdict::Approved,
        };
        let first_id = told.transaction_id;
        let (same, other) = (advised(told), advised(flipped));
        in_other_words += u64::from(says_it_in_other_words(&world, first_id, &same));
        world.logs[0].last_index = log.last_index.saturating_add(1);
        for (record, kept) in [(same, true), (other, false)] {
            let mut world = world.clone();
            world.logs[0].records.push(record);
            let checks = judge(&world);
            let s2 = checks.iter().find(|check| check.id == "S2").unwrap();
            assert_eq!(s2.ok, kept, "STANDIN_TEST_SEED={seed}: {s2:?}");
        }
    }
    assert!(in_other_words > 0, "no payment was told to a bank");
}

#[test]
fn an_advised_row_has_the_logs_words_or_the_advices() {
    for seed in seeds() {
        let mut world = World::good(seed, 100);
        let log = &world.logs[0];
        let first = log.records[0].clone();
        let (Entry::Authorize(proposal), Some(answer)) = (&first.entry, first.first_answer())
        else {
            unreachable!("the first entry is answered");
        };
        let worded = |rung| Answer {
            rung,
            ..answer.clone()
        };
        let told = worded(Rung::Isolated);
        let record = LogRecord {
            at: LogPosition {
                index: log.last_index.saturating_add(1),
                slot: 0,
            },
            log_time_ms: log.records.last().unwrap().log_time_ms,
            entry: Entry::Advice(Box::new(Advice {
                proposal: proposal.as_ref().clone(),
                answer: told.clone(),
                given_at: proposal.request.received_at,
            })),
            outcome: Outcome::Known(Recalled {
                answer: Box::new(told.clone()),
                faulted: false,
                edge: 1,
                heard: false,
            }),
        };
        world.logs[0].last_index = record.at.index;
        world.logs[0].records.push(record);
        for (words, fine) in [
            (answer.clone(), true),
            (told, true),
            (worded(Rung::PrimaryOnly), false),
        ] {
            let mut world = world.clone();
            let id = words.transaction_id;
            let mut rows = world.rows.iter_mut();
            rows.find(|row| row.answer.transaction_id == id)
                .unwrap()
                .answer = words;
            let checks = judge(&world);
            let s3 = checks.iter().find(|check| check.id == "S3").unwrap();
            assert_eq!(s3.ok, fine, "STANDIN_TEST_SEED={seed}: {s3:?}");
        }
    }
}

/// S2 is a promise of each region; between regions it holds for verdict, amount and code.
#[test]
fn two_regions_may_say_one_answer_in_words_of_their_own() {
    for seed in seeds() {
        let mut world = World::good(seed, 100);
        let mut other = world.logs[0].clone();
        other.incarnation = uuid::Uuid::from_u128(100);
        let mut changed = 0_u64;
        for record in &mut other.records {
            if let Outcome::Answered(answer) = &mut record.outcome {
                answer.approved_before += 1;
                changed += 1;
            }
        }
        assert!(changed > 0);
        world.logs.push(other);
        let checks = judge(&world);
        let s2 = checks.iter().find(|check| check.id == "S2").unwrap();
        assert!(s2.ok, "STANDIN_TEST_SEED={seed}: {s2:?}");
    }
}

#[test]
fn a_check_names_at_most_five_offenders_and_counts_them_all() {
    let mut world = World::good(7, 300);
    world.rows.clear();
    let checks = judge(&world);
    let s1 = checks.iter().find(|check| check.id == "S1").unwrap();
    let named = s1.detail.matches("has no row").count();
    assert_eq!(named, 5, "{}", s1.detail);
    assert!(s1.detail.contains("more"), "{}", s1.detail);
}

#[test]
fn a_recorded_history_is_judged_the_same_when_read_back() {
    let world = World::good(11, 200);
    let mut bytes = Vec::new();
    history::write(&mut bytes, &world.history).unwrap();
    let mut again = world.clone();
    again.history = history::read(bytes.as_slice()).unwrap();
    assert_eq!(judge(&again), judge(&world));
}

/// The bound is far above what a release build needs; it is here to catch a quadratic check.
#[test]
fn judging_takes_time_in_proportion_to_the_history() {
    let timed = |payments| {
        let world = World::good(3, payments);
        let requests = world.history.len();
        let began = tokio::time::Instant::now();
        assert!(judge(&world).iter().all(|check| check.ok));
        (requests, began.elapsed())
    };
    let (requests, took) = timed(10_000);
    eprintln!("{requests} requests judged in {took:?}");
    assert!(took.as_secs() < 30, "{requests} requests took {took:?}");
}
