//! Ends that are slow, gone, or speak nonsense.

use tokio::net::TcpListener;

use super::*;

/// Accepts a connection as node 2 and lets it begin.
async fn accept(listener: &TcpListener) -> (TcpStream, Lane) {
    let (mut stream, _) = timeout(LONG, listener.accept()).await.unwrap().unwrap();
    let hello = next(&mut stream).await.unwrap();
    let hello: Hello = serde_json::from_slice(&hello.body).unwrap();
    send(
        &mut stream,
        &json(Kind::Welcome, &Welcome { node: hello.to }),
    )
    .await;
    (stream, hello.lane)
}

async fn listener() -> (TcpListener, Member) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let member = member(listener.local_addr().unwrap());
    (listener, member)
}

#[tokio::test]
async fn a_node_that_reads_nothing_costs_its_own_calls_only() {
    let mut config = plain(1);
    config.limits.calls_max = 8;
    config.limits.silence_max = LONG;
    config.limits.quick_bytes_max = 1024 * 1024;
    config.limits.frame_bytes_max = 64 * 1024 * 1024;
    config.limits.quick_window_bytes = 64 * 1024 * 1024;
    let one = Node::start(config).await;
    let three = Node::start(plain(3)).await;
    let (listener, frozen) = listener().await;
    let large = Bytes::from(vec![7; 1024 * 1024]);
    let call = |patience| one.links.call(NodeId(2), &frozen, large.clone(), patience);
    let (first, (_unread, _)) = tokio::join!(call(Duration::from_millis(200)), accept(&listener));
    assert!(
        matches!(first, Err(TransportError::NoReply(_))),
        "{first:?}"
    );
    // Nobody waits for these any more, but what sockets do not take holds its part of the window.
    let busy = async {
        loop {
            let given_up = call(Duration::from_millis(1)).await;
            match given_up {
                Err(TransportError::NoReply(why)) if why.starts_with("busy") => return,
                Err(TransportError::NoReply(why)) if why == "none in time" => {}
                other => panic!("neither sent nor refused: {other:?}"),
            }
        }
    };
    timeout(LONG, busy).await.unwrap();
    assert!(one.call(&three, "others").await.is_ok());
    assert_eq!(one.links.status().peers[0].calls, 8);
}

#[tokio::test]
async fn a_stuck_snapshot_does_not_delay_what_is_quick() {
    let one = Node::start(plain(1)).await;
    let (listener, member) = listener().await;
    let snapshot = Bytes::from(vec![7; 32 * 1024 * 1024]);
    let bulk = one.links.call(NodeId(2), &member, snapshot, LONG);
    let quick = async {
        let (_stuck, lane) = accept(&listener).await;
        assert_eq!(lane, Lane::Bulk);
        let heartbeat = Bytes::from_static(b"heartbeat");
        let call = one.links.call(NodeId(2), &member, heartbeat, LONG);
        let answer = async {
            let (mut stream, lane) = accept(&listener).await;
            assert_eq!(lane, Lane::Quick);
            let mut frame = next(&mut stream).await.unwrap();
            frame.kind = Kind::Reply;
            send(&mut stream, &frame).await;
            stream
        };
        let (reply, _open) = tokio::join!(call, answer);
        reply
    };
    tokio::select! {
        done = bulk => panic!("the snapshot was not to end: {done:?}"),
        reply = quick => assert_eq!(reply.unwrap(), "heartbeat"),
    }
}

#[tokio::test]
async fn a_connection_without_a_word_is_given_up_and_dialled_anew() {
    let mut config = plain(1);
    config.limits.silence_max = Duration::from_millis(20);
    config.limits.rest_min = Duration::from_millis(1);
    let one = Node::start(config).await;
    let (listener, member) = listener().await;
    let calling = async {
        loop {
            let request = Bytes::from_static(b"anyone?");
            let patience = Duration::from_millis(10);
            drop(one.links.call(NodeId(2), &member, request, patience).await);
            tokio::task::yield_now().await;
        }
    };
    let dialled_twice = async {
        let (first, _) = accept(&listener).await;
        let (second, _) = accept(&listener).await;
        is_closed(first).await;
        second
    };
    tokio::select! {
        () = calling => {}
        done = timeout(LONG, dialled_twice) => drop(done.unwrap()),
    }
    let last = one.links.status().peers[0].last_error.clone().unwrap();
    assert!(last.contains("no reply"), "{last}");
}

#[tokio::test]
async fn a_node_that_hangs_up_each_time_is_not_dialled_all_the_time() {
    let mut config = plain(1);
    config.limits.rest_min = LONG;
    config.limits.rest_max = LONG;
    let one = Node::start(config).await;
    let (listener, member) = listener().await;
    let call = || {
        let request = Bytes::from_static(b"hello?");
        one.links.call(NodeId(2), &member, request, LONG)
    };
    let (failed, ()) = tokio::join!(call(), async { drop(accept(&listener).await) });
    assert!(failed.is_err());
    let rested = async {
        loop {
            if let Err(TransportError::Unreachable(why)) = call().await {
                return why;
            }
            tokio::task::yield_now().await;
        }
    };
    let why = timeout(LONG, rested).await.unwrap();
    assert!(why.contains("closed") || why.contains("reset"), "{why}");
    assert_eq!(one.links.status().peers[0].connections, 1);
}

