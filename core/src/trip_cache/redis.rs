//! The trip cache in Redis 7 or newer, natively replicated to each region.
//!
//! Writes go to the primary; a look goes to the local replica, else to another one, else gives up,
//! all inside one budget, in one round trip each. A node that failed repeatedly is passed over, so
//! that a hung one is not paid for by every request; one whose heartbeat stands still, or that shows less
//! than was seen before, is not believed while another shows a trip and more. A value that is damaged, of the wrong type or
//! too large is a miss and counted, never an error.
//!
//! Expects `maxmemory-policy volatile-lru` (or `noeviction`): an open trip has no expiry and is
//! never evicted, a closed one has.
//! Every write, and every read of the primary, carries the highest epoch of a home that is known, and is
//! refused by a server of another: by one of the past for good, by one promoted since until its epoch is
//! known, which the refusal tells. A look brings the epoch with it.
//! Deliberately absent: Redis Cluster and Sentinel (an operator promotes another home, see `promote`,
//! and moves the primary's address), and any belief about freshness: the heartbeat tells.

mod connection;
mod promote;
mod queue;
mod scripts;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fred::prelude::Value;
use futures_util::future::join_all;
use tokio::time::Instant;

use super::hindsight::{Hindsight, Lapses, Standing};
use super::{CacheError, CachedTrip, Look, Put, TripCache};
use crate::BoxFuture;
use crate::authorities::Authorities;
use crate::clock::Timestamp;
use crate::id::{OrderId, ShopperId, TransactionId, TripId};
use crate::trip::{Approval, ITEMS_PER_ORDER_MAX, Item, ORDERS_PER_TRIP_MAX};
use crate::trip::{Position, Trip, TripSheet, TripStatus};

pub use connection::CacheCounters;
use connection::{Counters, Node, Script, list, text};
pub use promote::{RedisServer, ServerState};
pub use queue::{RedisEventQueue, RedisQueueConfig};

/// Approvals of one trip; one more is refused.
pub const APPROVALS_MAX: usize = 1_000;
/// Size of a trip's summary, most of it sums by category.
pub const SUMMARY_BYTES_MAX: usize = 256 * 1024;
/// Size of the lines of one order.
pub const LINES_BYTES_MAX: usize = 512 * ITEMS_PER_ORDER_MAX;
/// Size of one approval.
const APPROVAL_BYTES_MAX: usize = 64;
/// Fields of a trip's hash that are not approvals.
const OTHER_FIELDS: usize = 8;
const HEARTBEAT: &str = "heartbeat";
/// Which home a server is, or is a copy of.
const HOME_EPOCH: &str = "home_epoch";
/// A heart that has stood still for so long in one replica may beat in another.
const STILL_MAX: Duration = Duration::from_secs(1);
/// Trips looked at again by one check, in each copy: all that are remembered in about two minutes, and
/// they stay for longer than that once they are closed.
const CHECKED_MAX: usize = 16;
/// How long a server may leave a command unanswered before it is connected to anew.
const SILENCE_MAX: Duration = Duration::from_millis(500);

/// Where the cache is, and how long to wait for it.
#[derive(Clone)]
pub struct RedisConfig {
    /// `redis://` address that takes writes.
    pub primary: String,
    /// Addresses to look in, the nearest first; the primary when there is none.
    pub replicas: Vec<String>,
    /// Whom the certificates of servers at `rediss://` must be of.
    pub authorities: Option<Authorities>,
    /// What one look may take, over all replicas it tries.
    pub read_budget: Duration,
    /// What one write, or one read of a whole trip, may take.
    pub write_budget: Duration,
    /// How long a closed trip may still be looked at.
    pub closed_life: Duration,
    /// How long a position or an approval stays that no trip was written for.
    pub orphan_life: Duration,
}

