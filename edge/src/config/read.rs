//! From settings to a [`Config`]: every value is parsed, bounded and compared with its neighbours.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use standin_core::entry::StandInMode;
use standin_core::id::BankId;
use standin_core::identity::DeploymentKey;
use standin_core::signature::{Keys, Scheme};
use standin_wal::NodeId;
use toml::Value;

use super::{
    BankConfig, BreakerConfig, Budgets, Config, ConfigError, DrainConfig, DrillsConfig,
    KeepersConfig, LedgerConfig, LimitConfig, LogFormat, RegisterLimits, Settings, TelemetryConfig,
    TripCacheConfig, WalConfig,
};
use crate::adapter::{Format, ShopperBy};
use crate::admission::AdmissionConfig;
use crate::iso8583::{CardAcceptorLayout, Encoding};
use crate::links::TlsFiles;
use crate::secrets::SecretsConfig;
use crate::server::ServerLimits;
use crate::server::tls::{Clients, ServerTlsFiles};

const FOUNDERS: &str = "must list edges as number=host:port";
const COUNT: RangeInclusive<i64> = 1..=100_000_000;
const MILLIS: RangeInclusive<i64> = 1..=3_600_000;
/// A segment holds at least one batch of the size that the log makes (1 MiB) and its frame.
const SEGMENT_BYTES: RangeInclusive<i64> = 2_097_152..=1_073_741_824;
const SECRET_FILE_BYTES_MAX: usize = 64 * 1024;

type Read<T> = Result<T, ConfigError>;

pub(super) fn config(from: &Settings) -> Read<Config> {
    let deployment_key = deployment_key(from)?;
    let banks = banks(from)?;
    let (listen, tls) = listen(from, &banks)?;
    let (admin_listen, admin_tls) = admin_listen(from)?;
    let iso8583_listen = iso8583_listen(from, &banks, tls.is_some())?;
    Ok(Config {
        iso8583_listen,
        listen,
        tls,
        admin_listen,
        admin_tls,
        region: slug(from, "region")?,
        edge_id: from.whole("edge_id", 1..=65_535)?,
        deployment_key,
        policy: from.text("policy").map(Into::into),
        stores: from.text("stores").map(Into::into),
        stand_in: match from.text("stand_in") {
            Some("auto") => StandInMode::Auto,
            Some("force") => StandInMode::Force,
            Some("forbid") => StandInMode::Forbid,
            _ => return wrong("stand_in", "must be auto, force or forbid"),
        },
        wal: wal(from)?,
        keepers: keepers(from)?,
        register: RegisterLimits {
            answers: from.whole("register.answers", 1_000..=100_000_000)?,
        },
        ledger: ledger(from)?,
        trip_cache: trip_cache(from)?,
        banks,
        breaker: breaker(from)?,
        server: server(from)?,
        leave: from.millis_within("limits.leave_ms", 0..=600_000)?,
        admission: admission(from)?,
        limits: LimitConfig {
            address_failures_per_minute: from.whole("limits.address_failures_per_minute", COUNT)?,
            addresses: from.whole("limits.addresses", COUNT)?,
            shopper_per_minute: from.whole("limits.shopper_per_minute", COUNT)?,
            shoppers: from.whole("limits.shoppers", COUNT)?,
        },
        drain: DrainConfig {
            batch: from.whole("drain.batch", 1..=1_000)?,
        },
        drills: DrillsConfig {
            consent: match from.text("drills.consent") {
                Some("yes") => true,
                Some("no") => false,
                _ => return wrong("drills.consent", "must be yes or no"),
            },
        },
        telemetry: telemetry(from)?,
    })
}

fn listen(from: &Settings, banks: &[BankConfig]) -> Read<(SocketAddr, Option<ServerTlsFiles>)> {
    let listen: SocketAddr = from.parsed("listen", "an address and port, as 127.0.0.1:8480")?;
    let demanding = banks.iter().filter(|bank| bank.mutual_tls).count();
    let clients = if demanding == banks.len() {
        Clients::Certified
    } else {
        Clients::Any
    };
    let tls = server_tls(from, "tls", "banks", clients)?;
    match &tls {
        Some(tls) if tls.clients_ca.is_none() && demanding > 0 => {
            return wrong(
                "tls.banks_ca",
                "is needed where a bank must show a certificate",
            );
        }
        None if demanding > 0 => {
            return wrong(
                "tls.certificate",
                "is needed where a bank must show a certificate",
            );
        }
        None if !listen.ip().is_loopback() => match from.text("listen_plain") {
            Some("anywhere") => {}
            _ => {
                return wrong(
                    "listen",
                    "must be a loopback address without [tls], unless listen_plain is \"anywhere\"",
                );
            }
        },
        _ => {}
    }
    if !matches!(from.text("listen_plain"), Some("loopback" | "anywhere")) {
        return wrong("listen_plain", "must be loopback or anywhere");
    }
    Ok((listen, tls))
}

