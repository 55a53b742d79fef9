//! The operators' desk: what they see of an edge, and what they order.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use standin_core::BoxFuture;
use standin_core::entry::{Entry, OperatorAction, OperatorOrder, StandInMode};
use standin_core::id::TransactionId;
use standin_core::ledger::Ledger;
use standin_core::register::{Outcome, Register};
use standin_core::trip_cache::TripCache;
use uuid::Uuid;

use super::{Shared, watchdog};
use crate::admin::{Control, Order, TombstonePlaced};
use crate::advices::Advices;
use crate::breaker::Position;
use crate::config::Config;
use crate::log::{Log, soon};
use crate::metrics::{BreakerState, Exposure};
use crate::path::Path;
use crate::problem::{Problem, Unavailable};

/// How long an order may take to become durable.
const ORDER_WITHIN: Duration = Duration::from_millis(700);
/// How long a look at the trip cache's heartbeat may take.
const LOOK_WITHIN: Duration = Duration::from_millis(20);

/// What operators see and order.
pub struct Desk {
    pub(super) shared: Shared,
    pub(super) path: Arc<Path>,
    region: String,
    edge_id: u64,
    banks: i64,
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
}

// === impl Desk ===

impl Desk {
    pub(super) fn new(shared: Shared, path: Arc<Path>, config: &Config) -> Self {
        let banks = i64::try_from(config.banks.len()).unwrap_or(i64::MAX);
        Self {
            shared,
            path,
            region: config.region.clone(),
            edge_id: config.edge_id,
            banks,
        }
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

    /// Whether the edge can decide and write ahead. Postgres does not matter: standing in for it is
    /// what an edge is for.
    pub fn can_serve(&self) -> Result<(), &'static str> {
        let wal = self.shared.log.status();
        if wal.poisoned {
            return Err("the write-ahead log is poisoned");
        }
        if wal.bytes_used >= wal.budget_bytes && wal.queued > 0 {
            return Err("the write-ahead log is full");
        }
        if self.path.stores.load().is_empty() {
            return Err("no store is known yet");
        }
        if self.shared.log.read(Register::is_full) {
            return Err("the register has its declared size");
        }
        Ok(())
    }

    /// Everything on one page.
    pub async fn statusz(&self) -> Value {
        let trip_cache_age_ms = self.trip_cache_age_ms().await;
        let wal = self.shared.log.status();
        let (counts, outage, outages, mode, answers, log_time_ms) =
            self.shared.log.read(|register| {
                let outages: Vec<_> = register.outages().copied().collect();
                (
                    register.counts(),
                    register.outage().copied(),
                    outages,
                    register.mode(),
                    register.len(),
                    register.log_time_ms(),
                )
            });
        let position = self.shared.primary.position();
        let progress = &self.shared.progress;
        let policy = self.path.policy.load();
        json!({
            "region": self.region,
            "edge": self.edge_id,
            "now": self.shared.clock.now().to_string(),
            "rung": rung(mode, position),
            "stand_in": {
                "mode": mode.as_str(),
                "outage": outage.map(|outage| json!({
                    "why": outage.why.as_str(),
                    "age_ms": log_time_ms.saturating_sub(outage.from_ms),
                    "from_index": outage.from_index,
                })),
                "outages": outages,
            },
            "breaker": { "position": breaker(position), "changes": self.shared.primary.changes() },
            "wal": named(&wal, self.shared.log.incarnation()),
            "register": {
                "answers": answers,
                "counts": counts,
                "in_flight": self.path.inflight.len(),
            },
            "drain": {
                "cursor": progress.cursor.load(Ordering::Relaxed),
                "backlog": self.shared.backlog(),
                "finalized": progress.finalized.load(Ordering::Relaxed),
                "already": progress.already.load(Ordering::Relaxed),
                "conflicts": progress.conflicts.load(Ordering::Relaxed),
            },
            "exposure": {
                "approved_without_primary_minor": counts.exposed_minor,
                "worst_case_minor": worst_case(&policy, self.banks),
                "currency": policy.currency.code(),
            },
            "policy_version": policy.version,
            "trip_cache": {
                "age_ms": trip_cache_age_ms,
                "write_through_dropped": self.path.afterwards.dropped(),
            },
            "stores": self.path.stores.load().len(),
            "alarms": self.shared.alarms.raised(),
        })
    }

    /// How old the trip cache is; `None` when it gave no answer or never beat.
    pub async fn trip_cache_age_ms(&self) -> Option<u64> {
        // Any shopper serves: a look brings the heartbeat whether or not there is a trip.
        let shopper = 1_u64.try_into().ok()?;
        let looked = tokio::time::timeout(LOOK_WITHIN, self.shared.cache.look(shopper)).await;
        let beat = looked.ok()?.ok()?.beat?;
        Some(self.shared.clock.now().millis_since(beat))
    }

