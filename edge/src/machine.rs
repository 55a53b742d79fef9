//! The register as the log's state machine: where `standin-core` and `standin-wal` meet.

use standin_core::entry::{Entry, LogPosition};
use standin_core::register::{Outcome, Register, RegisterConfig};
use standin_wal::{Applied, LoadError, Replicable, StateMachine};

/// The register under the log.
#[derive(Debug)]
pub struct Machine {
    register: Register,
    unreadable: u64,
}

// === impl Machine ===

impl Machine {
    /// A machine that has applied nothing.
    pub fn new(config: RegisterConfig) -> Self {
        Self {
            register: Register::new(config),
            unreadable: 0,
        }
    }

    /// The applied state.
    pub fn register(&self) -> &Register {
        &self.register
    }

    /// Entries that did not decode: written by a newer build. An edge that meets one while opening
    /// its log must not start.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }
}

impl StateMachine for Machine {
    type Outcome = Outcome;

    fn apply(&mut self, at: Applied, proposal: &[u8]) -> Outcome {
        let position = LogPosition {
            index: at.index,
            slot: at.slot,
        };
        match Entry::decode(proposal) {
            Ok(entry) => self.register.apply(position, at.log_time_ms, &entry),
            Err(error) => {
                self.unreadable = self.unreadable.saturating_add(1);
                tracing::error!(%error, index = at.index, slot = at.slot, "entry is unreadable");
                Outcome::Noted
            }
        }
    }
}

impl Replicable for Machine {
    fn save(&self) -> Vec<u8> {
        save(&self.register)
    }

    /// Copied under the lock, made into bytes outside of it: applying waits for the shorter part.
    fn freeze(&self) -> Box<dyn FnOnce() -> Vec<u8> + Send> {
        let register = self.register.clone();
        Box::new(move || save(&register))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        let loaded = self.register.load(bytes);
        loaded.map_err(|error| LoadError(error.to_string()))
    }

    fn outcome_to_bytes(outcome: &Outcome) -> Vec<u8> {
        // Bytes that are no outcome have the proposer ask again.
        postcard::to_stdvec(outcome).unwrap_or_default()
    }

    fn outcome_from_bytes(bytes: &[u8]) -> Option<Outcome> {
        postcard::from_bytes(bytes).ok()
    }
}

fn save(register: &Register) -> Vec<u8> {
    register.save().unwrap_or_else(|error| {
        // Loading it would fail, which is found at once and loses nothing.
        tracing::error!(%error, "the register does not encode");
        Vec::new()
    })
}
