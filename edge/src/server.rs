//! A server for a handful of large clients that may all misbehave at once: HTTP/1.1 plain, that or
//! HTTP/2 over TLS; messages with their length before them, plain or over TLS ([`frames`]).
//!
//! Promises: every wait on a client has a limit that fires (handshake, first byte, head, body, idle,
//! write); connections are bounded, in all and of one address, before anything is read, and some are
//! kept for where a known sender has spoken from; a request whose body was read runs to its end in a
//! task of its own, whether or not the client still listens,
//! and counts against the bounds until it ends; a panic in it is a 500 of that request only; stopping
//! finishes what was begun. Absent on purpose: streaming, routing, HTTP/2 without TLS.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{HeaderValue, Response, Version};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use standin_core::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::problem::{Problem, Unavailable};
pub use addresses::Vouch;
use addresses::{Addresses, Known, Place};
use frames::Frames;
use timed::{Phase, TimedIo};
use tls::{Accepted, ServerTls};

mod addresses;
pub mod frames;
mod http2;
mod timed;
pub mod tls;

/// One request, with its body read.
#[derive(Debug)]
pub struct Request {
    /// Method, target, headers.
    pub parts: http::request::Parts,
    /// The raw body, within the limit.
    pub body: Bytes,
    /// Where the other end of the connection is.
    pub peer: SocketAddr,
    /// Whom the client's certificate names (its one URI), if it showed one.
    pub peer_name: Option<Arc<str>>,
    /// When the head was complete: the deadline of the request counts from here.
    pub received: Instant,
    /// When the body was complete: what it waits from here on, it waits for us.
    pub complete: Instant,
    /// For the handler to say that the sender has proved who it is.
    pub vouch: Vouch,
}

/// What answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. The future runs to its end even if the client goes away.
    fn handle(&self, request: Request) -> BoxFuture<'_, Response<Bytes>>;

    /// Hears of a request that the server turned away by itself.
    fn turned_away(&self, problem: &Problem) {
        tracing::debug!(problem = problem.slug(), "turned a request away");
    }

    /// Hears of a connection that was closed at once: its address had as many as it may.
    fn connection_refused(&self) {}

    /// Hears of a connection that did not get through its handshake.
    fn handshake_failed(&self) {}
}

/// Bounds of one listener.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Connections, and requests whose client went away. At the bound, nothing is accepted: clients
    /// wait in the listen backlog.
    pub connections: usize,
    /// Beside those, connections of addresses that a known sender has spoken from. While there are
    /// some of these left, strangers past `connections` do not wait: they are closed at once.
    pub connections_kept: usize,
    /// Connections of one address; more are closed at once.
    pub connections_per_address: usize,
    /// TLS handshakes at once, a quarter of them of one address; others wait, within the time that a
    /// handshake has. A client that has said nothing yet does not count. Addresses that a known sender
    /// has spoken from have a quarter as many for themselves.
    pub handshakes: usize,
    /// Requests at once on one HTTP/2 connection; past it, streams are refused.
    pub streams: usize,
    /// How long a connection lives before its client is asked to come again, a tenth less for some: a
    /// certificate is judged when a connection begins.
    pub age_max: Duration,
    /// Header lines of a request; more is a 431.
    pub headers: usize,
    /// Bytes of a request's head; more is a 431.
    pub header_bytes: usize,
    /// For a TLS handshake; then from connecting, or from the first byte of a later request, to the
    /// end of its head.
    pub header_timeout: Duration,
    /// Without a request on a kept connection of who has proved who it is; others have `header_timeout`
    /// for that, too.
    pub idle_timeout: Duration,
    /// Bytes of a body; more is a 413.
    pub body_bytes: usize,
    /// From the end of the head to the end of the body; later is a 408.
    pub body_timeout: Duration,
    /// For a client to take a response.
    pub write_timeout: Duration,
    /// For what was begun to end, once stopping.
    pub grace: Duration,
}

/// When serving is to end.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Clients are asked to leave from then on: each connection ends after a request. New ones are
    /// let in, and each has its request answered.
    pub leave: CancellationToken,
    /// Nobody is let in any more.
    pub stop: CancellationToken,
}

