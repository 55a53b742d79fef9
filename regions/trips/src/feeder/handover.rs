//! What a shard's feed has done and its booker has still to do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use standin_core::id::{ShopperId, TripId};
use standin_core::ledger::BookedEvent;
use tokio::sync::Notify;

/// Batches kept in memory; past it the booker reads from the queue.
const BATCHES_MAX: usize = 32;
/// Trips of a shard whose cache copy waits for the ledger's.
const LAGGARDS_MAX: usize = 65_536;

/// Batches of events between feed and booker. Contiguous: what is not in it is before it (booked)
/// or, when `spilled`, behind it and only in the queue.
#[derive(Debug, Default)]
pub(super) struct Handover {
    inner: Mutex<Inner>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    batches: VecDeque<Arcs>,
    spilled: bool,
    fed_to: Option<String>,
    laggards: BTreeMap<TripId, Laggard>,
    /// Trips of the batch that the feed is at: the cache may have their events, the ledger has not.
    in_feed: BTreeSet<TripId>,
}

type Arcs = std::sync::Arc<Fed>;

/// One batch that was fed.
#[derive(Debug, Default)]
pub(super) struct Fed {
    /// What the ledger has to know, in order.
    pub(super) events: Vec<BookedEvent>,
    /// How many of them changed the trip in the cache.
    pub(super) changed: u64,
    /// How many events the queue held for it.
    pub(super) count: usize,
    /// The last one's place.
    pub(super) upto: String,
}

/// A trip that the cache shows wrongly or not at all until its events are booked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Laggard {
    pub(super) shopper: ShopperId,
    /// The cache does not hold it: the feed leaves it alone.
    pub(super) absent: bool,
    /// The feed began with an event of it since its repair began.
    touched: bool,
}

/// What the booker does next.
#[derive(Debug)]
pub(super) enum Next {
    /// Book this, then [`Handover::booked`].
    Batch(Arcs),
    /// Read on from the queue; the feed has been as far as `fed_to`.
    Spilled { fed_to: String },
    /// Everything that was fed is booked.
    Nothing,
}

// === impl Handover ===

impl Handover {
    /// The feed begins to show the cache events of these trips. Until it hands them over, nobody may
    /// take the ledger's state of such a trip for the newest.
    pub(super) fn begin(&self, trips: impl IntoIterator<Item = TripId>) {
        let mut inner = self.lock();
        inner.in_feed = trips.into_iter().collect();
        let Inner {
            laggards, in_feed, ..
        } = &mut *inner;
        for trip in in_feed.iter() {
            if let Some(laggard) = laggards.get_mut(trip) {
                laggard.touched = true;
            }
        }
    }

    /// Takes over what the feed has done since it began: batches, or, at the bound, only that they
    /// exist.
    pub(super) fn push(&self, all: Vec<Fed>) {
        let mut inner = self.lock();
        inner.in_feed.clear();
        for fed in all {
            inner.fed_to = Some(fed.upto.clone());
            if inner.spilled || inner.batches.len() >= BATCHES_MAX {
                inner.spilled = true;
            } else {
                inner.batches.push_back(Arcs::new(fed));
            }
        }
        drop(inner);
        self.bell.notify_one();
    }

    pub(super) fn next(&self) -> Next {
        let inner = self.lock();
        match (inner.batches.front(), &inner.fed_to) {
            (Some(batch), _) => Next::Batch(Arcs::clone(batch)),
            (None, Some(fed_to)) if inner.spilled => Next::Spilled {
                fed_to: fed_to.clone(),
            },
            (None, _) => Next::Nothing,
        }
    }

    /// Forgets the batch that [`Handover::next`] gave.
    pub(super) fn booked(&self) {
        self.lock().batches.pop_front();
    }

    /// Everything up to this place, read from the queue, is booked.
    pub(super) fn booked_spilled(&self, upto: &str) {
        let mut inner = self.lock();
        if inner.fed_to.as_deref() == Some(upto) {
            inner.spilled = false;
        }
    }

    /// Waits until a batch came since the last wait.
    pub(super) async fn news(&self) {
        self.bell.notified().await;
    }

    // --- trips whose cache copy waits for the ledger's ---

    /// Remembers one; `false` at the bound, which the caller has to answer for.
    pub(super) fn lag(&self, trip: TripId, shopper: ShopperId, absent: Absent) -> bool {
        let mut inner = self.lock();
        if inner.laggards.len() >= LAGGARDS_MAX && !inner.laggards.contains_key(&trip) {
            return false;
        }
        let laggard = Laggard {
            shopper,
            absent: absent == Absent::Yes,
            touched: true,
        };
        inner.laggards.insert(trip, laggard);
        true
    }

    /// Whether the feed has to leave the trip alone.
    pub(super) fn passes_by(&self, trip: TripId) -> bool {
        let inner = self.lock();
        inner
            .laggards
            .get(&trip)
            .is_some_and(|laggard| laggard.absent)
    }

    /// Trips to repair now: everything that was fed of them is booked; at most `max`.
    pub(super) fn laggards(&self, max: usize) -> Vec<(TripId, Laggard)> {
        let mut inner = self.lock();
        if inner.spilled || !inner.batches.is_empty() {
            return Vec::new();
        }
        let Inner {
            laggards, in_feed, ..
        } = &mut *inner;
        let ripe = laggards
            .iter_mut()
            .filter(|(trip, _)| !in_feed.contains(trip));
        let mut some = Vec::new();
        for (trip, laggard) in ripe.take(max) {
            laggard.touched = false;
            some.push((*trip, *laggard));
        }
        some
    }

    /// Forgets a trip that was repaired, unless the feed came to an event of it meanwhile: the repair
    /// may have undone that in the cache.
    pub(super) fn repaired(&self, trip: TripId) {
        let mut inner = self.lock();
        if inner
            .laggards
            .get(&trip)
            .is_some_and(|found| !found.touched)
        {
            inner.laggards.remove(&trip);
        }
    }

    pub(super) fn lagging(&self) -> bool {
        !self.lock().laggards.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the cache holds a trip at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Absent {
    Yes,
    No,
}
