//! The platform on real Postgres and Redis: orders become trips, picks reach the cache and are
//! booked once, whichever server is killed meanwhile.

#![allow(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    reason = "test code"
)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, Method};
use serde_json::{Value, json};
use standin_core::clock::{Clock, SystemClock};
use standin_core::ledger::postgres::{PostgresConfig, PostgresLedger};
use standin_core::ledger::{Claim, Ledger};
use standin_core::money::Currency;
use standin_core::queue::EventQueue;
use standin_core::signature::{ID_HEADER, SIGNATURE_HEADER, Secret, TIMESTAMP_HEADER, sign};
use standin_core::trip::{TripSheet, TripStatus};
use standin_core::trip_cache::TripCache;
use standin_core::trip_cache::redis::{
    RedisConfig, RedisEventQueue, RedisQueueConfig, RedisTripCache,
};
use standin_drill::servers::{Postgres, Redis, RedisOptions};
use standin_trips::api::Api;
use standin_trips::feeder;
use standin_trips::flow::{Budgets, Platform, Ports};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

const SHOPPER: u64 = 123;
const LINES: u32 = 20;

struct World {
    postgres: Postgres,
    redis: Redis,
    ledger: Arc<PostgresLedger>,
    cache: Arc<RedisTripCache>,
    queue: Arc<RedisEventQueue>,
    platform: Arc<Platform>,
    api: Api,
    secret: Secret,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl World {
    async fn start() -> Self {
        let postgres = Postgres::start().await.unwrap();
        let url = postgres.create_database("standin").await.unwrap();
        let options = RedisOptions {
            appendonly: true,
            ..RedisOptions::default()
        };
        let redis = Redis::start(options).await.unwrap();
        let ledger = Arc::new(PostgresLedger::connect(&PostgresConfig::new(url)).unwrap());
        ledger.migrate().await.unwrap();
        // Patient: these tests share two cores with others.
        let patience = Duration::from_secs(5);
        let mut config = RedisConfig::new(redis.url(), Vec::new());
        (config.read_budget, config.write_budget) = (patience, patience);
        let cache = RedisTripCache::connect(config).unwrap();
        let queue = RedisEventQueue::connect(RedisQueueConfig::new(redis.url())).unwrap();
        let (cache, queue) = (Arc::new(cache), Arc::new(queue));
        let budgets = Budgets {
            ledger: patience,
            cache: patience,
            settle: patience,
            ..Budgets::default()
        };
        let ports = Ports {
            ledger: Arc::clone(&ledger) as Arc<dyn Ledger>,
            cache: Arc::clone(&cache) as Arc<dyn TripCache>,
            queue: Arc::clone(&queue) as Arc<dyn EventQueue>,
            journal: None,
            clock: Arc::new(SystemClock),
        };
        let platform = Arc::new(Platform::new(ports, budgets));
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        feeder::spawn(&platform, &tracker, &stop);
        let secret = Secret::from_bytes(vec![3; 32]).unwrap();
        let secrets = vec![Secret::from_bytes(vec![3; 32]).unwrap()];
        let world = Self {
            api: Api::new(Arc::clone(&platform), secrets, Currency::USD),
            postgres,
            redis,
            ledger,
            cache,
            queue,
            platform,
            secret,
            tracker,
            stop,
        };
        eventually("the heart beats", || async {
            world.platform.counters().beats.get() > 0
        })
        .await;
        let store = json!({"store_id": 1, "name": "Target", "address": "123 Main St",
            "lat": 37.7749, "lon": -122.4194});
        assert_eq!(world.post("/v1/stores", store).await.0, 200);
        world
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::POST, path, body.to_string()).await
    }

    async fn call(&self, method: Method, path: &str, body: String) -> (u16, Value) {
        let id = Uuid::new_v4().to_string();
        let now = SystemClock.now().as_secs();
        let signature = sign(&self.secret, &id, now, body.as_bytes());
        let mut headers = HeaderMap::new();
        headers.insert(ID_HEADER, id.parse().unwrap());
        headers.insert(TIMESTAMP_HEADER, now.into());
        headers.insert(SIGNATURE_HEADER, signature.parse().unwrap());
        headers.insert("content-type", "application/json".parse().unwrap());
        let uri = path.parse().unwrap();
        let response = self
            .api
            .handle(&method, &uri, &headers, Bytes::from(body))
            .await;
        let body = serde_json::from_slice(response.body()).unwrap();
        (response.status().as_u16(), body)
    }

    async fn place(&self) -> Uuid {
        let order = Uuid::new_v4();
        let item = |line: u32| {
            json!({"product": line, "category": "produce", "quantity": 1,
                "listed": format!("{line}.00")})
        };
        let items: Vec<Value> = (1..=LINES).map(item).collect();
        let body = json!({"order_id": order, "customer_id": 5, "store_id": 1, "items": items});
        assert_eq!(self.post("/v1/orders", body).await.0, 201);
        order
    }

    /// A started trip: its order and its id.
    async fn trip(&self, shopper: u64) -> (Uuid, Uuid) {
        let (order, trip) = (self.place().await, Uuid::new_v4());
        let claim = format!("/v1/orders/{order}/claim");
        assert_eq!(
            self.post(&claim, json!({"shopper_id": shopper})).await.0,
            200
        );
        let start = json!({"trip_id": trip, "shopper_id": shopper, "order_ids": [order]});
        let (status, started) = self.post("/v1/trips", start).await;
        assert_eq!(status, 200, "{started}");
        // At once, unless the machine is so busy that the connection was lost: then by a repair.
        eventually("the cache has the trip", || async {
            self.cached(trip).await.is_some()
        })
        .await;
        (order, trip)
    }

