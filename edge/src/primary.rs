//! What this edge believes of the primary, and who keeps that belief true.
//!
//! [`Primary`] answers "may this request try it?" from the breaker and the operators' order. The
//! watch ([`Watch::run`]) tries the canary, climbs the ramp, and has the log agree on when an
//! outage began and ended.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use standin_core::answer::Why;
use standin_core::clock::Clock;
use standin_core::entry::{Entry, OperatorAction, OperatorOrder, StandInMode};
use standin_core::ledger::{Ledger, LedgerError};
use standin_core::register::Register;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::breaker::{Breaker, BreakerConfig, Position};
use crate::drain::Progress;
use crate::log::{Log, soon};

/// How often the watch looks.
const WATCH_EVERY: Duration = Duration::from_millis(25);
/// How long the watch waits for the log to agree on an outage before it tries again.
const AGREE_WITHIN: Duration = Duration::from_millis(700);
/// How often a full register is nudged.
const NUDGE_EVERY: Duration = Duration::from_secs(5);

/// What this edge believes of the primary.
#[derive(Debug)]
pub struct Primary {
    breaker: Mutex<Breaker>,
    epoch: Instant,
}

/// Whether a request may try the primary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// Ask it, and stand in if it does not answer in time.
    Ask,
    /// Ask it; without its word there is no answer.
    AskOnly,
    /// Do not ask: stand in.
    StandIn(Why),
    /// Do not ask, and standing in is forbidden.
    Refuse(Why),
}

// === impl Primary ===

impl Primary {
    /// A primary believed to be reachable, unless the log says that an outage is on.
    pub fn new(config: BreakerConfig, outage: Option<Why>) -> Self {
        let breaker = match outage {
            Some(why) if why != Why::Forced => Breaker::opened(config, why, 0),
            Some(_) | None => Breaker::new(config, 0),
        };
        Self {
            breaker: Mutex::new(breaker),
            epoch: Instant::now(),
        }
    }

    /// What to do with one request; `chance` is uniform over 0..100.
    pub fn route(&self, mode: StandInMode, chance: u32) -> Route {
        let breaker = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        match (mode, breaker.position()) {
            (StandInMode::Force, _) => Route::StandIn(Why::Forced),
            (StandInMode::Forbid, Position::Open(why)) => Route::Refuse(why),
            (StandInMode::Forbid, Position::Closed | Position::Ramp(_)) => Route::AskOnly,
            (StandInMode::Auto, _) if breaker.admits(chance) => Route::Ask,
            (StandInMode::Auto, _) => Route::StandIn(Why::BreakerOpen),
        }
    }

    /// Hears how a try went.
    pub fn heard(&self, outcome: Result<(), Why>) {
        let now = self.now();
        let change = self
            .breaker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .heard(outcome, now);
        if let Some(change) = change {
            tracing::warn!(?change, "breaker");
        }
    }

    /// Where the breaker stands.
    pub fn position(&self) -> Position {
        self.breaker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .position()
    }

