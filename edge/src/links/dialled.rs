//! One lane to one peer: dialled when there is something to say, and not dialled all the time when
//! that does not go well.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use standin_wal::{NodeId, TransportError};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Ended, Window};
use super::frame::{self, Frame, FrameError, Kind};
use super::hello::{EdgeName, HELLO_BYTES_MAX, Hello, Lane, Welcome};
use super::socket::{SecureError, Stream, is_loopback, prepare, secure_dialled};
use super::{LinkLimits, Shared};

const STOPPED: &str = "these links have stopped";

/// One lane.
pub(super) struct Dialled {
    shared: Arc<Shared>,
    to: EdgeName,
    address: String,
    lane: Lane,
    state: watch::Sender<State>,
    calls: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    pub(super) answered: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) busy: AtomicU64,
    pub(super) connections: AtomicU64,
    last_error: Mutex<Option<String>>,
    stop: CancellationToken,
}

#[derive(Clone)]
enum State {
    Down {
        /// Not dialled again before.
        again_at: Instant,
        /// Tries since it was last of use.
        tries: u32,
        why: String,
    },
    Connecting,
    Up(Arc<Connection>),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("the address does not resolve")]
    NoAddress,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Secure(#[from] SecureError),
    #[error("the certificate there is of {named}, {wanted} was dialled")]
    Another { named: EdgeName, wanted: EdgeName },
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("refused: {0}")]
    Refused(String),
    #[error("the other end hung up before a word")]
    HungUp,
    #[error("the other end did not answer the hello")]
    NoWelcome,
    #[error("connecting took too long")]
    TooLong,
}

// === impl Dialled ===

impl Dialled {
    pub(super) fn new(
        shared: &Arc<Shared>,
        node: NodeId,
        address: &str,
        lane: Lane,
        stop: CancellationToken,
    ) -> Self {
        let state = State::Down {
            again_at: Instant::now(),
            tries: 0,
            why: String::new(),
        };
        Self {
            to: EdgeName {
                region: shared.this.region.clone(),
                node,
            },
            address: address.to_owned(),
            lane,
            state: watch::Sender::new(state),
            calls: Arc::new(Semaphore::new(shared.limits.calls_max)),
            bytes: Arc::new(Semaphore::new(shared.limits.window_bytes(lane))),
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            last_error: Mutex::default(),
            stop,
            shared: Arc::clone(shared),
        }
    }

    pub(super) async fn call(
        self: &Arc<Self>,
        request: Bytes,
        patience: Duration,
    ) -> Result<Bytes, TransportError> {
        let Some(window) = self.enter(request.len()) else {
            self.busy.fetch_add(1, Ordering::Relaxed);
            let why = "busy: as much is under way to it as is allowed";
            return Err(TransportError::NoReply(why.to_owned()));
        };
        let answer = self.ask(request, window, patience).await;
        match &answer {
            Ok(_) => self.answered.fetch_add(1, Ordering::Relaxed),
            Err(_) => self.failed.fetch_add(1, Ordering::Relaxed),
        };
        answer
    }

    async fn ask(
        self: &Arc<Self>,
        request: Bytes,
        window: Window,
        patience: Duration,
    ) -> Result<Bytes, TransportError> {
        let now = Instant::now();
        let deadline = now.checked_add(patience).unwrap_or(now);
        let connected = timeout_at(deadline, self.connected()).await;
        let too_long = |_elapsed| Err("connecting takes longer than the call may".to_owned());
        let connection = connected
            .unwrap_or_else(too_long)
            .map_err(TransportError::Unreachable)?;
        connection.ask(request, window, deadline).await
    }

    /// A part of the window for a request of `length` bytes, if there is room.
    fn enter(&self, length: usize) -> Option<Window> {
        let length = u32::try_from(length).ok()?;
        let call = Arc::clone(&self.calls).try_acquire_owned().ok()?;
        let bytes = Arc::clone(&self.bytes)
            .try_acquire_many_owned(length)
            .ok()?;
        Some(Window {
            _call: call,
            _bytes: bytes,
        })
    }

    /// The connection, dialled if there is none. While it may not be dialled yet: why.
    async fn connected(self: &Arc<Self>) -> Result<Arc<Connection>, String> {
        let mut states = self.state.subscribe();
        loop {
            if self.stop.is_cancelled() {
                return Err(STOPPED.to_owned());
            }
            self.dial_if_due();
            let state = states.borrow_and_update().clone();
            match state {
                State::Up(connection) => return Ok(connection),
                State::Down { why, .. } => return Err(why),
                State::Connecting => {}
            }
            if states.changed().await.is_err() {
                return Err(STOPPED.to_owned());
            }
        }
    }

    fn dial_if_due(self: &Arc<Self>) {
        let mut due = None;
        self.state.send_if_modified(|state| match state {
            State::Down {
                again_at, tries, ..
            } if *again_at <= Instant::now() && !self.stop.is_cancelled() => {
                due = Some(*tries);
                *state = State::Connecting;
                true
            }
            State::Down { .. } | State::Connecting | State::Up(_) => false,
        });
        if let Some(tries) = due {
            let lane = Arc::clone(self);
            self.shared
                .tasks
                .spawn(async move { lane.hold(tries).await });
        }
    }

    /// Dials once, and carries until the connection ends.
    async fn hold(&self, tries: u32) {
        let held = self.stop.run_until_cancelled(self.dial_and_carry(tries));
        let down = held.await.unwrap_or_else(|| State::Down {
            again_at: Instant::now(),
            tries,
            why: STOPPED.to_owned(),
        });
        self.state.send_replace(down);
    }

