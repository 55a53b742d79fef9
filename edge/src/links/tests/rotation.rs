//! New certificates while links are in use.

use super::*;

/// Node 3 dials node 1 on a connection of its own.
async fn dials(files: &Files, to: &Node) -> Result<Bytes, TransportError> {
    let three = Node::start(secured(3, files)).await;
    let reply = three.call(to, "fresh").await;
    three.links.stop().await;
    reply
}

#[tokio::test]
async fn an_authority_gives_way_to_another_while_calls_go_on() {
    let (old, new) = (authority(), authority());
    let files = Files::new(&old);
    let one = Node::start(secured(1, &files)).await;
    let two = Node::start(secured(2, &files)).await;
    let reload = async || {
        let mut done = Vec::new();
        for node in [&one, &two] {
            done.push(node.links.reload().await.unwrap());
        }
        done
    };
    let calls = async {
        loop {
            assert!(two.call(&one, "on and on").await.is_ok());
        }
    };
    let rotate = async {
        assert_eq!(reload().await, [Reloaded::Same; 2]);
        files.trust(&[&old, &new]);
        assert_eq!(reload().await, [Reloaded::Changed; 2]);
        assert!(dials(&files, &one).await.is_ok());
        for node in 1..=2 {
            files.issue(&new, node, &name(REGION, node));
        }
        assert_eq!(reload().await, [Reloaded::Changed; 2]);
        assert!(dials(&files, &one).await.is_ok());
        files.trust(&[&new]);
        assert_eq!(reload().await, [Reloaded::Changed; 2]);
        // The last certificate of the old authority is refused now; a new one is not.
        let left_behind = Files::new(&old);
        left_behind.trust(&[&old, &new]);
        let refused = dials(&left_behind, &one).await;
        assert!(matches!(refused, Err(TransportError::Unreachable(_))));
        files.issue(&new, 3, &name(REGION, 3));
        assert!(dials(&files, &one).await.is_ok());
    };
    tokio::select! {
        () = calls => {}
        done = timeout(LONG, rotate) => done.unwrap(),
    }
    let status = two.links.status();
    assert_eq!(status.tls.unwrap().reloads, 3);
    // One connection carried through all of it.
    assert_eq!(status.peers[0].connections, 1);
    assert_eq!(status.peers[0].failed, 0);
}

#[tokio::test]
async fn bad_files_keep_the_old_certificates_and_raise_the_alarm() {
    let authority = authority();
    let files = Files::new(&authority);
    let one = Node::start(secured(1, &files)).await;
    let TlsFiles { key, .. } = files.of(1);
    let good = std::fs::read_to_string(&key).unwrap();
    for bad in ["", "-----BEGIN PRIVATE KEY-----\nAA", &authority.key()] {
        write(&key, bad);
        assert!(one.links.reload().await.is_err(), "{bad}");
        let raised = one.alarms.raised();
        assert_eq!(raised.len(), 1);
        assert_eq!(raised[0].name, "certificates");
        assert!(raised[0].detail.starts_with("what was in use stays"));
        assert!(one.links.status().tls.unwrap().error.is_some());
        assert!(dials(&files, &one).await.is_ok());
    }
    std::fs::remove_file(&key).unwrap();
    assert!(one.links.reload().await.is_err());
    write(&key, &good);
    assert_eq!(one.links.reload().await.unwrap(), Reloaded::Same);
    assert!(one.alarms.raised().is_empty());
    let tls = one.links.status().tls.unwrap();
    assert_eq!((tls.reloads, tls.error), (0, None));
}

#[tokio::test]
async fn files_are_watched() {
    let authority = authority();
    let files = Files::new(&authority);
    let mut config = secured(1, &files);
    config.limits.certificates_every = Duration::from_millis(1);
    let one = Node::start(config).await;
    files.issue(&authority, 1, &name(REGION, 1));
    let noticed = async {
        while one.links.status().tls.unwrap().reloads == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, noticed).await.unwrap();
    timeout(LONG, one.links.stop()).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_ends_soon_is_told_and_one_that_ended_is_refused() {
    let now = SystemClock.now();
    let day = Duration::from_secs(24 * 60 * 60);
    let files = Files::new(&authority());
    let clock = Arc::new(ManualClock::at(now));
    let one = Node::start_at(secured(1, &files), clock.clone()).await;
    clock.advance(day * 22);
    one.links.reload().await.unwrap();
    assert!(one.alarms.raised().is_empty());
    // A fifth of thirty days is six.
    clock.advance(day * 3);
    one.links.reload().await.unwrap();
    let detail = one.alarms.raised()[0].detail.clone();
    assert!(
        detail.starts_with("this edge's certificate ends at "),
        "{detail}"
    );
    clock.advance(day * 6);
    let late = Links::start(secured(2, &files), clock, alarms()).await;
    let why = late.err().unwrap().to_string();
    assert!(why.contains("expired"), "{why}");
    assert_eq!(Alarm::Certificates.as_str(), "certificates");
}
