//! Redis dies, hangs, holds nonsense, and holds less than it did.

use std::time::Duration;

use standin_core::answer::Rung;
use standin_core::clock::{Clock, SystemClock};
use standin_core::ledger::Ledger;
use standin_core::trip_cache::TripCache;
use standin_drill::servers::redis::Reply;
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
        (held == Reply::Number(1)).then_some(())
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
    // One trip that is behind says nothing of the age of the cache.
    edge.status_until("the cache's age", SOON, |status| {
        status["trip_cache"]["age_ms"].as_u64()
    })
    .await;
    edge.alarm("trip_cache_stale", false, SOON).await;

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

/// Runs `standin trips promote-home`; its exit code, and what it said as JSON.
async fn promote(arguments: &[&str]) -> (Option<i32>, serde_json::Value, String) {
    let output = tokio::process::Command::new(PROGRAMS.standin)
        .args(["trips", "promote-home", "--json", "--operator", "ada"])
        .args(["--reason", "the home burned"])
        .args(arguments)
        .env_remove("STANDIN_POSTGRES")
        .output()
        .await
        .unwrap();
    let said = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said, error)
}

async fn follower(of: &Redis) -> Redis {
    let options = RedisOptions {
        replica_of: Some(of.port()),
        ..RedisOptions::default()
    };
    let replica = Redis::start(options).await.unwrap();
    until("the replica follows", SOON, || async {
        let held = replica.command(&["EXISTS", "shopper:1"]).await.ok()?;
        (held == Reply::Number(1)).then_some(())
    })
    .await;
    replica
}

#[tokio::test]
async fn r3_another_home_is_promoted_and_the_old_one_is_not_believed_when_it_comes_back() {
    let stage = Stage::set().await;
    stage.trip(1, 1_000_000).await;
    let (near, new) = (follower(&stage.redis).await, follower(&stage.redis).await);
    let mut options = EdgeOptions::on(&stage);
    options.redis = vec![near.url()];
    let mut edge = Edge::start_with(PROGRAMS, &stage, options).await;
    let bank = edge.bank(2);
    approved_on_primary(&bank.pay(&Payment::new("before", 1, 1_000)).await, "before");

    // Without the ledger, or with nothing to take over, nothing happens.
    let postgres = stage.postgres_url();
    let (to, replicas) = (new.url(), near.url());
    let nobody = "postgres://standin@127.0.0.1:1/standin";
    let (code, _, error) = promote(&["--to", &to, "--postgres", nobody]).await;
    assert_eq!(code, Some(1));
    assert!(
        error.contains("without the ledger no home is promoted"),
        "{error}"
    );
    let empty = Redis::start(RedisOptions::default()).await.unwrap();
    let (code, said, _) = promote(&["--to", &empty.url(), "--postgres", &postgres]).await;
    assert_eq!(code, Some(4));
    assert!(
        said["refused"].as_str().unwrap().contains("holds nothing"),
        "{said}"
    );
    assert_eq!(stage.ledger.cache_home().await.unwrap().epoch, 0);
    assert_eq!(
        new.command(&["GET", "home_epoch"]).await.unwrap(),
        Reply::Nil
    );

    // An operator's machine dies after the first step: every copy is of the past, and the primary asked.
    let order = standin_core::ledger::CachePromotion {
        id: uuid::Uuid::now_v7(),
        to: format!("127.0.0.1:{}", new.port()),
        epoch_seen: 0,
        operator: "ada".to_owned(),
        reason: "the home burned".to_owned(),
        at: SystemClock.now(),
    };
    stage.ledger.promote_cache_home(order).await.unwrap();
    edge.alarm("trip_cache_backwards", true, SOON).await;
    approved_on_primary(&bank.pay(&Payment::new("half", 1, 1_000)).await, "half way");

    // Run again, it finishes; and once more changes nothing.
    let whole = [
        "--to",
        &to,
        "--replicas",
        &replicas,
        "--postgres",
        &postgres,
    ];
    for _ in 0..2 {
        let (code, said, error) = promote(&whole).await;
        assert_eq!(code, Some(0), "{said} {error}");
        assert_eq!(
            (&said["epoch"], &said["raised"]),
            (&1.into(), &false.into())
        );
        assert_eq!(said["replicas"][0]["follows"], true);
    }
    edge.alarm("trip_cache_backwards", false, SOON).await;
    assert_eq!(edge.status().await["trip_cache"]["home_epoch"], 1);
    approved_on_primary(&bank.pay(&Payment::new("after", 1, 1_000)).await, "after");

    // The old home never noticed, and its heart beats. The edge's replica is pointed at it by mistake.
    let old = stage.redis.port().to_string();
    near.command(&["REPLICAOF", "127.0.0.1", &old])
        .await
        .unwrap();
    edge.alarm("trip_cache_backwards", true, SOON).await;
    stage.postgres.pause().unwrap();
    let told = bank.pay(&Payment::new("of the past", 1, 500)).await;
    assert_eq!(told.said().rung, Rung::Isolated, "{:?}", told.0);
    stage.postgres.resume().unwrap();
    edge.on_rung("primary", SOON).await;

    // A replica that is not reached is told, and the rest done.
    let nowhere = format!("{replicas},redis://127.0.0.1:1");
    let (code, said, _) =
        promote(&["--to", &to, "--replicas", &nowhere, "--postgres", &postgres]).await;
    assert_eq!(code, Some(3), "{said}");
    assert_eq!(said["replicas"][0]["follows"], true);
    assert_eq!(said["replicas"][1]["follows"], false);
    edge.alarm("trip_cache_backwards", false, SOON).await;
    let audit = stage.ledger.audit(1_000).await.unwrap();
    let action = format!("trips.promote_home 127.0.0.1:{} epoch 1", new.port());
    let mine = audit.iter().filter(|row| row.action == action);
    assert!(
        mine.clone()
            .all(|row| row.operator == "ada" && row.reason == "the home burned")
    );
    assert_eq!(mine.count(), 4);
    verdict::end(&stage, &mut edge, &[]).await;
}
