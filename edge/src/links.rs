//! Keeper links: the region's WAL group over TCP with mutual TLS.
//!
//! Each node dials each peer it has something to say to, on one connection for what is small (votes,
//! heartbeats, entries, proposals) and one for what is large (snapshots), and accepts the same from
//! them. Requests of a connection are under way together and are answered in any order.
//!
//! Promises: an end is who its certificate says, of this region and group, or hears nothing; every
//! wait has a limit that fires; nothing grows with a peer's silence: past its window a call is
//! refused at once; a peer that is slow, gone or flapping costs the others nothing. A call that
//! failed may have been handled all the same.
//!
//! In reading order: [`hello`](EdgeName) (who is who), `frame` (the bytes), `tls` and `certificates`,
//! `socket`, `connection`, `dialled` and `peer` (calls), `accepted` (being called); [`crate::issue`] makes
//! certificates for development.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use standin_core::BoxFuture;
use standin_core::clock::Clock;
use standin_wal::{Member, NodeId, Transport, TransportError};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::alarm::Alarms;
use crate::chance::Chance;
use accepted::Accepting;
use certificates::Certificates;
use hello::Hello;
use peer::Peer;

mod accepted;
mod certificates;
mod connection;
mod dialled;
mod frame;
mod hello;
mod limits;
mod peer;
mod socket;
mod tls;

#[cfg(test)]
mod tests;

pub use crate::tls::TlsError;
pub use crate::watched::Reloaded;
pub use accepted::CallerStatus;
pub use certificates::TlsStatus;
pub use hello::{EdgeName, EdgeNameError, Lane};
pub use limits::LinkLimits;
pub use peer::PeerStatus;
pub use tls::{NameError, TlsFiles};

/// Whose links these are.
#[derive(Clone, Debug)]
pub struct LinksConfig {
    /// The region of this edge and of its peers.
    pub region: String,
    /// The group's name.
    pub group: String,
    /// Which group of that name.
    pub incarnation: Uuid,
    /// This node.
    pub node: NodeId,
    /// Where to be called; `None`: only call. Port 0 takes a free one.
    pub listen: Option<SocketAddr>,
    /// Without, links are plain and both ends must be on loopback.
    pub tls: Option<TlsFiles>,
    /// Bounds of everything.
    pub limits: LinkLimits,
}

/// Answers requests of other nodes.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. It runs to its end even if the caller goes away, except that stopping
    /// the links drops it.
    fn handle(&self, from: NodeId, request: Bytes) -> BoxFuture<'_, Bytes>;

    /// Whether a node may call this one. Asked for each connection and each request; must be quick.
    fn may_call(&self, node: NodeId) -> bool;
}

/// Why links do not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Plain links would be open to the network.
    #[error("{0} is not on loopback: links without TLS are for loopback only")]
    PlainOffLoopback(SocketAddr),
    /// Bounds that contradict each other.
    #[error("{0}")]
    Limits(&'static str),
    /// The region or the node cannot be in a name.
    #[error(transparent)]
    Name(#[from] EdgeNameError),
    /// The certificates do not serve.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address cannot be listened at.
    #[error("cannot listen at {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Why nobody is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    /// These links were started without an address to be called at.
    #[error("these links have no address to be called at")]
    NoAddress,
    /// Something answers already.
    #[error("these links are served already")]
    Twice,
}

/// Links at one moment, for pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LinksStatus {
    /// This edge's name.
    pub name: String,
    /// Where it is called.
    pub address: Option<SocketAddr>,
    /// Its certificates; absent when links are plain.
    pub tls: Option<TlsStatus>,
    /// Whom it calls.
    pub peers: Vec<PeerStatus>,
    /// Who calls it.
    pub callers: Vec<CallerStatus>,
    /// Connections turned away, since the start.
    pub turned_away: u64,
    /// Why the last of them was.
    pub last_turned_away: Option<String>,
}

/// This node's links to its peers and theirs to it.
pub struct Links {
    shared: Arc<Shared>,
    address: Option<SocketAddr>,
    listener: Mutex<Option<TcpListener>>,
    accepting: OnceLock<Arc<Accepting>>,
    peers: Mutex<BTreeMap<NodeId, Arc<Peer>>>,
}

struct Shared {
    this: EdgeName,
    group: String,
    incarnation: Uuid,
    limits: LinkLimits,
    certificates: Option<Certificates>,
    chance: Chance,
    turned_away: AtomicU64,
    last_turned_away: Mutex<Option<String>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

// === impl Links ===

impl Links {
    /// Checks the certificates and binds the address. Nobody is answered before [`Links::serve`].
    ///
    /// # Errors
    /// When the links could not be what they promise.
    pub async fn start(
        config: LinksConfig,
        clock: Arc<dyn Clock>,
        alarms: Arc<Alarms>,
    ) -> Result<Arc<Self>, StartError> {
        let LinksConfig {
            region,
            group,
            incarnation,
            node,
            listen,
            tls,
            limits,
        } = config;
        limits.check()?;
        let this = EdgeName { region, node };
        // What would not be read back from a certificate is no name.
        let this: EdgeName = this.to_string().parse()?;
        let certificates = match tls {
            Some(files) => Some(Certificates::open(files, this.clone(), clock, alarms).await?),
            None => None,
        };
        let listener = match listen {
            Some(address) => Some(bind(address, certificates.is_none()).await?),
            None => None,
        };
        let seed = u32::try_from(node.0 % 100).unwrap_or(0);
        let links = Self {
            address: listener.as_ref().and_then(|it| it.local_addr().ok()),
            listener: Mutex::new(listener),
            accepting: OnceLock::new(),
            peers: Mutex::default(),
            shared: Arc::new(Shared {
                this,
                group,
                incarnation,
                limits,
                certificates,
                chance: Chance::new(seed),
                turned_away: AtomicU64::new(0),
                last_turned_away: Mutex::default(),
                stop: CancellationToken::new(),
                tasks: TaskTracker::new(),
            }),
        };
        links.watch_certificates();
        Ok(Arc::new(links))
    }

