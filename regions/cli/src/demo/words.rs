//! What the demo and its edges tell each other: JSON, a line each, over the edge's standard input and
//! output.

use serde::{Deserialize, Serialize};
use standin_core::id::ShopperId;
use standin_core::trip::Position;

use super::fault::State;

/// What an edge is told. The end of its input tells it to stop.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// The first word: begin.
    Begin {
        /// The edge's configuration, TOML.
        config: String,
        /// How the primary is that is embedded in the edge; `None`: it has a real one.
        primary: Option<State>,
    },
    /// The embedded primary is so from now on.
    Primary(State),
    /// A shopper moved. Positions are in no log: the platform tells every trip cache.
    Moved {
        /// Who.
        shopper: ShopperId,
        /// Where to.
        position: Position,
    },
    /// Say [`Word::Settled`] once everything before this was done.
    Settle,
    /// Say what is in the ledger.
    Ledger,
}

/// What an edge says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Word {
    /// It is open, where its configuration says.
    Open,
    /// Who leads the log, as far as this edge knows.
    Leader {
        /// In which term.
        term: u64,
        /// `None`: nobody that it knows of.
        leader: Option<u64>,
    },
    /// Every order before the question was carried out.
    Settled,
    /// What is final in its ledger.
    Ledger {
        /// How many.
        finals: u64,
        /// A digest of them that does not depend on their order.
        digest: u64,
    },
    /// It has stopped.
    Stopped {
        /// With everything begun finished.
        clean: bool,
    },
}