    async fn dial_and_carry(&self, tries: u32) -> State {
        let limits = &self.shared.limits;
        let dialled = timeout(limits.connect_max, self.dial()).await;
        let stream = match dialled.unwrap_or(Err(ConnectError::TooLong)) {
            Ok(stream) => stream,
            Err(error) => return self.down(tries.saturating_add(1), error.to_string()),
        };
        let (connection, queued) = Connection::new(limits);
        let connection = Arc::new(connection);
        self.connections.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(to = %self.to, address = self.address, lane = ?self.lane, "linked");
        self.state.send_replace(State::Up(Arc::clone(&connection)));
        let ended = connection.carry(stream, queued, limits).await;
        if matches!(ended, Ended::Idle) {
            return State::Down {
                again_at: Instant::now(),
                tries: 0,
                why: ended.to_string(),
            };
        }
        let silent = matches!(ended, Ended::Silent);
        // What was of use is dialled again at once; what hangs up each time, or hears nothing, is not.
        let tries = if connection.was_heard() && !silent {
            0
        } else {
            tries.saturating_add(1)
        };
        self.down(tries, ended.to_string())
    }

    fn down(&self, tries: u32, why: String) -> State {
        let rest = rest(&self.shared.limits, tries, self.shared.chance.percent());
        let mut last = self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // A peer that is gone for an hour is one line, not one for each try.
        if tries <= 1 || last.as_deref() != Some(why.as_str()) {
            tracing::warn!(to = %self.to, address = self.address, lane = ?self.lane, why, "no link");
        }
        *last = Some(why.clone());
        let now = Instant::now();
        State::Down {
            again_at: now.checked_add(rest).unwrap_or(now),
            tries,
            why,
        }
    }

    async fn dial(&self) -> Result<Box<dyn Stream>, ConnectError> {
        let tls = self.shared.certificates.as_ref().map(|it| it.current());
        let stream = self.tcp(tls.is_none()).await?;
        prepare(&stream, self.shared.limits.stall_max)?;
        let (mut stream, named) = secure_dialled(stream, tls).await?;
        if let Some(named) = named
            && named != self.to
        {
            return Err(ConnectError::Another {
                named,
                wanted: self.to.clone(),
            });
        }
        self.greet(&mut stream).await?;
        Ok(stream)
    }

    async fn tcp(&self, loopback_only: bool) -> Result<TcpStream, ConnectError> {
        let mut last = ConnectError::NoAddress;
        for address in tokio::net::lookup_host(&self.address).await? {
            // Not even a hello leaves this machine unencrypted.
            if loopback_only && !is_loopback(address) {
                last = SecureError::PlainOffLoopback(address).into();
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }

    async fn greet(&self, stream: &mut Box<dyn Stream>) -> Result<(), ConnectError> {
        let stall = self.shared.limits.connect_max;
        let hello = Hello {
            to: self.to.node.0,
            lane: self.lane,
            ..self.shared.hello()
        };
        let hello = Frame {
            kind: Kind::Hello,
            id: 0,
            body: serde_json::to_vec(&hello)
                .map_err(std::io::Error::from)?
                .into(),
        };
        frame::write(stream, &hello, stall).await?;
        frame::flush(stream, stall).await?;
        let header = frame::read_header(stream, stall).await?;
        let header = header.ok_or(ConnectError::HungUp)?;
        let answer = frame::read_body(stream, header, HELLO_BYTES_MAX, stall).await?;
        match answer.kind {
            Kind::Refused => {
                let why = String::from_utf8_lossy(&answer.body).into_owned();
                return Err(ConnectError::Refused(why));
            }
            Kind::Welcome => {}
            Kind::Hello | Kind::Request | Kind::Reply | Kind::Busy | Kind::Failed => {
                return Err(ConnectError::NoWelcome);
            }
        }
        match serde_json::from_slice::<Welcome>(&answer.body) {
            Ok(welcome) if welcome.node == self.to.node.0 => Ok(()),
            Ok(_) | Err(_) => Err(ConnectError::NoWelcome),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(*self.state.borrow(), State::Up(_))
    }

    pub(super) fn under_way(&self) -> usize {
        let calls_max = self.shared.limits.calls_max;
        calls_max.saturating_sub(self.calls.available_permits())
    }

    pub(super) fn last_error(&self) -> Option<String> {
        let last = self.last_error.lock();
        last.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How long not to dial after so many tries in vain: twice as long each time, up to a bound, and
/// from a half to the whole of it by chance, so that nodes do not dial in step.
fn rest(limits: &LinkLimits, tries: u32, percent: u32) -> Duration {
    let Some(doublings) = tries.checked_sub(1) else {
        return Duration::ZERO;
    };
    let factor = 1_u32.checked_shl(doublings.min(16)).unwrap_or(u32::MAX);
    let full = limits.rest_min.saturating_mul(factor).min(limits.rest_max);
    let parts = percent.min(99).saturating_add(101);
    full.saturating_mul(parts).checked_div(200).unwrap_or(full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_doubles_up_to_its_bound_and_is_never_whole_for_all() {
        let limits = LinkLimits {
            rest_min: Duration::from_millis(100),
            rest_max: Duration::from_millis(500),
            ..LinkLimits::default()
        };
        let rests = |percent| [0, 1, 2, 3, 4, 40].map(|tries| rest(&limits, tries, percent));
        let millis = |rests: [u64; 6]| rests.map(|ms| Duration::from_micros(ms * 10));
        assert_eq!(
            rests(99),
            millis([0, 10_000, 20_000, 40_000, 50_000, 50_000])
        );
        assert_eq!(rests(0), millis([0, 5_050, 10_100, 20_200, 25_250, 25_250]));
    }
}
