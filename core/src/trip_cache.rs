//! The trip cache, as a port: what the edge reads in 20 ms, and what the platform writes through.
//!
//! Two adapters, [`redis`] and [`memory`], pass one conformance suite. The cache is never evidence
//! that something was *not* spent: the register and the primary are. Its age is measured by a
//! heartbeat key that the writer beats, never by "connected". What a look shows less of than was seen
//! before ([`hindsight`]) is of no known age.
//!
//! One server takes the writes, the *home*; another one is made the home by an operator, who raises an
//! epoch first. A home of a lower epoch than one knows of is of the past: it takes no write of ours,
//! and what copies of it show is of no known age.

pub mod hindsight;
pub mod memory;
pub mod redis;

use crate::BoxFuture;
use crate::clock::Timestamp;
use crate::id::{ShopperId, TripId};
use crate::trip::{Approval, Position, Trip, TripSheet};
use hindsight::Lapses;

/// A writer's heart may beat so far ahead of a reader's clock, milliseconds: clocks differ a little.
const BEAT_AHEAD_MAX_MS: u64 = 2_000;

/// The replicated trip cache.
pub trait TripCache: Send + Sync + 'static {
    /// The shopper's current trip (the one its pointer names, whatever its status), its approvals
    /// and position, and the last heartbeat this copy has seen. One round trip.
    fn look(&self, shopper: ShopperId) -> BoxFuture<'_, Result<Look, CacheError>>;

    /// The trip with its items, for applying events to it.
    fn sheet(&self, trip: TripId) -> BoxFuture<'_, Result<Option<TripSheet>, CacheError>>;

    /// Writes a trip, its items and the shopper's pointer, unless the cache holds the same or a
    /// newer version of it. The pointer never goes back to an older trip (by start time).
    fn put(&self, sheet: TripSheet) -> BoxFuture<'_, Result<Put, CacheError>>;

    /// Records an approval (or its reduction after a reversal) of a trip; repeats change nothing.
    fn approve(&self, trip: TripId, approval: Approval) -> BoxFuture<'_, Result<(), CacheError>>;

    /// Records where a shopper is; an older report never replaces a newer one.
    fn moved(
        &self,
        shopper: ShopperId,
        position: Position,
    ) -> BoxFuture<'_, Result<(), CacheError>>;

    /// Marks a trip as over: it may be evicted from now on, and soon is.
    fn close(&self, shopper: ShopperId, trip: TripId) -> BoxFuture<'_, Result<(), CacheError>>;

    /// Beats the heart: proves to every replica that it still hears its primary.
    fn beat(&self, now: Timestamp) -> BoxFuture<'_, Result<(), CacheError>>;

    /// The highest epoch of a home that is known here; 0 before the first promotion.
    fn home_epoch(&self) -> u64;

    /// Says that there is a home of this epoch: one of a lower is of the past from now on.
    fn require_home_epoch(&self, epoch: u64);

    /// Looks again at some trips that were seen lately, in every copy, and says what they show less of. All
    /// is well where there is one copy that forgets nothing by itself.
    fn check(&self) -> BoxFuture<'_, Lapses> {
        Box::pin(async { Lapses::default() })
    }

    /// What went wrong so far, by kind; each count only grows. Empty where nothing can.
    fn troubles(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// What a look saw.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Look {
    /// The trip, with what counts against it.
    pub trip: Option<CachedTrip>,
    /// When the writer last beat, as this copy knows; `None` when it never did.
    pub beat: Option<Timestamp>,
    /// Whether a look before showed more (a later trip or version of it, or a trip where there is none
    /// now), or the copy is one of a home of the past. How far behind it is nobody knows.
    pub behind: bool,
}

/// A cached trip.
#[derive(Clone, PartialEq, Debug)]
pub struct CachedTrip {
    /// The trip.
    pub trip: Trip,
    /// Its approvals.
    pub approvals: Vec<Approval>,
    /// The shopper's last position.
    pub position: Option<Position>,
}

/// What a write-through did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Put {
    /// The cache holds this version now.
    Written,
    /// It held this version or a newer one.
    Older,
}

/// A call to the cache that gave no answer. A value that does not parse is a miss, not an error.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CacheError {
    /// No connection.
    #[error("trip cache unreachable: {0}")]
    Unreachable(String),
    /// The budget ran out.
    #[error("trip cache too slow")]
    Timeout,
    /// It answered with an error.
    #[error("trip cache refused: {0}")]
    Refused(String),
    /// It is a home of the past, and was asked for nothing.
    #[error(
        "trip cache of the past: its home has epoch {epoch}, and there is one of epoch {known}"
    )]
    PastHome {
        /// Its epoch.
        epoch: u64,
        /// The highest known.
        known: u64,
    },
}

// === impl Look ===

impl Look {
    /// How old what it shows is by a clock that shows `now`, milliseconds. `None` where the copy's age
    /// is not known, and of a look that is behind one before it, however young its heartbeat.
    pub fn age_ms(&self, now: Timestamp) -> Option<u64> {
        self.beat_age_ms(now).filter(|_| !self.behind)
    }

    /// How old this copy is. `None` when its writer never beat, or beats well ahead of that clock: one
    /// of the two clocks is wrong, and the age anything.
    pub fn beat_age_ms(&self, now: Timestamp) -> Option<u64> {
        let beat = self.beat?;
        let ahead_ms = beat.millis_since(now);
        (ahead_ms <= BEAT_AHEAD_MAX_MS).then(|| now.millis_since(beat))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_whose_writer_beats_ahead_of_the_clock_is_of_no_known_age() {
        let now = Timestamp::from_millis(10_000_000);
        let age = |beat: Option<i64>| {
            let look = Look {
                beat: beat.map(Timestamp::from_millis),
                ..Look::default()
            };
            look.age_ms(now)
        };
        assert_eq!(age(None), None);
        assert_eq!(age(Some(9_999_600)), Some(400));
        assert_eq!(age(Some(10_002_000)), Some(0), "clocks differ a little");
        assert_eq!(age(Some(10_002_001)), None);
        assert_eq!(age(Some(6_400_000)), Some(3_600_000));
    }

    #[test]
    fn a_look_that_is_behind_another_is_of_no_known_age() {
        let now = Timestamp::from_millis(10_000_000);
        let look = |behind| Look {
            beat: Some(now),
            behind,
            ..Look::default()
        };
        assert_eq!(look(false).age_ms(now), Some(0));
        assert_eq!(look(true).age_ms(now), None);
        assert_eq!(look(true).beat_age_ms(now), Some(0), "its copy's is");
    }
}
