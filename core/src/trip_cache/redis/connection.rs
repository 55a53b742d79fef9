//! One Redis node: its own fred client (fred's replica routing sends every read to the primary
//! outside cluster mode, and one hung node can block a shared client), a breaker, and scripts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use fred::prelude::{
    Builder, Client, ClientLike, Config, Error, ErrorKind, FredResult, LuaInterface, Options,
    ReconnectPolicy, TcpConfig, Value,
};
use fred::types::config::UnresponsiveConfig;
use fred::types::{ClusterHash, ConnectHandle, CustomCommand};
use tokio::time::Instant;

use super::super::CacheError;
use super::super::hindsight::Standing;
use crate::authorities::Authorities;
use crate::clock::Timestamp;

/// Commands of one node waiting to be written; one more is [`CacheError::Unreachable`].
const BUFFERED_COMMANDS_MAX: usize = 16_384;
const CONNECT_MAX: Duration = Duration::from_millis(500);
/// Delays between tries to connect, doubled from the first to the second.
const RECONNECT_MS: (u32, u32) = (50, 1_000);
/// Consecutive failures after which a node is left alone for a while …
const BREAKER_FAILURES: u32 = 3;
/// … if they went on for so long: many requests run out of one short hiccup's time together.
const BREAKER_AFTER: Duration = Duration::from_millis(150);
/// How long, at first and at most (doubled in between).
const BREAKER_OPEN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// A Lua script, known to the servers by its hash.
pub(super) struct Script {
    text: &'static str,
    /// What Redis called it; the same on every server.
    sha: OnceLock<String>,
    command: &'static str,
}

/// What went wrong so far, over all nodes of a cache. Each only grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CacheCounters {
    /// Values that did not parse or had the wrong type or size: each was a miss.
    pub garbage: u64,
    /// Calls that ran out of their budget.
    pub timeouts: u64,
    /// Calls that failed for want of a connection.
    pub unreachable: u64,
    /// Calls that Redis answered with an error.
    pub refused: u64,
    /// Nodes passed over because they had just failed repeatedly.
    pub passed_over: u64,
    /// Looks that showed an older trip, or version of one, than its history had.
    pub went_back: u64,
    /// Looks that showed no trip where there was one that cannot have ended.
    pub lost: u64,
    /// Looks in copies of a home of the past, and calls that one refused.
    pub past_home: u64,
}

/// Where [`CacheCounters`] are counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    garbage: AtomicU64,
    timeouts: AtomicU64,
    unreachable: AtomicU64,
    refused: AtomicU64,
    passed_over: AtomicU64,
    went_back: AtomicU64,
    lost: AtomicU64,
    past_home: AtomicU64,
}

const NO_AUTHORITY: &str = "a rediss:// address needs the authority of its certificate";

/// One server.
pub(super) struct Node {
    client: Client,
    /// Ends with the client; kept so that it is not detached.
    router: ConnectHandle,
    breaker: Mutex<Breaker>,
    pulse: Mutex<Pulse>,
    counters: Arc<Counters>,
}

/// The last heartbeat that a node showed, and since when.
#[derive(Clone, Copy, Debug, Default)]
struct Pulse {
    beat: Option<Timestamp>,
    since: Option<Instant>,
}

/// Whether the node is worth a try. One request probes it each time its rest is over.
#[derive(Debug, Default)]
struct Breaker {
    failures: u32,
    /// When the first of them was.
    since: Option<Instant>,
    rest: Duration,
    until: Option<Instant>,
    /// A request is out to see whether it is back.
    probing: bool,
}

// === impl Script ===

impl Script {
    /// A script that writes: for a primary.
    pub(super) const fn write(text: &'static str) -> Self {
        Self {
            text,
            sha: OnceLock::new(),
            command: "EVALSHA",
        }
    }

    /// A script that only reads: for any node.
    pub(super) const fn read(text: &'static str) -> Self {
        Self {
            text,
            sha: OnceLock::new(),
            command: "EVALSHA_RO",
        }
    }
}

// === impl Node ===