/// The trip cache in Redis.
#[derive(Debug)]
pub struct RedisTripCache {
    primary: Node,
    replicas: Vec<Node>,
    /// What was seen of the nodes that are looked in.
    hindsight: Mutex<Hindsight>,
    /// The highest epoch of a home that is known.
    home_epoch: AtomicU64,
    counters: Arc<Counters>,
    read_budget: Duration,
    write_budget: Duration,
    closed_life: Duration,
    orphan_life: Duration,
}

// === impl RedisConfig ===

impl RedisConfig {
    /// The default budgets: 20 ms a look, 200 ms a write.
    pub fn new(primary: String, replicas: Vec<String>) -> Self {
        Self {
            primary,
            replicas,
            authorities: None,
            read_budget: Duration::from_millis(20),
            write_budget: Duration::from_millis(200),
            closed_life: Duration::from_secs(15 * 60),
            orphan_life: Duration::from_secs(24 * 3_600),
        }
    }
}

impl std::fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Addresses may hold passwords.
        f.debug_struct("RedisConfig")
            .field("replicas", &self.replicas.len())
            .field("read_budget", &self.read_budget)
            .field("write_budget", &self.write_budget)
            .finish_non_exhaustive()
    }
}

// === impl RedisTripCache ===

impl RedisTripCache {
    /// Begins to connect to every node. No node has to be there yet; an error is one of the
    /// addresses. Must be called inside a Tokio runtime.
    pub fn connect(config: RedisConfig) -> Result<Self, CacheError> {
        let RedisConfig {
            primary,
            replicas,
            authorities,
            read_budget,
            write_budget,
            closed_life,
            orphan_life,
        } = config;
        let counters = Arc::new(Counters::default());
        let open = |url: &String| {
            Node::open(
                url,
                authorities.as_ref(),
                SILENCE_MAX,
                Arc::clone(&counters),
            )
        };
        let copies = replicas.len().max(1);
        Ok(Self {
            primary: open(&primary)?,
            hindsight: Mutex::new(Hindsight::new(copies, closed_life)),
            home_epoch: AtomicU64::new(0),
            replicas: replicas.iter().map(open).collect::<Result<_, _>>()?,
            counters,
            read_budget,
            write_budget,
            closed_life,
            orphan_life,
        })
    }

    /// What went wrong so far.
    pub fn counters(&self) -> CacheCounters {
        self.counters.snapshot()
    }

