//! What an operator does to a server of the trip cache: looks at it, makes it the home, has it follow one.
//!
//! Promises: each step done again changes nothing; a server is given an epoch only after it takes
//! writes, and never a lower one than it has. Whoever uses this has raised the epoch in the ledger first.

use std::sync::Arc;
use std::time::Duration;

use fred::prelude::{Config, Value};

use super::super::CacheError;
use super::connection::{Counters, Node, text};
use super::{HEARTBEAT, HOME_EPOCH, other_epoch, scripts};
use crate::authorities::Authorities;
use crate::clock::Timestamp;

/// What one command may take, the wait for the connection too.
const COMMAND_MAX: Duration = Duration::from_secs(5);

/// One server of the trip cache.
#[derive(Debug)]
pub struct RedisServer {
    node: Node,
    host: String,
    port: u16,
}

/// What a server says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServerState {
    /// Whether it takes writes; else it follows another.
    pub is_primary: bool,
    /// Host and port of whom it follows.
    pub follows: Option<String>,
    /// Which home it is, or is a copy of; 0 when none was ever promoted.
    pub epoch: u64,
    /// How many keys it holds.
    pub keys: u64,
    /// The last heartbeat it heard.
    pub beat: Option<Timestamp>,
}

// === impl RedisServer ===

impl RedisServer {
    /// Begins to connect; an error is one of the address. Must be called inside a Tokio runtime.
    pub fn open(url: &str, authorities: Option<&Authorities>) -> Result<Self, CacheError> {
        let wrong = |why: &str| CacheError::Refused(format!("not an address of one Redis: {why}"));
        let config = Config::from_url(url).map_err(|error| wrong(error.details()))?;
        let [server] = config
            .server
            .hosts()
            .try_into()
            .map_err(|_| wrong("several"))?;
        let (host, port) = (server.host.to_string(), server.port);
        let counters = Arc::new(Counters::default());
        Ok(Self {
            node: Node::open(url, authorities, COMMAND_MAX, counters)?,
            host,
            port,
        })
    }

    /// Host and port, without secrets.
    pub fn address(&self) -> String {
        address(&self.host, self.port)
    }

    /// What it says of itself.
    pub async fn state(&self) -> Result<ServerState, CacheError> {
        let info = self.command("INFO", &["replication"]).await?;
        let info = text(&info).unwrap_or_default();
        let line = |name| {
            let mut lines = info.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        };
        let port = line("master_port").and_then(|port| port.parse().ok());
        let beat = self.command("GET", &[HEARTBEAT]).await?;
        let beat = text(&beat).and_then(|beat| beat.parse().ok());
        let epoch = self.command("GET", &[HOME_EPOCH]).await?;
        let epoch = text(&epoch).and_then(|epoch| epoch.parse().ok());
        let keys = self.command("DBSIZE", &[]).await?;
        Ok(ServerState {
            is_primary: line("role") == Some("master"),
            follows: line("master_host")
                .zip(port)
                .map(|(host, port)| address(host, port)),
            epoch: epoch.unwrap_or(0),
            keys: keys.as_u64().unwrap_or(0),
            beat: beat.map(Timestamp::from_millis),
        })
    }

    /// Makes it the home of an epoch: it follows nobody any more, and says so to whoever writes or looks.
    ///
    /// # Errors
    /// Also when it is the home of a higher epoch already.
    pub async fn become_home(&self, epoch: u64) -> Result<(), CacheError> {
        self.command("REPLICAOF", &["NO", "ONE"]).await?;
        let keys = vec![HOME_EPOCH.to_owned()];
        let arguments = vec![Value::from(epoch.to_string())];
        self.connect().await;
        let told = self
            .node
            .run(&scripts::PROMOTE, keys, arguments, COMMAND_MAX);
        match told.await {
            Ok(_) => Ok(()),
            Err(CacheError::Refused(refused)) => Err(match other_epoch(&refused) {
                // Of the two it is the order that is of the past.
                Some(known) => CacheError::PastHome { epoch, known },
                None => CacheError::Refused(refused),
            }),
            Err(error) => Err(error),
        }
    }

    /// Has it follow a home. What it holds and the home does not is gone then.
    pub async fn follow(&self, host: &str, port: u16) -> Result<(), CacheError> {
        let port = port.to_string();
        self.command("REPLICAOF", &[host, &port]).await.map(drop)
    }

    /// Has it remember whom it follows over a restart; `false` where it was started without a file to
    /// write that in.
    pub async fn keep_role(&self) -> bool {
        self.command("CONFIG", &["REWRITE"]).await.is_ok()
    }

    /// Its host and port, apart.
    pub fn place(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    async fn command(&self, name: &'static str, words: &[&str]) -> Result<Value, CacheError> {
        self.connect().await;
        let words = words.iter().map(|word| Value::from(*word)).collect();
        self.node.command(name, words, COMMAND_MAX).await
    }

    async fn connect(&self) {
        // Whether there is a connection the command itself says.
        self.node.connected_within(COMMAND_MAX).await;
    }
}

fn address(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}
