//! One time budget a request, made when it is accepted and handed down.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::{BankConfig, Budgets};

/// What is left of a request's time.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    deadline: Instant,
    steps: Budgets,
}

// === impl Budget ===

impl Budget {
    /// The budget of a request of `bank` accepted at `received`.
    pub fn new(received: Instant, bank: &BankConfig) -> Self {
        let deadline = received.checked_add(bank.deadline).unwrap_or(received);
        Self {
            deadline,
            steps: bank.budgets,
        }
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
        Instant::now()
            .checked_add(step)
            .map_or(self.deadline, |end| end.min(self.deadline))
    }
}
