//! How often a sender may ask: by bank, by address (failed signatures only), by shopper.
//!
//! Tables whose keys a stranger chooses are bounded: at the bound, keys that have recovered are
//! forgotten; if none has, a *new* key shares one limit with all other new keys, so that a flood of
//! keys slows strangers and not those already known. Replays are not limited by shopper: the caller
//! asks only for what it is about to decide.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{NotUntil, Quota, RateLimiter};
use standin_core::id::{BankId, ShopperId};

use crate::config::{BankConfig, LimitConfig};

type Instant = <DefaultClock as Clock>::Instant;
type Direct = RateLimiter<NotKeyed, InMemoryState, DefaultClock, NoOpMiddleware<Instant>>;
type Keyed<K> = RateLimiter<K, DefaultKeyedStateStore<K>, DefaultClock, NoOpMiddleware<Instant>>;

/// Every limit of one edge.
pub struct Limits {
    banks: HashMap<BankId, Direct>,
    failures: Bounded<IpAddr>,
    shoppers: Bounded<ShopperId>,
    /// Made once: making one asks the CPU what it is, which a virtual machine traps.
    clock: DefaultClock,
}

/// Asked too often; try again after this.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("too many requests; again in {retry_after:?}")]
pub struct TooOften {
    /// When one more will be let through.
    pub retry_after: Duration,
}

/// A limit by key, over a bounded number of keys.
struct Bounded<K: Hash + Eq + Clone> {
    by_key: Keyed<K>,
    strangers: Direct,
    keys_max: usize,
    until_sweep: AtomicUsize,
    clock: DefaultClock,
}

// === impl Limits ===

impl Limits {
    /// Limits as configured.
    pub fn new(banks: &[BankConfig], config: &LimitConfig) -> Self {
        let bank = |bank: &BankConfig| {
            let quota = Quota::per_second(at_least_one(bank.requests_per_second))
                .allow_burst(at_least_one(bank.burst));
            (bank.slug.clone(), RateLimiter::direct(quota))
        };
        let per_minute = |count| Quota::per_minute(at_least_one(count));
        Self {
            banks: banks.iter().map(bank).collect(),
            failures: Bounded::new(
                per_minute(config.address_failures_per_minute),
                config.addresses,
            ),
            shoppers: Bounded::new(per_minute(config.shopper_per_minute), config.shoppers),
            clock: DefaultClock::default(),
        }
    }

    /// Counts one request of a bank. A bank without a limit is not one of ours: no limit.
    pub fn bank(&self, bank: &BankId) -> Result<(), TooOften> {
        match self.banks.get(bank) {
            Some(limit) => check(limit, &self.clock),
            None => Ok(()),
        }
    }

    /// Counts one failed signature from an address; once over, its failures are answered 429
    /// instead of 401. Good signatures are never counted: a bank behind a shared address works on.
    pub fn failed_signature(&self, address: IpAddr) -> Result<(), TooOften> {
        self.failures.count(&address)
    }

    /// Counts one authorization of a shopper.
    pub fn shopper(&self, shopper: ShopperId) -> Result<(), TooOften> {
        self.shoppers.count(&shopper)
    }
}

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limits").finish_non_exhaustive()
    }
}

// === impl Bounded ===

impl<K: Hash + Eq + Clone> Bounded<K> {
    fn new(quota: Quota, keys_max: usize) -> Self {
        Self {
            by_key: RateLimiter::keyed(quota),
            strangers: RateLimiter::direct(quota),
            keys_max,
            until_sweep: AtomicUsize::new(0),
            clock: DefaultClock::default(),
        }
    }

    fn count(&self, key: &K) -> Result<(), TooOften> {
        if self.by_key.len() >= self.keys_max && !self.make_room() {
            return check(&self.strangers, &self.clock);
        }
        match self.by_key.check_key(key) {
            Ok(()) => Ok(()),
            Err(until) => Err(too_often(&until, &self.clock)),
        }
    }

    /// Forgets keys that have recovered, but walks the whole table only once in a sixteenth of its
    /// size of calls, so that a flood does not pay for a walk each.
    fn make_room(&self) -> bool {
        let every = self.keys_max.div_ceil(16);
        let due = self
            .until_sweep
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                Some(left.checked_sub(1).unwrap_or(every))
            });
        if due == Ok(0) {
            self.by_key.retain_recent();
        }
        self.by_key.len() < self.keys_max
    }
}

fn check(limit: &Direct, clock: &DefaultClock) -> Result<(), TooOften> {
    limit.check().map_err(|until| too_often(&until, clock))
}

fn too_often(until: &NotUntil<Instant>, clock: &DefaultClock) -> TooOften {
    TooOften {
        retry_after: until.wait_time_from(clock.now()),
    }
}

fn at_least_one(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use standin_core::money::Currency;

    use super::*;

    fn limits() -> Limits {
        let config = LimitConfig {
            address_failures_per_minute: 3,
            addresses: 4,
            shopper_per_minute: 2,
            shoppers: 4,
        };
        Limits::new(&[BankConfig::for_tests("first", Currency::USD)], &config)
    }

    fn shopper(number: u64) -> ShopperId {
        ShopperId::try_from(number).unwrap()
    }

    #[test]
    fn a_bank_has_its_burst_and_is_told_when_to_come_again() {
        let limits = limits();
        let bank = "first".parse().unwrap();
        let refused = (0..50)
            .filter_map(|_| limits.bank(&bank).err())
            .last()
            .unwrap();
        assert!(refused.retry_after > Duration::ZERO);
        assert!(refused.retry_after <= Duration::from_millis(100));
        assert_eq!(limits.bank(&"second".parse().unwrap()), Ok(()));
    }

    #[test]
    fn one_shoppers_requests_do_not_count_against_another() {
        let limits = limits();
        assert_eq!(limits.shopper(shopper(1)), Ok(()));
        assert_eq!(limits.shopper(shopper(1)), Ok(()));
        let refused = limits.shopper(shopper(1)).unwrap_err();
        assert!(refused.retry_after <= Duration::from_secs(30), "{refused}");
        assert_eq!(limits.shopper(shopper(2)), Ok(()));
    }

    #[test]
    fn a_flood_of_addresses_does_not_grow_the_table() {
        let limits = limits();
        let mut passed = 0;
        for number in 0..10_000_u32 {
            let address = IpAddr::from(number.to_be_bytes());
            passed += u32::from(limits.failed_signature(address).is_ok());
            assert!(limits.failures.by_key.len() <= 4);
        }
        // Four in the table, and what all others share.
        assert_eq!(passed, 4 + 3);
    }

    #[test]
    fn keys_that_have_recovered_make_room() {
        let quota = Quota::with_period(Duration::from_nanos(1)).unwrap();
        let bounded = Bounded::new(quota, 4);
        for number in 0..1_000 {
            assert_eq!(bounded.count(&shopper(number + 1)), Ok(()), "{number}");
        }
        assert!(bounded.by_key.len() <= 4);
    }
}
