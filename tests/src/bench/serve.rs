//! The servers, each the whole of a child process: `standin-bench serve …`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use standin_core::clock::SystemClock;
use standin_core::ledger::postgres::{PostgresConfig, PostgresLedger};
use standin_core::money::Currency;
use standin_core::signature::Secret;
use standin_core::trip_cache::redis::{
    RedisConfig, RedisEventQueue, RedisQueueConfig, RedisTripCache,
};
use standin_edge::app::{Edge, Hooks};
use standin_edge::config::Config;
use standin_edge::telemetry::Telemetry;
use standin_trips::api::{Api, BODY_BYTES_MAX};
use standin_trips::feeder;
use standin_trips::flow::{Budgets, Platform, Ports};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::certs;
use super::plain::{Bare, Ceiling, Plain};

/// Which server to be.
#[derive(Debug, clap::Subcommand)]
pub enum Server {
    /// One edge, exactly as `standin-edge --config FILE` runs it.
    Edge {
        /// Its configuration.
        #[arg(long)]
        config: PathBuf,
    },
    /// A bare server that checks the signature and answers 200.
    Ceiling(Peer),
    /// A bare server that checks the signature, reads the JSON and writes it back.
    Bare {
        /// Where to listen, and for whom.
        #[command(flatten)]
        peer: Peer,
        /// Certificate (PEM): TLS, HTTP/2 and HTTP/1.1.
        #[arg(long, requires = "key")]
        certificate: Option<PathBuf>,
        /// Its key.
        #[arg(long, requires = "certificate")]
        key: Option<PathBuf>,
    },
    /// One transaction a request.
    Plain {
        /// Where to listen, and for whom.
        #[command(flatten)]
        peer: Peer,
        /// Postgres connection text.
        #[arg(long)]
        postgres: String,
        /// Connections to it.
        #[arg(long)]
        connections: usize,
    },
    /// The trips API with its feeder.
    Trips {
        /// Where to listen, and for whom.
        #[command(flatten)]
        peer: Peer,
        /// Postgres connection text.
        #[arg(long)]
        postgres: String,
        /// Redis address.
        #[arg(long)]
        redis: String,
    },
}

/// What every server but the edge is told. The secret comes in the environment.
#[derive(Debug, clap::Args)]
pub struct Peer {
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
    /// The sender's secret.
    #[arg(long, env = "STANDIN_BENCH_SECRET", hide_env_values = true)]
    secret: String,
}

/// A service behind a bare hyper server. An error is a 500.
pub trait Answering: Send + Sync + 'static {
    /// Answers one request.
    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = anyhow::Result<Response<Bytes>>> + Send;
}

/// The trips API, and its counters beside it.
struct Trips {
    api: Api,
    platform: Arc<Platform>,
}

// === impl Server ===

impl Server {
    /// Serves until SIGTERM.
    ///
    /// # Errors
    /// When it cannot start.
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Edge { config } => edge(&config).await,
            Self::Ceiling(peer) => {
                listen(peer.listen, None, Arc::new(Ceiling::new(peer.secret()?))).await
            }
            Self::Bare {
                peer,
                certificate,
                key,
            } => {
                let files = certificate.zip(key);
                let tls = files.map(|(certificate, key)| certs::server(&certificate, &key));
                let bare = Bare::new(peer.secret()?);
                listen(peer.listen, tls.transpose()?, Arc::new(bare)).await
            }
            Self::Plain {
                peer,
                postgres,
                connections,
            } => {
                let plain = Plain::new(peer.secret()?, &postgres, connections)?;
                listen(peer.listen, None, Arc::new(plain)).await
            }
            Self::Trips {
                peer,
                postgres,
                redis,
            } => trips(peer, &postgres, redis).await,
        }
    }
}

// === impl Peer ===

impl Peer {
    fn secret(&self) -> anyhow::Result<Secret> {
        self.secret
            .parse()
            .map_err(|error| anyhow!("the secret: {error}"))
    }
}

