//! Ledger and trip cache: real servers where configured, embedded otherwise.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use standin_core::authorities::AuthoritiesError;
use standin_core::clock::Clock;
use standin_core::entry::{Entry, PlatformEvent};
use standin_core::id::{ShopperId, TripId};
use standin_core::ledger::Ledger;
use standin_core::ledger::memory::{Journal, MemoryLedger};
use standin_core::ledger::postgres::{MigrateError, PostgresConfigError, PostgresLedger};
use standin_core::trip::{Applied, TripStatus};
use standin_core::trip_cache::TripCache;
use standin_core::trip_cache::memory::MemoryTripCache;
use standin_core::trip_cache::redis::RedisTripCache;
use standin_wal::ReadError;
use tokio_util::sync::CancellationToken;

use super::wiring;
use crate::config::Config;
use crate::journal::LogJournal;
use crate::log::Log;

/// How long a start waits for the trip cache.
const CACHE_CONNECT_MAX: Duration = Duration::from_secs(1);
/// How long the first connections to Postgres are waited for; an edge starts without them too.
const WARM_WITHIN: Duration = Duration::from_secs(2);
/// Bytes of the log read at once while the embedded ledger is rebuilt.
const REBUILD_BYTES: usize = 1 << 20;
/// Rest after the log could not be read on.
const FOLLOW_AGAIN: Duration = Duration::from_millis(100);

