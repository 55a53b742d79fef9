//! Who is let in, and who is believed.

use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::*;
use crate::links::tls::Keeper;
use crate::watched::make_now;

async fn refused(from: &Node, to: &Node) -> String {
    match from.call(to, "let me in").await {
        Err(TransportError::Unreachable(why)) => why,
        other => panic!("it was let in: {other:?}"),
    }
}

#[tokio::test]
async fn another_region_group_or_incarnation_is_refused() {
    let one = Node::start(plain(1)).await;
    let change = |change: fn(&mut LinksConfig)| {
        let mut config = plain(2);
        change(&mut config);
        Node::start(config)
    };
    let us = change(|config| config.region = "us".to_owned()).await;
    assert!(refused(&us, &one).await.contains("of another region"));
    let group = change(|config| config.group = "other".to_owned()).await;
    assert_eq!(
        refused(&group, &one).await,
        "refused: the group is group, not other"
    );
    let old = change(|config| config.incarnation = Uuid::from_u128(6)).await;
    assert!(refused(&old, &one).await.contains("incarnation"));
    assert_eq!(one.links.status().turned_away, 3);
    assert!(one.links.status().callers.is_empty());
}

#[tokio::test]
async fn a_node_that_is_no_member_may_be_called_but_may_not_call() {
    let one = Node::start(plain(1)).await;
    let learner = Node::start(plain(12)).await;
    let why = refused(&learner, &one).await;
    assert!(why.contains("node 12 may not call"), "{why}");
    assert!(one.call(&learner, "you are next").await.is_ok());
}

#[tokio::test]
async fn a_member_that_was_removed_is_cut_off() {
    let one = Node::start(plain(1)).await;
    let two = Node::start(plain(2)).await;
    assert!(two.call(&one, "member").await.is_ok());
    one.hear().await;
    one.script.allows.store(false, Ordering::SeqCst);
    assert!(two.call(&one, "removed").await.is_err());
    assert!(refused(&two, &one).await.contains("may not call"));
    assert!(one.heard.lock().await.try_recv().is_err());
}

#[tokio::test]
async fn another_node_than_was_dialled_is_not_believed() {
    let files = Files::new(&authority());
    let one = Node::start(secured(1, &files)).await;
    let three = Node::start(secured(3, &files)).await;
    let request = Bytes::from_static(b"are you node 2?");
    let call = one
        .links
        .call(NodeId(2), &three.member(), request, LONG)
        .await;
    let why = call.unwrap_err().to_string();
    assert!(
        why.contains("is of standin://edge/eu/3, standin://edge/eu/2 was dialled"),
        "{why}"
    );
    // In the plain the node itself says so.
    let one = Node::start(plain(1)).await;
    let three = Node::start(plain(3)).await;
    let request = Bytes::from_static(b"are you node 2?");
    let call = one
        .links
        .call(NodeId(2), &three.member(), request, LONG)
        .await;
    let why = call.unwrap_err().to_string();
    assert!(why.contains("this is node 3, not 2"), "{why}");
}

#[tokio::test]
async fn another_authority_is_believed_by_neither_end() {
    let ours = Files::new(&authority());
    let theirs = Files::new(&authority());
    let one = Node::start(secured(1, &ours)).await;
    let two = Node::start(secured(2, &theirs)).await;
    let why = refused(&one, &two).await;
    assert!(why.contains("UnknownIssuer"), "{why}");
    let why = refused(&two, &one).await;
    assert!(why.contains("UnknownIssuer"), "{why}");
    // An end that accepts our certificate is still not believed for its own.
    let mixed = Files::new(&authority());
    let stranger = authority();
    mixed.issue(&stranger, 2, &name(REGION, 2));
    mixed.trust(&[&stranger]);
    let both = std::fs::read_to_string(ours.of(1).ca).unwrap();
    let trusts_both = format!("{both}{}", stranger.certificate());
    write(&mixed.of(2).ca, &trusts_both);
    let two = Node::start(secured(2, &mixed)).await;
    let why = refused(&one, &two).await;
    assert!(why.contains("UnknownIssuer"), "{why}");
    let why = refused(&two, &one).await;
    assert!(why.contains("UnknownCA"), "{why}");
}

#[tokio::test]
async fn a_region_in_a_certificate_counts_even_if_the_authority_is_the_same() {
    let authority = authority();
    let files = Files::new(&authority);
    files.issue(&authority, 2, &name("us", 2));
    let one = Node::start(secured(1, &files)).await;
    let mut config = secured(2, &files);
    config.region = "us".to_owned();
    let two = Node::start(config).await;
    // Whichever end looks first.
    for (from, to) in [(&one, &two), (&two, &one)] {
        let why = refused(from, to).await;
        assert!(why.contains("the certificate there is of"), "{why}");
    }
    let connector = connector(&files, &name("us", 2), |_| {});
    let us = Hello {
        region: "us".to_owned(),
        ..hello(2, 1, Lane::Quick)
    };
    let refused = dial(connector, &one, us).await.unwrap();
    assert_eq!(refused.kind, Kind::Refused);
    assert_eq!(
        refused.body,
        "standin://edge/us/2 is of another region, this is standin://edge/eu/1"
    );
}