/// Messages of ISO 8583 are not signed: a bank is known by its certificate, or, on loopback, by being
/// the only one.
fn iso8583_listen(
    from: &Settings,
    banks: &[BankConfig],
    has_tls: bool,
) -> Read<Option<SocketAddr>> {
    let key = "iso8583.listen";
    let speaking = || banks.iter().filter(|bank| bank.format == Format::Iso8583);
    if from.text(key).is_none() {
        return match speaking().next() {
            None => Ok(None),
            Some(_) => wrong(key, "is needed where a bank's adapter is iso8583"),
        };
    }
    let listen: SocketAddr = from.parsed(key, "an address and port, as 127.0.0.1:8583")?;
    let certified = speaking().all(|bank| bank.mutual_tls);
    if has_tls && !certified {
        return wrong(
            "client_certificate",
            "must be required for a bank whose adapter is iso8583: its messages are not signed",
        );
    }
    if !has_tls && (!listen.ip().is_loopback() || speaking().count() > 1) {
        return wrong(
            key,
            "must be a loopback address with one bank without [tls]: nothing else tells who asks",
        );
    }
    Ok(Some(listen))
}

fn admin_listen(from: &Settings) -> Read<(SocketAddr, Option<ServerTlsFiles>)> {
    let listen: SocketAddr = from.parsed("admin_listen", "an address and port")?;
    let tls = server_tls(from, "admin_tls", "operators", Clients::Certified)?;
    match &tls {
        Some(tls) if tls.clients_ca.is_none() => wrong(
            "admin_tls.operators_ca",
            "is needed: operators are known by their certificates",
        ),
        None if !listen.ip().is_loopback() => wrong(
            "admin_listen",
            "must be a loopback address (127.0.0.1 or [::1]) without [admin_tls]: there is nothing else \
             that tells operators from strangers",
        ),
        _ => Ok((listen, tls)),
    }
}

/// A listener's TLS: `whose` authority its clients' certificates are of.
fn server_tls(
    from: &Settings,
    section: &str,
    whose: &str,
    clients: Clients,
) -> Read<Option<ServerTlsFiles>> {
    let key = |name: &str| format!("{section}.{name}");
    let file = |name: &str| from.text(&key(name)).map(PathBuf::from);
    let tls12 = match from.text(&key("versions")) {
        Some("1.3") => false,
        Some("1.2") => true,
        _ => return wrong(&key("versions"), "must be 1.3, or 1.2 to take that too"),
    };
    let clients_ca = file(&format!("{whose}_ca"));
    let clients_crl = file(&format!("{whose}_crl"));
    if clients_crl.is_some() && clients_ca.is_none() {
        return wrong(
            &key(&format!("{whose}_crl")),
            "has no meaning without their authority",
        );
    }
    match (file("certificate"), file("key")) {
        (None, None) if clients_ca.is_none() => Ok(None),
        (Some(certificate), Some(private)) => Ok(Some(ServerTlsFiles {
            certificate,
            key: private,
            clients_ca,
            clients_crl,
            clients,
            tls12,
        })),
        _ => wrong(
            &key("certificate"),
            "certificate and key are given together",
        ),
    }
}

fn deployment_key(from: &Settings) -> Read<DeploymentKey> {
    let right = "must be 16 bytes or more in base64 (or name a file of it in deployment_key_file)";
    let Some(text) = from.secret("deployment_key", "deployment_key_file")? else {
        return wrong("deployment_key", right);
    };
    let bytes = STANDARD.decode(text.trim()).ok();
    bytes
        .and_then(DeploymentKey::new)
        .map_or_else(|| wrong("deployment_key", right), Ok)
}

