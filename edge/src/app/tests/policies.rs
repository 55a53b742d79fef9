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

/// A folder with a policy, and an edge that reads it.
struct Folder {
    dir: tempfile::TempDir,
    active: std::path::PathBuf,
    proposed: std::path::PathBuf,
}

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let active = dir.path().join("policy.toml");
        put(&active, EXAMPLE);
        Self {
            proposed: crate::policies::proposed_beside(&active),
            active,
            dir,
        }
    }

    async fn start(&self) -> Edge {
        let config = Config {
            policy: Some(self.active.clone()),
            ..config(&self.dir.path().join("wal"))
        };
        Edge::start(config, Hooks::default()).await.unwrap()
    }
}

async fn in_force(edge: &Edge, version: u32) {
    until("in force", async || {
        page(edge).await["policy_version"] == version
    })
    .await;
}

async fn alarmed_by(edge: &Edge, words: &str) {
    until(words, async || {
        alarmed(&page(edge).await).is_some_and(|why| why.contains(words))
    })
    .await;
}

fn row(operator: &str, action: &str, reason: &str) -> (String, String, String) {
    (operator.to_owned(), action.to_owned(), reason.to_owned())
}

/// A later version with who put it there.
fn promoted(next: Policy) -> Policy {
    let change = Change {
        operator: "ada".to_owned(),
        reason: "June".to_owned(),
        at: Timestamp::from_millis(1_800_000_000_000),
        replaces: 1,
    };
    Policy {
        change: Some(change),
        ..next
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_is_counted_beside_the_active_policy_and_then_becomes_it() {
    let folder = Folder::new();
    let edge = folder.start().await;
    shop(&edge).await;
    stores_known(&edge).await;
    let nothing = serde_json::Value::Null;
    assert_eq!(page(&edge).await["proposed_policy"], nothing);
    assert_eq!(post(&edge, &payment(340)).await.0, 402);

    let next = version(2, "15");
    put(&folder.proposed, &next.to_toml());
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
    assert_eq!(shown["judged"], 3);
    assert_eq!(shown["fingerprint"], next.fingerprint());
    let difference = serde_json::json!([{
        "bank": "first", "rules": "primary", "active": "over_cap", "proposed": "within_cap",
        "loosens": true, "count": 1, "amount_minor": 24_000,
    }]);
    assert_eq!(shown["differences"], difference);
    let metrics = edge.desk.shared.metrics.render().unwrap();
    for counted in [
        r#"standin_proposed_policy_differences_total{active="over_cap",bank="first",proposed="within_cap",rules="primary"} 1"#,
        "standin_proposed_policy_judged_total 3",
    ] {
        assert!(metrics.contains(counted), "{metrics}");
    }

    put(&folder.active, &promoted(next).to_toml());
    std::fs::remove_file(&folder.proposed).unwrap();
    in_force(&edge, 2).await;
    assert_eq!(page(&edge).await["proposed_policy"], nothing);
    // 343.85 in all is the cap now; 100.00 of it is spent.
    let (status, _, body) = post(&edge, &payment(243)).await;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains(r#""policy_version":2"#), "{body}");
    let promotion = row("ada", "policy.take 2 (was 1)", "June");
    until("audited", async || {
        audited(&edge).await == [promotion.clone()]
    })
    .await;
    assert_eq!(edge.stop().await, Stopped::Clean);

    // What was promoted while no edge ran is written down by the start that finds it.
    put(&folder.active, &promoted(version(5, "16")).to_toml());
    let edge = folder.start().await;
    let meanwhile = row("ada", "policy.take 5 (was 1)", "June");
    until("audited", async || {
        audited(&edge).await == [promotion.clone(), meanwhile.clone()]
    })
    .await;
    assert_eq!(page(&edge).await["policy_version"], 5);
    assert_eq!(edge.stop().await, Stopped::Clean);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_serve_stays_out_with_an_alarm_and_what_is_taken_is_audited() {
    let folder = Folder::new();
    let edge = folder.start().await;
    put(&folder.active, &version(1, "11").to_toml());
    alarmed_by(&edge, "version 1 is not above 1").await;
    assert_eq!(page(&edge).await["policy_version"], 1);
    // By hand a later version is taken, and written down.
    put(&folder.active, &version(3, "11").to_toml());
    put(&folder.proposed, &version(3, "12").to_toml());
    in_force(&edge, 3).await;
    alarmed_by(&edge, "version 3 is not above the active 3").await;
    let by_hand = row(
        "policy file",
        "policy.take 3 (was 1)",
        "its file was changed by hand",
    );
    until("audited", async || {
        audited(&edge).await == [by_hand.clone()]
    })
    .await;
    std::fs::remove_file(&folder.proposed).unwrap();
    until("quiet", async || alarmed(&page(&edge).await).is_none()).await;
    std::fs::remove_file(&folder.active).unwrap();
    alarmed_by(&edge, "No such file").await;
    assert_eq!(page(&edge).await["policy_version"], 3);
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
