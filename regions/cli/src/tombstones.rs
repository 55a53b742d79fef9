//! Tombstones for holds that never got an outcome, through an edge of this process.

use std::sync::Arc;

use standin_core::BoxFuture;
use standin_core::id::TransactionId;
use standin_edge::app::Desk;
use standin_reconcile::reconcile::{Placed, TombstoneError, Tombstones};

/// Places tombstones through the edge's own desk.
pub(crate) struct DeskTombstones(pub(crate) Arc<Desk>);

// === impl DeskTombstones ===

impl Tombstones for DeskTombstones {
    fn place(
        &self,
        payments: Vec<TransactionId>,
    ) -> BoxFuture<'_, Result<Vec<Placed>, TombstoneError>> {
        Box::pin(async move {
            let mut placed = Vec::with_capacity(payments.len());
            for payment in payments {
                let first = self.0.tombstone(payment).await;
                let first = first.map_err(|error| TombstoneError {
                    detail: error.to_string(),
                })?;
                placed.push(if first {
                    Placed::First
                } else {
                    Placed::Answered
                });
            }
            Ok(placed)
        })
    }
}
