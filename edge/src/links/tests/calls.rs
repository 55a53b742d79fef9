//! Calls between nodes that mean well.

use super::*;

async fn two_nodes(secure: bool) -> (Node, Node) {
    let files = Files::new(&authority());
    let config = |node| {
        if secure {
            secured(node, &files)
        } else {
            plain(node)
        }
    };
    (Node::start(config(1)).await, Node::start(config(2)).await)
}

async fn replies_overtake_each_other(secure: bool) {
    let (one, two) = two_nodes(secure).await;
    let held = one.call(&two, "hold");
    let others = async {
        assert_eq!(two.hear().await, (1, "hold".into()));
        assert_eq!(one.call(&two, "quick").await.unwrap(), "quick");
        two.script.release("hold");
    };
    let (held, ()) = tokio::join!(held, others);
    assert_eq!(held.unwrap(), "hold");
    let status = one.links.status();
    let peer = &status.peers[0];
    assert_eq!((peer.answered, peer.failed, peer.connections), (2, 0, 1));
    assert!(peer.connected && !peer.bulk_connected);
    assert_eq!(status.tls.is_some(), secure);
}

#[tokio::test]
async fn replies_overtake_each_other_in_the_plain() {
    replies_overtake_each_other(false).await;
}

#[tokio::test]
async fn replies_overtake_each_other_under_tls() {
    replies_overtake_each_other(true).await;
}

#[tokio::test]
async fn both_ends_call_and_large_requests_arrive_whole() {
    let (one, two) = two_nodes(true).await;
    assert_eq!(two.call(&one, "back").await.unwrap(), "back");
    let large: Bytes = (0..3_000_000_u32).map(|at| at.to_le_bytes()[1]).collect();
    let reply = one
        .links
        .call(NodeId(2), &two.member(), large.clone(), LONG)
        .await;
    assert!(reply.unwrap() == large);
    assert!(one.links.status().peers[0].bulk_connected);
    let empty = one
        .links
        .call(NodeId(2), &two.member(), Bytes::new(), LONG)
        .await;
    assert_eq!(empty.unwrap(), Bytes::new());
}

#[tokio::test]
async fn a_full_window_refuses_at_once() {
    let mut config = plain(1);
    config.limits.calls_max = 2;
    config.limits.quick_bytes_max = 64;
    config.limits.quick_window_bytes = 64;
    let one = Node::start(config).await;
    let two = Node::start(plain(2)).await;
    let refused = async {
        two.hear().await;
        two.hear().await;
        let busy = one.call(&two, "third").await.unwrap_err();
        assert!(matches!(&busy, TransportError::NoReply(why) if why.starts_with("busy")));
        two.script.release("hold 1");
        two.script.release("hold 2");
    };
    let (first, second, ()) =
        tokio::join!(one.call(&two, "hold 1"), one.call(&two, "hold 2"), refused);
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(one.call(&two, "fourth").await.unwrap(), "fourth");
    assert_eq!(one.links.status().peers[0].busy, 1);

    // The same by bytes: 40 of 64 are under way, 40 more do not fit.
    let forty = "hold 3 ................................";
    let refused = async {
        while two.hear().await.1 != forty {}
        let busy = one.call(&two, forty).await.unwrap_err();
        assert!(matches!(&busy, TransportError::NoReply(why) if why.starts_with("busy")));
        assert_eq!(one.call(&two, "small").await.unwrap(), "small");
        two.script.release(forty);
    };
    let (held, ()) = tokio::join!(one.call(&two, forty), refused);
    assert!(held.is_ok());
}

#[tokio::test]
async fn a_node_that_was_killed_is_dialled_again() {
    let one = Node::start(plain(1)).await;
    let two = Node::start(plain(2)).await;
    assert!(one.call(&two, "before").await.is_ok());
    let address = two.links.address();
    two.links.stop().await;
    let gone = one.call(&two, "meanwhile").await;
    // The first may still have found the old connection.
    let gone = if matches!(gone, Err(TransportError::NoReply(_))) {
        one.call(&two, "meanwhile").await
    } else {
        gone
    };
    assert!(
        matches!(gone, Err(TransportError::Unreachable(_))),
        "{gone:?}"
    );
    let mut config = plain(2);
    config.listen = address;
    let again = Node::start(config).await;
    one.call_until_answered(&again, "after").await;
}

#[tokio::test]
async fn a_node_that_moved_is_dialled_where_it_is() {
    let one = Node::start(plain(1)).await;
    let two = Node::start(plain(2)).await;
    assert!(one.call(&two, "here").await.is_ok());
    let elsewhere = Node::start(plain(2)).await;
    assert_eq!(one.call(&elsewhere, "there").await.unwrap(), "there");
    assert_eq!(elsewhere.hear().await, (1, "there".into()));
    assert_eq!(one.links.status().peers.len(), 1);
}

#[tokio::test]
async fn an_unused_connection_ends_and_the_next_call_dials_again() {
    let mut config = plain(1);
    config.limits.idle_after = Duration::from_millis(1);
    let one = Node::start(config).await;
    let two = Node::start(plain(2)).await;
    let twice = async {
        for connections in 1..=2 {
            one.call_until_answered(&two, "again").await;
            assert_eq!(one.links.status().peers[0].connections, connections);
            while one.links.status().peers[0].connected {
                tokio::task::yield_now().await;
            }
        }
    };
    timeout(LONG, twice).await.unwrap();
    assert_eq!(one.links.status().peers[0].last_error, None);
}

#[tokio::test]
async fn stopping_ends_what_is_under_way() {
    let one = Node::start(plain(1)).await;
    let two = Node::start(plain(2)).await;
    let stopped = async {
        two.hear().await;
        timeout(LONG, one.links.stop()).await.unwrap();
    };
    let (held, ()) = tokio::join!(one.call(&two, "hold"), stopped);
    assert!(matches!(held, Err(TransportError::NoReply(_))), "{held:?}");
    let after = one.call(&two, "after").await;
    assert!(
        matches!(after, Err(TransportError::Unreachable(_))),
        "{after:?}"
    );
    // The request is still held there: stopping drops it.
    timeout(LONG, two.links.stop()).await.unwrap();
    assert!(two.links.shared.tasks.is_empty());
}

#[tokio::test]
async fn a_panic_fails_its_own_request_only() {
    let (one, two) = two_nodes(false).await;
    let panicked = one.call(&two, "panic").await.unwrap_err();
    let expected = TransportError::NoReply("the other end failed at it".to_owned());
    assert_eq!(panicked, expected);
    assert!(one.call(&two, "next").await.is_ok());
    assert_eq!(one.links.status().peers[0].connections, 1);
}

#[tokio::test]
async fn who_is_served_and_called_is_checked() {
    let (one, two) = two_nodes(false).await;
    let twice = one.links.serve(two.script.clone());
    assert_eq!(twice, Err(ServeError::Twice));
    let silent = Node::start(LinksConfig {
        listen: None,
        ..plain(3)
    })
    .await;
    let nowhere = silent.links.serve(two.script.clone());
    assert_eq!(nowhere, Err(ServeError::NoAddress));
    assert!(silent.call(&one, "out only").await.is_ok());
    let itself = one.call(&one, "me").await;
    assert!(matches!(itself, Err(TransportError::Unreachable(_))));
}
