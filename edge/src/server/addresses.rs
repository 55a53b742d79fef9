//! How many connections each address has, and where somebody we know has spoken from.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections by address; as many addresses as there are connections at most.
#[derive(Debug)]
pub(super) struct Addresses {
    each_max: usize,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection of an address, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

/// Addresses that a known sender has spoken from: a place is kept for them when strangers have taken
/// the others. Past the bound, the one that was silent for longest is forgotten.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<Spoken>);

#[derive(Debug, Default)]
struct Spoken {
    /// By address: when, in words of all.
    last: HashMap<IpAddr, u64>,
    words: u64,
}

/// Says of a connection's other end that it is known.
#[derive(Clone, Debug, Default)]
pub struct Vouch {
    known: Arc<Known>,
    address: Option<IpAddr>,
    vouched: Arc<AtomicBool>,
}

/// Addresses remembered. Only who can sign gets in, so that it takes no more than there are banks.
const KNOWN_MAX: usize = 4_096;

// === impl Addresses ===

impl Addresses {
    pub(super) fn new(each_max: usize) -> Self {
        Self {
            each_max,
            counts: Mutex::default(),
        }
    }

    /// One more connection of an address; `None` when it has as many as it may.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut counts = self.counts();
        let count = counts.entry(address).or_default();
        if *count >= self.each_max {
            return None;
        }
        *count = count.saturating_add(1);
        Some(Place {
            addresses: Arc::clone(self),
            address,
        })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Place ===

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.addresses.counts();
        if let Some(count) = counts.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

// === impl Known ===

impl Known {
    pub(super) fn vouch(self: &Arc<Self>, address: IpAddr) -> Vouch {
        Vouch {
            known: Arc::clone(self),
            address: Some(address),
            vouched: Arc::default(),
        }
    }

    pub(super) fn knows(&self, address: IpAddr) -> bool {
        self.spoken().last.contains_key(&address)
    }

    fn hear(&self, address: IpAddr) {
        let mut spoken = self.spoken();
        let now = spoken.words;
        spoken.words = now.saturating_add(1);
        if spoken.last.insert(address, now).is_some() || spoken.last.len() <= KNOWN_MAX {
            return;
        }
        let silent = spoken.last.iter().min_by_key(|(_, last)| **last);
        if let Some(silent) = silent.map(|(address, _)| *address) {
            spoken.last.remove(&silent);
        }
    }

    fn spoken(&self) -> MutexGuard<'_, Spoken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Vouch ===

impl Vouch {
    /// The sender has proved who it is.
    pub fn known(&self) {
        self.vouched.store(true, Ordering::Relaxed);
        if let Some(address) = self.address {
            self.known.hear(address);
        }
    }

    /// Whether it has.
    pub(super) fn is_known(&self) -> bool {
        self.vouched.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_places_and_an_empty_one_is_forgotten() {
        let addresses = Arc::new(Addresses::new(2));
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let places = [addresses.take(one), addresses.take(one)];
        assert!(addresses.take(one).is_none());
        assert!(addresses.take(other).is_some());
        drop(places);
        assert!(addresses.counts().is_empty());
        assert!(addresses.take(one).is_some());
    }

    #[test]
    fn of_many_known_addresses_the_most_silent_is_forgotten() {
        let known = Arc::new(Known::default());
        let address = |number: usize| {
            let [.., high, low] = number.to_be_bytes();
            IpAddr::from([10, 0, high, low])
        };
        for number in 0..KNOWN_MAX {
            known.vouch(address(number)).known();
        }
        known.vouch(address(0)).known();
        known.vouch(address(KNOWN_MAX)).known();
        assert!(known.knows(address(0)) && known.knows(address(KNOWN_MAX)));
        assert!(!known.knows(address(1)));
        assert!(known.knows(address(2)));
        assert_eq!(known.spoken().last.len(), KNOWN_MAX);
    }
}
