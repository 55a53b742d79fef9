//! Several edges that keep one log together, on this machine or each on a host of its own.
//!
//! On this machine their links are plain; on hosts they have certificates of an authority that is
//! made for the group, and reach Postgres and Redis at addresses that can be cut off one by one.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use standin_core::clock::{Clock, SystemClock};
use standin_drill::network::{End, Network, Service};
use standin_drill::process::free_port;
use standin_drill::proxy::Proxy;
use standin_edge::issue::{Authority, Subject, Whose};
use standin_edge::links::EdgeName;
use standin_wal::NodeId;

use super::bank::Banks;
use super::edge::{Edge, EdgeOptions, Programs, READY_MAX, STOP_MAX};
use super::stage::{DATABASE, Stage};
use super::wait::until;

/// A bank waits no longer before it asks another edge.
const PATIENCE: Duration = Duration::from_secs(3);
/// Days a certificate is good for.
const DAYS: u32 = 2;

/// How a group is set up.
#[derive(Clone, Debug)]
pub struct GroupOptions {
    /// How many keepers found it: 1, 3 or 5. Their numbers begin at 1.
    pub keepers: u64,
    /// How each edge is set up; number, place and keepers are the group's to say.
    pub edge: EdgeOptions,
    /// Each edge runs on a host of its own.
    pub hosts: bool,
    /// Folders of edges, in order; for those without one, the stage has room.
    pub folders: Vec<PathBuf>,
}

/// A group of edges. Dropping it kills them.
pub struct Group {
    /// The edges, in the order of their numbers from 1.
    pub edges: Vec<Edge>,
    /// Where their links listen, in the same order.
    pub links: Vec<SocketAddr>,
    /// Their network, when each has a host of its own.
    network: Option<Arc<Network>>,
    /// What carries the hosts to Postgres and Redis.
    _services: Vec<Proxy>,
}

// === impl GroupOptions ===

impl GroupOptions {
    /// Three keepers on this machine.
    pub fn on(stage: &Stage) -> Self {
        let edge = EdgeOptions::on(stage);
        Self {
            keepers: 3,
            edge,
            hosts: false,
            folders: Vec::new(),
        }
    }
}

// === impl Group ===

impl Group {
    /// Starts the edges of a group on a stage and waits until all are ready and one leads.
    pub async fn start(programs: Programs, stage: &Stage, options: GroupOptions) -> Self {
        let GroupOptions {
            keepers,
            mut edge,
            hosts,
            folders,
        } = options;
        let (network, services) = if hosts {
            let (network, services) = lay_network(stage, keepers, &mut edge).await;
            (Some(network), services)
        } else {
            (None, Vec::new())
        };
        let authority = network
            .is_some()
            .then(|| Authority::new(Whose::Keepers, DAYS, SystemClock.now()).unwrap());
        let more = std::mem::take(&mut edge.more);
        let members: Vec<EdgeOptions> = (1..=keepers)
            .map(|id| {
                let host = u8::try_from(id).unwrap();
                EdgeOptions {
                    id,
                    host: network.clone().map(|network| (network, host)),
                    folder: folders.get(usize::from(host).saturating_sub(1)).cloned(),
                    ..edge.clone()
                }
            })
            .collect();
        let links: Vec<SocketAddr> = members
            .iter()
            .map(|member| SocketAddr::new(member.address(), free_port().unwrap()))
            .collect();
        let founders: Vec<String> = (1..=keepers)
            .zip(&links)
            .map(|(id, link)| format!("\"{id}={link}\""))
            .collect();
        let founders = founders.join(", ");
        let edges = members.into_iter().zip(&links).map(|(mut member, link)| {
            let certificates = authority.as_ref().map_or_else(String::new, |authority| {
                let [ca, certificate, key] = issue(authority, stage.folder(), "test", member.id);
                format!("ca = {ca:?}\ncertificate = {certificate:?}\nkey = {key:?}\n")
            });
            member.more = format!(
                "{more}\n[keepers]\nlisten = \"{link}\"\nfounders = [{founders}]\n{certificates}"
            );
            Edge::set_up(programs, stage, &member)
        });
        let mut group = Self {
            edges: edges.collect(),
            links,
            network,
            _services: services,
        };
        group.restart_all().await;
        group
    }

    /// Starts every edge that does not run, and waits until all are ready and one leads.
    pub async fn restart_all(&mut self) {
        for edge in &mut self.edges {
            if !edge.runs() {
                edge.spawn();
            }
        }
        for edge in &mut self.edges {
            edge.ready().await;
        }
        self.led(READY_MAX).await;
    }

    /// The edge of this number.
    pub fn edge(&mut self, id: u64) -> &mut Edge {
        let found = self.edges.iter_mut().find(|edge| edge.id() == id);
        found.expect("the group has this edge")
    }

    /// The network; fails the test when the group runs on this machine.
    pub fn network(&self) -> &Network {
        self.network.as_deref().expect("the group is on hosts")
    }

    /// One bank that knows every edge, with at most `connections` connections to each.
    pub fn banks(&self, connections: usize) -> Banks {
        let bank = |edge: &Edge| edge.bank(connections).patient_for(PATIENCE);
        Banks(self.edges.iter().map(bank).collect())
    }

