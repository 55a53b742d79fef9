//! The clocks that an edge's logs are stamped by: the edge's own clock, and the machine's steady one.

use std::sync::Arc;

use standin_core::clock::Clock;
use standin_wal::{SystemTimeSource, TimeSource};

/// The wall clock is the edge's, so that all of an edge has one; what passes is measured by the machine,
/// whatever becomes of that.
pub(crate) struct Times {
    clock: Arc<dyn Clock>,
    machine: SystemTimeSource,
}

// === impl Times ===

impl Times {
    /// Starts measuring now.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            machine: SystemTimeSource::new(),
        }
    }
}

impl TimeSource for Times {
    fn monotonic_ms(&self) -> u64 {
        self.machine.monotonic_ms()
    }

    fn wall_ms(&self) -> u64 {
        u64::try_from(self.clock.now().as_millis()).unwrap_or(0)
    }

    fn monotonic_us(&self) -> u64 {
        self.machine.monotonic_us()
    }
}
