//! The log time of entries: stamped by the leader, never going back, and read as it was applied.
//!
//! An entry without proposals carries no time; it is read at the time of the entry before it.

use std::io;

use super::Inner;
use crate::files::locked;
use crate::planted::{Planted, planted};
use crate::raft::Replicable;
use crate::segment::{Batch, Body, Entry};

/// So many entries without a time are gone back over, at most.
const BACK_MAX: u64 = 1_000;

impl<M: Replicable> Inner<M> {
    /// Stamped by the leader; never before the last entry of its log, nor before what was applied.
    pub(super) fn stamp(&self) -> u64 {
        let stamp = locked(&self.clock).stamp(self.store.files().time.as_ref());
        if planted(Planted::LogTimeGoesBack) {
            return stamp;
        }
        let applied_ms = self.machine.progress().get().log_time_ms;
        stamp.max(self.store.log_time_ms()).max(applied_ms)
    }

    /// Log time of the last entry with proposals below `index`; `None` when that was given up.
    pub(super) async fn log_time_before(&self, index: u64) -> io::Result<Option<u64>> {
        let first = self.store.first_index();
        let lowest = index.saturating_sub(BACK_MAX).max(first);
        for index in (lowest..index).rev() {
            let entries = self
                .store
                .entries(index, index.saturating_add(1), 0)
                .await?;
            let timed = entries.first().filter(|entry| has_time(entry));
            if let Some(entry) = timed {
                return Ok(Some(entry.log_time_ms));
            }
        }
        Ok(None)
    }
}

fn has_time(entry: &Entry) -> bool {
    matches!(entry.body, Body::Proposals(_))
}

/// Entries as batches whose times do not go back. Where nothing tells the time before the first of
/// them, it is that of the first one that has any, or else what was applied last.
pub(super) fn in_order(entries: Vec<Entry>, before: Option<u64>, applied_ms: u64) -> Vec<Batch> {
    let first = entries.iter().find(|entry| has_time(entry));
    let mut at = before
        .or(first.map(|first| first.log_time_ms))
        .unwrap_or(applied_ms);
    let batch = |entry: Entry| {
        at = at.max(entry.log_time_ms);
        Batch {
            log_time_ms: at,
            ..Batch::from(entry)
        }
    };
    entries.into_iter().map(batch).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, log_time_ms: u64) -> Entry {
        let body = match log_time_ms {
            0 => Body::Blank,
            _ => Body::Proposals(Vec::new()),
        };
        Entry {
            term: 1,
            index,
            log_time_ms,
            body,
        }
    }

    fn times(stamps: &[u64], before: Option<u64>) -> Vec<u64> {
        let entries = (1..).zip(stamps).map(|(index, at)| entry(index, *at));
        let batches = in_order(entries.collect(), before, 99);
        batches.iter().map(|batch| batch.log_time_ms).collect()
    }

    #[test]
    fn times_do_not_go_back_and_entries_without_one_take_the_one_before() {
        assert_eq!(times(&[0, 50, 0, 40, 60], Some(45)), [45, 50, 50, 50, 60]);
        assert_eq!(times(&[0, 0, 50], None), [50, 50, 50]);
        assert_eq!(times(&[0, 0], None), [99, 99]);
    }
}