    /// Waits, for so long, until every node was connected to. A start may wait here so that its
    /// first write does not fail; nothing has to.
    pub async fn connected(&self, within: Duration) -> bool {
        let nodes = std::iter::once(&self.primary).chain(&self.replicas);
        let deadline = Instant::now().checked_add(within);
        for node in nodes {
            let left = deadline.map_or(within, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            if !node.connected_within(left).await {
                return false;
            }
        }
        true
    }

    /// Where to look, the nearest first.
    fn copies(&self) -> &[Node] {
        match self.replicas.as_slice() {
            [] => std::slice::from_ref(&self.primary),
            replicas => replicas,
        }
    }

    async fn look_now(&self, shopper: ShopperId) -> Result<Look, CacheError> {
        let nodes = self.copies();
        let deadline = Instant::now().checked_add(self.read_budget);
        let mut last = CacheError::Unreachable("every node rests after failures".to_owned());
        let mut left = nodes.len();
        let mut best: Option<(Rank, Look)> = None;
        for (copy, node) in nodes.iter().enumerate() {
            let budget = deadline.map_or(self.read_budget, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            // The nearest gets half while there is another one to ask.
            let parts = if left > 1 { 2 } else { 1 };
            let share = budget.checked_div(parts).unwrap_or(budget);
            left = left.saturating_sub(1);
            if share.is_zero() || !node.is_worth_a_try() {
                continue;
            }
            match self.look_in(copy, node, shopper, share).await {
                Ok(look) => {
                    // A replica that lost its keys, hears nothing any more, or hears of another past,
                    // does not know that it does: another may know more.
                    let is_suspect = self.hindsight().is_suspect(copy);
                    let is_enough = look.trip.is_some()
                        && !look.behind
                        && !is_suspect
                        && !node.stands_still(look.beat, STILL_MAX);
                    let rank = rank(&look, is_suspect);
                    if best.as_ref().is_none_or(|(best, _)| *best < rank) {
                        best = Some((rank, look));
                    }
                    if is_enough {
                        break;
                    }
                }
                Err(error) => last = error,
            }
        }
        best.map(|(_, look)| look).ok_or(last)
    }

    /// What one node shows, and whether that is less than was seen.
    async fn look_in(
        &self,
        copy: usize,
        node: &Node,
        shopper: ShopperId,
        budget: Duration,
    ) -> Result<Look, CacheError> {
        let keys = [shopper_key(shopper), HEARTBEAT.into(), HOME_EPOCH.into()].into();
        let limits = vec![
            number(SUMMARY_BYTES_MAX),
            number(APPROVALS_MAX.saturating_add(OTHER_FIELDS)),
            number(APPROVAL_BYTES_MAX),
        ];
        let reply = node.run(&scripts::LOOK, keys, limits, budget).await?;
        let (mut look, epoch) = self.read_look(shopper, reply);
        // A home that was promoted since is how one learns of it.
        self.require_home_epoch(epoch);
        let is_past = epoch < self.home_epoch();
        let mut hindsight = self.hindsight();
        hindsight.set_past(copy, is_past);
        if is_past {
            look.behind = true;
            self.counters.count_past_home();
            return Ok(look);
        }
        let standing = hindsight.see(copy, shopper, &look, Instant::now());
        look.behind = standing != Standing::Current;
        self.counters.count_standing(standing);
        Ok(look)
    }

    /// Looks again at trips seen lately, in each node by itself: a look of a request stops at the first
    /// node that serves, and would never tell of the others.
    async fn check_now(&self) -> Lapses {
        let due = self.hindsight().due(CHECKED_MAX, Instant::now());
        let nodes = self.copies().iter().enumerate();
        let looks = nodes
            .filter(|(_, node)| node.is_worth_a_try())
            .flat_map(|(copy, node)| due.iter().map(move |shopper| (copy, node, *shopper)))
            .map(|(copy, node, shopper)| self.look_in(copy, node, shopper, self.read_budget));
        // A node that does not answer shows nothing, which is another alarm's.
        drop(join_all(looks).await);
        self.hindsight().lapses(Instant::now())
    }

    fn hindsight(&self) -> MutexGuard<'_, Hindsight> {
        // A panic elsewhere leaves at worst one trip half noted.
        self.hindsight
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What a look shows, and of which home its copy is.
    fn read_look(&self, shopper: ShopperId, reply: Value) -> (Look, u64) {
        let [beat, epoch, state, trip, position, fields] = parts(reply);
        let epoch = text(&epoch).and_then(|epoch| epoch.parse().ok());
        let shown = [state, trip, position, fields];
        (self.read_shown(shopper, &beat, shown), epoch.unwrap_or(0))
    }

    fn read_shown(&self, shopper: ShopperId, beat: &Value, shown: [Value; 4]) -> Look {
        let [state, trip, position, fields] = shown;
        let beat = text(beat)
            .and_then(|beat| beat.parse().ok())
            .map(Timestamp::from_millis);
        let mut look = Look {
            beat,
            ..Look::default()
        };
        match state.as_i64() {
            Some(0) => return look,
            Some(1) => {}
            _ => {
                self.counters.count_garbage();
                return look;
            }
        }
        let fields = list(fields);
        let summary = field(&fields, "summary");
        if summary.is_none() {
            // Only an approval or a close is known of it.
            return look;
        }
        let id = text(&trip).and_then(|id| id.parse::<TripId>().ok());
        let trip = summary
            .and_then(|summary| read_trip(summary, field(&fields, "closed").is_some()))
            .filter(|trip| Some(trip.id) == id && trip.shopper == shopper);
        let Some(trip) = trip else {
            self.counters.count_garbage();
            return look;
        };
        look.trip = Some(CachedTrip {
            trip,
            approvals: self.read_approvals(&fields),
            position: self.read_position(&position),
        });
        look
    }

    /// A damaged approval is left out: the cache is never proof that something was not spent.
    fn read_approvals(&self, fields: &[Value]) -> Vec<Approval> {
        let mut approvals = Vec::new();
        for pair in fields.chunks_exact(2) {
            let [name, value] = pair else { continue };
            let Some(id) = text(name).and_then(|name| name.strip_prefix("a:")) else {
                continue;
            };
            match text(value).and_then(|value| read_approval(id, value)) {
                Some(approval) => approvals.push(approval),
                None => self.counters.count_garbage(),
            }
        }
        approvals.sort_unstable_by_key(|approval| *approval.transaction_id.as_bytes());
        approvals
    }

    fn read_position(&self, value: &Value) -> Option<Position> {
        let written = text(value).filter(|written| !written.is_empty())?;
        let position = read_position(written);
        if position.is_none() {
            self.counters.count_garbage();
        }
        position
    }

    async fn sheet_now(&self, trip: TripId) -> Result<Option<TripSheet>, CacheError> {
        let limits = vec![
            number(SUMMARY_BYTES_MAX),
            number(ORDERS_PER_TRIP_MAX),
            number(LINES_BYTES_MAX),
        ];
        let keys = vec![trip_key(trip), items_key(trip)];
        let reply = self.at_home(&scripts::SHEET, keys, limits).await?;
        let [state, summary, closed, items] = parts(reply);
        if state.as_i64() == Some(0) {
            return Ok(None);
        }
        let sheet = text(&summary)
            .filter(|_| state.as_i64() == Some(1))
            .and_then(|summary| read_trip(summary, closed.as_i64() == Some(1)))
            .filter(|found| found.id == trip)
            .and_then(|trip| Some((trip, read_items(&list(items))?)))
            .map(|(trip, items)| TripSheet { trip, items });
        if sheet.is_none() {
            self.counters.count_garbage();
        }
        Ok(sheet)
    }

    async fn put_now(&self, sheet: TripSheet) -> Result<Put, CacheError> {
        let TripSheet { trip, items } = sheet;
        let summary = json(&trip, SUMMARY_BYTES_MAX)?;
        if items.len() > ORDERS_PER_TRIP_MAX {
            return Err(CacheError::Refused(
                "too many orders in one trip".to_owned(),
            ));
        }
        let over = trip.status == TripStatus::Complete;
        let mut arguments = vec![
            Value::from(format!("{:020}", trip.version)),
            Value::from(summary),
            wide(trip.started_at.as_millis()),
            Value::from(trip.id.to_string()),
            Value::from(if over { "1" } else { "0" }),
            millis(self.closed_life),
        ];
        for (order, lines) in &items {
            arguments.push(Value::from(order.to_string()));
            arguments.push(Value::from(json(lines, LINES_BYTES_MAX)?));
        }
        let keys = trip_keys(trip.id, trip.shopper);
        match self.at_home(&scripts::PUT, keys, arguments).await?.as_i64() {
            Some(1) => Ok(Put::Written),
            _ => Ok(Put::Older),
        }
    }

    /// Runs a script on the home, if it is the one of the highest epoch that is known. Twice at most: a home
    /// of a higher one is believed, and asked again.
    async fn at_home(
        &self,
        script: &Script,
        mut keys: Vec<String>,
        arguments: Vec<Value>,
    ) -> Result<Value, CacheError> {
        keys.push(HOME_EPOCH.to_owned());
        let mut known = self.home_epoch();
        loop {
            let mut arguments = arguments.clone();
            arguments.push(Value::from(known.to_string()));
            let budget = self.write_budget;
            let done = self.primary.run(script, keys.clone(), arguments, budget);
            let refused = match done.await {
                Err(CacheError::Refused(refused)) => refused,
                done => return done,
            };
            let Some(epoch) = other_epoch(&refused) else {
                return Err(CacheError::Refused(refused));
            };
            self.require_home_epoch(epoch);
            if epoch <= known {
                self.counters.count_past_home();
                return Err(CacheError::PastHome { epoch, known });
            }
            known = epoch;
        }
    }
}

impl TripCache for RedisTripCache {
    fn look(&self, shopper: ShopperId) -> BoxFuture<'_, Result<Look, CacheError>> {
        Box::pin(self.look_now(shopper))
    }

    fn sheet(&self, trip: TripId) -> BoxFuture<'_, Result<Option<TripSheet>, CacheError>> {
        Box::pin(self.sheet_now(trip))
    }

