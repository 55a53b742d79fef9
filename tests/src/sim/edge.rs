//! One edge of a simulation: the real path, drain, watch and duties around the real logs.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use standin_core::clock::{Clock, Timestamp};
use standin_core::id::BankId;
use standin_core::identity::DeploymentKey;
use standin_core::ledger::Ledger;
use standin_core::merchant::StoreDirectory;
use standin_core::policy::Policy;
use standin_core::signature::Scheme;
use standin_core::trip_cache::TripCache;
use standin_core::trip_cache::memory::MemoryTripCache;
use standin_edge::adapter::{Format, ShopperBy};
use standin_edge::advices::{Advices, Kept};
use standin_edge::afterwards::Afterwards;
use standin_edge::alarm::Alarms;
use standin_edge::breaker::BreakerConfig;
use standin_edge::cards::Cards;
use standin_edge::chance::Chance;
use standin_edge::config::{BankConfig, Budgets, LimitConfig};
use standin_edge::drain::{Drain, DrainConfig, Progress};
use standin_edge::duties::Duties;
use standin_edge::holds::{Holds as HoldQueue, HoldsConfig};
use standin_edge::inflight::InFlight;
use standin_edge::iso8583::{CardAcceptorLayout, Encoding};
use standin_edge::limit::Limits;
use standin_edge::log::Log;
use standin_edge::machine::Machine;
use standin_edge::metrics::Metrics;
use standin_edge::path::Path;
use standin_edge::primary::{Primary, Watch};
use standin_edge::secrets::SecretsConfig;
use standin_edge::told::{Proposed, Told};
use standin_wal::{Config, Group, NodeId, Wal};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::disk::Mount;
use super::ledger::{Client, Servers};
use super::run::{Clocks, Gone, Holds};
use super::scene::{Scene, locked};

/// How long a bank may ask again, in a simulation.
const RETRY_WINDOW: Duration = Duration::from_millis(1_500);
/// Nothing is limited by how often it is asked: those limits go by another clock.
const MANY: u32 = 1_000_000;

/// What the edges of a simulation share.
pub struct Region {
    scene: Arc<Scene>,
    /// The primary and its past.
    pub servers: Arc<Servers>,
    /// The trip cache.
    pub cache: Arc<MemoryTripCache>,
    /// The stores.
    pub stores: Arc<ArcSwap<StoreDirectory>>,
    edges: Mutex<BTreeMap<u64, Arc<Edge>>>,
}

/// An edge that runs.
pub struct Edge {
    /// What answers.
    pub path: Path,
    /// The region's log.
    pub log: Arc<Log>,
    /// Its own.
    pub advices: Arc<Advices>,
    /// Whether it has ended.
    pub gone: Arc<Gone>,
}

impl Holds<Machine> for Log {
    fn group(&self) -> &Group<Machine> {
        Self::group(self)
    }
}

impl Clock for Clocks {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.wall())
    }
}

thread_local! {
    static METRICS: OnceCell<Option<Arc<Metrics>>> = const { OnceCell::new() };
}

/// Counted over all simulations of a thread: nobody reads them.
fn metrics() -> Option<Arc<Metrics>> {
    METRICS.with(|metrics| {
        let make = || Metrics::new().ok().map(Arc::new);
        metrics.get_or_init(make).clone()
    })
}

/// The bank that asks.
pub fn bank() -> Option<BankConfig> {
    Some(BankConfig {
        slug: slug()?,
        currency: standin_core::money::Currency::USD,
        format: Format::Native,
        shopper_by: ShopperBy::Card,
        encoding: Encoding::Ascii,
        card_acceptor: CardAcceptorLayout::Visa,
        partial_approvals: false,
        stand_in: true,
        // Requests of the simulator come in behind the door.
        secrets: SecretsConfig {
            bank: slug()?,
            scheme: Scheme::StandardWebhooks,
            given: Vec::new(),
            file: None,
        },
        mutual_tls: false,
        deadline: Duration::from_millis(1_000),
        budgets: Budgets {
            trip_cache: Duration::from_millis(20),
            postgres: Duration::from_millis(100),
            wal: Duration::from_millis(700),
        },
        requests_per_second: MANY,
        burst: MANY,
    })
}

/// Its name.
pub fn slug() -> Option<BankId> {
    "first".parse().ok()
}

// === impl Region ===

impl Region {
    /// A region without edges.
    pub fn new(
        scene: Arc<Scene>,
        servers: Arc<Servers>,
        cache: Arc<MemoryTripCache>,
        stores: StoreDirectory,
    ) -> Arc<Self> {
        Arc::new(Self {
            scene,
            servers,
            cache,
            stores: Arc::new(ArcSwap::from_pointee(stores)),
            edges: Mutex::default(),
        })
    }

    /// The edge of a node, if it runs.
    pub fn edge(&self, node: u64) -> Option<Arc<Edge>> {
        let edges = locked(&self.edges);
        let edge = edges.get(&node)?;
        (!edge.gone.token.is_cancelled()).then(|| Arc::clone(edge))
    }

    /// The edges that run.
    pub fn edges(&self) -> Vec<Arc<Edge>> {
        let edges = locked(&self.edges);
        let run = edges
            .values()
            .filter(|edge| !edge.gone.token.is_cancelled());
        run.cloned().collect()
    }

    /// Makes an edge around a log that was opened.
    pub fn start(
        &self,
        group: Group<Machine>,
        gone: &Arc<Gone>,
        clocks: &Clocks,
        own: Arc<Mount>,
    ) -> Arc<dyn Holds<Machine>> {
        let log = Arc::new(Log::of(group, gone.node));
        if self.build(&log, gone, clocks, own).is_none() {
            gone.failed.cancel();
        }
        log
    }

