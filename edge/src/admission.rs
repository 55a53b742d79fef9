//! Whose request is taken on, and whose is shed.
//!
//! A request takes one of a bounded number of places, or waits for one: a short burst is not refused.
//! When requests have been waiting for longer than a target through a whole interval, the edge has
//! more work than it does, and waiting only makes every answer late: new work is refused at once until
//! one is again taken on in time.
//!
//! The order of shedding, first to last:
//!
//! 1. What is not a bank's never comes here: it is refused before anything waits, or at connecting.
//! 2. New work (a payment without an answer, a reversal, an outcome).
//! 3. A payment that has its answer has places of its own, whatever else is refused.
//! 4. Operators have a listener of their own, which takes no place at all.
//!
//! Where an edge has several banks, each has a line of its own before that of all: one bank holds no more
//! than its share of the places and of the queue, and where it asks for more, its waiting sheds its own
//! work and nobody else's.
//!
//! A request that is shed has had no effect and nothing of it is kept. Absent on purpose: an order among
//! those who wait other than their turn.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use standin_core::id::BankId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::metrics::Metrics;

/// Bounds of admission.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionConfig {
    /// Requests in progress at once.
    pub in_flight: usize,
    /// Beside them, payments that have their answer.
    pub retries_in_flight: usize,
    /// Requests waiting for a place; past it, they are shed.
    pub queued: usize,
    /// How many in a hundred of the places, and of those who wait, may be one bank's, where an edge
    /// has several.
    pub bank_percent: usize,
    /// For a place; past it, a request is shed.
    pub wait_max: Duration,
    /// Waiting so long is no burst any more …
    pub target: Duration,
    /// … if it goes on for so long: then new work is shed.
    pub interval: Duration,
}

/// The places of one edge.
#[derive(Debug)]
pub struct Admission {
    config: AdmissionConfig,
    all: Line,
    /// Empty where there is one bank.
    of_banks: HashMap<BankId, Line>,
    for_retries: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

/// Places, and who waits for one.
#[derive(Debug)]
struct Line {
    places: Arc<Semaphore>,
    queue: Semaphore,
    waits: Mutex<Waits>,
}

/// When a request asks for a place.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// It has been ours, and nobody else's to wait for, since then.
    pub complete: Instant,
    /// When its answer must be there.
    pub deadline: Instant,
}

/// A request's place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    _held: Held,
    metrics: Arc<Metrics>,
}

/// A place, and the one of its bank's own that goes with it.
#[derive(Debug)]
struct Held {
    _place: OwnedSemaphorePermit,
    _of_bank: Option<OwnedSemaphorePermit>,
}

/// Why a request got no place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Shed {
    /// As many wait as may.
    #[error("as many requests wait for a place as may")]
    QueueFull,
    /// Its bank has as many in progress and waiting as one bank may.
    #[error("its bank has as many in progress and waiting as one bank may")]
    ShareFull,
    /// It waited for as long as it may.
    #[error("no place in the time that a request waits for one")]
    Waited,
    /// Requests have been waiting for too long for a while.
    #[error("requests have been waiting for too long for a while")]
    Overloaded,
    /// Its deadline passed.
    #[error("the deadline passed before the request had a place")]
    Deadline,
}

/// How long requests have been waiting.
#[derive(Debug, Default)]
struct Waits {
    /// Since when every request waited for longer than the target.
    over_since: Option<Instant>,
    /// When the last one was heard of.
    heard: Option<Instant>,
}

// === impl Shed ===

impl Shed {
    /// The word in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::ShareFull => "share_full",
            Self::Waited => "waited",
            Self::Overloaded => "overloaded",
            Self::Deadline => "deadline",
        }
    }
}

// === impl Admission ===

