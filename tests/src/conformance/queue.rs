//! What every event queue does. Each behaviour wants a queue that is empty.
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "test code"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use standin_core::clock::Timestamp;
use standin_core::id::{OrderId, ShopperId, TripId};
use standin_core::queue::{Delivery, EventQueue, QueueError};
use standin_core::trip::{TripChange, TripEvent};
use uuid::Uuid;

/// The queue under test.
pub type Queue = Arc<dyn EventQueue>;

/// Events a shard of the queue under test must hold at least, and at most ten times as many.
pub const SHARD_EVENTS: usize = 1_000;

/// The `number`th event of a trip: a pick of the line of that number.
pub fn event(trip: TripId, number: u32) -> TripEvent {
    TripEvent {
        id: Uuid::new_v4(),
        trip,
        shopper: ShopperId::try_from(77_i64).unwrap(),
        at: Timestamp::from_millis(i64::from(number)),
        what: TripChange::Pick {
            order: OrderId(trip.0),
            line: number,
            actual: Some(i64::from(number) * 100),
        },
    }
}

/// Reads until `count` events of a shard have come, at most `max` at a time.
pub async fn read_through(queue: &Queue, shard: u32, count: usize, max: u32) -> Vec<Delivery> {
    let mut read: Vec<Delivery> = Vec::new();
    let mut empty = 0;
    while read.len() < count && empty < 20 {
        let after = read.last().map(|delivery| delivery.receipt.clone());
        let more = queue.read(shard, after, max).await.unwrap();
        assert!(more.len() <= usize::try_from(max).unwrap());
        empty = if more.is_empty() { empty + 1 } else { 0 };
        read.extend(more);
    }
    read
}

/// Acknowledges all there is.
pub async fn empty(queue: &Queue) {
    for shard in 0..queue.shards() {
        while let Some(last) = queue.read(shard, None, 1_000).await.unwrap().pop() {
            queue.ack(shard, last.receipt).await.unwrap();
        }
    }
    assert_eq!(queue.depth().await.unwrap(), 0);
}

/// Runs every behaviour, leaving the queue empty after each.
pub async fn all(queue: Queue) {
    events_of_a_trip_keep_their_order(queue.clone()).await;
    empty(&queue).await;
    what_is_not_acknowledged_comes_again(queue.clone()).await;
    empty(&queue).await;
    an_acknowledgement_forgets_up_to_its_receipt(queue.clone()).await;
    empty(&queue).await;
    a_full_queue_refuses_and_drops_nothing(queue.clone()).await;
    empty(&queue).await;
    racing_appends_lose_nothing(queue.clone()).await;
    empty(&queue).await;
    a_read_waits_for_an_event(queue).await;
}

/// Whatever the sizes of appends and reads, a trip's events come in their order, all of them.
pub async fn events_of_a_trip_keep_their_order(queue: Queue) {
    let trips: Vec<TripId> = (0..20).map(|_| TripId(Uuid::new_v4())).collect();
    let mut sent: BTreeMap<Uuid, Vec<TripEvent>> = BTreeMap::new();
    let mut number = 0;
    for batch in [1_usize, 7, 40, 1, 100, 3] {
        let mut events = Vec::new();
        for index in 0..batch {
            number += 1;
            let event = event(trips[index % trips.len()], number);
            sent.entry(event.trip.0).or_default().push(event.clone());
            events.push(event);
        }
        queue.append(events).await.unwrap();
    }
    assert_eq!(queue.depth().await.unwrap(), 152);
    for max in [1_000, 3] {
        let mut received: BTreeMap<Uuid, Vec<TripEvent>> = BTreeMap::new();
        for shard in 0..queue.shards() {
            for delivery in read_through_all(&queue, shard, max).await {
                let event = delivery.event;
                received.entry(event.trip.0).or_default().push(event);
            }
        }
        assert_eq!(received, sent);
    }
}

async fn read_through_all(queue: &Queue, shard: u32, max: u32) -> Vec<Delivery> {
    let mut read: Vec<Delivery> = Vec::new();
    loop {
        let after = read.last().map(|delivery| delivery.receipt.clone());
        let more = queue.read(shard, after, max).await.unwrap();
        if more.is_empty() {
            return read;
        }
        read.extend(more);
    }
}

async fn one_trip(queue: &Queue, count: u32) -> (u32, Vec<TripEvent>) {
    let trip = TripId(Uuid::new_v4());
    let events: Vec<TripEvent> = (1..=count).map(|number| event(trip, number)).collect();
    queue.append(events.clone()).await.unwrap();
    let shard = standin_core::queue::shard_of(trip, queue.shards());
    (shard, events)
}

fn events(deliveries: &[Delivery]) -> Vec<TripEvent> {
    deliveries
        .iter()
        .map(|delivery| delivery.event.clone())
        .collect()
}