    /// Times the breaker opened or closed.
    pub fn changes(&self) -> u64 {
        self.breaker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .changes()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Keeps the belief true.
pub struct Watch {
    /// The belief.
    pub primary: Arc<Primary>,
    /// What is tried.
    pub ledger: Arc<dyn Ledger>,
    /// Where outages are agreed.
    pub log: Arc<Log>,
    /// How far the log was drained; `None` in embedded mode, where nothing is ever forgotten.
    pub progress: Option<Arc<Progress>>,
    /// How long a canary may take.
    pub canary_max: Duration,
    /// Time of day, for the audit.
    pub clock: Arc<dyn Clock>,
}

/// An operator's order that was given for a time, as it is seen here.
#[derive(Clone, Copy)]
struct Timed {
    /// When it ends, in log time: that names it.
    until_ms: u64,
    /// When that is here. Log time stands still while nothing is written.
    over: Instant,
}

// === impl Watch ===

impl Watch {
    /// Runs until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let mut nudged = Instant::now();
        let mut timed = None;
        let mut beat = tokio::time::interval(WATCH_EVERY);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = beat.tick() => {}
            }
            self.step().await;
            timed = self.end_order(timed).await;
            if nudged.elapsed() >= NUDGE_EVERY {
                nudged = Instant::now();
                self.nudge().await;
            }
        }
    }

    async fn step(&self) {
        let (canary, change) = {
            let now = self.primary.now();
            let mut breaker = self
                .primary
                .breaker
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let change = breaker.tick(now);
            (breaker.wants_canary(now), change)
        };
        if let Some(change) = change {
            tracing::warn!(?change, "breaker");
        }
        if canary {
            let tried = self.try_canary().await;
            if let Err(error) = &tried {
                tracing::debug!(%error, "canary commit failed");
            }
            let now = self.primary.now();
            let mut breaker = self
                .primary
                .breaker
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            breaker.canary(tried.map_err(|error| error.why), now);
        }
        self.agree().await;
    }

    /// A full register takes no payment, so log time would stand still and nothing would ever be
    /// forgotten: an entry now and then moves it on.
    async fn nudge(&self) {
        let Some(progress) = &self.progress else {
            return;
        };
        if !self.log.read(Register::is_full) {
            return;
        }
        let entry = Entry::Drained(progress.cursor.load(Ordering::Relaxed));
        if let Err(error) = self.propose(&entry).await {
            tracing::warn!(%error, "the full register was not nudged");
        }
    }

    /// Ends an order whose time is over. Every edge counts the time, whoever leads says so: a leader that
    /// is lost meanwhile ends no order late. Said twice, it is over once.
    async fn end_order(&self, seen: Option<Timed>) -> Option<Timed> {
        let (until_ms, now_ms) = self
            .log
            .read(|register| (register.mode_until_ms(), register.log_time_ms()));
        let until_ms = until_ms?;
        let timed = match seen.filter(|seen| seen.until_ms == until_ms) {
            Some(seen) => seen,
            None => Timed {
                until_ms,
                over: soon(Duration::from_millis(until_ms.saturating_sub(now_ms))),
            },
        };
        if Instant::now() >= timed.over && self.log.leads() {
            let order = Entry::Operator(OperatorAction {
                id: Uuid::now_v7(),
                operator: "standin".to_owned(),
                reason: "the order was given for a time, which is over".to_owned(),
                at: self.clock.now(),
                what: OperatorOrder::StandInOver { until_ms },
            });
            match self.propose(&order).await {
                Ok(()) => tracing::warn!("an operator's order has ended: its time is over"),
                Err(error) => tracing::warn!(%error, "an operator's order has not ended yet"),
            }
        }
        Some(timed)
    }

    async fn propose(&self, entry: &Entry) -> Result<(), String> {
        let proposed = self.log.propose(entry, soon(AGREE_WITHIN)).await;
        proposed.map(drop).map_err(|error| error.to_string())
    }

    async fn try_canary(&self) -> Result<(), LedgerError> {
        tokio::time::timeout(self.canary_max, self.ledger.probe())
            .await
            .unwrap_or_else(|_| Err(LedgerError::timeout("the canary commit took too long")))
    }

    /// Has the log say what is so: this edge has lost the primary exactly while its breaker is not
    /// closed or standing in is forced.
    async fn agree(&self) {
        let edge = self.log.edge();
        let (known, mode) = self
            .log
            .read(|register| (register.cut_off(edge).is_some(), register.mode()));
        let cause = match (mode, self.primary.position()) {
            (StandInMode::Force, _) => Some(Why::Forced),
            (StandInMode::Auto | StandInMode::Forbid, Position::Open(why)) => Some(why),
            // On the ramp the outage goes on, and none begins.
            (StandInMode::Auto | StandInMode::Forbid, Position::Ramp(_)) => return,
            (StandInMode::Auto | StandInMode::Forbid, Position::Closed) => None,
        };
        let entry = match (known, cause) {
            (false, Some(why)) => Entry::OutageStarted { edge, why },
            (true, None) => Entry::OutageEnded { edge },
            (true, Some(_)) | (false, None) => return,
        };
        match self.propose(&entry).await {
            Ok(()) => tracing::warn!(?entry, "the log agreed"),
            Err(error) => tracing::warn!(%error, ?entry, "the log has not agreed yet"),
        }
    }
}
