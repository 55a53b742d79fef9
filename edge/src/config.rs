//! What an edge is told at its start: built-in defaults, under a TOML file, under the environment.
//!
//! Every key can also be given as `STANDIN_EDGE__SECTION__KEY` (`STANDIN_EDGE__BANKS__0__SLUG`;
//! lists separated by commas). A key nobody knows, a wrong type or a value out of range is refused
//! with the key and what would be right; nothing is guessed or ignored. Every effective value
//! remembers where it came from ([`Settings`]). Absent on purpose: reloading.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use standin_core::entry::StandInMode;
use standin_core::id::BankId;
use standin_core::identity::DeploymentKey;
use standin_core::money::Currency;

use standin_wal::NodeId;

use crate::adapter::{Format, ShopperBy};
use crate::admission::AdmissionConfig;
use crate::iso8583::{CardAcceptorLayout, Encoding};
use crate::links::TlsFiles;
use crate::secrets::SecretsConfig;
use crate::server::ServerLimits;
use crate::server::tls::ServerTlsFiles;
pub use layers::{ConfigError, ENV_PREFIX, Origin, Setting, Settings};

mod layers;
mod read;

/// A file that `config check` accepts, with every section explained.
pub const EXAMPLE: &str = include_str!("../standin-edge.example.toml");

/// Everything one edge is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where banks connect.
    pub listen: SocketAddr,
    /// What banks see there; `None`: plain.
    pub tls: Option<ServerTlsFiles>,
    /// Where operators do; loopback, or with certificates.
    pub admin_listen: SocketAddr,
    /// What operators see there; `None`: plain, on loopback only.
    pub admin_tls: Option<ServerTlsFiles>,
    /// The region this edge is in.
    pub region: String,
    /// This edge's number in the region's log group, from 1.
    pub edge_id: u64,
    /// Makes authorization codes.
    pub deployment_key: DeploymentKey,
    /// The rules; `None`: the built-in example policy.
    pub policy: Option<PathBuf>,
    /// Stores to know from the start (TOML or JSON, as the trips API takes them).
    pub stores: Option<PathBuf>,
    /// Who decides about standing in, until an operator says otherwise.
    pub stand_in: StandInMode,
    /// The write-ahead log.
    pub wal: WalConfig,
    /// The region's keepers; `None`: this edge is the only one.
    pub keepers: Option<KeepersConfig>,
    /// What of the log's state is kept in memory.
    pub register: RegisterLimits,
    /// The ledger of record.
    pub ledger: LedgerConfig,
    /// The trip cache.
    pub trip_cache: TripCacheConfig,
    /// Where banks that speak ISO 8583 connect; `None`: nowhere.
    pub iso8583_listen: Option<SocketAddr>,
    /// Who may ask.
    pub banks: Vec<BankConfig>,
    /// When the primary is not tried.
    pub breaker: BreakerConfig,
    /// Bounds of the public listener.
    pub server: ServerLimits,
    /// How long a stopping edge asks its clients to leave before it lets nobody in.
    pub leave: Duration,
    /// How much is taken on at once.
    pub admission: AdmissionConfig,
    /// Bounds on senders.
    pub limits: LimitConfig,
    /// Copying outcomes into the ledger.
    pub drain: DrainConfig,
    /// Drills on this edge.
    pub drills: DrillsConfig,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
}

/// The write-ahead log on this edge's disk.
#[derive(Clone, Debug)]
pub struct WalConfig {
    /// Its own directory.
    pub dir: PathBuf,
    /// Size of a segment file.
    pub segment_bytes: u64,
    /// What all segment files may take; at the bound, requests are refused.
    pub budget_bytes: u64,
    /// Proposals waiting for the disk; past it, requests are refused.
    pub queue_proposals: usize,
    /// How long a bank may ask again for a payment it got no answer to; an approval that came too
    /// late for it is given back after that.
    pub retry_window: Duration,
}

/// Who keeps the region's log together, and how they reach each other.
#[derive(Clone, Debug)]
pub struct KeepersConfig {
    /// Where this edge's link listens.
    pub listen: SocketAddr,
    /// Where the others dial it; the listening address if it is not said.
    pub address: Option<String>,
    /// The keepers that found the log, and where their links listen. An edge that is not among them
    /// learns.
    pub founders: BTreeMap<NodeId, String>,
    /// Certificates; `None`: plain links, on loopback only.
    pub tls: Option<TlsFiles>,
}

/// Bounds of the register.
#[derive(Clone, Copy, Debug)]
pub struct RegisterLimits {
    /// Answers remembered; past it the ids of completed trips leave first.
    pub answers: usize,
}

/// The ledger of record.
#[derive(Clone, Debug)]
pub struct LedgerConfig {
    /// Connection string of Postgres; `None`: the embedded ledger.
    pub postgres: Option<SecretString>,
    /// Authorities (PEM) of its servers' certificates; with it, TLS is demanded.
    pub ca: Option<PathBuf>,
    /// Connections for authorizations.
    pub connections: usize,
    /// Connections for drain and platform.
    pub background_connections: usize,
    /// For making a connection.
    pub connect_timeout: Duration,
    /// Postgres ends our transaction when it hears nothing for so long.
    pub idle_in_transaction: Duration,
    /// Holds in one transaction.
    pub hold_batch: usize,
    /// Shortest time from the beginning of one transaction of holds to that of the next.
    pub hold_pace: Duration,
}