    fn put(&self, sheet: TripSheet) -> BoxFuture<'_, Result<Put, CacheError>> {
        Box::pin(self.put_now(sheet))
    }

    fn approve(&self, trip: TripId, approval: Approval) -> BoxFuture<'_, Result<(), CacheError>> {
        let arguments = vec![
            Value::from(format!("a:{}", approval.transaction_id)),
            wide(approval.amount),
            Value::from(approval.at.as_millis().to_string()),
            number(APPROVALS_MAX),
            millis(self.orphan_life),
        ];
        Box::pin(async move {
            let keys = vec![trip_key(trip)];
            self.at_home(&scripts::APPROVE, keys, arguments)
                .await
                .map(drop)
        })
    }

    fn moved(
        &self,
        shopper: ShopperId,
        position: Position,
    ) -> BoxFuture<'_, Result<(), CacheError>> {
        let Position { lat_e6, lon_e6, at } = position;
        let written = format!("{lat_e6} {lon_e6} {}", at.as_millis());
        let arguments = vec![
            wide(at.as_millis()),
            Value::from(written),
            millis(self.orphan_life),
        ];
        Box::pin(async move {
            let keys = vec![shopper_key(shopper)];
            self.at_home(&scripts::MOVED, keys, arguments)
                .await
                .map(drop)
        })
    }

    fn close(&self, shopper: ShopperId, trip: TripId) -> BoxFuture<'_, Result<(), CacheError>> {
        let arguments = vec![Value::from(trip.to_string()), millis(self.closed_life)];
        Box::pin(async move {
            let keys = trip_keys(trip, shopper);
            self.at_home(&scripts::CLOSE, keys, arguments)
                .await
                .map(drop)
        })
    }

    fn check(&self) -> BoxFuture<'_, Lapses> {
        Box::pin(self.check_now())
    }

    fn troubles(&self) -> Vec<(&'static str, u64)> {
        let CacheCounters {
            garbage,
            timeouts,
            unreachable,
            refused,
            passed_over,
            went_back,
            lost,
            past_home,
        } = self.counters();
        vec![
            ("garbage", garbage),
            ("timeouts", timeouts),
            ("unreachable", unreachable),
            ("refused", refused),
            ("passed_over", passed_over),
            ("went_back", went_back),
            ("lost", lost),
            ("past_home", past_home),
        ]
    }

    fn beat(&self, now: Timestamp) -> BoxFuture<'_, Result<(), CacheError>> {
        let arguments = vec![Value::from(now.as_millis().to_string())];
        Box::pin(async move {
            let keys = vec![HEARTBEAT.to_owned()];
            self.at_home(&scripts::BEAT, keys, arguments)
                .await
                .map(drop)
        })
    }

    fn home_epoch(&self) -> u64 {
        self.home_epoch.load(Ordering::Acquire)
    }

    fn require_home_epoch(&self, epoch: u64) {
        self.home_epoch.fetch_max(epoch, Ordering::AcqRel);
    }
}

