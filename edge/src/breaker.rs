//! The breaker before the primary: it only saves wasted tries.
//!
//! Whether one request stands in is that request's own matter (its budget ran out, or the breaker
//! is open). The breaker opens on rate *and* count of failures, tries a canary commit each dwell,
//! and after one that holds admits 1, 10, 50, then all of 100 requests; the first failure on the
//! way, or a loss soon after it closed, opens it again with its dwell doubled, up to a minute. A dwell that was long is forgotten
//! after the breaker has stayed closed as long as the longest one.
//!
//! Pure: time (milliseconds of any monotonic clock) and chance come in as arguments.

use standin_core::answer::Why;

/// How the breaker behaves.
#[derive(Clone, Copy, Debug)]
pub struct BreakerConfig {
    /// Failures in the window that open it, if the rate agrees.
    pub failures_min: u32,
    /// Failures of 100 tries in the window that open it, if the count agrees.
    pub failure_percent: u32,
    /// The window.
    pub window_ms: u64,
    /// First time between opening and the canary.
    pub dwell_ms: u64,
    /// Longest such time.
    pub dwell_max_ms: u64,
    /// Time on each step of the ramp.
    pub stage_ms: u64,
}

/// Requests of 100 admitted on each step of the ramp.
const RAMP: [u32; 3] = [1, 10, 50];

/// The breaker.
#[derive(Debug)]
pub struct Breaker {
    config: BreakerConfig,
    state: State,
    dwell_ms: u64,
    changes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed {
        window_from: u64,
        tries: u32,
        failures: u32,
        since: u64,
    },
    Open {
        canary_at: u64,
        why: Why,
    },
    Ramp {
        step: usize,
        next_at: u64,
        why: Why,
    },
}

/// What an observer is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Position {
    /// Everything is tried.
    Closed,
    /// Nothing is tried; a canary is.
    Open(Why),
    /// A share of requests (of 100) is tried.
    Ramp(u32),
}

/// A change that others hear of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Closed → open: the primary is lost.
    Lost(Why),
    /// Ramp → closed: the primary is back.
    Back,
}

// === impl BreakerConfig ===

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failures_min: 5,
            failure_percent: 50,
            window_ms: 1_000,
            dwell_ms: 1_000,
            dwell_max_ms: 60_000,
            stage_ms: 300,
        }
    }
}

// === impl Breaker ===

impl Breaker {
    /// A closed breaker.
    pub fn new(config: BreakerConfig, now: u64) -> Self {
        let state = State::Closed {
            window_from: now,
            tries: 0,
            failures: 0,
            since: now,
        };
        Self {
            config,
            state,
            dwell_ms: config.dwell_ms,
            changes: 0,
        }
    }

    /// An open breaker, for an edge that starts in an outage: the canary says when it is over.
    pub fn opened(config: BreakerConfig, why: Why, now: u64) -> Self {
        let mut breaker = Self::new(config, now);
        breaker.open(why, now);
        breaker
    }

    /// Where it stands.
    pub fn position(&self) -> Position {
        match self.state {
            State::Closed { .. } => Position::Closed,
            State::Open { why, .. } => Position::Open(why),
            State::Ramp { step, .. } => Position::Ramp(RAMP.get(step).copied().unwrap_or(100)),
        }
    }

    /// Times it opened or closed.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether a request may try the primary; `chance` is uniform over 0..100.
    pub fn admits(&self, chance: u32) -> bool {
        match self.position() {
            Position::Closed => true,
            Position::Open(_) => false,
            Position::Ramp(share) => chance < share,
        }
    }

    /// Hears how a request's try went.
    pub fn heard(&mut self, outcome: Result<(), Why>, now: u64) -> Option<Change> {
        match (&mut self.state, outcome) {
            (
                State::Closed {
                    window_from,
                    tries,
                    failures,
                    since,
                },
                outcome,
            ) => {
                if now.saturating_sub(*window_from) > self.config.window_ms {
                    (*window_from, *tries, *failures) = (now, 0, 0);
                }
                if now.saturating_sub(*since) > self.config.dwell_max_ms {
                    self.dwell_ms = self.config.dwell_ms;
                }
                *tries = tries.saturating_add(1);
                let why = outcome.err()?;
                *failures = failures.saturating_add(1);
                let often = failures.saturating_mul(100)
                    >= tries.saturating_mul(self.config.failure_percent);
                if *failures < self.config.failures_min || !often {
                    return None;
                }
                // Soon after it closed is a re-opening too: the ramp was climbed in vain.
                if self.changes > 0 && now.saturating_sub(*since) <= self.config.dwell_max_ms {
                    self.dwell_ms = self
                        .dwell_ms
                        .saturating_mul(2)
                        .min(self.config.dwell_max_ms);
                }
                self.open(why, now);
                Some(Change::Lost(why))
            }
            (State::Ramp { .. }, Err(why)) => {
                self.dwell_ms = self
                    .dwell_ms
                    .saturating_mul(2)
                    .min(self.config.dwell_max_ms);
                self.open(why, now);
                None
            }
            // A try that was under way when it opened says nothing new.
            (State::Ramp { .. }, Ok(())) | (State::Open { .. }, _) => None,
        }
    }

