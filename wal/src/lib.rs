//! The durable log: bytes in, committed outcomes out.
//!
//! [`Wal`] takes proposals (bytes), writes them in batches to segments on disk, and when a batch is
//! durable on a majority of the group's keepers applies it, in log order, to a [`StateMachine`].
//! Whoever proposed gets a [`Committed`] outcome, and nothing else makes one. The crate knows bytes,
//! indexes, terms and members; what the bytes mean is the state machine's affair.
//!
//! For now a group is one keeper, and there are no snapshots: a log that was trimmed shows its
//! machine only what is left.

pub mod disk;
pub mod inspect;

mod appender;
mod format;
mod recovery;
mod segment;
mod shared;
mod spare;
mod state;
mod status;
mod time;
mod wal;

#[cfg(test)]
mod tests;

pub use recovery::OpenError;
pub use segment::{Batch, Fault};
pub use status::{Counters, LATENCY_BOUNDS_US, Latency, Status};
pub use time::{SystemTimeSource, TimeSource};
pub use wal::{
    Applied, Committed, Config, EXIT_POISONED, Fate, NodeId, ProposeError, ReadError, StateMachine,
    Stopped, TrimError, Wal, Why,
};
