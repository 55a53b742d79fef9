//! Keepers' requests over plain TCP on loopback: what replication costs without TLS.
//!
//! Frames of a length, a number and the bytes; many requests share a connection. A request to a node
//! that does not keep up fails, as [`Transport`] asks for.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use standin_wal::{Group, Member, NodeId, Replicable, Transport, TransportError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Requests to one node that may wait to be written.
const WAITING_MAX: usize = 256;
/// Requests of one connection that are answered at once.
const ANSWERED_AT_ONCE: usize = 256;
const FRAME_BYTES_MAX: u32 = 256 << 20;

/// Calls other nodes.
#[derive(Default)]
pub struct Plain {
    links: tokio::sync::Mutex<HashMap<u64, Arc<Link>>>,
}

struct Link {
    next: AtomicU64,
    requests: mpsc::Sender<(u64, Bytes)>,
    asked: Arc<Asked>,
}

/// Who waits for which reply; `None` once the connection is lost.
struct Asked(Mutex<Option<HashMap<u64, oneshot::Sender<Bytes>>>>);

// === impl Plain ===

impl Transport for Plain {
    fn call(
        &self,
        to: NodeId,
        member: &Member,
        request: Bytes,
        patience: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, TransportError>> + Send + '_>> {
        let address = member.address.clone();
        Box::pin(async move {
            let asking = async {
                let link = self.link(to, &address).await?;
                link.ask(request).await
            };
            let answer = tokio::time::timeout(patience, asking).await;
            answer.unwrap_or_else(|_elapsed| Err(TransportError::NoReply("in time".to_owned())))
        })
    }
}

impl Plain {
    async fn link(&self, to: NodeId, address: &str) -> Result<Arc<Link>, TransportError> {
        let mut links = self.links.lock().await;
        if let Some(link) = links.get(&to.0).filter(|link| link.asked.is_open()) {
            return Ok(Arc::clone(link));
        }
        let link = Link::connect(address).await;
        let link = link.map_err(|error| TransportError::Unreachable(error.to_string()))?;
        links.insert(to.0, Arc::clone(&link));
        Ok(link)
    }
}

// === impl Link ===

impl Link {
    async fn connect(address: &str) -> io::Result<Arc<Self>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        let (requests, waiting) = mpsc::channel(WAITING_MAX);
        let asked = Arc::new(Asked(Mutex::new(Some(HashMap::new()))));
        let (for_reader, for_writer) = (Arc::clone(&asked), Arc::clone(&asked));
        tokio::spawn(async move {
            drop(write_frames(write, waiting).await);
            for_writer.close();
        });
        tokio::spawn(async move {
            let mut read = BufReader::with_capacity(64 << 10, read);
            while let Ok((number, reply)) = read_frame(&mut read).await {
                for_reader.answer(number, reply);
            }
            for_reader.close();
        });
        Ok(Arc::new(Self {
            next: AtomicU64::new(0),
            requests,
            asked,
        }))
    }

    async fn ask(&self, request: Bytes) -> Result<Bytes, TransportError> {
        let lost = || TransportError::NoReply("the connection was lost".to_owned());
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let reply = self.asked.expect(number).ok_or_else(lost)?;
        if self.requests.try_send((number, request)).is_err() {
            self.asked.forget(number);
            return Err(TransportError::Unreachable(
                "it does not keep up".to_owned(),
            ));
        }
        reply.await.map_err(|_gone| lost())
    }
}

// === impl Asked ===

impl Asked {
    fn locked(&self) -> MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Bytes>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_open(&self) -> bool {
        self.locked().is_some()
    }

    fn expect(&self, number: u64) -> Option<oneshot::Receiver<Bytes>> {
        let (done, reply) = oneshot::channel();
        let mut asked = self.locked();
        let asked = asked.as_mut()?;
        // Whoever gave up waiting does not come for its reply.
        if asked.len() > WAITING_MAX * 4 {
            asked.retain(|_, done| !done.is_closed());
        }
        asked.insert(number, done);
        Some(reply)
    }

    fn forget(&self, number: u64) {
        if let Some(asked) = self.locked().as_mut() {
            asked.remove(&number);
        }
    }

    fn answer(&self, number: u64, reply: Bytes) {
        let done = self
            .locked()
            .as_mut()
            .and_then(|asked| asked.remove(&number));
        if let Some(done) = done {
            // Whoever asked may have given up.
            drop(done.send(reply));
        }
    }

    fn close(&self) {
        self.locked().take();
    }
}

/// Answers other nodes until the process ends.
pub async fn serve<M: Replicable>(listener: TcpListener, group: Arc<Group<M>>) -> io::Result<()> {
    loop {
        let (stream, _peer): (TcpStream, SocketAddr) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(answer(stream, Arc::clone(&group)));
    }
}

async fn answer<M: Replicable>(stream: TcpStream, group: Arc<Group<M>>) {
    let (read, write) = stream.into_split();
    let (replies, waiting) = mpsc::channel(ANSWERED_AT_ONCE);
    tokio::spawn(write_frames(write, waiting));
    let slots = Arc::new(Semaphore::new(ANSWERED_AT_ONCE));
    let mut read = BufReader::with_capacity(64 << 10, read);
    while let Ok((number, request)) = read_frame(&mut read).await {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let (group, replies) = (Arc::clone(&group), replies.clone());
        tokio::spawn(async move {
            let reply = group.handle(request).await;
            // The connection may be lost by now.
            drop(replies.send((number, reply)).await);
            drop(slot);
        });
    }
}

/// Writes what comes; flushes when nothing waits.
async fn write_frames(
    write: OwnedWriteHalf,
    mut frames: mpsc::Receiver<(u64, Bytes)>,
) -> io::Result<()> {
    let mut write = BufWriter::with_capacity(64 << 10, write);
    while let Some((number, bytes)) = frames.recv().await {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        write.write_u32_le(length).await?;
        write.write_u64_le(number).await?;
        write.write_all(&bytes).await?;
        if frames.is_empty() {
            write.flush().await?;
        }
    }
    Ok(())
}

async fn read_frame(read: &mut BufReader<OwnedReadHalf>) -> io::Result<(u64, Bytes)> {
    let length = read.read_u32_le().await?;
    if length > FRAME_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let number = read.read_u64_le().await?;
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    read.read_exact(&mut bytes).await?;
    Ok((number, bytes.into()))
}
