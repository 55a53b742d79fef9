//! The world of one drill: Postgres with its standby, a trip cache with two replicas, three edges that
//! keep one log, and a fault proxy on the links that the drill will break.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde_json::Value;
use standin_core::clock::{Clock, SystemClock};
use standin_core::ledger::postgres::{PostgresConfig, PostgresLedger};
use standin_core::trip::TripSheet;
use standin_core::trip_cache::TripCache;
use standin_core::trip_cache::redis::{RedisConfig, RedisTripCache};
use standin_drill::disk::Disk;
use standin_drill::network::{End, Network, Service};
use standin_drill::process::free_port;
use standin_drill::proxy::Proxy;
use standin_drill::servers::redis::Reply;
use standin_drill::servers::{
    Postgres, PostgresOptions, Redis, RedisOptions, Replicated, ReplicatedOptions,
};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::edges::{Common, Edge, FAR, Papers};
use super::seed::{DATABASE, Seed};
use crate::secret;

/// Keepers of the region's log.
pub(super) const KEEPERS: u64 = 3;
/// How long what was started may take to be of use.
const SETTLE_WITHIN: Duration = Duration::from_secs(60);
/// How often the trip cache's heart beats, as the platform's does.
const BEAT: Duration = Duration::from_millis(100);
/// For a call to the ledger when nobody is in a hurry.
const CALL_MAX: Duration = Duration::from_secs(60);
/// A disk that is to become full.
const DISK_KIB: u32 = 512 * 1024;
const AT_ONCE: usize = 64;
const POLL: Duration = Duration::from_millis(20);

/// The primary's standby.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standby {
    /// Commits wait for it.
    Synchronous,
    /// They do not.
    Asynchronous,
}

/// How a world is built.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shape {
    pub(super) standby: Standby,
    /// A fault proxy between the edges and the primary.
    pub(super) primary_link: bool,
    /// A fault proxy between the trip cache's home and the edges' own replica.
    pub(super) replica_link: bool,
    /// Each edge on a host of its own, whose links can be cut. Needs root.
    pub(super) hosts: bool,
    /// The primary on a small disk of its own. Needs root.
    pub(super) small_disk: bool,
    /// Another region on the same primary, with one edge that keeps its own log.
    pub(super) far: bool,
}

/// A running world. Dropping it ends everything in it.
pub(super) struct World {
    pub(super) shape: Shape,
    /// Those that keep one log.
    pub(super) edges: Vec<Edge>,
    /// The other region's.
    pub(super) far: Option<Edge>,
    pub(super) common: Common,
    heart: Heart,
    /// The trip cache as the platform writes it.
    _cache: Arc<RedisTripCache>,
    pub(super) primary_link: Option<Proxy>,
    pub(super) replica_link: Option<Proxy>,
    /// What carries hosts to Postgres and Redis.
    _services: Vec<Proxy>,
    pub(super) postgres: Postgres,
    pub(super) standby: Postgres,
    /// The standby is the primary now.
    pub(super) promoted: bool,
    pub(super) home: Redis,
    /// The edges' own one first.
    pub(super) replicas: Vec<Redis>,
    pub(super) network: Option<Arc<Network>>,
    pub(super) disk: Option<Disk>,
    // Last, so that the folder goes after everybody who uses it.
    _folder: tempfile::TempDir,
}

/// Beats the trip cache's heart, as the platform's feeder does.
struct Heart {
    stop: CancellationToken,
    _beating: JoinHandle<()>,
}

/// Servers that edges stand on.
struct Servers {
    postgres: Postgres,
    standby: Postgres,
    home: Redis,
    replicas: Vec<Redis>,
    primary_link: Option<Proxy>,
    replica_link: Option<Proxy>,
    disk: Option<Disk>,
}

// === impl Shape ===

impl Shape {
    /// As a region is usually built.
    pub(super) const USUAL: Self = Self {
        standby: Standby::Synchronous,
        primary_link: false,
        replica_link: false,
        hosts: false,
        small_disk: false,
        far: false,
    };

    /// Whether only root can build it.
    pub(super) const fn needs_root(self) -> bool {
        self.hosts || self.small_disk
    }
}

