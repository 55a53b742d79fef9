//! From the configuration's words to the parts' own settings. Nothing is decided here.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use sha2::{Digest as _, Sha256};
use standin_core::authorities::{Authorities, AuthoritiesError};
use standin_core::clock::Clock;
use standin_core::ledger::postgres::{PoolConfig, PostgresConfig};
use standin_core::ledger::{BOOK_ROWS_MAX, HOLD_ROWS_MAX};
use standin_core::merchant::Store;
use standin_core::register::RegisterConfig;
use standin_core::trip_cache::redis::RedisConfig;
use standin_wal::{GroupConfig, NodeId};
use uuid::Uuid;

use crate::alarm::Alarms;
use crate::breaker;
use crate::config::{BreakerConfig, Config};
use crate::drain;
use crate::holds::HoldsConfig;
use crate::links::{self, LinkLimits, Links, LinksConfig};
use crate::log::Founders;

const ADVICE_SEGMENT_BYTES: u64 = 4 * 1024 * 1024;
const ADVICE_BUDGET_BYTES: u64 = 256 * 1024 * 1024;

/// A file that the configuration names is wrong.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no list of stores.
    #[error("{path}: {source}")]
    Stores {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
}

pub(super) fn stores(path: Option<&Path>) -> Result<Vec<Store>, WiringError> {
    let Some(path) = path else {
        return Ok(Vec::new());
    };
    let text = read(path)?;
    serde_json::from_str(&text).map_err(|source| WiringError::Stores {
        path: path.to_owned(),
        source,
    })
}

fn read(path: &Path) -> Result<String, WiringError> {
    std::fs::read_to_string(path).map_err(|source| WiringError::Read {
        path: path.to_owned(),
        source,
    })
}

pub(super) fn wal(config: &Config) -> standin_wal::Config {
    standin_wal::Config {
        segment_bytes: config.wal.segment_bytes,
        budget_bytes: config.wal.budget_bytes,
        queue_proposals_max: config.wal.queue_proposals,
        ..standin_wal::Config::new(
            &config.wal.dir,
            NodeId(config.edge_id),
            config.region.clone(),
        )
    }
}

/// The node of the region's log. Its members find each other by the region's name.
pub(super) fn group(config: &Config) -> GroupConfig {
    let digest: [u8; 32] = Sha256::digest(config.region.as_bytes()).into();
    let name = digest.first_chunk::<16>().copied().unwrap_or_default();
    let group = GroupConfig {
        enrolls: true,
        ..GroupConfig::new(wal(config), Uuid::from_bytes(name))
    };
    // In embedded mode the log is the ledger's journal as well: what was written first has to be
    // first in it, and batches that are under way together may overtake each other.
    let batches_max = match config.ledger.postgres {
        None => 1,
        Some(_) => group.batches_max,
    };
    GroupConfig {
        batches_max,
        ..group
    }
}

/// The links to the other nodes of the log, when there are any.
pub(super) async fn links(
    config: &Config,
    clock: Arc<dyn Clock>,
    alarms: Arc<Alarms>,
) -> Result<Option<Arc<Links>>, links::StartError> {
    let Some(keepers) = &config.keepers else {
        return Ok(None);
    };
    let group = group(config);
    let links = LinksConfig {
        region: config.region.clone(),
        group: group.log.group,
        incarnation: group.incarnation,
        node: group.log.node,
        listen: Some(keepers.listen),
        tls: keepers.tls.clone(),
        limits: LinkLimits::default(),
    };
    Links::start(links, clock, alarms).await.map(Some)
}

/// Who founds the log.
pub(super) fn founders(config: &Config, links: Option<&Links>) -> Option<Founders> {
    let keepers = config.keepers.as_ref()?;
    let bound = links.and_then(Links::address).unwrap_or(keepers.listen);
    let address = keepers.address.clone();
    Some(Founders {
        keepers: keepers.founders.clone(),
        address: address.unwrap_or_else(|| bound.to_string()),
    })
}

