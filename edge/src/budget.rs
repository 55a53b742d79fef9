//! One time budget a request, made when it is accepted and handed down.

use std::time::Duration;

use tokio::time::Instant;

/// How long each step may take, by bank.
#[derive(Clone, Copy, Debug)]
pub struct Budgets {
    /// The whole request, from its acceptance.
    pub deadline: Duration,
    /// Reading the trip cache.
    pub trip_cache: Duration,
    /// One round trip to the primary.
    pub postgres: Duration,
    /// Writing ahead.
    pub wal: Duration,
}

/// What is left of a request's time.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    deadline: Instant,
    steps: Budgets,
}

// === impl Budgets ===

impl Default for Budgets {
    fn default() -> Self {
        Self {
            deadline: Duration::from_millis(1_000),
            trip_cache: Duration::from_millis(20),
            postgres: Duration::from_millis(100),
            wal: Duration::from_millis(700),
        }
    }
}

// === impl Budget ===

impl Budget {
    /// The budget of a request accepted at `received`.
    pub fn new(received: Instant, steps: Budgets) -> Self {
        Self { deadline: received.checked_add(steps.deadline).unwrap_or(received), steps }
    }

    /// When the bank stops listening.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Until when the trip cache may take.
    pub fn trip_cache(&self) -> Instant {
        self.within(self.steps.trip_cache)
    }

    /// Until when one round trip to the primary may take.
    pub fn postgres(&self) -> Instant {
        self.within(self.steps.postgres)
    }

    /// Until when writing ahead may take.
    pub fn wal(&self) -> Instant {
        self.within(self.steps.wal)
    }

    fn within(&self, step: Duration) -> Instant {
        Instant::now().checked_add(step).map_or(self.deadline, |end| end.min(self.deadline))
    }
}
