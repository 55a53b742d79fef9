//! Payments whose answer this start of the edge gave to the bank itself.
//!
//! Only this edge can mark its own proposals late, so what it told needs no word to the log when it
//! is told again. Bounded: the oldest are forgotten, which costs a word.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use standin_core::id::TransactionId;

/// Payments remembered.
const TOLD_MAX: usize = 65_536;

/// The payments told lately.
#[derive(Debug, Default)]
pub struct Told(Mutex<Lately>);

#[derive(Debug, Default)]
struct Lately {
    known: HashSet<TransactionId>,
    order: VecDeque<TransactionId>,
}

// === impl Told ===

impl Told {
    /// Remembers one.
    pub fn insert(&self, id: TransactionId) {
        let mut lately = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !lately.known.insert(id) {
            return;
        }
        lately.order.push_back(id);
        if lately.order.len() > TOLD_MAX
            && let Some(oldest) = lately.order.pop_front()
        {
            lately.known.remove(&oldest);
        }
    }

    /// Whether it is remembered.
    pub fn contains(&self, id: TransactionId) -> bool {
        let lately = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lately.known.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_first() {
        let told = Told::default();
        let id = |number: usize| {
            let number = u128::try_from(number).unwrap();
            TransactionId::from_bytes(number.to_be_bytes())
        };
        for number in 0..=TOLD_MAX {
            told.insert(id(number));
            told.insert(id(number));
        }
        assert!(!told.contains(id(0)));
        assert!(told.contains(id(1)) && told.contains(id(TOLD_MAX)));
    }
}
