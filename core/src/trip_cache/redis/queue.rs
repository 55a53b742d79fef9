//! The queue of trip events on Redis Streams, one stream a shard.
//!
//! Appends go through one task with a client of its own: what arrives while a round is under way
//! goes with the next one, in one script and one wait for durability. A reader needs no consumer
//! group: the port reads from a place and acknowledges up to one, so a consumer that dies is
//! replaced by one that reads from the start. Nothing is ever trimmed but what was acknowledged.
//!
//! Durable means: the append-only file is on and either synced at every write (`appendfsync
//! always`) or, with `everysec`, at least one replica has acknowledged the write (`WAIT`): with
//! neither, a crash of the machine could lose what a shopper was told is safe. Redis 7.0 has no
//! `WAITAOF`. The settings are read at the first append, after each reconnect and every second.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fred::prelude::Value;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::{OnceCell, broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::connection::{CacheCounters, Counters, Node, list, text};
use super::{SILENCE_MAX, scripts};
use crate::BoxFuture;
use crate::queue::{Delivery, EventQueue, QueueError, shard_of};
use crate::trip::TripEvent;
use crate::trip_cache::CacheError;

/// Appends waiting for the round under way; one more waits in its caller, within its budget.
const WAITING_MAX: usize = 4_096;
/// Events in one entry of a stream.
const BLOCK_EVENTS_MAX: usize = 1_000;
/// Events appended in one round.
const ROUND_EVENTS_MAX: usize = 20_000;
/// Entries read at once.
const ENTRIES_MAX: u32 = 1_000;
/// For how long a look at the durability settings is believed.
const BELIEVED: Duration = Duration::from_secs(1);

/// Where the queue is, and what it promises.
#[derive(Clone)]
pub struct RedisQueueConfig {
    /// `redis://` address of the primary.
    pub url: String,
    /// Streams. Fixed for the life of the queue: a trip's shard follows from it.
    pub shards: u32,
    /// Events of one shard not yet acknowledged, at most.
    pub shard_events_max: u32,
    /// How long a read waits for an event.
    pub block: Duration,
    /// What one append or acknowledgement may take.
    pub budget: Duration,
    /// Replicas that must have an append before it is acknowledged.
    pub replicas_required: u32,
    /// Whether to refuse appends that a crash of the server could lose.
    pub require_durable: bool,
}

/// The queue of trip events in Redis. Dropping it ends its task; appends under way are unknown.
pub struct RedisEventQueue {
    config: RedisQueueConfig,
    commands: Arc<Node>,
    readers: Vec<Reader>,
    counters: Arc<Counters>,
    requests: mpsc::Sender<Request>,
    appender: JoinHandle<()>,
}

/// A shard's own client, since a waiting read keeps the others of its connection waiting too.
struct Reader {
    node: OnceCell<Node>,
    /// Events an entry held lately, to ask for no more entries than are wanted.
    per_entry: AtomicU32,
}

struct Request {
    events: Vec<TripEvent>,
    done: oneshot::Sender<Result<(), QueueError>>,
}

struct Appender {
    node: Arc<Node>,
    config: RedisQueueConfig,
    reconnections: broadcast::Receiver<fred::types::config::Server>,
    /// When the settings were last seen to be durable.
    checked_at: Option<Instant>,
}

/// Where an event is: its number, and how many were appended up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    number: u64,
    count: u64,
}

struct Entry {
    last: u64,
    appended: u64,
    events: Vec<TripEvent>,
}

// === impl RedisQueueConfig ===

impl RedisQueueConfig {
    /// Eight shards of 250,000 events, durable or nothing, no replica asked for.
    pub fn new(url: String) -> Self {
        Self {
            url,
            shards: 8,
            shard_events_max: 250_000,
            block: Duration::from_millis(200),
            budget: Duration::from_secs(1),
            replicas_required: 0,
            require_durable: true,
        }
    }
}

impl std::fmt::Debug for RedisQueueConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The address may hold a password.
        f.debug_struct("RedisQueueConfig")
            .field("shards", &self.shards)
            .field("replicas_required", &self.replicas_required)
            .field("require_durable", &self.require_durable)
            .finish_non_exhaustive()
    }
}

// === impl RedisEventQueue ===

