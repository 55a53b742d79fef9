//! What this start of the edge remembers of payments: which it told, and what it proposed.
//!
//! Only this edge can mark its own proposals late, so what it told needs no word to the log when it
//! is told again. Bounded: the oldest are forgotten, which costs a word.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use standin_core::answer::Verdict;
use standin_core::id::TransactionId;

/// Payments remembered.
const TOLD_MAX: usize = 65_536;

/// The payments told lately.
#[derive(Debug, Default)]
pub struct Told(Mutex<Lately<()>>);

/// Something about payments. At most [`TOLD_MAX`] are remembered, the oldest are forgotten first.
#[derive(Debug)]
struct Lately<V> {
    known: HashMap<TransactionId, (u64, V)>,
    order: BTreeMap<u64, TransactionId>,
    next: u64,
}

// === impl Lately ===

impl<V> Default for Lately<V> {
    fn default() -> Self {
        Self {
            known: HashMap::new(),
            order: BTreeMap::new(),
            next: 0,
        }
    }
}

impl<V: Default> Lately<V> {
    /// What is remembered of a payment, from now on if nothing was.
    fn entry(&mut self, id: TransactionId) -> &mut V {
        let Self { known, order, next } = self;
        if known.len() >= TOLD_MAX
            && !known.contains_key(&id)
            && let Some((_, oldest)) = order.pop_first()
        {
            known.remove(&oldest);
        }
        let (_, value) = known.entry(id).or_insert_with(|| {
            let number = *next;
            *next = next.saturating_add(1);
            order.insert(number, id);
            (number, V::default())
        });
        value
    }

    fn remove(&mut self, id: TransactionId) {
        if let Some((number, _)) = self.known.remove(&id) {
            self.order.remove(&number);
        }
    }
}

// === impl Told ===

impl Told {
    /// Remembers one.
    pub fn insert(&self, id: TransactionId) {
        let mut lately = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lately.entry(id);
    }

    /// Whether it is remembered.
    pub fn contains(&self, id: TransactionId) -> bool {
        let lately = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lately.known.contains_key(&id)
    }
}

/// What this start of the edge proposed and does not know the fate of. It may give no other verdict on
/// such a payment, asked again or not. Bounded: the oldest are forgotten, which may come to be a
/// conflict, which the log keeps.
#[derive(Debug, Default)]
pub struct Proposed(Mutex<Lately<Verdicts>>);

#[derive(Clone, Copy, Debug, Default)]
struct Verdicts {
    approved: bool,
    declined: bool,
}

// === impl Proposed ===

impl Proposed {
    /// Remembers a verdict before it is proposed. Says whether it is the first time.
    pub fn insert(&self, id: TransactionId, verdict: Verdict) -> bool {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !std::mem::replace(open.entry(id).of(verdict), true)
    }

    /// It was not begun after all: forgets it, if it was not proposed before.
    pub fn take_back(&self, id: TransactionId, verdict: Verdict) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, verdicts)) = open.known.get_mut(&id) else {
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
        known.is_some_and(|(_, verdicts)| verdicts.approved && verdicts.declined)
    }
}

// === impl Verdicts ===

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

    fn id(number: usize) -> TransactionId {
        let number = u128::try_from(number).unwrap();
        TransactionId::from_bytes(number.to_be_bytes())
    }

    #[test]
    fn the_oldest_are_forgotten_first() {
        let told = Told::default();
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
        let id = id(1);
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
        for number in 0..=TOLD_MAX {
            proposed.insert(id(number), Verdict::Approved);
            proposed.insert(id(number), Verdict::Declined);
            assert!(proposed.is_open(id(number)));
        }
        assert!(!proposed.is_open(id(0)));
        assert!(proposed.is_open(id(1)));
    }
}