async fn edge(config: &std::path::Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(config)?;
    let (config, _) =
        Config::load(Some(&text), std::env::vars()).map_err(|errors| anyhow!("{errors}"))?;
    let telemetry = Telemetry::start(&config)?;
    let edge = Box::pin(Edge::start(config, Hooks::default())).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        () = edge.poisoned() => anyhow::bail!("the write-ahead log failed"),
        _ = terminate.recv() => {}
    }
    let stopped = edge.stop().await;
    tracing::info!(?stopped, "edge ended");
    telemetry.stop().await;
    Ok(())
}

async fn trips(peer: Peer, postgres: &str, redis: String) -> anyhow::Result<()> {
    let mut config = PostgresConfig::new(postgres);
    "standin-trips".clone_into(&mut config.application_name);
    let ports = Ports {
        ledger: Arc::new(PostgresLedger::connect(&config)?),
        cache: Arc::new(RedisTripCache::connect(RedisConfig::new(
            redis.clone(),
            Vec::new(),
        ))?),
        queue: Arc::new(RedisEventQueue::connect(RedisQueueConfig::new(redis))?),
        journal: None,
        clock: Arc::new(SystemClock),
    };
    let platform = Arc::new(Platform::new(ports, Budgets::default()));
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    feeder::spawn(&platform, &tasks, &stop);
    let api = Api::new(Arc::clone(&platform), vec![peer.secret()?], Currency::USD);
    listen(peer.listen, None, Arc::new(Trips { api, platform })).await?;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    Ok(())
}

// === impl Trips ===

impl Answering for Trips {
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> anyhow::Result<Response<Bytes>> {
        if request.uri().path() == "/counters" {
            let counters = self.platform.counters();
            let page = serde_json::json!({
                "appended": counters.appended.get(),
                "fed": counters.fed.get(),
                "booked": counters.booked.get(),
                "refused": counters.refused.get(),
                "retries": counters.retries.get(),
            });
            return Ok(respond(StatusCode::OK, page.to_string()));
        }
        let (parts, body) = request.into_parts();
        let body = body_of(body).await?;
        Ok(self
            .api
            .handle(&parts.method, &parts.uri, &parts.headers, body)
            .await)
    }
}

/// A body, within the bound of the largest any of these servers takes.
pub(super) async fn body_of(body: Incoming) -> anyhow::Result<Bytes> {
    let read = Limited::new(body, BODY_BYTES_MAX).collect().await;
    Ok(read
        .map_err(|error| anyhow!("the body: {error}"))?
        .to_bytes())
}

/// A JSON response.
pub(super) fn respond(status: StatusCode, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, json);
    response
}

/// A bare hyper server, until SIGTERM.
async fn listen<A: Answering>(
    address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    service: Arc<A>,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| address.to_string())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = terminate.recv() => return Ok(()),
        };
        let (stream, _) = accepted?;
        stream.set_nodelay(true)?;
        let service = Arc::clone(&service);
        let tls = tls.clone().map(TlsAcceptor::from);
        // How a client leaves does not matter here.
        match tls {
            None => tasks.spawn(async move { drop(over_http1(stream, service).await) }),
            Some(tls) => tasks.spawn(async move {
                let Ok(stream) = tls.accept(stream).await else {
                    return;
                };
                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    drop(over_http2(stream, service).await);
                } else {
                    drop(over_http1(stream, service).await);
                }
            }),
        };
    }
}

async fn over_http1<S, A>(stream: S, service: Arc<A>) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Answering,
{
    let answering = service_fn(move |request| answered(Arc::clone(&service), request));
    http1::Builder::new()
        .serve_connection(TokioIo::new(stream), answering)
        .await
}

async fn over_http2<S, A>(stream: S, service: Arc<A>) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Answering,
{
    let answering = service_fn(move |request| answered(Arc::clone(&service), request));
    http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), answering)
        .await
}

async fn answered<A: Answering>(
    service: Arc<A>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let response = service.answer(request).await.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        respond(StatusCode::INTERNAL_SERVER_ERROR, "{}")
    });
    Ok(response.map(Full::new))
}
