//! A state machine for tests.

use super::{LoadError, Replicable};
use crate::wal::{Applied, StateMachine};

/// Keeps what it is given.
#[cfg_attr(
    not(feature = "shuttle"),
    allow(unreachable_pub, reason = "shown by `threads` alone")
)]
#[derive(Debug, Default)]
pub struct Notes(pub(crate) Vec<Vec<u8>>);

impl StateMachine for Notes {
    type Outcome = usize;
    fn apply(&mut self, _at: Applied, proposal: &[u8]) -> usize {
        self.0.push(proposal.to_vec());
        self.0.len()
    }
}

impl Replicable for Notes {
    fn outcome_to_bytes(outcome: &usize) -> Vec<u8> {
        outcome.to_le_bytes().to_vec()
    }
    fn outcome_from_bytes(bytes: &[u8]) -> Option<usize> {
        Some(usize::from_le_bytes(bytes.try_into().ok()?))
    }
    fn save(&self) -> Vec<u8> {
        postcard::to_stdvec(&self.0).unwrap_or_default()
    }
    fn load(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        self.0 = postcard::from_bytes(bytes).map_err(|error| LoadError(error.to_string()))?;
        Ok(())
    }
}