/// How serving ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stopped {
    /// Everything begun was finished.
    Clean,
    /// The grace ran out.
    TimedOut {
        /// Connections and requests that had not ended. Requests go on until the runtime ends.
        left: usize,
    },
}

struct Shared {
    handler: Arc<dyn Handler>,
    /// What answers messages; `None`: HTTP is spoken.
    frames: Option<Arc<dyn Frames>>,
    limits: ServerLimits,
    tls: Option<Arc<ServerTls>>,
    handshakes: Semaphore,
    handshakes_kept: Semaphore,
    shaking: Arc<Addresses>,
    addresses: Arc<Addresses>,
    known: Arc<Known>,
    leave: CancellationToken,
    stop: CancellationToken,
    /// Fires when the grace is over.
    cut: CancellationToken,
    connections: TaskTracker,
    requests: TaskTracker,
}

/// A connection's own part of the world; its place is shared with its running requests.
#[derive(Clone)]
struct Caller {
    shared: Arc<Shared>,
    peer: SocketAddr,
    peer_name: Option<Arc<str>>,
    /// When it shook hands; `None` without TLS.
    greeted: Option<Greeted>,
    /// Of a connection that carries several requests: how many.
    at_once: Option<Arc<Semaphore>>,
    held: Arc<Held>,
    vouch: Vouch,
}

/// A handshake: when the client asked for it, and when it was over.
#[derive(Clone, Copy)]
struct Greeted {
    at: Instant,
    over: Instant,
}

/// What a connection takes up until it and its requests have ended.
struct Held {
    _slot: Slot,
    _place: Place,
}

/// Places for connections.
struct Slots {
    anyones: Arc<Semaphore>,
    kept: Arc<Semaphore>,
}

/// A place for one connection.
struct Slot {
    _permit: OwnedSemaphorePermit,
    /// Strangers may not have it.
    is_kept: bool,
}

// === impl ServerLimits ===

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 4_096,
            connections_kept: 0,
            connections_per_address: 1_024,
            handshakes: 64,
            streams: 64,
            age_max: Duration::from_secs(3_600),
            headers: 64,
            header_bytes: 8 * 1024,
            header_timeout: Duration::from_secs(3),
            idle_timeout: Duration::from_secs(75),
            body_bytes: 16 * 1024,
            body_timeout: Duration::from_secs(3),
            write_timeout: Duration::from_secs(5),
            grace: Duration::from_secs(10),
        }
    }
}

// === impl Ending ===

impl From<CancellationToken> for Ending {
    /// Nobody is asked to leave before.
    fn from(stop: CancellationToken) -> Self {
        let leave = CancellationToken::new();
        Self { leave, stop }
    }
}

// === impl Slots ===

impl Slots {
    fn new(limits: &ServerLimits) -> Self {
        Self {
            anyones: Arc::new(Semaphore::new(limits.connections)),
            kept: Arc::new(Semaphore::new(limits.connections_kept)),
        }
    }

    /// One of anyone's; else one of those that are kept.
    async fn take(&self) -> io::Result<Slot> {
        let (permit, is_kept) = tokio::select! {
            biased;
            permit = Arc::clone(&self.anyones).acquire_owned() => (permit, false),
            permit = Arc::clone(&self.kept).acquire_owned() => (permit, true),
        };
        Ok(Slot {
            _permit: permit.map_err(io::Error::other)?,
            is_kept,
        })
    }

    /// One of anyone's may have become free since.
    fn look_again(&self, slot: Slot) -> Slot {
        match Arc::clone(&self.anyones).try_acquire_owned() {
            Ok(permit) if slot.is_kept => Slot {
                _permit: permit,
                is_kept: false,
            },
            Ok(_) | Err(_) => slot,
        }
    }
}

impl ServerLimits {
    /// How long a client may be silent between requests. A stranger has no more time for that than for a
    /// head.
    fn silence(&self, vouch: &Vouch) -> Duration {
        if vouch.is_known() {
            self.idle_timeout
        } else {
            self.idle_timeout.min(self.header_timeout)
        }
    }
}

