//! Faults that this edge plays on itself for a drill: to it, and to nobody else, its primary or its trip
//! cache looks broken.
//!
//! Only an edge whose configuration consents has any of this; without, its ports are not wrapped. One
//! fault at a time, for a time with a bound. When that is up the fault is over, whatever became of whoever
//! ordered it: every call looks at the time itself, and no task has to run for it. Nothing of it survives
//! the process. What is called while a fault keeps it waiting is called when the fault lets go; what was
//! given up by then never was.
//!
//! Absent on purpose: faults of the log, its links or its disk, and everything that another process would
//! feel. Those are broken for real, by drills on one machine.

mod cache;
mod fault;
mod ledger;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use serde::{Deserialize, Serialize};
use standin_core::clock::{Clock, Timestamp};
use standin_core::ledger::Ledger;
use standin_core::trip_cache::TripCache;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::cache::PlayedCache;
use self::fault::{Caller, Fate, Port};
use self::ledger::PlayedLedger;
use crate::admin::Order;
use crate::alarm::{Alarm, Alarms};
use crate::chance::Chance;
use crate::metrics::Metrics;

pub use self::fault::{DELAY_MS_MAX, Fault, Hits};

/// What a fault may be played for.
pub const LASTS_MIN: Duration = Duration::from_secs(1);
/// See [`LASTS_MIN`].
pub const LASTS_MAX: Duration = Duration::from_secs(600);
/// Whoever calls has a deadline of its own. One that forgot it is told so late, as a server's own bounds
/// would, rather than held for ten minutes.
const HANG_MAX: Duration = Duration::from_secs(30);

/// An order to play a fault.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlayOrder {
    /// What.
    pub fault: Fault,
    /// How long.
    pub lasts: Duration,
    /// Who, and why.
    pub order: Order,
}

/// Why a fault is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Over {
    /// It was ordered.
    Ordered,
    /// Its time was up.
    Time,
    /// The edge stops.
    Stopping,
}

/// A fault that is or was played, as operators see it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shown {
    /// Its number, from 1 with each start of the process.
    pub number: u64,
    /// What.
    #[serde(flatten)]
    pub fault: Fault,
    /// When it began, RFC 3339.
    pub began_at: String,
    /// When its time is up, RFC 3339.
    pub ends_at: String,
    /// How long that is from now; nothing of one that is over.
    pub ends_in_ms: u64,
    /// Who ordered it.
    pub operator: String,
    /// Why.
    pub reason: String,
    /// What it hit so far.
    pub calls: Hits,
    /// Why it is over, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<Over>,
}

/// What an edge says of the faults that it plays.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Page {
    /// Whether it would play one.
    pub consent: bool,
    /// The one that it plays.
    pub playing: Option<Shown>,
    /// The last one that is over.
    pub last: Option<Shown>,
}

/// A fault is not played, or not ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlayError {
    /// One is played already.
    #[error("a fault is played already; it has to end first")]
    Busy,
    /// Another one is played.
    #[error("another fault is played than the one to be ended")]
    Another,
    /// None is played.
    #[error("no fault is played")]
    Nothing,
}