impl RedisEventQueue {
    /// Begins to connect; no server has to be there yet, an error is one of the address. Must be
    /// called inside a Tokio runtime.
    pub fn connect(mut config: RedisQueueConfig) -> Result<Self, CacheError> {
        config.shards = config.shards.max(1);
        let counters = Arc::new(Counters::default());
        // A WAIT is answered within the budget; the server is not silent before that.
        let silence = config.budget.saturating_add(SILENCE_MAX);
        let node = Arc::new(Node::open(
            &config.url,
            None,
            silence,
            Arc::clone(&counters),
        )?);
        let commands = Arc::new(Node::open(
            &config.url,
            None,
            silence,
            Arc::clone(&counters),
        )?);
        let (requests, waiting) = mpsc::channel(WAITING_MAX);
        let appender = Appender {
            reconnections: node.reconnections(),
            node,
            config: config.clone(),
            checked_at: None,
        };
        Ok(Self {
            readers: (0..config.shards).map(|_| Reader::default()).collect(),
            config,
            commands,
            counters,
            requests,
            appender: tokio::spawn(appender.run(waiting)),
        })
    }

    /// What went wrong so far.
    pub fn counters(&self) -> CacheCounters {
        self.counters.snapshot()
    }

    async fn append_now(&self, events: Vec<TripEvent>) -> Result<(), QueueError> {
        if events.is_empty() {
            return Ok(());
        }
        let (done, answer) = oneshot::channel();
        let asked = async {
            let request = Request { events, done };
            // Both fail only when the task is gone with its runtime.
            self.requests.send(request).await.map_err(|_gone| ended())?;
            answer.await.unwrap_or_else(|_gone| Err(ended()))
        };
        // The round under way, then ours: two script calls, two waits.
        let budget = self.config.budget.saturating_mul(2);
        match tokio::time::timeout(budget, asked).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(CacheError::Timeout.into()),
        }
    }

    async fn read_now(
        &self,
        shard: u32,
        after: Option<String>,
        max: u32,
    ) -> Result<Vec<Delivery>, QueueError> {
        let reader = self.reader(shard)?;
        let node = reader.connected(&self.config, &self.counters).await?;
        let mut after = match after {
            Some(receipt) => Place::parse(&receipt)?.number,
            None => acknowledged(node, shard, self.config.budget).await?,
        };
        loop {
            let entries = self.entries(node, reader, (shard, after), max).await?;
            let Some(last) = entries.last().map(|entry| entry.last) else {
                return Ok(Vec::new());
            };
            let found: Vec<Delivery> = entries
                .into_iter()
                .flat_map(Entry::numbered)
                .filter(|(place, _)| place.number > after)
                .take(usize::try_from(max).unwrap_or(usize::MAX))
                .map(|(place, event)| Delivery {
                    receipt: place.to_string(),
                    event,
                })
                .collect();
            if !found.is_empty() {
                return Ok(found);
            }
            // Nothing but damaged entries: read on behind them.
            after = last;
        }
    }

    async fn entries(
        &self,
        node: &Node,
        reader: &Reader,
        (shard, after): (u32, u64),
        max: u32,
    ) -> Result<Vec<Entry>, QueueError> {
        let per_entry = reader.per_entry.load(Ordering::Relaxed).max(1);
        let entries = max.div_ceil(per_entry).clamp(1, ENTRIES_MAX);
        let arguments = vec![
            Value::from("COUNT"),
            Value::from(entries.to_string()),
            Value::from("BLOCK"),
            Value::from(self.config.block.as_millis().max(1).to_string()),
            Value::from("STREAMS"),
            Value::from(stream_key(shard)),
            Value::from(format!("{after}-0")),
        ];
        let budget = self.config.block.saturating_add(self.config.budget);
        let reply = node.command("XREAD", arguments, budget).await?;
        let stream = list(reply).into_iter().next().map(list).unwrap_or_default();
        let given = stream.into_iter().nth(1).map(list).unwrap_or_default();
        let mut read = Vec::with_capacity(given.len());
        let mut events = 0_usize;
        for entry in given {
            let (entry, damaged) = Entry::parse(entry)?;
            if damaged {
                self.counters.count_garbage();
            }
            events = events.saturating_add(entry.events.len());
            read.push(entry);
        }
        if let Some(average) = events.checked_div(read.len()) {
            let average = u32::try_from(average).unwrap_or(u32::MAX);
            reader.per_entry.store(average, Ordering::Relaxed);
        }
        Ok(read)
    }

    async fn ack_now(&self, shard: u32, upto: String) -> Result<(), QueueError> {
        self.reader(shard)?;
        let Place { number, count } = Place::parse(&upto)?;
        let keys = vec![meta_key(shard), stream_key(shard)];
        let next = number.saturating_add(1);
        let arguments = [number, count, next].map(|number| Value::from(number.to_string()));
        self.commands.connected_within(self.config.budget).await;
        self.commands
            .run(&scripts::ACK, keys, arguments.into(), self.config.budget)
            .await?;
        Ok(())
    }

    async fn depth_now(&self) -> Result<u64, QueueError> {
        let keys = (0..self.config.shards).map(meta_key).collect();
        self.commands.connected_within(self.config.budget).await;
        let sum = self
            .commands
            .run(&scripts::DEPTH, keys, Vec::new(), self.config.budget)
            .await?;
        Ok(sum.as_u64().unwrap_or(0))
    }

    fn reader(&self, shard: u32) -> Result<&Reader, QueueError> {
        let index = usize::try_from(shard).unwrap_or(usize::MAX);
        self.readers
            .get(index)
            .ok_or_else(|| CacheError::Refused(format!("there is no shard {shard}")).into())
    }
}