/// Serves until it is to stop, then finishes what was begun within `limits.grace`. Without `tls`, plain.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerTls>>,
    handler: Arc<dyn Handler>,
    limits: ServerLimits,
    ending: impl Into<Ending>,
) -> Stopped {
    serve_either(listener, tls, (handler, None), limits, ending.into()).await
}

/// As [`serve`], where messages are spoken. `handler` hears of connections only.
pub async fn serve_frames(
    listener: TcpListener,
    tls: Option<Arc<ServerTls>>,
    (handler, frames): (Arc<dyn Handler>, Arc<dyn Frames>),
    limits: ServerLimits,
    ending: impl Into<Ending>,
) -> Stopped {
    serve_either(
        listener,
        tls,
        (handler, Some(frames)),
        limits,
        ending.into(),
    )
    .await
}

async fn serve_either(
    listener: TcpListener,
    tls: Option<Arc<ServerTls>>,
    (handler, frames): (Arc<dyn Handler>, Option<Arc<dyn Frames>>),
    limits: ServerLimits,
    Ending { leave, stop }: Ending,
) -> Stopped {
    let shared = Arc::new(Shared {
        handler,
        frames,
        limits,
        tls,
        handshakes: Semaphore::new(limits.handshakes),
        handshakes_kept: Semaphore::new(limits.handshakes.div_ceil(4)),
        shaking: Arc::new(Addresses::new(limits.handshakes.div_ceil(4))),
        addresses: Arc::new(Addresses::new(limits.connections_per_address)),
        known: Arc::default(),
        leave,
        stop,
        cut: CancellationToken::new(),
        connections: TaskTracker::new(),
        requests: TaskTracker::new(),
    });
    accept_until_stopped(&listener, &shared).await;
    // Closing the listener first sends new clients elsewhere at once.
    drop(listener);
    shared.connections.close();
    shared.requests.close();
    let all_ended = async {
        shared.connections.wait().await;
        shared.requests.wait().await;
    };
    if timeout(limits.grace, all_ended).await.is_ok() {
        return Stopped::Clean;
    }
    let left = shared
        .connections
        .len()
        .saturating_add(shared.requests.len());
    shared.cut.cancel();
    shared.connections.wait().await;
    Stopped::TimedOut { left }
}

async fn accept_until_stopped(listener: &TcpListener, shared: &Arc<Shared>) {
    const PAUSE_FIRST: Duration = Duration::from_millis(10);
    const PAUSE_MAX: Duration = Duration::from_secs(1);
    /// A flood is one line now and then, not one a connection.
    const SAY_EVERY: Duration = Duration::from_secs(10);
    let slots = Slots::new(&shared.limits);
    let mut pause = PAUSE_FIRST;
    let mut said = None;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            accepted = accept(listener, &slots) => accepted,
        };
        match accepted {
            Ok((stream, peer, slot)) => {
                pause = PAUSE_FIRST;
                let may = !slot.is_kept || shared.known.knows(peer.ip());
                let place = may.then(|| shared.addresses.take(peer.ip())).flatten();
                let Some(place) = place else {
                    // Said by closing: that costs us least, and whoever floods reads no reason.
                    shared.handler.connection_refused();
                    if said.is_none_or(|at: Instant| at.elapsed() >= SAY_EVERY) {
                        said = Some(Instant::now());
                        let why = if may {
                            "an address has as many connections as it may"
                        } else {
                            "strangers have as many connections as they may"
                        };
                        tracing::warn!(address = %peer.ip(), "{why}");
                    }
                    continue;
                };
                let caller = Caller {
                    shared: Arc::clone(shared),
                    peer,
                    peer_name: None,
                    greeted: None,
                    at_once: None,
                    vouch: shared.known.vouch(peer.ip()),
                    held: Arc::new(Held {
                        _slot: slot,
                        _place: place,
                    }),
                };
                shared.connections.spawn(connection(stream, caller));
            }
            Err(error) if of_one_connection(&error) => {}
            Err(error) => {
                // Out of descriptors or memory: trying again at once would only burn the CPU that
                // the requests in progress need.
                tracing::warn!(%error, pause_ms = pause.as_millis(), "cannot accept connections");
                tokio::select! {
                    () = shared.stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = pause.saturating_mul(2).min(PAUSE_MAX);
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Slots,
) -> io::Result<(TcpStream, SocketAddr, Slot)> {
    let slot = slots.take().await?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, slots.look_again(slot)))
}

