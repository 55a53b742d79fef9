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
    args(dir, edges, more).make(SystemClock.now()).unwrap()
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
    let of = &made.edges[edge];
    let config = LinksConfig {
        region: "eu".to_owned(),
        group: "eu".to_owned(),
        incarnation: Uuid::from_u128(1),
        node: NodeId(of.edge),
        listen: Some("127.0.0.1:0".parse().unwrap()),
        tls: Some(TlsFiles {
            ca: made.ca.clone(),
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
    assert!(first.ca_made);
    assert_eq!(first.edges[0].name, "standin://edge/eu/1");
    let (one, three) = (links(&first, 0).await, links(&first, 1).await);
    assert_eq!(call(&one, &three, 3).await, "there?");

    // Edge 1 is renewed, edge 4 is new: both from the authority that edge 3 trusts already.
    let second = made(&dir, "1,4", &["--force", "--days", "2"]);
    assert!(!second.ca_made);
    assert!(second.edges[0].not_after < first.edges[0].not_after);
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
    assert_eq!(mode(&made.edges[0].key), SECRET);
    assert_eq!(mode(&made.edges[0].certificate), OPEN);
    assert_eq!(mode(&made.ca), OPEN);
    assert_eq!(mode(&made.ca.with_extension("key")), SECRET);
}

#[test]
fn nothing_is_replaced_unasked() {
    let dir = TempDir::new().unwrap();
    let first = made(&dir, "1", &[]);
    let certificate = &first.edges[0].certificate;
    let before = std::fs::read(certificate).unwrap();
    let ca = std::fs::read(&first.ca).unwrap();
    assert_eq!(args(&dir, "1,2", &[]).run().unwrap(), 2);
    assert_eq!(std::fs::read(certificate).unwrap(), before);
    assert!(!certificate.with_file_name("edge-2.pem").exists());
    assert_eq!(args(&dir, "1,2", &["--force"]).run().unwrap(), 0);
    assert_ne!(std::fs::read(certificate).unwrap(), before);
    assert_eq!(std::fs::read(&first.ca).unwrap(), ca);
}

#[test]
fn half_an_authority_or_a_mixed_one_is_not_used() {
    let dir = TempDir::new().unwrap();
    let first = made(&dir, "1", &[]);
    let key = first.ca.with_extension("key");
    let other = TempDir::new().unwrap();
    let foreign = made(&other, "1", &[]).ca.with_extension("key");
    std::fs::copy(foreign, &key).unwrap();
    let refused = args(&dir, "2", &[]).make(SystemClock.now()).unwrap_err();
    assert!(format!("{refused:#}").contains("the key is not that of"));
    std::fs::remove_file(&key).unwrap();
    let refused = args(&dir, "2", &[]).make(SystemClock.now()).unwrap_err();
    assert!(refused.to_string().contains("without its key"));
    assert!(!first.ca.with_file_name("edge-2.pem").exists());
}

#[test]
fn a_region_that_cannot_be_in_a_name_is_refused() {
    let dir = TempDir::new().unwrap();
    let mut args = args(&dir, "1", &[]);
    args.region = "EU West".to_owned();
    let refused = args.make(SystemClock.now()).unwrap_err();
    assert!(refused.to_string().contains("is no name of an edge"));
    assert!(!args.out.exists());
}
