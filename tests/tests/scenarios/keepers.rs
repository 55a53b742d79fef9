//! Keepers of one log die, hang and come back, on one machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use standin_core::answer::Rung;
use standin_reconcile::history::{Outcome, Said};
use standin_tests::harness::bank::Load;
use standin_tests::harness::{Banks, Group, GroupOptions, Payment, Stage, verdict, wait};

use super::{PROGRAMS, Random, SOON, seed};

const SHOPPERS: u64 = 20;
const WORKERS: usize = 6;

pub(super) async fn settle(banks: &Banks, load: Load) {
    for payment in load.stop().await {
        banks.pay_until_answered(&payment, 0, SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_keepers_killed_again_and_again_lose_no_answer() {
    const KILLS: u64 = 12;
    let mut random = Random(seed());
    let stage = Stage::set().await;
    let shoppers = stage.trips(1, SHOPPERS, 10_000_000).await;
    let mut group = Group::start(PROGRAMS, &stage, GroupOptions::on(&stage)).await;
    let banks = group.banks(WORKERS);
    let load = banks.load("e1g", WORKERS, &shoppers);
    load.progress(50, SOON).await;
    let (mut leaders, mut broke) = (0_u64, 0_u64);
    for kill in 0..KILLS {
        load.progress(random.below(30), SOON).await;
        let leader = group.led(SOON).await;
        // Every second one is whoever leads now.
        let victim = if kill % 2 == 0 {
            leader
        } else {
            1 + random.below(3)
        };
        let before = stage.history.attempts().len();
        group.edge(victim).kill().await;
        leaders += u64::from(victim == leader);
        // The others go on without it.
        group.led_by(SOON, |id| id != victim).await;
        load.progress(20, SOON).await;
        let attempts = stage.history.attempts();
        let lost = |outcome: &Outcome| matches!(outcome, Outcome::NoReply);
        broke += u64::from(attempts[before..].iter().any(|a| lost(&a.outcome)));
        group.edge(victim).restart().await;
    }
    settle(&banks, load).await;
    println!("injected: {KILLS} kills, {leaders} of the leader, {broke} with requests in flight");
    assert!(
        leaders >= KILLS / 2 && broke >= KILLS / 3,
        "{leaders} {broke}"
    );
    let end = verdict::end_of_group(&stage, &mut group).await;
    end.all_approved();
}

/// Stops `victim` for `pause` under load and lets it go on.
async fn hang(group: &mut Group, load: &Load, victim: u64, pause: Duration) {
    let process = group.edge(victim).process();
    process.pause().unwrap();
    let id = process.id();
    wait::until_true("every thread stopped", SOON, || {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        stat.contains(") T ")
    })
    .await;
    let began = tokio::time::Instant::now();
    if pause > Duration::from_secs(1) {
        group.led_by(SOON, |id| id != victim).await;
        load.progress(30, SOON).await;
    }
    // The length of the pause is the fault, not a wait for something.
    tokio::time::sleep_until(began + pause).await;
    group.edge(victim).process().resume().unwrap();
    println!(
        "injected: edge {victim} stood still for {:?}",
        began.elapsed()
    );
}

async fn hanging(name: &str, pauses: &[(bool, Duration)]) {
    let stage = Stage::set().await;
    let shoppers = stage.trips(1, SHOPPERS, 10_000_000).await;
    let mut group = Group::start(PROGRAMS, &stage, GroupOptions::on(&stage)).await;
    let banks = group.banks(WORKERS);
    let load = banks.load(name, WORKERS, &shoppers);
    load.progress(30, SOON).await;
    for (of_leader, pause) in pauses {
        let leader = group.led(SOON).await;
        let victim = if *of_leader { leader } else { leader % 3 + 1 };
        hang(&mut group, &load, victim, *pause).await;
        group.edge(victim).ready().await;
        load.progress(30, SOON).await;
    }
    settle(&banks, load).await;
    // And once with nothing to say: the log ends with what a new leader begins with.
    let leader = group.led(SOON).await;
    group.edge(leader).process().pause().unwrap();
    group.led_by(SOON, |id| id != leader).await;
    group.edge(leader).process().resume().unwrap();
    let end = verdict::end_of_group(&stage, &mut group).await;
    end.all_approved();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2_a_keeper_that_hangs_for_a_second_costs_nothing() {
    let second = Duration::from_secs(1);
    hanging(
        "e2s",
        &[
            (true, second),
            (false, second),
            (true, second),
            (false, second),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2_a_keeper_that_hangs_for_half_a_minute_costs_nothing() {
    let long = Duration::from_secs(30);
    hanging("e2l", &[(true, long), (false, long)]).await;
}

/// By hand: `cargo nextest run -p standin-tests --run-ignored all e2_a_leader_that_hangs_for_ten`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes ten minutes"]
async fn e2_a_leader_that_hangs_for_ten_minutes_costs_nothing() {
    hanging("e2x", &[(true, Duration::from_secs(600))]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b2_the_same_request_at_every_edge_at_once_is_one_payment() {
    const ROUNDS: u64 = 10;
    const AT_EACH: usize = 16;
    let stage = Stage::set().await;
    stage.trips(1, SHOPPERS, 10_000_000).await;
    let mut group = Group::start(PROGRAMS, &stage, GroupOptions::on(&stage)).await;
    let banks = group.banks(AT_EACH);
    for round in 0..ROUNDS {
        let payment = Payment::new(format!("b2g-{round}"), 1 + round, 500 + round as i64);
        let all = banks
            .0
            .iter()
            .flat_map(|bank| (0..AT_EACH).map(move |_| bank));
        let asked = all.map(|bank| bank.pay(&payment));
        let told = futures_util::future::join_all(asked).await;
        let answers: Vec<_> = told.iter().filter(|told| told.is_answer()).collect();
        assert!(!answers.is_empty(), "nobody answered");
        let first = &answers[0].reply().body;
        assert!(
            answers.iter().all(|told| told.reply().body == first),
            "two bodies"
        );
        let new = answers.iter().filter(|told| !told.is_replayed()).count();
        assert!(new >= 1, "an answer was a replay of nothing");
        let others = told.iter().filter(|told| !told.is_answer());
        for other in others {
            let status = other.status();
            assert!(
                matches!(status, Some(409 | 503)),
                "{status:?} is not retryable"
            );
        }
        println!(
            "injected: one request {} times at {} edges: {} answers, {new} of them first",
            told.len(),
            banks.0.len(),
            answers.len()
        );
        for bank in &banks.0 {
            let again = bank.pay_until_answered(&payment, SOON).await;
            assert_eq!(again.reply().body, *first, "an edge says something else");
        }
    }
    let end = verdict::end_of_group(&stage, &mut group).await;
    assert_eq!(end.rows.len() as u64, ROUNDS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b4_a_retry_elsewhere_while_the_first_edge_hangs_is_the_same_payment() {
    const ROUNDS: u64 = 6;
    // A quick edge has told everything before it is paused: then there are more rounds.
    const ROUNDS_MAX: u64 = 40;
    let mut random = Random(seed());
    let stage = Stage::set().await;
    let shoppers = stage.trips(1, SHOPPERS, 10_000_000).await;
    let mut group = Group::start(PROGRAMS, &stage, GroupOptions::on(&stage)).await;
    let banks = group.banks(WORKERS + 2);
    let (mut hung, mut rounds) = (0, 0);
    for round in 0..ROUNDS_MAX {
        if round >= ROUNDS && hung > 0 {
            break;
        }
        rounds += 1;
        let first = 1 + random.below(3);
        let (one, other) = (first as usize - 1, first as usize % 3);
        let payments: Vec<Payment> = (0..WORKERS as u64)
            .map(|n| {
                Payment::new(
                    format!("b4-{round}-{n}"),
                    shoppers[n as usize],
                    200 + n as i64,
                )
            })
            .collect();
        let heard = Arc::new(AtomicUsize::new(0));
        let asked = {
            let (bank, payments) = (banks.0[one].clone(), payments.clone());
            let heard = Arc::clone(&heard);
            tokio::spawn(async move {
                let asked = payments.iter().map(async |payment| {
                    let told = bank.pay(payment).await;
                    heard.fetch_add(1, Ordering::SeqCst);
                    told
                });
                futures_util::future::join_all(asked).await
            })
        };
        // The moment is what is random: before, amid and after what the edge does for them.
        let within = if round < ROUNDS { 15_000 } else { 3_000 };
        tokio::time::sleep(Duration::from_micros(random.below(within))).await;
        group.edge(first).process().pause().unwrap();
        group.led_by(SOON, |id| id != first).await;
        let mut elsewhere = Vec::new();
        for payment in &payments {
            elsewhere.push(banks.0[other].pay_until_answered(payment, SOON).await);
        }
        // What is not told by now, the first edge held while another was asked.
        hung += WORKERS - heard.load(Ordering::SeqCst);
        group.edge(first).process().resume().unwrap();
        let at_first = asked.await.unwrap();
        for ((payment, there), here) in payments.iter().zip(&elsewhere).zip(&at_first) {
            let said = there.said();
            if here.is_answer() {
                assert_eq!(
                    (said.verdict, said.code),
                    (here.said().verdict, here.said().code)
                );
            }
            let again = banks.0[one].pay_until_answered(payment, SOON).await;
            assert_eq!(again.reply().body, there.reply().body, "{}", payment.key);
        }
    }
    println!("injected: {rounds} pauses; {hung} requests were answered elsewhere meanwhile");
    assert!(hung > 0, "no request was caught by a pause");
    let end = verdict::end_of_group(&stage, &mut group).await;
    end.all_approved();
}

/// Answers on a rung among these attempts.
pub(super) fn on_rung(attempts: &[standin_reconcile::history::Attempt], rung: Rung) -> usize {
    let said = attempts
        .iter()
        .filter_map(|attempt| match &attempt.outcome {
            Outcome::Answered { status, body, .. } => Said::read(*status, body).ok(),
            _ => None,
        });
    said.filter(|said| said.rung == rung).count()
}
