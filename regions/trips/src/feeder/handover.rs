//! What a shard's feed has done and its booker has still to do.

use std::collections::{BTreeMap, VecDeque};
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
    /// An event of it passed by since its repair began.
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
    /// Takes a batch over, or, at the bound, only that it exists.
    pub(super) fn push(&self, fed: Fed) {
        let mut inner = self.lock();
        inner.fed_to = Some(fed.upto.clone());
        if inner.spilled || inner.batches.len() >= BATCHES_MAX {
            inner.spilled = true;
        } else {
            inner.batches.push_back(Arcs::new(fed));
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

    /// Whether the feed has to leave the trip alone; notes that an event of it passes by.
    pub(super) fn passes_by(&self, trip: TripId) -> bool {
        let mut inner = self.lock();
        let Some(laggard) = inner.laggards.get_mut(&trip) else {
            return false;
        };
        laggard.touched = true;
        laggard.absent
    }

    /// Trips to repair now, if everything fed is booked; at most `max`.
    pub(super) fn laggards(&self, max: usize) -> Vec<(TripId, Laggard)> {
        let mut inner = self.lock();
        if inner.spilled || !inner.batches.is_empty() {
            return Vec::new();
        }
        let mut some = Vec::new();
        for (trip, laggard) in inner.laggards.iter_mut().take(max) {
            laggard.touched = false;
            some.push((*trip, *laggard));
        }
        some
    }

    /// Forgets a trip that was repaired, unless an event of it passed by meanwhile.
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
