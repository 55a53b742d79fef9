//! The queue of trip events in memory: for embedded mode, the demo and the simulator.
//!
//! It does not survive the process. In embedded mode whoever acknowledges a pick to a shopper books
//! it in the embedded ledger (and thus in the write-ahead log) first; this queue only hands it on.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::{Delivery, EventQueue, QueueError, shard_of};
use crate::BoxFuture;
use crate::trip::TripEvent;
use crate::trip_cache::CacheError;

/// Events held before an append is refused.
pub const EVENTS_MAX: usize = 1_000_000;
/// How many shards there are unless said otherwise.
pub const SHARDS: u32 = 8;
/// How long a read waits for an event.
pub const BLOCK: Duration = Duration::from_millis(200);

/// The queue of trip events in memory.
#[derive(Debug)]
pub struct MemoryQueue {
    shards: Vec<Shard>,
    count: u32,
    state: Mutex<State>,
    max: usize,
    block: Duration,
}

#[derive(Debug, Default)]
struct Shard {
    arrived: Notify,
}

#[derive(Debug)]
struct State {
    logs: Vec<Log>,
    /// Events in all logs.
    held: usize,
}

/// Events of one shard; those before `acknowledged` are gone.
#[derive(Debug, Default)]
struct Log {
    /// Number of the last event that was acknowledged; events are numbered from 1.
    acknowledged: u64,
    events: VecDeque<TripEvent>,
}

// === impl MemoryQueue ===

impl MemoryQueue {
    /// An empty queue of [`SHARDS`] shards and [`EVENTS_MAX`] events.
    pub fn new() -> Self {
        Self::with_bounds(SHARDS, EVENTS_MAX, BLOCK)
    }

    /// An empty queue. At least one shard is made.
    pub fn with_bounds(shards: u32, events_max: usize, block: Duration) -> Self {
        let count = shards.max(1);
        Self {
            shards: (0..count).map(|_| Shard::default()).collect(),
            count,
            state: Mutex::new(State {
                logs: (0..count).map(|_| Log::default()).collect(),
                held: 0,
            }),
            max: events_max,
            block,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append_now(&self, events: Vec<TripEvent>) -> Result<(), QueueError> {
        let mut touched = vec![false; self.shards.len()];
        {
            let mut state = self.lock();
            let after = state.held.saturating_add(events.len());
            if after > self.max {
                return Err(QueueError::Full);
            }
            state.held = after;
            for event in events {
                let shard = index(shard_of(event.trip, self.count));
                if let Some(log) = state.logs.get_mut(shard) {
                    log.events.push_back(event);
                }
                if let Some(mark) = touched.get_mut(shard) {
                    *mark = true;
                }
            }
        }
        for (shard, touched) in self.shards.iter().zip(touched) {
            if touched {
                shard.arrived.notify_waiters();
            }
        }
        Ok(())
    }

    fn read_now(
        &self,
        shard: u32,
        after: Option<u64>,
        max: u32,
    ) -> Result<Vec<Delivery>, QueueError> {
        let state = self.lock();
        let log = state
            .logs
            .get(index(shard))
            .ok_or_else(|| no_shard(shard))?;
        let from = after.unwrap_or(0).max(log.acknowledged);
        let skip = usize::try_from(from.saturating_sub(log.acknowledged)).unwrap_or(usize::MAX);
        let waiting = log.events.iter().skip(skip).take(index(max));
        let numbered = waiting.zip(from.saturating_add(1)..);
        Ok(numbered
            .map(|(event, number)| Delivery {
                receipt: number.to_string(),
                event: event.clone(),
            })
            .collect())
    }

    async fn read_waiting(
        &self,
        shard: u32,
        after: Option<String>,
        max: u32,
    ) -> Result<Vec<Delivery>, QueueError> {
        let after = after.as_deref().map(number).transpose()?;
        let waiting = self
            .shards
            .get(index(shard))
            .ok_or_else(|| no_shard(shard))?;
        let wait = async {
            loop {
                // Listening before looking, so that no arrival is missed.
                let mut arrived = pin!(waiting.arrived.notified());
                arrived.as_mut().enable();
                let found = self.read_now(shard, after, max)?;
                if !found.is_empty() || max == 0 {
                    return Ok(found);
                }
                arrived.await;
            }
        };
        let waited = tokio::time::timeout(self.block, wait).await;
        waited.unwrap_or(Ok(Vec::new()))
    }

    fn ack_now(&self, shard: u32, upto: u64) -> Result<(), QueueError> {
        let mut state = self.lock();
        let log = state
            .logs
            .get_mut(index(shard))
            .ok_or_else(|| no_shard(shard))?;
        let wanted = usize::try_from(upto.saturating_sub(log.acknowledged)).unwrap_or(usize::MAX);
        let gone = log.events.drain(..wanted.min(log.events.len())).count();
        log.acknowledged = log
            .acknowledged
            .saturating_add(u64::try_from(gone).unwrap_or(u64::MAX));
        state.held = state.held.saturating_sub(gone);
        Ok(())
    }
}

impl Default for MemoryQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl EventQueue for MemoryQueue {
    fn append(&self, events: Vec<TripEvent>) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(async { self.append_now(events) })
    }

    fn shards(&self) -> u32 {
        self.count
    }

    fn read(
        &self,
        shard: u32,
        after: Option<String>,
        max: u32,
    ) -> BoxFuture<'_, Result<Vec<Delivery>, QueueError>> {
        Box::pin(self.read_waiting(shard, after, max))
    }

    fn ack(&self, shard: u32, upto: String) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(async move { self.ack_now(shard, number(&upto)?) })
    }

    fn depth(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        Box::pin(async { Ok(u64::try_from(self.lock().held).unwrap_or(u64::MAX)) })
    }
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn number(receipt: &str) -> Result<u64, QueueError> {
    receipt
        .parse()
        .map_err(|_| CacheError::Refused(format!("{receipt:?} is no receipt")).into())
}

fn no_shard(shard: u32) -> QueueError {
    CacheError::Refused(format!("there is no shard {shard}")).into()
}
