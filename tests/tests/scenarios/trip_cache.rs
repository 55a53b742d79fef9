//! Redis dies, hangs, holds nonsense, and holds less than it did.

use std::time::Duration;

use standin_core::answer::Rung;
use standin_core::trip_cache::TripCache;
use standin_drill::servers::{Redis, RedisOptions};
use standin_tests::harness::wait::until;
use standin_tests::harness::{Bank, Edge, EdgeOptions, Payment, Stage, Told, verdict};
use tokio::time::Instant;

use super::{PROGRAMS, SOON};

/// Payments sent in each state of the servers.
const TRIES: usize = 8;
/// Past the budgets of trip cache and Postgres, well within the bank's deadline.
const BOUND: Duration = Duration::from_millis(2_500);

/// Sends some payments; each is approved on the primary within the bound.
async fn goes_on(bank: &Bank, name: &str) {
    let mut slowest = Duration::ZERO;
    for number in 0..TRIES {
        let payment = Payment::new(format!("{name}-{number}"), 1, 100 + number as i64);
        let began = Instant::now();
        let told = bank.pay(&payment).await;
        slowest = slowest.max(began.elapsed());
        assert_eq!(told.status(), Some(200), "{name}: {:?}", told.0);
        assert_eq!(told.said().rung, Rung::Primary, "{name}");
    }
    println!("{name}: {TRIES} answers, the slowest after {slowest:?}");
    assert!(slowest < BOUND, "{name}: {slowest:?}");
}

async fn troubles(edge: &Edge, kind: &str) -> u64 {
    let label = format!("kind=\"{kind}\"");
    edge.metric("standin_trip_cache_troubles", &[&label]).await
}

#[tokio::test]
async fn r1_without_its_redis_an_edge_answers_from_the_other_or_the_primary() {
    let stage = Stage::set().await;
    stage.trip(1, 1_000_000).await;
    let replica = Redis::start(RedisOptions {
        replica_of: Some(stage.redis.port()),
        ..RedisOptions::default()
    })
    .await
    .unwrap();
    until("the replica follows", SOON, || async {
        let held = replica.command(&["EXISTS", "shopper:1"]).await.ok()?;
        (held == standin_drill::servers::redis::Reply::Number(1)).then_some(())
    })
    .await;
    let mut options = EdgeOptions::on(&stage);
    options.redis = vec![replica.url(), stage.redis.url()];
    options.budgets_ms = [4_000, 100, 1_500, 2_000];
    let mut edge = Edge::start_with(PROGRAMS, &stage, options).await;
    let bank = edge.bank(4);
    goes_on(&bank, "both there").await;

    replica.pause().unwrap();
    goes_on(&bank, "the local replica hangs").await;
    let hung = troubles(&edge, "timeouts").await;
    assert!(hung > 0, "nothing hung");
    replica.resume().unwrap();

    replica.kill().await.unwrap();
    goes_on(&bank, "the local replica was killed").await;

    stage.redis.pause().unwrap();
    goes_on(&bank, "no Redis answers").await;
    assert!(troubles(&edge, "timeouts").await > hung, "nothing hung");

    stage.postgres.pause().unwrap();
    let payment = Payment::new("nothing", 1, 5_000);
    let began = Instant::now();
    let told = bank.pay(&payment).await;
    println!(
        "neither Redis nor Postgres: {:?} after {:?}",
        told.status(),
        began.elapsed()
    );
    assert_eq!(told.status(), Some(503));
    assert_eq!(told.json()["cause"], "primary_away");
    assert!(told.reply().retry_after.is_some());
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "past the deadline"
    );
    stage.redis.resume().unwrap();
    stage.postgres.resume().unwrap();
    edge.on_rung("primary", SOON).await;
    let told = bank.pay_until_answered(&payment, SOON).await;
    assert_eq!(told.status(), Some(200));
    verdict::end(&stage, &mut edge, &[]).await.all_approved();
}

/// Commands that spoil what the cache holds of a shopper.
struct Spoil {
    what: &'static str,
    commands: Vec<Vec<String>>,
    /// Whether it is recognised as garbage (else it is simply nothing).
    counted: bool,
}

fn spoils(shopper: u64, trip: &str) -> Vec<Spoil> {
    let (pointer, held) = (format!("shopper:{shopper}"), format!("trip:{trip}"));
    let spoil = |what, counted, commands: &[&[&str]]| Spoil {
        what,
        counted,
        commands: commands
            .iter()
            .map(|words| words.iter().map(|word| (*word).to_owned()).collect())
            .collect(),
    };
    let huge = "x".repeat(2_000_000);
    let wide: Vec<String> = (0..3_000).map(|field| format!("f{field}")).collect();
    let mut fields = vec!["HSET", held.as_str()];
    for field in &wide {
        fields.extend([field.as_str(), "1"]);
    }
    let theirs = r#"{"id":"01a2077f-8382-71d6-a1bd-cd34524c81cc","shopper":999}"#;
    vec![
        spoil(
            "a pointer that is text",
            true,
            &[&["DEL", &pointer], &["SET", &pointer, "x"]],
        ),
        spoil(
            "a trip that is text",
            true,
            &[&["DEL", &held], &["SET", &held, "x"]],
        ),
        spoil(
            "a trip that is a list",
            true,
            &[&["DEL", &held], &["LPUSH", &held, "x"]],
        ),
        spoil(
            "a pointer to nowhere",
            false,
            &[&["HSET", &pointer, "trip", "nowhere"]],
        ),
        spoil(
            "a huge pointer",
            true,
            &[&["HSET", &pointer, "trip", &huge]],
        ),
        spoil(
            "half a summary",
            true,
            &[&["HSET", &held, "summary", "{\"id\":"]],
        ),
        spoil("an empty summary", true, &[&["HSET", &held, "summary", ""]]),
        spoil(
            "a huge summary",
            true,
            &[&["HSET", &held, "summary", &huge]],
        ),
        spoil(
            "another's summary",
            true,
            &[&["HSET", &held, "summary", theirs]],
        ),
        spoil(
            "an approval of words",
            true,
            &[&["HSET", &held, "a:zzz", "much later"]],
        ),
        spoil("a huge approval", true, &[&["HSET", &held, "a:0", &huge]]),
        spoil(
            "a position of words",
            true,
            &[&["HSET", &pointer, "pos", "over there"]],
        ),
        spoil("3,000 fields", true, &[fields.as_slice()]),
    ]
}