#[tokio::test]
async fn garbage_ends_a_connection_before_and_after_the_hello() {
    let one = Node::start(plain(1)).await;
    let address = one.links.address().unwrap();
    let mut stranger = TcpStream::connect(address).await.unwrap();
    stranger
        .write_all(b"GET / HTTP/1.1\r\nHost: keeper\r\n\r\n")
        .await
        .unwrap();
    is_closed(stranger).await;
    let status = one.links.status();
    assert_eq!(status.turned_away, 1);
    assert_eq!(
        status.last_turned_away.as_deref(),
        Some("these are no frames of ours")
    );

    let mut known = welcomed(&one, Lane::Quick).await;
    known.write_all(&[0xA5; 64]).await.unwrap();
    is_closed(known).await;

    let mut backwards = welcomed(&one, Lane::Quick).await;
    let reply = Frame {
        kind: Kind::Reply,
        id: 1,
        body: Bytes::new(),
    };
    send(&mut backwards, &reply).await;
    is_closed(backwards).await;
}

#[tokio::test]
async fn a_frame_that_is_too_large_ends_its_connection_before_it_is_read() {
    let mut config = plain(1);
    // Not for stalling.
    config.limits.stall_max = LONG * 2;
    let one = Node::start(config).await;
    let mut known = welcomed(&one, Lane::Quick).await;
    let mut bytes = Vec::new();
    let frame = Frame {
        kind: Kind::Request,
        id: 1,
        body: vec![0; LinkLimits::default().quick_bytes_max + 1].into(),
    };
    frame::write(&mut bytes, &frame, LONG).await.unwrap();
    known
        .write_all(&bytes[..frame::HEADER_BYTES])
        .await
        .unwrap();
    is_closed(known).await;
    // On the other lane it is no more than usual.
    let mut bulk = welcomed(&one, Lane::Bulk).await;
    bulk.write_all(&bytes).await.unwrap();
    assert_eq!(next(&mut bulk).await.unwrap().kind, Kind::Reply);
}

#[tokio::test]
async fn another_version_is_told_so() {
    let one = Node::start(plain(1)).await;
    let mut stream = TcpStream::connect(one.links.address().unwrap())
        .await
        .unwrap();
    let mut bytes = Vec::new();
    let hello = json(Kind::Hello, &hello(2, 1, Lane::Quick));
    frame::write(&mut bytes, &hello, LONG).await.unwrap();
    bytes[4] = 9;
    stream.write_all(&bytes).await.unwrap();
    let refused = next(&mut stream).await.unwrap();
    assert_eq!(refused.kind, Kind::Refused);
    assert_eq!(refused.body, "frames of version 9, ours are of version 1");
}

#[tokio::test]
async fn the_newest_connection_of_a_node_takes_the_place_of_the_older() {
    let one = Node::start(plain(1)).await;
    let older = welcomed(&one, Lane::Quick).await;
    let bulk = welcomed(&one, Lane::Bulk).await;
    let mut newer = welcomed(&one, Lane::Quick).await;
    is_closed(older).await;
    let request = Frame {
        kind: Kind::Request,
        id: 9,
        body: Bytes::from_static(b"newer"),
    };
    for mut stream in [&mut newer, &mut { bulk }] {
        send(&mut stream, &request).await;
        let reply = next(&mut stream).await.unwrap();
        assert_eq!((reply.kind, reply.id), (Kind::Reply, 9));
    }
    let callers = one.links.status().callers;
    assert_eq!(callers.len(), 2);
}

#[tokio::test]
async fn more_requests_than_a_caller_may_have_are_told_that_it_is_busy() {
    let mut config = plain(1);
    config.limits.calls_max = 1;
    let one = Node::start(config).await;
    let mut stream = welcomed(&one, Lane::Quick).await;
    let request = |id, body| Frame {
        kind: Kind::Request,
        id,
        body: Bytes::from_static(body),
    };
    send(&mut stream, &request(1, b"hold")).await;
    one.hear().await;
    send(&mut stream, &request(2, b"second")).await;
    let busy = next(&mut stream).await.unwrap();
    assert_eq!((busy.kind, busy.id), (Kind::Busy, 2));
    // Dialling again does not make the share larger: the first is still under way.
    let mut again = welcomed(&one, Lane::Quick).await;
    send(&mut again, &request(3, b"third")).await;
    assert_eq!(next(&mut again).await.unwrap().kind, Kind::Busy);
    one.script.release("hold");
    let answered = async {
        loop {
            send(&mut again, &request(4, b"fourth")).await;
            if next(&mut again).await.unwrap().kind == Kind::Reply {
                return;
            }
        }
    };
    timeout(LONG, answered).await.unwrap();
}