impl Admission {
    /// Every place free, for these banks.
    pub fn new<'a>(
        config: AdmissionConfig,
        banks: impl Iterator<Item = &'a BankId>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let mut of_banks: HashMap<BankId, Line> = banks
            .map(|bank| (bank.clone(), Line::new(&config, config.bank_percent)))
            .collect();
        if of_banks.len() < 2 {
            of_banks.clear();
        }
        Self {
            all: Line::new(&config, 100),
            of_banks,
            for_retries: Arc::new(Semaphore::new(config.retries_in_flight)),
            config,
            metrics,
        }
    }

    /// A place for a request of a bank, at once or in its turn. `has_answer` is asked only where new
    /// work might be shed.
    ///
    /// # Errors
    /// When the request is shed; it is counted.
    pub async fn admit(
        &self,
        bank: &BankId,
        arrival: Arrival,
        has_answer: impl FnOnce() -> bool,
    ) -> Result<Place, Shed> {
        let admitted = self.take_or_wait(bank, arrival, has_answer).await;
        // Whatever was waited for, work that would be late is not begun.
        let in_time = admitted.and_then(|held| {
            let late = Instant::now() >= arrival.deadline;
            if late { Err(Shed::Deadline) } else { Ok(held) }
        });
        match in_time {
            Ok(held) => Ok(Place::new(held, Arc::clone(&self.metrics))),
            Err(shed) => {
                self.metrics.shed(shed);
                Err(shed)
            }
        }
    }

    async fn take_or_wait(
        &self,
        bank: &BankId,
        arrival: Arrival,
        has_answer: impl FnOnce() -> bool,
    ) -> Result<Held, Shed> {
        let own = self.of_banks.get(bank);
        let free = self.free(own);
        let lines = [Some(&self.all), own];
        let overloaded = lines.into_iter().flatten().fold(false, |any, line| {
            any | line.asked(arrival, free.is_some(), &self.config)
        });
        if !overloaded && let Some(held) = free {
            return Ok(held);
        }
        if has_answer() {
            let kept = Arc::clone(&self.for_retries).try_acquire_owned().ok();
            if let Some(held) = kept.map(Held::of_no_bank).or(free) {
                return Ok(held);
            }
        }
        if overloaded {
            return Err(Shed::Overloaded);
        }
        self.wait(own, arrival).await
    }

    /// A place that nobody has and the bank may have. Whoever waits has the next one: some is free only if
    /// nobody does.
    fn free(&self, own: Option<&Line>) -> Option<Held> {
        let of_bank = match own {
            Some(line) => Some(line.take()?),
            None => None,
        };
        Some(Held {
            _place: self.all.take()?,
            _of_bank: of_bank,
        })
    }

    /// First in the bank's own line, then in that of all.
    async fn wait(&self, own: Option<&Line>, arrival: Arrival) -> Result<Held, Shed> {
        let mut since = arrival.complete;
        let of_bank = match own.map(|line| (line, line.take())) {
            None => None,
            Some((_, Some(free))) => Some(free),
            Some((line, None)) => {
                let waited = line.wait(since, arrival, &self.config).await;
                // How long a bank waited for itself says nothing of the others.
                since = Instant::now();
                Some(waited.map_err(|shed| match shed {
                    Shed::QueueFull => Shed::ShareFull,
                    other => other,
                })?)
            }
        };
        Ok(Held {
            _place: self.all.wait(since, arrival, &self.config).await?,
            _of_bank: of_bank,
        })
    }
}

// === impl Line ===

impl Line {
    fn new(config: &AdmissionConfig, percent: usize) -> Self {
        let share = |of: usize| of.saturating_mul(percent).div_euclid(100).max(1);
        Self {
            places: Arc::new(Semaphore::new(share(config.in_flight))),
            queue: Semaphore::new(share(config.queued)),
            waits: Mutex::default(),
        }
    }

    fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// A request asks for a place, and has one or not; says whether requests have been waiting here for
    /// too long.
    fn asked(&self, arrival: Arrival, has_one: bool, config: &AdmissionConfig) -> bool {
        let now = Instant::now();
        let mut waits = self.waits();
        waits.asked(now, config);
        if has_one {
            let waited = now.saturating_duration_since(arrival.complete);
            waits.note(waited, now, config);
        }
        waits.are_too_long(now, config)
    }

    /// In its turn, behind those who wait already; what it waited counts from `since`.
    async fn wait(
        &self,
        since: Instant,
        arrival: Arrival,
        config: &AdmissionConfig,
    ) -> Result<OwnedSemaphorePermit, Shed> {
        let Ok(_turn) = self.queue.try_acquire() else {
            return Err(Shed::QueueFull);
        };
        let longest = arrival.complete.checked_add(config.wait_max);
        let until = longest.map_or(arrival.deadline, |end| end.min(arrival.deadline));
        let place = timeout_at(until, Arc::clone(&self.places).acquire_owned()).await;
        let now = Instant::now();
        let waited = now.saturating_duration_since(since);
        self.waits().note(waited, now, config);
        match place {
            Ok(Ok(place)) => Ok(place),
            Err(_elapsed) if now >= arrival.deadline => Err(Shed::Deadline),
            // The places are never closed.
            Ok(Err(_)) | Err(_) => Err(Shed::Waited),
        }
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Held ===

impl Held {
    /// Places for retries are of no bank's share.
    fn of_no_bank(place: OwnedSemaphorePermit) -> Self {
        Self {
            _place: place,
            _of_bank: None,
        }
    }
}

// === impl Place ===

impl Place {
    fn new(held: Held, metrics: Arc<Metrics>) -> Self {
        metrics.begun();
        Self {
            _held: held,
            metrics,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.ended();
    }
}

// === impl Waits ===

impl Waits {
    /// A request asks for a place.
    fn asked(&mut self, now: Instant, config: &AdmissionConfig) {
        let silence = self.heard.map(|heard| now.saturating_duration_since(heard));
        if silence.is_some_and(|silence| silence > config.interval) {
            // What was waiting then is not what waits now.
            self.over_since = None;
        }
        self.heard = Some(now);
    }

    /// A request was taken on after this wait, or gave up.
    fn note(&mut self, waited: Duration, now: Instant, config: &AdmissionConfig) {
        self.heard = Some(now);
        if waited < config.target {
            self.over_since = None;
        } else if self.over_since.is_none() {
            self.over_since = Some(now);
        }
    }

    fn are_too_long(&self, now: Instant, config: &AdmissionConfig) -> bool {
        self.over_since
            .is_some_and(|since| now.saturating_duration_since(since) >= config.interval)
    }
}

#[cfg(test)]
mod tests;