/// Ledger or trip cache could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum BackendsError {
    /// Postgres' settings are wrong.
    #[error("ledger: {0}")]
    Postgres(#[from] PostgresConfigError),
    /// Whom servers' certificates must be of is not known.
    #[error(transparent)]
    Authorities(#[from] AuthoritiesError),
    /// Redis' settings are wrong.
    #[error("trip cache: {0}")]
    Redis(#[from] standin_core::trip_cache::CacheError),
    /// The log could not be read back.
    #[error("rebuilding the embedded ledger: {0}")]
    Read(#[from] ReadError),
    /// The log holds a platform event that does not fit what came before it.
    #[error("rebuilding the embedded ledger: batch {0} holds a change that does not fit")]
    Misfit(u64),
}

/// The ledger's tables were not brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateLedgerError {
    /// There is nothing to migrate.
    #[error("the ledger is embedded: set ledger.postgres or ledger.postgres_file")]
    Embedded,
    /// Postgres' settings are wrong.
    #[error("ledger: {0}")]
    Settings(#[from] PostgresConfigError),
    /// Whom the server's certificate must be of is not known.
    #[error(transparent)]
    Authorities(#[from] AuthoritiesError),
    /// A migration failed, or the server was not reached.
    #[error("the migration failed: {0}")]
    Migration(#[from] MigrateError),
}

/// Makes or updates the tables of the configured Postgres. What is there already stays; running it
/// again changes nothing.
///
/// # Errors
/// When the ledger is embedded, the server is not reached, or a migration fails.
pub async fn migrate_ledger(config: &Config) -> Result<(), MigrateLedgerError> {
    let postgres = wiring::postgres(config)?.ok_or(MigrateLedgerError::Embedded)?;
    let ledger = PostgresLedger::connect(&postgres)?;
    ledger.migrate().await?;
    ledger.close();
    Ok(())
}

/// What the edge decides and books with.
pub(super) struct Backends {
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) cache: Arc<dyn TripCache>,
    /// Beats for the embedded cache, which has no writer elsewhere.
    pub(super) heart: Option<Heart>,
    embedded: Option<Arc<MemoryLedger>>,
    /// The cache again, where it has to be connected to first.
    redis: Option<Arc<RedisTripCache>>,
}

/// Keeps the embedded ledger and its cache as the log says: what the platform changes at another
/// edge reaches this one by the log alone.
pub(super) struct Follower {
    log: Arc<Log>,
    memory: Arc<MemoryLedger>,
    /// What is fed as well.
    cache: Option<Arc<dyn TripCache>>,
    next: u64,
}

/// What came of reading on.
enum Read {
    /// There was nothing.
    Nothing,
    /// All of it fits what came before.
    Fits,
    /// The event in this batch does not.
    Misfit(u64),
}

/// Beats the heart of an embedded cache.
pub(super) struct Heart {
    cache: Arc<dyn TripCache>,
    clock: Arc<dyn Clock>,
    every: Duration,
}

/// Connects, or makes what is embedded. No server needs to be up.
pub(super) async fn open(
    config: &Config,
    clock: Arc<dyn Clock>,
    journal: &LogJournal,
) -> Result<Backends, BackendsError> {
    let (ledger, embedded): (Arc<dyn Ledger>, _) = match wiring::postgres(config)? {
        None => {
            let journal: Arc<dyn Journal> = Arc::new(journal.clone());
            let memory = Arc::new(MemoryLedger::new(Arc::clone(&clock), Some(journal)));
            let ledger: Arc<dyn Ledger> = Arc::<MemoryLedger>::clone(&memory);
            (ledger, Some(memory))
        }
        Some(postgres) => {
            let ledger = PostgresLedger::connect(&postgres)?;
            let warm = tokio::time::timeout(WARM_WITHIN, ledger.warm()).await;
            tracing::info!(connections = warm.unwrap_or(0), "ledger connected");
            (Arc::new(ledger), None)
        }
    };
    let mut redis = None;
    let (cache, heart): (Arc<dyn TripCache>, _) = match wiring::redis(config)? {
        None => {
            let cache: Arc<dyn TripCache> = Arc::new(MemoryTripCache::new());
            let heart = Heart {
                cache: Arc::clone(&cache),
                clock,
                every: config.trip_cache.beat,
            };
            (cache, Some(heart))
        }
        Some(servers) => {
            let cache = Arc::new(RedisTripCache::connect(servers)?);
            redis = Some(Arc::clone(&cache));
            (cache, None)
        }
    };
    Ok(Backends {
        ledger,
        cache,
        heart,
        embedded,
        redis,
    })
}

// === impl Backends ===

impl Backends {
    /// Whether the ledger is this process's own, rebuilt from the log.
    pub(super) fn is_embedded(&self) -> bool {
        self.embedded.is_some()
    }

    /// Waits until the trip cache is connected to, for [`CACHE_CONNECT_MAX`] at most: the first
    /// requests would otherwise be decided without their trips. An edge starts without it too.
    pub(super) async fn await_cache(&self) {
        if let Some(redis) = &self.redis
            && !redis.connected(CACHE_CONNECT_MAX).await
        {
            tracing::warn!("the trip cache is not connected to yet");
        }
    }

    /// Replays the platform's events from the log into the embedded ledger; authorizations follow
    /// by the drain, whose cursor starts at nothing. Gives who follows what comes after, when other
    /// edges write to the log too.
    pub(super) async fn rebuild(
        &self,
        log: &Arc<Log>,
        others_write: bool,
    ) -> Result<Option<Follower>, BackendsError> {
        let Some(memory) = &self.embedded else {
            return Ok(None);
        };
        let mut follower = Follower {
            log: Arc::clone(log),
            memory: Arc::clone(memory),
            cache: Some(Arc::clone(&self.cache)),
            next: 1,
        };
        let last = log.status().applied_index;
        while follower.next <= last {
            match follower.read().await? {
                Read::Fits => {}
                Read::Misfit(index) => return Err(BackendsError::Misfit(index)),
                Read::Nothing => break,
            }
        }
        // A cache that edges share is fed by the platform, not by each of them.
        if self.redis.is_some() {
            follower.cache = None;
        }
        Ok(others_write.then_some(follower))
    }
}

// === impl Follower ===

impl Follower {
    /// Follows until `stop` is cancelled or the log ends.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let read = async {
                self.log.wait_for(self.next).await.ok()?;
                Some(self.read().await)
            };
            let read = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                read = read => read,
            };
            match read {
                // The log has ended, and the edge ends with it.
                None => return,
                Some(Ok(Read::Fits)) => continue,
                Some(Ok(Read::Misfit(index))) => {
                    tracing::error!(index, "a platform event does not fit what came before it");
                    continue;
                }
                Some(Ok(Read::Nothing)) => {}
                Some(Err(error)) => {
                    tracing::warn!(%error, "the platform's events are not followed");
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(FOLLOW_AGAIN) => {}
            }
        }
    }

    /// Applies some batches. What this edge's own platform wrote it has applied before, and applying
    /// it again changes nothing.
    async fn read(&mut self) -> Result<Read, ReadError> {
        let batches = self.log.read_batches(self.next, REBUILD_BYTES).await?;
        let mut read = Read::Nothing;
        let mut touched = BTreeSet::new();
        for batch in &batches {
            if matches!(read, Read::Nothing) {
                read = Read::Fits;
            }
            for proposal in &batch.proposals {
                let Ok(Entry::Platform(event)) = Entry::decode(proposal) else {
                    continue;
                };
                // A trip's event is in the log before anybody has looked whether it fits (its
                // sender was told it is durable): what does not is refused again, as it was.
                let replayed = self.memory.replay(&event);
                let may_misfit = matches!(event, PlatformEvent::TripChanged(_));
                if replayed == Applied::Refused && !may_misfit {
                    read = Read::Misfit(batch.index);
                }
                match event {
                    PlatformEvent::TripStarted { trip, shopper, .. }
                    | PlatformEvent::TripCompleted { trip, shopper } => {
                        touched.insert((shopper, trip));
                    }
                    PlatformEvent::TripChanged(change) => {
                        touched.insert((change.shopper, change.trip));
                    }
                    PlatformEvent::StorePut(_)
                    | PlatformEvent::CardSet { .. }
                    | PlatformEvent::OrderPlaced(_)
                    | PlatformEvent::OrderClaimed { .. }
                    | PlatformEvent::MerchantIdPut(_)
                    | PlatformEvent::MerchantIdRemoved(_) => {}
                }
            }
            self.next = batch.index.saturating_add(1);
        }
        for (shopper, trip) in touched {
            self.warm(shopper, trip).await;
        }
        Ok(read)
    }

    /// The trip is in the cache as the ledger has it, so that an outage right after finds it.
    async fn warm(&self, shopper: ShopperId, trip: TripId) {
        let Some(cache) = &self.cache else { return };
        let Ok(Some(open)) = self.memory.trip(shopper, trip).await else {
            return;
        };
        let over = open.sheet.trip.status == TripStatus::Complete;
        if let Err(error) = cache.put(open.sheet).await {
            tracing::warn!(%error, "a trip was not put back into the cache");
        }
        if over {
            drop(cache.close(shopper, trip).await);
        }
    }
}

// === impl Heart ===

impl Heart {
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut beat = tokio::time::interval(self.every);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = beat.tick() => {}
            }
            if let Err(error) = self.cache.beat(self.clock.now()).await {
                tracing::warn!(%error, "the embedded cache's heart did not beat");
            }
        }
    }
}