fn wal(from: &Settings) -> Read<WalConfig> {
    let wal = WalConfig {
        dir: from.required("wal.dir", "must name a directory")?.into(),
        segment_bytes: from.whole("wal.segment_bytes", SEGMENT_BYTES)?,
        budget_bytes: from.whole(
            "wal.budget_bytes",
            SEGMENT_BYTES.start().saturating_mul(2)..=i64::MAX,
        )?,
        queue_proposals: from.whole("wal.queue_proposals", COUNT)?,
        retry_window: from.millis("wal.retry_window_ms")?,
    };
    if !wal.segment_bytes.is_multiple_of(4_096) {
        return wrong("wal.segment_bytes", "must be a multiple of 4096");
    }
    if wal.budget_bytes < wal.segment_bytes.saturating_mul(4) {
        return wrong("wal.budget_bytes", "must hold four segments at least");
    }
    Ok(wal)
}

fn keepers(from: &Settings) -> Read<Option<KeepersConfig>> {
    let founders = from.texts("keepers.founders");
    let keys = ["listen", "address", "ca", "certificate", "key"];
    if founders.is_empty() {
        for key in keys {
            let key = format!("keepers.{key}");
            if from.text(&key).is_some() {
                return wrong(&key, "has no meaning without keepers.founders");
            }
        }
        return Ok(None);
    }
    let mut read = BTreeMap::new();
    for founder in founders {
        let (node, address) = founder.split_once('=').unwrap_or_default();
        let node = node.trim().parse::<u64>().ok();
        let Some(node) = node.filter(|node| (1..=65_535).contains(node)) else {
            return wrong("keepers.founders", FOUNDERS);
        };
        if address.trim().rsplit_once(':').is_none() {
            return wrong("keepers.founders", FOUNDERS);
        }
        let address = address.trim().to_owned();
        if read.insert(NodeId(node), address).is_some() {
            return wrong("keepers.founders", "names an edge twice");
        }
    }
    if !matches!(read.len(), 1 | 3 | 5) {
        return wrong("keepers.founders", "must be 1, 3 or 5 keepers");
    }
    let file = |key: &str| from.text(&format!("keepers.{key}")).map(PathBuf::from);
    let tls = match (file("ca"), file("certificate"), file("key")) {
        (None, None, None) => None,
        (Some(ca), Some(certificate), Some(key)) => Some(TlsFiles {
            ca,
            certificate,
            key,
        }),
        _ => return wrong("keepers.ca", "ca, certificate and key are given together"),
    };
    Ok(Some(KeepersConfig {
        listen: from.parsed("keepers.listen", "an address and port, as 127.0.0.1:8490")?,
        address: from.text("keepers.address").map(str::to_owned),
        founders: read,
        tls,
    }))
}

fn ledger(from: &Settings) -> Read<LedgerConfig> {
    let postgres = from.secret("ledger.postgres", "ledger.postgres_file")?;
    let ca = from.text("ledger.ca").map(PathBuf::from);
    if ca.is_none()
        && postgres
            .as_ref()
            .is_some_and(|url| url.contains("sslmode=require"))
    {
        return wrong("ledger.ca", "is needed for sslmode=require: whom to trust");
    }
    Ok(LedgerConfig {
        postgres: postgres.map(|url| SecretString::from(url.trim())),
        ca,
        connections: from.whole("ledger.connections", 1..=1_000)?,
        background_connections: from.whole("ledger.background_connections", 1..=1_000)?,
        connect_timeout: from.millis("ledger.connect_timeout_ms")?,
        idle_in_transaction: from.millis("ledger.idle_in_transaction_ms")?,
        hold_batch: from.whole("ledger.hold_batch", 1..=256)?,
        hold_pace: from.millis_within("ledger.hold_pace_ms", 0..=50)?,
    })
}

