//! Connections: three small pools, and leases that never give a half-used connection back.
//!
//! A caller that gives up in the middle of a statement does not close its connection: when a server
//! is slow all callers give up, and new connections would cost it more than the statements did. The
//! connection is *salvaged*: it answers what was sent, ends what was begun, and goes back; one that
//! takes too long is closed.

use std::time::Duration;

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType,
};
use secrecy::ExposeSecret;
use tokio_postgres::{Config, Row};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::sqlstate::{Keep, Phase, Ruling, broken, ruling};
use super::super::{Fate, LedgerError, Retry};
use super::epoch::{Epoch, stale};
use super::hosts::Hosts;
use super::refusals::Refusals;
use super::{Commit, PoolConfig, PostgresConfig, PostgresConfigError};
use crate::answer::Why;

/// How statements are planned. Each is a look-up by key of as many rows as its arrays are long, so
/// one plan serves for good: planning again for every call costs more than the call (the custom plan
/// of a short array always looks cheaper), and a plan made while tables were empty must not be the
/// scan that was right then: of an index either, read as a bitmap or once for all.
const PLANS: &str = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off \
     -c enable_bitmapscan=off -c enable_material=off -c enable_hashjoin=off -c enable_mergejoin=off \
     -c jit=off";

/// A pool of connections to the primary. Connects when first asked.
pub(super) struct Link {
    pool: Pool,
    hosts: Hosts,
    create_timeout: Duration,
    /// Longest wait for somebody else's dial.
    wait: Duration,
    refusals: Refusals,
    salvage: Salvage,
}

/// A connection on loan. Dropped before [`Link::settle`] it is salvaged: a caller that gave up must
/// not hand a connection with statements in flight to the next one.
pub(super) struct Lease {
    object: Option<Object>,
    salvage: Salvage,
}

/// Waits for connections whose callers gave up. Each is one of its pool all the while, so that there
/// are never more of them than the pool may have.
#[derive(Clone)]
struct Salvage {
    tasks: TaskTracker,
    stop: CancellationToken,
    limit: Duration,
}

/// Why a call gave no answer, before it becomes a [`LedgerError`].
#[derive(Debug)]
pub(super) enum Failure {
    /// Postgres said so, or the connection broke.
    Postgres(tokio_postgres::Error, Phase),
    /// Our own word; the connection is sound.
    Ours(LedgerError),
}

// === impl Link ===

impl Link {
    pub(super) fn new(
        config: &PostgresConfig,
        pool: &PoolConfig,
        epoch: Epoch,
    ) -> Result<Self, PostgresConfigError> {
        let mut server: Config = config.url.expose_secret().parse()?;
        let millis = |limit: Duration| limit.as_millis().max(1);
        let options = format!(
            "{} {PLANS} -c statement_timeout={} -c lock_timeout={} \
             -c idle_in_transaction_session_timeout={}{}",
            server.get_options().unwrap_or_default(),
            millis(pool.statement_timeout),
            millis(pool.lock_timeout),
            millis(config.idle_in_transaction),
            match pool.commit {
                Commit::Durable => "",
                Commit::Soon => " -c synchronous_commit=off",
            },
        );
        server
            .options(options.trim_start().to_owned())
            .application_name(config.application_name.clone())
            .connect_timeout(config.connect_timeout)
            .tcp_user_timeout(config.tcp_user_timeout)
            .keepalives(true)
            .keepalives_idle(config.keepalive)
            .keepalives_interval(config.keepalive)
            .keepalives_retries(3);
        let authorities = config.authorities.as_ref();
        let hosts = Hosts::new(
            &server,
            authorities,
            config.create_timeout,
            pool.connections,
            epoch,
        );
        let manager = Manager::from_connect(
            server,
            hosts.clone(),
            ManagerConfig {
                // A lease that was not settled is closed, so what comes back is sound.
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let wait = pool.wait;
        let pool = Pool::builder(manager)
            .max_size(pool.connections)
            .wait_timeout(Some(wait))
            .create_timeout(Some(config.create_timeout))
            .recycle_timeout(Some(wait))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| PostgresConfigError::Pool(error.to_string()))?;
        Ok(Self {
            pool,
            hosts,
            create_timeout: config.create_timeout,
            wait,
            refusals: Refusals::new(),
            salvage: Salvage {
                tasks: TaskTracker::new(),
                stop: CancellationToken::new(),
                limit: config.salvage_timeout,
            },
        })
    }

    /// A connection, within the pool's limits.
    pub(super) async fn lease(&self) -> Result<Lease, LedgerError> {
        let got = async { self.pool.get().await.map_err(no_connection) };
        let status = self.pool.status();
        let is_there = status.available > 0 || status.size >= status.max_size;
        let object = if is_there {
            got.await?
        } else {
            self.refusals.dial(self.wait, got).await?
        };
        Ok(Lease {
            object: Some(object),
            salvage: self.salvage.clone(),
        })
    }

    /// Forgets every prepared statement on every connection.
    fn forget_plans(&self) {
        self.pool.manager().statement_caches.clear();
    }

    /// Dials again without a rest: something has changed at the servers.
    pub(super) fn look_again(&self) {
        self.refusals.forget();
    }

    /// Most connections.
    pub(super) fn connections_max(&self) -> usize {
        self.pool.status().max_size
    }

    /// Closes the pool: waiting and later calls fail at once.
    pub(super) fn close(&self) {
        self.salvage.stop.cancel();
        self.pool.close();
    }

    /// Gives the connection back, or closes it, by what happened on it.
    pub(super) fn settle<T>(
        &self,
        lease: Lease,
        result: Result<T, Failure>,
    ) -> Result<T, LedgerError> {
        match result {
            Ok(value) => {
                lease.keep();
                Ok(value)
            }
            Err(Failure::Ours(error)) => {
                lease.keep();
                Err(error)
            }
            Err(Failure::Postgres(error, phase)) => {
                let ruled = rule(&error, phase);
                match ruled.connection {
                    Keep::Keep => lease.keep(),
                    Keep::Drop => lease.close(),
                    Keep::DropAll => {
                        lease.close();
                        self.refusals.broke();
                        // The others lead to the same server, most likely: each would cost a call.
                        self.pool.retain(|_, _| false);
                    }
                    Keep::ForgetPlans => {
                        self.forget_plans();
                        lease.keep();
                    }
                }
                let code = error.code().map(tokio_postgres::error::SqlState::code);
                Err(code.and_then(stale).unwrap_or_else(|| LedgerError {
                    fate: ruled.fate,
                    retry: ruled.retry,
                    why: ruled.why,
                    detail: describe(&error),
                }))
            }
        }
    }

    /// Runs one statement with one parameter on a connection outside the pool, to the primary of
    /// the highest epoch, though it be one of the past. Gives its only row.
    pub(super) async fn ask_any(&self, sql: &str, parameter: i64) -> Result<Row, LedgerError> {
        let late = LedgerError::timeout("the server did not answer in time");
        let asked = tokio::time::timeout(self.create_timeout, async {
            let (client, driven) = self.hosts.connect_any().await.map_err(unreachable)?;
            let row = client.query_one(sql, &[&parameter]).await;
            drop(client);
            drop(driven.await);
            row.map_err(|error| {
                let ruled = rule(&error, Phase::Commit);
                LedgerError {
                    fate: ruled.fate,
                    retry: ruled.retry,
                    why: ruled.why,
                    detail: describe(&error),
                }
            })
        });
        asked.await.unwrap_or(Err(late))
    }
}

// === impl Lease ===

impl Lease {
    fn keep(mut self) {
        drop(self.object.take());
    }

