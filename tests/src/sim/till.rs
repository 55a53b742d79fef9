//! A small state machine for simulations of the log alone: payments against one cap, each answered once.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use standin_wal::{Applied, LoadError, Replicable, StateMachine};

use super::disk::{MARK, Mark, marks};

/// The state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Till {
    answers: BTreeMap<Mark, Answer>,
    spent: u64,
    log_time_ms: u64,
}

/// What became of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    approved: bool,
    at: (u64, u32),
}

const CAP: u64 = 2_000;

/// A payment as bytes; `filler` more of them.
pub fn payment(mark: &Mark, amount: u8, filler: usize) -> Bytes {
    let mut bytes = MARK.to_vec();
    bytes.extend_from_slice(mark);
    bytes.push(amount);
    bytes.resize(bytes.len().saturating_add(filler), 0xA5);
    bytes.into()
}

impl StateMachine for Till {
    type Outcome = Option<Answer>;

    fn apply(&mut self, at: Applied, proposal: &[u8]) -> Option<Answer> {
        let mark = *marks(proposal).first()?;
        self.log_time_ms = at.log_time_ms;
        if let Some(answer) = self.answers.get(&mark) {
            return Some(*answer);
        }
        let place = MARK.len().saturating_add(mark.len());
        let amount = u64::from(*proposal.get(place)?);
        let spent = self.spent.saturating_add(amount);
        let answer = Answer {
            approved: spent <= CAP,
            at: (at.index, at.slot),
        };
        if answer.approved {
            self.spent = spent;
        }
        self.answers.insert(mark, answer);
        Some(answer)
    }
}

impl Replicable for Till {
    fn save(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap_or_default()
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        *self = postcard::from_bytes(bytes).map_err(|error| LoadError(error.to_string()))?;
        Ok(())
    }

    fn outcome_to_bytes(outcome: &Option<Answer>) -> Vec<u8> {
        postcard::to_stdvec(outcome).unwrap_or_default()
    }

    fn outcome_from_bytes(bytes: &[u8]) -> Option<Option<Answer>> {
        postcard::from_bytes(bytes).ok()
    }
}