    /// Whether the canary is due.
    pub fn wants_canary(&self, now: u64) -> bool {
        matches!(self.state, State::Open { canary_at, .. } if now >= canary_at)
    }

    /// Hears how the canary's commit went. A failed one keeps it open for another dwell, which is
    /// not doubled: no request was hurt by it.
    pub fn canary(&mut self, outcome: Result<(), Why>, now: u64) {
        let State::Open { why, .. } = self.state else {
            return;
        };
        self.state = match outcome {
            Ok(()) => State::Ramp {
                step: 0,
                next_at: now.saturating_add(self.config.stage_ms),
                why,
            },
            Err(why) => State::Open {
                canary_at: now.saturating_add(self.dwell_ms),
                why,
            },
        };
    }

    /// Lets time pass: climbs the ramp.
    pub fn tick(&mut self, now: u64) -> Option<Change> {
        let State::Ramp { step, next_at, why } = self.state else {
            return None;
        };
        if now < next_at {
            return None;
        }
        let step = step.saturating_add(1);
        if step < RAMP.len() {
            let next_at = now.saturating_add(self.config.stage_ms);
            self.state = State::Ramp { step, next_at, why };
            return None;
        }
        self.state = State::Closed {
            window_from: now,
            tries: 0,
            failures: 0,
            since: now,
        };
        self.changes = self.changes.saturating_add(1);
        Some(Change::Back)
    }

    fn open(&mut self, why: Why, now: u64) {
        if matches!(self.state, State::Closed { .. }) {
            self.changes = self.changes.saturating_add(1);
        }
        self.state = State::Open {
            canary_at: now.saturating_add(self.dwell_ms),
            why,
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects, reason = "test code")]
    use super::*;

    const LATE: Result<(), Why> = Err(Why::Timeout);

    fn opened(at: u64) -> Breaker {
        let mut breaker = Breaker::new(BreakerConfig::default(), at);
        for _ in 0..4 {
            assert_eq!(breaker.heard(LATE, at), None);
        }
        assert_eq!(breaker.heard(LATE, at), Some(Change::Lost(Why::Timeout)));
        breaker
    }

    fn climb(breaker: &mut Breaker, from: u64) -> u64 {
        breaker.canary(Ok(()), from);
        let mut now = from;
        for share in [1, 10, 50] {
            assert_eq!(breaker.position(), Position::Ramp(share));
            assert!(breaker.admits(share - 1) && !breaker.admits(share));
            now += 300;
            let change = breaker.tick(now);
            assert_eq!(
                change,
                if share == 50 {
                    Some(Change::Back)
                } else {
                    None
                }
            );
        }
        now
    }

    #[test]
    fn few_failures_among_many_tries_leave_it_closed() {
        let mut breaker = Breaker::new(BreakerConfig::default(), 0);
        for at in 0..100 {
            assert_eq!(
                breaker.heard(if at % 3 == 0 { LATE } else { Ok(()) }, at),
                None
            );
        }
        assert_eq!(breaker.position(), Position::Closed);
    }

    #[test]
    fn failures_of_an_earlier_window_do_not_count() {
        let mut breaker = Breaker::new(BreakerConfig::default(), 0);
        for at in 0..20 {
            assert_eq!(breaker.heard(LATE, at * 400), None, "{at}");
        }
    }

    #[test]
    fn it_admits_nothing_until_a_canary_holds_and_then_climbs() {
        let mut breaker = opened(0);
        assert!(!breaker.admits(0));
        assert!(!breaker.wants_canary(999));
        assert!(breaker.wants_canary(1_000));
        breaker.canary(LATE, 1_000);
        assert!(!breaker.wants_canary(1_999) && breaker.wants_canary(2_000));
        climb(&mut breaker, 2_000);
        assert_eq!(breaker.position(), Position::Closed);
        assert_eq!(breaker.changes(), 2);
    }

    #[test]
    fn a_loss_soon_after_it_closed_doubles_the_dwell_too() {
        let mut breaker = opened(0);
        let closed = climb(&mut breaker, 1_000);
        for _ in 0..5 {
            breaker.heard(LATE, closed + 10);
        }
        assert!(!breaker.wants_canary(closed + 2_009) && breaker.wants_canary(closed + 2_010));
    }

    #[test]
    fn a_failure_on_the_ramp_doubles_the_dwell_up_to_a_minute() {
        let mut breaker = opened(0);
        let mut now = 1_000;
        let mut dwell = 1_000;
        for _ in 0..10 {
            breaker.canary(Ok(()), now);
            assert_eq!(breaker.heard(LATE, now), None);
            dwell = (dwell * 2).min(60_000);
            assert!(!breaker.wants_canary(now + dwell - 1) && breaker.wants_canary(now + dwell));
            now += dwell;
        }
        assert_eq!(dwell, 60_000);
        now = climb(&mut breaker, now);
        // The long dwell is forgotten only after as long a time of health.
        assert_eq!(breaker.heard(Ok(()), now + 60_001), None);
        for _ in 0..9 {
            breaker.heard(LATE, now + 60_002);
        }
        assert!(breaker.wants_canary(now + 61_002));
    }
}