impl EventQueue for RedisEventQueue {
    fn append(&self, events: Vec<TripEvent>) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(self.append_now(events))
    }

    fn shards(&self) -> u32 {
        self.config.shards
    }

    fn read(
        &self,
        shard: u32,
        after: Option<String>,
        max: u32,
    ) -> BoxFuture<'_, Result<Vec<Delivery>, QueueError>> {
        Box::pin(self.read_now(shard, after, max))
    }

    fn ack(&self, shard: u32, upto: String) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(self.ack_now(shard, upto))
    }

    fn depth(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        Box::pin(self.depth_now())
    }
}

impl Drop for RedisEventQueue {
    fn drop(&mut self) {
        self.appender.abort();
    }
}

impl std::fmt::Debug for RedisEventQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisEventQueue")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

// === impl Reader ===

impl Reader {
    async fn connected(
        &self,
        config: &RedisQueueConfig,
        counters: &Arc<Counters>,
    ) -> Result<&Node, CacheError> {
        let silence = config.block.saturating_add(SILENCE_MAX);
        let open = || async { Node::open(&config.url, None, silence, Arc::clone(counters)) };
        let node = self.node.get_or_try_init(open).await?;
        node.connected_within(config.budget).await;
        Ok(node)
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            node: OnceCell::new(),
            per_entry: AtomicU32::new(1),
        }
    }
}

// === impl Appender ===

impl Appender {
    async fn run(mut self, mut waiting: mpsc::Receiver<Request>) {
        while let Some(first) = waiting.recv().await {
            let mut events = first.events.len();
            let mut round = vec![first];
            while events < ROUND_EVENTS_MAX
                && let Ok(next) = waiting.try_recv()
            {
                events = events.saturating_add(next.events.len());
                round.push(next);
            }
            let done = self.append(&round).await;
            if round.len() > 1 && matches!(done, Err(QueueError::Full)) {
                // Together they are too many; some may fit.
                for request in round {
                    let done = self.append(std::slice::from_ref(&request)).await;
                    answer(request, done);
                }
                continue;
            }
            for request in round {
                answer(request, done.clone());
            }
        }
    }

    /// Appends a round; `Ok` once it is durable.
    async fn append(&mut self, round: &[Request]) -> Result<(), QueueError> {
        self.node.connected_within(self.config.budget).await;
        self.check_durable().await?;
        let (keys, arguments) = self.blocks(round)?;
        let budget = self.config.budget;
        let written = self
            .node
            .run(&scripts::APPEND, keys, arguments, budget)
            .await?;
        if written.as_i64() != Some(1) {
            return Err(QueueError::Full);
        }
        self.await_replicas().await?;
        // A reconnect meanwhile may have reached another server, set up otherwise.
        self.check_durable().await
    }

    /// Keys and arguments of the script: the round's events by shard, in their order.
    fn blocks(&self, round: &[Request]) -> Result<(Vec<String>, Vec<Value>), QueueError> {
        let mut shards: BTreeMap<u32, VecDeque<&TripEvent>> = BTreeMap::new();
        for event in round.iter().flat_map(|request| &request.events) {
            let shard = shard_of(event.trip, self.config.shards);
            shards.entry(shard).or_default().push_back(event);
        }
        let mut keys = Vec::new();
        let mut arguments = vec![Value::from(self.config.shard_events_max.to_string())];
        for (shard, mut events) in shards {
            while !events.is_empty() {
                let count = events.len().min(BLOCK_EVENTS_MAX);
                let block: Vec<&TripEvent> = events.drain(..count).collect();
                let written = serde_json::to_string(&block)
                    .map_err(|error| CacheError::Refused(error.to_string()))?;
                keys.extend([meta_key(shard), stream_key(shard)]);
                arguments.push(Value::from(count.to_string()));
                arguments.push(Value::from(written));
            }
        }
        Ok((keys, arguments))
    }

    async fn await_replicas(&self) -> Result<(), QueueError> {
        let required = self.config.replicas_required;
        if required == 0 {
            return Ok(());
        }
        // The server gives up a little before we do, so that its count arrives.
        let budget = self.config.budget;
        let patience = budget.saturating_sub(budget.checked_div(5).unwrap_or_default());
        let patience = patience.as_millis().max(1);
        let arguments = vec![required.to_string().into(), patience.to_string().into()];
        let reached = self.node.command("WAIT", arguments, budget).await?;
        if reached
            .as_u64()
            .is_some_and(|reached| reached >= required.into())
        {
            return Ok(());
        }
        // It is on the primary and may reach the replicas yet: unknown, as any lost reply.
        Err(CacheError::Timeout.into())
    }

