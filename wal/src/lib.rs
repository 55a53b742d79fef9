//! The durable log: bytes in, committed outcomes out.
//!
//! [`Wal`] takes proposals (bytes), writes them in batches to segments on disk, and when a batch is
//! durable on a majority of the group's keepers applies it, in log order, to a [`StateMachine`].
//! Whoever proposed gets a [`Committed`] outcome, and nothing else makes one. The crate knows bytes,
//! indexes, terms and members; what the bytes mean is the state machine's affair.
//!
//! [`Wal`] is one keeper's own log: what is durable on its disk is committed. [`Group`] replicates it by
//! Raft, over the same segments, with snapshots for who lacks the log.

pub mod disk;
pub mod inspect;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "shuttle")]
pub mod threads;

mod appender;
mod files;
mod format;
mod group;
mod hands;
mod news;
mod places;
mod planted;
mod raft;
mod reader;
mod recovery;
mod scrub;
mod segment;
mod shared;
mod spare;
mod state;
mod status;
mod sync;
mod tape;
mod time;
mod wal;

#[cfg(test)]
mod tests;

pub use disk::WriteMode;
pub use group::{Change, EnrollError, Group, GroupConfig, GroupStatus, MemberError};
pub use raft::network::{Transport, TransportError};
pub use raft::{LoadError, Member, Replicable};
pub use recovery::OpenError;
pub use scrub::{Damage, ScrubReport};
pub use segment::{Batch, Fault};
pub use status::{Counters, LATENCY_BOUNDS_US, Latency, Status};
pub use time::{SystemTimeSource, TimeSource};
pub use wal::{
    Applied, Committed, Config, EXIT_POISONED, Fate, NodeId, ProposeError, ReadError, StateMachine,
    Stopped, TrimError, Wal, Why,
};
