//! Payments whose answer this start of the edge gave to the bank itself.
//!
//! Only this edge can mark its own proposals late, so what it told needs no word to the log when it
//! is told again. Bounded: the oldest are forgotten, which costs a word.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
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

/// What this start of the edge proposed and does not know the fate of. It may give no other verdict on
/// such a payment, asked again or not. Bounded: the oldest are forgotten, which may come to be a
/// conflict, which the log keeps.
#[derive(Debug, Default)]
pub struct Proposed(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    known: HashMap<TransactionId, Verdicts>,
    order: BTreeMap<u64, TransactionId>,
    next: u64,
}

#[derive(Clone, Copy, Debug)]
struct Verdicts {
    number: u64,
    approved: bool,
    declined: bool,
}

// === impl Proposed ===

impl Proposed {
    /// Remembers a verdict before it is proposed. Says whether it is the first time.
    pub fn insert(&self, id: TransactionId, verdict: Verdict) -> bool {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Open { known, order, next } = &mut *open;
        let verdicts = known.entry(id).or_insert_with(|| {
            let number = *next;
            *next = next.saturating_add(1);
            order.insert(number, id);
            Verdicts {
                number,
                approved: false,
                declined: false,
            }
        });
        let first = !std::mem::replace(verdicts.of(verdict), true);
        if known.len() > TOLD_MAX
            && let Some((_, oldest)) = order.pop_first()
        {
            known.remove(&oldest);
        }
        first
    }

    /// It was not begun after all: forgets it, if it was not proposed before.
    pub fn take_back(&self, id: TransactionId, verdict: Verdict) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(verdicts) = open.known.get_mut(&id) else {
            return;
        };
        *verdicts.of(verdict) = false;
        if !verdicts.approved && !verdicts.declined {
            open.remove(id);
        }
    }

    /// What became of the payment is known.
    pub fn settle(&self, id: TransactionId) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(id);
    }

    /// Whether both verdicts were proposed: either may be the answer.
    pub fn is_open(&self, id: TransactionId) -> bool {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = open.known.get(&id);
        known.is_some_and(|verdicts| verdicts.approved && verdicts.declined)
    }
}

impl Open {
    fn remove(&mut self, id: TransactionId) {
        if let Some(verdicts) = self.known.remove(&id) {
            self.order.remove(&verdicts.number);
        }
    }
}

impl Verdicts {
    fn of(&mut self, verdict: Verdict) -> &mut bool {
        match verdict {
            Verdict::Approved => &mut self.approved,
            Verdict::Declined => &mut self.declined,
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
        assert!(proposed.insert(id, Verdict::Approved));
        assert!(!proposed.insert(id, Verdict::Approved));
        assert!(!proposed.is_open(id));
        assert!(proposed.insert(id, Verdict::Declined));
        assert!(proposed.is_open(id));
        proposed.take_back(id, Verdict::Declined);
        assert!(!proposed.is_open(id));
        proposed.insert(id, Verdict::Declined);
        assert!(proposed.is_open(id));
        proposed.settle(id);
        proposed.insert(id, Verdict::Declined);
        assert!(!proposed.is_open(id));
    }

    #[test]
    fn of_open_payments_the_oldest_are_forgotten_first() {
        let proposed = Proposed::default();
        let id = |number: usize| {
            let number = u128::try_from(number).unwrap();
            TransactionId::from_bytes(number.to_be_bytes())
        };
        for number in 0..=TOLD_MAX {
            proposed.insert(id(number), Verdict::Approved);
            proposed.insert(id(number), Verdict::Declined);
            assert!(proposed.is_open(id(number)));
        }
        assert!(!proposed.is_open(id(0)));
        assert!(proposed.is_open(id(1)));
    }
}
