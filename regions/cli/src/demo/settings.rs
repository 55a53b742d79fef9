//! What the demo's edges are configured with: three keepers, and the platform's own edge, which only
//! learns what the log says.

use std::net::SocketAddr;
use std::path::Path;

use standin_edge::config::Config;
use toml::{Table, Value};

use super::group::{KEEPERS, Place};

/// The platform's edge.
const PLATFORM: u64 = KEEPERS + 1;
/// Segments of the logs: small, since a run writes little.
const SEGMENT_BYTES: i64 = 16 * 1024 * 1024;
/// Connections to a real Postgres for what can wait, of the platform's edge: after the outage,
/// customers order while what it left is booked.
const PLATFORM_CONNECTIONS: i64 = 24;
/// The same of a keeper.
const KEEPER_CONNECTIONS: i64 = 4;

/// What all edges have in common.
pub(super) struct Settings {
    pub(super) bank: &'static str,
    pub(super) bank_secret: String,
    pub(super) deployment_key: String,
    /// Requests a second.
    pub(super) rate: u64,
    pub(super) seconds: u64,
    pub(super) postgres_url: Option<String>,
    pub(super) cache_url: Option<String>,
}

// === impl Settings ===

impl Settings {
    /// A keeper's configuration, TOML.
    pub(super) fn keeper(&self, place: &Place, keepers: &[Place]) -> anyhow::Result<String> {
        let mut text = self.edge(
            place.node,
            &place.wal,
            place.link,
            keepers,
            KEEPER_CONNECTIONS,
        )?;
        text.insert("listen".to_owned(), place.address.to_string().into());
        text.insert("admin_listen".to_owned(), place.admin.to_string().into());
        Ok(toml::to_string(&text)?)
    }

    /// The configuration of the platform's edge, whose log lies in `wal`.
    pub(super) fn platform(
        &self,
        wal: &Path,
        link: SocketAddr,
        keepers: &[Place],
    ) -> anyhow::Result<Config> {
        let mut text = self.edge(PLATFORM, wal, link, keepers, PLATFORM_CONNECTIONS)?;
        text.insert("listen".to_owned(), "127.0.0.1:0".into());
        text.insert("admin_listen".to_owned(), "127.0.0.1:0".into());
        let (config, _settings) = Config::load(Some(&toml::to_string(&text)?), [])?;
        Ok(config)
    }

    fn edge(
        &self,
        node: u64,
        wal: &Path,
        link: SocketAddr,
        keepers: &[Place],
        connections: i64,
    ) -> anyhow::Result<Table> {
        let mut text = Table::new();
        let mut set = |section: &str, key: &str, value: Value| {
            let table = text
                .entry(section)
                .or_insert_with(|| Value::Table(Table::new()));
            if let Some(table) = table.as_table_mut() {
                table.insert(key.to_owned(), value);
            }
        };
        set("wal", "dir", wal.display().to_string().into());
        set("wal", "segment_bytes", SEGMENT_BYTES.into());
        set("keepers", "listen", link.to_string().into());
        let founders = keepers
            .iter()
            .map(|place| Value::from(format!("{}={}", place.node, place.link)));
        set("keepers", "founders", Value::Array(founders.collect()));
        if let Some(url) = &self.postgres_url {
            set("ledger", "postgres", url.clone().into());
            set("ledger", "background_connections", connections.into());
        }
        if let Some(url) = &self.cache_url {
            set("trip_cache", "redis", vec![url.clone()].into());
        }
        // Everybody is on one address here, and the load is the one asked for.
        set("limits", "address_failures_per_minute", 100_000.into());
        set("limits", "shopper_per_minute", 600.into());
        // A short run has a short way back too; half a minute has half-second steps.
        let step = i64::try_from(self.seconds)?
            .saturating_mul(1_000)
            .div_euclid(60);
        set("breaker", "ramp_step_ms", step.clamp(100, 1_000).into());
        let rate = i64::try_from(self.rate)?.saturating_mul(4);
        let mut bank = Table::new();
        let mut of_bank = |key: &str, value: Value| drop(bank.insert(key.to_owned(), value));
        of_bank("slug", self.bank.into());
        of_bank("currency", "USD".into());
        of_bank("secrets", vec![self.bank_secret.clone()].into());
        of_bank("requests_per_second", rate.into());
        of_bank("burst", rate.into());
        text.insert("banks".to_owned(), vec![Value::Table(bank)].into());
        text.insert("edge_id".to_owned(), i64::try_from(node)?.into());
        text.insert(
            "deployment_key".to_owned(),
            self.deployment_key.clone().into(),
        );
        Ok(text)
    }
}
