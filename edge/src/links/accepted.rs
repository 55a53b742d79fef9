//! The links this node accepts: who may call is heard out, at most so much at once.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use serde::Serialize;
use standin_wal::NodeId;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, BufWriter};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::frame::{self, Frame, FrameError, Kind};
use super::hello::{HELLO_BYTES_MAX, Hello, Lane, Refusal, Welcome};
use super::socket::{SecureError, Stream, prepare, secure_accepted};
use super::{Handler, Shared};

const BUFFER_BYTES: usize = 64 * 1024;
/// Rest after a failed accept: trying again at once would only burn the CPU others need.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// A node that calls this one, for pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CallerStatus {
    /// The node.
    pub node: u64,
    /// Which of its connections.
    pub lane: Lane,
    /// Whether it is connected now.
    pub connected: bool,
    /// Its requests that are under way.
    pub requests: usize,
}

pub(super) struct Accepting {
    shared: Arc<Shared>,
    handler: Arc<dyn Handler>,
    callers: Mutex<HashMap<(NodeId, Lane), Caller>>,
}

/// What one node has of this one, on one lane. It outlives a connection: dialling again does not
/// make the share larger.
#[derive(Clone)]
struct Caller {
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    /// Ends the connection there is, when another takes its place.
    connection: CancellationToken,
}

/// A request's part of its caller's share, given back once its reply has left.
struct Share {
    _request: Option<OwnedSemaphorePermit>,
    _bytes: Option<OwnedSemaphorePermit>,
}

struct Answer {
    frame: Frame,
    _share: Share,
}

/// Why a connection ended or did not begin.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Secure(#[from] SecureError),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("it hung up before a word")]
    HungUp,
    #[error("its first word is no hello")]
    NoHello,
    #[error("it did not say who it is in time")]
    TooLong,
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    #[error("more nodes call than are allowed")]
    TooMany,
    #[error("it sent what is no request")]
    Unexpected,
    #[error("it may no longer call this node")]
    Removed,
}

// === impl Accepting ===

impl Accepting {
    pub(super) fn new(shared: Arc<Shared>, handler: Arc<dyn Handler>) -> Self {
        Self {
            shared,
            handler,
            callers: Mutex::default(),
        }
    }

