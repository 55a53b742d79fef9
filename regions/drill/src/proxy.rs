//! A TCP proxy on loopback that goes wrong on request: it delays, stalls and cuts connections,
//! in either direction, at a byte, while they are open.
//!
//! It knows no protocol. A [`Tap`] sees what passes and may cut a connection at a byte of its
//! choice; [`commit`] is one that knows just enough of Postgres to cut a COMMIT.
//! Deliberately absent: loss and reordering (TCP hides them) and shaping of bandwidth.

pub mod commit;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections at once; one more is closed as soon as it is accepted.
pub const CONNECTIONS_MAX: usize = 1_024;
const CHUNK_BYTES: usize = 16 * 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// What happens to bytes of one direction, of open and of new connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fault {
    /// They pass.
    #[default]
    Pass,
    /// Each chunk is held for so long.
    Delay(Duration),
    /// So many chunks of a hundred, by chance, are held for so long; what comes behind them waits too.
    Sometimes {
        /// Of a hundred.
        percent: u8,
        /// How long.
        delay: Duration,
    },
    /// They are held, until the fault is another one. Nothing is closed.
    Stall,
    /// Every connection is closed, and a new one as soon as it is accepted.
    Cut,
    /// Each connection forwards so many more bytes, counted from now on, and is closed then.
    CutAfter(u64),
}

/// What a proxy has done so far: the proof that a fault happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Connections that reached the server.
    pub connections: u64,
    /// Bytes forwarded, both ways.
    pub forwarded: u64,
    /// Bytes that met a stall. Once it ends they pass.
    pub stalled: u64,
    /// Chunks that were held for a time.
    pub delayed: u64,
    /// Connections that a fault closed or refused.
    pub cut: u64,
}

/// [`Counts`] as connections add to them.
#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    forwarded: AtomicU64,
    stalled: AtomicU64,
    delayed: AtomicU64,
    cut: AtomicU64,
}

/// What a [`Tap`] wants done with the bytes it was shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Forward them.
    Pass,
    /// Forward so many of them, then close the connection to both sides.
    CutAfter(usize),
}

/// Sees the bytes of one connection before they are forwarded.
pub trait Tap: Send {
    /// Called with each chunk, in order within a direction.
    fn pass(&mut self, direction: Direction, bytes: &[u8]) -> Verdict;
}

/// Makes the tap of each new connection.
pub type MakeTap = Box<dyn Fn() -> Box<dyn Tap> + Send + Sync>;

/// A running proxy. Dropping it closes every connection.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    faults: watch::Sender<Faults>,
    counters: Arc<Counters>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    to_server: Set,
    to_client: Set,
}

/// A fault and which setting it was: the same fault set again counts its bytes anew.
#[derive(Clone, Copy, Debug, Default)]
struct Set {
    fault: Fault,
    generation: u64,
}

/// What every connection shares.
struct Shared {
    upstream: SocketAddr,
    faults: watch::Receiver<Faults>,
    counters: Arc<Counters>,
    tap: MakeTap,
    room: Arc<Semaphore>,
}

/// One direction of one connection.
struct Pump<R, W> {
    from: R,
    to: W,
    direction: Direction,
    faults: watch::Receiver<Faults>,
    tap: Arc<Mutex<Box<dyn Tap>>>,
    counters: Arc<Counters>,
    /// What chance is made of: this connection's number and the chunk's.
    connection: u64,
    chunk: u64,
    generation: u64,
    /// Bytes forwarded since the generation began.
    forwarded: u64,
}

/// A connection was cut; the other direction must end with it.
struct WasCut;

struct NoTap;

// === impl Proxy ===

impl Proxy {
    /// Listens on a free loopback port and forwards to `upstream`, a port on loopback.
    pub async fn start(upstream: u16) -> io::Result<Self> {
        Self::start_with(upstream, Box::new(|| Box::new(NoTap))).await
    }

