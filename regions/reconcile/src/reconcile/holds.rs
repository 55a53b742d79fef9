//! Holds that never got an outcome: a tombstone that comes first in every log makes sure that they
//! never will, and only then are they released.

use standin_core::clock::Timestamp;
use standin_core::ledger::{AuthorizationState, StaleHold};

use super::{Facts, Inputs, Options, Placed, RunError, TombstoneError, Tombstones, within};
use crate::report::reconciliation::{Finding, FindingKind, HoldFigures, Reconciliation};
use crate::totals::add;

/// Holds worked on at once.
const BATCH: u32 = 500;
/// Batches in one run; what is left is the next run's.
const BATCHES_MAX: u32 = 200;

/// Releases stale holds, batch by batch.
pub(super) async fn release_stale(
    inputs: &Inputs,
    options: Options,
    now: Timestamp,
    report: &mut Reconciliation,
) -> Result<(), RunError> {
    let age = i64::try_from(options.stale_after.as_millis()).unwrap_or(i64::MAX);
    let before = Timestamp::from_millis(now.as_millis().saturating_sub(age));
    let ledger = &inputs.ledger;
    for _ in 0..BATCHES_MAX {
        let stale = within(options.call_deadline, ledger.stale_holds(before, BATCH)).await?;
        if stale.is_empty() {
            return Ok(());
        }
        let count = u64::try_from(stale.len()).unwrap_or(u64::MAX);
        report.holds.stale = report.holds.stale.saturating_add(count);
        let placed = match &inputs.tombstones {
            Some(tombstones) => place(tombstones.as_ref(), &stale, options).await,
            None => Err(TombstoneError {
                detail: "no log was given to place them in".to_owned(),
            }),
        };
        let placed = match placed {
            Ok(placed) => placed,
            Err(error) => {
                for hold in stale {
                    report.find(kept(hold, format!("not released: {error}")));
                }
                return Ok(());
            }
        };
        let (first, answered): (Vec<_>, Vec<_>) = stale
            .into_iter()
            .zip(placed)
            .partition(|(_, placed)| *placed == Placed::First);
        let release: Vec<StaleHold> = first.into_iter().map(|(hold, _)| hold).collect();
        let released = within(options.call_deadline, ledger.release(release)).await?;
        report.holds.released = report.holds.released.saturating_add(released);
        let answered = u64::try_from(answered.len()).unwrap_or(u64::MAX);
        report.holds.answered = report.holds.answered.saturating_add(answered);
        if released == 0 {
            // What is left was answered after the logs were read: the drain will book it.
            return Ok(());
        }
    }
    Ok(())
}

async fn place(
    tombstones: &dyn Tombstones,
    stale: &[StaleHold],
    options: Options,
) -> Result<Vec<Placed>, TombstoneError> {
    let payments: Vec<_> = stale.iter().map(|hold| hold.transaction_id).collect();
    let placing = tombstones.place(payments);
    let placed = tokio::time::timeout(options.call_deadline, placing)
        .await
        .unwrap_or_else(|_| {
            Err(TombstoneError {
                detail: "the deadline passed".to_owned(),
            })
        })?;
    if placed.len() == stale.len() {
        Ok(placed)
    } else {
        Err(TombstoneError {
            detail: format!("{} outcomes for {} holds", placed.len(), stale.len()),
        })
    }
}

fn kept(hold: StaleHold, detail: String) -> Finding {
    Finding {
        kind: FindingKind::StaleHold,
        transaction_id: Some(hold.transaction_id),
        detail: format!("held since {}, {detail}", hold.held_at),
        amount_minor: hold.amount,
        currency: None,
        bank: None,
    }
}

/// Counts the holds that are still open.
pub(super) fn count_open(facts: &Facts, holds: &mut HoldFigures) {
    let open = facts
        .rows
        .values()
        .filter(|row| row.state == AuthorizationState::Held);
    for row in open {
        holds.open = holds.open.saturating_add(1);
        add(&mut holds.open_minor, row.answer.amount);
    }
}
