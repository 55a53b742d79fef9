//! The composition: everything is made concrete here, and nowhere else.
//!
//! The log is opened before the door: what it holds is applied, in embedded mode the ledger is
//! rebuilt from it, and only then is a port bound.

mod backends;
mod desk;
#[cfg(test)]
mod tests;
mod watchdog;
mod wiring;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use standin_core::clock::{Clock, SystemClock};
use standin_core::ledger::Ledger;
use standin_core::policy::Policy;
use standin_core::register::RegisterConfig;
use standin_core::trip_cache::TripCache;
use standin_wal::{StateMachine, SystemTimeSource, Wal};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{Admin, Control};
use crate::afterwards::Afterwards;
use crate::alarm::Alarms;
use crate::authenticate::Authenticator;
use crate::chance::Chance;
use crate::config::Config;
use crate::door::Door;
use crate::drain::{Drain, Progress};
use crate::holds::Holds;
use crate::inflight::InFlight;
use crate::journal::LogJournal;
use crate::limit::Limits;
use crate::machine::Machine;
use crate::metrics::{Metrics, MetricsError};
use crate::native::{Adapter, Native};
use crate::path::Path;
use crate::primary::{Primary, Watch};
use crate::server::{self, ServerLimits};
use crate::stores::{Stores, StoresError};

use backends::Backends;
pub use backends::{BackendsError, MigrateLedgerError, migrate_ledger};
pub use desk::{Desk, OrderError};
pub use wiring::WiringError;

/// How long the edge's own tasks may take to end, once stopping.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// How long the log may take to finish what is queued, once nobody asks it any more.
const LOG_STOP_WITHIN: Duration = Duration::from_secs(10);
/// How often the store directory is refreshed from the ledger.
const STORES_EVERY: Duration = Duration::from_secs(2);
/// Operators' connections.
const ADMIN_CONNECTIONS: usize = 64;

/// Wraps the ledger.
pub type WrapLedger = Box<dyn FnOnce(Arc<dyn Ledger>) -> Arc<dyn Ledger> + Send>;

/// What a drill or a test puts between the edge and its world.
#[derive(Default)]
pub struct Hooks {
    /// Wraps the ledger, to inject faults.
    pub wrap_ledger: Option<WrapLedger>,
    /// Replaces the native format.
    pub adapter: Option<Arc<dyn Adapter>>,
}

/// A running edge.
pub struct Edge {
    address: SocketAddr,
    admin_address: SocketAddr,
    desk: Arc<Desk>,
    journal: LogJournal,
    tasks: TaskTracker,
    /// Ends the listeners.
    stop_accepting: CancellationToken,
    /// Ends everything else.
    stop_workers: CancellationToken,
    servers: Vec<JoinHandle<server::Stopped>>,
}

/// How an edge ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stopped {
    /// Everything begun was finished and is durable.
    Clean,
    /// The grace ran out.
    TimedOut,
    /// The log failed: what it had not acknowledged may be durable or not.
    Poisoned,
}

