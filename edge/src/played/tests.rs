//! Time is paused: it goes on only where something waits for it.

#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use standin_core::clock::SystemClock;
use standin_core::id::ShopperId;
use standin_core::ledger::LedgerError;
use standin_core::ledger::memory::MemoryLedger;
use standin_core::trip_cache::memory::MemoryTripCache;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

struct World {
    plays: Arc<Plays>,
    alarms: Arc<Alarms>,
    ledger: Arc<dyn Ledger>,
    cache: Arc<dyn TripCache>,
    probed: Arc<dyn TripCache>,
}

impl World {
    fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let metrics = Arc::new(Metrics::new().unwrap());
        let alarms = Arc::new(Alarms::new(metrics, Arc::clone(&clock)));
        let plays = Arc::new(Plays::new(Arc::clone(&clock), Arc::clone(&alarms)));
        let memory: Arc<dyn TripCache> = Arc::new(MemoryTripCache::new());
        Self {
            ledger: plays.ledger(Arc::new(MemoryLedger::new(clock, None))),
            cache: plays.cache(Arc::clone(&memory)),
            probed: plays.probed_cache(memory),
            plays,
            alarms,
        }
    }

    fn play(&self, fault: Fault, lasts: Duration) -> Result<Shown, PlayError> {
        let order = Order {
            operator: "ada".to_owned(),
            reason: "a drill".to_owned(),
        };
        self.plays.begin(PlayOrder {
            fault,
            lasts,
            order,
        })
    }

    fn hits(&self) -> Hits {
        self.plays.page().playing.unwrap().calls
    }

    async fn look(&self) -> Result<(), standin_core::trip_cache::CacheError> {
        self.cache.look(shopper()).await.map(drop)
    }
}

fn shopper() -> ShopperId {
    1_u64.try_into().unwrap()
}