/// Shows no certificate.
#[derive(Debug)]
struct Nobody;

impl ResolvesClientCert for Nobody {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// The dialling end of a node's TLS, changed.
fn connector(files: &Files, of: &EdgeName, change: impl FnOnce(&mut ClientConfig)) -> TlsConnector {
    let keeper = Keeper {
        files: files.of(of.node.0),
        this: of.clone(),
    };
    let tls = make_now(&keeper, SystemClock.now()).unwrap();
    let mut config = ClientConfig::clone(&tls.client);
    change(&mut config);
    TlsConnector::from(Arc::new(config))
}

/// What an end hears that dials so, and says this.
async fn dial(connector: TlsConnector, to: &Node, says: Hello) -> Option<Frame> {
    let stream = TcpStream::connect(to.links.address().unwrap())
        .await
        .unwrap();
    let name = "127.0.0.1".try_into().unwrap();
    let mut stream = connector.connect(name, stream).await.ok()?;
    let hello = json(Kind::Hello, &says);
    frame::write(&mut stream, &hello, LONG).await.ok()?;
    stream.flush().await.ok()?;
    next(&mut stream).await
}

#[tokio::test]
async fn a_certificate_is_needed_and_must_be_of_who_speaks() {
    let files = Files::new(&authority());
    let one = Node::start(secured(1, &files)).await;
    let (two, three) = (name(REGION, 2), name(REGION, 3));
    let says = || hello(2, 1, Lane::Quick);
    let unchanged = |_: &mut ClientConfig| {};
    let welcome = dial(connector(&files, &two, unchanged), &one, says()).await;
    assert_eq!(welcome.unwrap().kind, Kind::Welcome);
    let liar = dial(connector(&files, &three, unchanged), &one, says())
        .await
        .unwrap();
    assert_eq!(liar.kind, Kind::Refused);
    assert_eq!(
        liar.body,
        "the certificate names standin://edge/eu/3, the hello says standin://edge/eu/2"
    );
    let nobody = |config: &mut ClientConfig| config.client_auth_cert_resolver = Arc::new(Nobody);
    assert_eq!(
        dial(connector(&files, &two, nobody), &one, says()).await,
        None
    );
    for protocols in [vec![], vec![b"h2".to_vec()]] {
        let other = |config: &mut ClientConfig| config.alpn_protocols = protocols;
        assert_eq!(
            dial(connector(&files, &two, other), &one, says()).await,
            None
        );
    }
    // Plain bytes are no TLS.
    let mut stream = TcpStream::connect(one.links.address().unwrap())
        .await
        .unwrap();
    send(&mut stream, &json(Kind::Hello, &hello(2, 1, Lane::Quick))).await;
    is_closed(stream).await;
    assert!(one.links.status().turned_away >= 5);
}

#[tokio::test]
async fn plain_links_stay_on_loopback() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let config = LinksConfig {
            listen: Some(address.parse().unwrap()),
            ..plain(1)
        };
        let refused = Links::start(config, Arc::new(SystemClock), alarms()).await;
        assert!(
            matches!(refused, Err(StartError::PlainOffLoopback(_))),
            "{address}"
        );
    }
    let one = Node::start(plain(1)).await;
    let request = Bytes::from_static(b"out");
    let elsewhere = member("192.0.2.1:7000");
    let call = one.links.call(NodeId(2), &elsewhere, request, LONG).await;
    let why = call.unwrap_err().to_string();
    assert!(
        why.contains("links without TLS are for loopback only"),
        "{why}"
    );
}

#[tokio::test]
async fn files_that_do_not_serve_are_told_apart() {
    let authority = authority();
    let files = Files::new(&authority);
    let start = |config| async {
        let started = Links::start(config, Arc::new(SystemClock), alarms()).await;
        started.err().expect("it started").to_string()
    };
    let mut another = secured(1, &files);
    another.tls = Some(files.of(2));
    let why = start(another).await;
    assert!(
        why.ends_with("is of standin://edge/eu/2, this is standin://edge/eu/1"),
        "{why}"
    );
    files.issue(&super::authority(), 2, &name(REGION, 2));
    let why = start(secured(2, &files)).await;
    assert!(
        why.contains("does not serve: invalid peer certificate"),
        "{why}"
    );
    std::fs::copy(files.of(1).key, files.of(3).key).unwrap();
    let why = start(secured(3, &files)).await;
    assert!(why.contains("key"), "{why}");
    let why = start(secured(4, &files)).await;
    assert!(why.starts_with("cannot read"), "{why}");
    write(&files.of(1).certificate, "no PEM at all");
    let why = start(secured(1, &files)).await;
    assert!(why.ends_with("holds no certificate"), "{why}");
    let mut config = plain(1);
    config.region = "EU".to_owned();
    assert!(start(config).await.contains("is no name of an edge"));
    let mut config = plain(1);
    config.limits.quick_bytes_max = 0;
    assert!(start(config).await.contains("quick request"));
}