// === what is written, and read back ===

fn trip_key(trip: TripId) -> String {
    format!("trip:{trip}")
}

fn items_key(trip: TripId) -> String {
    format!("items:{trip}")
}

/// The epoch of a server that refused ours.
fn other_epoch(refused: &str) -> Option<u64> {
    let (_, epoch) = refused.split_once(scripts::OTHER_EPOCH)?;
    let digits = epoch.split(|letter: char| !letter.is_ascii_digit()).next();
    digits?.parse().ok()
}

/// Of two looks the one with a trip counts, of two with one that which is not behind, then that of a node
/// which shows no less of other trips, then the younger.
type Rank = (bool, bool, bool, Option<Timestamp>);

fn rank(look: &Look, is_suspect: bool) -> Rank {
    (look.trip.is_some(), !look.behind, !is_suspect, look.beat)
}

fn shopper_key(shopper: ShopperId) -> String {
    format!("shopper:{shopper}")
}

fn trip_keys(trip: TripId, shopper: ShopperId) -> Vec<String> {
    vec![trip_key(trip), items_key(trip), shopper_key(shopper)]
}

/// As wide as the widest, so that text order is number order. Nothing here is ever negative.
fn wide(number: i64) -> Value {
    Value::from(format!("{:020}", number.max(0)))
}

