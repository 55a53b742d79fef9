//! The sets that are made, and the links that take them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use standin_core::BoxFuture;
use standin_edge::alarm::Alarms;
use standin_edge::links::{Handler, LinkLimits, Links, LinksConfig, Reloaded, TlsFiles};
use standin_edge::metrics::Metrics;
use standin_wal::{Member, Transport};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn args(dir: &TempDir, edges: &str, more: &[&str]) -> Args {
    let out = dir.path().join("certs");
    let line = ["certs", "--region", "eu", "--edges", edges, "--out"];
    let line = line.into_iter().map(Into::into).chain([out.into()]);
    let line = line.chain(more.iter().map(Into::into));
    Line::parse_from::<_, std::ffi::OsString>(line).args
}

fn made(dir: &TempDir, edges: &str, more: &[&str]) -> Made {
    make(&args(dir, edges, more)).unwrap()
}

fn make(args: &Args) -> anyhow::Result<Made> {
    args.make(&args.wanted()?, SystemClock.now())
}

fn ca(made: &Made) -> &Path {
    &made.authorities[0].certificate
}

fn mode(file: &Path) -> u32 {
    file.metadata().unwrap().permissions().mode() & 0o777
}

struct Echo;

impl Handler for Echo {
    fn handle(&self, _: NodeId, request: Bytes) -> BoxFuture<'_, Bytes> {
        Box::pin(async move { request })
    }

    fn may_call(&self, _: NodeId) -> bool {
        true
    }
}

/// Links of an edge with the files that were made for it.
async fn links(made: &Made, edge: usize) -> Arc<Links> {
    let of = &made.certificates[edge];
    let (_, node) = of.name.rsplit_once('/').unwrap();
    let config = LinksConfig {
        region: "eu".to_owned(),
        group: "eu".to_owned(),
        incarnation: Uuid::from_u128(1),
        node: NodeId(node.parse().unwrap()),
        listen: Some("127.0.0.1:0".parse().unwrap()),
        tls: Some(TlsFiles {
            ca: ca(made).to_owned(),
            certificate: of.certificate.clone(),
            key: of.key.clone(),
        }),
        limits: LinkLimits::default(),
    };
    let clock = Arc::new(SystemClock);
    let metrics = Arc::new(Metrics::new().unwrap());
    let alarms = Arc::new(Alarms::new(metrics, clock.clone()));
    let links = Links::start(config, clock, alarms).await.unwrap();
    links.serve(Arc::new(Echo)).unwrap();
    links
}

async fn call(from: &Links, to: &Links, node: u64) -> Bytes {
    let member = Member {
        address: to.address().unwrap().to_string(),
        log: uuid::Uuid::nil(),
    };
    let request = Bytes::from_static(b"there?");
    let patience = Duration::from_secs(20);
    from.call(NodeId(node), &member, request, patience)
        .await
        .unwrap()
}

#[tokio::test]
async fn links_take_a_set_and_its_renewal() {
    let dir = TempDir::new().unwrap();
    let first = made(&dir, "3,1", &[]);
    assert!(first.authorities[0].made);
    assert_eq!(first.certificates[0].name, "standin://edge/eu/1");
    let (one, three) = (links(&first, 0).await, links(&first, 1).await);
    assert_eq!(call(&one, &three, 3).await, "there?");

    // Edge 1 is renewed, edge 4 is new: both from the authority that edge 3 trusts already.
    let second = made(&dir, "1,4", &["--force", "--days", "2"]);
    assert!(!second.authorities[0].made);
    assert!(second.certificates[0].not_after < first.certificates[0].not_after);
    assert_eq!(one.reload().await.unwrap(), Reloaded::Changed);
    assert_eq!(three.reload().await.unwrap(), Reloaded::Same);
    let four = links(&second, 1).await;
    assert_eq!(call(&four, &three, 3).await, "there?");
    assert_eq!(call(&four, &one, 1).await, "there?");
    for links in [one, three, four] {
        links.stop().await;
    }
}

#[test]
fn keys_are_their_owners_alone() {
    let dir = TempDir::new().unwrap();
    let made = made(&dir, "1", &[]);
    assert_eq!(mode(&made.certificates[0].key), SECRET);
    assert_eq!(mode(&made.certificates[0].certificate), OPEN);
    assert_eq!(mode(ca(&made)), OPEN);
    assert_eq!(mode(&ca(&made).with_extension("key")), SECRET);
}

