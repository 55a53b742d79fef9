//! HTTP/2 on one connection, and when to give up on its client.
//!
//! A connection carries many requests at once here, so there is no one head or response to wait for.
//! What is bounded instead: requests at once, also those whose client has gone; the time until the
//! first request and between requests (of strangers the same); the time for a client to make room for a response (that it
//! takes what is buffered for it, the stream below watches); how long a connection lives at all.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::timed::TimedIo;
use super::{Caller, ServerLimits, Vouch, old_or_stopped, respond};

const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEP_ALIVE_WITHIN: Duration = Duration::from_secs(5);
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
const SEND_BUFFER: usize = 64 * 1024;
const FRAME_BYTES_MAX: u32 = 16 * 1024;
/// Streams that a client opened and reset before we looked at them.
const PENDING_RESETS_MAX: usize = 20;
/// Streams that we reset for a client's faults.
const LOCAL_RESETS_MAX: usize = 64;

/// What a connection is doing.
struct Activity {
    doing: Mutex<Doing>,
    vouch: Vouch,
}

struct Doing {
    next: u64,
    /// Requests that are not answered yet, and since when a response is being sent.
    open: BTreeMap<u64, Option<Instant>>,
    /// Since when there is none.
    idle_since: Instant,
    had_one: bool,
}

/// One request, until its response was taken or its stream is gone.
struct Open {
    activity: Arc<Activity>,
    number: u64,
}

/// A response's body, which holds its request open until it was taken.
struct Sent {
    body: Full<Bytes>,
    _open: Open,
}

/// Spawns hyper's tasks where stopping waits for them.
#[derive(Clone)]
struct Tracked(TaskTracker);

/// Serves one connection until it ends, or is to end.
pub(super) async fn serve<S>(stream: S, caller: Caller)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = caller.shared.limits;
    let shared = Arc::clone(&caller.shared);
    let activity = Arc::new(Activity::new(caller.vouch.clone()));
    let (of_streams, at_once) = (
        Arc::clone(&activity),
        Arc::new(Semaphore::new(limits.streams)),
    );
    let of_connection = caller.clone();
    let service = service_fn(move |request| {
        let caller = Caller {
            at_once: Some(Arc::clone(&at_once)),
            ..caller.clone()
        };
        let open = of_streams.begin();
        async move {
            let response = respond(request, caller).await;
            open.sending();
            Ok::<_, Infallible>(response.map(|body| Sent {
                body: Full::new(body),
                _open: open,
            }))
        }
    });
    let io = TokioIo::new(TimedIo::without_heads(stream, &limits));
    let mut served = pin!(builder(&limits, &shared.connections).serve_connection(io, service));
    let ended = tokio::select! {
        biased;
        () = shared.cut.cancelled() => return,
        ended = served.as_mut() => ended,
        why = activity.given_up(&limits) => {
            tracing::debug!(why, "a connection is cut");
            return;
        }
        () = old_or_stopped(&of_connection, || activity.doing().had_one) => {
            served.as_mut().graceful_shutdown();
            // A client may go on asking after that, and never say that it has heard it.
            tokio::select! {
                () = shared.cut.cancelled() => return,
                () = activity.quiet() => return,
                () = tokio::time::sleep(limits.grace) => return,
                _why = activity.given_up(&limits) => return,
                ended = served => ended,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

fn builder(limits: &ServerLimits, tasks: &TaskTracker) -> http2::Builder<Tracked> {
    let mut builder = http2::Builder::new(Tracked(tasks.clone()));
    let bytes = u32::try_from(limits.header_bytes).unwrap_or(u32::MAX);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(u32::try_from(limits.streams).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(LOCAL_RESETS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(bytes)
        .max_frame_size(FRAME_BYTES_MAX)
        .keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_WITHIN);
    builder
}

// === impl Tracked ===

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        drop(self.0.spawn(future));
    }
}

// === impl Activity ===

impl Activity {
    fn new(vouch: Vouch) -> Self {
        let doing = Mutex::new(Doing {
            next: 0,
            open: BTreeMap::new(),
            idle_since: Instant::now(),
            had_one: false,
        });
        Self { doing, vouch }
    }

    fn doing(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>) -> Open {
        let mut doing = self.doing();
        let number = doing.next;
        doing.next = number.saturating_add(1);
        doing.had_one = true;
        doing.open.insert(number, None);
        Open {
            activity: Arc::clone(self),
            number,
        }
    }

    /// Ends, with a word on why, once the client has kept us waiting for too long.
    async fn given_up(&self, limits: &ServerLimits) -> &'static str {
        loop {
            let (at, why) = self.give_up_at(limits);
            if at <= Instant::now() {
                return why;
            }
            // It moves on with every request, and back when a response is begun to be sent.
            let look_again = Instant::now()
                .checked_add(limits.write_timeout)
                .map_or(at, |soon| soon.min(at));
            tokio::time::sleep_until(look_again).await;
        }
    }

    /// Ends once nothing is under way, after a moment for what is on its way.
    async fn quiet(&self) {
        const MOMENT: Duration = Duration::from_secs(1);
        loop {
            tokio::time::sleep(MOMENT).await;
            if self.doing().open.is_empty() {
                return;
            }
        }
    }

    fn give_up_at(&self, limits: &ServerLimits) -> (Instant, &'static str) {
        let doing = self.doing();
        let after = |since: Instant, wait| since.checked_add(wait).unwrap_or(since);
        let oldest = doing.open.values().flatten().min();
        if let Some(since) = oldest {
            return (after(*since, limits.write_timeout), "response not taken");
        }
        if !doing.open.is_empty() {
            // Reading a body and answering have limits of their own.
            return (after(Instant::now(), limits.idle_timeout), "busy");
        }
        if doing.had_one {
            let silence = limits.silence(&self.vouch);
            return (after(doing.idle_since, silence), "idle");
        }
        let first = after(doing.idle_since, limits.header_timeout);
        (first, "no first request")
    }
}

// === impl Open ===

impl Open {
    fn sending(&self) {
        let now = Instant::now();
        self.activity.doing().open.insert(self.number, Some(now));
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut doing = self.activity.doing();
        doing.open.remove(&self.number);
        if doing.open.is_empty() {
            doing.idle_since = Instant::now();
        }
    }
}

// === impl Sent ===

impl Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
