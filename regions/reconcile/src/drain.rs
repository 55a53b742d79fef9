//! Brings what is left in a log into the ledger, and tries the whole log again.
//!
//! The edge drains its own log; this is the same step (outcomes by key, the cursor by
//! compare-and-set) taken by whoever reconciles, so a second drainer beside a running edge is
//! harmless: one of the two is told that it raced, and reads the cursor again.

use std::time::Duration;

use standin_core::entry::Entry;
use standin_core::ledger::{
    BOOK_ROWS_MAX, Booked, BookedCounts, DrainStep, Ledger, LedgerError, SettlementRow,
};

use crate::checker::{DrainEvidence, rows_digest};
use crate::log::{LogContents, LogRecord};
use crate::reconcile::{CONFLICTS_MAX, all_rows, within};

/// Lost races after which a drain gives up: a running edge is then draining the log itself.
const RACES_MAX: u32 = 100;

/// Why a log could not be drained.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// A call to the ledger failed. Nothing is lost: draining again continues at the cursor.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Another drainer moved the cursor each time.
    #[error("another drainer moved the cursor {RACES_MAX} times; try again later")]
    Raced,
}

/// What a drain did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drained {
    /// Where the cursor stands.
    pub cursor: u64,
    /// What was booked on the way.
    pub counts: BookedCounts,
}

/// Books everything above the cursor. The cursor does not move when there is nothing to book.
///
/// # Errors
/// When a call fails or races are lost without end; `deadline` is for each call.
pub async fn drain(
    ledger: &dyn Ledger,
    log: &LogContents,
    deadline: Duration,
) -> Result<Drained, DrainError> {
    let mut cursor = within(deadline, ledger.cursor(log.incarnation)).await?;
    let mut counts = BookedCounts::default();
    let mut races = 0_u32;
    while log.undrained(cursor) > 0 {
        let step = next_step(log, cursor);
        let to = step.to;
        match within(deadline, ledger.book(step)).await? {
            Booked::Moved(booked) => {
                add(&mut counts, booked);
                cursor = to;
            }
            Booked::Raced { cursor: at } => {
                races = races.saturating_add(1);
                if races > RACES_MAX {
                    return Err(DrainError::Raced);
                }
                cursor = at;
            }
        }
    }
    Ok(Drained { cursor, counts })
}

/// Books a drained log's every outcome again without moving the cursor, and says what changed: the
/// evidence for S5. `again.conflicts` counts conflicts that were not there before.
///
/// # Errors
/// When a call fails, or somebody moves the cursor meanwhile.
pub async fn again(
    ledger: &dyn Ledger,
    log: &LogContents,
    deadline: Duration,
) -> Result<DrainEvidence, DrainError> {
    let conflicts = || async {
        let rows = within(deadline, ledger.conflicts(CONFLICTS_MAX)).await?;
        Ok::<_, DrainError>(u64::try_from(rows.len()).unwrap_or(u64::MAX))
    };
    let cursor = within(deadline, ledger.cursor(log.incarnation)).await?;
    let rows_before = rows_digest(&all_rows(ledger, deadline).await?);
    let conflicts_before = conflicts().await?;
    let mut counts = BookedCounts::default();
    let mut from = 0;
    while from < cursor.min(log.last_index) {
        let step = next_step(log, from);
        if step.to == from {
            // All that is left is blank: the cursor goes over what a new leader begins with.
            break;
        }
        from = step.to;
        let in_place = DrainStep {
            from: cursor,
            to: cursor,
            ..step
        };
        match within(deadline, ledger.book(in_place)).await? {
            Booked::Moved(booked) => add(&mut counts, booked),
            Booked::Raced { .. } => return Err(DrainError::Raced),
        }
    }
    counts.conflicts = conflicts().await?.saturating_sub(conflicts_before);
    let rows_after = rows_digest(&all_rows(ledger, deadline).await?);
    Ok(DrainEvidence {
        log: log.incarnation,
        cursor,
        again: counts,
        rows_before,
        rows_after,
    })
}

/// The batches above `from`, as many as fit in one step: at least one, as a batch never holds more
/// than a step may, unless all above are blank. Then the step goes nowhere.
fn next_step(log: &LogContents, from: u64) -> DrainStep {
    let mut step = DrainStep {
        log: log.incarnation,
        from,
        to: from,
        ..DrainStep::default()
    };
    let begin = log
        .records
        .partition_point(|record| record.at.index <= from);
    let rest = log.records.get(begin..).unwrap_or_default();
    for batch in rest.chunk_by(|one, other| one.at.index == other.at.index) {
        let more = of_batch(log, batch);
        if step.to > from && step.rows().saturating_add(more.rows()) > BOOK_ROWS_MAX {
            return step;
        }
        step.outcomes.extend(more.outcomes);
        step.rewordings.extend(more.rewordings);
        step.reversals.extend(more.reversals);
        step.settlements.extend(more.settlements);
        step.actions.extend(more.actions);
        step.to = batch.last().map_or(step.to, |record| record.at.index);
    }
    step
}

/// What one batch holds for the ledger.
fn of_batch(log: &LogContents, batch: &[LogRecord]) -> DrainStep {
    let index = batch.first().map(|record| record.at.index);
    let reversals = log
        .reversals
        .iter()
        .filter(|(at, _)| Some(at.index) == index);
    let mut step = DrainStep {
        outcomes: batch.iter().filter_map(LogRecord::booking).collect(),
        rewordings: batch.iter().filter_map(LogRecord::rewording).collect(),
        reversals: reversals.map(|(_, row)| row.clone()).collect(),
        ..DrainStep::default()
    };
    for record in batch {
        match &record.entry {
            Entry::Operator(action) => step.actions.push(action.clone()),
            Entry::Settled(settlement) => step.settlements.push(SettlementRow {
                settlement: settlement.as_ref().clone(),
                at: record.at,
            }),
            _ => {}
        }
    }
    step
}

fn add(counts: &mut BookedCounts, booked: BookedCounts) {
    let BookedCounts {
        finalized,
        already,
        conflicts,
    } = booked;
    counts.finalized = counts.finalized.saturating_add(finalized);
    counts.already = counts.already.saturating_add(already);
    counts.conflicts = counts.conflicts.saturating_add(conflicts);
}