// === impl Servers ===

impl Servers {
    async fn start(shape: Shape, seed: &Seed, folder: &std::path::Path) -> anyhow::Result<Self> {
        let disk = match shape.small_disk {
            true => Some(Disk::tmpfs(folder, "primary", DISK_KIB)?),
            false => None,
        };
        let options = ReplicatedOptions {
            primary: PostgresOptions {
                copy_of: Some(seed.cluster()),
                within: disk.as_ref().map(|disk| disk.path().to_owned()),
                ..PostgresOptions::default()
            },
            standbys: 1,
            synchronous: shape.standby == Standby::Synchronous,
        };
        let (replicated, home) =
            tokio::join!(Replicated::start(options), Redis::start(redis(None)));
        let Replicated {
            primary: postgres,
            mut standbys,
        } = replicated.context("Postgres did not start")?;
        let standby = standbys.pop().context("a standby")?;
        let home = home.context("Redis did not start")?;
        let replica_link = match shape.replica_link {
            true => Some(Proxy::start(home.port()).await?),
            false => None,
        };
        let near = replica_link.as_ref().map_or(home.port(), Proxy::port);
        let (near, sibling) = tokio::join!(
            Redis::start(redis(Some(near))),
            Redis::start(redis(Some(home.port())))
        );
        let primary_link = match shape.primary_link {
            true => Some(Proxy::start(postgres.port()).await?),
            false => None,
        };
        Ok(Self {
            replicas: vec![
                near.context("Redis did not start")?,
                sibling.context("Redis did not start")?,
            ],
            postgres,
            standby,
            home,
            primary_link,
            replica_link,
            disk,
        })
    }

    /// The ports of everything that edges connect to.
    fn ports(&self) -> Ports {
        let primary = self.primary_link.as_ref();
        Ports {
            primary: primary.map_or(self.postgres.port(), Proxy::port),
            standby: self.standby.port(),
            home: self.home.port(),
            replicas: self.replicas.iter().map(Redis::port).collect(),
        }
    }
}

/// Ports of the servers, on loopback or as hosts reach them.
struct Ports {
    primary: u16,
    standby: u16,
    home: u16,
    replicas: Vec<u16>,
}

// === impl Ports ===

impl Ports {
    /// The same as hosts of a network reach them: through proxies at the services' addresses.
    async fn carried(&self, network: &Network) -> anyhow::Result<(Self, Vec<Proxy>)> {
        let mut proxies = Vec::new();
        let ledger = network.address(End::Service(Service::Postgres));
        let cache = network.address(End::Service(Service::Redis));
        let primary = Proxy::start_at(ledger, self.primary).await?;
        let standby = Proxy::start_at(ledger, self.standby).await?;
        let home = Proxy::start_at(cache, self.home).await?;
        let mut ports = Self {
            primary: primary.port(),
            standby: standby.port(),
            home: home.port(),
            replicas: Vec::new(),
        };
        proxies.extend([primary, standby, home]);
        for replica in &self.replicas {
            let proxy = Proxy::start_at(cache, *replica).await?;
            ports.replicas.push(proxy.port());
            proxies.push(proxy);
        }
        Ok((ports, proxies))
    }
}

// === impl World ===