fn of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

async fn connection(stream: TcpStream, caller: Caller) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection ended before it began");
        return;
    }
    let frames = caller.shared.frames.clone();
    let Some(tls) = caller.shared.tls.clone() else {
        return match frames {
            Some(frames) => frames::serve(stream, caller, frames).await,
            None => over_http1(stream, caller).await,
        };
    };
    let limits = caller.shared.limits;
    let shaking = async {
        let hello = tls.hello(stream).await?;
        let at = Instant::now();
        let _turn = turn(&caller).await;
        let accepted = tls.accept(hello).await?;
        let over = Instant::now();
        Ok::<_, tls::AcceptError>((accepted, Greeted { at, over }))
    };
    let shaken = tokio::select! {
        biased;
        () = caller.shared.cut.cancelled() => return,
        shaken = timeout(limits.header_timeout, shaking) => shaken,
    };
    match shaken {
        Ok(Ok((accepted, greeted))) => {
            let Accepted {
                stream,
                peer_name,
                is_http2,
            } = accepted;
            if peer_name.is_some() {
                caller.vouch.known();
            }
            let caller = Caller {
                peer_name,
                greeted: Some(greeted),
                ..caller
            };
            match frames {
                Some(frames) => frames::serve(stream, caller, frames).await,
                None if is_http2 => http2::serve(stream, caller).await,
                None => over_http1(stream, caller).await,
            }
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "a handshake failed");
            caller.shared.handler.handshake_failed();
        }
        Err(_elapsed) => caller.shared.handler.handshake_failed(),
    }
}

/// A turn to shake hands. One address has only so many of them, however many it wants; where a known
/// sender has spoken from, they are not those that strangers can take.
async fn turn(caller: &Caller) -> (Option<Place>, Option<SemaphorePermit<'_>>) {
    const LOOK_EVERY: Duration = Duration::from_millis(10);
    let shared = &caller.shared;
    if shared.known.knows(caller.peer.ip()) {
        return (None, shared.handshakes_kept.acquire().await.ok());
    }
    let place = loop {
        match shared.shaking.take(caller.peer.ip()) {
            Some(place) => break place,
            None => tokio::time::sleep(LOOK_EVERY).await,
        }
    };
    (Some(place), shared.handshakes.acquire().await.ok())
}

