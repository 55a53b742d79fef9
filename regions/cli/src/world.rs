//! One edge and the trips API in one process: what `serve` and `demo` run.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::Response;
use standin_core::BoxFuture;
use standin_core::clock::SystemClock;
use standin_core::entry::PlatformEvent;
use standin_core::ledger::LedgerError;
use standin_core::money::Currency;
use standin_core::queue::EventQueue;
use standin_core::queue::memory::MemoryQueue;
use standin_core::signature::Secret;
use standin_core::trip::{TripChange, TripEvent};
use standin_core::trip_cache::TripCache;
use standin_core::trip_cache::redis::{RedisEventQueue, RedisQueueConfig};
use standin_edge::app::{Edge, Hooks};
use standin_edge::config::Config;
use standin_edge::journal::LogJournal;
use standin_edge::server::{self, Handler, Request, ServerLimits};
use standin_trips::EventJournal;
use standin_trips::api::{Api, BODY_BYTES_MAX};
use standin_trips::feeder;
use standin_trips::flow::{Budgets, Platform, Ports};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long the platform's tasks may take to end, once stopping.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// What to start.
pub struct Setup {
    /// The edge.
    pub edge: Config,
    /// Faults, for drills.
    pub hooks: Hooks,
    /// Where the trips API listens.
    pub trips_listen: SocketAddr,
    /// Signs the platform's requests.
    pub platform_secret: Secret,
    /// The Redis that holds the queue of events; `None`: in memory, made durable by the log.
    pub queue: Option<String>,
    /// Goes before the trip cache that the platform writes to.
    pub wrap_cache: Option<WrapCache>,
}

/// Goes before a trip cache.
pub type WrapCache = Box<dyn FnOnce(Arc<dyn TripCache>) -> Arc<dyn TripCache> + Send>;

/// A running edge and platform.
pub struct World {
    edge: Edge,
    platform: Arc<Platform>,
    trips_address: SocketAddr,
    tasks: TaskTracker,
    stop: CancellationToken,
    server: JoinHandle<server::Stopped>,
}

/// The trips API behind the edge's HTTP server.
struct TripsDoor(Api);

/// Makes events durable in the edge's log.
struct TripJournal(LogJournal);

// === impl World ===

impl World {
    /// Starts the edge, then the platform on its ledger, cache and log.
    ///
    /// # Errors
    /// When a part of it does not start; what had started is ended with the process.
    pub async fn start(setup: Setup) -> anyhow::Result<Self> {
        let Setup {
            edge,
            hooks,
            trips_listen,
            platform_secret,
            queue,
            wrap_cache,
        } = setup;
        let edge = Box::pin(Edge::start(edge, hooks)).await?;
        let (queue, journal): (Arc<dyn EventQueue>, Option<Arc<dyn EventJournal>>) = match queue {
            Some(url) => {
                let queue = RedisEventQueue::connect(RedisQueueConfig::new(url))?;
                (Arc::new(queue), None)
            }
            None => (
                Arc::new(MemoryQueue::new()),
                Some(Arc::new(TripJournal(edge.journal()))),
            ),
        };
        let ports = Ports {
            ledger: edge.ledger(),
            cache: match wrap_cache {
                Some(wrap) => wrap(edge.cache()),
                None => edge.cache(),
            },
            queue,
            journal,
            clock: Arc::new(SystemClock),
        };
        let platform = Arc::new(Platform::new(ports, Budgets::default()));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        feeder::spawn(&platform, &tasks, &stop);
        let api = Api::new(Arc::clone(&platform), vec![platform_secret], Currency::USD);
        let listener = TcpListener::bind(trips_listen)
            .await
            .with_context(|| format!("cannot listen on {trips_listen}"))?;
        let trips_address = listener.local_addr()?;
        let limits = ServerLimits {
            body_bytes: BODY_BYTES_MAX,
            ..ServerLimits::default()
        };
        let door: Arc<dyn Handler> = Arc::new(TripsDoor(api));
        let server = tokio::spawn(server::serve(listener, None, door, limits, stop.clone()));
        Ok(Self {
            edge,
            platform,
            trips_address,
            tasks,
            stop,
            server,
        })
    }

    /// The edge.
    pub fn edge(&self) -> &Edge {
        &self.edge
    }

    /// The platform.
    pub fn platform(&self) -> &Arc<Platform> {
        &self.platform
    }

    /// Where the trips API listens.
    pub fn trips_address(&self) -> SocketAddr {
        self.trips_address
    }

    /// Ends everything in order: the platform, then the edge, then the log.
    ///
    /// # Errors
    /// When something did not end within its grace.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        let served = self.server.await.context("the trips server broke")?;
        self.tasks.close();
        let ended = tokio::time::timeout(STOP_WITHIN, self.tasks.wait()).await;
        let edge = self.edge.stop().await;
        anyhow::ensure!(
            served == server::Stopped::Clean
                && ended.is_ok()
                && edge == standin_edge::app::Stopped::Clean,
            "not everything ended within its grace"
        );
        Ok(())
    }
}

// === impl TripsDoor ===

impl Handler for TripsDoor {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response<Bytes>> {
        Box::pin(async move {
            // On loopback, of one demonstration.
            request.vouch.known();
            let Request { parts, body, .. } = request;
            self.0
                .handle(&parts.method, &parts.uri, &parts.headers, body)
                .await
        })
    }
}

// === impl TripJournal ===

impl EventJournal for TripJournal {
    fn record<'a>(&'a self, events: &'a [TripEvent]) -> BoxFuture<'a, Result<(), LedgerError>> {
        // Each is queued when first polled, in this order, so that one write takes them all.
        // A position says nothing of the money and is nobody's to keep: it stays out of the log.
        let writes = events
            .iter()
            .filter(|event| !matches!(event.what, TripChange::Moved { .. }))
            .map(|event| self.0.write(PlatformEvent::TripChanged(event.clone())));
        Box::pin(async move {
            for written in futures_util::future::join_all(writes).await {
                written?;
            }
            Ok(())
        })
    }
}
