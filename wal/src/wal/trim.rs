//! Giving up what was drained.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::files::locked;
use crate::hands::off_runtime;
use crate::segment::Segment;
use crate::shared::{Phase, Shared};
use crate::state::State;
use crate::wal::{StateMachine, Wal};

/// Why a trim was not done, or not all of it. Trimming again is harmless.
#[derive(Debug, thiserror::Error)]
pub enum TrimError {
    /// Batches that are not durable yet cannot have been drained.
    #[error("batch {index} is not below the end of the log, which is at {last_index}")]
    BeyondEnd {
        /// What was asked for.
        index: u64,
        /// The last durable batch.
        last_index: u64,
    },
    /// The log has stopped or is poisoned.
    #[error("the log has stopped")]
    Stopped,
    /// The disk failed; the log is poisoned.
    #[error("trimming the log")]
    Io(#[source] io::Error),
}

impl<M: StateMachine> Wal<M> {
    /// Deletes whole segments that lie entirely below `index` (exclusive), never the one that is
    /// being written. The caller has proof that they were drained. There are no snapshots yet: the
    /// applied state keeps what was trimmed only until the process ends.
    pub async fn trim(&self, index: u64) -> Result<(), TrimError> {
        let shared = Arc::clone(&self.shared);
        let trimming = move || trim_shared(&shared, index);
        off_runtime(self.shared.dir.as_ref(), trimming)
            .await
            .unwrap_or(Err(TrimError::Stopped))
    }
}

pub(crate) fn trim_shared<M: StateMachine>(
    shared: &Shared<M>,
    index: u64,
) -> Result<(), TrimError> {
    // One trim at a time, and none once the log has stopped: both go through this lock.
    let mut slots = locked(&shared.slots);
    let position = *shared.position.borrow();
    if position.phase != Phase::Running {
        return Err(TrimError::Stopped);
    }
    if index > position.index.saturating_add(1) {
        return Err(TrimError::BeyondEnd {
            index,
            last_index: position.index,
        });
    }
    let (gone, trim_index) = {
        let mut segments = locked(&shared.segments);
        let nexts = segments.iter().skip(1);
        let drained = nexts
            .take_while(|next| next.header.first_index <= index)
            .count();
        let first = segments.get(drained).filter(|_| drained > 0);
        let Some(trim_index) = first.map(|first| first.header.first_index) else {
            return Ok(());
        };
        let gone: Vec<Arc<Segment>> = segments.drain(..drained).collect();
        (gone, trim_index)
    };
    locked(&shared.places).trim(trim_index);
    let state = State {
        trim_index,
        ..slots.state()
    };
    let done = slots.store(state).and_then(|()| {
        shared.trim_index.store(trim_index, Ordering::Relaxed);
        shared.give_up(gone)
    });
    drop(slots);
    if done.is_err() {
        shared.poison();
    }
    done.map_err(TrimError::Io)
}
