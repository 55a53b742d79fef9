//! Ledger and trip cache: real servers where configured, embedded otherwise.

use std::sync::Arc;
use std::time::Duration;

use standin_core::clock::Clock;
use standin_core::entry::{Entry, PlatformEvent};
use standin_core::ledger::Ledger;
use standin_core::ledger::memory::{Journal, MemoryLedger};
use standin_core::ledger::postgres::{MigrateError, PostgresConfigError, PostgresLedger};
use standin_core::trip::Applied;
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

/// Ledger or trip cache could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum BackendsError {
    /// Postgres' settings are wrong.
    #[error("ledger: {0}")]
    Postgres(#[from] PostgresConfigError),
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
    let postgres = wiring::postgres(config).ok_or(MigrateLedgerError::Embedded)?;
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
    let (ledger, embedded): (Arc<dyn Ledger>, _) = match wiring::postgres(config) {
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
    let (cache, heart): (Arc<dyn TripCache>, _) = match wiring::redis(config) {
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
    /// by the drain, whose cursor starts at nothing.
    pub(super) async fn rebuild(&self, log: &Log) -> Result<(), BackendsError> {
        let Some(memory) = &self.embedded else {
            return Ok(());
        };
        let last = log.status().last_index;
        let mut next = 1;
        while next <= last {
            let batches = log.read_batches(next, REBUILD_BYTES).await?;
            for batch in &batches {
                for proposal in &batch.proposals {
                    let Ok(Entry::Platform(event)) = Entry::decode(proposal) else {
                        continue;
                    };
                    // A trip's event is in the log before anybody has looked whether it fits (its
                    // sender was told it is durable): what does not is refused again, as it was.
                    let replayed = memory.replay(&event);
                    let may_misfit = matches!(event, PlatformEvent::TripChanged(_));
                    if replayed == Applied::Refused && !may_misfit {
                        return Err(BackendsError::Misfit(batch.index));
                    }
                    self.warm(&event).await;
                }
                next = batch.index.saturating_add(1);
            }
            if batches.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// A trip that started is in the cache again, so that an outage right after a start finds it.
    async fn warm(&self, event: &PlatformEvent) {
        let (shopper, trip) = match event {
            PlatformEvent::TripStarted { trip, shopper, .. } => (*shopper, *trip),
            PlatformEvent::TripChanged(change) => (change.shopper, change.trip),
            PlatformEvent::TripCompleted { trip, shopper } => {
                drop(self.cache.close(*shopper, *trip).await);
                return;
            }
            PlatformEvent::StorePut(_)
            | PlatformEvent::OrderPlaced(_)
            | PlatformEvent::OrderClaimed { .. } => return,
        };
        if let Ok(Some(open)) = self.ledger.trip(shopper, trip).await
            && let Err(error) = self.cache.put(open.sheet).await
        {
            tracing::warn!(%error, "a trip was not put back into the cache");
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