impl World {
    /// Builds it, and waits until every edge is ready and one leads the log.
    pub(super) async fn start(shape: Shape, seed: &Seed) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("standin-drill-")
            .tempdir()?;
        // Postgres, which is not root, goes through it to its disk.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711))?;
        let network = match shape.hosts {
            false => None,
            true => {
                let mut network = Network::new()?;
                for host in 1..=KEEPERS {
                    network.add_host(u8::try_from(host)?)?;
                }
                Some(Arc::new(network))
            }
        };
        let servers = Servers::start(shape, seed, folder.path()).await?;
        let cache = connect(&servers.home).await?;
        fill(&cache, &seed.trips).await?;
        let heart = Heart::start(Arc::clone(&cache));
        follow(&servers).await?;
        let (common, services) = common(&servers, network.clone(), folder.path()).await?;
        let edges = (1..=KEEPERS).map(|id| Edge::set_up(&common, id));
        let far = shape.far.then(|| Edge::set_up(&common, FAR)).transpose()?;
        let mut world = Self {
            shape,
            far,
            edges: edges.collect::<anyhow::Result<Vec<_>>>()?,
            common,
            heart,
            _cache: cache,
            primary_link: servers.primary_link,
            replica_link: servers.replica_link,
            _services: services,
            postgres: servers.postgres,
            standby: servers.standby,
            promoted: false,
            home: servers.home,
            replicas: servers.replicas,
            network,
            disk: servers.disk,
            _folder: folder,
        };
        for edge in world.edges.iter_mut().chain(&mut world.far) {
            edge.spawn()?;
        }
        world.ready().await?;
        Ok(world)
    }

    /// Waits until every edge is ready, and one leads.
    pub(super) async fn ready(&mut self) -> anyhow::Result<()> {
        for edge in self.edges.iter_mut().chain(&mut self.far) {
            edge.ready().await?;
        }
        self.leader_but(None).await.map(drop)
    }

    /// Waits until an edge leads that is not `other`, by its own word and a majority's; gives it.
    pub(super) async fn leader_but(&self, other: Option<u64>) -> anyhow::Result<u64> {
        let deadline = Instant::now().checked_add(SETTLE_WITHIN);
        loop {
            let pages = self.pages().await;
            if let Some(leader) = leader(&pages).filter(|leader| Some(*leader) != other) {
                return Ok(leader);
            }
            ensure!(
                deadline.is_some_and(|deadline| Instant::now() < deadline),
                "nobody leads the log"
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// The status pages of the edges that answer.
    pub(super) async fn pages(&self) -> Vec<Value> {
        let looks = self.edges.iter().map(Edge::look);
        join_all(looks).await.into_iter().flatten().collect()
    }

    /// The edge of this number.
    pub(super) fn edge(&self, id: u64) -> anyhow::Result<&Edge> {
        let found = self.edges.iter().find(|edge| edge.id == id);
        found.context("there is no such edge")
    }

    /// The same, to do something with it.
    pub(super) fn edge_mut(&mut self, id: u64) -> anyhow::Result<&mut Edge> {
        let found = self.edges.iter_mut().find(|edge| edge.id == id);
        found.context("there is no such edge")
    }

    /// The Postgres that is the primary now.
    pub(super) fn primary(&self) -> &Postgres {
        if self.promoted {
            &self.standby
        } else {
            &self.postgres
        }
    }

    /// The ledger, as one looks into it who has time.
    pub(super) fn ledger(&self) -> anyhow::Result<PostgresLedger> {
        let mut config = PostgresConfig::new(self.primary().url(DATABASE));
        config.background.wait = CALL_MAX;
        config.background.statement_timeout = CALL_MAX;
        config.background.lock_timeout = CALL_MAX;
        "standin-drill".clone_into(&mut config.application_name);
        Ok(PostgresLedger::connect(&config)?)
    }

    /// Stops the edges in order, all at once.
    pub(super) async fn stop_edges(&mut self) -> anyhow::Result<()> {
        self.heart.stop.cancel();
        let stopping = self.edges.iter_mut().chain(&mut self.far).map(Edge::stop);
        let stopped = join_all(stopping).await;
        stopped.into_iter().collect()
    }
}

// === impl Heart ===

impl Heart {
    fn start(cache: Arc<RedisTripCache>) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let beating = async move {
            let mut beat = tokio::time::interval(BEAT);
            beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while !stopped.is_cancelled() {
                beat.tick().await;
                // A server that a drill has stopped hears nothing: that is the point of it.
                drop(cache.beat(SystemClock.now()).await);
            }
        };
        Self {
            _beating: tokio::spawn(beating),
            stop,
        }
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

// === free functions ===

/// Who leads, by their own word and a majority's.
pub(super) fn leader(pages: &[Value]) -> Option<u64> {
    let number = |page: &Value, path: &str| page.pointer(path).and_then(Value::as_u64);
    let names = |page: &Value| number(page, "/wal/leader");
    let own = |page: &&Value| names(page).is_some() && names(page) == number(page, "/wal/node");
    let leads = pages.iter().filter(own);
    let newest = leads.max_by_key(|page| number(page, "/wal/term"))?;
    let leader = names(newest);
    let agree = pages.iter().filter(|page| names(page) == leader).count();
    let majority = usize::try_from(KEEPERS).ok()?.div_euclid(2);
    (agree > majority).then_some(leader).flatten()
}

async fn common(
    servers: &Servers,
    network: Option<Arc<Network>>,
    folder: &std::path::Path,
) -> anyhow::Result<(Common, Vec<Proxy>)> {
    let mut hosts = vec!["127.0.0.1".to_owned()];
    let mut links = Vec::new();
    for id in 1..=KEEPERS {
        let address = Common::address(network.as_deref(), id)?;
        hosts.push(address.to_string());
        links.push(SocketAddr::new(address, free_port()?));
    }
    let own = servers.ports();
    let (ports, services) = match network.as_deref() {
        None => (own, Vec::new()),
        Some(network) => own.carried(network).await?,
    };
    let at = |service: Service| match network.as_deref() {
        None => "127.0.0.1".to_owned(),
        Some(network) => network.address(End::Service(service)).to_string(),
    };
    let (ledger, cache) = (at(Service::Postgres), at(Service::Redis));
    let Ports {
        primary, standby, ..
    } = ports;
    let redis = |port: &u16| format!("redis://{cache}:{port}");
    let common = Common {
        folder: folder.to_owned(),
        postgres: format!(
            "postgres://standin@{ledger}:{primary},{ledger}:{standby}/{DATABASE}\
             ?target_session_attrs=read-write"
        ),
        redis: ports.replicas.iter().map(redis).collect(),
        redis_home: redis(&ports.home),
        links,
        network,
        papers: Papers::make(folder, &hosts)?,
        deployment_key: secret::fresh_key(),
    };
    Ok((common, services))
}

fn redis(replica_of: Option<u16>) -> RedisOptions {
    RedisOptions {
        replica_of,
        extra: ["--maxmemory-policy", "volatile-lru"]
            .map(str::to_owned)
            .to_vec(),
        ..RedisOptions::default()
    }
}

async fn connect(home: &Redis) -> anyhow::Result<Arc<RedisTripCache>> {
    let mut config = RedisConfig::new(home.url(), Vec::new());
    config.write_budget = Duration::from_secs(2);
    config.read_budget = Duration::from_secs(2);
    let cache = RedisTripCache::connect(config)?;
    ensure!(
        cache.connected(SETTLE_WITHIN).await,
        "no connection to Redis"
    );
    Ok(Arc::new(cache))
}

async fn fill(cache: &RedisTripCache, trips: &[TripSheet]) -> anyhow::Result<()> {
    let deadline = Instant::now().checked_add(SETTLE_WITHIN);
    // A connection that is there may not take writes yet.
    while let Err(error) = cache.beat(SystemClock.now()).await {
        let late = deadline.is_none_or(|deadline| Instant::now() >= deadline);
        ensure!(!late, "Redis takes no writes: {error}");
        tokio::time::sleep(POLL).await;
    }
    let puts =
        stream::iter(trips).map(|sheet| async move { cache.put(sheet.clone()).await.map(drop) });
    puts.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    Ok(())
}

/// Waits until the replicas hold what their home holds.
async fn follow(servers: &Servers) -> anyhow::Result<()> {
    let deadline = Instant::now().checked_add(SETTLE_WITHIN);
    for replica in &servers.replicas {
        while keys(replica).await? < keys(&servers.home).await? {
            let late = deadline.is_none_or(|deadline| Instant::now() >= deadline);
            ensure!(!late, "a replica of the trip cache does not follow");
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

/// How many keys a Redis holds.
pub(super) async fn keys(redis: &Redis) -> anyhow::Result<i64> {
    match redis.command(&["DBSIZE"]).await? {
        Reply::Number(keys) => Ok(keys),
        other => anyhow::bail!("DBSIZE said {other:?}"),
    }
}