impl Node {
    /// Begins to connect, and goes on trying for as long as it lives. `silence_max` is how long
    /// the server may leave a command unanswered before the connection is made anew.
    pub(super) fn open(
        url: &str,
        authorities: Option<&Authorities>,
        silence_max: Duration,
        counters: Arc<Counters>,
    ) -> Result<Self, CacheError> {
        let mut config = Config::from_url(url).map_err(|error| refused(&error))?;
        match (config.tls.is_some(), authorities) {
            (false, _) => {}
            (true, Some(authorities)) => {
                let connector = tokio_rustls::TlsConnector::from(authorities.config());
                config.tls = Some(connector.into());
            }
            (true, None) => return Err(CacheError::Refused(NO_AUTHORITY.to_owned())),
        }
        // Do not give up when the first connection fails.
        config.fail_fast = false;
        let (first, longest) = RECONNECT_MS;
        let client = Builder::from_config(config)
            .with_connection_config(|connection| {
                connection.connection_timeout = CONNECT_MAX;
                connection.internal_command_timeout = CONNECT_MAX;
                connection.max_command_attempts = 1;
                connection.max_command_buffer_len = BUFFERED_COMMANDS_MAX;
                connection.unresponsive = UnresponsiveConfig {
                    max_timeout: Some(silence_max),
                    interval: Duration::from_millis(100),
                };
                connection.tcp = TcpConfig {
                    nodelay: Some(true),
                    ..TcpConfig::default()
                };
            })
            .set_policy(ReconnectPolicy::new_exponential(0, first, longest, 2))
            .build()
            .map_err(|error| refused(&error))?;
        let router = client.connect();
        Ok(Self {
            client,
            router,
            breaker: Mutex::default(),
            pulse: Mutex::default(),
            counters,
        })
    }

    /// False while it rests after repeated failures; true once per rest for the one that probes it.
    pub(super) fn is_worth_a_try(&self) -> bool {
        let worth = self.lock().admit(Instant::now());
        if !worth {
            self.counters.passed_over.fetch_add(1, Ordering::Relaxed);
        }
        worth
    }

    /// Whether the heart that this node shows has stood still for so long: the node may hear nothing any
    /// more, and another may hear more. Of one that shows none, or was not looked at before, nothing is
    /// known.
    pub(super) fn stands_still(&self, beat: Option<Timestamp>, still_max: Duration) -> bool {
        let mut pulse = self.pulse.lock().unwrap_or_else(PoisonError::into_inner);
        pulse.stands_still(beat, Instant::now(), still_max)
    }

    /// Runs a script, loading it first where the server does not know it.
    pub(super) async fn run(
        &self,
        script: &Script,
        keys: Vec<String>,
        arguments: Vec<Value>,
        budget: Duration,
    ) -> Result<Value, CacheError> {
        let work = async {
            if let Some(sha) = script.sha.get() {
                let request = request(sha, &keys, &arguments);
                match self.send(script.command, request, budget).await {
                    Err(error) if error.details().starts_with("NOSCRIPT") => {}
                    done => return done,
                }
            }
            let loaded: String = self.client.script_load(script.text).await?;
            let sha = script.sha.get_or_init(|| loaded);
            let request = request(sha, &keys, &arguments);
            self.send(script.command, request, budget).await
        };
        self.within(budget, work).await
    }

    /// Runs a plain command.
    pub(super) async fn command(
        &self,
        name: &'static str,
        arguments: Vec<Value>,
        budget: Duration,
    ) -> Result<Value, CacheError> {
        self.within(budget, self.send(name, arguments, budget))
            .await
    }

    /// Waits for a connection, for so long; whether there is one.
    pub(super) async fn connected_within(&self, budget: Duration) -> bool {
        if !self.client.is_connected() {
            // What came of the wait is read from the client's state below.
            drop(tokio::time::timeout(budget, self.client.wait_for_connect()).await);
        }
        self.client.is_connected()
    }

    /// Tells of each time the connection was made, the first included.
    pub(super) fn reconnections(
        &self,
    ) -> tokio::sync::broadcast::Receiver<fred::types::config::Server> {
        use fred::prelude::EventInterface;
        self.client.reconnect_rx()
    }

    async fn send(
        &self,
        name: &'static str,
        arguments: Vec<Value>,
        budget: Duration,
    ) -> FredResult<Value> {
        let blocking = matches!(name, "XREAD" | "WAIT");
        let command = CustomCommand::new_static(name, ClusterHash::FirstKey, blocking);
        let options = Options {
            timeout: Some(budget),
            max_attempts: Some(1),
            fail_fast: true,
            ..Options::default()
        };
        self.client
            .with_options(&options)
            .custom(command, arguments)
            .await
    }

    async fn within(
        &self,
        budget: Duration,
        work: impl Future<Output = FredResult<Value>> + Send,
    ) -> Result<Value, CacheError> {
        if !self.client.is_connected() {
            return self.note(Err(CacheError::Unreachable("not connected".to_owned())));
        }
        let done = match tokio::time::timeout(budget, work).await {
            Ok(done) => done.map_err(|error| classify(&error)),
            Err(_elapsed) => Err(CacheError::Timeout),
        };
        self.note(done)
    }

