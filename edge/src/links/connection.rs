//! One dialled connection: requests go out in turn, replies come back in any order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use standin_wal::TransportError;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, BufWriter};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::LinkLimits;
use super::frame::{self, Frame, FrameError, Kind};
use super::socket::Stream;

/// Calls in a row without a reply before a connection may be taken for dead.
const TIMEOUTS_MAX: u32 = 3;
const BUFFER_BYTES: usize = 64 * 1024;

type Answer = Result<Bytes, TransportError>;

/// A call's part of its lane's window. It is given back when the call has ended and its bytes have
/// left: a node that reads nothing cannot make a queue grow.
pub(super) struct Window {
    pub(super) _call: OwnedSemaphorePermit,
    pub(super) _bytes: OwnedSemaphorePermit,
}

pub(super) struct Connection {
    queue: mpsc::Sender<Outgoing>,
    waiting: Mutex<Waiting>,
    silence_max: Duration,
    /// Fires when the other end is taken for dead.
    dead: CancellationToken,
}

pub(super) struct Outgoing {
    id: u64,
    request: Bytes,
    _window: Arc<Window>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the other end closed the connection")]
    Closed,
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("the other end sent what nobody asked for")]
    Unexpected,
    #[error("{TIMEOUTS_MAX} calls or more had no reply, and nothing else was heard")]
    Silent,
    #[error("nobody used it")]
    Idle,
}

struct Waiting {
    next_id: u64,
    replies: HashMap<u64, oneshot::Sender<Answer>>,
    /// Since when something has been asked and nothing at all heard.
    silent_since: Option<Instant>,
    /// Calls without a reply since something was heard.
    timeouts: u32,
    used: Instant,
    heard: bool,
}

/// A connection that is carried. Whichever way that ends, who waits hears at once, and who comes
/// then finds the queue closed.
struct Open<'a> {
    connection: &'a Connection,
    queued: mpsc::Receiver<Outgoing>,
}

/// Forgets a call that ended.
struct Forget<'a> {
    connection: &'a Connection,
    id: u64,
}

// === impl Connection ===

impl Connection {
    pub(super) fn new(limits: &LinkLimits) -> (Self, mpsc::Receiver<Outgoing>) {
        // What is queued holds a part of the window, so it cannot be more than that.
        let (queue, queued) = mpsc::channel(limits.calls_max);
        let connection = Self {
            queue,
            waiting: Mutex::new(Waiting {
                next_id: 1,
                replies: HashMap::new(),
                silent_since: None,
                timeouts: 0,
                used: Instant::now(),
                heard: false,
            }),
            silence_max: limits.silence_max,
            dead: CancellationToken::new(),
        };
        (connection, queued)
    }

