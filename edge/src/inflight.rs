//! Payments being decided here: of concurrent requests for one transaction id one executes, the
//! others wait for it.
//!
//! Bounded by the number of requests the server admits at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use standin_core::id::{Fingerprint, TransactionId};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The payments being decided here.
#[derive(Clone, Debug, Default)]
pub struct InFlight(Arc<Mutex<HashMap<TransactionId, Flight>>>);

#[derive(Debug)]
struct Flight {
    fingerprint: Fingerprint,
    landed: CancellationToken,
}

/// What claiming a transaction id came to.
#[derive(Debug)]
pub enum Claim {
    /// The caller executes; dropping the guard lets the others look again.
    Mine(Guard),
    /// Another request executes the same payment.
    Wait(Landing),
    /// Another request executes a payment that has this id and says something else.
    OtherFingerprint,
}

/// The right to execute one payment.
#[derive(Debug)]
pub struct Guard {
    id: TransactionId,
    flights: InFlight,
    /// Dropped with the guard, which wakes whoever waits.
    _landed: DropGuard,
}

/// A wait for another request's execution.
#[derive(Debug)]
pub struct Landing(CancellationToken);

// === impl InFlight ===

impl InFlight {
    /// Claims a payment.
    pub fn claim(&self, id: TransactionId, fingerprint: Fingerprint) -> Claim {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&id) {
            return if flight.fingerprint == fingerprint {
                Claim::Wait(Landing(flight.landed.clone()))
            } else {
                Claim::OtherFingerprint
            };
        }
        let landed = CancellationToken::new();
        let wakes = landed.clone().drop_guard();
        flights.insert(
            id,
            Flight {
                fingerprint,
                landed,
            },
        );
        Claim::Mine(Guard {
            id,
            flights: self.clone(),
            _landed: wakes,
        })
    }

    /// How many payments are being decided.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

// === impl Guard ===

impl Drop for Guard {
    fn drop(&mut self) {
        self.flights
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.id);
    }
}

// === impl Landing ===

impl Landing {
    /// Resolves when the execution is over, however it ended.
    pub async fn wait(self) {
        self.0.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> TransactionId {
        TransactionId::from_bytes([byte; 16])
    }

    #[tokio::test]
    async fn the_second_waits_until_the_first_has_landed() {
        let flights = InFlight::default();
        let same = Fingerprint::from_bytes([1; 32]);
        let Claim::Mine(guard) = flights.claim(id(1), same) else {
            panic!("first claim")
        };
        let Claim::Wait(landing) = flights.claim(id(1), same) else {
            panic!("second claim")
        };
        assert!(matches!(
            flights.claim(id(1), Fingerprint::from_bytes([2; 32])),
            Claim::OtherFingerprint
        ));
        assert!(matches!(flights.claim(id(2), same), Claim::Mine(_)));
        drop(guard);
        landing.wait().await;
        assert!(matches!(flights.claim(id(1), same), Claim::Mine(_)));
    }
}
