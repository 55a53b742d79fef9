//! Links between nodes of this process, over loopback sockets and real time. Nothing is waited for
//! by sleeping: handlers say what arrived, and are told when to reply.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use standin_core::BoxFuture;
use standin_core::clock::{Clock, ManualClock, SystemClock};
use standin_wal::{Member, NodeId, Transport, TransportError};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use uuid::Uuid;

use super::frame::{self, Frame, Kind};
use super::hello::{Hello, Welcome};
use super::*;
use crate::alarm::{Alarm, Alarms};
use crate::issue::{Authority, Subject, Whose};
use crate::metrics::Metrics;

mod bad_peers;
mod calls;
mod group;
mod rotation;
mod trust;

/// Longer than anything here takes; only a failing test waits for it.
const LONG: Duration = Duration::from_secs(20);
const REGION: &str = "eu";

/// A node and what its handler heard.
struct Node {
    links: Arc<Links>,
    alarms: Arc<Alarms>,
    heard: tokio::sync::Mutex<mpsc::UnboundedReceiver<(NodeId, Bytes)>>,
    script: Arc<Script>,
}

/// Replies to what begins with `hold` once it is released, to everything else at once.
struct Script {
    heard: mpsc::UnboundedSender<(NodeId, Bytes)>,
    released: watch::Sender<BTreeSet<Bytes>>,
    allows: AtomicBool,
}

/// A directory with certificates of one or more authorities.
struct Files(TempDir);

// === impl Script ===

impl Handler for Script {
    fn handle(&self, from: NodeId, request: Bytes) -> BoxFuture<'_, Bytes> {
        Box::pin(async move {
            self.heard.send((from, request.clone())).unwrap();
            assert!(!request.starts_with(b"panic"), "as the test asked");
            if request.starts_with(b"hold") {
                let mut released = self.released.subscribe();
                let ours = |released: &BTreeSet<Bytes>| released.contains(&request);
                released.wait_for(ours).await.unwrap();
            }
            request
        })
    }

    fn may_call(&self, node: NodeId) -> bool {
        self.allows.load(Ordering::SeqCst) && node.0 < 10
    }
}

impl Script {
    fn release(&self, request: &'static str) {
        self.released.send_modify(|released| {
            released.insert(request.into());
        });
    }
}

// === impl Node ===

impl Node {
    async fn start(config: LinksConfig) -> Self {
        Self::start_at(config, Arc::new(SystemClock)).await
    }

    async fn start_at(config: LinksConfig, clock: Arc<dyn Clock>) -> Self {
        let alarms = alarms();
        let serves = config.listen.is_some();
        let links = Links::start(config, clock, Arc::clone(&alarms)).await;
        let links = links.unwrap();
        let (said, heard) = mpsc::unbounded_channel();
        let script = Arc::new(Script {
            heard: said,
            released: watch::Sender::default(),
            allows: AtomicBool::new(true),
        });
        if serves {
            links.serve(script.clone()).unwrap();
        }
        Self {
            links,
            alarms,
            heard: heard.into(),
            script,
        }
    }

    fn member(&self) -> Member {
        member(self.links.address().unwrap())
    }

    async fn hear(&self) -> (u64, Bytes) {
        let mut heard = self.heard.lock().await;
        let (from, request) = timeout(LONG, heard.recv()).await.unwrap().unwrap();
        (from.0, request)
    }

    async fn call(&self, to: &Self, request: &'static str) -> Result<Bytes, TransportError> {
        let node = to.links.shared.this.node;
        let request = Bytes::from_static(request.as_bytes());
        self.links.call(node, &to.member(), request, LONG).await
    }

    /// Calls until there is a reply.
    async fn call_until_answered(&self, to: &Self, request: &'static str) {
        let until = async {
            while self.call(to, request).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, until).await.unwrap();
    }
}

fn alarms() -> Arc<Alarms> {
    let metrics = Arc::new(Metrics::new().unwrap());
    Arc::new(Alarms::new(metrics, Arc::new(SystemClock)))
}