#[tokio::test]
async fn r4_nonsense_in_redis_is_a_miss_and_is_counted() {
    let mut stage = Stage::set().await;
    let mut edge = Edge::start(PROGRAMS, &stage).await;
    let process = edge.process().id();
    let bank = edge.bank(2);
    let count = spoils(1, "").len() as u64;
    for shopper in 1..=count {
        let sheet = stage.trip(shopper, 1_000_000).await;
        let place = usize::try_from(shopper - 1).unwrap();
        let spoil = spoils(shopper, &sheet.trip.id.to_string()).swap_remove(place);
        for command in &spoil.commands {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            stage.redis.command(&words).await.unwrap();
        }
        let before = troubles(&edge, "garbage").await;
        let told = bank
            .pay(&Payment::new(format!("r4-{shopper}"), shopper, 30_000))
            .await;
        let counted = troubles(&edge, "garbage").await - before;
        println!(
            "injected: {}: {:?}, {counted} counted",
            spoil.what,
            told.status()
        );
        approved_on_primary(&told, spoil.what);
        assert_eq!(counted > 0, spoil.counted, "{}", spoil.what);
    }
    // The heartbeat last: with it everything is too old, and the primary shows the trips.
    let fresh = stage.trip(count + 1, 1_000_000).await;
    stage.stop_heart().await;
    for (number, command) in [
        vec!["SET", "heartbeat", "yesterday"],
        vec!["SET", "heartbeat", "99999999999999999999999999"],
        vec!["DEL", "heartbeat"],
        vec!["LPUSH", "heartbeat", "1"],
    ]
    .iter()
    .enumerate()
    {
        stage.redis.command(command).await.unwrap();
        let payment = Payment::new(format!("r4-beat-{number}"), count + 1, 100 + number as i64);
        let told = bank.pay(&payment).await;
        println!("injected: {command:?}: {:?}", told.status());
        approved_on_primary(&told, "heartbeat");
        assert_eq!(told.json()["trip_id"], fresh.trip.id.to_string());
    }
    assert_eq!(edge.process().id(), process);
    assert_eq!(edge.process().status(), None);
    assert!(!edge.log().contains("panicked"), "{}", edge.log());
    verdict::end(&stage, &mut edge, &[]).await.all_approved();
}

fn approved_on_primary(told: &Told, what: &str) {
    assert_eq!(told.status(), Some(200), "{what}: {:?}", told.0);
    assert_eq!(told.said().rung, Rung::Primary, "{what}");
}

#[tokio::test]
async fn r3_a_trip_cache_that_shows_less_than_before_is_alarmed_and_not_decided_from() {
    const SHOPPERS: u64 = 8;
    let stage = Stage::set().await;
    let mut sheets = Vec::new();
    for shopper in 1..=SHOPPERS {
        sheets.push(stage.trip(shopper, 1_000_000).await);
    }
    let mut edge = Edge::start(PROGRAMS, &stage).await;
    let bank = edge.bank(2);
    let everybody = async |name: &str| {
        for shopper in 1..=SHOPPERS {
            let payment = Payment::new(format!("r3-{name}-{shopper}"), shopper, 1_000);
            approved_on_primary(&bank.pay(&payment).await, name);
        }
    };
    everybody("well").await;
    for alarm in ["trips_vanished", "trip_cache_backwards"] {
        edge.alarm(alarm, false, SOON).await;
    }

    // Everything goes, and the heart beats on.
    stage.redis.command(&["FLUSHALL"]).await.unwrap();
    edge.alarm("trips_vanished", true, SOON).await;
    everybody("emptied").await;
    for sheet in &sheets {
        stage.cache.put(sheet.clone()).await.unwrap();
    }
    edge.alarm("trips_vanished", false, SOON).await;
    everybody("back").await;

    // One trip is shown as it was a while ago.
    let first = &sheets[0];
    let mut older = first.clone();
    older.trip.version -= 1;
    older.trip.picked = 10;
    let held = format!("trip:{}", first.trip.id);
    stage.redis.command(&["DEL", &held]).await.unwrap();
    stage.cache.put(older).await.unwrap();
    edge.alarm("trip_cache_backwards", true, SOON).await;
    let told = bank.pay(&Payment::new("r3-older", 1, 1_000)).await;
    approved_on_primary(&told, "the primary shows the trip as it is");

    // Without the primary nobody knows: what is shown serves as a trip that is too old.
    stage.postgres.pause().unwrap();
    let told = bank.pay(&Payment::new("r3-sound", 2, 1_000)).await;
    assert_eq!(told.said().rung, Rung::StandIn, "{:?}", told.0);
    let told = bank.pay(&Payment::new("r3-older-alone", 1, 500)).await;
    assert_eq!(told.said().rung, Rung::Isolated, "{:?}", told.0);
    stage.postgres.resume().unwrap();
    edge.on_rung("primary", SOON).await;

    stage.cache.put(first.clone()).await.unwrap();
    edge.alarm("trip_cache_backwards", false, SOON).await;
    verdict::end(&stage, &mut edge, &[]).await;
}