fn trip_cache(from: &Settings) -> Read<TripCacheConfig> {
    let redis = from.texts("trip_cache.redis");
    let home = from.text("trip_cache.redis_home");
    let ca = from.text("trip_cache.ca").map(PathBuf::from);
    for (key, urls) in [
        ("redis", redis.clone()),
        ("redis_home", home.map(str::to_owned).into_iter().collect()),
    ] {
        let is_plain = |url: &String| url.starts_with("redis://");
        let is_secure = |url: &String| url.starts_with("rediss://");
        if !urls.iter().all(|url| is_plain(url) || is_secure(url)) {
            return wrong(
                &format!("trip_cache.{key}"),
                "a Redis URL begins with redis://, or with rediss:// over TLS",
            );
        }
        if ca.is_none() && urls.iter().any(is_secure) {
            return wrong("trip_cache.ca", "is needed for rediss://: whom to trust");
        }
    }
    if home.is_some() && redis.is_empty() {
        return wrong(
            "trip_cache.redis",
            "must list where to read, when redis_home is given",
        );
    }
    Ok(TripCacheConfig {
        redis: redis.into_iter().map(SecretString::from).collect(),
        redis_home: home.map(SecretString::from),
        ca,
        beat: from.millis("trip_cache.beat_ms")?,
    })
}

fn banks(from: &Settings) -> Read<Vec<BankConfig>> {
    let mut banks: Vec<BankConfig> = Vec::new();
    for number in 0..from.banks() {
        let bank = bank(from, number)?;
        if banks.iter().any(|other| other.slug == bank.slug) {
            return wrong(
                &format!("banks.{number}.slug"),
                "another bank has this slug",
            );
        }
        banks.push(bank);
    }
    if banks.is_empty() {
        return wrong(
            "banks",
            "at least one [[banks]] is needed, with slug and secrets",
        );
    }
    Ok(banks)
}

fn bank(from: &Settings, number: usize) -> Read<BankConfig> {
    let key = |name: &str| format!("banks.{number}.{name}");
    let budgets = Budgets {
        trip_cache: from.millis(&key("trip_cache_ms"))?,
        postgres: from.millis(&key("postgres_ms"))?,
        wal: from.millis(&key("wal_ms"))?,
    };
    let deadline = from.millis(&key("deadline_ms"))?;
    let spent = budgets
        .trip_cache
        .saturating_add(budgets.postgres)
        .saturating_add(budgets.wal);
    if spent > deadline {
        return wrong(
            &key("deadline_ms"),
            "must be at least trip_cache_ms + postgres_ms + wal_ms",
        );
    }
    let slug: BankId = from.parsed(&key("slug"), "1 to 32 characters of a-z, 0-9 and '-'")?;
    let secrets = bank_secrets(from, number, slug.clone())?;
    let mutual_tls = match from.text(&key("client_certificate")) {
        Some("required") => true,
        Some("optional") => false,
        _ => return wrong(&key("client_certificate"), "must be required or optional"),
    };
    if secrets.scheme == Scheme::Basic && !mutual_tls {
        return wrong(
            &key("signature"),
            "basic signs nothing: it needs client_certificate = \"required\"",
        );
    }
    let (format, shopper_by) = bank_format(from, number)?;
    Ok(BankConfig {
        slug,
        format,
        shopper_by,
        encoding: match from.text(&key("encoding")) {
            Some("ascii") => Encoding::Ascii,
            Some("ascii-binary") => Encoding::AsciiBinary,
            _ => return wrong(&key("encoding"), "must be ascii or ascii-binary"),
        },
        card_acceptor: match from.text(&key("card_acceptor")) {
            Some("visa") => CardAcceptorLayout::Visa,
            Some("mastercard") => CardAcceptorLayout::Mastercard,
            _ => return wrong(&key("card_acceptor"), "must be visa or mastercard"),
        },
        partial_approvals: match from.text(&key("partial_approvals")) {
            Some("taken") => true,
            Some("refused") => false,
            _ => return wrong(&key("partial_approvals"), "must be taken or refused"),
        },
        stand_in: match from.text(&key("stand_in")) {
            Some("allowed") => true,
            Some("forbidden") => false,
            _ => return wrong(&key("stand_in"), "must be allowed or forbidden"),
        },
        currency: from.parsed(&key("currency"), "an ISO 4217 code")?,
        secrets,
        mutual_tls,
        deadline,
        budgets,
        requests_per_second: from.whole(&key("requests_per_second"), 1..=1_000_000)?,
        burst: from.whole(&key("burst"), 1..=1_000_000)?,
    })
}