    /// Closes the connection.
    pub(super) fn close(mut self) {
        if let Some(object) = self.object.take() {
            drop(Object::take(object));
        }
    }
}

impl std::ops::Deref for Lease {
    type Target = Object;
    fn deref(&self) -> &Object {
        self.object.as_ref().expect("taken only by keep and drop")
    }
}

impl std::ops::DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Object {
        self.object.as_mut().expect("taken only by keep and drop")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            self.salvage.begin(object);
        }
    }
}

// === impl Salvage ===

impl Salvage {
    fn begin(&self, object: Object) {
        if self.stop.is_cancelled() || tokio::runtime::Handle::try_current().is_err() {
            drop(Object::take(object));
            return;
        }
        let (stop, limit) = (self.stop.clone(), self.limit);
        self.tasks.spawn(async move {
            let sound = tokio::select! {
                biased;
                () = stop.cancelled() => false,
                // The reply comes after those to all that was sent before; a transaction that was not
                // committed is undone.
                done = tokio::time::timeout(limit, object.batch_execute("ROLLBACK")) => {
                    matches!(done, Ok(Ok(())))
                }
            };
            if !sound {
                drop(Object::take(object));
            }
        });
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.salvage.stop.cancel();
    }
}

// === impl Failure ===

impl Failure {
    /// An error of a statement that commits, or of COMMIT itself.
    pub(super) fn committing(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error, Phase::Commit)
    }

    /// Whether the server rejected what a statement was given, rather than failing itself.
    pub(super) fn rejected(&self) -> Option<String> {
        match self {
            Self::Postgres(error, _) => {
                let code = error.code()?.code();
                let ours = ["22", "23", "54"]
                    .iter()
                    .any(|class| code.starts_with(class));
                ours.then(|| describe(error))
            }
            Self::Ours(_) => None,
        }
    }

    /// Whether a plan cached before a migration is to blame.
    pub(super) fn stale_plan(&self) -> bool {
        match self {
            Self::Postgres(error, phase) => rule(error, *phase).connection == Keep::ForgetPlans,
            Self::Ours(_) => false,
        }
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error, Phase::Before)
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        Self::Ours(error)
    }
}

fn rule(error: &tokio_postgres::Error, phase: Phase) -> Ruling {
    match error.code() {
        Some(code) => ruling(code.code(), phase),
        None => broken(phase),
    }
}

/// The error without the values it may quote: a message of class 22 or 23 can hold payment data.
pub fn describe(error: &tokio_postgres::Error) -> String {
    let Some(db) = error.as_db_error() else {
        return error.to_string();
    };
    let code = db.code().code();
    if code.starts_with("22") || code.starts_with("23") {
        let constraint = db.constraint().unwrap_or("-");
        return format!("SQLSTATE {code} (constraint {constraint})");
    }
    format!("SQLSTATE {code}: {}", db.message())
}

/// No host let us in.
fn unreachable(error: tokio_postgres::Error) -> LedgerError {
    let code = error.code().map(tokio_postgres::error::SqlState::code);
    code.and_then(stale).unwrap_or_else(|| LedgerError {
        fate: Fate::NotDone,
        retry: rule(&error, Phase::Before).retry,
        why: Why::Connection,
        detail: describe(&error),
    })
}

fn no_connection(error: PoolError) -> LedgerError {
    match error {
        PoolError::Timeout(TimeoutType::Wait) => LedgerError {
            fate: Fate::NotDone,
            retry: Retry::Later,
            why: Why::Timeout,
            detail: "no connection came free".to_owned(),
        },
        PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle) => {
            LedgerError::unreachable("the server did not let us in within the time for connecting")
        }
        PoolError::Backend(error) => unreachable(error),
        PoolError::Closed => LedgerError::unreachable("the pool is closed"),
        PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
            LedgerError::unreachable("the pool is not set up")
        }
    }
}
