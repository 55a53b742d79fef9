//! The composition: everything is made concrete here, and nowhere else.
//!
//! The log is opened before the door: what it holds is applied, in embedded mode the ledger is
//! rebuilt from it, and only then is a port bound.

mod backends;
mod desk;
mod doors;
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
use standin_core::clock::{Clock, SystemClock, Timestamp};
use standin_core::ledger::Ledger;
use standin_core::merchant::Store;
use standin_core::policy::Policy;
use standin_core::trip_cache::TripCache;
use standin_wal::{Transport, Wal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::adapter::Adapter;
use crate::admin::Admin;
use crate::admission::Admission;
use crate::advices::{Advices, Kept};
use crate::afterwards::Afterwards;
use crate::alarm::Alarms;
use crate::authenticate::Authenticator;
use crate::cache_home::CacheHomeWatch;
use crate::cards::{Cards, CardsError};
use crate::chance::Chance;
use crate::config::Config;
use crate::door::Door;
use crate::drain::{Drain, Progress};
use crate::duties::Duties;
use crate::holds::Holds;
use crate::inflight::InFlight;
use crate::journal::LogJournal;
use crate::lag::Lag;
use crate::limit::Limits;
use crate::links::{self, Links};
use crate::log::{Founders, Log, Nobody};
use crate::metrics::{Metrics, MetricsError};
use crate::observer::Observer;
use crate::path::Path;
use crate::played::Plays;
use crate::policies::{PoliciesError, PolicyFiles, PolicyWatch};
use crate::primary::{Primary, Watch};
use crate::secrets::{BankSecrets, SecretsError};
use crate::server;
use crate::shadow::Shadow;
use crate::stores::{Stores, StoresError};
use crate::time::Times;
use crate::tls::TlsError;
use crate::told::{Proposed, Told};
use crate::watched::Watched;

use backends::Heart;
use doors::Certificates;

pub use backends::{BackendsError, MigrateLedgerError, migrate_ledger};
pub use desk::{Desk, OrderError};
pub use wiring::WiringError;

/// How long the edge's own tasks may take to end, once stopping.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// How long the log may take to finish what is queued, once nobody asks it any more.
const LOG_STOP_WITHIN: Duration = Duration::from_secs(10);
/// How often the store directory is refreshed from the ledger.
const TABLES_EVERY: Duration = Duration::from_secs(2);
/// How long a start waits for the group before it goes on without: an edge answers without it too.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(10);

/// Wraps the ledger.
pub type WrapLedger = Box<dyn FnOnce(Arc<dyn Ledger>) -> Arc<dyn Ledger> + Send>;

/// What a drill or a test puts between the edge and its world.
#[derive(Default)]
pub struct Hooks {
    /// Wraps the ledger, to inject faults.
    pub wrap_ledger: Option<WrapLedger>,
    /// Replaces the native format.
    pub adapter: Option<Arc<dyn Adapter>>,
    /// Sees what became of each request of a bank, for a sandbox.
    pub observer: Option<Arc<dyn Observer>>,
    /// Tells the time instead of the machine's clock.
    pub clock: Option<Arc<dyn Clock>>,
}

/// A running edge.
pub struct Edge {
    address: SocketAddr,
    admin_address: SocketAddr,
    iso8583_address: Option<SocketAddr>,
    desk: Arc<Desk>,
    journal: LogJournal,
    tasks: TaskTracker,
    /// Ends the listeners.
    stop_accepting: CancellationToken,
    /// Ends everything else.
    stop_workers: CancellationToken,
    servers: Vec<JoinHandle<server::Stopped>>,
    /// How long clients are asked to leave before nobody is let in.
    leave: Duration,
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
    /// This node may not come into its group.
    #[error("write-ahead log: {0}")]
    Enroll(#[from] standin_wal::EnrollError),
    /// An embedded ledger is rebuilt from the log, which the group did not bring up to date in time.
    #[error("the group was not reached in time, and an embedded ledger is rebuilt from its log")]
    NoGroup,
    /// The links to the other keepers could not be set up.
    #[error("keeper links: {0}")]
    Links(#[from] links::StartError),
    /// The links are not served.
    #[error("keeper links: {0}")]
    Serve(#[from] links::ServeError),
    /// The log holds entries of a newer build.
    #[error("write-ahead log: {0} entries were written by a newer build; nothing was changed")]
    NewerEntries(u64),
    /// Ledger or trip cache could not be set up.
    #[error(transparent)]
    Backends(#[from] BackendsError),
    /// A file that the configuration names is wrong.
    #[error(transparent)]
    Wiring(#[from] WiringError),
    /// The policy does not serve.
    #[error(transparent)]
    Policy(#[from] PoliciesError),
    /// The kept store directory could not be read.
    #[error("store directory: {0}")]
    Stores(#[from] StoresError),
    /// The kept table of cards could not be read.
    #[error("table of cards: {0}")]
    Cards(#[from] CardsError),
    /// The banks' secrets are not usable.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// A listener's certificates do not serve.
    #[error("certificates: {0}")]
    Certificates(#[from] TlsError),
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
    lag: Arc<Lag>,
    metrics: Arc<Metrics>,
    alarms: Arc<Alarms>,
    ledger: Arc<dyn Ledger>,
    cache: Arc<dyn TripCache>,
    /// The same, for looks at its age.
    probed_cache: Arc<dyn TripCache>,
    /// Faults that are played here; `None`: the configuration does not consent.
    plays: Option<Arc<Plays>>,
    log: Arc<Log>,
    advices: Arc<Advices>,
    /// To the other nodes of the log; `None`: this edge keeps it alone.
    links: Option<Arc<Links>>,
    primary: Arc<Primary>,
    progress: Arc<Progress>,
    certificates: Certificates,
}

/// Copies of the ledger's tables.
struct Tables {
    stores: Stores,
    cards: Arc<Cards>,
}

// === impl Edge ===

impl Edge {
    /// Opens the log, builds ledger and cache, binds, and serves.
    pub async fn start(config: Config, hooks: Hooks) -> Result<Self, StartError> {
        let clock = hooks.clock.unwrap_or_else(|| Arc::new(SystemClock));
        let (policy, files) = policies(&config, clock.now()).await?;
        let seed = wiring::stores(config.stores.as_deref())?;
        let journal = LogJournal::default();
        let backends = backends::open(&config, Arc::clone(&clock), &journal).await?;
        let (tasks, stop_workers) = (TaskTracker::new(), CancellationToken::new());
        let metrics = Arc::new(Metrics::new()?);
        let alarms = Arc::new(Alarms::new(Arc::clone(&metrics), Arc::clone(&clock)));
        let links = wiring::links(&config, Arc::clone(&clock), Arc::clone(&alarms)).await?;
        let founders = wiring::founders(&config, links.as_deref());
        let log = open_log(&config, &clock, links.as_ref()).await?;
        let advices = Arc::new(open_advices(&config, &clock, &log).await?);
        come_in(&log, founders.as_ref(), backends.is_embedded()).await?;
        keep(&log, founders, &tasks, &stop_workers);
        journal.connect(Arc::clone(&log));
        if let Some(follower) = backends.rebuild(&log, config.keepers.is_some()).await? {
            tasks.spawn(follower.run(stop_workers.clone()));
        }
        backends.await_cache().await;
        let plays = plays(&config, &clock, &alarms);
        let (cache, probed_cache) = cache(plays.as_ref(), &backends.cache);
        let shared = Shared {
            certificates: Certificates::open(&config, &clock, &alarms).await?,
            ledger: ledger(plays.as_ref(), wrapped(hooks.wrap_ledger, &backends.ledger)),
            cache,
            probed_cache,
            plays,
            primary: primary(&config, &log),
            progress: Arc::default(),
            clock,
            metrics,
            alarms,
            log,
            lag: Arc::default(),
            advices,
            links,
        };
        shared.metrics.watch_trip_cache(Arc::clone(&backends.cache));
        let tables = shared.tables(&config, seed).await?;
        let conflicts_before = shared.log.read(|register| register.counts().conflicts);
        let path = Arc::new(shared.path(&config, policy, &tables, &tasks, &stop_workers));
        shared.start_workers(&tasks, &stop_workers, tables, &config);
        shared.start_duties(&tasks, &stop_workers, &path, &config, files);
        beat(backends.heart, &tasks, &stop_workers);
        let secrets = shared.secrets(&config, &tasks, &stop_workers).await?;
        let door = Door {
            adapter: hooks.adapter,
            observer: hooks.observer,
            ..shared.door(&config, secrets, Arc::clone(&path))
        };
        let desk = Arc::new(Desk::new(shared, path, &config, conflicts_before));
        desk.start_in(config.stand_in).await;
        let stop_accepting = CancellationToken::new();
        let admin = Admin::new(Arc::<Desk>::clone(&desk), desk.metrics());
        let doors = doors::open(&config, &desk, door, admin, &stop_accepting).await?;
        tasks.spawn(watchdog::run(Arc::clone(&desk), stop_workers.clone()));
        Ok(Self {
            address: doors.address,
            admin_address: doors.admin_address,
            iso8583_address: doors.iso8583_address,
            desk,
            journal,
            tasks,
            stop_accepting,
            stop_workers,
            servers: doors.servers,
            leave: config.leave,
        })
    }

    /// Where banks connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where banks that speak ISO 8583 connect, if they may.
    pub fn iso8583_address(&self) -> Option<SocketAddr> {
        self.iso8583_address
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
    pub fn log(&self) -> Arc<Log> {
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
        tokio::select! {
            () = self.desk.log().poisoned() => {}
            () = self.desk.advices().poisoned() => {}
        }
    }

    /// One ladder: ask clients to leave, stop accepting, finish what was begun, stop the workers,
    /// close the log. While clients leave, new ones are still answered: whoever announces the edge
    /// sees that it is stopping, and has that time to withdraw it.
    pub async fn stop(self) -> Stopped {
        self.desk.leave().cancel();
        tokio::time::sleep(self.leave).await;
        let (log, advices) = (self.log(), Arc::clone(self.desk.advices()));
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
        let ended = close_logs(log, advices, LOG_STOP_WITHIN).await;
        if let Some(links) = &self.desk.shared.links {
            links.stop().await;
        }
        match ended {
            Stopped::Clean if !clean => Stopped::TimedOut,
            ended => ended,
        }
    }
}

// === impl Shared ===

impl Shared {
    fn path(
        &self,
        config: &Config,
        policy: Policy,
        tables: &Tables,
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
            shadow: Shadow::default(),
            stores: tables.stores.directory(),
            cards: Arc::clone(&tables.cards),
            cache: Arc::clone(&self.cache),
            ledger: ledger(),
            primary: Arc::clone(&self.primary),
            never_stood_in_for: config
                .banks
                .iter()
                .filter(|bank| !bank.stand_in)
                .map(|bank| bank.slug.clone())
                .collect(),
            holds: Holds::start(ledger(), wiring::holds(config), metrics(), tasks, stop),
            log: Arc::clone(&self.log),
            advices: Arc::clone(&self.advices),
            isolating: tokio::sync::Mutex::default(),
            told: Told::default(),
            marked: Told::default(),
            proposed: Proposed::default(),
            inflight: InFlight::default(),
            limits: Arc::new(Limits::new(&config.banks, &config.limits)),
            afterwards: Afterwards::start(cache, clock, tasks, stop),
            metrics: metrics(),
        }
    }

    /// This edge's copies of the ledger's tables of stores and cards.
    async fn tables(&self, config: &Config, seed: Vec<Store>) -> Result<Tables, StartError> {
        let dir = &config.wal.dir;
        let ledger = || Arc::clone(&self.ledger);
        let stores = Stores::open(ledger(), dir.join("stores.json"), TABLES_EVERY, seed)?;
        stores.refresh().await;
        let cards = Cards::open(ledger(), dir.join("cards.jsonl"), TABLES_EVERY)?;
        Ok(Tables {
            stores,
            cards: Arc::new(cards),
        })
    }

    /// The banks' secrets, and the look at their files.
    async fn secrets(
        &self,
        config: &Config,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Arc<BankSecrets>, StartError> {
        let (clock, alarms) = (Arc::clone(&self.clock), Arc::clone(&self.alarms));
        let secrets = Arc::new(BankSecrets::open(&config.banks, clock, alarms).await?);
        tasks.spawn(Arc::clone(&secrets).watch(stop.clone()));
        Ok(secrets)
    }

    fn door(&self, config: &Config, secrets: Arc<BankSecrets>, path: Arc<Path>) -> Door {
        Door {
            authenticator: Authenticator::new(config.banks.clone(), secrets),
            adapter: None,
            observer: None,
            limits: Arc::clone(&path.limits),
            path,
            clock: Arc::clone(&self.clock),
            log: Arc::clone(&self.log),
            admission: Admission::new(
                config.admission,
                config.banks.iter().map(|bank| &bank.slug),
                Arc::clone(&self.metrics),
            ),
            lag: Arc::clone(&self.lag),
            metrics: Arc::clone(&self.metrics),
            alarms: Arc::clone(&self.alarms),
        }
    }

    fn start_workers(
        &self,
        tasks: &TaskTracker,
        stop: &CancellationToken,
        tables: Tables,
        config: &Config,
    ) {
        self.keep_plays(tasks, stop);
        tasks.spawn(tables.stores.run(stop.clone()));
        tasks.spawn(tables.cards.run(stop.clone()));
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
            clock: Arc::clone(&self.clock),
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
        tasks.spawn(self.certificates.clone().watch(stop.clone()));
        let (lag, until) = (Arc::clone(&self.lag), stop.clone());
        tasks.spawn(async move { lag.measure(until).await });
        tasks.spawn(Arc::clone(&self.advices).carry(stop.clone()));
    }

    fn start_duties(
        &self,
        tasks: &TaskTracker,
        stop: &CancellationToken,
        path: &Arc<Path>,
        config: &Config,
        files: Option<Watched<PolicyFiles>>,
    ) {
        let duties = Duties {
            log: Arc::clone(&self.log),
            advices: Arc::clone(&self.advices),
            ledger: Arc::clone(&self.ledger),
            primary: Arc::clone(&self.primary),
            clock: Arc::clone(&self.clock),
            reserve: path.policy.load().isolated.reserve,
            retry_window: config.wal.retry_window,
            embedded: config.ledger.postgres.is_none(),
        };
        tasks.spawn(duties.run(stop.clone()));
        // An embedded cache is the only home there is.
        if !config.trip_cache.redis.is_empty() {
            let watch = CacheHomeWatch {
                ledger: Arc::clone(&self.ledger),
                primary: Arc::clone(&self.primary),
                cache: Arc::clone(&self.cache),
            };
            tasks.spawn(watch.run(stop.clone()));
        }
        let policies = PolicyWatch {
            files,
            path: Arc::clone(path),
            log: Arc::clone(&self.log),
            alarms: Arc::clone(&self.alarms),
            clock: Arc::clone(&self.clock),
            region: config.region.clone(),
        };
        tasks.spawn(policies.run(stop.clone()));
    }

    fn keep_plays(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        if let Some(plays) = &self.plays {
            plays.show_in(&self.metrics);
            tasks.spawn(Arc::clone(plays).keep(stop.clone()));
        }
    }

    fn backlog(&self) -> u64 {
        let last = self.log.status().last_index;
        last.saturating_sub(self.progress.cursor.load(Ordering::Relaxed))
    }
}

fn beat(heart: Option<Heart>, tasks: &TaskTracker, stop: &CancellationToken) {
    if let Some(heart) = heart {
        tasks.spawn(heart.run(stop.clone()));
    }
}

fn wrapped(wrap: Option<WrapLedger>, ledger: &Arc<dyn Ledger>) -> Arc<dyn Ledger> {
    let ledger = Arc::clone(ledger);
    match wrap {
        Some(wrap) => wrap(ledger),
        None => ledger,
    }
}

/// What plays faults here, where the configuration consents.
fn plays(config: &Config, clock: &Arc<dyn Clock>, alarms: &Arc<Alarms>) -> Option<Arc<Plays>> {
    let consent = config.drills.consent;
    consent.then(|| Arc::new(Plays::new(Arc::clone(clock), Arc::clone(alarms))))
}

fn ledger(plays: Option<&Arc<Plays>>, inner: Arc<dyn Ledger>) -> Arc<dyn Ledger> {
    match plays {
        Some(plays) => plays.ledger(inner),
        None => inner,
    }
}

/// The trip cache for payments, and for looks at its age.
fn cache(
    plays: Option<&Arc<Plays>>,
    inner: &Arc<dyn TripCache>,
) -> (Arc<dyn TripCache>, Arc<dyn TripCache>) {
    let inner = || Arc::clone(inner);
    match plays {
        Some(plays) => (plays.cache(inner()), plays.probed_cache(inner())),
        None => (inner(), inner()),
    }
}

/// The policy in force, and its files; `None`: it is the built-in one.
async fn policies(
    config: &Config,
    now: Timestamp,
) -> Result<(Policy, Option<Watched<PolicyFiles>>), PoliciesError> {
    let Some(file) = &config.policy else {
        return Ok((Policy::example(), None));
    };
    let files = Watched::open(PolicyFiles::of(file), now).await?;
    Ok((files.current().active.clone(), Some(files)))
}

/// An edge whose last word to the log was that it has lost the primary begins so.
fn primary(config: &Config, log: &Log) -> Arc<Primary> {
    let lost = log.read(|register| register.cut_off(config.edge_id));
    Arc::new(Primary::new(wiring::breaker(&config.breaker), lost))
}

/// Opens this node's part of the region's log, and answers the other nodes.
async fn open_log(
    config: &Config,
    clock: &Arc<dyn Clock>,
    links: Option<&Arc<Links>>,
) -> Result<Arc<Log>, StartError> {
    let transport: Arc<dyn Transport> = match links {
        Some(links) => Arc::<Links>::clone(links),
        None => Arc::new(Nobody),
    };
    let (group, register) = (wiring::group(config), wiring::register(config));
    let time = Box::new(Times::new(Arc::clone(clock)));
    let log = Log::open(group, time, register, transport).await?;
    let log = Arc::new(log);
    if let Some(links) = links {
        links.serve(Arc::<Log>::clone(&log))?;
    }
    Ok(log)
}

/// Opens this edge's own log on a thread of its own: recovery reads the whole disk.
async fn open_advices(
    config: &Config,
    clock: &Arc<dyn Clock>,
    log: &Arc<Log>,
) -> Result<Advices, StartError> {
    let own = wiring::advices(config);
    let time = Box::new(Times::new(Arc::clone(clock)));
    let opening = tokio::task::spawn_blocking(move || Wal::open(own, time, Kept::default()));
    let kept = opening.await.map_err(|_gone| StartError::Runtime)??;
    Ok(Advices::new(kept, Arc::clone(log), Uuid::new_v4()))
}

/// Brings the node into its group and up to date. An edge with an embedded ledger needs that; another
/// starts without the latest entries while the group is not there.
async fn come_in(log: &Log, founders: Option<&Founders>, embedded: bool) -> Result<(), StartError> {
    let coming = async {
        log.enroll(founders).await?;
        Ok::<_, StartError>(log.catch_up(CATCH_UP_WITHIN).await)
    };
    let caught_up = match tokio::time::timeout(CATCH_UP_WITHIN, coming).await {
        Ok(came) => came?,
        Err(_elapsed) => false,
    };
    match log.unreadable() {
        0 if caught_up => Ok(()),
        0 if embedded => Err(StartError::NoGroup),
        0 => {
            tracing::warn!("the log's group is not reached; starting without its latest entries");
            Ok(())
        }
        entries => Err(StartError::NewerEntries(entries)),
    }
}

/// Looks after this node's disk and its place in the group.
fn keep(
    log: &Arc<Log>,
    founders: Option<Founders>,
    tasks: &TaskTracker,
    stop_workers: &CancellationToken,
) {
    let (scrubbed, stop) = (Arc::clone(log), stop_workers.clone());
    tasks.spawn(async move { scrubbed.keep_scrubbing(stop).await });
    let (enrolled, stop) = (Arc::clone(log), stop_workers.clone());
    tasks.spawn(async move { enrolled.keep_enrolling(founders.as_ref(), stop).await });
}

/// Closes the logs, on a thread of its own: a disk that hangs holds whoever waits for its thread, and
/// must hold neither the runtime nor the exit of the process. That thread keeps the logs alive, so
/// that dropping every other handle of them does not wait for the disk either.
async fn close_logs(log: Arc<Log>, advices: Arc<Advices>, within: Duration) -> Stopped {
    let poisoned = || log.is_poisoned() || advices.is_poisoned();
    let (closing_log, closing_advices) = (Arc::clone(&log), Arc::clone(&advices));
    let closing = async move {
        closing_advices.stop().await;
        closing_log.stop().await;
    };
    let in_time = close(closing, within).await;
    match (poisoned(), in_time) {
        (true, _) => Stopped::Poisoned,
        (false, false) => Stopped::TimedOut,
        (false, true) => Stopped::Clean,
    }
}

/// Whether `closing` ended in time.
async fn close(closing: impl Future<Output = ()> + Send + 'static, within: Duration) -> bool {
    let runtime = tokio::runtime::Handle::current();
    let (done, ended) = oneshot::channel();
    let thread = std::thread::Builder::new().name("wal-close".to_owned());
    let thread = thread.spawn(move || {
        runtime.block_on(closing);
        if done.send(()).is_err() {
            tracing::warn!("the log closed after its time was up");
        }
    });
    if let Err(error) = thread {
        tracing::error!(%error, "no thread to close the log on");
        return false;
    }
    matches!(tokio::time::timeout(within, ended).await, Ok(Ok(())))
}
