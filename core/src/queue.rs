//! The queue of trip events, as a port: picks arrive here first, reach the trip cache next and the
//! ledger last, so that shopping goes on while Postgres is away.
//!
//! Two adapters: Redis Streams (`trip_cache::redis`) and in memory. Events of one trip stay in order
//! (streams are sharded by trip); each is delivered at least once.

pub mod memory;

use crate::BoxFuture;
use crate::id::TripId;
use crate::trip::TripEvent;
use crate::trip_cache::CacheError;

/// The queue of trip events.
pub trait EventQueue: Send + Sync + 'static {
    /// Appends events; resolves once they would survive a crash of the queue's server. Refuses when
    /// the queue is at its bound: nothing acknowledged is ever dropped.
    fn append(&self, events: Vec<TripEvent>) -> BoxFuture<'_, Result<(), QueueError>>;

    /// How many shards there are; each has one consumer at a time.
    fn shards(&self) -> u32;

    /// Events of a shard in their order, at most `max`: those behind the receipt `after`, or from the
    /// oldest that is not acknowledged when there is none. Reading takes nothing away and may be
    /// repeated, so that one consumer can feed the trip cache far ahead of what the ledger has
    /// booked. Waits for an event up to the adapter's block time, then gives an empty list.
    fn read(
        &self,
        shard: u32,
        after: Option<String>,
        max: u32,
    ) -> BoxFuture<'_, Result<Vec<Delivery>, QueueError>>;

    /// Forgets a shard's events up to and including this receipt. An event that is stored together
    /// with later ones may stay, and come again, until those are acknowledged too.
    fn ack(&self, shard: u32, upto: String) -> BoxFuture<'_, Result<(), QueueError>>;

    /// Events not yet acknowledged.
    fn depth(&self) -> BoxFuture<'_, Result<u64, QueueError>>;
}

/// One delivered event.
#[derive(Clone, PartialEq, Debug)]
pub struct Delivery {
    /// Its place in the shard: what to acknowledge it by, and what to read on from.
    pub receipt: String,
    /// The event.
    pub event: TripEvent,
}

/// A call to the queue that failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueueError {
    /// At its bound; nothing was appended. Retry later.
    #[error("the event queue is full")]
    Full,
    /// The server is not set up to survive a crash; nothing may be acknowledged.
    #[error("the event queue is not durable: {0}")]
    NotDurable(String),
    /// May or may not have been appended; retry with the same event ids.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// The shard of a trip among `shards`: the same in every process and release, so that a trip's
/// events stay in one order.
pub fn shard_of(trip: TripId, shards: u32) -> u32 {
    // FNV-1a: the ids are random already, it only has to be fixed.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in trip.0.as_bytes() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash.checked_rem(u64::from(shards))
        .and_then(|shard| u32::try_from(shard).ok())
        .unwrap_or(0)
}