    /// The configuration's word on standing in, unless an operator has spoken.
    pub(super) async fn start_in(&self, mode: StandInMode) {
        let ordered = self.shared.log.read(Register::mode);
        if mode == StandInMode::Auto || ordered != StandInMode::Auto {
            return;
        }
        let (operator, reason) = ("configuration".to_owned(), "stand_in at start".to_owned());
        if let Err(error) = self.order_stand_in(mode, operator, reason).await {
            tracing::error!(%error, "the configured stand-in mode is not in force");
        }
    }

    /// Orders who decides whether to stand in. Durable, in the log and then in `audit`.
    pub async fn order_stand_in(
        &self,
        mode: StandInMode,
        operator: String,
        reason: String,
    ) -> Result<(), OrderError> {
        tracing::warn!(mode = mode.as_str(), operator, reason, "operator's order");
        self.propose(self.action(operator, reason, OperatorOrder::StandIn(mode)))
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
        if self.shared.log.status().poisoned {
            return Err("the write-ahead log is poisoned".to_owned());
        }
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        self.can_serve().map_err(str::to_owned)
    }

    fn status(&self) -> BoxFuture<'_, Value> {
        Box::pin(self.statusz())
    }

    fn refresh_metrics(&self) {
        let metrics = &self.shared.metrics;
        let wal = self.shared.log.status();
        let (mode, exposed) = self
            .shared
            .log
            .read(|register| (register.mode(), register.counts().exposed_minor));
        let policy = self.path.policy.load();
        metrics.wal_space(wal.bytes_used, wal.budget_bytes);
        metrics.drain_backlog(self.shared.backlog());
        metrics.stand_in_mode(mode);
        metrics.breaker(match self.shared.primary.position() {
            Position::Closed => BreakerState::Closed,
            Position::Open(_) => BreakerState::Open,
            Position::Ramp(_) => BreakerState::Ramping,
        });
        metrics.exposure(Exposure::Now, exposed, policy.currency);
        metrics.exposure(
            Exposure::WorstCase,
            worst_case(&policy, self.banks),
            policy.currency,
        );
    }

    fn stand_in(&self, mode: StandInMode, order: Order) -> BoxFuture<'_, Result<Value, Problem>> {
        Box::pin(async move {
            let Order { operator, reason } = order;
            self.order_stand_in(mode, operator, reason)
                .await
                .map_err(|error| error.problem())?;
            Ok(json!({ "mode": mode.as_str() }))
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
}

// === impl OrderError ===

impl OrderError {
    fn problem(&self) -> Problem {
        match self {
            Self::NothingToClear => Problem::Conflict {
                detail: "no payment with this id has a stored 500",
            },
            Self::NotDurable(_) => Problem::Unavailable {
                cause: Unavailable::LogTimeout,
                retry_after: Duration::from_secs(1),
            },
        }
    }
}

/// A node's status with the name that its log has in the ledger.
fn named(status: &standin_wal::GroupStatus, log: Option<Uuid>) -> Value {
    let mut page = json!(status);
    if let Some(fields) = page.as_object_mut() {
        fields.insert("incarnation".to_owned(), json!(log));
    }
    page
}

/// The rung that the next request is likely answered on.
fn rung(mode: StandInMode, position: Position) -> &'static str {
    match (mode, position) {
        (StandInMode::Force, _) | (StandInMode::Auto, Position::Open(_)) => "stand_in",
        (StandInMode::Forbid, Position::Open(_)) => "refused",
        (StandInMode::Auto | StandInMode::Forbid, Position::Closed | Position::Ramp(_)) => {
            "primary"
        }
    }
}

fn breaker(position: Position) -> Value {
    match position {
        Position::Closed => json!({ "state": "closed", "admits_percent": 100 }),
        Position::Open(why) => json!({ "state": "open", "admits_percent": 0, "why": why.as_str() }),
        Position::Ramp(share) => json!({ "state": "ramp", "admits_percent": share }),
    }
}

/// The most this edge may approve in one outage without the primary: the banks' stand-in limit and
/// the reserve for old trips. The trips' caps bound it further; how much depends on the trips.
fn worst_case(policy: &standin_core::policy::Policy, banks: i64) -> i64 {
    let stand_in = policy.stand_in.bank_outage.amount.saturating_mul(banks);
    stand_in.saturating_add(policy.isolated.reserve.amount)
}
