//! The operators' desk: what they see of an edge, and what they order.

mod members;
mod page;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use standin_core::BoxFuture;
use standin_core::entry::{Entry, OperatorAction, OperatorOrder, StandInMode};
use standin_core::id::TransactionId;
use standin_core::ledger::Ledger;
use standin_core::register::{Outcome, Register};
use standin_core::trip_cache::TripCache;
use standin_wal::ScrubReport;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::page::Leaderless;
use super::{Shared, watchdog};
use crate::admin::{Control, MemberOrder, MembersChanged, Order, Readiness, TombstonePlaced};
use crate::advices::Advices;
use crate::alarm::Alarm;
use crate::breaker::Position;
use crate::config::Config;
use crate::log::{Log, soon};
use crate::path::Path;
use crate::played::{Page, PlayError, PlayOrder, Plays, Shown};
use crate::problem::{Problem, Unavailable};

/// How long an order may take to become durable.
const ORDER_WITHIN: Duration = Duration::from_millis(700);
/// How fast what is durable is read again, so that it does not keep the disk from its work.
const SCRUB_BYTES_PER_SECOND: u64 = 64 << 20;
/// Why an edge plays no fault.
const NO_CONSENT: &str =
    "this edge does not consent to drills: drills.consent is not \"yes\" in its configuration";
/// How long a look at the trip cache's heartbeat may take.
const LOOK_WITHIN: Duration = Duration::from_millis(20);

/// What operators see and order.
pub struct Desk {
    pub(super) shared: Shared,
    pub(super) path: Arc<Path>,
    pub(super) leaderless: Leaderless,
    /// Held while the log is read again.
    scrubbing: tokio::sync::Mutex<()>,
    region: String,
    edge_id: u64,
    /// Those that are stood in for.
    banks: i64,
    /// Cancelled when clients are asked to leave.
    leave: CancellationToken,
    /// Conflicts that the log had counted when this edge started.
    pub(super) conflicts_before: u64,
}

/// Why an order was not carried out.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OrderError {
    /// No payment of this id has a stored 500.
    #[error("no payment with this id has a stored 500")]
    NothingToClear,
    /// The order did not become durable in time; it may still.
    #[error("the order was not durable in time: {0}")]
    NotDurable(String),
    /// It does not fit the present state.
    #[error("{0}")]
    Refused(String),
    /// The configuration does not allow it.
    #[error("{NO_CONSENT}")]
    NoConsent,
    /// A fault is not played, or not ended.
    #[error(transparent)]
    Play(#[from] PlayError),
}

// === impl Desk ===

impl Desk {
    /// `conflicts_before`: what the log had counted before anything was carried to it.
    pub(super) fn new(
        shared: Shared,
        path: Arc<Path>,
        config: &Config,
        conflicts_before: u64,
    ) -> Self {
        let stood_in_for = config.banks.iter().filter(|bank| bank.stand_in);
        let banks = i64::try_from(stood_in_for.count()).unwrap_or(i64::MAX);
        Self {
            shared,
            path,
            leaderless: Leaderless::default(),
            scrubbing: tokio::sync::Mutex::default(),
            region: config.region.clone(),
            edge_id: config.edge_id,
            banks,
            leave: CancellationToken::new(),
            conflicts_before,
        }
    }

    /// Cancelled when clients are asked to leave.
    pub(super) const fn leave(&self) -> &CancellationToken {
        &self.leave
    }

    fn is_leaving(&self) -> bool {
        self.leave.is_cancelled()
    }

    pub(super) fn ledger(&self) -> &Arc<dyn Ledger> {
        &self.shared.ledger
    }

    pub(super) fn cache(&self) -> &Arc<dyn TripCache> {
        &self.shared.cache
    }

    pub(super) fn advices(&self) -> &Arc<Advices> {
        &self.shared.advices
    }

    pub(super) fn log(&self) -> &Arc<Log> {
        &self.shared.log
    }

