//! One time budget a request, made when it is accepted and handed down.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::{BankConfig, Budgets};

/// Kept back from a bank's deadline for rendering and the way back.
const REPLY_MARGIN: Duration = Duration::from_millis(30);
/// A request is read as late as everything is, and so is its answer written.
const LATE_TWICE: u32 = 2;
/// Most of a bank's deadline that is kept back, as its divisor.
const KEPT_BACK_MAX: u32 = 3;

/// What is left of a request's time.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    deadline: Instant,
    steps: Budgets,
}

// === impl Budget ===

impl Budget {
    /// The budget of a request of `bank` accepted at `received`, when everything is late by `lag`.
    pub fn new(received: Instant, bank: &BankConfig, lag: Duration) -> Self {
        // The answer still has to be written and read: it must be there before the deadline is.
        let until_answer = bank.deadline.saturating_sub(kept_back(bank.deadline, lag));
        let deadline = received.checked_add(until_answer).unwrap_or(received);
        Self {
            deadline,
            steps: bank.budgets,
        }
    }

    /// When an answer must be there.
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

    /// Whether a round trip to the primary has its whole budget: only then does its lateness say
    /// something of the primary.
    pub fn has_whole_postgres(&self) -> bool {
        let end = Instant::now().checked_add(self.steps.postgres);
        end.is_some_and(|end| end <= self.deadline)
    }

    /// Whether no time is left.
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
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

/// What is kept back from a deadline when everything is late by `lag`.
fn kept_back(deadline: Duration, lag: Duration) -> Duration {
    let late = lag.saturating_mul(LATE_TWICE).saturating_add(REPLY_MARGIN);
    let most = deadline.checked_div(KEPT_BACK_MAX).unwrap_or_default();
    late.min(most).max(REPLY_MARGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_late_ends_earlier_but_keeps_most_of_its_time() {
        let kept = |deadline, lag| {
            let millis = Duration::from_millis;
            kept_back(millis(deadline), millis(lag)).as_millis()
        };
        assert_eq!(kept(1_000, 0), 30);
        assert_eq!(kept(1_000, 40), 110);
        assert_eq!(kept(1_000, 900), 333);
        assert_eq!(kept(60, 40), 30, "as much as ever");
    }
}
