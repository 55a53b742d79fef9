#![allow(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    reason = "test code"
)]

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::*;

mod abuse;
mod frames;
mod secure;

/// Echoes the body; does more on some paths.
#[derive(Default)]
struct Door {
    begun: AtomicUsize,
    ended: AtomicUsize,
    turned_away: AtomicUsize,
    go_on: Notify,
}

impl Handler for Door {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response<Bytes>> {
        Box::pin(async move {
            self.begun.fetch_add(1, Ordering::SeqCst);
            match request.parts.uri.path() {
                "/known" => request.vouch.known(),
                "/panic" => panic!("asked to"),
                "/wait" => self.go_on.notified().await,
                "/huge" => {
                    self.ended.fetch_add(1, Ordering::SeqCst);
                    return Response::new(Bytes::from(vec![b'x'; 64 * 1024 * 1024]));
                }
                _ => {}
            }
            self.ended.fetch_add(1, Ordering::SeqCst);
            Response::new(request.body)
        })
    }

    fn turned_away(&self, _problem: &Problem) {
        self.turned_away.fetch_add(1, Ordering::SeqCst);
    }
}

struct Running {
    door: Arc<Door>,
    address: SocketAddr,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<Stopped>,
}

const SHORT: Duration = Duration::from_millis(200);
/// Longer than anything here should take; reaching it is a failure.
const LONG: Duration = Duration::from_secs(20);

fn limits() -> ServerLimits {
    ServerLimits {
        connections: 8,
        body_bytes: 64,
        idle_timeout: LONG,
        header_timeout: LONG,
        body_timeout: LONG,
        write_timeout: LONG,
        grace: LONG,
        ..ServerLimits::default()
    }
}

async fn start(limits: ServerLimits) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let door = Arc::new(Door::default());
    let stop = CancellationToken::new();
    let handler: Arc<dyn Handler> = Arc::clone(&door) as Arc<dyn Handler>;
    let serving = tokio::spawn(serve(listener, None, handler, limits, stop.clone()));
    Running {
        door,
        address,
        stop,
        serving,
    }
}

impl Running {
    async fn client(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn client_from(&self, last: u8) -> TcpStream {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, last], 0).into()).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    async fn stopped(self) -> Stopped {
        self.stop.cancel();
        timeout(LONG, self.serving).await.unwrap().unwrap()
    }
}