    async fn check_durable(&mut self) -> Result<(), QueueError> {
        if !self.config.require_durable {
            return Ok(());
        }
        let mut reconnected = false;
        while let Ok(_) | Err(TryRecvError::Lagged(_)) = self.reconnections.try_recv() {
            reconnected = true;
        }
        let now = Instant::now();
        let believed = self
            .checked_at
            .is_some_and(|at| now.saturating_duration_since(at) < BELIEVED);
        if believed && !reconnected {
            return Ok(());
        }
        self.checked_at = None;
        if self.setting("appendonly").await? != "yes" {
            return Err(QueueError::NotDurable("appendonly is off".to_owned()));
        }
        let sync = self.setting("appendfsync").await?;
        if sync != "always" && self.config.replicas_required == 0 {
            return Err(QueueError::NotDurable(format!(
                "appendfsync is {sync} and no replica is required"
            )));
        }
        self.checked_at = Some(now);
        Ok(())
    }

    async fn setting(&self, name: &str) -> Result<String, QueueError> {
        let arguments = vec![Value::from("GET"), Value::from(name)];
        let reply = self
            .node
            .command("CONFIG", arguments, self.config.budget)
            .await?;
        let value = match reply {
            Value::Map(map) => map.inner().into_values().next(),
            reply => list(reply).into_iter().nth(1),
        };
        Ok(value
            .as_ref()
            .and_then(text)
            .unwrap_or("unknown")
            .to_owned())
    }
}

// === impl Entry ===

impl Entry {
    /// Reads an entry; one that is damaged has no events, and `true` beside it.
    fn parse(entry: Value) -> Result<(Self, bool), QueueError> {
        let mut parts = list(entry).into_iter();
        let id = parts.next();
        let last = id
            .as_ref()
            .and_then(text)
            .and_then(|id| id.split('-').next()?.parse().ok())
            .ok_or_else(|| CacheError::Refused("an entry without an id".to_owned()))?;
        let fields = parts.next().map(list).unwrap_or_default();
        let count = super::field(&fields, "n").and_then(|count| count.parse::<usize>().ok());
        let appended = super::field(&fields, "c").and_then(|count| count.parse().ok());
        let events = super::field(&fields, "e")
            .and_then(|events| serde_json::from_str::<Vec<TripEvent>>(events).ok())
            .filter(|events| Some(events.len()) == count);
        let damaged = events.is_none() || appended.is_none();
        let entry = Self {
            last,
            appended: appended.unwrap_or(0),
            events: events.filter(|_| !damaged).unwrap_or_default(),
        };
        Ok((entry, damaged))
    }

    /// The events with their places: the last one has the entry's number.
    fn numbered(self) -> impl Iterator<Item = (Place, TripEvent)> {
        let Self {
            last,
            appended,
            events,
        } = self;
        let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
        let numbers = last.saturating_sub(count).saturating_add(1)..;
        let counts = appended.saturating_sub(count).saturating_add(1)..;
        let places = numbers
            .zip(counts)
            .map(|(number, count)| Place { number, count });
        places.zip(events)
    }
}

// === impl Place ===

impl Place {
    fn parse(receipt: &str) -> Result<Self, QueueError> {
        let place = receipt.split_once('.').and_then(|(number, count)| {
            Some(Self {
                number: number.parse().ok()?,
                count: count.parse().ok()?,
            })
        });
        place.ok_or_else(|| CacheError::Refused(format!("{receipt:?} is no receipt")).into())
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.number, self.count)
    }
}

// === free functions ===

/// Up to which event a shard is acknowledged.
async fn acknowledged(node: &Node, shard: u32, budget: Duration) -> Result<u64, QueueError> {
    let arguments = vec![Value::from(meta_key(shard)), Value::from("upto")];
    let upto = node.command("HGET", arguments, budget).await?;
    Ok(text(&upto).and_then(|upto| upto.parse().ok()).unwrap_or(0))
}

fn meta_key(shard: u32) -> String {
    format!("events:{shard}:meta")
}

fn stream_key(shard: u32) -> String {
    format!("events:{shard}")
}

/// Nobody may listen any more: then the caller's budget ran out, and it was told so.
fn answer(request: Request, done: Result<(), QueueError>) {
    drop(request.done.send(done));
}

fn ended() -> QueueError {
    CacheError::Unreachable("the queue has ended".to_owned()).into()
}
