//! The primary that fails on schedule: the embedded ledger behind a switch, or a real Postgres.

use std::time::Duration;

use anyhow::Context;
use standin_core::ledger::postgres::{PostgresConfig, PostgresLedger};
use standin_drill::servers::{Postgres, Redis, RedisOptions};
use tokio::time::Instant;

use super::fault::{State, Switch};
use super::group::Group;
use super::plan::Timing;
use crate::killed::Killed;

/// Name of the database made in a real Postgres.
const DATABASE: &str = "standin";

/// What can fail.
pub(super) enum Primary {
    /// In this process.
    Embedded(Switch),
    /// A process of its own.
    Real(Box<Postgres>),
}

/// The servers beside the edge, started for this run; dropping them stops them.
pub(super) struct Servers {
    pub(super) primary: Primary,
    pub(super) postgres_url: Option<String>,
    pub(super) cache_url: Option<String>,
    pub(super) queue_url: Option<String>,
    redis: Option<Redises>,
}

/// One Redis for the trip cache and one for the queue: what the queue acknowledges waits for the
/// disk, and no look at a trip should wait with it.
struct Redises {
    cache: Redis,
    queue: Redis,
}

// === impl Redises ===

impl Redises {
    async fn start() -> anyhow::Result<Self> {
        let words = |extra: &[&str]| extra.iter().map(|word| (*word).to_owned()).collect();
        let cache = RedisOptions {
            extra: words(&["--maxmemory-policy", "volatile-lru"]),
            ..RedisOptions::default()
        };
        let queue = RedisOptions {
            appendonly: true,
            extra: words(&["--appendfsync", "always"]),
            ..RedisOptions::default()
        };
        Ok(Self {
            cache: Redis::start(cache).await.context("Redis did not start")?,
            queue: Redis::start(queue).await.context("Redis did not start")?,
        })
    }
}

// === impl Servers ===

impl Servers {
    /// Starts the real servers that are asked for, in temporary folders.
    pub(super) async fn start(postgres: Server, redis: Server) -> anyhow::Result<Self> {
        let (primary, postgres_url) = match postgres {
            Server::Embedded => (Primary::Embedded(Switch::new()), None),
            Server::Real => {
                let server = Postgres::start().await.context("Postgres did not start")?;
                let url = server.create_database(DATABASE).await?;
                let ledger = PostgresLedger::connect(&PostgresConfig::new(url.clone()))?;
                ledger
                    .migrate()
                    .await
                    .context("making the ledger's tables")?;
                ledger.close();
                (Primary::Real(Box::new(server)), Some(url))
            }
        };
        let redis = match redis {
            Server::Embedded => None,
            Server::Real => Some(Redises::start().await?),
        };
        Ok(Self {
            primary,
            postgres_url,
            cache_url: redis.as_ref().map(|redis| redis.cache.url()),
            queue_url: redis.as_ref().map(|redis| redis.queue.url()),
            redis,
        })
    }

    /// Stops the servers in order.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        if let Primary::Real(postgres) = &self.primary {
            postgres.stop().await?;
        }
        if let Some(redis) = &self.redis {
            redis.cache.stop().await?;
            redis.queue.stop().await?;
        }
        Ok(())
    }
}

/// Where a part of the world is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Server {
    /// In this process.
    Embedded,
    /// A process of its own.
    Real,
}

// === impl Primary ===

impl Primary {
    /// Hangs, is gone and comes back when the timing says; meanwhile the leader of the log is killed
    /// and comes back.
    pub(super) async fn fail(
        &self,
        group: &Group,
        timing: Timing,
        start: Instant,
    ) -> anyhow::Result<Killed> {
        let at = |ms: u64| {
            start
                .checked_add(Duration::from_millis(ms))
                .unwrap_or(start)
        };
        tokio::time::sleep_until(at(timing.hang_ms)).await;
        match self {
            Self::Embedded(switch) => set_all(switch, group, State::Hung),
            Self::Real(postgres) => postgres.pause().context("stopping Postgres")?,
        }
        tokio::time::sleep_until(at(timing.gone_ms)).await;
        match self {
            Self::Embedded(switch) => set_all(switch, group, State::Gone),
            Self::Real(postgres) => postgres.kill().await.context("killing Postgres")?,
        }
        tokio::time::sleep_until(at(timing.kill_ms)).await;
        let killed = group.kill_leader().await.context("killing the leader")?;
        tokio::time::sleep_until(at(timing.return_ms)).await;
        let returning = group.bring_back(killed.node);
        let recovering = async {
            tokio::time::sleep_until(at(timing.back_ms)).await;
            match self {
                Self::Embedded(switch) => set_all(switch, group, State::Up),
                Self::Real(postgres) => postgres
                    .restart()
                    .await
                    .context("starting Postgres again")?,
            }
            Ok(())
        };
        tokio::try_join!(
            async { returning.await.context("the killed leader's return") },
            recovering
        )?;
        Ok(killed)
    }
}

/// Every edge has a primary of its own embedded, and all of them fare alike.
fn set_all(switch: &Switch, group: &Group, state: State) {
    switch.set(state);
    group.set_primary(state);
}
