//! How long the drain rests between two steps.
//!
//! Live payments and the drain meet at the primary. While the backlog shrinks there is no hurry: the
//! drain takes small steps, and works a ninth of its time (an outage's answers are drained in less time than
//! the outage took; twice as fast costs payments twice as much). Where it does not shrink (payments come as
//! fast as they are booked) it works half of its time, whatever that costs: a backlog that grows for ever
//! fills the log.

use std::time::Duration;

/// Longest rest after a step while the backlog does not shrink.
const REST_MAX: Duration = Duration::from_millis(50);
/// Rests of that length while it does.
const GENTLY: u32 = 8;
/// A step is so much smaller then: a payment that meets one waits for all of it.
const SMALLER: usize = 6;

/// What was to be drained after the last step.
#[derive(Debug, Default)]
pub(super) struct Pace {
    backlog: u64,
    shrinks: bool,
}

// === impl Pace ===

impl Pace {
    /// How many bytes of entries the next step looks at, of at most `bytes`.
    pub(super) fn bytes(&self, bytes: usize) -> usize {
        if self.shrinks {
            bytes.div_euclid(SMALLER)
        } else {
            bytes
        }
    }

    /// The rest after a step that took `step` and left `backlog` batches to drain.
    pub(super) fn rest(&mut self, step: Duration, backlog: u64) -> Duration {
        self.shrinks = backlog < self.backlog;
        self.backlog = backlog;
        let rest = step.min(REST_MAX);
        if self.shrinks {
            rest.saturating_mul(GENTLY)
        } else {
            rest
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_gentle_while_the_backlog_shrinks() {
        let ms = Duration::from_millis;
        let mut pace = Pace::default();
        let rests = [
            (20, 900),
            (20, 800),
            (20, 800),
            (20, 850),
            (200, 700),
            (200, 0),
        ]
        .map(|(step, backlog)| pace.rest(ms(step), backlog));
        assert_eq!(rests, [20, 160, 20, 20, 400, 400].map(ms));
        assert_eq!(pace.bytes(300), 50);
        pace.rest(ms(20), 1);
        assert_eq!(pace.bytes(300), 300);
    }
}
