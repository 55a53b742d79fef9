//! What can be played, and whose calls it hits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Longest delay of a call.
pub const DELAY_MS_MAX: u64 = 60_000;
/// What is played.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// Every call to the primary fails at once, and nothing is sent.
    PrimaryUnreachable,
    /// No call to the primary ends.
    PrimaryHanging,
    /// Calls to the primary are so late.
    PrimarySlow {
        /// Milliseconds, from one to [`DELAY_MS_MAX`].
        delay_ms: u64,
        /// So many of a hundred.
        #[serde(default = "all")]
        percent: u32,
    },
    /// The primary refuses calls, and does nothing.
    PrimaryFailing {
        /// So many of a hundred.
        #[serde(default = "all")]
        percent: u32,
    },
    /// Every call to the trip cache fails at once.
    TripCacheUnreachable,
    /// Calls to the trip cache are so late.
    TripCacheSlow {
        /// Milliseconds, from one to [`DELAY_MS_MAX`].
        delay_ms: u64,
    },
}

/// Whose call a fault hit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Caller {
    /// A payment.
    Payments,
    /// A look whether the primary, or the trip cache, is there.
    Probes,
    /// The drain.
    Drain,
    /// Anybody else.
    Others,
}

/// Calls that a fault hit, by whose they were: the proof that it happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Hits {
    /// Payments' own.
    pub payments: u64,
    /// Looks whether the primary, or the trip cache, is there.
    pub probes: u64,
    /// The drain's.
    pub drain: u64,
    /// All others.
    pub others: u64,
}

/// Which port a call goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Port {
    Primary,
    TripCache,
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// It fails at once: nobody is there.
    NobodyThere,
    /// It fails at once: it is refused.
    Refused,
    /// It waits so long.
    Late(Duration),
    /// It waits until the fault is over.
    Hangs,
}

const fn all() -> u32 {
    100
}

// === impl Fault ===

impl Fault {
    /// The words of all, in the order of `Fault::at`.
    pub const WORDS: [&str; 6] = [
        "primary_unreachable",
        "primary_hanging",
        "primary_slow",
        "primary_failing",
        "trip_cache_unreachable",
        "trip_cache_slow",
    ];

    pub(super) const fn at(self) -> usize {
        match self {
            Self::PrimaryUnreachable => 0,
            Self::PrimaryHanging => 1,
            Self::PrimarySlow { .. } => 2,
            Self::PrimaryFailing { .. } => 3,
            Self::TripCacheUnreachable => 4,
            Self::TripCacheSlow { .. } => 5,
        }
    }

    /// Its word in orders, metrics and pages.
    pub fn as_str(self) -> &'static str {
        Self::WORDS.get(self.at()).copied().unwrap_or_default()
    }

    /// Which of its numbers is out of range, and what is right.
    ///
    /// # Errors
    /// When one is.
    pub fn check(self) -> Result<(), (&'static str, &'static str)> {
        let (delay_ms, percent) = match self {
            Self::PrimarySlow { delay_ms, percent } => (delay_ms, percent),
            Self::TripCacheSlow { delay_ms } => (delay_ms, 100),
            Self::PrimaryFailing { percent } => (1, percent),
            Self::PrimaryUnreachable | Self::PrimaryHanging | Self::TripCacheUnreachable => {
                return Ok(());
            }
        };
        if !(1..=DELAY_MS_MAX).contains(&delay_ms) {
            return Err(("delay_ms", "must be from 1 to 60000"));
        }
        if !(1..=100).contains(&percent) {
            return Err(("percent", "must be from 1 to 100"));
        }
        Ok(())
    }

    /// Whether it hits every call to its port.
    pub const fn hits_all(self) -> bool {
        self.percent() >= 100
    }

    pub(super) const fn port(self) -> Port {
        match self {
            Self::PrimaryUnreachable
            | Self::PrimaryHanging
            | Self::PrimarySlow { .. }
            | Self::PrimaryFailing { .. } => Port::Primary,
            Self::TripCacheUnreachable | Self::TripCacheSlow { .. } => Port::TripCache,
        }
    }

    pub(super) const fn fate(self) -> Fate {
        match self {
            Self::PrimaryUnreachable | Self::TripCacheUnreachable => Fate::NobodyThere,
            Self::PrimaryHanging => Fate::Hangs,
            Self::PrimarySlow { delay_ms, .. } | Self::TripCacheSlow { delay_ms } => {
                Fate::Late(Duration::from_millis(delay_ms))
            }
            Self::PrimaryFailing { .. } => Fate::Refused,
        }
    }

    pub(super) const fn percent(self) -> u32 {
        match self {
            Self::PrimarySlow { percent, .. } | Self::PrimaryFailing { percent } => percent,
            Self::PrimaryUnreachable
            | Self::PrimaryHanging
            | Self::TripCacheUnreachable
            | Self::TripCacheSlow { .. } => 100,
        }
    }
}

// === impl Caller ===

impl Caller {
    pub(super) const ALL: [Self; 4] = [Self::Payments, Self::Probes, Self::Drain, Self::Others];

    pub(super) const fn at(self) -> usize {
        match self {
            Self::Payments => 0,
            Self::Probes => 1,
            Self::Drain => 2,
            Self::Others => 3,
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Payments => "payments",
            Self::Probes => "probes",
            Self::Drain => "drain",
            Self::Others => "others",
        }
    }
}