/// Why an edge did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error("{address}: {source}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The log could not be opened.
    #[error("write-ahead log: {0}")]
    Log(#[from] standin_wal::OpenError),
    /// The log holds entries of a newer build.
    #[error("write-ahead log: {0} entries were written by a newer build; nothing was changed")]
    NewerEntries(u64),
    /// Ledger or trip cache could not be set up.
    #[error(transparent)]
    Backends(#[from] BackendsError),
    /// A file that the configuration names is wrong.
    #[error(transparent)]
    Wiring(#[from] WiringError),
    /// The kept store directory could not be read.
    #[error("store directory: {0}")]
    Stores(#[from] StoresError),
    /// Metrics could not be set up.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A thread could not be had.
    #[error("the runtime is shutting down")]
    Runtime,
}

/// Parts that several tasks share.
struct Shared {
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    alarms: Arc<Alarms>,
    ledger: Arc<dyn Ledger>,
    cache: Arc<dyn TripCache>,
    log: Arc<Wal<Machine>>,
    primary: Arc<Primary>,
    progress: Arc<Progress>,
}

// === impl Edge ===

impl Edge {
    /// Opens the log, builds ledger and cache, binds, and serves.
    pub async fn start(config: Config, hooks: Hooks) -> Result<Self, StartError> {
        let policy = wiring::policy(config.policy.as_deref())?;
        let seed = wiring::stores(config.stores.as_deref())?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let journal = LogJournal::default();
        let backends = backends::open(&config, Arc::clone(&clock), &journal).await?;
        let log = open_log(wiring::wal(&config), wiring::register(&config)).await?;
        journal.connect(Arc::clone(&log));
        backends.rebuild(&log).await?;
        backends.await_cache().await;
        let shared = Shared::new(&config, clock, &backends, log, hooks.wrap_ledger)?;
        let (tasks, stop_workers) = (TaskTracker::new(), CancellationToken::new());
        let stores = Stores::open(
            Arc::clone(&shared.ledger),
            config.wal.dir.join("stores.json"),
            STORES_EVERY,
            seed,
        )?;
        stores.refresh().await;
        let path = Arc::new(shared.path(&config, policy, &stores, &tasks, &stop_workers));
        shared.start_workers(&tasks, &stop_workers, stores, &config);
        if let Some(heart) = backends.heart {
            tasks.spawn(heart.run(stop_workers.clone()));
        }
        let door = shared.door(&config, Arc::clone(&path), hooks.adapter);
        let metrics = Arc::clone(&shared.metrics);
        let desk = Arc::new(Desk::new(shared, path, &config));
        desk.start_in(config.stand_in).await;
        let control: Arc<dyn Control> = Arc::<Desk>::clone(&desk);
        let stop_accepting = CancellationToken::new();
        let (address, banks) = listen_on(config.listen).await?;
        let (admin_address, operators) = listen_on(config.admin_listen).await?;
        let admin = Admin::new(control, metrics);
        let admin_limits = ServerLimits {
            connections: ADMIN_CONNECTIONS,
            ..config.server
        };
        let stop = || stop_accepting.clone();
        let servers = vec![
            tokio::spawn(server::serve(banks, Arc::new(door), config.server, stop())),
            tokio::spawn(server::serve(
                operators,
                Arc::new(admin),
                admin_limits,
                stop(),
            )),
        ];
        tasks.spawn(watchdog::run(Arc::clone(&desk), stop_workers.clone()));
        tracing::info!(%address, %admin_address, "edge is open");
        Ok(Self {
            address,
            admin_address,
            desk,
            journal,
            tasks,
            stop_accepting,
            stop_workers,
            servers,
        })
    }

    /// Where banks connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where operators connect.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// The ledger, as the edge sees it.
    pub fn ledger(&self) -> Arc<dyn Ledger> {
        Arc::clone(self.desk.ledger())
    }

    /// The trip cache.
    pub fn cache(&self) -> Arc<dyn TripCache> {
        Arc::clone(self.desk.cache())
    }

    /// The log.
    pub fn log(&self) -> Arc<Wal<Machine>> {
        Arc::clone(self.desk.log())
    }

    /// Makes platform events durable in the log (embedded mode).
    pub fn journal(&self) -> LogJournal {
        self.journal.clone()
    }

    /// What operators see and order.
    pub fn desk(&self) -> Arc<Desk> {
        Arc::clone(&self.desk)
    }

    /// The status page.
    pub async fn status(&self) -> serde_json::Value {
        self.desk.statusz().await
    }

    /// Resolves when the log is poisoned: the process has to exit.
    pub async fn poisoned(&self) {
        self.desk.log().poisoned().await;
    }

    /// One ladder: stop accepting, finish what was begun, stop the workers, close the log.
    pub async fn stop(self) -> Stopped {
        let log = self.log();
        self.stop_accepting.cancel();
        let mut clean = true;
        for server in self.servers {
            clean &= matches!(server.await, Ok(server::Stopped::Clean));
        }
        self.stop_workers.cancel();
        self.tasks.close();
        clean &= tokio::time::timeout(STOP_WITHIN, self.tasks.wait())
            .await
            .is_ok();
        match close_log(log, LOG_STOP_WITHIN).await {
            Stopped::Clean if !clean => Stopped::TimedOut,
            ended => ended,
        }
    }
}

// === impl Shared ===

impl Shared {
    fn new(
        config: &Config,
        clock: Arc<dyn Clock>,
        backends: &Backends,
        log: Arc<Wal<Machine>>,
        wrap_ledger: Option<WrapLedger>,
    ) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new()?);
        metrics.watch_trip_cache(Arc::clone(&backends.cache));
        let outage = log.read(|machine| machine.register().outage().map(|outage| outage.why));
        let ledger = Arc::clone(&backends.ledger);
        Ok(Self {
            alarms: Arc::new(Alarms::new(Arc::clone(&metrics), Arc::clone(&clock))),
            ledger: wrap_ledger
                .map_or_else(|| Arc::clone(&ledger), |wrap| wrap(Arc::clone(&ledger))),
            cache: Arc::clone(&backends.cache),
            primary: Arc::new(Primary::new(wiring::breaker(&config.breaker), outage)),
            progress: Arc::new(Progress::default()),
            clock,
            metrics,
            log,
        })
    }

    fn path(
        &self,
        config: &Config,
        policy: Policy,
        stores: &Stores,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Path {
        let ledger = || Arc::clone(&self.ledger);
        let metrics = || Arc::clone(&self.metrics);
        let (cache, clock) = (Arc::clone(&self.cache), Arc::clone(&self.clock));
        Path {
            clock: Arc::clone(&self.clock),
            chance: Chance::default(),
            key: config.deployment_key.clone(),
            policy: ArcSwap::from_pointee(policy),
            stores: stores.directory(),
            cache: Arc::clone(&self.cache),
            ledger: ledger(),
            primary: Arc::clone(&self.primary),
            holds: Holds::start(ledger(), wiring::holds(config), metrics(), tasks, stop),
            log: Arc::clone(&self.log),
            inflight: InFlight::default(),
            limits: Arc::new(Limits::new(&config.banks, &config.limits)),
            afterwards: Afterwards::start(cache, clock, tasks, stop),
            metrics: metrics(),
        }
    }

    fn door(&self, config: &Config, path: Arc<Path>, adapter: Option<Arc<dyn Adapter>>) -> Door {
        Door {
            authenticator: Authenticator::new(config.banks.clone()),
            adapter: adapter.unwrap_or_else(|| Arc::new(Native)),
            limits: Arc::clone(&path.limits),
            path,
            clock: Arc::clone(&self.clock),
            log: Arc::clone(&self.log),
            in_progress: Arc::new(Semaphore::new(config.limits.in_flight)),
            metrics: Arc::clone(&self.metrics),
            alarms: Arc::clone(&self.alarms),
        }
    }

    fn start_workers(
        &self,
        tasks: &TaskTracker,
        stop: &CancellationToken,
        stores: Stores,
        config: &Config,
    ) {
        tasks.spawn(stores.run(stop.clone()));
        let watch = Watch {
            primary: Arc::clone(&self.primary),
            ledger: Arc::clone(&self.ledger),
            log: Arc::clone(&self.log),
            progress: config
                .ledger
                .postgres
                .as_ref()
                .map(|_| Arc::clone(&self.progress)),
            canary_max: config.breaker.canary,
        };
        tasks.spawn(watch.run(stop.clone()));
        let drain = Drain {
            log: Arc::clone(&self.log),
            ledger: Arc::clone(&self.ledger),
            primary: Arc::clone(&self.primary),
            progress: Arc::clone(&self.progress),
            metrics: Arc::clone(&self.metrics),
            alarms: Arc::clone(&self.alarms),
            config: wiring::drain(config),
        };
        tasks.spawn(drain.run(stop.clone()));
    }

    fn backlog(&self) -> u64 {
        let last = self.log.status().last_index;
        last.saturating_sub(self.progress.cursor.load(Ordering::Relaxed))
    }
}

/// Opens the log on a thread of its own: recovery reads the whole disk.
async fn open_log(
    config: standin_wal::Config,
    register: RegisterConfig,
) -> Result<Arc<Wal<Machine>>, StartError> {
    let opening = tokio::task::spawn_blocking(move || {
        Wal::open(
            config,
            Box::new(SystemTimeSource::default()),
            Machine::new(register),
        )
    });
    let log = opening.await.map_err(|_gone| StartError::Runtime)??;
    match log.read(Machine::unreadable) {
        0 => Ok(Arc::new(log)),
        entries => Err(StartError::NewerEntries(entries)),
    }
}

/// Closes the log, on a thread of its own: a disk that hangs holds whoever waits for its thread, and
/// must hold neither the runtime nor the exit of the process. That thread keeps the log alive, so
/// that dropping every other handle of it does not wait for the disk either.
async fn close_log<M: StateMachine>(log: Arc<Wal<M>>, within: Duration) -> Stopped {
    let runtime = tokio::runtime::Handle::current();
    let (done, ended) = oneshot::channel();
    let closing = std::thread::Builder::new().name("wal-close".to_owned());
    let closer = Arc::clone(&log);
    let closing = closing.spawn(move || {
        runtime.block_on(closer.stop());
        if done.send(()).is_err() {
            tracing::warn!("the log closed after its time was up");
        }
    });
    if let Err(error) = closing {
        tracing::error!(%error, "no thread to close the log on");
        return Stopped::TimedOut;
    }
    let in_time = matches!(tokio::time::timeout(within, ended).await, Ok(Ok(())));
    match (log.status().poisoned, in_time) {
        (true, _) => Stopped::Poisoned,
        (false, false) => Stopped::TimedOut,
        (false, true) => Stopped::Clean,
    }
}

async fn listen_on(address: SocketAddr) -> Result<(SocketAddr, TcpListener), StartError> {
    let failed = |source| StartError::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    Ok((listener.local_addr().map_err(failed)?, listener))
}
