//! Answers in the log that the ledger does not have yet, over time.
//!
//! The ledger's cursor counts batches, and so does the log. How many answers they hold is known from
//! looks: at each, how many answers the log had given up to which batch.

use serde_json::Value;
use standin_core::clock::Timestamp;
use standin_reconcile::report::BacklogSample;

/// Looks kept; a run of half an hour has fewer.
const LOOKS_MAX: usize = 100_000;

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// By look, both rising: batches applied, answers in them.
    looks: Vec<(u64, u64)>,
    pub(crate) samples: Vec<BacklogSample>,
}

// === impl Backlog ===

impl Backlog {
    /// Looks at an edge's status page; gives how many answers are not booked.
    pub(crate) fn look(&mut self, status: &Value, now: Timestamp) -> u64 {
        let number = |path: &str| status.pointer(path).and_then(Value::as_u64).unwrap_or(0);
        let (applied, answered) = (
            number("/wal/applied_index"),
            number("/register/counts/answered"),
        );
        let newer = self.looks.last().is_none_or(|(last, _)| *last < applied);
        if newer && self.looks.len() < LOOKS_MAX {
            self.looks.push((applied, answered));
        }
        let cursor = number("/drain/cursor");
        let below = self
            .looks
            .partition_point(|(applied, _)| *applied <= cursor);
        let booked = below
            .checked_sub(1)
            .and_then(|at| self.looks.get(at))
            .map_or(0, |(_, answered)| *answered);
        let backlog = answered.saturating_sub(booked);
        self.samples.push(BacklogSample {
            at: now.as_millis(),
            backlog,
        });
        backlog
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_above_the_cursor_are_counted_by_the_looks_before() {
        let mut backlog = Backlog::default();
        let mut look = |applied: u64, answered: u64, cursor: u64| {
            let page = json!({
                "wal": { "applied_index": applied },
                "register": { "counts": { "answered": answered } },
                "drain": { "cursor": cursor },
            });
            backlog.look(&page, Timestamp::from_millis(0))
        };
        assert_eq!(look(0, 0, 0), 0);
        assert_eq!(look(10, 7, 10), 0);
        assert_eq!(look(20, 19, 10), 12);
        // Between two looks the earlier one counts.
        assert_eq!(look(30, 40, 25), 21);
        assert_eq!(look(30, 40, 30), 0);
    }
}