    /// Sends a request and waits for its reply until `deadline`.
    pub(super) async fn ask(&self, request: Bytes, window: Window, deadline: Instant) -> Answer {
        let window = Arc::new(window);
        let (id, reply) = self.waiting().begin();
        let _forget = Forget {
            connection: self,
            id,
        };
        let outgoing = Outgoing {
            id,
            request,
            _window: Arc::clone(&window),
        };
        if self.queue.try_send(outgoing).is_err() {
            return Err(no_reply("the connection ended"));
        }
        match timeout_at(deadline, reply).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_ended)) => Err(no_reply("the connection ended")),
            Err(_elapsed) => {
                if self.waiting().timed_out(self.silence_max) {
                    self.dead.cancel();
                }
                Err(no_reply("none in time"))
            }
        }
    }

    /// Whether the other end ever replied: it is more than a listener that hangs up.
    pub(super) fn was_heard(&self) -> bool {
        self.waiting().heard
    }

    /// Carries until the connection ends.
    pub(super) async fn carry(
        &self,
        stream: Box<dyn Stream>,
        queued: mpsc::Receiver<Outgoing>,
        limits: &LinkLimits,
    ) -> Ended {
        let mut open = Open {
            connection: self,
            queued,
        };
        let (read, write) = tokio::io::split(stream);
        tokio::select! {
            Err(ended) = self.read(read, limits) => ended,
            Err(ended) = self.write(write, &mut open.queued, limits) => ended.into(),
            () = self.dead.cancelled() => Ended::Silent,
            () = self.idle(limits.idle_after) => Ended::Idle,
        }
    }

    async fn read(&self, read: impl AsyncRead + Unpin, limits: &LinkLimits) -> Result<(), Ended> {
        let stall = limits.stall_max;
        let mut read = BufReader::with_capacity(BUFFER_BYTES, read);
        loop {
            let header = frame::read_header(&mut read, stall).await?;
            let header = header.ok_or(Ended::Closed)?;
            let frame = frame::read_body(&mut read, header, limits.frame_bytes_max, stall).await?;
            let answer = match frame.kind {
                Kind::Reply => Ok(frame.body),
                Kind::Busy => Err(no_reply("the other end is busy")),
                Kind::Failed => Err(no_reply(&String::from_utf8_lossy(&frame.body))),
                Kind::Hello | Kind::Welcome | Kind::Refused | Kind::Request => {
                    return Err(Ended::Unexpected);
                }
            };
            self.waiting().heard(frame.id, answer);
        }
    }

    async fn write(
        &self,
        write: impl AsyncWrite + Unpin,
        queued: &mut mpsc::Receiver<Outgoing>,
        limits: &LinkLimits,
    ) -> Result<(), FrameError> {
        let stall = limits.stall_max;
        let mut write = BufWriter::with_capacity(BUFFER_BYTES, write);
        while let Some(first) = queued.recv().await {
            let mut next = Some(first);
            while let Some(outgoing) = next {
                // Nobody waits any more: the other end has enough to do.
                if self.waiting().replies.contains_key(&outgoing.id) {
                    let frame = Frame {
                        kind: Kind::Request,
                        id: outgoing.id,
                        body: outgoing.request.clone(),
                    };
                    frame::write(&mut write, &frame, stall).await?;
                }
                next = queued.try_recv().ok();
            }
            frame::flush(&mut write, stall).await?;
        }
        Ok(())
    }

    async fn idle(&self, idle_after: Duration) {
        loop {
            let (used, under_way) = {
                let waiting = self.waiting();
                (waiting.used, !waiting.replies.is_empty())
            };
            let from = if under_way { Instant::now() } else { used };
            let until = from.checked_add(idle_after).unwrap_or(from);
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        // In this order: a call enters itself before it is queued.
        self.queued.close();
        self.connection.waiting().replies.clear();
    }
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.connection.waiting().replies.remove(&self.id);
    }
}

fn no_reply(why: &str) -> TransportError {
    TransportError::NoReply(why.to_owned())
}

// === impl Waiting ===

impl Waiting {
    fn begin(&mut self) -> (u64, oneshot::Receiver<Answer>) {
        let (done, reply) = oneshot::channel();
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        self.replies.insert(id, done);
        self.used = Instant::now();
        self.silent_since.get_or_insert(self.used);
        (id, reply)
    }

    fn heard(&mut self, id: u64, answer: Answer) {
        self.heard = true;
        self.timeouts = 0;
        self.used = Instant::now();
        if let Some(done) = self.replies.remove(&id) {
            // Who asked may have gone away this very moment.
            drop(done.send(answer));
        }
        self.silent_since = (!self.replies.is_empty()).then_some(self.used);
    }

    /// Counts a call without a reply; whether that is one too many.
    fn timed_out(&mut self, silence_max: Duration) -> bool {
        self.timeouts = self.timeouts.saturating_add(1);
        let silent = self.silent_since.map(|since| since.elapsed());
        self.timeouts >= TIMEOUTS_MAX && silent >= Some(silence_max)
    }
}