    /// Waits until an edge leads and a majority of the group knows it; gives its number.
    pub async fn led(&self, within: Duration) -> u64 {
        self.led_by(within, |_| true).await
    }

    /// The same, of those edges only that `may` says.
    pub async fn led_by(&self, within: Duration, may: impl Fn(u64) -> bool) -> u64 {
        let majority = self.edges.len().div_ceil(2);
        let may = &may;
        until("a leader", within, || async move {
            let pages = self.pages().await;
            let leads = |page: &&Value| {
                let status = &page["wal"];
                status["leader"].is_u64() && status["leader"] == status["node"]
            };
            let terms = |page: &Value| page["wal"]["term"].as_u64();
            let leader = pages.iter().filter(leads).max_by_key(|page| terms(page))?;
            let id = leader["wal"]["node"].as_u64().filter(|id| may(*id))?;
            let same = |page: &&Value| {
                page["wal"]["leader"] == id && page["wal"]["term"] == leader["wal"]["term"]
            };
            (pages.iter().filter(same).count() >= majority).then_some(id)
        })
        .await
    }

    /// The status pages of the edges that answer.
    pub async fn pages(&self) -> Vec<Value> {
        let looks = self.edges.iter().map(Edge::look);
        let pages = futures_util::future::join_all(looks).await;
        pages.into_iter().flatten().collect()
    }

    /// Waits until every edge has applied the same entries, and gives the index of the last one.
    pub async fn even(&self, within: Duration) -> u64 {
        until("edges that have applied the same", within, || async {
            let pages = self.pages().await;
            let applied: BTreeSet<Option<u64>> = pages
                .iter()
                .map(|page| page["wal"]["applied_index"].as_u64())
                .collect();
            let all = pages.len() == self.edges.len() && applied.len() == 1;
            applied.into_iter().next().flatten().filter(|_| all)
        })
        .await
    }

    /// Stops the edges in order, all asked at once; each has to stop cleanly.
    pub async fn terminate(&mut self) {
        for edge in &mut self.edges {
            edge.process().terminate().unwrap();
        }
        for edge in &mut self.edges {
            let id = edge.id();
            let status = edge.ends(STOP_MAX).await;
            assert!(
                status.success(),
                "edge {id} ended with {status}\n{}",
                edge.log()
            );
        }
    }

    /// Cuts an end off from others, in the directions that are asked for.
    pub fn cut(&self, this: End, others: &[End], outward: bool, inward: bool) {
        for other in others {
            if outward {
                self.network().cut(this, *other).unwrap();
            }
            if inward {
                self.network().cut(*other, this).unwrap();
            }
        }
    }

    /// Takes back what [`Group::cut`] did.
    pub fn heal(&self, this: End, others: &[End], outward: bool, inward: bool) {
        for other in others {
            if outward {
                self.network().heal(this, *other).unwrap();
            }
            if inward {
                self.network().heal(*other, this).unwrap();
            }
        }
    }

    /// The other edges' ends.
    pub fn others(&self, id: u64) -> Vec<End> {
        let others = self.edges.iter().map(Edge::id).filter(|other| *other != id);
        others.map(end).collect()
    }
}

/// The end of an edge's links.
pub fn end(id: u64) -> End {
    End::Host(u8::try_from(id).unwrap())
}

/// A network with so many hosts, and Postgres and Redis reachable from them.
pub async fn lay_network(
    stage: &Stage,
    hosts: u64,
    edge: &mut EdgeOptions,
) -> (Arc<Network>, Vec<Proxy>) {
    let mut network = Network::new().unwrap();
    for id in 1..=hosts {
        network.add_host(u8::try_from(id).unwrap()).unwrap();
    }
    let at = |service| network.address(End::Service(service));
    let (ledger, cache) = (at(Service::Postgres), at(Service::Redis));
    let to_ledger = Proxy::start_at(ledger, stage.postgres.port())
        .await
        .unwrap();
    let to_cache = Proxy::start_at(cache, stage.redis.port()).await.unwrap();
    edge.postgres = format!(
        "postgres://standin@{ledger}:{}/{DATABASE}",
        to_ledger.port()
    );
    let redis = format!("redis://{cache}:{}", to_cache.port());
    edge.redis = vec![redis.clone()];
    edge.redis_home = redis;
    (Arc::new(network), vec![to_ledger, to_cache])
}

/// Writes an authority's certificate, and an edge's with its key; gives their paths in that order.
pub fn issue(authority: &Authority, folder: &Path, region: &str, id: u64) -> [PathBuf; 3] {
    let name = EdgeName {
        region: region.to_owned(),
        node: NodeId(id),
    };
    let issued = authority
        .issue(&Subject::Edge(&name), DAYS, SystemClock.now())
        .unwrap();
    let write = |what: &str, text: &str| {
        let path = folder.join(format!("{region}-{what}-{id}.pem"));
        std::fs::write(&path, text).unwrap();
        path
    };
    [
        write("ca", authority.certificate()),
        write("certificate", &issued.certificate),
        write("key", &issued.key),
    ]
}