    /// Accepts connections until the links stop.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener) {
        let stop = self.shared.stop.clone();
        let accepting = async {
            // Of those that have not said who they are; the others are one a lane of each member.
            let strangers = Arc::new(Semaphore::new(self.shared.limits.strangers_max));
            while let Ok(permit) = Arc::clone(&strangers).acquire_owned().await {
                match listener.accept().await {
                    Ok((stream, from)) => {
                        let this = Arc::clone(&self);
                        let connection = async move { this.connection(stream, from, permit).await };
                        let stop = self.shared.stop.clone();
                        self.shared
                            .tasks
                            .spawn(async move { stop.run_until_cancelled(connection).await });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a link");
                        tokio::time::sleep(ACCEPT_REST).await;
                    }
                }
            }
        };
        stop.run_until_cancelled(accepting).await;
    }

    pub(super) fn status(&self) -> Vec<CallerStatus> {
        let requests_max = self.shared.limits.calls_max;
        let shown = |(&(node, lane), caller): (&(NodeId, Lane), &Caller)| CallerStatus {
            node: node.0,
            lane,
            connected: !caller.connection.is_cancelled(),
            requests: requests_max.saturating_sub(caller.requests.available_permits()),
        };
        let mut all: Vec<_> = self.callers().iter().map(shown).collect();
        all.sort_by_key(|caller| (caller.node, caller.lane == Lane::Bulk));
        all
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        from: SocketAddr,
        stranger: OwnedSemaphorePermit,
    ) {
        let greeted = timeout(self.shared.limits.connect_max, self.greet(stream)).await;
        let (stream, hello) = match greeted.unwrap_or(Err(Ended::TooLong)) {
            Ok(greeted) => greeted,
            Err(why) => return self.shared.turned_away(from, &why.to_string()),
        };
        let node = NodeId(hello.from);
        let Some(caller) = self.enter(node, hello.lane) else {
            return self.shared.turned_away(from, &Ended::TooMany.to_string());
        };
        drop(stranger);
        tracing::debug!(node = node.0, lane = ?hello.lane, %from, "a link begins");
        let replaced = caller.connection.clone();
        // The newest connection is the one its node knows of.
        let _over = caller.connection.clone().drop_guard();
        let ended = tokio::select! {
            biased;
            () = replaced.cancelled() => return,
            ended = self.hear_out(stream, node, hello.lane, &caller) => ended,
        };
        match ended {
            Ok(()) => tracing::debug!(node = node.0, lane = ?hello.lane, "a link ended"),
            Err(why) => {
                tracing::warn!(node = node.0, lane = ?hello.lane, %why, "a link was ended");
            }
        }
    }

    /// Hears who it is, and lets it begin or says why not.
    async fn greet(&self, stream: TcpStream) -> Result<(Box<dyn Stream>, Hello), Ended> {
        let stall = self.shared.limits.connect_max;
        prepare(&stream, self.shared.limits.stall_max)?;
        let tls = self.shared.certificates.as_ref().map(|it| it.current());
        let (mut stream, named) = secure_accepted(stream, tls).await?;
        let header = match frame::read_header(&mut stream, stall).await {
            Ok(header) => header.ok_or(Ended::HungUp)?,
            Err(error @ FrameError::Version(_)) => {
                say(&mut stream, Kind::Refused, error.to_string().into(), stall).await?;
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        };
        let first = frame::read_body(&mut stream, header, HELLO_BYTES_MAX, stall).await?;
        if first.kind != Kind::Hello {
            return Err(Ended::NoHello);
        }
        let hello: Hello = serde_json::from_slice(&first.body).map_err(|_| Ended::NoHello)?;
        let ours = self.shared.hello();
        let checked = hello.check(&ours, named.as_ref()).and_then(|()| {
            let may_call = self.handler.may_call(NodeId(hello.from));
            may_call.then_some(()).ok_or(Refusal::Stranger(hello.from))
        });
        if let Err(refusal) = checked {
            let why = refusal.to_string().into();
            say(&mut stream, Kind::Refused, why, stall).await?;
            return Err(refusal.into());
        }
        let welcome = serde_json::to_vec(&Welcome { node: ours.from });
        let welcome = welcome.map_err(std::io::Error::from)?.into();
        say(&mut stream, Kind::Welcome, welcome, stall).await?;
        Ok((stream, hello))
    }

    /// Gives a new connection its node's share; the one before it ends.
    fn enter(&self, node: NodeId, lane: Lane) -> Option<Caller> {
        let limits = &self.shared.limits;
        let mut callers = self.callers();
        if callers.len() >= limits.peers_max.saturating_mul(2) {
            let idle = |caller: &Caller| {
                caller.connection.is_cancelled()
                    && caller.requests.available_permits() >= limits.calls_max
            };
            callers.retain(|_, caller| !idle(caller));
        }
        if callers.len() >= limits.peers_max.saturating_mul(2)
            && !callers.contains_key(&(node, lane))
        {
            return None;
        }
        let caller = callers.entry((node, lane)).or_insert_with(|| Caller {
            requests: Arc::new(Semaphore::new(limits.calls_max)),
            bytes: Arc::new(Semaphore::new(limits.window_bytes(lane))),
            connection: CancellationToken::new(),
        });
        caller.connection.cancel();
        caller.connection = CancellationToken::new();
        Some(caller.clone())
    }

    async fn hear_out(
        &self,
        stream: Box<dyn Stream>,
        node: NodeId,
        lane: Lane,
        caller: &Caller,
    ) -> Result<(), Ended> {
        let (read, write) = tokio::io::split(stream);
        let (answers, answered) = mpsc::channel(self.shared.limits.calls_max);
        tokio::select! {
            ended = self.read(read, node, lane, caller, answers) => ended,
            ended = self.write(write, answered) => ended,
        }
    }

    async fn read(
        &self,
        read: impl AsyncRead + Unpin,
        node: NodeId,
        lane: Lane,
        caller: &Caller,
        answers: mpsc::Sender<Answer>,
    ) -> Result<(), Ended> {
        let limits = &self.shared.limits;
        let stall = limits.stall_max;
        let mut read = BufReader::with_capacity(BUFFER_BYTES, read);
        while let Some(header) = frame::read_header(&mut read, stall).await? {
            if !self.handler.may_call(node) {
                return Err(Ended::Removed);
            }
            if header.kind != Kind::Request {
                return Err(Ended::Unexpected);
            }
            let max = limits.request_bytes_max(lane);
            frame::check_length(header, max)?;
            // At the bound nothing is read: the other end's own window fills, and it knows.
            let bytes = Arc::clone(&caller.bytes).acquire_many_owned(header.length);
            let bytes = bytes.await.ok();
            let frame = frame::read_body(&mut read, header, max, stall).await?;
            let request = Arc::clone(&caller.requests).try_acquire_owned().ok();
            let busy = request.is_none();
            let share = Share {
                _request: request,
                _bytes: bytes,
            };
            if busy {
                let busy = Answer::new(Kind::Busy, frame.id, Bytes::new(), share);
                // Waits for a node that does not take its replies; the write gives it up.
                drop(answers.send(busy).await);
            } else {
                self.begin(node, frame, share, answers.clone());
            }
        }
        Ok(())
    }

    /// Handles a request in a task of its own: what was begun is finished even if the connection
    /// ends.
    fn begin(&self, node: NodeId, request: Frame, share: Share, answers: mpsc::Sender<Answer>) {
        let handler = Arc::clone(&self.handler);
        let stop = self.shared.stop.clone();
        let reply_bytes_max = self.shared.limits.frame_bytes_max;
        let handling = async move {
            let id = request.id;
            let reply = AssertUnwindSafe(handler.handle(node, request.body)).catch_unwind();
            let answer = match reply.await {
                Ok(reply) if reply.len() <= reply_bytes_max => {
                    Answer::new(Kind::Reply, id, reply, share)
                }
                Ok(_) => {
                    let why = Bytes::from_static(b"the reply is larger than a frame may be");
                    Answer::new(Kind::Failed, id, why, share)
                }
                Err(_panic) => {
                    tracing::error!(node = node.0, "handling a request panicked");
                    let why = Bytes::from_static(b"the other end failed at it");
                    Answer::new(Kind::Failed, id, why, share)
                }
            };
            // Without the connection nobody waits for it.
            drop(answers.send(answer).await);
        };
        self.shared
            .tasks
            .spawn(async move { stop.run_until_cancelled(handling).await });
    }

    async fn write(
        &self,
        write: impl AsyncWrite + Unpin,
        mut answered: mpsc::Receiver<Answer>,
    ) -> Result<(), Ended> {
        let stall = self.shared.limits.stall_max;
        let mut write = BufWriter::with_capacity(BUFFER_BYTES, write);
        while let Some(first) = answered.recv().await {
            let mut next = Some(first);
            while let Some(answer) = next {
                frame::write(&mut write, &answer.frame, stall).await?;
                drop(answer);
                next = answered.try_recv().ok();
            }
            frame::flush(&mut write, stall).await?;
        }
        Ok(())
    }

    fn callers(&self) -> MutexGuard<'_, HashMap<(NodeId, Lane), Caller>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn say(
    stream: &mut Box<dyn Stream>,
    kind: Kind,
    body: Bytes,
    stall: Duration,
) -> Result<(), FrameError> {
    let frame = Frame { kind, id: 0, body };
    frame::write(stream, &frame, stall).await?;
    frame::flush(stream, stall).await
}

// === impl Answer ===

impl Answer {
    const fn new(kind: Kind, id: u64, body: Bytes, share: Share) -> Self {
        Self {
            frame: Frame { kind, id, body },
            _share: share,
        }
    }
}