/// Ends when a connection is to end: the server stops, clients are to leave and this one has had a
/// request, or the connection is old. Not all of one moment are old at one moment.
async fn old_or_stopped(caller: &Caller, had_one: impl Fn() -> bool) {
    const LOOK_EVERY: Duration = Duration::from_millis(10);
    let left = async {
        caller.shared.leave.cancelled().await;
        // A client that has just come is not sent away unanswered.
        while !had_one() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let age_max = caller.shared.limits.age_max;
    let thousandths = u32::from(caller.peer.port() % 100);
    let sooner = age_max.checked_div(1_000).unwrap_or_default();
    let sooner = sooner.saturating_mul(thousandths);
    tokio::select! {
        () = caller.shared.stop.cancelled() => {}
        () = left => {}
        () = tokio::time::sleep(age_max.saturating_sub(sooner)) => {}
    }
}

async fn over_http1<S>(stream: S, caller: Caller)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = caller.shared.limits;
    let phase = Phase::of(&caller.vouch);
    let io = TimedIo::new(stream, phase.clone(), &limits);
    let seen = phase.clone();
    let shared = Arc::clone(&caller.shared);
    let of_requests = caller.clone();
    let service = service_fn(move |request| {
        let (caller, phase) = (of_requests.clone(), phase.clone());
        async move {
            phase.begin();
            let leave = caller.shared.leave.clone();
            let mut response = respond(request, caller).await;
            if leave.is_cancelled() {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            phase.end();
            Ok::<_, Infallible>(response.map(Full::new))
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // `TimedIo` cuts slow heads; this one cuts what is left, a kept connection without requests.
        .header_read_timeout(limits.idle_timeout)
        .max_headers(limits.headers)
        .max_header_size(limits.header_bytes)
        .max_buf_size(limits.header_bytes.saturating_mul(2).max(16 * 1024));
    let mut served = pin!(builder.serve_connection(TokioIo::new(io), service));
    let ended = tokio::select! {
        biased;
        () = shared.cut.cancelled() => return,
        ended = served.as_mut() => ended,
        () = old_or_stopped(&caller, || seen.had_one()) => {
            served.as_mut().graceful_shutdown();
            tokio::select! {
                () = shared.cut.cancelled() => return,
                () = tokio::time::sleep(limits.grace) => return,
                ended = served => ended,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn respond(request: http::Request<Incoming>, caller: Caller) -> Response<Bytes> {
    let received = waits_since(Instant::now(), caller.greeted.as_ref());
    let version = request.version();
    match read(request, &caller.shared.limits).await {
        Ok((parts, body)) => {
            let request = Request {
                parts,
                body,
                peer: caller.peer,
                peer_name: caller.peer_name.clone(),
                received,
                complete: Instant::now(),
                vouch: caller.vouch.clone(),
            };
            run(request, &caller).await
        }
        Err(problem) => {
            caller.shared.handler.turned_away(&problem);
            let mut response = problem.to_response();
            if version < Version::HTTP_2 {
                // The rest of the body is not wanted, so the connection cannot be used again.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            response
        }
    }
}

/// Since when a client waits whose request is there `now`. One that comes with the end of the handshake
/// has waited through it: on a busy edge that is most of a bank's time.
fn waits_since(now: Instant, greeted: Option<&Greeted>) -> Instant {
    const WITH_ITS_END: Duration = Duration::from_millis(50);
    match greeted {
        Some(greeted) if now.duration_since(greeted.over) < WITH_ITS_END => greeted.at,
        _ => now,
    }
}

/// Runs the handler in a task of its own. If the client goes, hyper drops this future: the task
/// goes on, tracked, with its share of what the connection holds. A stream that is reset makes room
/// for another at its client at once, here only when its request has ended.
async fn run(request: Request, caller: &Caller) -> Response<Bytes> {
    let turn = match &caller.at_once {
        None => None,
        Some(at_once) => match Arc::clone(at_once).try_acquire_owned() {
            Ok(turn) => Some(turn),
            Err(_full) => {
                let problem = Problem::unavailable(Unavailable::Overloaded);
                caller.shared.handler.turned_away(&problem);
                return problem.to_response();
            }
        },
    };
    let handler = Arc::clone(&caller.shared.handler);
    let held = Arc::clone(&caller.held);
    let task = caller.shared.requests.spawn(async move {
        let response = handler.handle(request).await;
        drop((turn, held));
        response
    });
    match task.await {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(panicked = error.is_panic(), "a request did not end");
            Problem::Internal.to_response()
        }
    }
}

async fn read(
    request: http::Request<Incoming>,
    limits: &ServerLimits,
) -> Result<(http::request::Parts, Bytes), Problem> {
    let (parts, body) = request.into_parts();
    let too_large = Problem::TooLarge {
        limit_bytes: limits.body_bytes,
    };
    let limit = u64::try_from(limits.body_bytes).unwrap_or(u64::MAX);
    if body.size_hint().lower() > limit {
        return Err(too_large);
    }
    if parts.headers.get_all(CONTENT_LENGTH).iter().count() > 1 {
        return Err(Problem::Malformed {
            detail: "more than one Content-Length",
        });
    }
    let limited = Limited::new(body, limits.body_bytes);
    match timeout(limits.body_timeout, limited.collect()).await {
        Ok(Ok(body)) => Ok((parts, body.to_bytes())),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large),
        Ok(Err(_)) => Err(Problem::Malformed {
            detail: "the body ended before its length or is not framed correctly",
        }),
        Err(_elapsed) => Err(Problem::RequestTimeout),
    }
}

#[cfg(test)]
mod tests;
