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

use standin_reconcile::checker::{self, Check, PROMISES};
use standin_reconcile::history;

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
