//! Through the admin listeners of two edges of this process, over HTTP.

use standin_edge::app::{Edge, Hooks, Stopped};
use standin_edge::config::Config;

use super::*;

async fn edge(dir: &std::path::Path) -> Edge {
    let text = format!(
        r#"
        listen = "127.0.0.1:0"
        admin_listen = "127.0.0.1:0"
        deployment_key = "c3RhbmRpbi1leGFtcGxlLWRlcGxveW1lbnQta2V5ISE="
        [wal]
        dir = "{}"
        segment_bytes = 4194304
        budget_bytes = 67108864
        [[banks]]
        slug = "first"
        secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
        "#,
        dir.display()
    );
    let (config, _settings) = Config::load(Some(&text), []).unwrap();
    Box::pin(Edge::start(config, Hooks::default()))
        .await
        .unwrap()
}

fn name(edge: &Edge) -> uuid::Uuid {
    edge.log().incarnation().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tombstone_is_placed_in_every_log_or_not_at_all() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (one, two) = (edge(one.path()).await, edge(two.path()).await);
    let admins: [Target; 2] = [one.admin_address().into(), two.admin_address().into()];
    let logs = BTreeSet::from([name(&one), name(&two)]);
    let only = |edge: &Edge| BTreeSet::from([name(edge)]);
    for (admins, logs) in [
        (&admins[..1], &logs),
        (&admins[..1], &only(&two)),
        (&admins[..], &only(&one)),
        (&[admins[0].clone(), admins[0].clone()][..], &only(&one)),
    ] {
        let refused = AdminTombstones::connect(admins, &TlsArgs::default(), logs, "test").await;
        assert!(refused.is_err(), "{admins:?} for {logs:?}");
    }
    let tombstones = AdminTombstones::connect(&admins, &TlsArgs::default(), &logs, "test")
        .await
        .unwrap();
    let payments: Vec<_> = (1..=40)
        .map(|n| TransactionId::from_bytes([n; 16]))
        .collect();
    let placed = tombstones.place(payments.clone()).await.unwrap();
    assert_eq!(placed, vec![Placed::First; 40]);
    for edge in [&one, &two] {
        let all = |id| edge.log().read(|register| register.knows(id));
        assert!(payments.iter().copied().all(all));
    }
    assert_eq!(two.stop().await, Stopped::Clean);
    let error = tombstones.place(payments).await.unwrap_err();
    assert!(!error.detail.is_empty());
    assert_eq!(one.stop().await, Stopped::Clean);
}