    #[allow(clippy::too_many_lines, reason = "every part of an edge, once")]
    fn build(
        &self,
        log: &Arc<Log>,
        gone: &Arc<Gone>,
        clocks: &Clocks,
        own: Arc<Mount>,
    ) -> Option<()> {
        let advices = Arc::new(self.advices(log, gone, clocks, own)?);
        let clock: Arc<dyn Clock> = Arc::new(clocks.clone());
        let metrics = metrics()?;
        let tasks = TaskTracker::new();
        let stop = gone.token.clone();
        let ledger: Arc<dyn Ledger> = Client::new(Arc::clone(&self.servers), Arc::clone(gone));
        let cache: Arc<dyn TripCache> = Arc::<MemoryTripCache>::clone(&self.cache);
        let outage = log.read(|register| register.cut_off(gone.node));
        let primary = Arc::new(Primary::new(BREAKER, outage));
        let progress = Arc::new(Progress::default());
        let policy = Policy::example();
        let reserve = policy.isolated.reserve;
        let path = Path {
            clock: Arc::clone(&clock),
            chance: Chance::new(u32::try_from(self.scene.below(100)).ok()?),
            key: DeploymentKey::new(vec![7; 32])?,
            shadow: standin_edge::shadow::Shadow::default(),
            policy: ArcSwap::from_pointee(policy),
            stores: Arc::clone(&self.stores),
            cards: Arc::new(Cards::new(Arc::clone(&ledger))),
            cache: Arc::clone(&cache),
            ledger: Arc::clone(&ledger),
            primary: Arc::clone(&primary),
            never_stood_in_for: HashSet::new(),
            holds: HoldQueue::start(
                Arc::clone(&ledger),
                HOLDS,
                Arc::clone(&metrics),
                &tasks,
                &stop,
            ),
            log: Arc::clone(log),
            advices: Arc::clone(&advices),
            isolating: tokio::sync::Mutex::default(),
            told: Told::default(),
            marked: Told::default(),
            proposed: Proposed::default(),
            inflight: InFlight::default(),
            limits: Arc::new(Limits::new(&[bank()?], &LIMITS)),
            afterwards: Afterwards::start(cache, Arc::clone(&clock), &tasks, &stop),
            metrics: Arc::clone(&metrics),
        };
        let watch = Watch {
            primary: Arc::clone(&primary),
            ledger: Arc::clone(&ledger),
            log: Arc::clone(log),
            progress: Some(Arc::clone(&progress)),
            canary_max: Duration::from_millis(200),
            clock: Arc::clone(&clock),
        };
        tasks.spawn(watch.run(stop.clone()));
        let drain = Drain {
            log: Arc::clone(log),
            ledger: Arc::clone(&ledger),
            primary: Arc::clone(&primary),
            progress,
            metrics: Arc::clone(&metrics),
            alarms: Arc::new(Alarms::new(metrics, Arc::clone(&clock))),
            config: DrainConfig {
                tell_every: 10,
                step_max: Duration::from_millis(500),
                ..DrainConfig::default()
            },
        };
        tasks.spawn(drain.run(stop.clone()));
        tasks.spawn(Arc::clone(&advices).carry(stop.clone()));
        let duties = Duties {
            log: Arc::clone(log),
            advices: Arc::clone(&advices),
            ledger,
            primary,
            clock,
            reserve,
            retry_window: RETRY_WINDOW,
            embedded: false,
        };
        tasks.spawn(duties.run(stop.clone()));
        let (failing, failed) = (Arc::clone(&advices), Arc::clone(gone));
        tasks.spawn(async move {
            tokio::select! {
                biased;
                () = failed.token.cancelled() => {}
                () = failing.poisoned() => failed.failed.cancel(),
            }
        });
        let edge = Arc::new(Edge {
            path,
            log: Arc::clone(log),
            advices,
            gone: Arc::clone(gone),
        });
        locked(&self.edges).insert(gone.node, edge);
        Some(())
    }

    fn advices(
        &self,
        log: &Arc<Log>,
        gone: &Gone,
        clocks: &Clocks,
        own: Arc<Mount>,
    ) -> Option<Advices> {
        let config = Config {
            segment_bytes: 64 * 1024,
            budget_bytes: 1024 * 1024,
            batch_bytes_max: 40 * 1024,
            ..Config::new("", NodeId(gone.node), "own")
        };
        let mut dice = self.scene.fork();
        let incarnation = u128::from(dice.roll());
        let random = Box::new(move || (u128::from(dice.roll()) << 64) | u128::from(dice.roll()));
        let opened = Wal::open_with(
            own,
            config,
            Box::new(clocks.clone()),
            Kept::default(),
            random,
        );
        match opened {
            Ok(kept) => Some(Advices::new(
                kept,
                Arc::clone(log),
                Uuid::from_u128(incarnation),
            )),
            Err(standin_wal::OpenError::Io { .. }) => None,
            Err(error) => {
                self.scene.wrong(|| {
                    format!("S8: node {}: its own log does not open: {error}", gone.node)
                });
                None
            }
        }
    }
}

const BREAKER: BreakerConfig = BreakerConfig {
    failures_min: 3,
    failure_percent: 50,
    window_ms: 1_000,
    dwell_ms: 200,
    dwell_max_ms: 1_000,
    stage_ms: 50,
};

const HOLDS: HoldsConfig = HoldsConfig {
    workers: 2,
    rows_max: 64,
    pace: Duration::from_millis(5),
    waiting_max: 1_024,
    transaction_max: Duration::from_millis(200),
};

const LIMITS: LimitConfig = LimitConfig {
    address_failures_per_minute: MANY,
    addresses: 16,
    shopper_per_minute: MANY,
    shoppers: 1_024,
};