    pub(super) fn metrics(&self) -> Arc<crate::metrics::Metrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// Whether the edge can decide and write ahead. Postgres does not matter: standing in for it is
    /// what an edge is for.
    pub fn can_serve(&self) -> Result<(), &'static str> {
        self.can_write_ahead()?;
        self.can_decide()
    }

    fn can_write_ahead(&self) -> Result<(), &'static str> {
        let wal = self.shared.log.status();
        if self.shared.log.is_poisoned() {
            return Err("the write-ahead log is poisoned");
        }
        if wal.bytes_used >= wal.budget_bytes && wal.queued > 0 {
            return Err("the write-ahead log is full");
        }
        if self.leaderless.too_long(&wal, Instant::now()) {
            return Err("the write-ahead log has no leader");
        }
        Ok(())
    }

    fn can_decide(&self) -> Result<(), &'static str> {
        if self.path.stores.load().is_empty() {
            return Err("no store is known yet");
        }
        if !self.path.knows_its_past() {
            return Err("the log has not been caught up with yet");
        }
        if self.shared.log.read(Register::is_full) {
            return Err("the register has its declared size");
        }
        Ok(())
    }

    /// How old the trip cache is; `None` when it gave no answer, never beat, or beats
    /// ahead of this edge's clock.
    pub async fn trip_cache_age_ms(&self) -> Option<u64> {
        // Any shopper serves: a look brings the heartbeat whether or not there is a trip.
        let shopper = 1_u64.try_into().ok()?;
        let looked =
            tokio::time::timeout(LOOK_WITHIN, self.shared.probed_cache.look(shopper)).await;
        looked.ok()?.ok()?.beat_age_ms(self.shared.clock.now())
    }

    /// The configuration's word on standing in, unless an operator has spoken.
    pub(super) async fn start_in(&self, mode: StandInMode) {
        let ordered = self.shared.log.read(Register::mode);
        if mode == StandInMode::Auto || ordered != StandInMode::Auto {
            return;
        }
        let order = Order {
            operator: "configuration".to_owned(),
            reason: "stand_in at start".to_owned(),
        };
        if let Err(error) = self.order_stand_in(mode, None, order).await {
            tracing::error!(%error, "the configured stand-in mode is not in force");
        }
    }

    /// Orders who decides whether to stand in, until another order or for so long. Durable, in the log
    /// and then in `audit`.
    pub async fn order_stand_in(
        &self,
        mode: StandInMode,
        lasts: Option<Duration>,
        order: Order,
    ) -> Result<(), OrderError> {
        let Order { operator, reason } = order;
        let what = match lasts {
            None => OperatorOrder::StandIn(mode),
            Some(lasts) => OperatorOrder::StandInFor {
                mode,
                for_ms: u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX),
            },
        };
        tracing::warn!(order = what.words(), operator, reason, "operator's order");
        self.propose(self.action(operator, reason, what))
            .await
            .map(drop)
    }

    /// Lets the committed answer replay instead of the 500 stored for a payment.
    pub async fn order_clear(
        &self,
        id: TransactionId,
        operator: String,
        reason: String,
    ) -> Result<(), OrderError> {
        if !self.shared.log.read(|register| register.is_faulted(id)) {
            return Err(OrderError::NothingToClear);
        }
        tracing::warn!(transaction = %id, operator, reason, "operator clears a stored 500");
        self.propose(self.action(operator, reason, OperatorOrder::ClearAnswer(id)))
            .await?;
        let log = &self.shared.log;
        let faulted = log.read(Register::faulted);
        watchdog::set_faulted(&self.shared.alarms, faulted);
        Ok(())
    }

    /// Puts a tombstone on a payment that has a hold and no outcome; says whether it came first.
    pub async fn tombstone(&self, id: TransactionId) -> Result<bool, OrderError> {
        let outcome = self.propose(Entry::Tombstone(id)).await?;
        Ok(outcome == Outcome::Tombstoned)
    }

    /// The same by an operator's order, which is audited.
    pub async fn order_tombstone(
        &self,
        id: TransactionId,
        operator: String,
        reason: String,
    ) -> Result<bool, OrderError> {
        tracing::warn!(transaction = %id, operator, reason, "tombstone ordered");
        let entry = self.action(operator, reason, OperatorOrder::Tombstone(id));
        let first = self.propose(entry).await? == Outcome::Tombstoned;
        tracing::info!(transaction = %id, first, "tombstone placed");
        Ok(first)
    }

    /// Reads what this edge's part of the log has on its disk again, and says what does not verify.
    ///
    /// # Errors
    /// When it is read already, or the log has ended.
    pub async fn order_scrub(&self, order: Order) -> Result<ScrubReport, OrderError> {
        let Order { operator, reason } = order;
        let running = |_busy| OrderError::Refused("the log is being read again already".into());
        let _one = self.scrubbing.try_lock().map_err(running)?;
        tracing::warn!(operator, reason, "operator has the log read again");
        let scrubbed = self.shared.log.scrub(SCRUB_BYTES_PER_SECOND).await;
        scrubbed.map_err(|ended| OrderError::NotDurable(ended.to_string()))
    }

    /// Begins to play a fault on this edge, for a drill. Only when all is well: nobody rehearses a failure
    /// in the middle of another one. It goes to the edge's log lines, as it changes nothing that is kept.
    ///
    /// # Errors
    /// When the configuration does not consent, all is not well, or a fault is played already.
    pub fn begin_fault(&self, order: PlayOrder) -> Result<Shown, OrderError> {
        let plays = self.plays()?;
        let mode = self.shared.log.read(Register::mode);
        let well = match (self.ready(), self.shared.primary.position(), mode) {
            (ready, ..) if !ready.ok => Err(ready.why.unwrap_or_default()),
            (_, Position::Open(_) | Position::Ramp(_), _) => Err("the primary is away".to_owned()),
            (_, Position::Closed, StandInMode::Force | StandInMode::Forbid) => {
                Err("an operator decides about standing in".to_owned())
            }
            (_, Position::Closed, StandInMode::Auto) => Ok(()),
        };
        // Whoever asks twice is told that, rather than what the fault itself has brought about.
        if plays.page().playing.is_some() {
            return Err(PlayError::Busy.into());
        }
        well.map_err(|why| OrderError::Refused(format!("all is not well here: {why}")))?;
        Ok(plays.begin(order)?)
    }

    /// Ends the fault of this number, or whichever is played.
    ///
    /// # Errors
    /// When the configuration does not consent, or it is not played.
    pub fn end_fault(&self, number: Option<u64>, order: Order) -> Result<Shown, OrderError> {
        let Order { operator, reason } = order;
        let ended = self.plays()?.end(number)?;
        tracing::warn!(operator, reason, "operator ends a fault that was played");
        Ok(ended)
    }

    fn plays(&self) -> Result<&Arc<Plays>, OrderError> {
        self.shared.plays.as_ref().ok_or(OrderError::NoConsent)
    }

    /// What is and was played here.
    fn played(&self) -> Page {
        let plays = self.shared.plays.as_ref();
        plays.map_or_else(Page::default, |plays| plays.page())
    }

    fn action(&self, operator: String, reason: String, what: OperatorOrder) -> Entry {
        let at = self.shared.clock.now();
        Entry::Operator(OperatorAction {
            id: Uuid::now_v7(),
            operator,
            reason,
            at,
            what,
        })
    }

    async fn propose(&self, entry: Entry) -> Result<Outcome, OrderError> {
        let proposed = self.shared.log.propose(&entry, soon(ORDER_WITHIN)).await;
        proposed.map_err(|error| OrderError::NotDurable(error.to_string()))
    }
}

