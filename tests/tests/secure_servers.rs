//! The ledger and the trip cache over TLS: only servers whose certificates name their hosts, and are of
//! the right authority, are spoken to.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use standin_core::authorities::Authorities;
use standin_core::clock::{Clock, SystemClock};
use standin_core::ledger::Ledger;
use standin_core::ledger::postgres::{PostgresConfig, PostgresLedger};
use standin_core::trip_cache::TripCache;
use standin_core::trip_cache::redis::{RedisConfig, RedisTripCache};
use standin_drill::servers::{Postgres, PostgresOptions, Redis, RedisOptions};
use standin_edge::issue::{Authority, Subject, Whose};
use standin_tests::harness::wait::until;

const SOON: Duration = Duration::from_secs(20);

/// A server's certificate for these hosts, and its authority's, in a folder the server may read.
struct Files {
    dir: tempfile::TempDir,
    authorities: Authorities,
    /// Of somebody else.
    strangers: Authorities,
}

impl Files {
    fn new(hosts: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemClock.now();
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let make = |name: &str| {
            let authority = Authority::new(Whose::Banks, 5, now).unwrap();
            let file = dir.path().join(format!("{name}-ca.pem"));
            std::fs::write(&file, authority.certificate()).unwrap();
            (authority, Authorities::read(&file).unwrap())
        };
        let (authority, authorities) = make("servers");
        let (_, strangers) = make("strangers");
        let issued = authority.issue(&Subject::Listener(&hosts), 5, now).unwrap();
        std::fs::write(dir.path().join("server.pem"), issued.certificate).unwrap();
        std::fs::write(dir.path().join("server.key"), issued.key).unwrap();
        let files = Self {
            dir,
            authorities,
            strangers,
        };
        for name in ["", "server.pem", "server.key"] {
            let path = files.at(name);
            let mode = if name.is_empty() { 0o755 } else { 0o600 };
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            if let Some((uid, gid)) = postgres_user() {
                chown(&path, Some(uid), Some(gid)).unwrap();
            }
        }
        files
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Started by root, Postgres runs as this user, and reads nobody else's key.
fn postgres_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string(Path::new("/etc/passwd")).unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:"))?;
    let fields: Vec<&str> = line.split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}

async fn postgres(files: &Files) -> Postgres {
    let setting = |name: &str, value: String| (name.to_owned(), value);
    let file = |name: &str| files.at(name).display().to_string();
    let options = PostgresOptions {
        settings: vec![
            setting("ssl", "on".to_owned()),
            setting("ssl_cert_file", file("server.pem")),
            setting("ssl_key_file", file("server.key")),
        ],
        ..PostgresOptions::default()
    };
    Postgres::start_with(options).await.unwrap()
}

async fn probed(url: &str, authorities: Option<&Authorities>) -> Result<(), String> {
    let mut config = PostgresConfig::new(url);
    config.authorities = authorities.cloned();
    config.connect_timeout = SOON;
    config.create_timeout = SOON;
    config.background.wait = SOON;
    let ledger = PostgresLedger::connect(&config).unwrap();
    let migrated = ledger.migrate().await.map_err(|error| error.to_string());
    if migrated.is_ok() {
        ledger.stores().await.map_err(|error| error.to_string())?;
    }
    ledger.close();
    migrated
}

#[tokio::test]
async fn the_ledger_is_a_server_of_the_right_authority_and_name() {
    let files = Files::new(&["127.0.0.1"]);
    let server = postgres(&files).await;
    let url = server.create_database("secure").await.unwrap();
    probed(&url, Some(&files.authorities)).await.unwrap();
    let encrypted = server.ask_in("secure", "show ssl").await.unwrap();
    println!("the server says: ssl {encrypted:?}");
    let refused = probed(&url, Some(&files.strangers)).await.unwrap_err();
    println!("strangers: {refused}");
    let by_name = url.replace("127.0.0.1", "localhost");
    let refused = probed(&by_name, Some(&files.authorities))
        .await
        .unwrap_err();
    println!("another name: {refused}");
    let plain = Postgres::start().await.unwrap();
    let url = plain.create_database("plain").await.unwrap();
    let refused = probed(&url, Some(&files.authorities)).await.unwrap_err();
    println!("a server without TLS: {refused}");
    probed(&url, None).await.unwrap();
}

#[tokio::test]
async fn the_trip_cache_is_a_server_of_the_right_authority_and_name() {
    let files = Files::new(&["127.0.0.1"]);
    let port = standin_drill::process::free_port().unwrap();
    let file = |name: &str| files.at(name).display().to_string();
    let extra = [
        "--tls-port".to_owned(),
        port.to_string(),
        "--tls-cert-file".to_owned(),
        file("server.pem"),
        "--tls-key-file".to_owned(),
        file("server.key"),
        "--tls-ca-cert-file".to_owned(),
        file("servers-ca.pem"),
        "--tls-auth-clients".to_owned(),
        "no".to_owned(),
    ];
    let _server = Redis::start(RedisOptions {
        extra: extra.to_vec(),
        ..RedisOptions::default()
    })
    .await
    .unwrap();
    let shopper = 1_u64.try_into().unwrap();
    let cache = |host: &str, authorities: Option<&Authorities>| {
        let mut config = RedisConfig::new(format!("rediss://{host}:{port}"), Vec::new());
        config.authorities = authorities.cloned();
        config.read_budget = Duration::from_secs(1);
        RedisTripCache::connect(config)
    };
    let good = cache("127.0.0.1", Some(&files.authorities)).unwrap();
    until("the cache", SOON, || async {
        good.look(shopper).await.ok()
    })
    .await;
    let bad = [
        cache("127.0.0.1", Some(&files.strangers)).unwrap(),
        cache("localhost", Some(&files.authorities)).unwrap(),
    ];
    // Good ones that are made later are connected, again and again; these never are.
    for _ in 0..5 {
        let good = cache("127.0.0.1", Some(&files.authorities)).unwrap();
        until("the cache", SOON, || async {
            good.look(shopper).await.ok()
        })
        .await;
        for bad in &bad {
            assert!(bad.look(shopper).await.is_err());
        }
    }
    assert!(cache("127.0.0.1", None).is_err());
}