/// What a fault hit since the process began.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Count {
    /// Its word.
    pub(crate) fault: &'static str,
    /// Whether it is played.
    pub(crate) is_played: bool,
    /// Calls that it hit, by whose they were.
    pub(crate) calls: [(&'static str, u64); Caller::ALL.len()],
}

/// The faults of one edge: the one it plays, if any, and what they hit.
pub struct Plays {
    clock: Arc<dyn Clock>,
    alarms: Arc<Alarms>,
    playing: ArcSwapOption<Play>,
    /// Held while a fault begins or ends.
    past: Mutex<Past>,
    /// Since the process began, by [`Fault::at`] and [`Caller`].
    totals: [[AtomicU64; Caller::ALL.len()]; Fault::WORDS.len()],
    changed: Notify,
}

#[derive(Default)]
struct Past {
    number: u64,
    last: Option<Shown>,
}

/// A fault that is played.
struct Play {
    number: u64,
    fault: Fault,
    began_at: Timestamp,
    /// When its time is up.
    until: Instant,
    ends_at: Timestamp,
    order: Order,
    hits: [AtomicU64; Caller::ALL.len()],
    chance: Chance,
    /// Cancelled when it ends before its time.
    ended: CancellationToken,
}

// === impl Play ===

impl Play {
    fn is_over(&self) -> bool {
        Instant::now() >= self.until || self.ended.is_cancelled()
    }

    /// Waits until it is over, for `most` at most; says whether it is.
    async fn over_within(&self, most: Duration) -> bool {
        let waited = Instant::now().checked_add(most).unwrap_or(self.until);
        tokio::select! {
            biased;
            () = self.ended.cancelled() => {}
            () = tokio::time::sleep_until(waited.min(self.until)) => {}
        }
        self.is_over()
    }

    fn hits(&self) -> Hits {
        let [payments, probes, drain, others] = [0, 1, 2, 3].map(|at| {
            self.hits
                .get(at)
                .map_or(0, |hits| hits.load(Ordering::Relaxed))
        });
        Hits {
            payments,
            probes,
            drain,
            others,
        }
    }

    fn shown(&self, over: Option<Over>) -> Shown {
        let left = match over {
            None => self.until.saturating_duration_since(Instant::now()),
            Some(_) => Duration::ZERO,
        };
        Shown {
            number: self.number,
            fault: self.fault,
            began_at: self.began_at.to_string(),
            ends_at: self.ends_at.to_string(),
            ends_in_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            operator: self.order.operator.clone(),
            reason: self.order.reason.clone(),
            calls: self.hits(),
            over,
        }
    }
}

// === impl Plays ===

impl Plays {
    /// Of an edge that plays nothing yet.
    pub fn new(clock: Arc<dyn Clock>, alarms: Arc<Alarms>) -> Self {
        Self {
            clock,
            alarms,
            playing: ArcSwapOption::empty(),
            past: Mutex::default(),
            totals: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            changed: Notify::new(),
        }
    }

    /// The ledger, as this edge sees it while it plays something.
    pub fn ledger(self: &Arc<Self>, inner: Arc<dyn Ledger>) -> Arc<dyn Ledger> {
        Arc::new(PlayedLedger {
            inner,
            plays: Arc::clone(self),
        })
    }

    /// The trip cache, as payments see it.
    pub fn cache(self: &Arc<Self>, inner: Arc<dyn TripCache>) -> Arc<dyn TripCache> {
        self.cache_of(inner, Caller::Payments)
    }

    /// The trip cache, as whoever looks after its age sees it.
    pub fn probed_cache(self: &Arc<Self>, inner: Arc<dyn TripCache>) -> Arc<dyn TripCache> {
        self.cache_of(inner, Caller::Probes)
    }

    fn cache_of(self: &Arc<Self>, inner: Arc<dyn TripCache>, caller: Caller) -> Arc<dyn TripCache> {
        Arc::new(PlayedCache {
            inner,
            plays: Arc::clone(self),
            caller,
        })
    }

    /// Shows at every scrape from now on what is played and what it hit.
    pub fn show_in(self: &Arc<Self>, metrics: &Metrics) {
        metrics.watch_plays(Arc::clone(self));
    }

    /// Begins to play a fault, whose numbers are in range.
    ///
    /// # Errors
    /// When one is played already.
    pub fn begin(&self, order: PlayOrder) -> Result<Shown, PlayError> {
        let PlayOrder {
            fault,
            lasts,
            order,
        } = order;
        self.end_if_over();
        let mut past = self.past();
        if self.playing.load().is_some() {
            return Err(PlayError::Busy);
        }
        let lasts = lasts.min(LASTS_MAX);
        let (now, began_at) = (Instant::now(), self.clock.now());
        past.number = past.number.saturating_add(1);
        let play = Arc::new(Play {
            number: past.number,
            fault,
            began_at,
            until: now.checked_add(lasts).unwrap_or(now),
            ends_at: began_at.plus(lasts),
            order,
            hits: std::array::from_fn(|_| AtomicU64::new(0)),
            chance: Chance::default(),
            ended: CancellationToken::new(),
        });
        let shown = play.shown(None);
        let (name, until) = (fault.as_str(), &shown.ends_at);
        tracing::warn!(fault = name, ?fault, %until, operator = shown.operator, reason = shown.reason, "a drill begins: this edge plays a fault on itself");
        let detail = format!(
            "{name} until {until} at the latest, ordered by {}: {}",
            shown.operator, shown.reason
        );
        self.playing.store(Some(play));
        self.alarms.raise(Alarm::FaultPlayed, detail);
        self.changed.notify_one();
        Ok(shown)
    }

    /// Ends the fault of this number, or whichever is played.
    ///
    /// # Errors
    /// When none is played, or another one.
    pub fn end(&self, number: Option<u64>) -> Result<Shown, PlayError> {
        self.end_if_over();
        let mut past = self.past();
        let play = self.playing.load_full().ok_or(PlayError::Nothing)?;
        if number.is_some_and(|number| number != play.number) {
            return Err(PlayError::Another);
        }
        Ok(self.over(&mut past, &play, Over::Ordered))
    }

    /// Keeps the alarm, the page and the log lines true: a fault whose time is up is over without this.
    /// A fault does not outlive `stop`.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let until = self.playing.load().as_ref().map(|play| play.until);
            let time_up = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    let mut past = self.past();
                    if let Some(play) = self.playing.load_full() {
                        self.over(&mut past, &play, Over::Stopping);
                    }
                    return;
                }
                () = self.changed.notified() => {}
                () = time_up => self.end_if_over(),
            }
        }
    }

    /// What is and was played.
    pub fn page(&self) -> Page {
        self.end_if_over();
        let past = self.past();
        Page {
            consent: true,
            playing: self.playing.load().as_ref().map(|play| play.shown(None)),
            last: past.last.clone(),
        }
    }

    /// Every fault that there is.
    pub(crate) fn counts(&self) -> Vec<Count> {
        let playing = self.now().map(|play| play.fault.at());
        let rows = Fault::WORDS.iter().zip(&self.totals).enumerate();
        rows.map(|(at, (word, totals))| {
            let count = |caller: Caller| {
                let total = totals.get(caller.at());
                (
                    caller.as_str(),
                    total.map_or(0, |total| total.load(Ordering::Relaxed)),
                )
            };
            Count {
                fault: word,
                is_played: playing == Some(at),
                calls: Caller::ALL.map(count),
            }
        })
        .collect()
    }

    /// When the fault that is played ends by itself, in seconds since 1970; 0: none is.
    pub(crate) fn ends_at_secs(&self) -> u64 {
        let ends_at = self.now().map(|play| play.ends_at.as_secs());
        ends_at
            .and_then(|secs| u64::try_from(secs).ok())
            .unwrap_or(0)
    }

    /// The fault that is played; one whose time is up is none.
    fn now(&self) -> Option<Arc<Play>> {
        let playing = self.playing.load();
        let play = playing.as_ref()?;
        (!play.is_over()).then(|| Arc::clone(play))
    }

    /// Whether a call is hit, and what becomes of it then.
    fn hit(&self, port: Port, caller: Caller) -> Option<(Arc<Play>, Fate)> {
        let play = self.now().filter(|play| play.fault.port() == port)?;
        let fault = play.fault;
        if !fault.hits_all() && play.chance.percent() >= fault.percent() {
            return None;
        }
        let total = self.totals.get(fault.at());
        let of_all = total.and_then(|of| of.get(caller.at()));
        for hits in [play.hits.get(caller.at()), of_all].into_iter().flatten() {
            hits.fetch_add(1, Ordering::Relaxed);
        }
        Some((play, fault.fate()))
    }

    fn end_if_over(&self) {
        if self
            .playing
            .load()
            .as_ref()
            .is_none_or(|play| !play.is_over())
        {
            return;
        }
        let mut past = self.past();
        // It may have been ended, and another begun, before this one had its turn.
        let play = self.playing.load_full();
        if let Some(play) = play.filter(|play| play.is_over()) {
            self.over(&mut past, &play, Over::Time);
        }
    }

    fn over(&self, past: &mut Past, play: &Play, over: Over) -> Shown {
        self.playing.store(None);
        play.ended.cancel();
        let shown = play.shown(Some(over));
        past.last = Some(shown.clone());
        self.alarms.clear(Alarm::FaultPlayed);
        tracing::warn!(fault = play.fault.as_str(), ?over, calls = ?shown.calls, "a drill ends: this edge plays no fault any more");
        self.changed.notify_one();
        shown
    }

    fn past(&self) -> std::sync::MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