impl Control for Desk {
    fn live(&self) -> Result<(), String> {
        if self.shared.log.is_poisoned() {
            return Err("the write-ahead log is poisoned".to_owned());
        }
        Ok(())
    }

    fn ready(&self) -> Readiness {
        let (decide, write_ahead) = (self.can_decide(), self.can_write_ahead());
        let stopping = self.is_leaving();
        let why = match stopping {
            true => Some("the edge is stopping"),
            false => write_ahead.err().or(decide.err()),
        };
        Readiness {
            ok: why.is_none(),
            why: why.map(str::to_owned),
            decide: decide.is_ok(),
            write_ahead: write_ahead.is_ok(),
            fresh_trips: !self.shared.alarms.is_raised(Alarm::TripCacheStale),
            stopping,
        }
    }

    fn status(&self) -> BoxFuture<'_, Value> {
        Box::pin(self.statusz())
    }

    fn refresh_metrics(&self) {
        self.set_gauges();
    }

    fn stand_in(
        &self,
        mode: StandInMode,
        lasts: Option<Duration>,
        order: Order,
    ) -> BoxFuture<'_, Result<Value, Problem>> {
        Box::pin(async move {
            self.order_stand_in(mode, lasts, order)
                .await
                .map_err(|error| error.problem())?;
            let for_ms = lasts.map(|lasts| lasts.as_millis());
            Ok(json!({ "mode": mode.as_str(), "for_ms": for_ms }))
        })
    }

    fn clear_answer(
        &self,
        id: TransactionId,
        order: Order,
    ) -> BoxFuture<'_, Result<Value, Problem>> {
        Box::pin(async move {
            let Order { operator, reason } = order;
            self.order_clear(id, operator, reason)
                .await
                .map_err(|error| error.problem())?;
            Ok(json!({ "cleared": id.to_string() }))
        })
    }

    fn tombstone(
        &self,
        id: TransactionId,
        order: Order,
    ) -> BoxFuture<'_, Result<TombstonePlaced, Problem>> {
        Box::pin(async move {
            let Order { operator, reason } = order;
            let first = self.order_tombstone(id, operator, reason).await;
            Ok(if first.map_err(|error| error.problem())? {
                TombstonePlaced::First
            } else {
                TombstonePlaced::Answered
            })
        })
    }

    fn change_members(&self, order: MemberOrder) -> BoxFuture<'_, Result<MembersChanged, Problem>> {
        Box::pin(async move {
            let changed = self.order_member(order).await;
            changed.map_err(|error| error.problem())
        })
    }

    fn scrub(&self, order: Order) -> BoxFuture<'_, Result<Value, Problem>> {
        Box::pin(async move {
            let scrubbed = self.order_scrub(order).await;
            Ok(json!(scrubbed.map_err(|error| error.problem())?))
        })
    }

    fn begin_fault(&self, order: PlayOrder) -> Result<Shown, Problem> {
        Self::begin_fault(self, order).map_err(|error| error.problem())
    }

    fn end_fault(&self, number: Option<u64>, order: Order) -> Result<Shown, Problem> {
        Self::end_fault(self, number, order).map_err(|error| error.problem())
    }
}

// === impl OrderError ===

impl OrderError {
    fn problem(&self) -> Problem {
        match self {
            Self::NothingToClear => Problem::Conflict {
                detail: "no payment with this id has a stored 500".into(),
            },
            Self::Refused(why) => Problem::Conflict {
                detail: why.clone().into(),
            },
            Self::NoConsent => Problem::Forbidden { detail: NO_CONSENT },
            Self::Play(error) => Problem::Conflict {
                detail: error.to_string().into(),
            },
            Self::NotDurable(_) => Problem::unavailable(Unavailable::LogTimeout),
        }
    }
}
