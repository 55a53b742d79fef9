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
//! A request that is shed has had no effect and nothing of it is kept. Absent on purpose: shares of
//! banks (each has a rate of its own), and an order among those who wait other than their turn.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
    places: Arc<Semaphore>,
    for_retries: Arc<Semaphore>,
    queue: Semaphore,
    waits: Mutex<Waits>,
    metrics: Arc<Metrics>,
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
    _permit: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
}

/// Why a request got no place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Shed {
    /// As many wait as may.
    #[error("as many requests wait for a place as may")]
    QueueFull,
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
            Self::Waited => "waited",
            Self::Overloaded => "overloaded",
            Self::Deadline => "deadline",
        }
    }
}

// === impl Admission ===

impl Admission {
    /// Every place free.
    pub fn new(config: AdmissionConfig, metrics: Arc<Metrics>) -> Self {
        Self {
            config,
            places: Arc::new(Semaphore::new(config.in_flight)),
            for_retries: Arc::new(Semaphore::new(config.retries_in_flight)),
            queue: Semaphore::new(config.queued),
            waits: Mutex::default(),
            metrics,
        }
    }

    /// A place for a request, at once or in its turn. `has_answer` is asked only where new work might
    /// be shed.
    ///
    /// # Errors
    /// When the request is shed; it is counted.
    pub async fn admit(
        &self,
        arrival: Arrival,
        has_answer: impl FnOnce() -> bool,
    ) -> Result<Place, Shed> {
        let admitted = self.take_or_wait(arrival, has_answer).await;
        // Whatever was waited for, work that would be late is not begun.
        let in_time = admitted.and_then(|permit| {
            let late = Instant::now() >= arrival.deadline;
            if late {
                Err(Shed::Deadline)
            } else {
                Ok(permit)
            }
        });
        match in_time {
            Ok(permit) => Ok(Place::new(permit, Arc::clone(&self.metrics))),
            Err(shed) => {
                self.metrics.shed(shed);
                Err(shed)
            }
        }
    }

    async fn take_or_wait(
        &self,
        arrival: Arrival,
        has_answer: impl FnOnce() -> bool,
    ) -> Result<OwnedSemaphorePermit, Shed> {
        let now = Instant::now();
        // Whoever waits has the next place: one is free only if nobody does.
        let free = Arc::clone(&self.places).try_acquire_owned().ok();
        let overloaded = {
            let mut waits = self.waits();
            waits.asked(now, &self.config);
            if free.is_some() {
                let waited = now.saturating_duration_since(arrival.complete);
                waits.note(waited, now, &self.config);
            }
            waits.are_too_long(now, &self.config)
        };
        if !overloaded && let Some(place) = free {
            return Ok(place);
        }
        if has_answer() {
            let own = Arc::clone(&self.for_retries).try_acquire_owned().ok();
            if let Some(place) = own.or(free) {
                return Ok(place);
            }
        }
        if overloaded {
            return Err(Shed::Overloaded);
        }
        self.wait(arrival).await
    }

    async fn wait(&self, arrival: Arrival) -> Result<OwnedSemaphorePermit, Shed> {
        let Ok(_turn) = self.queue.try_acquire() else {
            return Err(Shed::QueueFull);
        };
        let longest = arrival.complete.checked_add(self.config.wait_max);
        let until = longest.map_or(arrival.deadline, |end| end.min(arrival.deadline));
        let place = timeout_at(until, Arc::clone(&self.places).acquire_owned()).await;
        let now = Instant::now();
        let waited = now.saturating_duration_since(arrival.complete);
        self.waits().note(waited, now, &self.config);
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

// === impl Place ===

impl Place {
    fn new(permit: OwnedSemaphorePermit, metrics: Arc<Metrics>) -> Self {
        metrics.begun();
        Self {
            _permit: permit,
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
