#![allow(clippy::arithmetic_side_effects, reason = "test code")]
//! Time stands still here until every request waits for something, and then goes to what comes next.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use super::*;

const CONFIG: AdmissionConfig = AdmissionConfig {
    in_flight: 2,
    retries_in_flight: 1,
    queued: 3,
    bank_percent: 50,
    wait_max: Duration::from_millis(150),
    target: Duration::from_millis(50),
    interval: Duration::from_millis(100),
};

/// Of an edge with one bank.
fn admission() -> Admission {
    for_banks(CONFIG, &[bank()])
}

fn for_banks(config: AdmissionConfig, banks: &[BankId]) -> Admission {
    Admission::new(config, banks.iter(), Arc::new(Metrics::new().unwrap()))
}

fn bank() -> BankId {
    "first".parse().unwrap()
}

fn other_bank() -> BankId {
    "second".parse().unwrap()
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A request that is whole now and has a second.
fn now() -> Arrival {
    let complete = Instant::now();
    Arrival {
        complete,
        deadline: complete + ms(1_000),
    }
}

async fn new_work(admission: &Admission) -> Result<Place, Shed> {
    admission.admit(&bank(), now(), || false).await
}

async fn retry(admission: &Admission) -> Result<Place, Shed> {
    admission.admit(&bank(), now(), || true).await
}

/// A first poll: whoever has to wait is in the queue after it.
fn begun<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn sheds(admission: &Admission, cause: &str) -> u64 {
    let page = admission.metrics.render().unwrap();
    let line = format!("standin_shed_total{{cause=\"{cause}\"}} ");
    let value = page.lines().find_map(|have| have.strip_prefix(&line));
    value.map_or(0, |value| value.parse().unwrap())
}

/// Nothing is taken on for long enough that new work is shed.
async fn overload(admission: &Admission) -> [Place; 2] {
    let held = [
        new_work(admission).await.unwrap(),
        new_work(admission).await.unwrap(),
    ];
    let first = new_work(admission).await;
    assert_eq!(first.unwrap_err(), Shed::Waited, "for all of 150 ms");
    // The queue has not moved in the meantime: one more hears so, within the interval.
    let mut second = pin!(new_work(admission));
    assert!(begun(second.as_mut()).is_pending());
    tokio::time::advance(ms(60)).await;
    let mut third = pin!(new_work(admission));
    assert!(
        begun(third.as_mut()).is_pending(),
        "not for an interval yet"
    );
    assert_eq!(second.await.unwrap_err(), Shed::Waited);
    assert_eq!(new_work(admission).await.unwrap_err(), Shed::Overloaded);
    held
}

#[tokio::test(start_paused = true)]
async fn a_burst_waits_for_its_turn_and_is_not_refused() {
    let admission = admission();
    let first = new_work(&admission).await.unwrap();
    let second = new_work(&admission).await.unwrap();
    let mut waiting = [
        Box::pin(new_work(&admission)),
        Box::pin(new_work(&admission)),
        Box::pin(new_work(&admission)),
    ];
    for one in &mut waiting {
        assert!(begun(one.as_mut()).is_pending());
    }
    assert_eq!(new_work(&admission).await.unwrap_err(), Shed::QueueFull);
    drop((first, second));
    let [third, fourth, fifth] = waiting;
    let (third, fourth) = (third.await.unwrap(), fourth.await.unwrap());
    // A place that is given back goes to who waits, not to who comes.
    let mut sixth = pin!(new_work(&admission));
    drop(third);
    assert!(begun(sixth.as_mut()).is_pending());
    let fifth = fifth.await.unwrap();
    drop((fourth, fifth));
    assert!(sixth.await.is_ok());
    assert_eq!(sheds(&admission, "queue_full"), 1);
    assert_eq!(sheds(&admission, "waited"), 0);
}

#[tokio::test(start_paused = true)]
async fn new_work_is_shed_while_requests_wait_too_long_and_no_longer() {
    let admission = admission();
    let [first, second] = overload(&admission).await;
    assert_eq!(new_work(&admission).await.unwrap_err(), Shed::Overloaded);
    assert_eq!(sheds(&admission, "overloaded"), 2);
    assert_eq!(sheds(&admission, "waited"), 2);
    // A place is free and nobody waits for it: that is what recovery looks like.
    drop(first);
    let again = new_work(&admission).await.unwrap();
    let mut waiting = pin!(new_work(&admission));
    assert!(begun(waiting.as_mut()).is_pending(), "a queue again");
    drop((second, again));
    assert!(waiting.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_payment_that_has_its_answer_is_taken_on_while_new_work_is_shed() {
    let admission = admission();
    let _held = overload(&admission).await;
    let own = retry(&admission).await.unwrap();
    assert_eq!(
        retry(&admission).await.unwrap_err(),
        Shed::Overloaded,
        "its share is bounded"
    );
    drop(own);
    assert!(retry(&admission).await.is_ok());
    assert_eq!(new_work(&admission).await.unwrap_err(), Shed::Overloaded);
}

#[tokio::test(start_paused = true)]
async fn who_waited_elsewhere_counts_too() {
    let admission = admission();
    // Every place is free, but requests come here late: the processor is not ours.
    let late = async || {
        let complete = Instant::now() - ms(80);
        let deadline = complete + ms(1_000);
        let arrival = Arrival { complete, deadline };
        admission.admit(&bank(), arrival, || false).await
    };
    assert!(late().await.is_ok());
    tokio::time::advance(ms(60)).await;
    assert!(late().await.is_ok());
    tokio::time::advance(ms(60)).await;
    assert_eq!(late().await.unwrap_err(), Shed::Overloaded);
    assert!(new_work(&admission).await.is_ok());
    assert!(late().await.is_ok(), "one that is late is no overload");
}

#[tokio::test(start_paused = true)]
async fn late_requests_that_are_far_apart_are_no_overload() {
    let admission = admission();
    for _ in 0..10 {
        let complete = Instant::now() - ms(80);
        let deadline = complete + ms(1_000);
        let arrival = Arrival { complete, deadline };
        assert!(admission.admit(&bank(), arrival, || false).await.is_ok());
        tokio::time::advance(ms(101)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_time_is_over_is_not_begun() {
    let admission = admission();
    let complete = Instant::now();
    let soon = Arrival {
        complete,
        deadline: complete + ms(40),
    };
    let _held = [
        new_work(&admission).await.unwrap(),
        new_work(&admission).await.unwrap(),
    ];
    assert_eq!(
        admission.admit(&bank(), soon, || false).await.unwrap_err(),
        Shed::Deadline
    );
    assert_eq!(
        Instant::now(),
        soon.deadline,
        "it waits no longer than that"
    );
    // Nor when a place is there at once.
    let retried = admission.admit(&bank(), soon, || true).await;
    assert_eq!(retried.unwrap_err(), Shed::Deadline);
    assert_eq!(sheds(&admission, "deadline"), 2);
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_leaves_the_queue_and_gives_its_place_back() {
    let admission = admission();
    let held = [
        new_work(&admission).await.unwrap(),
        new_work(&admission).await.unwrap(),
    ];
    for _ in 0..10 {
        let mut gone = Box::pin(new_work(&admission));
        assert!(begun(gone.as_mut()).is_pending());
    }
    drop(held);
    assert!(new_work(&admission).await.is_ok());
    let page = admission.metrics.render().unwrap();
    assert!(page.contains("\nstandin_in_flight 0\n"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn one_bank_leaves_places_and_turns_to_the_others() {
    let config = AdmissionConfig {
        in_flight: 4,
        queued: 4,
        ..CONFIG
    };
    let admission = for_banks(config, &[bank(), other_bank()]);
    let ask = async |bank: BankId| admission.admit(&bank, now(), || false).await;
    let first = ask(bank()).await.unwrap();
    let second = ask(bank()).await.unwrap();
    // Two places are free, and not for this bank.
    let mut waiting = [Box::pin(ask(bank())), Box::pin(ask(bank()))];
    for one in &mut waiting {
        assert!(begun(one.as_mut()).is_pending());
    }
    assert_eq!(ask(bank()).await.unwrap_err(), Shed::ShareFull);
    let others = [ask(other_bank()).await, ask(other_bank()).await];
    assert!(others.iter().all(Result::is_ok));
    // A place of its own that comes back is for who waited first.
    tokio::time::advance(ms(60)).await;
    drop((first, others));
    let [third, fourth] = waiting;
    let third = third.await.unwrap();
    assert_eq!(fourth.await.unwrap_err(), Shed::Waited);
    // Its own work is shed, for its own waiting; nobody else's.
    tokio::time::advance(ms(60)).await;
    assert_eq!(ask(bank()).await.unwrap_err(), Shed::Overloaded);
    for _ in 0..10 {
        assert!(ask(other_bank()).await.is_ok());
        tokio::time::advance(ms(10)).await;
    }
    drop((second, third));
    assert!(ask(bank()).await.is_ok());
    assert_eq!(sheds(&admission, "share_full"), 1);
    assert_eq!(sheds(&admission, "overloaded"), 1);
}

#[tokio::test(start_paused = true)]
async fn banks_that_are_all_at_their_shares_shed_their_own_new_work() {
    let admission = for_banks(CONFIG, &[bank(), other_bank()]);
    for who in [bank(), other_bank()] {
        let ask = async || admission.admit(&who, now(), || false).await;
        let held = ask().await.unwrap();
        let mut sheds = Vec::new();
        for _ in 0..4 {
            sheds.push(ask().await.unwrap_err());
        }
        let overloaded = sheds.iter().filter(|shed| **shed == Shed::Overloaded);
        assert!(overloaded.count() > 0, "{sheds:?}");
        drop(held);
        assert!(ask().await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn the_only_bank_has_every_place() {
    let admission = admission();
    let _first = new_work(&admission).await.unwrap();
    assert!(new_work(&admission).await.is_ok());
}
