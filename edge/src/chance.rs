//! Uniform chance for the breaker's ramp: which requests go first matters to nobody, so a counter
//! through a multiplicative hash serves, and tests can start it anywhere.

use std::sync::atomic::{AtomicU32, Ordering};

/// A source of numbers spread evenly over 0..100.
#[derive(Debug, Default)]
pub struct Chance(AtomicU32);

impl Chance {
    /// Starts at `seed`.
    pub const fn new(seed: u32) -> Self {
        Self(AtomicU32::new(seed))
    }

    /// The next number of 0..100.
    pub fn percent(&self) -> u32 {
        // 61 is coprime to 100: every hundred calls see each number once, neighbours far apart.
        self.0
            .fetch_add(61, Ordering::Relaxed)
            .checked_rem(100)
            .unwrap_or(0)
    }
}