    /// The same, with a tap for each connection.
    pub async fn start_with(upstream: u16, tap: MakeTap) -> io::Result<Self> {
        Self::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), upstream, tap).await
    }

    /// The same on another address of this machine: what a host of a
    /// [`Network`](crate::network::Network) can reach.
    pub async fn start_at(address: Ipv4Addr, upstream: u16) -> io::Result<Self> {
        let tap: MakeTap = Box::new(|| Box::new(NoTap));
        Self::listen(SocketAddr::from((address, 0)), upstream, tap).await
    }

    async fn listen(address: SocketAddr, upstream: u16, tap: MakeTap) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let port = listener.local_addr()?.port();
        let (faults, watched) = watch::channel(Faults::default());
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let counters = Arc::<Counters>::default();
        let shared = Arc::new(Shared {
            counters: Arc::clone(&counters),
            upstream: SocketAddr::from((Ipv4Addr::LOCALHOST, upstream)),
            faults: watched,
            tap,
            room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        });
        let accepting = accept(listener, shared, stop.clone(), tasks.clone());
        tasks.spawn(accepting);
        Ok(Self {
            port,
            faults,
            counters,
            stop,
            tasks,
        })
    }

    /// Where clients connect to on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sets the fault of one direction, at once, for open connections too.
    pub fn set(&self, direction: Direction, fault: Fault) {
        self.faults.send_modify(|faults| {
            let set = match direction {
                Direction::ToServer => &mut faults.to_server,
                Direction::ToClient => &mut faults.to_client,
            };
            let generation = set.generation.saturating_add(1);
            *set = Set { fault, generation };
        });
    }

    /// Sets the fault of both directions.
    pub fn set_both(&self, fault: Fault) {
        self.set(Direction::ToServer, fault);
        self.set(Direction::ToClient, fault);
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counters {
            connections,
            forwarded,
            stalled,
            delayed,
            cut,
        } = self.counters.as_ref();
        Counts {
            connections: read(connections),
            forwarded: read(forwarded),
            stalled: read(stalled),
            delayed: read(delayed),
            cut: read(cut),
        }
    }

    /// Closes every connection and waits until that is done.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tasks.close();
    }
}

// === impl Faults ===

impl Faults {
    fn of(&self, direction: Direction) -> Set {
        match direction {
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }
}

// === impl Pump ===

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Pump<R, W> {
    /// Forwards until the source ends; `WasCut` when the whole connection must.
    async fn run(mut self) -> Result<(), WasCut> {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = tokio::select! {
                read = self.from.read(&mut chunk) => read,
                cut = cut_now(&mut self.faults, self.direction) => return Err(cut),
            };
            // A broken source is passed on as a cut: the other side cannot tell them apart.
            let length = read.map_err(|_broken| WasCut)?;
            let bytes = chunk.get(..length).unwrap_or_default();
            if bytes.is_empty() {
                return self.to.shutdown().await.map_err(|_broken| WasCut);
            }
            let verdict = self
                .tap
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pass(self.direction, bytes);
            let wanted = match verdict {
                Verdict::Pass => length,
                Verdict::CutAfter(some) => some.min(length),
            };
            let leave = self.await_leave(wanted).await?;
            let allowed = match leave {
                Verdict::Pass => wanted,
                Verdict::CutAfter(some) => some,
            };
            let forwarded = bytes.get(..allowed).unwrap_or_default();
            let sent = self.to.write_all(forwarded).await;
            sent.map_err(|_broken| WasCut)?;
            if [verdict, leave] != [Verdict::Pass; 2] {
                // What was forwarded arrives before the end does.
                drop(self.to.shutdown().await);
                return Err(WasCut);
            }
        }
    }

    /// Waits while bytes are held, then says how many of `wanted` may go and whether that is all.
    async fn await_leave(&mut self, wanted: usize) -> Result<Verdict, WasCut> {
        let counted = u64::try_from(wanted).unwrap_or(u64::MAX);
        let mut stalled = false;
        self.chunk = self.chunk.wrapping_add(1);
        loop {
            let Set { fault, generation } = self.faults.borrow_and_update().of(self.direction);
            if generation != self.generation {
                (self.generation, self.forwarded) = (generation, 0);
            }
            let leave = match fault {
                Fault::Pass => Verdict::Pass,
                Fault::Sometimes { percent, delay } if self.is_chosen(percent) => {
                    self.hold(delay).await?
                }
                Fault::Sometimes { .. } => Verdict::Pass,
                Fault::Delay(duration) => self.hold(duration).await?,
                Fault::Cut => return Err(WasCut),
                Fault::CutAfter(bytes) => {
                    let left = bytes.saturating_sub(self.forwarded);
                    let left = usize::try_from(left).unwrap_or(usize::MAX);
                    if wanted < left {
                        Verdict::Pass
                    } else {
                        Verdict::CutAfter(left)
                    }
                }
                Fault::Stall => {
                    if !stalled {
                        stalled = true;
                        add(&self.counters.stalled, counted);
                    }
                    // An error says that the proxy is gone.
                    self.faults.changed().await.map_err(|_gone| WasCut)?;
                    continue;
                }
            };
            self.forwarded = self.forwarded.saturating_add(counted);
            add(&self.counters.forwarded, counted);
            return Ok(leave);
        }
    }

