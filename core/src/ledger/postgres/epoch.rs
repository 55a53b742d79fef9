//! The ledger's epoch: a server that was a primary once, and comes back after another was promoted,
//! is refused.
//!
//! The server checks, in the transaction that writes: a guard divides by zero unless the server's
//! epoch is at least the one asked for, and a failed statement lets nothing of its transaction last,
//! whatever was sent behind it. Its SQLSTATE, 22012, means nothing else here: no other statement of
//! ours divides.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_postgres::Row;

use super::super::LedgerError;
use super::decode::number;
use super::link::Failure;

/// Fails unless the server's epoch is at least `$1`; a server without one has 0.
macro_rules! guard {
    ($least:literal) => {
        concat!(
            "1 / (case when coalesce((select e.epoch from ledger_epoch e where e.only_row = 1), 0) ",
            ">= ",
            $least,
            " then 1 else 0 end) = 1"
        )
    };
}
pub(super) use guard;

/// The server's epoch, for a statement that gives rows.
pub(super) const EPOCH: &str = "(select e.epoch from ledger_epoch e where e.only_row = 1) as epoch";

/// The highest epoch seen, shared by the pools of one ledger.
#[derive(Clone, Debug)]
pub(super) struct Epoch(Arc<AtomicU64>);

// === impl Epoch ===

impl Epoch {
    pub(super) fn new(least: u64) -> Self {
        Self(Arc::new(AtomicU64::new(least)))
    }

    pub(super) fn seen(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    pub(super) fn raise(&self, epoch: u64) {
        self.0.fetch_max(epoch, Ordering::AcqRel);
    }

    /// What a statement asks of its server.
    pub(super) fn least(&self) -> i64 {
        i64::try_from(self.seen()).unwrap_or(i64::MAX)
    }

    /// Learns from a row with the column `epoch`.
    pub(super) fn learn(&self, row: &Row) -> Result<(), Failure> {
        self.raise(number(row, "epoch")?);
        Ok(())
    }
}

/// The error of a server whose epoch is too low.
pub(super) fn stale(code: &str) -> Option<LedgerError> {
    (code == "22012").then(LedgerError::stale_epoch)
}