/// A consumer that died is replaced by one that reads from the start.
pub async fn what_is_not_acknowledged_comes_again(queue: Queue) {
    let (shard, sent) = one_trip(&queue, 9).await;
    let first = read_through(&queue, shard, 9, 4).await;
    assert_eq!(events(&first), sent);
    let again = read_through(&queue, shard, 9, 100).await;
    assert_eq!(again, first);
    queue.ack(shard, again[3].receipt.clone()).await.unwrap();
    let rest = read_through(&queue, shard, 1, 100).await;
    // An event stored together with later ones may come again; none of the later ones is missing.
    assert!(events(&rest).ends_with(&sent[4..]));
}

/// The depth falls, and repeats or older receipts change nothing.
pub async fn an_acknowledgement_forgets_up_to_its_receipt(queue: Queue) {
    let (shard, sent) = one_trip(&queue, 3).await;
    let trip = sent[0].trip;
    let late = event(trip, 4);
    queue.append(vec![late.clone()]).await.unwrap();
    let read = read_through(&queue, shard, 4, 100).await;
    assert_eq!(queue.depth().await.unwrap(), 4);
    queue.ack(shard, read[2].receipt.clone()).await.unwrap();
    assert_eq!(queue.depth().await.unwrap(), 1);
    queue.ack(shard, read[0].receipt.clone()).await.unwrap();
    queue.ack(shard, read[2].receipt.clone()).await.unwrap();
    assert_eq!(queue.depth().await.unwrap(), 1);
    let rest = read_through(&queue, shard, 1, 100).await;
    assert_eq!(events(&rest), [late]);
    queue.ack(shard, rest[0].receipt.clone()).await.unwrap();
    assert_eq!(queue.depth().await.unwrap(), 0);
    assert_eq!(queue.read(shard, None, 10).await.unwrap(), []);
    assert!(queue.read(queue.shards(), None, 1).await.is_err());
    assert!(queue.ack(shard, "no receipt".to_owned()).await.is_err());
}

/// At the bound an append is refused whole; what was acknowledged stays; room comes with an ack.
pub async fn a_full_queue_refuses_and_drops_nothing(queue: Queue) {
    let trip = TripId(Uuid::new_v4());
    let shard = standin_core::queue::shard_of(trip, queue.shards());
    let mut accepted = 0_u32;
    let refused = loop {
        let batch = (1..=100).map(|number| event(trip, accepted + number));
        match queue.append(batch.collect()).await {
            Ok(()) => accepted += 100,
            Err(refused) => break refused,
        }
        assert!(
            usize::try_from(accepted).unwrap() <= 10 * SHARD_EVENTS,
            "no bound"
        );
    };
    assert!(matches!(refused, QueueError::Full), "{refused}");
    assert!(usize::try_from(accepted).unwrap() >= SHARD_EVENTS);
    assert_eq!(queue.depth().await.unwrap(), u64::from(accepted));
    let count = usize::try_from(accepted).unwrap();
    let read = read_through(&queue, shard, count, 1_000).await;
    let lines: Vec<i64> = read.iter().map(|one| one.event.at.as_millis()).collect();
    assert_eq!(lines, (1..=i64::from(accepted)).collect::<Vec<_>>());
    queue.ack(shard, read[99].receipt.clone()).await.unwrap();
    let batch = (1..=100).map(|number| event(trip, accepted + number));
    queue.append(batch.collect()).await.unwrap();
}

/// Appends from many tasks at once: each event is there once, each task's in its order.
pub async fn racing_appends_lose_nothing(queue: Queue) {
    let trip = TripId(Uuid::new_v4());
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..20_u32 {
        let queue = queue.clone();
        tasks.spawn(async move {
            for step in 0..10 {
                let event = event(trip, task * 100 + step);
                queue.append(vec![event]).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let shard = standin_core::queue::shard_of(trip, queue.shards());
    let read = read_through(&queue, shard, 200, 1_000).await;
    let mut by_task: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for delivery in &read {
        let number = delivery.event.at.as_millis();
        by_task.entry(number / 100).or_default().push(number % 100);
    }
    let in_order: Vec<i64> = (0..10).collect();
    assert_eq!(by_task.len(), 20);
    assert!(by_task.values().all(|steps| *steps == in_order));
}

/// A read that finds nothing is woken by an append.
pub async fn a_read_waits_for_an_event(queue: Queue) {
    let trip = TripId(Uuid::new_v4());
    let shard = standin_core::queue::shard_of(trip, queue.shards());
    let sent = event(trip, 1);
    let reading = read_through(&queue, shard, 1, 10);
    let appending = queue.append(vec![sent.clone()]);
    let (read, appended) = tokio::join!(reading, appending);
    appended.unwrap();
    assert_eq!(events(&read), [sent]);
}
