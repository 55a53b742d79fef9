//! What a simulator outside of this crate needs besides a disk: chance from a seed, a look into the
//! messages of a group, and bugs to be planted.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;

pub use crate::planted::{Planted, plant};
pub use crate::raft::chance::seed_elections;
use crate::raft::wire::{Request, Response, decode};
use crate::wal::Applied;

thread_local! {
    static WITNESS: RefCell<Option<Arc<dyn Witness>>> = const { RefCell::new(None) };
}

/// Sees what a node applies.
pub trait Witness: Send + Sync {
    /// A proposal was applied, and this is what it came to.
    fn applied(&self, at: Applied, proposal: &[u8], outcome: &[u8]);
}

/// Nodes that are opened on this thread from now on are seen by this one.
pub fn bring_witness(witness: Option<Arc<dyn Witness>>) {
    WITNESS.set(witness);
}

pub(crate) fn witness() -> Option<Arc<dyn Witness>> {
    WITNESS.with(|witness| witness.borrow().clone())
}

/// What a message between nodes says, as far as a simulator judges it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Entries to append, or a heartbeat.
    Append {
        /// The leader's term.
        term: u64,
        /// How many entries.
        entries: u64,
        /// Highest index that the leader says is committed.
        committed: u64,
    },
    /// A vote is asked for.
    AskVote {
        /// In this term.
        term: u64,
    },
    /// A snapshot.
    Snapshot,
    /// Proposals for the leader.
    Propose {
        /// How many.
        proposals: u64,
    },
    /// A vote was given (or the one given before was told).
    Voted {
        /// In this term.
        term: u64,
        /// For this node.
        node: u64,
        /// Whether to whoever asked.
        granted: bool,
    },
    /// Outcomes of proposals.
    Outcomes {
        /// How many.
        outcomes: u64,
    },
    /// All that was to be appended is durable.
    Appended,
    /// Anything else.
    Other,
}

/// Reads a request.
pub fn look_into_request(bytes: &Bytes) -> Said {
    match decode::<Request>(bytes) {
        Some(Request::Append(append)) => {
            let (term, entries, committed) = append.about();
            Said::Append {
                term,
                entries,
                committed,
            }
        }
        Some(Request::Vote { vote, .. }) => Said::AskVote { term: vote.term() },
        Some(Request::Snapshot { .. }) => Said::Snapshot,
        Some(Request::Propose { proposals }) => Said::Propose {
            proposals: count(proposals.len()),
        },
        #[allow(unreachable_patterns, reason = "other kinds may come to be")]
        Some(_) | None => Said::Other,
    }
}

/// Reads a reply.
pub fn look_into_reply(bytes: &Bytes) -> Said {
    match decode::<Response>(bytes) {
        Some(Response::Voted { vote, granted, .. }) => Said::Voted {
            term: vote.term(),
            node: vote.node(),
            granted,
        },
        Some(Response::Outcomes(outcomes)) => Said::Outcomes {
            outcomes: count(outcomes.len()),
        },
        Some(Response::Appended) => Said::Appended,
        Some(_) | None => Said::Other,
    }
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