    fn note(&self, done: Result<Value, CacheError>) -> Result<Value, CacheError> {
        let counter = match &done {
            // An error is an answer: the node is alive.
            Ok(_) | Err(CacheError::Refused(_)) => {
                self.lock().succeeded();
                done.is_err().then_some(&self.counters.refused)
            }
            // Not ours to say: whoever reads the answer does.
            Err(CacheError::PastHome { .. }) => None,
            Err(CacheError::Timeout) => {
                self.lock().failed(Instant::now());
                Some(&self.counters.timeouts)
            }
            Err(CacheError::Unreachable(_)) => {
                self.lock().failed(Instant::now());
                Some(&self.counters.unreachable)
            }
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        done
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.router.abort();
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The address may hold a password.
        f.write_str("Node(..)")
    }
}

// === impl Pulse ===

impl Pulse {
    fn stands_still(&mut self, beat: Option<Timestamp>, now: Instant, still_max: Duration) -> bool {
        match self.since.filter(|_| beat.is_some() && beat == self.beat) {
            Some(since) => now.saturating_duration_since(since) > still_max,
            None => {
                *self = Self {
                    beat,
                    since: Some(now),
                };
                false
            }
        }
    }
}

// === impl Breaker ===

impl Breaker {
    fn admit(&mut self, now: Instant) -> bool {
        match self.until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                // This one probes; the others wait for what it finds.
                self.probing = true;
                self.until = now.checked_add(self.rest);
                true
            }
        }
    }

    fn succeeded(&mut self) {
        *self = Self::default();
    }

    fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let since = *self.since.get_or_insert(now);
        let lasted = now.saturating_duration_since(since);
        if self.failures < BREAKER_FAILURES || lasted < BREAKER_AFTER {
            return;
        }
        if self.until.is_some() && !self.probing {
            // It rests already; this one had begun before.
            return;
        }
        self.probing = false;
        let (shortest, longest) = BREAKER_OPEN;
        self.rest = self.rest.saturating_mul(2).clamp(shortest, longest);
        self.until = now.checked_add(self.rest);
    }
}

// === impl Counters ===

impl Counters {
    pub(super) fn count_garbage(&self) {
        self.garbage.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_past_home(&self) {
        self.past_home.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_standing(&self, standing: Standing) {
        let counter = match standing {
            Standing::Current | Standing::Behind => return,
            Standing::Older => &self.went_back,
            Standing::Missing => &self.lost,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> CacheCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheCounters {
            garbage: read(&self.garbage),
            timeouts: read(&self.timeouts),
            unreachable: read(&self.unreachable),
            refused: read(&self.refused),
            passed_over: read(&self.passed_over),
            went_back: read(&self.went_back),
            lost: read(&self.lost),
            past_home: read(&self.past_home),
        }
    }
}

// === free functions ===

/// Text of a value; `None` for anything that is not text.
pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        // Not UTF-8, or not text at all.
        Value::Bytes(_)
        | Value::Boolean(_)
        | Value::Integer(_)
        | Value::Double(_)
        | Value::Null
        | Value::Queued
        | Value::Map(_)
        | Value::Array(_) => None,
    }
}

/// The elements of an array; none for anything else.
pub(super) fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(list) => list,
        Value::String(_)
        | Value::Bytes(_)
        | Value::Boolean(_)
        | Value::Integer(_)
        | Value::Double(_)
        | Value::Null
        | Value::Queued
        | Value::Map(_) => Vec::new(),
    }
}

fn request(sha: &str, keys: &[String], arguments: &[Value]) -> Vec<Value> {
    let mut request: Vec<Value> = vec![sha.into(), keys.len().to_string().into()];
    request.extend(keys.iter().map(|key| Value::from(key.as_str())));
    request.extend(arguments.iter().cloned());
    request
}

fn classify(error: &Error) -> CacheError {
    match error.kind() {
        ErrorKind::Timeout => CacheError::Timeout,
        ErrorKind::IO
        | ErrorKind::Canceled
        | ErrorKind::Routing
        | ErrorKind::Backpressure
        | ErrorKind::Auth => CacheError::Unreachable(error.to_string()),
        // Whatever else there is, is an answer of the server or a fault of the request.
        _ => CacheError::Refused(error.details().to_owned()),
    }
}

fn refused(error: &Error) -> CacheError {
    CacheError::Refused(error.details().to_owned())
}