fn number(number: usize) -> Value {
    Value::from(number.to_string())
}

fn millis(duration: Duration) -> Value {
    Value::from(duration.as_millis().max(1).to_string())
}

fn json<T: serde::Serialize>(value: &T, bytes_max: usize) -> Result<String, CacheError> {
    let written =
        serde_json::to_string(value).map_err(|error| CacheError::Refused(error.to_string()))?;
    if written.len() > bytes_max {
        let length = written.len();
        return Err(CacheError::Refused(format!(
            "{length} bytes, {bytes_max} are kept at most"
        )));
    }
    Ok(written)
}

/// The parts of a reply; `Null` for those that are missing.
fn parts<const N: usize>(reply: Value) -> [Value; N] {
    let mut given = list(reply).into_iter();
    std::array::from_fn(|_| given.next().unwrap_or(Value::Null))
}

fn field<'a>(fields: &'a [Value], name: &str) -> Option<&'a str> {
    let found = fields.chunks_exact(2).find_map(|pair| match pair {
        [key, value] if text(key) == Some(name) => Some(value),
        _ => None,
    })?;
    // A value that is not text is damaged: empty text parses as nothing.
    Some(text(found).unwrap_or_default())
}

fn read_trip(summary: &str, closed: bool) -> Option<Trip> {
    let mut trip: Trip = serde_json::from_str(summary).ok()?;
    if closed {
        trip.status = TripStatus::Complete;
    }
    Some(trip)
}

fn read_items(fields: &[Value]) -> Option<BTreeMap<OrderId, Vec<Item>>> {
    let pairs = fields.chunks_exact(2).map(|pair| {
        let [order, lines] = pair else { return None };
        let lines = serde_json::from_str(text(lines)?).ok()?;
        Some((text(order)?.parse().ok()?, lines))
    });
    pairs.collect()
}

fn read_approval(id: &str, value: &str) -> Option<Approval> {
    let transaction_id: TransactionId = id.parse().ok()?;
    let (amount, at) = value.split_once(' ')?;
    Some(Approval {
        transaction_id,
        amount: amount.parse().ok()?,
        at: Timestamp::from_millis(at.parse().ok()?),
    })
}

fn read_position(written: &str) -> Option<Position> {
    let mut numbers = written.split(' ');
    let position = Position {
        lat_e6: numbers.next()?.parse().ok()?,
        lon_e6: numbers.next()?.parse().ok()?,
        at: Timestamp::from_millis(numbers.next()?.parse().ok()?),
    };
    numbers.next().is_none().then_some(position)
}
