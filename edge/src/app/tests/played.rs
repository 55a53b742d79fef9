//! Faults that an edge plays on itself, ordered through its admin listener.

use serde_json::Value;

use super::alarms::admin;
use super::*;
use crate::config::DrillsConfig;

/// An order to play a fault for so many milliseconds.
fn order(fault: &str, for_ms: u64) -> String {
    format!(r#"{{"fault":{fault},"for_ms":{for_ms},"operator":"ada","reason":"a drill"}}"#)
}

async fn begin(edge: &Edge, fault: &str, for_ms: u64) -> (u16, Value) {
    let (status, body) = admin(edge, "POST", "/drill/begin", &order(fault, for_ms)).await;
    (status, serde_json::from_str(&body).unwrap())
}

async fn end(edge: &Edge, more: &str) -> (u16, Value) {
    let body = format!(r#"{{"operator":"bob","reason":"over"{more}}}"#);
    let (status, body) = admin(edge, "POST", "/drill/end", &body).await;
    (status, serde_json::from_str(&body).unwrap())
}

async fn consenting(dir: &std::path::Path) -> Edge {
    let mut config = Config {
        drills: DrillsConfig { consent: true },
        ..config(dir)
    };
    config.breaker.dwell = Duration::from_millis(100);
    config.breaker.ramp_step = Duration::from_millis(20);
    config.breaker.failures = 2;
    let edge = Edge::start(config, Hooks::default()).await.unwrap();
    shop(&edge).await;
    stores_known(&edge).await;
    edge
}

async fn rung(edge: &Edge, cents: u32) -> Value {
    let (status, _, body) = post(edge, &SEED.replace("300", &cents.to_string())).await;
    assert_eq!(status, 200, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    body["rung"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_does_not_consent_plays_nothing_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(config(dir.path()), Hooks::default())
        .await
        .unwrap();
    shop(&edge).await;
    stores_known(&edge).await;
    for (status, problem) in [
        begin(&edge, r#""primary_unreachable""#, 5_000).await,
        end(&edge, "").await,
    ] {
        assert_eq!(status, 403, "{problem}");
        assert_eq!(problem["type"], "urn:standin:problem:forbidden");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("drills.consent"), "{detail}");
    }
    let page = edge.status().await;
    let nothing = serde_json::json!({"consent": false, "playing": null, "last": null});
    assert_eq!(page["drills"], nothing);
    assert_eq!(rung(&edge, 20).await, "primary");
    let (_, metrics) = admin(&edge, "GET", "/metrics", "").await;
    assert!(!metrics.contains("standin_played_fault"));
    assert_eq!(edge.stop().await, Stopped::Clean);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_played_fault_is_felt_shown_counted_and_ended() {
    let dir = tempfile::tempdir().unwrap();
    let edge = consenting(dir.path()).await;
    assert_eq!(rung(&edge, 1).await, "primary");
    let (status, begun) = begin(&edge, r#""primary_unreachable""#, 60_000).await;
    assert_eq!(status, 200, "{begun}");
    assert_eq!(begun["fault"], "primary_unreachable");
    assert_eq!(begun["operator"], "ada");
    let (status, twice) = begin(&edge, r#""primary_hanging""#, 60_000).await;
    assert_eq!(status, 409, "{twice}");
    assert_eq!(rung(&edge, 2).await, "stand_in");
    let page = edge.status().await;
    let playing = &page["drills"]["playing"];
    assert_eq!(playing["number"], 1);
    assert!(playing["calls"]["payments"].as_u64().unwrap() >= 1);
    let left = playing["ends_in_ms"].as_u64().unwrap();
    assert!((1..=60_000).contains(&left), "{left}");
    let alarms = page["alarms"].as_array().unwrap();
    let alarm = alarms.iter().find(|alarm| alarm["name"] == "fault_played");
    let detail = alarm.unwrap()["detail"].as_str().unwrap();
    assert!(detail.contains("ada: a drill"), "{detail}");
    let (_, metrics) = admin(&edge, "GET", "/metrics", "").await;
    for line in [
        r#"standin_played_fault{fault="primary_unreachable"} 1"#,
        r#"standin_played_fault{fault="primary_hanging"} 0"#,
        r#"standin_played_fault_calls_total{calls="probes",fault="primary_hanging"} 0"#,
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    assert_eq!(end(&edge, r#","number":2"#).await.0, 409);
    let (status, ended) = end(&edge, r#","number":1"#).await;
    assert_eq!((status, &ended["over"]), (200, &"ordered".into()));
    assert_eq!(end(&edge, "").await.0, 409, "nothing is played any more");
    let page = edge.status().await;
    assert_eq!(page["drills"]["playing"], Value::Null);
    assert_eq!(page["drills"]["last"]["over"], "ordered");
    until("asked again", async || {
        edge.status().await["breaker"]["position"]["state"] == "closed"
    })
    .await;
    assert_eq!(rung(&edge, 3).await, "primary");
    drained(&edge).await;
    assert_eq!(edge.stop().await, Stopped::Clean);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_ends_by_itself_and_none_begins_while_the_primary_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let edge = consenting(dir.path()).await;
    assert_eq!(begin(&edge, r#""primary_failing""#, 1_000).await.0, 200);
    for cents in 1..=4 {
        rung(&edge, cents).await;
    }
    until("the fault is over", async || {
        edge.status().await["drills"]["last"]["over"] == "time"
    })
    .await;
    let page = edge.status().await;
    let alarms = page["alarms"].to_string();
    assert!(!alarms.contains("fault_played"), "{alarms}");
    until("asked again", async || rung_is_primary(&edge).await).await;
    let forced = r#"{"operator":"ada","reason":"a real one"}"#;
    assert_eq!(admin(&edge, "POST", "/stand-in/force", forced).await.0, 200);
    let (status, problem) = begin(&edge, r#""primary_failing""#, 1_000).await;
    assert_eq!(status, 409, "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("an operator decides"), "{detail}");
    assert_eq!(edge.stop().await, Stopped::Clean);
}

async fn rung_is_primary(edge: &Edge) -> bool {
    let page = edge.status().await;
    page["rung"] == "primary" && page["breaker"]["position"]["state"] == "closed"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hidden_trip_cache_is_stale_and_payments_go_by_the_primary() {
    let dir = tempfile::tempdir().unwrap();
    let edge = consenting(dir.path()).await;
    assert_eq!(
        begin(&edge, r#""trip_cache_unreachable""#, 60_000).await.0,
        200
    );
    assert_eq!(rung(&edge, 5).await, "primary");
    until("stale", async || {
        let page = edge.status().await;
        page["alarms"].to_string().contains("trip_cache_stale")
    })
    .await;
    let page = edge.status().await;
    let calls = &page["drills"]["playing"]["calls"];
    assert!(calls["payments"].as_u64().unwrap() >= 1, "{calls}");
    assert!(calls["probes"].as_u64().unwrap() >= 1, "{calls}");
    // Its time is not over: the edge does not wait for it to stop.
    assert_eq!(edge.stop().await, Stopped::Clean);
}
