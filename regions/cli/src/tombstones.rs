//! Tombstones for holds that never got an outcome: through an edge of this process, or through the
//! admin listeners of running edges.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use standin_core::BoxFuture;
use standin_edge::admin::{TombstonePlaced, TombstoneReply};
use uuid::Uuid;

use crate::client::{Call, Pool, Target, TlsArgs};
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

/// Tombstones placed at once at each edge; they share the writes of its log.
const AT_ONCE: usize = 16;
/// How long an edge may take for one call.
const PATIENCE: Duration = Duration::from_secs(5);

/// Places tombstones through the admin listeners of running edges, one for each log.
pub(crate) struct AdminTombstones {
    edges: Vec<Pool>,
    /// Who orders it and why, as every edge keeps it.
    order: Vec<u8>,
}

// === impl AdminTombstones ===

impl AdminTombstones {
    /// Asks each edge which log it writes: releasing a hold is safe only when its tombstone came
    /// first in *every* log that is reconciled.
    ///
    /// # Errors
    /// When an edge does not say, or the edges' logs are not exactly `logs`.
    pub(crate) async fn connect(
        admins: &[Target],
        tls: &TlsArgs,
        logs: &BTreeSet<Uuid>,
        reason: &str,
    ) -> anyhow::Result<Self> {
        let mut edges = Vec::with_capacity(admins.len());
        let mut written = BTreeSet::new();
        for admin in admins {
            let edge = tls.pool(admin, AT_ONCE)?;
            let log = log_of(&edge).await.with_context(|| admin.to_string())?;
            ensure!(written.insert(log), "{admin}: log {log} was named before");
            edges.push(edge);
        }
        if let Some(log) = logs.difference(&written).next() {
            anyhow::bail!("no --admin writes the log {log}: a tombstone must be in every log");
        }
        if let Some(log) = written.difference(logs).next() {
            anyhow::bail!("an --admin writes the log {log}, which no --wal names");
        }
        let order = json!({ "operator": "standin reconcile", "reason": reason });
        let order = serde_json::to_vec(&order)?;
        Ok(Self { edges, order })
    }

    /// Places one in every log, one after the other.
    async fn place_one(&self, payment: TransactionId) -> Result<Placed, TombstoneError> {
        let failed = |detail: String| TombstoneError { detail };
        for edge in &self.edges {
            let call = Call::post(format!("/holds/{payment}/tombstone"), self.order.clone());
            let reply = edge.ask(call, PATIENCE).await;
            let reply = reply.map_err(|error| failed(error.to_string()))?;
            if reply.status != 200 {
                return Err(failed(format!("the edge replied {}", reply.status)));
            }
            let reply: TombstoneReply =
                serde_json::from_slice(&reply.body).map_err(|error| failed(error.to_string()))?;
            match reply.placed {
                TombstonePlaced::First => {}
                TombstonePlaced::Answered => return Ok(Placed::Answered),
            }
        }
        Ok(Placed::First)
    }
}

impl Tombstones for AdminTombstones {
    fn place(
        &self,
        payments: Vec<TransactionId>,
    ) -> BoxFuture<'_, Result<Vec<Placed>, TombstoneError>> {
        let placing = stream::iter(payments).map(|payment| self.place_one(payment));
        Box::pin(placing.buffered(AT_ONCE).try_collect())
    }
}

async fn log_of(edge: &Pool) -> anyhow::Result<Uuid> {
    let reply = edge.ask(Call::get("/statusz"), PATIENCE).await?;
    ensure!(reply.status == 200, "/statusz replied {}", reply.status);
    let status: Value = serde_json::from_slice(&reply.body)?;
    let log = status.pointer("/wal/incarnation").and_then(Value::as_str);
    Ok(log.context("/statusz names no log")?.parse()?)
}

#[cfg(test)]
mod tests;
