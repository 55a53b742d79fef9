use std::path::Path;
use std::time::Duration;

use clap::Parser;
use standin_core::clock::{Clock, SystemClock};
use standin_edge::app::{Edge, Hooks};
use standin_edge::config::Config;
use standin_edge::issue::{Authority, Issued, Subject, Whose};

use super::*;

#[test]
fn a_document_is_shown_leaf_by_leaf() {
    let mut rows = Vec::new();
    let document = json!({"rung": "primary", "drain": {"cursor": 7}, "none": null, "all": []});
    flatten("", &document, &mut |name, value| {
        rows.push(format!("{name}={value}"))
    });
    rows.sort();
    assert_eq!(rows, ["all=[]", "drain.cursor=7", "none=-", "rung=primary"]);
}

#[derive(Parser)]
struct Status {
    #[command(flatten)]
    args: StatusArgs,
}

#[derive(Parser)]
struct StandIn {
    #[command(flatten)]
    args: StandInArgs,
}

fn write(dir: &Path, name: &str, issued: &Issued) {
    std::fs::write(dir.join(format!("{name}.pem")), &issued.certificate).unwrap();
    std::fs::write(dir.join(format!("{name}.key")), &issued.key).unwrap();
}

/// An edge whose operators show certificates; those of `alice`, and of a bank's authority, are there.
async fn edge(dir: &Path) -> Edge {
    let now = SystemClock.now();
    let operators = Authority::new(Whose::Operators, 5, now).unwrap();
    let hosts = ["127.0.0.1".to_owned()];
    let issue = |subject: &Subject<'_>| operators.issue(subject, 5, now).unwrap();
    write(dir, "admin", &issue(&Subject::Listener(&hosts)));
    write(dir, "alice", &issue(&Subject::Operator("alice")));
    let bank = "first".parse().unwrap();
    // Of the right authority, but no operator.
    write(dir, "bank", &issue(&Subject::Bank(&bank)));
    let strangers = Authority::new(Whose::Operators, 5, now).unwrap();
    let stranger = strangers.issue(&Subject::Operator("alice"), 5, now);
    write(dir, "stranger", &stranger.unwrap());
    std::fs::write(dir.join("ca.pem"), operators.certificate()).unwrap();
    let text = format!(
        r#"
        listen = "127.0.0.1:0"
        admin_listen = "127.0.0.1:0"
        deployment_key = "c3RhbmRpbi1leGFtcGxlLWRlcGxveW1lbnQta2V5ISE="
        [wal]
        dir = "{dir}/wal"
        segment_bytes = 4194304
        budget_bytes = 67108864
        [admin_tls]
        certificate = "{dir}/admin.pem"
        key = "{dir}/admin.key"
        operators_ca = "{dir}/ca.pem"
        [[banks]]
        slug = "first"
        secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
        "#,
        dir = dir.display()
    );
    let (config, _settings) = Config::load(Some(&text), []).unwrap();
    Box::pin(Edge::start(config, Hooks::default()))
        .await
        .unwrap()
}

fn line(dir: &Path, edge: &Edge, who: &str, scheme: &str) -> Vec<String> {
    let file = |name: String| dir.join(name).display().to_string();
    let admin = format!("{scheme}://{}", edge.admin_address());
    [
        "--admin".to_owned(),
        admin,
        "--ca".to_owned(),
        file("ca.pem".to_owned()),
        "--certificate".to_owned(),
        file(format!("{who}.pem")),
        "--key".to_owned(),
        file(format!("{who}.key")),
    ]
    .to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_is_who_the_certificate_names() {
    let dir = tempfile::tempdir().unwrap();
    let edge = edge(dir.path()).await;
    let status = async |who: &str, scheme: &str| {
        let words = line(dir.path(), &edge, who, scheme);
        let words = ["status".to_owned(), "--json".to_owned()]
            .into_iter()
            .chain(words);
        Status::parse_from(words).args.run().await
    };
    assert_eq!(status("alice", "https").await.unwrap(), 0);
    assert!(status("stranger", "https").await.is_err());
    assert!(status("alice", "http").await.is_err());
    let order = async |who: &str| {
        let words = line(dir.path(), &edge, who, "https");
        let order = [
            "stand-in",
            "force",
            "--operator",
            "bob",
            "--reason",
            "drill",
            "--json",
        ];
        let words = order.into_iter().map(str::to_owned).chain(words);
        StandIn::parse_from(words).args.run().await.unwrap()
    };
    assert_eq!(order("bank").await, 4);
    assert_eq!(order("alice").await, 0);
    let ledger = edge.ledger();
    let audited = async {
        loop {
            let rows = ledger.audit(10).await.unwrap();
            if let [row] = rows.as_slice() {
                return (row.operator.clone(), row.reason.clone());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let audited = tokio::time::timeout(Duration::from_secs(20), audited).await;
    assert_eq!(audited.unwrap(), ("alice".to_owned(), "drill".to_owned()));
    edge.stop().await;
}
