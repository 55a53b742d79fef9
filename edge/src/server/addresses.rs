//! How many connections each address has.

use std::collections::HashMap;
use std::net::IpAddr;
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
}
