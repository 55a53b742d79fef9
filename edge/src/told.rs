//! Payments whose answer this start of the edge gave to the bank itself.
//!
//! Only this edge can mark its own proposals late, so what it told needs no word to the log when it
//! is told again. Bounded: the oldest are forgotten, which costs a word.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use standin_core::answer::Verdict;
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

/// What this start of the edge proposed lately. Whoever does not know what became of a proposal may give
/// no other verdict on the payment, asked again or not. Bounded as [`Told`] is; what is forgotten may
/// come to be a conflict, which the log keeps.
#[derive(Debug, Default)]
pub struct Proposed {
    approved: Told,
    declined: Told,
}

// === impl Proposed ===

impl Proposed {
    /// Remembers a verdict before it is proposed.
    pub fn insert(&self, id: TransactionId, verdict: Verdict) {
        self.of(verdict).insert(id);
    }

    /// Whether both verdicts were proposed: either may be the answer.
    pub fn is_open(&self, id: TransactionId) -> bool {
        self.approved.contains(id) && self.declined.contains(id)
    }

    fn of(&self, verdict: Verdict) -> &Told {
        match verdict {
            Verdict::Approved => &self.approved,
            Verdict::Declined => &self.declined,
        }
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

    #[test]
    fn a_payment_is_open_once_both_verdicts_were_proposed() {
        let proposed = Proposed::default();
        let id = TransactionId::from_bytes([1; 16]);
        for verdict in [Verdict::Approved, Verdict::Approved] {
            proposed.insert(id, verdict);
            assert!(!proposed.is_open(id));
        }
        proposed.insert(id, Verdict::Declined);
        assert!(proposed.is_open(id));
        assert!(!proposed.is_open(TransactionId::from_bytes([2; 16])));
    }
}
