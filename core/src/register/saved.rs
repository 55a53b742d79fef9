//! The register as bytes, for a snapshot: a schema number (two bytes, little-endian) and postcard.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::corrections::{Corrections, Granted};
use super::payments::{Payments, Record};
use super::tally::SavedTallies;
use super::trips::{SavedTrips, Trips};
use super::{Counts, Outage, Register, StandInTallies};
use crate::answer::Why;
use crate::entry::StandInMode;
use crate::id::TransactionId;
use crate::planted::{Planted, planted};

/// The newest schema, which this build writes where it must: behind the body of schema 1, when an operator's
/// order ends.
const SCHEMA: u16 = 2;
/// The schema before it.
const SCHEMA_BEFORE: u16 = 1;

/// Bytes that are no saved register.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Too short to hold a schema number.
    #[error("{0} bytes hold no schema number")]
    Short(usize),
    /// Written by a newer build.
    #[error("register schema {0} is not known to this build (it reads {SCHEMA})")]
    Schema(u16),
    /// The body does not decode.
    #[error("the register does not decode: {0}")]
    Body(#[from] postcard::Error),
}

#[derive(Serialize, Deserialize)]
struct Saved {
    payments: Vec<(u64, TransactionId, Record)>,
    trips: SavedTrips,
    tallies: SavedTallies,
    corrections: Corrections,
    outages: VecDeque<Outage>,
    cut_off: BTreeMap<u64, Why>,
    mode: StandInMode,
    grants: BTreeMap<u64, Granted>,
    incarnation: Option<Uuid>,
    ledger_epoch: u64,
    drained: u64,
    log_time_ms: u64,
    counts: Counts,
}

// === impl Register ===

impl Register {
    /// Everything but its configured size, as bytes; equal registers give equal bytes.
    ///
    /// # Errors
    /// Never for a register that was made by applying entries.
    pub fn save(&self) -> Result<Vec<u8>, LoadError> {
        let saved = Saved {
            payments: self.payments.save(),
            trips: self.trips.save(),
            tallies: self.tallies.save(),
            corrections: self.corrections.clone(),
            outages: self.outages.clone(),
            cut_off: self.cut_off.clone(),
            mode: self.mode,
            grants: self.grants.clone(),
            incarnation: self.incarnation,
            ledger_epoch: self.ledger_epoch,
            drained: self.drained,
            log_time_ms: self.log_time_ms,
            counts: self.counts,
        };
        let Some(until_ms) = self.mode_until_ms else {
            let head = SCHEMA_BEFORE.to_le_bytes().to_vec();
            return Ok(postcard::to_extend(&saved, head)?);
        };
        let head = SCHEMA.to_le_bytes().to_vec();
        let body = postcard::to_extend(&saved, head)?;
        Ok(postcard::to_extend(&until_ms, body)?)
    }

    /// Takes the state of another; on an error nothing has changed.
    ///
    /// # Errors
    /// When these are not bytes that [`Register::save`] of this schema gave.
    pub fn load(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        let Some((head, body)) = bytes.split_first_chunk::<2>() else {
            return Err(LoadError::Short(bytes.len()));
        };
        let schema = u16::from_le_bytes(*head);
        if !matches!(schema, SCHEMA_BEFORE | SCHEMA) {
            return Err(LoadError::Schema(schema));
        }
        let (saved, rest) = postcard::take_from_bytes::<Saved>(body)?;
        let mode_until_ms = match schema {
            SCHEMA => Some(postcard::from_bytes(rest)?),
            _ => None,
        };
        *self = Self {
            config: self.config,
            payments: if planted(Planted::DedupeForgotten) {
                Payments::default()
            } else {
                Payments::load(saved.payments)
            },
            trips: Trips::load(saved.trips),
            tallies: if planted(Planted::CountersForgotten) {
                StandInTallies::default()
            } else {
                StandInTallies::load(saved.tallies)
            },
            corrections: saved.corrections,
            outages: saved.outages,
            cut_off: saved.cut_off,
            mode: saved.mode,
            mode_until_ms,
            grants: saved.grants,
            incarnation: saved.incarnation,
            ledger_epoch: saved.ledger_epoch,
            drained: saved.drained,
            log_time_ms: saved.log_time_ms,
            counts: saved.counts,
        };
        Ok(())
    }
}