fn member(address: impl ToString) -> Member {
    Member {
        address: address.to_string(),
        log: uuid::Uuid::nil(),
    }
}

/// A plain node on loopback.
fn plain(node: u64) -> LinksConfig {
    LinksConfig {
        region: REGION.to_owned(),
        group: "group".to_owned(),
        incarnation: Uuid::from_u128(7),
        node: NodeId(node),
        listen: Some("127.0.0.1:0".parse().unwrap()),
        tls: None,
        limits: LinkLimits {
            // Tests reload by asking, unless they are about the watch.
            certificates_every: LONG,
            ..LinkLimits::default()
        },
    }
}

/// A node with TLS.
fn secured(node: u64, files: &Files) -> LinksConfig {
    LinksConfig {
        tls: Some(files.of(node)),
        ..plain(node)
    }
}

fn name(region: &str, node: u64) -> EdgeName {
    EdgeName {
        region: region.to_owned(),
        node: NodeId(node),
    }
}

fn authority() -> Authority {
    Authority::new(Whose::Keepers, 30, SystemClock.now()).unwrap()
}

// === impl Files ===

impl Files {
    /// An authority's certificate, and those of nodes 1, 2 and 3 of the region.
    fn new(authority: &Authority) -> Self {
        let files = Self(TempDir::new().unwrap());
        files.trust(&[authority]);
        for node in 1..=3 {
            files.issue(authority, node, &name(REGION, node));
        }
        files
    }

    fn of(&self, node: u64) -> TlsFiles {
        TlsFiles {
            ca: self.0.path().join("ca.pem"),
            certificate: self.0.path().join(format!("{node}.pem")),
            key: self.0.path().join(format!("{node}.key")),
        }
    }

    fn trust(&self, authorities: &[&Authority]) {
        let all: String = authorities.iter().map(|it| it.certificate()).collect();
        std::fs::write(self.of(1).ca, all).unwrap();
    }

    fn issue(&self, authority: &Authority, node: u64, name: &EdgeName) {
        let issued = authority
            .issue(&Subject::Edge(name), 30, SystemClock.now())
            .unwrap();
        let TlsFiles {
            certificate, key, ..
        } = self.of(node);
        write(&certificate, &issued.certificate);
        write(&key, &issued.key);
    }
}

fn write(file: &Path, text: &str) {
    std::fs::write(file, text).unwrap();
}

// === ends that are not ours ===

fn hello(from: u64, to: u64, lane: Lane) -> Hello {
    Hello {
        region: REGION.to_owned(),
        group: "group".to_owned(),
        incarnation: Uuid::from_u128(7),
        from,
        to,
        lane,
    }
}

fn json(kind: Kind, body: &impl serde::Serialize) -> Frame {
    let body = serde_json::to_vec(body).unwrap().into();
    Frame { kind, id: 0, body }
}

async fn send(stream: &mut (impl tokio::io::AsyncWrite + Unpin), frame: &Frame) {
    frame::write(stream, frame, LONG).await.unwrap();
    stream.flush().await.unwrap();
}

/// The next frame; `None` when the other end closed, kindly or not.
async fn next(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<Frame> {
    let header = frame::read_header(stream, LONG);
    let header = timeout(LONG, header).await.unwrap().ok()??;
    let frame = frame::read_body(stream, header, 1 << 20, LONG).await;
    Some(frame.unwrap())
}

/// A connection to a plain node that was let begin, as node 2.
async fn welcomed(to: &Node, lane: Lane) -> TcpStream {
    let mut stream = TcpStream::connect(to.links.address().unwrap())
        .await
        .unwrap();
    send(&mut stream, &json(Kind::Hello, &hello(2, 1, lane))).await;
    assert_eq!(next(&mut stream).await.unwrap().kind, Kind::Welcome);
    stream
}

/// Waits until the other end has closed.
async fn is_closed(mut stream: impl tokio::io::AsyncRead + Unpin) {
    let mut rest = Vec::new();
    // A reset is as good as an end.
    drop(
        timeout(LONG, stream.read_to_end(&mut rest))
            .await
            .expect("still open"),
    );
}