async fn until(what: impl Fn() -> bool) {
    let waited = timeout(LONG, async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    waited.await.expect("the condition became true in time");
}

/// Everything the server says until it closes.
async fn rest(client: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = timeout(LONG, client.read_to_end(&mut bytes)).await;
    // A reset after unread bytes is a close as well.
    drop(read.expect("the server closes the connection in time"));
    String::from_utf8(bytes).unwrap()
}

async fn one_response(client: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let reading = async {
        let mut chunk = [0; 1024];
        while !text.ends_with(end) {
            let n = client.read(&mut chunk).await.unwrap();
            assert!(n > 0, "closed after {text:?}");
            text.push_str(std::str::from_utf8(&chunk[..n]).unwrap());
        }
    };
    timeout(LONG, reading).await.unwrap();
    text
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn a_kept_connection_answers_again_and_again() {
    let running = start(limits()).await;
    let mut client = running.client().await;
    for body in ["one", "two", "three"] {
        client.write_all(post("/", body).as_bytes()).await.unwrap();
        let response = one_response(&mut client, body).await;
        assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
    }
    assert_eq!(running.stopped().await, Stopped::Clean);
    assert_eq!(rest(&mut client).await, "");
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let running = start(ServerLimits {
        header_timeout: SHORT,
        ..limits()
    })
    .await;
    let began = Instant::now();
    assert_eq!(rest(&mut running.client().await).await, "");
    assert!(began.elapsed() >= SHORT);
}

#[tokio::test]
async fn a_head_that_trickles_is_cut_on_a_fresh_and_on_a_kept_connection() {
    let running = start(ServerLimits {
        header_timeout: SHORT,
        ..limits()
    })
    .await;
    let mut fresh = running.client().await;
    let mut kept = running.client().await;
    kept.write_all(post("/", "one").as_bytes()).await.unwrap();
    one_response(&mut kept, "one").await;
    for client in [&mut fresh, &mut kept] {
        let began = Instant::now();
        let trickle = async {
            for byte in "POST / HTTP/1.1\r\nx: "
                .bytes()
                .chain(std::iter::repeat(b'x'))
            {
                if client.write_all(&[byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, trickle)
            .await
            .expect("the server closes in time");
        assert!(began.elapsed() < LONG / 2);
    }
    assert_eq!(running.door.begun.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_idle_connection_outlives_the_header_timeout_but_not_the_idle_one() {
    let idle = SHORT * 3;
    let running = start(ServerLimits {
        header_timeout: SHORT,
        idle_timeout: idle,
        ..limits()
    })
    .await;
    let mut client = running.client().await;
    let request = post("/known", "one");
    client.write_all(request.as_bytes()).await.unwrap();
    one_response(&mut client, "one").await;
    let began = Instant::now();
    assert_eq!(rest(&mut client).await, "");
    let lasted = began.elapsed();
    assert!(lasted > SHORT * 2 && lasted < LONG / 2, "{lasted:?}");
}

#[tokio::test]
async fn a_stranger_is_not_idle_for_longer_than_a_head_may_take() {
    let running = start(ServerLimits {
        header_timeout: SHORT,
        idle_timeout: LONG * 2,
        ..limits()
    })
    .await;
    let mut client = running.client().await;
    for body in ["one", "two"] {
        client.write_all(post("/", body).as_bytes()).await.unwrap();
        one_response(&mut client, body).await;
    }
    // Without the rule it would be as long as who is known: longer than this waits.
    assert_eq!(rest(&mut client).await, "");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_a_408_and_a_close() {
    let running = start(ServerLimits {
        body_timeout: SHORT,
        ..limits()
    })
    .await;
    let mut client = running.client().await;
    let head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc";
    client.write_all(head.as_bytes()).await.unwrap();
    let response = rest(&mut client).await;
    assert!(response.starts_with("HTTP/1.1 408"), "{response}");
    assert!(
        response.contains("urn:standin:problem:request-timeout"),
        "{response}"
    );
    assert!(response.contains("connection: close"), "{response}");
    assert_eq!(running.door.begun.load(Ordering::SeqCst), 0);
    assert_eq!(running.door.turned_away.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_a_413_whether_declared_or_chunked() {
    let running = start(limits()).await;
    let declared = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 65\r\n\r\n".to_owned();
    let huge = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n".to_owned();
    let chunk = "x".repeat(65);
    let chunked = format!(
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n41\r\n{chunk}\r\n"
    );
    for head in [declared, huge, chunked] {
        let mut client = running.client().await;
        client.write_all(head.as_bytes()).await.unwrap();
        let response = rest(&mut client).await;
        assert!(response.starts_with("HTTP/1.1 413"), "{response}");
        assert!(response.contains(r#""limit_bytes":64"#), "{response}");
    }
    let mut client = running.client().await;
    let fits = "x".repeat(64);
    client.write_all(post("/", &fits).as_bytes()).await.unwrap();
    one_response(&mut client, &fits).await;
    assert_eq!(running.door.begun.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_a_431() {
    let running = start(ServerLimits {
        headers: 10,
        header_bytes: 8 * 1024,
        ..limits()
    })
    .await;
    let many: String = (0..11).map(|n| format!("x-{n}: y\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(9 * 1024));
    for headers in [many, long] {
        let mut client = running.client().await;
        let head = format!("GET / HTTP/1.1\r\n{headers}\r\n");
        // The server may close before it has read all of it.
        drop(client.write_all(head.as_bytes()).await);
        let response = rest(&mut client).await;
        assert!(response.starts_with("HTTP/1.1 431"), "{response}");
    }
    assert_eq!(running.door.begun.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_is_not_http_is_a_400() {
    let running = start(limits()).await;
    for bytes in [
        "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        "HELLO\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3x\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let mut client = running.client().await;
        client.write_all(bytes.as_bytes()).await.unwrap();
        let response = rest(&mut client).await;
        assert!(
            response.starts_with("HTTP/1.1 400"),
            "{bytes:?}: {response}"
        );
    }
    assert_eq!(running.door.begun.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_body_cut_short_never_reaches_the_handler() {
    let running = start(limits()).await;
    let mut client = running.client().await;
    let head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc";
    client.write_all(head.as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    rest(&mut client).await;
    let door = Arc::clone(&running.door);
    assert_eq!(running.stopped().await, Stopped::Clean);
    assert_eq!(door.begun.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_request_whose_client_went_away_runs_to_its_end_and_holds_its_place() {
    let running = start(ServerLimits {
        connections: 1,
        ..limits()
    })
    .await;
    let door = Arc::clone(&running.door);
    let mut client = running.client().await;
    client
        .write_all(post("/wait", "x").as_bytes())
        .await
        .unwrap();
    until(|| door.begun.load(Ordering::SeqCst) == 1).await;
    drop(client);

    let mut next = running.client().await;
    next.write_all(post("/", "two").as_bytes()).await.unwrap();
    let early = timeout(SHORT, one_response(&mut next, "two")).await;
    assert!(
        early.is_err(),
        "the first request still holds the only place"
    );
    assert_eq!(door.ended.load(Ordering::SeqCst), 0);

    door.go_on.notify_one();
    one_response(&mut next, "two").await;
    assert_eq!(door.ended.load(Ordering::SeqCst), 2);
    assert_eq!(running.stopped().await, Stopped::Clean);
}

#[tokio::test]
async fn a_panic_is_a_500_of_that_request_only() {
    let running = start(limits()).await;
    let mut client = running.client().await;
    client
        .write_all(post("/panic", "x").as_bytes())
        .await
        .unwrap();
    let response = one_response(&mut client, "}").await;
    assert!(response.starts_with("HTTP/1.1 500"), "{response}");
    assert!(
        response.contains("urn:standin:problem:internal"),
        "{response}"
    );
    client
        .write_all(post("/", "again").as_bytes())
        .await
        .unwrap();
    one_response(&mut client, "again").await;
}

#[tokio::test]
async fn a_client_that_takes_no_response_is_cut() {
    let running = start(ServerLimits {
        connections: 1,
        write_timeout: SHORT,
        ..limits()
    })
    .await;
    let mut slow = running.client().await;
    slow.write_all(post("/huge", "x").as_bytes()).await.unwrap();
    let mut next = running.client().await;
    next.write_all(post("/", "two").as_bytes()).await.unwrap();
    one_response(&mut next, "two").await;
    assert!(rest(&mut slow).await.len() < 64 * 1024 * 1024);
}

#[tokio::test]
async fn stopping_finishes_what_was_begun_and_takes_nothing_more() {
    let running = start(limits()).await;
    let door = Arc::clone(&running.door);
    let mut client = running.client().await;
    client
        .write_all(post("/wait", "last").as_bytes())
        .await
        .unwrap();
    until(|| door.begun.load(Ordering::SeqCst) == 1).await;
    running.stop.cancel();
    let address = running.address;
    let refused = timeout(LONG, async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    refused.await.unwrap();
    door.go_on.notify_one();
    let response = rest(&mut client).await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    assert!(
        response.contains("connection: close") && response.ends_with("last"),
        "{response}"
    );
    assert_eq!(running.stopped().await, Stopped::Clean);
}

#[tokio::test]
async fn clients_that_are_to_leave_are_answered_first_also_new_ones() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let door = Arc::new(Door::default());
    let (leave, stop) = (CancellationToken::new(), CancellationToken::new());
    let ending = Ending {
        leave: leave.clone(),
        stop: stop.clone(),
    };
    let handler: Arc<dyn Handler> = Arc::clone(&door) as Arc<dyn Handler>;
    let serving = tokio::spawn(serve(listener, None, handler, limits(), ending));
    let connect = || async { TcpStream::connect(address).await.unwrap() };
    let mut kept = connect().await;
    kept.write_all(post("/", "one").as_bytes()).await.unwrap();
    let response = one_response(&mut kept, "one").await;
    assert!(!response.contains("connection: close"), "{response}");
    let mut busy = connect().await;
    busy.write_all(post("/wait", "two").as_bytes())
        .await
        .unwrap();
    until(|| door.begun.load(Ordering::SeqCst) == 2).await;
    let mut silent = connect().await;
    leave.cancel();
    // Who has had an answer is sent away; who waits for one gets it, and so does who has not asked yet.
    assert_eq!(rest(&mut kept).await, "");
    door.go_on.notify_one();
    let last = rest(&mut busy).await;
    assert!(
        last.contains("connection: close") && last.ends_with("two"),
        "{last}"
    );
    let mut fresh = connect().await;
    for client in [&mut silent, &mut fresh] {
        client
            .write_all(post("/wait", "three").as_bytes())
            .await
            .unwrap();
        door.go_on.notify_one();
        let only = rest(client).await;
        assert!(
            only.contains("connection: close") && only.ends_with("three"),
            "{only}"
        );
    }
    stop.cancel();
    assert_eq!(
        timeout(LONG, serving).await.unwrap().unwrap(),
        Stopped::Clean
    );
}

#[tokio::test]
async fn stopping_says_what_the_grace_did_not_suffice_for() {
    let running = start(ServerLimits {
        grace: SHORT,
        ..limits()
    })
    .await;
    let door = Arc::clone(&running.door);
    let mut client = running.client().await;
    client
        .write_all(post("/wait", "x").as_bytes())
        .await
        .unwrap();
    until(|| door.begun.load(Ordering::SeqCst) == 1).await;
    assert_eq!(running.stopped().await, Stopped::TimedOut { left: 2 });
    assert_eq!(rest(&mut client).await, "");
}

#[tokio::test]
async fn places_are_kept_where_a_known_sender_has_spoken_from() {
    let running = start(ServerLimits {
        connections: 2,
        connections_kept: 1,
        ..limits()
    })
    .await;
    let ask = async |client: &mut TcpStream, path: &str| {
        client.write_all(post(path, "x").as_bytes()).await.unwrap();
        one_response(client, "x").await
    };
    let mut bank = running.client_from(3).await;
    ask(&mut bank, "/known").await;
    let mut stranger = running.client_from(2).await;
    ask(&mut stranger, "/").await;
    // The places are taken: a stranger hears so at once, the bank has one more.
    assert_eq!(rest(&mut running.client_from(2).await).await, "");
    let mut again = running.client_from(3).await;
    ask(&mut again, "/").await;
    // What becomes free is anyone's.
    drop(stranger);
    let next = async {
        loop {
            let mut next = running.client_from(2).await;
            next.write_all(post("/", "x").as_bytes()).await.unwrap();
            if rest_or_response(&mut next).await {
                return;
            }
        }
    };
    timeout(LONG, next).await.unwrap();
    drop((bank, again));
    assert_eq!(running.stopped().await, Stopped::Clean);
}

/// Whether a response came before the connection ended.
async fn rest_or_response(client: &mut TcpStream) -> bool {
    let mut some = [0];
    matches!(timeout(LONG, client.read(&mut some)).await.unwrap(), Ok(1))
}

#[test]
fn a_request_that_comes_with_the_end_of_the_handshake_has_waited_through_it() {
    let at = Instant::now();
    let after = |ms| at + Duration::from_millis(ms);
    let greeted = Greeted {
        at,
        over: after(600),
    };
    assert_eq!(waits_since(after(610), Some(&greeted)), at);
    assert_eq!(waits_since(after(700), Some(&greeted)), after(700));
    assert_eq!(waits_since(after(610), None), after(610));
}
