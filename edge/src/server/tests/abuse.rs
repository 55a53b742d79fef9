//! What a client does to an HTTP/2 connection to hurt the others. Frames are written by hand
//! (RFC 9113): a library would not send these.

use tokio_rustls::client::TlsStream;

use super::super::tls::Clients;
use super::secure::{HOST, World};
use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [head.as_slice(), payload].concat()
}

/// The fields of a POST to a path, without compression (RFC 7541).
fn fields(path: &str) -> Vec<u8> {
    let literal = |indexed: u8, text: &str| {
        [
            &[0x40 | indexed, u8::try_from(text.len()).unwrap()],
            text.as_bytes(),
        ]
        .concat()
    };
    // :method POST, :scheme https, :path, :authority
    [vec![0x83, 0x87], literal(4, path), literal(1, HOST)].concat()
}

fn request(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &fields(path))
}

struct Abuser(TlsStream<TcpStream>);

impl Abuser {
    async fn new(world: &World) -> Self {
        let mut stream = world.connect(world.client(None, b"h2")).await.unwrap();
        stream.write_all(PREFACE).await.unwrap();
        let mut abuser = Self(stream);
        abuser.write(&frame(SETTINGS, 0, 0, &[])).await;
        abuser
    }

    /// Whether it could still be written.
    async fn write(&mut self, bytes: &[u8]) -> bool {
        let written = async {
            self.0.write_all(bytes).await?;
            self.0.flush().await
        };
        timeout(LONG, written)
            .await
            .expect("the server reads or cuts")
            .is_ok()
    }

    /// Reads until the server has ended the connection; whether it said why (GOAWAY).
    async fn ended(mut self) -> bool {
        let mut bytes = Vec::new();
        let read = timeout(LONG, self.0.read_to_end(&mut bytes)).await;
        drop(read.expect("the server ends the connection"));
        let mut rest = bytes.as_slice();
        while let Some((head, after)) = rest.split_first_chunk::<9>() {
            if head[3] == GOAWAY {
                return true;
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            rest = after.get(length..).unwrap_or_default();
        }
        false
    }
}

async fn world(limits: ServerLimits) -> (Arc<Door>, World) {
    let door = Arc::new(Door::default());
    let handler: Arc<dyn Handler> = Arc::clone(&door) as Arc<dyn Handler>;
    (
        door,
        World::answered_by(handler, Clients::Any, limits).await,
    )
}

/// The others are served as if nothing were.
async fn others_are_served(world: &World) {
    assert!(world.ask(None, b"h2").await.is_some());
    assert!(world.ask(None, b"http/1.1").await.is_some());
}

#[tokio::test]
async fn resetting_requests_does_not_let_more_of_them_run() {
    const STREAMS: usize = 4;
    let (door, world) = world(ServerLimits {
        streams: STREAMS,
        ..limits()
    })
    .await;
    let mut abuser = Abuser::new(&world).await;
    let mut number = 1;
    // Each waits, and is reset at once, which makes room for the next as far as HTTP/2 knows.
    for _ in 0..500 {
        let begun = door.begun.load(Ordering::SeqCst);
        let reset = frame(RST_STREAM, 0, number, &8_u32.to_be_bytes());
        let mut sent = request(number, "/wait");
        if begun >= STREAMS {
            sent.extend(reset);
        }
        if !abuser.write(&sent).await {
            break;
        }
        if begun < STREAMS {
            until(|| door.begun.load(Ordering::SeqCst) > begun).await;
            abuser
                .write(&frame(RST_STREAM, 0, number, &8_u32.to_be_bytes()))
                .await;
        }
        number += 2;
    }
    assert_eq!(door.begun.load(Ordering::SeqCst), STREAMS);
    others_are_served(&world).await;
    drop(abuser);
    for _ in 0..STREAMS {
        door.go_on.notify_one();
        tokio::task::yield_now().await;
    }
    until(|| {
        door.go_on.notify_waiters();
        door.ended.load(Ordering::SeqCst) >= STREAMS
    })
    .await;
    world.stopped().await;
}

#[tokio::test]
async fn a_head_without_end_is_cut() {
    let (door, world) = world(limits()).await;
    let mut abuser = Abuser::new(&world).await;
    abuser
        .write(&frame(HEADERS, END_STREAM, 1, &fields("/")))
        .await;
    // A field that is new each time, for ever.
    let more = frame(
        CONTINUATION,
        0,
        1,
        &[&[0x00, 0x01, b'x', 0x7f, 0x00], vec![b'y'; 127].as_slice()].concat(),
    );
    let mut sent = 0_usize;
    while abuser.write(&more).await {
        sent += more.len();
        assert!(sent < 8 * 1024 * 1024, "it takes everything");
    }
    abuser.ended().await;
    assert_eq!(door.begun.load(Ordering::SeqCst), 0);
    others_are_served(&world).await;
    world.stopped().await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_not_answered() {
    let (door, world) = world(limits()).await;
    let mut abuser = Abuser::new(&world).await;
    let field = [&[0x00, 0x01, b'x', 0x64], vec![b'y'; 100].as_slice()].concat();
    let large = [fields("/"), field.repeat(120)].concat();
    abuser
        .write(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &large))
        .await;
    others_are_served(&world).await;
    assert_eq!(door.begun.load(Ordering::SeqCst), 2);
    drop(abuser);
    world.stopped().await;
}

#[tokio::test]
async fn frames_that_ask_for_replies_nobody_reads_end_the_connection() {
    let short = ServerLimits {
        write_timeout: SHORT,
        ..limits()
    };
    let (door, world) = world(short).await;
    for flood in [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &[])] {
        let mut abuser = Abuser::new(&world).await;
        let many = flood.repeat(1_000);
        let mut sent = 0_usize;
        while abuser.write(&many).await {
            sent += many.len();
            assert!(sent < 256 * 1024 * 1024, "it takes everything");
        }
        others_are_served(&world).await;
    }
    assert_eq!(door.begun.load(Ordering::SeqCst), 4);
    world.stopped().await;
}

#[tokio::test]
async fn bodies_of_nothing_and_faults_that_the_server_must_reset_end_the_connection() {
    let short = ServerLimits {
        body_timeout: SHORT,
        idle_timeout: SHORT,
        ..limits()
    };
    let (_door, world) = world(short).await;
    // DATA frames without a byte in them.
    let mut abuser = Abuser::new(&world).await;
    abuser
        .write(&frame(HEADERS, END_HEADERS, 1, &fields("/")))
        .await;
    let nothing = frame(DATA, 0, 1, &[]).repeat(1_000);
    let mut sent = 0_usize;
    while abuser.write(&nothing).await {
        sent += nothing.len();
        assert!(sent < 256 * 1024 * 1024, "it takes everything");
    }
    others_are_served(&world).await;
    // Window updates of nothing: each a stream error, which the server answers with a reset.
    let mut abuser = Abuser::new(&world).await;
    let mut number = 1_u32;
    loop {
        let open = frame(HEADERS, END_HEADERS, number, &fields("/"));
        let wrong = frame(WINDOW_UPDATE, 0, number, &0_u32.to_be_bytes());
        if !abuser.write(&[open, wrong].concat()).await {
            break;
        }
        number += 2;
        assert!(number < 200_000, "it resets for ever");
    }
    abuser.ended().await;
    others_are_served(&world).await;
    world.stopped().await;
}
