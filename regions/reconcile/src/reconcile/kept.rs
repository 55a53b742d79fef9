//! The runs that the ledger keeps.

use std::time::Duration;

use serde::Deserialize;

use standin_core::ledger::LedgerError;
use standin_core::ledger::clearing::{ClearingBooks, KeptRun, RUN_ROWS_MAX};

use super::within;
use crate::report::reconciliation::Reconciliation;

/// Runs looked at: those of clearing files are kept among those of the log's job.
const LOOKED_AT_MAX: usize = 2_000;

/// The last run of the log's job; `None` when there is none among the last 2,000 that were kept.
///
/// # Errors
/// When the ledger cannot be asked; `deadline` is for each call.
pub async fn last(
    books: &dyn ClearingBooks,
    deadline: Duration,
) -> Result<Option<Reconciliation>, LedgerError> {
    let mut before = None;
    let mut looked_at = 0_usize;
    while looked_at < LOOKED_AT_MAX {
        let limit = u32::try_from(RUN_ROWS_MAX).unwrap_or(u32::MAX);
        let page = within(deadline, books.runs(before, limit)).await?;
        before = page.last().map(KeptRun::place);
        looked_at = looked_at.saturating_add(page.len());
        // What does not read is of another job, or of a build that told other things.
        let read = |run: &KeptRun| Reconciliation::deserialize(&run.report).ok();
        if let Some(report) = page.iter().find_map(read) {
            return Ok(Some(report));
        }
        if page.is_empty() {
            break;
        }
    }
    Ok(None)
}