/// This edge's own log, beside its part of the region's: small, and rarely written.
pub(super) fn advices(config: &Config) -> standin_wal::Config {
    standin_wal::Config {
        dir: config.wal.dir.join("advices"),
        segment_bytes: ADVICE_SEGMENT_BYTES,
        budget_bytes: ADVICE_BUDGET_BYTES,
        ..wal(config)
    }
}

pub(super) fn register(config: &Config) -> RegisterConfig {
    RegisterConfig {
        answers_max: config.register.answers,
    }
}

pub(super) fn breaker(config: &BreakerConfig) -> breaker::BreakerConfig {
    breaker::BreakerConfig {
        failures_min: config.failures,
        failure_percent: config.failure_percent,
        window_ms: millis(config.window),
        dwell_ms: millis(config.dwell),
        dwell_max_ms: millis(config.dwell_max),
        stage_ms: millis(config.ramp_step),
    }
}

/// A transaction of holds that is over the longest budget is nobody's any more: its connection is
/// given up soon after.
pub(super) fn holds(config: &Config) -> HoldsConfig {
    let budget = config.banks.iter().map(|bank| bank.budgets.postgres).max();
    HoldsConfig {
        workers: config.ledger.connections,
        rows_max: config.ledger.hold_batch.min(HOLD_ROWS_MAX),
        pace: config.ledger.hold_pace,
        waiting_max: config.admission.in_flight,
        transaction_max: budget
            .unwrap_or(Duration::from_millis(100))
            .saturating_mul(2),
    }
}

pub(super) fn drain(config: &Config) -> drain::DrainConfig {
    drain::DrainConfig {
        rows_max: config.drain.batch.min(BOOK_ROWS_MAX),
        embedded: config.ledger.postgres.is_none(),
        ..drain::DrainConfig::default()
    }
}

pub(super) fn postgres(config: &Config) -> Result<Option<PostgresConfig>, AuthoritiesError> {
    let Some(url) = &config.ledger.postgres else {
        return Ok(None);
    };
    let mut postgres = PostgresConfig::new(url.expose_secret());
    postgres.authorities = authorities(config.ledger.ca.as_deref())?;
    postgres.connect_timeout = config.ledger.connect_timeout;
    postgres.create_timeout = config.ledger.connect_timeout.saturating_mul(2);
    postgres.idle_in_transaction = config.ledger.idle_in_transaction;
    // One more than the workers: trips that the cache does not hold are loaded beside them.
    postgres.foreground = PoolConfig {
        connections: config.ledger.connections.saturating_add(2),
        ..postgres.foreground
    };
    postgres.background = PoolConfig {
        connections: config.ledger.background_connections,
        ..postgres.background
    };
    postgres.application_name = format!("standin-edge-{}-{}", config.region, config.edge_id);
    Ok(Some(postgres))
}

pub(super) fn redis(config: &Config) -> Result<Option<RedisConfig>, AuthoritiesError> {
    let Some(first) = config.trip_cache.redis.first() else {
        return Ok(None);
    };
    let primary = config.trip_cache.redis_home.as_ref().unwrap_or(first);
    let read_budget = config
        .banks
        .iter()
        .map(|bank| bank.budgets.trip_cache)
        .max();
    let replicas = config
        .trip_cache
        .redis
        .iter()
        .map(|url| url.expose_secret().to_owned());
    let mut redis = RedisConfig::new(primary.expose_secret().to_owned(), replicas.collect());
    redis.authorities = authorities(config.trip_cache.ca.as_deref())?;
    redis.read_budget = read_budget.unwrap_or(Duration::from_millis(20));
    Ok(Some(redis))
}

fn authorities(file: Option<&Path>) -> Result<Option<Authorities>, AuthoritiesError> {
    file.map(Authorities::read).transpose()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
