//! A proposal is tried beside the active policy, and becomes it: by the files, while the edge serves.

use standin_core::policy::{Change, EXAMPLE};

use super::*;

/// The example as a later version that tolerates so many percent where no rule names it.
fn version(version: u32, percent: &str) -> Policy {
    let text = EXAMPLE
        .replacen("version = 1", &format!("version = {version}"), 1)
        .replacen(r#"percent = "10""#, &format!(r#"percent = "{percent}""#), 1);
    Policy::parse(&text).unwrap()
}

/// As commands do: whole or not at all.
fn put(path: &std::path::Path, text: &str) {
    let fresh = path.with_extension("fresh");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(fresh, path).unwrap();
}

async fn page(edge: &Edge) -> serde_json::Value {
    edge.desk.statusz().await
}

/// What is asked for, in whole dollars, of a cart of 299.00: its cap is 328.90.
fn payment(dollars: u32) -> String {
    SEED.replace("300", &dollars.to_string())
}

fn alarmed(page: &serde_json::Value) -> Option<String> {
    let alarms = page["alarms"].as_array().unwrap();
    let of_policy = alarms.iter().find(|alarm| alarm["name"] == "policy");
    of_policy.map(|alarm| alarm["detail"].as_str().unwrap().to_owned())
}

async fn audited(edge: &Edge) -> Vec<(String, String, String)> {
    drained(edge).await;
    let rows = edge.ledger().audit(10).await.unwrap().into_iter();
    rows.map(|row| (row.operator, row.action, row.reason))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_is_counted_beside_the_active_policy_and_then_becomes_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policy.toml");
    let proposed = crate::policies::proposed_beside(&file);
    put(&file, EXAMPLE);
    let config = || Config {
        policy: Some(file.clone()),
        ..config(&dir.path().join("wal"))
    };
    let edge = Edge::start(config(), Hooks::default()).await.unwrap();
    shop(&edge).await;
    stores_known(&edge).await;
    assert_eq!(
        page(&edge).await["proposed_policy"],
        serde_json::Value::Null
    );
    assert_eq!(post(&edge, &payment(340)).await.0, 402);

    let next = version(2, "15");
    put(&proposed, &next.to_toml());
    until("tried", async || {
        page(&edge).await["proposed_policy"]["version"] == 2
    })
    .await;
    // Both say no, both say yes, and one says yes: the active one is what is answered.
    for (dollars, status) in [(900, 402), (100, 200), (240, 402)] {
        let (got, _, body) = post(&edge, &payment(dollars)).await;
        assert_eq!(got, status, "{body}");
        assert!(body.contains(r#""policy_version":1"#), "{body}");
    }
    // A replay is decided by nobody.
    assert!(post(&edge, &payment(240)).await.1);
    let shown = page(&edge).await["proposed_policy"].clone();
    assert_eq!(
        (&shown["judged"], &shown["fingerprint"]),
        (&3.into(), &next.fingerprint().into())
    );
    let difference = serde_json::json!([{
        "bank": "first", "rules": "primary", "active": "over_cap", "proposed": "within_cap",
        "loosens": true, "count": 1, "amount_minor": 24_000,
    }]);
    assert_eq!(shown["differences"], difference);
    let metrics = edge.desk.shared.metrics.render().unwrap();
    let counted = r#"standin_proposed_policy_differences_total{active="over_cap",bank="first",proposed="within_cap",rules="primary"} 1"#;
    assert!(
        metrics.contains(counted) && metrics.contains("standin_proposed_policy_judged_total 3")
    );

    let change = Change {
        operator: "ada".to_owned(),
        reason: "June".to_owned(),
        at: Timestamp::from_millis(1_800_000_000_000),
        replaces: 1,
    };
    let promoted = Policy {
        change: Some(change),
        ..next
    };
    put(&file, &promoted.to_toml());
    std::fs::remove_file(&proposed).unwrap();
    until("in force", async || {
        page(&edge).await["policy_version"] == 2
    })
    .await;
    assert_eq!(
        page(&edge).await["proposed_policy"],
        serde_json::Value::Null
    );
    // 343.85 in all is the cap now; 100.00 of it is spent.
    let (status, _, body) = post(&edge, &payment(243)).await;
    assert!(
        status == 200 && body.contains(r#""policy_version":2"#),
        "{status} {body}"
    );
    let row = |operator: &str, action: &str, reason: &str| {
        (operator.to_owned(), action.to_owned(), reason.to_owned())
    };
    let promotion = row("ada", "policy.take 2 (was 1)", "June");
    until("audited", async || {
        audited(&edge).await == [promotion.clone()]
    })
    .await;

    // What says something else without being later stays out, and so does what is no policy; by hand
    // a later version is taken, and written down too.
    put(&file, &version(2, "11").to_toml());
    until("refused", async || {
        alarmed(&page(&edge).await).is_some_and(|why| why.contains("version 2 is not above 2"))
    })
    .await;
    assert_eq!(page(&edge).await["policy_version"], 2);
    put(&file, &version(3, "11").to_toml());
    put(&proposed, &version(3, "12").to_toml());
    until("in force", async || {
        page(&edge).await["policy_version"] == 3
    })
    .await;
    until("a proposal that is late is named", async || {
        alarmed(&page(&edge).await)
            .is_some_and(|why| why.contains("version 3 is not above the active 3"))
    })
    .await;
    let by_hand = row(
        "policy file",
        "policy.take 3 (was 2)",
        "its file was changed by hand",
    );
    until("audited", async || audited(&edge).await.contains(&by_hand)).await;
    put(&file, &promoted.to_toml());
    assert_eq!(edge.stop().await, Stopped::Clean);

    // A start that finds a promoted version writes it down, once.
    let edge = Edge::start(config(), Hooks::default()).await.unwrap();
    until("audited", async || audited(&edge).await.len() == 2).await;
    assert_eq!(page(&edge).await["policy_version"], 2);
    assert_eq!(edge.stop().await, Stopped::Clean);
}

#[tokio::test]
async fn an_edge_does_not_start_on_what_is_no_policy() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policy.toml");
    for text in [None, Some("version = 0")] {
        if let Some(text) = text {
            put(&file, text);
        }
        let config = Config {
            policy: Some(file.clone()),
            ..config(&dir.path().join("wal"))
        };
        let refused = Edge::start(config, Hooks::default()).await;
        assert!(matches!(refused.err(), Some(StartError::Policy(_))));
    }
}