#[test]
fn nothing_is_replaced_unasked() {
    let dir = TempDir::new().unwrap();
    let first = made(&dir, "1", &[]);
    let certificate = &first.certificates[0].certificate;
    let before = std::fs::read(certificate).unwrap();
    let before_ca = std::fs::read(ca(&first)).unwrap();
    assert_eq!(args(&dir, "1,2", &[]).run().unwrap(), 2);
    assert_eq!(std::fs::read(certificate).unwrap(), before);
    assert!(!certificate.with_file_name("edge-2.pem").exists());
    assert_eq!(args(&dir, "1,2", &["--force"]).run().unwrap(), 0);
    assert_ne!(std::fs::read(certificate).unwrap(), before);
    assert_eq!(std::fs::read(ca(&first)).unwrap(), before_ca);
}

#[test]
fn half_an_authority_or_a_mixed_one_is_not_used() {
    let dir = TempDir::new().unwrap();
    let first = made(&dir, "1", &[]);
    let key = ca(&first).with_extension("key");
    let other = TempDir::new().unwrap();
    let foreign = ca(&made(&other, "1", &[])).with_extension("key");
    std::fs::copy(foreign, &key).unwrap();
    let refused = make(&args(&dir, "2", &[])).unwrap_err();
    assert!(format!("{refused:#}").contains("the key is not that of"));
    std::fs::remove_file(&key).unwrap();
    let refused = make(&args(&dir, "2", &[])).unwrap_err();
    assert!(refused.to_string().contains("without its key"));
    assert!(!ca(&first).with_file_name("edge-2.pem").exists());
}

#[test]
fn a_region_that_cannot_be_in_a_name_is_refused() {
    let dir = TempDir::new().unwrap();
    let mut args = args(&dir, "1", &[]);
    args.region = "EU West".to_owned();
    let refused = make(&args).unwrap_err();
    assert!(refused.to_string().contains("is no name of an edge"));
    assert!(!args.out.exists());
}

#[test]
fn banks_and_operators_have_authorities_of_their_own() {
    let dir = TempDir::new().unwrap();
    let more = "--banks first,second --operators alice --hosts localhost,127.0.0.1";
    let more: Vec<_> = more.split(' ').collect();
    let made = made(&dir, "1", &more);
    let whose: Vec<_> = made.authorities.iter().map(|it| it.whose).collect();
    assert_eq!(whose, ["keepers", "banks", "operators"]);
    let names: Vec<_> = made
        .certificates
        .iter()
        .map(|it| it.name.as_str())
        .collect();
    let expected = [
        "standin://edge/eu/1",
        "standin://bank/first",
        "standin://bank/second",
        "localhost, 127.0.0.1",
        "standin://operator/alice",
        "localhost, 127.0.0.1",
    ];
    assert_eq!(names, expected);
    for stem in [
        "edge-1",
        "bank-first",
        "door",
        "operator-alice",
        "admin",
        "banks-ca",
    ] {
        for ending in ["pem", "key"] {
            assert!(
                ca(&made)
                    .with_file_name(format!("{stem}.{ending}"))
                    .exists(),
                "{stem}"
            );
        }
    }
}

#[test]
fn what_cannot_be_in_a_name_or_is_for_nobody_is_refused() {
    let dir = TempDir::new().unwrap();
    for (flags, expected) in [
        (vec!["--banks", "First Bank"], "is no bank's slug"),
        (vec!["--operators", "a/b"], "is no operator's name"),
    ] {
        let refused = make(&args(&dir, "1", &flags)).unwrap_err();
        assert!(format!("{refused:#}").contains(expected), "{refused:#}");
    }
    let mut nobody = args(&dir, "1", &["--hosts", "localhost"]);
    assert!(
        nobody
            .wanted()
            .unwrap_err()
            .to_string()
            .contains("--hosts goes with")
    );
    nobody.edges.clear();
    nobody.hosts.clear();
    assert!(
        nobody
            .wanted()
            .unwrap_err()
            .to_string()
            .contains("say whom for")
    );
}