    fn watch_certificates(&self) {
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.spawn(async move {
            if let Some(certificates) = &shared.certificates {
                let every = shared.limits.certificates_every;
                certificates.watch(every, shared.stop.clone()).await;
            }
        });
    }

    /// Answers other nodes' requests from now on.
    ///
    /// # Errors
    /// When these links are not called, or something answers already.
    pub fn serve(&self, handler: Arc<dyn Handler>) -> Result<(), ServeError> {
        if self.address.is_none() {
            return Err(ServeError::NoAddress);
        }
        let listener = locked(&self.listener).take().ok_or(ServeError::Twice)?;
        let accepting = Arc::new(Accepting::new(Arc::clone(&self.shared), handler));
        let accepting = Arc::clone(self.accepting.get_or_init(|| accepting));
        self.shared.tasks.spawn(accepting.serve(listener));
        Ok(())
    }

    /// Where this node is called: the address that peers know it by, when no other leads here.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Looks at the certificates' files now. They are looked at every so often anyway.
    ///
    /// # Errors
    /// When they do not serve; the old ones stay in use and the alarm is raised.
    pub async fn reload(&self) -> Result<Reloaded, TlsError> {
        match &self.shared.certificates {
            Some(certificates) => certificates.reload().await,
            None => Ok(Reloaded::Same),
        }
    }

    /// How they are.
    pub fn status(&self) -> LinksStatus {
        let peers = locked(&self.peers);
        LinksStatus {
            name: self.shared.this.to_string(),
            address: self.address,
            tls: self.shared.certificates.as_ref().map(|it| it.status()),
            peers: peers.values().map(|peer| peer.status()).collect(),
            callers: self.accepting.get().map_or_else(Vec::new, |it| it.status()),
            turned_away: self.shared.turned_away.load(Ordering::Relaxed),
            last_turned_away: locked(&self.shared.last_turned_away).clone(),
        }
    }

    /// Ends every connection and task. Calls fail, and requests under way are dropped.
    pub async fn stop(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        // Nobody accepted from it yet.
        drop(locked(&self.listener).take());
        self.shared.tasks.wait().await;
    }

    /// The peer at an address. A node that has moved is dialled anew.
    fn peer(&self, node: NodeId, member: &Member) -> Result<Arc<Peer>, TransportError> {
        let unreachable = |why: &str| Err(TransportError::Unreachable(why.to_owned()));
        if node == self.shared.this.node {
            return unreachable("it is this node itself");
        }
        let mut peers = locked(&self.peers);
        if let Some(peer) = peers.get(&node) {
            if peer.address == member.address {
                return Ok(Arc::clone(peer));
            }
            peer.stop();
            peers.remove(&node);
        }
        let peers_max = self.shared.limits.peers_max;
        if peers.len() >= peers_max {
            peers.retain(|_, peer| !peer.is_idle());
        }
        if peers.len() >= peers_max {
            return unreachable("there are links to as many nodes as are allowed");
        }
        let peer = Arc::new(Peer::new(&self.shared, node, member.address.clone()));
        peers.insert(node, Arc::clone(&peer));
        Ok(peer)
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        // Tasks hold what they share, not the links: without this they would go on for ever.
        self.shared.stop.cancel();
    }
}

impl Transport for Links {
    fn call(
        &self,
        to: NodeId,
        member: &Member,
        request: Bytes,
        patience: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, TransportError>> + Send + '_>> {
        let peer = self.peer(to, member);
        Box::pin(async move { peer?.call(request, patience).await })
    }
}

async fn bind(address: SocketAddr, plain: bool) -> Result<TcpListener, StartError> {
    if plain && !socket::is_loopback(address) {
        return Err(StartError::PlainOffLoopback(address));
    }
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| StartError::Listen { address, source })
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Shared ===

impl Shared {
    /// What this node says of itself; to whom and on which lane is left to fill in.
    fn hello(&self) -> Hello {
        Hello {
            region: self.this.region.clone(),
            group: self.group.clone(),
            incarnation: self.incarnation,
            from: self.this.node.0,
            to: 0,
            lane: Lane::Quick,
        }
    }

    fn turned_away(&self, from: SocketAddr, why: &str) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
        let mut last = locked(&self.last_turned_away);
        // Who knocks for hours is one line, not one a knock.
        if last.as_deref() == Some(why) {
            tracing::debug!(%from, why, "a link was turned away");
        } else {
            tracing::warn!(%from, why, "a link was turned away");
        }
        *last = Some(why.to_owned());
    }
}