    /// Sends events until they are acknowledged, as a shopper's phone would.
    async fn send(&self, shopper: u64, trip: Uuid, mut events: Vec<Value>) {
        for event in &mut events {
            event["event_id"] = json!(Uuid::new_v4());
        }
        let path = format!("/v1/trips/{trip}/events");
        let body = json!({"shopper_id": shopper, "currency": "USD", "events": events});
        eventually("events are acknowledged", || async {
            self.post(&path, body.clone()).await.0 == 202
        })
        .await;
    }

    async fn cached(&self, trip: Uuid) -> Option<TripSheet> {
        let sheet = self.cache.sheet(standin_core::id::TripId(trip)).await;
        sheet.ok().flatten()
    }

    async fn booked(&self, shopper: u64, trip: Uuid) -> TripSheet {
        let shopper = shopper.try_into().unwrap();
        let found = self
            .ledger
            .trip(shopper, standin_core::id::TripId(trip))
            .await;
        found.unwrap().unwrap().sheet
    }

    async fn settled(&self) {
        eventually("the queue is empty", || async {
            matches!(self.queue.depth().await, Ok(0))
        })
        .await;
    }

    async fn end(self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

fn pick(order: Uuid, line: u32) -> Value {
    json!({"kind": "pick", "order_id": order, "line": line})
}

async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(40), wait).await;
    assert!(waited.is_ok(), "waited in vain until {what}");
}

/// 1.00 + 2.00 + … up to and including `line`, in cents.
fn sum(line: u32) -> i64 {
    (1..=i64::from(line)).sum::<i64>() * 100
}

#[allow(clippy::too_many_lines, reason = "one story, told in order")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shopping_goes_on_while_postgres_is_killed_and_is_booked_once() {
    let world = World::start().await;
    let (order, trip) = world.trip(SHOPPER).await;
    let position = json!({"kind": "position", "lat": 37.7749, "lon": -122.4194});
    world
        .send(
            SHOPPER,
            trip,
            vec![pick(order, 1), position, pick(order, 2)],
        )
        .await;
    world.settled().await;
    let seen = world.cached(trip).await.unwrap();
    assert_eq!(seen.trip.picked, sum(2));
    assert_eq!(
        world.booked(SHOPPER, trip).await,
        seen,
        "cache and ledger agree, version too"
    );

    world.postgres.kill().await.unwrap();
    let claim = format!("/v1/orders/{order}/claim");
    let complete = format!("/v1/trips/{trip}/complete");
    let start = json!({"trip_id": Uuid::new_v4(), "shopper_id": 9, "order_ids": [order]});
    for (path, body) in [
        (claim.as_str(), json!({"shopper_id": SHOPPER})),
        ("/v1/trips", start),
        (&complete, json!({"shopper_id": SHOPPER})),
    ] {
        let (status, problem) = world.post(path, body).await;
        assert_eq!(
            (status, &problem["type"]),
            (503, &json!("urn:standin:problem:ledger-away"))
        );
    }
    for line in 3..=LINES {
        world.send(SHOPPER, trip, vec![pick(order, line)]).await;
    }
    world
        .send(SHOPPER, trip, vec![json!({"kind": "finish"})])
        .await;
    eventually("the cache has every pick", || async {
        let sheet = world.cached(trip).await;
        sheet.is_some_and(|sheet| {
            sheet.trip.picked == sum(LINES) && sheet.trip.status == TripStatus::Delivering
        })
    })
    .await;
    let path = format!("/v1/trips/{SHOPPER}/{trip}");
    let (status, shown) = world.call(Method::GET, &path, String::new()).await;
    assert_eq!((status, &shown["picked"]), (200, &json!("210.00")));

    world.postgres.restart().await.unwrap();
    world.settled().await;
    let seen = world.cached(trip).await.unwrap();
    assert_eq!(world.booked(SHOPPER, trip).await, seen);
    let counters = world.platform.counters();
    assert_eq!(
        (counters.refused.get(), counters.booked.get()),
        (0, u64::from(LINES) + 1)
    );
    let (status, completed) = world.post(&complete, json!({"shopper_id": SHOPPER})).await;
    assert_eq!(
        (status, &completed["status"]),
        (200, &json!("COMPLETE")),
        "{completed}"
    );
    eventually("the cache has closed the trip", || async {
        let look = world.cache.look(SHOPPER.try_into().unwrap()).await;
        look.is_ok_and(|look| {
            look.trip
                .is_none_or(|cached| cached.trip.status == TripStatus::Complete)
        })
    })
    .await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_pick_survives_a_kill_of_redis() {
    let world = World::start().await;
    let (order, trip) = world.trip(SHOPPER).await;
    for line in 1..=LINES {
        if line == LINES / 2 {
            world.redis.kill().await.unwrap();
            world.redis.restart().await.unwrap();
        }
        world.send(SHOPPER, trip, vec![pick(order, line)]).await;
    }
    world.settled().await;
    let booked = world.booked(SHOPPER, trip).await;
    assert_eq!(booked.trip.picked, sum(LINES));
    eventually("the cache agrees", || async {
        world
            .cached(trip)
            .await
            .is_some_and(|sheet| sheet.items == booked.items)
    })
    .await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_racing_claims_on_postgres_one_wins() {
    let world = World::start().await;
    let order = standin_core::id::OrderId(world.place().await);
    let claims = (1..=50_u64).map(|shopper| {
        let platform = Arc::clone(&world.platform);
        tokio::spawn(async move { platform.claim(order, shopper.try_into().unwrap()).await })
    });
    let mut won = 0;
    for claim in join_all(claims).await {
        match claim.unwrap() {
            Ok(Claim::Won) => won += 1,
            Ok(Claim::Lost) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(won, 1);
    world.end().await;
}