async fn took<T>(call: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    let done = call.await;
    (done, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_fault_is_over_when_its_time_is_although_no_task_looks_after_it() {
    let world = World::new();
    assert!(world.ledger.probe().await.is_ok());
    world.play(Fault::PrimaryUnreachable, MINUTE).unwrap();
    let (failed, after) = took(world.ledger.probe()).await;
    assert_eq!(after, Duration::ZERO, "it fails at once");
    let LedgerError { fate, why, .. } = failed.unwrap_err();
    assert_eq!(fate, standin_core::ledger::Fate::NotDone);
    assert_eq!(why, standin_core::answer::Why::Connection);
    assert!(world.look().await.is_ok(), "the trip cache is another port");
    tokio::time::advance(MINUTE - Duration::from_millis(1)).await;
    assert!(world.ledger.probe().await.is_err());
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(world.ledger.probe().await.is_ok());
    let page = world.plays.page();
    assert_eq!(page.playing, None);
    let last = page.last.unwrap();
    assert_eq!((last.over, last.calls.probes), (Some(Over::Time), 2));
    assert_eq!(last.ends_in_ms, 0);
    assert!(!world.alarms.is_raised(Alarm::FaultPlayed));
}

#[tokio::test(start_paused = true)]
async fn every_call_is_counted_by_whose_it_is() {
    let world = World::new();
    world.play(Fault::PrimaryUnreachable, MINUTE).unwrap();
    assert!(world.ledger.hold(Vec::new()).await.is_err());
    assert!(world.ledger.open_trip(shopper()).await.is_err());
    assert!(world.ledger.cursor(uuid::Uuid::nil()).await.is_err());
    assert!(world.ledger.directory_version().await.is_err());
    assert!(world.ledger.probe().await.is_err());
    let expected = Hits {
        payments: 2,
        probes: 1,
        drain: 1,
        others: 1,
    };
    assert_eq!(world.hits(), expected);
    let counts = world.plays.counts();
    assert_eq!(counts[0].fault, "primary_unreachable");
    assert!(counts[0].is_played);
    let all = [("payments", 2), ("probes", 1), ("drain", 1), ("others", 1)];
    assert_eq!(counts[0].calls, all);
    assert!(counts[1..].iter().all(|count| !count.is_played));
    assert!(world.plays.ends_at_secs() > 0);
    world.plays.end(None).unwrap();
    assert_eq!(world.plays.ends_at_secs(), 0);
    assert_eq!(world.plays.counts()[0].calls, all, "they only grow");
}

#[tokio::test(start_paused = true)]
async fn what_hangs_goes_on_when_the_fault_ends_and_never_waits_for_longer_than_its_bound() {
    let world = World::new();
    let begun = world.play(Fault::PrimaryHanging, MINUTE).unwrap();
    let ending = async {
        tokio::time::sleep(Duration::from_secs(7)).await;
        world.plays.end(Some(begun.number)).unwrap();
    };
    let ((done, after), ()) = tokio::join!(took(world.ledger.probe()), ending);
    assert!(done.is_ok());
    assert_eq!(after, Duration::from_secs(7));
    world.play(Fault::PrimaryHanging, 10 * MINUTE).unwrap();
    let (failed, after) = took(world.ledger.probe()).await;
    assert_eq!(after, HANG_MAX);
    let why = failed.unwrap_err().why;
    assert_eq!(why, standin_core::answer::Why::Timeout);
}

#[tokio::test(start_paused = true)]
async fn what_is_slow_is_late_and_no_later_than_the_end_of_the_fault() {
    let world = World::new();
    let slow = |delay_ms, percent| Fault::PrimarySlow { delay_ms, percent };
    world.play(slow(300, 100), Duration::from_secs(1)).unwrap();
    for expected in [300, 300, 300, 100, 0] {
        let (done, after) = took(world.ledger.probe()).await;
        assert!(done.is_ok());
        assert_eq!(after, Duration::from_millis(expected));
    }
    world.play(slow(300, 10), 10 * MINUTE).unwrap();
    let mut late = 0;
    for _ in 0..1_000 {
        let (_, after) = took(world.ledger.probe()).await;
        late += u32::from(after > Duration::ZERO);
    }
    assert_eq!((late, world.hits().probes), (100, 100));
    world.plays.end(None).unwrap();
    world
        .play(Fault::TripCacheSlow { delay_ms: 40 }, MINUTE)
        .unwrap();
    let (_, after) = took(world.look()).await;
    assert_eq!(after, Duration::from_millis(40));
    let (_, after) = took(world.ledger.probe()).await;
    assert_eq!(after, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_the_primarys_and_so_many_of_a_hundred_are_refused() {
    let world = World::new();
    world
        .play(Fault::PrimaryFailing { percent: 25 }, MINUTE)
        .unwrap();
    let mut refused = 0;
    for _ in 0..400 {
        if let Err(error) = world.ledger.probe().await {
            assert_eq!(error.why, standin_core::answer::Why::ApplicationError);
            refused += 1;
        }
    }
    assert_eq!((refused, world.hits().probes), (100, 100));
}

#[tokio::test(start_paused = true)]
async fn payments_looks_at_the_trip_cache_are_told_from_those_at_its_age() {
    let world = World::new();
    world.play(Fault::TripCacheUnreachable, MINUTE).unwrap();
    assert!(world.look().await.is_err());
    assert!(world.probed.look(shopper()).await.is_err());
    assert!(world.probed.look(shopper()).await.is_err());
    assert!(world.ledger.probe().await.is_ok());
    let hits = world.hits();
    assert_eq!((hits.payments, hits.probes), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn one_fault_at_a_time_and_each_is_ended_by_its_number() {
    let world = World::new();
    assert_eq!(world.plays.end(None), Err(PlayError::Nothing));
    world.play(Fault::PrimaryHanging, MINUTE).unwrap();
    let second = world.play(Fault::PrimaryUnreachable, MINUTE);
    assert_eq!(second, Err(PlayError::Busy));
    // Its time over, another may begin; whoever ordered the first does not end it.
    tokio::time::advance(MINUTE).await;
    let next = world.play(Fault::PrimaryUnreachable, MINUTE).unwrap();
    assert_eq!(next.number, 2);
    assert_eq!(world.plays.end(Some(1)), Err(PlayError::Another));
    assert!(world.ledger.probe().await.is_err());
    assert!(world.alarms.is_raised(Alarm::FaultPlayed));
    let ended = world.plays.end(Some(2)).unwrap();
    assert_eq!(ended.over, Some(Over::Ordered));
    assert!(world.ledger.probe().await.is_ok());
    assert!(!world.alarms.is_raised(Alarm::FaultPlayed));
    let longer = world.play(Fault::PrimaryHanging, 2 * LASTS_MAX).unwrap();
    assert_eq!(u128::from(longer.ends_in_ms), LASTS_MAX.as_millis());
}

#[tokio::test(start_paused = true)]
async fn the_alarm_is_cleared_in_time_and_a_stopping_edge_plays_nothing() {
    let world = World::new();
    let stop = CancellationToken::new();
    let keeping = tokio::spawn(Arc::clone(&world.plays).keep(stop.clone()));
    for _ in 0..2 {
        world.play(Fault::PrimaryHanging, MINUTE).unwrap();
        tokio::time::sleep(MINUTE - Duration::from_millis(1)).await;
        assert!(world.alarms.is_raised(Alarm::FaultPlayed));
        // Timers have a grain of a millisecond.
        tokio::time::sleep(Duration::from_millis(3)).await;
        assert!(!world.alarms.is_raised(Alarm::FaultPlayed));
    }
    world.play(Fault::PrimaryHanging, MINUTE).unwrap();
    let stopping = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        stop.cancel();
    };
    let ((done, after), ()) = tokio::join!(took(world.ledger.probe()), stopping);
    assert!(done.is_ok() && after < Duration::from_secs(2), "{after:?}");
    keeping.await.unwrap();
    let last = world.plays.page().last.unwrap();
    assert_eq!(last.over, Some(Over::Stopping));
}

#[test]
fn words_and_orders_agree() {
    for fault in [
        Fault::PrimaryUnreachable,
        Fault::PrimaryHanging,
        Fault::PrimarySlow {
            delay_ms: 1,
            percent: 2,
        },
        Fault::PrimaryFailing { percent: 3 },
        Fault::TripCacheUnreachable,
        Fault::TripCacheSlow { delay_ms: 4 },
    ] {
        let order = serde_json::to_value(fault).unwrap();
        assert_eq!(order["fault"], fault.as_str());
        let read: Fault = serde_json::from_value(order).unwrap();
        assert_eq!(read, fault);
    }
}
