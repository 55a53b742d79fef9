//! Messages with their length before them.

use tokio::net::tcp::OwnedReadHalf;

use super::super::frames::{Frame, Frames, Reply};
use super::*;

/// Sends a message back; does more for some.
#[derive(Default)]
struct Echo {
    door: Door,
    begun: AtomicUsize,
    go_on: Notify,
}

impl Frames for Echo {
    fn answer(&self, frame: Frame) -> BoxFuture<'_, Reply> {
        Box::pin(async move {
            self.begun.fetch_add(1, Ordering::SeqCst);
            match frame.bytes.as_ref() {
                b"wait" => self.go_on.notified().await,
                b"panic" => panic!("asked to"),
                b"nothing" => return Reply::Nothing,
                b"close" => return Reply::Close,
                b"huge" => return Reply::Bytes(Bytes::from(vec![b'x'; 60_000])),
                _ => {}
            }
            Reply::Bytes(frame.bytes)
        })
    }
}

impl Handler for Echo {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response<Bytes>> {
        self.door.handle(request)
    }
}

struct Line {
    echo: Arc<Echo>,
    address: SocketAddr,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<Stopped>,
}

async fn line(limits: ServerLimits) -> Line {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let echo = Arc::new(Echo::default());
    let handler: Arc<dyn Handler> = Arc::<Echo>::clone(&echo);
    let frames: Arc<dyn Frames> = Arc::<Echo>::clone(&echo);
    let stop = CancellationToken::new();
    let serving = serve_frames(listener, None, (handler, frames), limits, stop.clone());
    Line {
        echo,
        address,
        stop,
        serving: tokio::spawn(serving),
    }
}

impl Line {
    async fn client(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn stopped(self) -> Stopped {
        self.stop.cancel();
        timeout(LONG, self.serving).await.unwrap().unwrap()
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut bytes = (message.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    bytes
}

async fn receive(from: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let receiving = async {
        let mut length = [0; 2];
        from.read_exact(&mut length).await.ok()?;
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        from.read_exact(&mut message).await.ok()?;
        Some(message)
    };
    timeout(LONG, receiving).await.expect("in time")
}

/// Whether the server closes, and says nothing before it does.
async fn closes(client: &mut TcpStream) -> bool {
    rest(client).await.is_empty()
}

#[tokio::test]
async fn messages_overlap_and_each_is_answered_when_it_is_done() {
    let line = line(limits()).await;
    let mut client = line.client().await;
    for message in [b"wait".as_slice(), b"nothing", b"one", b"two"] {
        client.write_all(&framed(message)).await.unwrap();
    }
    let mut first = [receive(&mut client).await, receive(&mut client).await];
    first.sort();
    assert_eq!(first, [Some(b"one".to_vec()), Some(b"two".to_vec())]);
    line.echo.go_on.notify_one();
    assert_eq!(receive(&mut client).await, Some(b"wait".to_vec()));
    assert_eq!(line.stopped().await, Stopped::Clean);
}

#[tokio::test]
async fn what_was_read_is_answered_before_the_connection_ends() {
    let line = line(limits()).await;
    let mut client = line.client().await;
    client.write_all(&framed(b"wait")).await.unwrap();
    until(|| line.echo.begun.load(Ordering::SeqCst) == 1).await;
    line.stop.cancel();
    line.echo.go_on.notify_one();
    assert_eq!(receive(&mut client).await, Some(b"wait".to_vec()));
    assert_eq!(receive(&mut client).await, None);
    assert_eq!(line.stopped().await, Stopped::Clean);
}

#[tokio::test]
async fn a_client_that_half_closes_hears_the_rest() {
    let line = line(limits()).await;
    let (mut from, mut to) = line.client().await.into_split();
    to.write_all(&framed(b"one")).await.unwrap();
    to.shutdown().await.unwrap();
    let from: &mut OwnedReadHalf = &mut from;
    assert_eq!(receive(from).await, Some(b"one".to_vec()));
    assert_eq!(receive(from).await, None);
    assert_eq!(line.stopped().await, Stopped::Clean);
}

#[tokio::test]
async fn lengths_that_no_message_has_end_the_connection() {
    let line = line(limits()).await;
    for length in [0_u16, 65, u16::MAX] {
        let mut client = line.client().await;
        client.write_all(&length.to_be_bytes()).await.unwrap();
        assert!(closes(&mut client).await, "{length}");
    }
    assert_eq!(line.echo.begun.load(Ordering::SeqCst), 0);
    assert_eq!(line.stopped().await, Stopped::Clean);
}

#[tokio::test]
async fn silence_between_and_inside_messages_ends_the_connection() {
    let line = line(ServerLimits {
        idle_timeout: SHORT,
        body_timeout: SHORT,
        ..limits()
    })
    .await;
    for begun in [b"".as_slice(), &[0], &[0, 9], &[0, 9, b'x']] {
        let mut client = line.client().await;
        client.write_all(begun).await.unwrap();
        assert!(closes(&mut client).await, "{begun:?}");
    }
    assert_eq!(line.stopped().await, Stopped::Clean);
}

#[tokio::test]
async fn a_panic_and_a_stranger_end_their_connection_only() {
    let line = line(limits()).await;
    let mut other = line.client().await;
    for message in [b"panic".as_slice(), b"close"] {
        let mut client = line.client().await;
        client.write_all(&framed(message)).await.unwrap();
        assert!(closes(&mut client).await);
    }
    other.write_all(&framed(b"one")).await.unwrap();
    assert_eq!(receive(&mut other).await, Some(b"one".to_vec()));
    assert_eq!(line.stopped().await, Stopped::Clean);
}

#[tokio::test]
async fn a_client_that_takes_no_answers_is_cut_and_read_from_no_more() {
    let line = line(ServerLimits {
        write_timeout: SHORT,
        streams: 4,
        ..limits()
    })
    .await;
    let mut client = line.client().await;
    let sending = async {
        // Until the server closes: more answers than the sockets hold are never taken.
        while client.write_all(&framed(b"huge")).await.is_ok() {}
    };
    timeout(LONG, sending).await.expect("the server closes");
    assert_eq!(line.stopped().await, Stopped::Clean);
}

#[tokio::test]
async fn no_more_messages_are_begun_at_once_than_one_connection_may() {
    let line = line(ServerLimits {
        streams: 2,
        ..limits()
    })
    .await;
    let mut client = line.client().await;
    for _ in 0..3 {
        client.write_all(&framed(b"wait")).await.unwrap();
    }
    until(|| line.echo.begun.load(Ordering::SeqCst) == 2).await;
    line.echo.go_on.notify_one();
    assert_eq!(receive(&mut client).await, Some(b"wait".to_vec()));
    until(|| line.echo.begun.load(Ordering::SeqCst) == 3).await;
    for _ in 0..2 {
        line.echo.go_on.notify_one();
        assert_eq!(receive(&mut client).await, Some(b"wait".to_vec()));
    }
    assert_eq!(line.stopped().await, Stopped::Clean);
}
