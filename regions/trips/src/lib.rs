//! The platform's side: customers order, shoppers claim, start trips, pick, move, finish.
//!
//! [`flow`] holds the operations, [`feeder`] the consumers that carry events from the queue into the
//! trip cache and then into the ledger, [`api`] the HTTP face. Promises:
//!
//! - Whatever changes the ledger changes the trip cache (write-through); where that write fails the
//!   answer says so and a repair is remembered.
//! - What happens on a trip (pick, un-pick, out of stock, position, finish) needs no ledger: it is
//!   acknowledged once the queue holds it, reaches the cache, and is booked later, once, in order.
//! - Placing, claiming, starting and completing need the ledger; without it they are refused.
//!
//! Deliberately absent: matching that does more than offer what was placed at a store; accepting
//! connections (the caller's server hands requests to [`api::Api::handle`]); writing approvals
//! through, which is the edge's.

pub mod api;
pub mod counters;
pub mod feeder;
pub mod flow;
#[cfg(test)]
mod testing;

use standin_core::BoxFuture;
use standin_core::ledger::LedgerError;
use standin_core::trip::TripEvent;

/// Makes events durable before they are acknowledged, where the queue alone does not: in embedded
/// mode the queue is this process' memory, and the log is what survives it.
pub trait EventJournal: Send + Sync + 'static {
    /// Resolves once the events would survive a crash. After an error they may or may not.
    fn record<'a>(&'a self, events: &'a [TripEvent]) -> BoxFuture<'a, Result<(), LedgerError>>;
}