/// The trip cache.
#[derive(Clone, Debug)]
pub struct TripCacheConfig {
    /// Redis URLs in the order they are read from, the local replica first; empty: embedded.
    pub redis: Vec<SecretString>,
    /// The Redis that is written to; `None`: the first of `redis`.
    pub redis_home: Option<SecretString>,
    /// Authorities (PEM) of the certificates of those at `rediss://`.
    pub ca: Option<PathBuf>,
    /// How often an embedded cache's heart beats. (A real one's beats where it is written.)
    pub beat: Duration,
}

/// One bank.
#[derive(Clone, Debug)]
pub struct BankConfig {
    /// Its name in paths.
    pub slug: BankId,
    /// What its amounts are in when it does not say.
    pub currency: Currency,
    /// The format of its messages.
    pub format: Format,
    /// By which name its shoppers are found in the table of cards.
    pub shopper_by: ShopperBy,
    /// How its ISO 8583 messages are written.
    pub encoding: Encoding,
    /// Where in field 43 of its ISO 8583 messages the parts stand.
    pub card_acceptor: CardAcceptorLayout,
    /// It takes less than it asks for, where a message says so too.
    pub partial_approvals: bool,
    /// Whether this edge stands in for the primary towards it.
    pub stand_in: bool,
    /// How it signs, and with what.
    pub secrets: SecretsConfig,
    /// It must show a certificate that names it.
    pub mutual_tls: bool,
    /// When it stops waiting.
    pub deadline: Duration,
    /// How the deadline is spent.
    pub budgets: Budgets,
    /// Requests a second, sustained.
    pub requests_per_second: u32,
    /// Requests at once on top of a pause.
    pub burst: u32,
}

/// Parts of a request's deadline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budgets {
    /// For the trip cache.
    pub trip_cache: Duration,
    /// For the primary.
    pub postgres: Duration,
    /// For the log's commit.
    pub wal: Duration,
}

/// When the primary is not tried any more, and how it is tried again.
#[derive(Clone, Copy, Debug)]
pub struct BreakerConfig {
    /// Failures are counted over this time.
    pub window: Duration,
    /// Opens at so many failures at least …
    pub failures: u32,
    /// … that are so many percent of the tries at least.
    pub failure_percent: u32,
    /// Stays open so long; doubled at each re-opening.
    pub dwell: Duration,
    /// Up to so long.
    pub dwell_max: Duration,
    /// Length of each step of the ramp (1, 10, 50, 100 %).
    pub ramp_step: Duration,
    /// For the canary commit that half-opens it.
    pub canary: Duration,
}

/// Bounds on senders; each answers 429 with `Retry-After`.
#[derive(Clone, Copy, Debug)]
pub struct LimitConfig {
    /// Failed signatures of one address a minute.
    pub address_failures_per_minute: u32,
    /// Addresses remembered for that.
    pub addresses: usize,
    /// Authorizations of one shopper a minute (replays are free).
    pub shopper_per_minute: u32,
    /// Shoppers remembered for that.
    pub shoppers: usize,
}

/// Copying outcomes into the ledger.
#[derive(Clone, Copy, Debug)]
pub struct DrainConfig {
    /// Outcomes in one transaction.
    pub batch: usize,
}

/// Drills on this edge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DrillsConfig {
    /// Operators may have it play a fault on itself.
    pub consent: bool,
}

/// Logs and traces.
#[derive(Clone, Debug)]
pub struct TelemetryConfig {
    /// Base URL of an OTLP/HTTP collector; `None`: no traces are made.
    pub otlp_endpoint: Option<String>,
    /// How many of a hundred authorizations are traced.
    pub trace_percent: u32,
    /// A tracing filter: `info`, `standin_edge=debug,warn`, ….
    pub log_level: String,
    /// How log lines look.
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For eyes.
    Text,
}

// === impl Config ===

impl Config {
    /// Reads built-in defaults, then `file` (TOML text), then the `STANDIN_EDGE__…` variables of
    /// `environment`.
    pub fn load(
        file: Option<&str>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(Self, Settings), ConfigErrors> {
        let settings = Settings::gather(file, environment)?;
        let config = read::config(&settings).map_err(|error| ConfigErrors(vec![error]))?;
        Ok((config, settings))
    }

    /// The bank with this slug.
    pub fn bank(&self, slug: &str) -> Option<&BankConfig> {
        self.banks.iter().find(|bank| bank.slug.as_str() == slug)
    }
}

/// Everything that is wrong with a configuration, as far as it was read.
#[derive(Debug)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl BankConfig {
    /// A bank with one known secret.
    #[cfg(test)]
    pub(crate) fn for_tests(slug: &str, currency: Currency) -> Self {
        use standin_core::signature::{Key, Scheme, Secret};
        Self {
            slug: slug.parse().expect("tests use a valid slug"),
            currency,
            format: Format::Native,
            shopper_by: ShopperBy::Card,
            encoding: Encoding::Ascii,
            card_acceptor: CardAcceptorLayout::Visa,
            partial_approvals: false,
            stand_in: true,
            secrets: SecretsConfig {
                bank: slug.parse().expect("tests use a valid slug"),
                scheme: Scheme::StandardWebhooks,
                given: vec![Key::lasting(
                    Secret::from_bytes(vec![7; 32]).expect("32 bytes are enough"),
                )],
                file: None,
            },
            mutual_tls: false,
            deadline: Duration::from_secs(1),
            budgets: Budgets {
                trip_cache: Duration::from_millis(20),
                postgres: Duration::from_millis(100),
                wal: Duration::from_millis(700),
            },
            requests_per_second: 10,
            burst: 5,
        }
    }
}

#[cfg(test)]
mod tests;