fn bank_format(from: &Settings, number: usize) -> Read<(Format, ShopperBy)> {
    let key = |name: &str| format!("banks.{number}.{name}");
    let word = from
        .text(&key("adapter"))
        .and_then(|word| word.parse().ok());
    let Some(format) = word else {
        return wrong(
            &key("adapter"),
            "must be native, stripe, lithic, marqeta or iso8583",
        );
    };
    let shopper_by = from
        .text(&key("shopper_by"))
        .and_then(|word| word.parse().ok());
    match (format, shopper_by) {
        (Format::Lithic | Format::Iso8583, Some(ShopperBy::Cardholder)) => wrong(
            &key("shopper_by"),
            "must be card: messages of this adapter name no cardholder",
        ),
        (format, Some(shopper_by)) => Ok((format, shopper_by)),
        (_, None) => wrong(&key("shopper_by"), "must be card or cardholder"),
    }
}

fn bank_secrets(from: &Settings, number: usize, bank: BankId) -> Read<SecretsConfig> {
    let key = |name: &str| format!("banks.{number}.{name}");
    let expected = "standard-webhooks, stripe, http-message or basic";
    // A platform signs in its own way, unless a proxy of the bank's signs in another.
    let (format, _) = bank_format(from, number)?;
    let scheme: Scheme = match from.text(&key("signature")) {
        None => format.scheme(),
        Some(_) => from.parsed(&key("signature"), expected)?,
    };
    if format == Format::Lithic && !scheme.signs_id() {
        return wrong(
            &key("signature"),
            "must be standard-webhooks or http-message: of a Lithic payment the message's signed id is the key",
        );
    }
    let wrong_key = |key: String, error: &dyn std::fmt::Display| ConfigError::Value {
        key,
        expected: error.to_string(),
    };
    let texts = from.texts(&key("secrets")).join("\n");
    let given = if texts.is_empty() {
        Keys::default()
    } else {
        let read = Keys::parse(&texts, scheme);
        read.map_err(|error| wrong_key(key("secrets"), &error))?
    };
    let file = from.text(&key("secrets_file")).map(PathBuf::from);
    let secrets = SecretsConfig {
        bank,
        scheme,
        given: given.iter().cloned().collect(),
        file,
    };
    let none = secrets.given.is_empty() && secrets.file.is_none();
    if format == Format::Iso8583 {
        if none {
            return Ok(secrets);
        }
        return wrong(&key("secrets"), "none: messages of ISO 8583 are not signed");
    }
    if none {
        return wrong(
            &key("secrets"),
            "one secret, or two while one is being replaced (or name a file of them in secrets_file)",
        );
    }
    Ok(secrets)
}

fn breaker(from: &Settings) -> Read<BreakerConfig> {
    let breaker = BreakerConfig {
        window: from.millis("breaker.window_ms")?,
        failures: from.whole("breaker.failures", 1..=1_000_000)?,
        failure_percent: from.whole("breaker.failure_percent", 1..=100)?,
        dwell: from.millis("breaker.dwell_ms")?,
        dwell_max: from.millis("breaker.dwell_max_ms")?,
        ramp_step: from.millis("breaker.ramp_step_ms")?,
        canary: from.millis("breaker.canary_ms")?,
    };
    if breaker.dwell_max < breaker.dwell {
        return wrong("breaker.dwell_max_ms", "must not be less than dwell_ms");
    }
    Ok(breaker)
}

fn admission(from: &Settings) -> Read<AdmissionConfig> {
    Ok(AdmissionConfig {
        in_flight: from.whole("limits.in_flight", COUNT)?,
        retries_in_flight: from.whole("limits.retries_in_flight", COUNT)?,
        queued: from.whole("limits.queued", COUNT)?,
        bank_percent: from.whole("limits.bank_percent", 1..=100)?,
        wait_max: from.millis("limits.queue_wait_ms")?,
        target: from.millis("limits.queue_target_ms")?,
        interval: from.millis("limits.queue_interval_ms")?,
    })
}

fn server(from: &Settings) -> Read<ServerLimits> {
    Ok(ServerLimits {
        connections: from.whole("limits.connections", 1..=1_000_000)?,
        connections_kept: from.whole("limits.connections_kept", 0..=1_000_000)?,
        connections_per_address: from.whole("limits.connections_per_address", 1..=1_000_000)?,
        handshakes: from.whole("limits.handshakes", 1..=10_000)?,
        streams: from.whole("limits.streams", 1..=1_000)?,
        age_max: from.millis_within("limits.age_max_ms", 1_000..=86_400_000)?,
        headers: from.whole("limits.headers", 8..=1_000)?,
        header_bytes: from.whole("limits.header_bytes", 1_024..=65_536)?,
        header_timeout: from.millis("limits.header_timeout_ms")?,
        idle_timeout: from.millis("limits.idle_timeout_ms")?,
        body_bytes: from.whole("limits.body_bytes", 1_024..=1_048_576)?,
        body_timeout: from.millis("limits.body_timeout_ms")?,
        write_timeout: from.millis("limits.write_timeout_ms")?,
        grace: from.millis("limits.grace_ms")?,
    })
}