    /// Holds a chunk for a time, unless the connection is cut meanwhile.
    async fn hold(&mut self, time: Duration) -> Result<Verdict, WasCut> {
        add(&self.counters.delayed, 1);
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(Verdict::Pass),
            cut = cut_now(&mut self.faults, self.direction) => Err(cut),
        }
    }

    fn is_chosen(&self, percent: u8) -> bool {
        let mut hasher = DefaultHasher::new();
        (
            self.connection,
            self.chunk,
            self.direction == Direction::ToServer,
        )
            .hash(&mut hasher);
        hasher.finish().checked_rem(100).unwrap_or(0) < u64::from(percent)
    }
}

impl Tap for NoTap {
    fn pass(&mut self, _direction: Direction, _bytes: &[u8]) -> Verdict {
        Verdict::Pass
    }
}

// === free functions ===

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((client, _)) = accepted else {
            // Out of descriptors, most likely: others must end first.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(room) = Arc::clone(&shared.room).try_acquire_owned() else {
            continue;
        };
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = serve(client, &shared) => {}
            }
            drop(room);
        });
    }
}

/// Carries one connection until both directions ended, or one was cut.
async fn serve(client: TcpStream, shared: &Shared) {
    let faults = *shared.faults.borrow();
    if [faults.to_server.fault, faults.to_client.fault].contains(&Fault::Cut) {
        add(&shared.counters.cut, 1);
        return;
    }
    let connecting = TcpStream::connect(shared.upstream);
    let Ok(Ok(server)) = tokio::time::timeout(CONNECT_MAX, connecting).await else {
        return;
    };
    // Without it small chunks of a protocol would wait for each other.
    if client
        .set_nodelay(true)
        .and(server.set_nodelay(true))
        .is_err()
    {
        return;
    }
    let connection = shared.counters.connections.fetch_add(1, Ordering::Relaxed);
    let (mut client, mut server) = (client, server);
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let tap = Arc::new(Mutex::new((shared.tap)()));
    let up = Pump {
        from: from_client,
        to: to_server,
        direction: Direction::ToServer,
        faults: shared.faults.clone(),
        tap: Arc::clone(&tap),
        counters: Arc::clone(&shared.counters),
        connection,
        chunk: 0,
        generation: 0,
        forwarded: 0,
    };
    let down = Pump {
        from: from_server,
        to: to_client,
        direction: Direction::ToClient,
        faults: shared.faults.clone(),
        tap,
        counters: Arc::clone(&shared.counters),
        connection,
        chunk: 0,
        generation: 0,
        forwarded: 0,
    };
    // Either both end, or the first cut takes the other with it; the sockets close on return.
    let ended = tokio::try_join!(up.run(), down.run());
    let faults = *shared.faults.borrow();
    let faulty = [faults.to_server.fault, faults.to_client.fault];
    let cuts = |fault: &Fault| matches!(fault, Fault::Cut | Fault::CutAfter(_));
    if ended.is_err() && faulty.iter().any(cuts) {
        add(&shared.counters.cut, 1);
    }
}

/// Resolves when the direction is set to be cut.
async fn cut_now(faults: &mut watch::Receiver<Faults>, direction: Direction) -> WasCut {
    let cut = faults.wait_for(|faults| faults.of(direction).fault == Fault::Cut);
    // An error says that the proxy is gone, which is a cut as well.
    drop(cut.await.map(|faults| *faults));
    WasCut
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}
