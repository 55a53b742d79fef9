//! The trip cache and the event queue: one suite on both adapters, and what only Redis can get wrong.
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::too_many_lines,
    reason = "test code"
)]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use standin_core::clock::Timestamp;
use standin_core::id::TripId;
use standin_core::queue::memory::MemoryQueue;
use standin_core::queue::{EventQueue, QueueError};
use standin_core::trip::TripSheet;
use standin_core::trip_cache::memory::MemoryTripCache;
use standin_core::trip_cache::redis::{
    RedisConfig, RedisEventQueue, RedisQueueConfig, RedisServer, RedisTripCache,
};
use standin_core::trip_cache::{CacheError, Look, Put, TripCache};
use standin_drill::servers::redis::Reply;
use standin_drill::servers::{Redis, RedisOptions};
use standin_tests::conformance::{queue, trip_cache};
use tokio::time::Instant;
use uuid::Uuid;

/// What a condition that holds in the end may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(15);

/// Polls until `what` gives something.
async fn eventually<T, F>(name: &str, mut what: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = what().await {
            return found;
        }
        assert!(Instant::now() < deadline, "never happened: {name}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn appendonly() -> RedisOptions {
    RedisOptions {
        appendonly: true,
        ..RedisOptions::default()
    }
}

/// A cache whose look has time enough on a busy machine.
fn patient(redis: &Redis, replicas: &[&Redis]) -> RedisConfig {
    let replicas = replicas.iter().map(|replica| replica.url()).collect();
    let mut config = RedisConfig::new(redis.url(), replicas);
    config.read_budget = Duration::from_secs(2);
    config.write_budget = Duration::from_secs(2);
    config
}

async fn connected(config: RedisConfig) -> Arc<RedisTripCache> {
    let cache = Arc::new(RedisTripCache::connect(config).unwrap());
    assert!(cache.connected(PATIENCE).await);
    cache.beat(Timestamp::from_millis(1)).await.unwrap();
    eventually("a first look", || async {
        cache.look(trip_cache::fresh_shopper()).await.ok()
    })
    .await;
    cache
}

/// Two replicas of a Redis, a cache that looks in the near one first, and a trip that both have.
struct Replicated {
    near: Redis,
    far: Redis,
    cache: Arc<RedisTripCache>,
    sheet: TripSheet,
}

impl Replicated {
    async fn of(primary: &Redis) -> Self {
        let follows = || RedisOptions {
            replica_of: Some(primary.port()),
            ..RedisOptions::default()
        };
        let near = Redis::start(follows()).await.unwrap();
        let far = Redis::start(follows()).await.unwrap();
        let cache = connected(patient(primary, &[&near, &far])).await;
        let sheet = trip_cache::fresh_sheet(trip_cache::fresh_shopper(), 1);
        cache.put(sheet.clone()).await.unwrap();
        let replicated = Self {
            near,
            far,
            cache,
            sheet,
        };
        let key = format!("trip:{}", replicated.sheet.trip.id);
        replicated
            .both_say(&["EXISTS", &key], &Reply::Number(1))
            .await;
        replicated
    }

    /// Waits until both replicas answer a command so.
    async fn both_say(&self, command: &[&str], reply: &Reply) {
        eventually("both replicas have it", || async {
            for replica in [&self.near, &self.far] {
                if replica.command(command).await.ok()? != *reply {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }
}

fn small_queue(redis: &Redis) -> RedisQueueConfig {
    let mut config = RedisQueueConfig::new(redis.url());
    config.shards = 4;
    config.shard_events_max = u32::try_from(queue::SHARD_EVENTS).unwrap();
    config.block = Duration::from_millis(50);
    config.budget = Duration::from_secs(3);
    config
}

#[tokio::test]
async fn memory_cache_conforms() {
    trip_cache::all(Arc::new(MemoryTripCache::new())).await;
}

#[tokio::test]
async fn memory_homes_conform() {
    let cache = Arc::new(MemoryTripCache::one_of_several());
    trip_cache::homes(cache.clone(), async |epoch| cache.promote(epoch)).await;
    // The only one there is cannot be of the past.
    let alone = MemoryTripCache::new();
    alone.require_home_epoch(7);
    alone.beat(Timestamp::from_millis(1)).await.unwrap();
}

#[tokio::test]
async fn redis_homes_conform() {
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    let cache = connected(patient(&redis, &[])).await;
    let server = RedisServer::open(&redis.url(), None).unwrap();
    trip_cache::homes(cache.clone(), async |epoch| {
        server.become_home(epoch).await.unwrap();
    })
    .await;
    assert!(cache.counters().past_home > 0);
    // A lower epoch than a server has is never written into it.
    let refused = server.become_home(3).await;
    assert!(
        matches!(refused, Err(CacheError::PastHome { epoch: 3, known: 6 })),
        "{refused:?}"
    );
    // A damaged epoch is none: the home is of the past until it is promoted again.
    redis.command(&["SET", "home_epoch", "six"]).await.unwrap();
    let beat = cache.beat(Timestamp::from_millis(9)).await;
    assert!(
        matches!(beat, Err(CacheError::PastHome { epoch: 0, known: 6 })),
        "{beat:?}"
    );
    server.become_home(6).await.unwrap();
    cache.beat(Timestamp::from_millis(9)).await.unwrap();
}

/// Another home is promoted: replicas that still follow the old one are passed over.
#[tokio::test]
async fn redis_of_a_home_of_the_past_is_not_believed_while_another_follows_the_new() {
    let old = Redis::start(RedisOptions::default()).await.unwrap();
    let Replicated {
        near,
        far,
        cache,
        sheet,
    } = Replicated::of(&old).await;
    let shopper = sheet.trip.shopper;
    let new = RedisServer::open(&far.url(), None).unwrap();
    let state = new.state().await.unwrap();
    let home = format!("127.0.0.1:{}", old.port());
    assert_eq!((state.is_primary, state.follows), (false, Some(home)));
    assert!(state.keys > 0 && state.beat.is_some() && state.epoch == 0);
    for _ in 0..2 {
        new.become_home(1).await.unwrap();
    }
    let state = new.state().await.unwrap();
    assert!(state.is_primary && state.follows.is_none() && state.epoch == 1);
    let written = connected(patient(&far, &[])).await;
    let newer = trip_cache::picked(sheet.clone(), 1);
    written.put(newer.clone()).await.unwrap();
    let now = Timestamp::from_millis(3_000);
    written.beat(now).await.unwrap();
    // The old one goes on, for whoever has not heard, and beats as loudly.
    cache.beat(now).await.unwrap();
    cache.require_home_epoch(1);
    let look = cache.look(shopper).await.unwrap();
    assert_eq!(look.age_ms(now), Some(0));
    assert_eq!(look.trip.unwrap().trip, newer.trip);
    let lapses = cache.check().await;
    assert_eq!((lapses.past_homes, lapses.went_back()), (1, true));
    let refused = cache.put(newer.clone()).await;
    assert!(
        matches!(refused, Err(CacheError::PastHome { epoch: 0, known: 1 })),
        "{refused:?}"
    );
    // Pointed at the new one, it is as good as that.
    let near = RedisServer::open(&near.url(), None).unwrap();
    let (host, port) = new.place();
    near.follow(host, port).await.unwrap();
    eventually("it follows the new home", || async {
        let look = cache.look(shopper).await.ok()?;
        (!cache.check().await.went_back() && !look.behind).then_some(())
    })
    .await;
}

#[tokio::test]
async fn memory_cache_evicts_the_oldest_closed_trips_and_no_open_one() {
    let cache = MemoryTripCache::with_closed_max(2);
    let mut sheets = Vec::new();
    for _ in 0..5 {
        let sheet = trip_cache::fresh_sheet(trip_cache::fresh_shopper(), 1);
        cache.put(sheet.clone()).await.unwrap();
        sheets.push(sheet.trip);
    }
    for trip in &sheets[..4] {
        cache.close(trip.shopper, trip.id).await.unwrap();
    }
    for (index, trip) in sheets.iter().enumerate() {
        let known = cache.look(trip.shopper).await.unwrap().trip.is_some();
        assert_eq!(known, index >= 2, "trip {index}");
    }
}

#[tokio::test]
async fn memory_queue_conforms() {
    let block = Duration::from_millis(20);
    queue::all(Arc::new(MemoryQueue::with_bounds(4, 2_000, block))).await;
}

#[tokio::test]
async fn redis_cache_conforms() {
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    let cache = connected(patient(&redis, &[])).await;
    trip_cache::all(cache.clone()).await;
    let counters = cache.counters();
    assert_eq!((counters.garbage, counters.refused), (0, 0));
}

#[tokio::test]
async fn redis_queue_conforms() {
    let redis = Redis::start(appendonly()).await.unwrap();
    queue::all(Arc::new(
        RedisEventQueue::connect(small_queue(&redis)).unwrap(),
    ))
    .await;
}

#[tokio::test]
async fn redis_keeps_open_trips_for_ever_and_closed_ones_for_a_while() {
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    let cache = connected(patient(&redis, &[])).await;
    let sheet = trip_cache::fresh_sheet(trip_cache::fresh_shopper(), 1);
    let (trip, shopper) = (sheet.trip.id, sheet.trip.shopper);
    let keys = [
        format!("trip:{trip}"),
        format!("items:{trip}"),
        format!("shopper:{shopper}"),
    ];
    // An approval and a position come first: these alone do expire.
    let early = standin_core::trip::Approval {
        transaction_id: standin_core::id::TransactionId::from_uuid(Uuid::new_v4()),
        amount: 1,
        at: Timestamp::from_millis(1),
    };
    cache.approve(trip, early).await.unwrap();
    assert!(ttl(&redis, &keys[0]).await > 0);
    cache.put(sheet.clone()).await.unwrap();
    for key in &keys {
        assert_eq!(ttl(&redis, key).await, -1, "{key}");
    }
    cache.close(shopper, trip).await.unwrap();
    cache.put(trip_cache::picked(sheet, 1)).await.unwrap();
    for key in &keys {
        assert!(ttl(&redis, key).await > 0, "{key}");
    }
}

async fn ttl(redis: &Redis, key: &str) -> i64 {
    match redis.command(&["TTL", key]).await.unwrap() {
        Reply::Number(seconds) => seconds,
        reply => panic!("{reply:?}"),
    }
}

/// R4: whatever stands in the keys, a look is a miss, and a put makes it good again.
#[tokio::test]
async fn redis_garbage_is_a_miss_and_is_healed() {
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    let cache = connected(patient(&redis, &[])).await;
    let huge = "x".repeat(8 * 1024 * 1024);
    let sheet = trip_cache::fresh_sheet(trip_cache::fresh_shopper(), 1);
    let (trip, shopper) = (sheet.trip.id, sheet.trip.shopper);
    let (trip, items) = (format!("trip:{trip}"), format!("items:{trip}"));
    let pointer = format!("shopper:{shopper}");
    let other = trip_cache::fresh_sheet(trip_cache::fresh_shopper(), 1).trip;
    let other = serde_json::to_string(&other).unwrap();
    let spoilers: Vec<Vec<&str>> = vec![
        vec!["HSET", &trip, "summary", "not json"],
        vec!["HSET", &trip, "summary", "{}"],
        vec!["HSET", &trip, "summary", &other],
        vec!["HSET", &trip, "summary", &huge],
        vec!["HSET", &trip, "summary", ""],
        vec!["SET", &trip, &huge],
        vec!["SADD", &pointer, "a set"],
        vec!["HSET", &pointer, "trip", "nobody"],
        vec!["HSET", &pointer, "trip", &huge],
        vec!["HSET", &trip, "a:huge", &huge],
        vec!["SET", &items, "not a hash"],
        vec!["HSET", &items, "no order", "no lines"],
        vec!["HSET", &pointer, "started", "soon"],
        vec!["HSET", &trip, "version", "newest"],
        vec!["HSET", &trip, "version", "99999999999999999999x"],
    ];
    for spoiler in spoilers {
        let case: String = format!("{spoiler:?}").chars().take(90).collect();
        redis
            .command(&["DEL", &trip, &items, &pointer])
            .await
            .unwrap();
        cache.put(sheet.clone()).await.unwrap();
        if !matches!(spoiler[0], "HSET") {
            redis.command(&["DEL", spoiler[1]]).await.unwrap();
        }
        redis.command(&spoiler).await.unwrap();
        let before = cache.counters().garbage;
        let look = cache.look(shopper).await.unwrap();
        let read = cache.sheet(sheet.trip.id).await.unwrap();
        assert_eq!(look.beat, Some(Timestamp::from_millis(1)), "{case}");
        let missed = look.trip.is_none() || read.is_none();
        let harmless = spoiler[2] == "started" || spoiler[2] == "version";
        // A pointer to nobody is no garbage: that trip may just have been evicted.
        let counted = cache.counters().garbage > before || spoiler[3..].contains(&"nobody");
        assert!(harmless || (missed && counted), "{case}");

        let newer = trip_cache::picked(sheet.clone(), 1);
        if !case.contains("a:huge") {
            assert_eq!(
                cache.put(newer.clone()).await.unwrap(),
                Put::Written,
                "{case}"
            );
            let trip = cache
                .look(shopper)
                .await
                .unwrap()
                .trip
                .map(|seen| seen.trip);
            assert_eq!(trip, Some(newer.trip.clone()), "{case}");
            let read = cache.sheet(newer.trip.id).await.unwrap();
            assert_eq!(read, Some(newer), "{case}");
        }
    }
    // A damaged summary of the same version is replaced, too.
    redis
        .command(&["DEL", &trip, &items, &pointer])
        .await
        .unwrap();
    cache.put(sheet.clone()).await.unwrap();
    redis
        .command(&["HSET", &trip, "summary", "{"])
        .await
        .unwrap();
    assert_eq!(cache.put(sheet).await.unwrap(), Put::Written);
    assert_eq!(cache.counters().timeouts, 0);
}

/// R4: a damaged approval or position is left out, the rest is served.
#[tokio::test]
async fn redis_damaged_parts_are_left_out() {
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    let cache = connected(patient(&redis, &[])).await;
    let sheet = trip_cache::fresh_sheet(trip_cache::fresh_shopper(), 1);
    let (trip, shopper) = (format!("trip:{}", sheet.trip.id), sheet.trip.shopper);
    cache.put(sheet.clone()).await.unwrap();
    for (field, value) in [("a:zz", "1 2"), ("a:0", ""), ("unknown", "7")] {
        redis.command(&["HSET", &trip, field, value]).await.unwrap();
    }
    let pointer = format!("shopper:{shopper}");
    redis
        .command(&["HSET", &pointer, "pos", "here"])
        .await
        .unwrap();
    redis.command(&["SET", "heartbeat", "never"]).await.unwrap();
    let Look { trip, beat, .. } = cache.look(shopper).await.unwrap();
    let seen = trip.unwrap();
    assert_eq!(seen.trip, sheet.trip);
    assert_eq!((seen.approvals.len(), seen.position.is_none()), (0, true));
    assert_eq!(beat, None);
    assert_eq!(cache.counters().garbage, 3);
}

/// R1: killed or hung, a look gives up within its budget; soon it costs nothing; it recovers.
#[tokio::test]
async fn redis_gone_or_hung_never_holds_a_look_up() {
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    let mut config = patient(&redis, &[]);
    config.read_budget = Duration::from_millis(50);
    // A scheduler's pause on a busy machine is no fault of the cache.
    let bound = config.read_budget + Duration::from_millis(450);
    let cache = connected(config).await;
    let sheet = trip_cache::fresh_sheet(trip_cache::fresh_shopper(), 1);
    let shopper = sheet.trip.shopper;
    cache.put(sheet).await.unwrap();
    for hung in [true, false] {
        if hung {
            redis.pause().unwrap();
        } else {
            redis.kill().await.unwrap();
        }
        let mut paid = Duration::ZERO;
        for _ in 0..200 {
            let began = Instant::now();
            let looked = cache.look(shopper).await;
            let took = began.elapsed();
            assert!(took < bound, "a look took {took:?}, hung: {hung}");
            assert!(looked.is_err(), "nobody was there to answer");
            paid += took;
        }
        // Three budgets before the breaker opens, and few probes: not 200 budgets.
        assert!(paid < Duration::from_secs(2), "{paid:?}, hung: {hung}");
        if hung {
            redis.resume().unwrap();
        } else {
            redis.restart().await.unwrap();
        }
        eventually("a look after the node is back", || async {
            cache.look(shopper).await.ok()
        })
        .await;
    }
    let counters = cache.counters();
    assert!(
        counters.timeouts > 0 && counters.passed_over > 0,
        "{counters:?}"
    );
}

/// R1: the local replica hangs, the next one answers within the same budget.
#[tokio::test]
async fn redis_looks_in_another_replica_and_sees_a_beat_stop() {
    let primary = Redis::start(RedisOptions::default()).await.unwrap();
    let Replicated {
        near,
        far: _far,
        cache,
        sheet,
    } = Replicated::of(&primary).await;
    let shopper = sheet.trip.shopper;
    near.pause().unwrap();
    for _ in 0..20 {
        let seen = cache.look(shopper).await.unwrap().trip.unwrap();
        assert_eq!(seen.trip, sheet.trip);
    }
    near.resume().unwrap();
    // Without their primary the replicas go on serving, and the beat they know stands still.
    let beat = Timestamp::from_millis(5_000);
    cache.beat(beat).await.unwrap();
    eventually("the beat is seen", || async {
        let look = cache.look(shopper).await.ok()?;
        (look.beat == Some(beat)).then_some(())
    })
    .await;
    primary.kill().await.unwrap();
    assert!(cache.beat(Timestamp::from_millis(6_000)).await.is_err());
    let look = cache.look(shopper).await.unwrap();
    assert!(look.trip.is_some());
    assert_eq!(look.beat, Some(beat));
}

#[tokio::test]
async fn redis_that_lost_its_keys_is_not_believed_while_another_has_them() {
    let primary = Redis::start(RedisOptions::default()).await.unwrap();
    let Replicated {
        near,
        far,
        cache,
        sheet,
    } = Replicated::of(&primary).await;
    let shopper = sheet.trip.shopper;
    let writable = ["CONFIG", "SET", "replica-read-only", "no"];
    near.command(&writable).await.unwrap();
    near.command(&["FLUSHALL"]).await.unwrap();
    cache.beat(Timestamp::from_millis(2)).await.unwrap();
    let look = cache.look(shopper).await.unwrap();
    assert_eq!(look.trip.unwrap().trip, sheet.trip);
    // Nobody has it: that is an answer, with the age of the first who gave it.
    far.command(&writable).await.unwrap();
    far.command(&["FLUSHALL"]).await.unwrap();
    assert!(cache.look(shopper).await.unwrap().trip.is_none());
}

#[tokio::test]
async fn redis_that_hears_nothing_any_more_is_not_believed_while_another_does() {
    let primary = Redis::start(RedisOptions::default()).await.unwrap();
    let replicated = Replicated::of(&primary).await;
    let old = Timestamp::from_millis(1_000);
    replicated.cache.beat(old).await.unwrap();
    replicated
        .both_say(&["GET", "heartbeat"], &Reply::Text("1000".to_owned()))
        .await;
    let Replicated {
        near,
        far,
        cache,
        sheet,
    } = replicated;
    let shopper = sheet.trip.shopper;
    near.command(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
    let mut newer = sheet.clone();
    newer.trip.version = newer.trip.version.checked_add(1).unwrap();
    newer.trip.picked = newer.trip.picked.checked_add(1).unwrap();
    cache.put(newer.clone()).await.unwrap();
    let young = Timestamp::from_millis(2_000);
    cache.beat(young).await.unwrap();
    // At first the near one's heart may still beat; then it has stood still for long.
    let look = eventually("the far one is asked", || async {
        let look = cache.look(shopper).await.ok()?;
        (look.beat == Some(young)).then_some(look)
    })
    .await;
    assert_eq!(look.trip.unwrap().trip, newer.trip);
    // Where nobody knows more, it says what it knows, and how old that is.
    far.kill().await.unwrap();
    let look = eventually("the near one is asked", || async {
        let look = cache.look(shopper).await.ok()?;
        (look.beat == Some(old)).then_some(look)
    })
    .await;
    assert_eq!(look.trip.unwrap().trip, sheet.trip);
}

/// R3: two primaries. The near replica is one of the past with a heart that beats.
#[tokio::test]
async fn redis_that_went_back_is_not_believed_and_noticed_until_it_is_new_again() {
    let primary = Redis::start(RedisOptions::default()).await.unwrap();
    let replicated = Replicated::of(&primary).await;
    let newer = trip_cache::picked(replicated.sheet.clone(), 1);
    replicated.cache.put(newer.clone()).await.unwrap();
    let beats = |at: i64| Reply::Text(at.to_string());
    let beat = ["GET", "heartbeat"];
    replicated
        .cache
        .beat(Timestamp::from_millis(10_000))
        .await
        .unwrap();
    replicated.both_say(&beat, &beats(10_000)).await;
    let Replicated {
        near,
        far,
        cache,
        sheet,
    } = replicated;
    let shopper = sheet.trip.shopper;
    assert_eq!(
        cache.look(shopper).await.unwrap().trip.unwrap().trip,
        newer.trip
    );
    let lapses = cache.check().await;
    assert!(!lapses.went_back() && lapses.missing == 0, "{lapses:?}");

    near.command(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
    near.command(&["FLUSHALL"]).await.unwrap();
    let past = connected(patient(&near, &[])).await;
    past.put(sheet.clone()).await.unwrap();
    let now = Timestamp::from_millis(20_000);
    past.beat(now).await.unwrap();
    cache.beat(now).await.unwrap();
    eventually("the far one has the beat", || async {
        (far.command(&beat).await.ok()? == beats(20_000)).then_some(())
    })
    .await;
    let look = cache.look(shopper).await.unwrap();
    assert_eq!(look.age_ms(now), Some(0), "the far one knows");
    assert_eq!(look.trip.unwrap().trip, newer.trip);
    let lapses = cache.check().await;
    assert!(lapses.went_back() && lapses.older == 1, "{lapses:?}");
    assert!(cache.counters().went_back > 0);

    // A shopper that was never looked at: the node that went back is passed over for him too.
    let stranger = trip_cache::fresh_sheet(trip_cache::fresh_shopper(), 1);
    let picked = trip_cache::picked(stranger.clone(), 1);
    past.put(stranger).await.unwrap();
    cache.put(picked.clone()).await.unwrap();
    let key = format!("trip:{}", picked.trip.id);
    eventually("the far one has his trip", || async {
        let exists = far.command(&["EXISTS", &key]).await.ok()?;
        (exists == Reply::Number(1)).then_some(())
    })
    .await;
    let look = cache.look(picked.trip.shopper).await.unwrap();
    assert_eq!(look.trip.unwrap().trip, picked.trip);

    // Where nobody knows more, what is shown is of no known age.
    far.kill().await.unwrap();
    let look = eventually("the near one is asked", || async {
        let look = cache.look(shopper).await.ok()?;
        look.behind.then_some(look)
    })
    .await;
    assert_eq!((look.beat, look.age_ms(now)), (Some(now), None));
    assert_eq!(look.trip.unwrap().trip, sheet.trip);

    let home = primary.port().to_string();
    near.command(&["REPLICAOF", "127.0.0.1", &home])
        .await
        .unwrap();
    eventually("it is well again", || async {
        let lapses = cache.check().await;
        (!lapses.went_back()).then_some(())
    })
    .await;
    let look = cache.look(shopper).await.unwrap();
    assert!(!look.behind);
    assert_eq!(look.trip.unwrap().trip, newer.trip);
}

/// R3: the primary is emptied, and with it every replica; the heart beats on.
#[tokio::test]
async fn redis_that_loses_its_trips_is_noticed_until_they_are_back() {
    let primary = Redis::start(RedisOptions::default()).await.unwrap();
    let Replicated {
        near: _near,
        far: _far,
        cache,
        sheet,
    } = Replicated::of(&primary).await;
    let mut sheets = vec![sheet];
    for _ in 0..9 {
        let sheet = trip_cache::fresh_sheet(trip_cache::fresh_shopper(), 1);
        cache.put(sheet.clone()).await.unwrap();
        sheets.push(sheet);
    }
    let beat_at = |at| cache.beat(Timestamp::from_millis(at));
    beat_at(10_000).await.unwrap();
    for sheet in &sheets {
        let shopper = sheet.trip.shopper;
        eventually("each is seen", || async {
            cache.look(shopper).await.ok()?.trip
        })
        .await;
    }
    // Some end by right: they are seen to be over, or only gone with too few others.
    for sheet in &sheets[..3] {
        let (shopper, trip) = (sheet.trip.shopper, sheet.trip.id);
        cache.close(shopper, trip).await.unwrap();
    }
    beat_at(20_000).await.unwrap();
    eventually("the closes are seen", || async {
        let look = cache.look(sheets[2].trip.shopper).await.ok()?;
        let lapses = cache.check().await;
        assert!(!lapses.vanished(), "{lapses:?}");
        (look.trip?.trip.status == standin_core::trip::TripStatus::Complete).then_some(())
    })
    .await;

    primary.command(&["FLUSHALL"]).await.unwrap();
    let now = Timestamp::from_millis(30_000);
    beat_at(30_000).await.unwrap();
    let lapses = eventually("that they are gone", || async {
        let lapses = cache.check().await;
        lapses.vanished().then_some(lapses)
    })
    .await;
    assert!(lapses.missing <= 7, "{lapses:?}");
    let look = eventually("the beat is there", || async {
        let look = cache.look(sheets[9].trip.shopper).await.ok()?;
        (look.beat == Some(now)).then_some(look)
    })
    .await;
    assert_eq!((look.trip.as_ref(), look.age_ms(now)), (None, None));
    assert!(cache.counters().lost > 0);

    for sheet in &sheets[3..] {
        cache.put(sheet.clone()).await.unwrap();
    }
    eventually("they are back", || async {
        let lapses = cache.check().await;
        (lapses.missing == 0).then_some(())
    })
    .await;
    let look = cache.look(sheets[9].trip.shopper).await.unwrap();
    assert_eq!(look.age_ms(now), Some(0));
}

#[tokio::test]
async fn redis_cache_needs_no_server_to_begin_with() {
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    redis.kill().await.unwrap();
    let cache = RedisTripCache::connect(patient(&redis, &[])).unwrap();
    assert!(!cache.connected(Duration::from_millis(200)).await);
    let shopper = trip_cache::fresh_shopper();
    let looked = cache.look(shopper).await;
    assert!(
        matches!(looked, Err(CacheError::Unreachable(_))),
        "{looked:?}"
    );
    redis.restart().await.unwrap();
    eventually("a look", || async { cache.look(shopper).await.ok() }).await;
    let wrong = RedisTripCache::connect(RedisConfig::new("not an address".to_owned(), vec![]));
    assert!(matches!(wrong, Err(CacheError::Refused(_))));
}

#[tokio::test]
async fn redis_acknowledged_events_survive_a_kill() {
    let redis = Redis::start(appendonly()).await.unwrap();
    let queue: queue::Queue = Arc::new(RedisEventQueue::connect(small_queue(&redis)).unwrap());
    let trip = TripId(Uuid::new_v4());
    let shard = standin_core::queue::shard_of(trip, queue.shards());
    let mut acknowledged = Vec::new();
    for round in 0..3_u32 {
        let writer = {
            let queue = queue.clone();
            tokio::spawn(async move {
                let mut kept = Vec::new();
                for number in 0..2_000 {
                    let event = queue::event(trip, round * 10_000 + number);
                    match queue.append(vec![event.clone()]).await {
                        Ok(()) => kept.push(event.id),
                        // Full is an end as good as a kill.
                        Err(_unknown) => break,
                    }
                }
                kept
            })
        };
        eventually("some were appended", || async {
            let depth = queue.depth().await.ok()?;
            (depth > u64::from(round) * 50 + 40).then_some(())
        })
        .await;
        redis.kill().await.unwrap();
        acknowledged.extend(writer.await.unwrap());
        redis.restart().await.unwrap();
        eventually("the queue is back", || async { queue.depth().await.ok() }).await;
    }
    assert!(acknowledged.len() > 100);
    let depth = usize::try_from(queue.depth().await.unwrap()).unwrap();
    let read = eventually("all can be read", || async {
        let mut read = Vec::new();
        while read.len() < depth {
            let after = read
                .last()
                .map(|delivery: &standin_core::queue::Delivery| delivery.receipt.clone());
            read.extend(queue.read(shard, after, 500).await.ok()?);
        }
        Some(read)
    })
    .await;
    let read: std::collections::HashSet<Uuid> =
        read.into_iter().map(|delivery| delivery.event.id).collect();
    let lost = acknowledged.iter().filter(|id| !read.contains(*id)).count();
    assert_eq!(lost, 0, "of {} acknowledged", acknowledged.len());
}

#[tokio::test]
async fn redis_queue_acknowledges_nothing_that_a_crash_could_lose() {
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    let queue = RedisEventQueue::connect(small_queue(&redis)).unwrap();
    let one = || vec![queue::event(TripId(Uuid::new_v4()), 1)];
    let refused = queue.append(one()).await;
    assert!(
        matches!(refused, Err(QueueError::NotDurable(_))),
        "{refused:?}"
    );
    redis
        .command(&["CONFIG", "SET", "appendonly", "yes"])
        .await
        .unwrap();
    let refused = queue.append(one()).await;
    assert!(
        matches!(refused, Err(QueueError::NotDurable(_))),
        "{refused:?}"
    );
    redis
        .command(&["CONFIG", "SET", "appendfsync", "always"])
        .await
        .unwrap();
    queue.append(one()).await.unwrap();
    // Turned off behind its back: noticed within a second or so.
    redis
        .command(&["CONFIG", "SET", "appendonly", "no"])
        .await
        .unwrap();
    eventually("appends are refused again", || async {
        match queue.append(one()).await {
            Err(QueueError::NotDurable(_)) => Some(()),
            _ => None,
        }
    })
    .await;
}

#[tokio::test]
async fn redis_queue_waits_for_its_replicas() {
    let everysec = RedisOptions {
        extra: ["--appendonly", "yes"].map(str::to_owned).to_vec(),
        ..RedisOptions::default()
    };
    let primary = Redis::start(everysec).await.unwrap();
    let replica = Redis::start(RedisOptions {
        replica_of: Some(primary.port()),
        ..RedisOptions::default()
    })
    .await
    .unwrap();
    let mut config = small_queue(&primary);
    config.replicas_required = 1;
    config.budget = Duration::from_secs(1);
    let queue = RedisEventQueue::connect(config).unwrap();
    let trip = TripId(Uuid::new_v4());
    eventually("an append reaches the replica", || async {
        queue.append(vec![queue::event(trip, 1)]).await.ok()
    })
    .await;
    replica.pause().unwrap();
    let unknown = queue.append(vec![queue::event(trip, 2)]).await;
    assert!(
        matches!(unknown, Err(QueueError::Cache(CacheError::Timeout))),
        "{unknown:?}"
    );
    replica.resume().unwrap();
    eventually("an append reaches it again", || async {
        queue.append(vec![queue::event(trip, 3)]).await.ok()
    })
    .await;
}

/// A consumer far ahead of a server that came back empty does not pass over what comes next.
#[tokio::test]
async fn redis_queue_that_lost_everything_goes_on_behind_its_readers() {
    let redis = Redis::start(appendonly()).await.unwrap();
    let queue = RedisEventQueue::connect(small_queue(&redis)).unwrap();
    let trip = TripId(Uuid::new_v4());
    let shard = standin_core::queue::shard_of(trip, queue.shards());
    let first = (1..=500).map(|number| queue::event(trip, number));
    queue.append(first.collect()).await.unwrap();
    let read = queue.read(shard, None, 1_000).await.unwrap();
    redis.command(&["FLUSHALL"]).await.unwrap();
    queue.append(vec![queue::event(trip, 501)]).await.unwrap();
    let after = read.last().map(|delivery| delivery.receipt.clone());
    let next = queue.read(shard, after, 10).await.unwrap();
    assert_eq!(next.len(), 1);
    assert_eq!(next[0].event.at, Timestamp::from_millis(501));
    // A damaged entry is passed over and counted, what follows it comes.
    let stream = format!("events:{shard}");
    redis
        .command(&["XADD", &stream, "*", "e", "[{]"])
        .await
        .unwrap();
    queue.append(vec![queue::event(trip, 502)]).await.unwrap();
    let after = Some(next[0].receipt.clone());
    let next = queue.read(shard, after, 10).await.unwrap();
    assert_eq!(
        next.last().map(|one| one.event.at),
        Some(Timestamp::from_millis(502))
    );
    assert_eq!(queue.counters().garbage, 1);
}