fn telemetry(from: &Settings) -> Read<TelemetryConfig> {
    let endpoint = from.text("telemetry.otlp_endpoint");
    if endpoint.is_some_and(|url| !url.starts_with("http://") || url.parse::<http::Uri>().is_err())
    {
        return wrong(
            "telemetry.otlp_endpoint",
            "must be an http:// URL of a collector close by, as http://127.0.0.1:4318",
        );
    }
    let log_level = from.required("telemetry.log_level", "must be a tracing filter")?;
    if log_level.parse::<tracing_subscriber::EnvFilter>().is_err() {
        return wrong(
            "telemetry.log_level",
            "must be a tracing filter, as info or warn,standin_edge=debug",
        );
    }
    Ok(TelemetryConfig {
        otlp_endpoint: endpoint.map(str::to_owned),
        trace_percent: from.whole("telemetry.trace_percent", 0..=100)?,
        log_level: log_level.to_owned(),
        log_format: match from.text("telemetry.log_format") {
            Some("json") => LogFormat::Json,
            Some("text") => LogFormat::Text,
            _ => return wrong("telemetry.log_format", "must be json or text"),
        },
    })
}

fn slug(from: &Settings, key: &str) -> Read<String> {
    // The same alphabet as a bank's slug.
    let slug: standin_core::id::BankId =
        from.parsed(key, "1 to 32 characters of a-z, 0-9 and '-'")?;
    Ok(slug.into())
}

fn wrong<T>(key: &str, expected: &str) -> Read<T> {
    Err(ConfigError::Value {
        key: key.to_owned(),
        expected: expected.to_owned(),
    })
}

// === reading settings ===

impl Settings {
    fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }

    fn required(&self, key: &str, expected: &str) -> Read<&str> {
        let text = self.text(key).filter(|text| !text.is_empty());
        text.map_or_else(|| wrong(key, expected), Ok)
    }

    fn texts(&self, key: &str) -> Vec<String> {
        let list = self.get(key).and_then(Value::as_array);
        let texts = list.into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    }

    fn parsed<T: FromStr>(&self, key: &str, right: &str) -> Read<T> {
        let parsed = self.text(key).and_then(|text| text.parse().ok());
        parsed.map_or_else(|| wrong(key, &format!("must be {right}")), Ok)
    }

    fn whole<T: TryFrom<i64>>(&self, key: &str, within: RangeInclusive<i64>) -> Read<T> {
        let number = self.get(key).and_then(Value::as_integer);
        let number = number.filter(|number| within.contains(number));
        number
            .and_then(|number| T::try_from(number).ok())
            .map_or_else(
                || {
                    wrong(
                        key,
                        &format!("must be from {} to {}", within.start(), within.end()),
                    )
                },
                Ok,
            )
    }

    fn millis(&self, key: &str) -> Read<Duration> {
        self.millis_within(key, MILLIS)
    }

    fn millis_within(&self, key: &str, within: RangeInclusive<i64>) -> Read<Duration> {
        self.whole(key, within).map(Duration::from_millis)
    }

    /// A secret given as it is, or in a file; not both.
    fn secret(&self, key: &str, file_key: &str) -> Read<Option<String>> {
        let given = self.text(key).map(str::to_owned);
        match (given, self.secret_file(file_key)?) {
            (Some(_), Some(_)) => wrong(key, &format!("given twice: here and by {file_key}")),
            (given, None) => Ok(given),
            (None, from_file) => Ok(from_file),
        }
    }

    fn secret_file(&self, key: &str) -> Read<Option<String>> {
        let Some(path) = self.text(key) else {
            return Ok(None);
        };
        let failed = |detail: String| ConfigError::File {
            key: key.to_owned(),
            path: path.to_owned(),
            detail,
        };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        if text.len() > SECRET_FILE_BYTES_MAX {
            return Err(failed("it is too large for a secret".to_owned()));
        }
        Ok(Some(text))
    }
}
