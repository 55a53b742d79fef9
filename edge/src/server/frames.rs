//! Messages with their length before them, several at once on one connection, answered in the order in
//! which they are done: how ISO 8583 is spoken over TCP.
//!
//! A client that sends faster than it is answered is not read from meanwhile; one that does not take
//! its answers is cut. A message that was read is answered, or the connection ends.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use standin_core::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};

use super::{Caller, old_or_stopped};

/// Bytes of the length before a message: big-endian, its own two not counted.
const LENGTH_BYTES: usize = 2;

/// One message.
#[derive(Debug)]
pub struct Frame {
    /// Its bytes, without the length.
    pub bytes: Bytes,
    /// Where the other end of the connection is.
    pub peer: SocketAddr,
    /// Whom the client's certificate names, if it showed one.
    pub peer_name: Option<Arc<str>>,
    /// When its last byte was read: the deadline counts from here.
    pub received: Instant,
}

/// What answers messages.
pub trait Frames: Send + Sync + 'static {
    /// Answers one message. The future runs to its end even if the client goes away.
    fn answer(&self, frame: Frame) -> BoxFuture<'_, Reply>;
}

/// What becomes of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// These bytes go back.
    Bytes(Bytes),
    /// It wants no answer.
    Nothing,
    /// Whoever sends this is not to be spoken with.
    Close,
}

/// Serves one connection until its client leaves, is cut, or is to come again.
pub(super) async fn serve<S>(stream: S, caller: Caller, frames: Arc<dyn Frames>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let limits = caller.shared.limits;
    if caller.shared.tls.is_none() {
        // On loopback, and there is only one bank: it may be silent from the start.
        caller.vouch.known();
    }
    let (mut from, to) = tokio::io::split(stream);
    let (replies, waiting) = mpsc::channel(limits.streams);
    let writing = write(to, waiting, &caller);
    let reading = async {
        let at_once = Arc::new(Semaphore::new(limits.streams));
        loop {
            let turn = Arc::clone(&at_once).acquire_owned().await;
            let (Ok(turn), Some(bytes)) = (turn, read(&mut from, &caller).await) else {
                break;
            };
            let frame = Frame {
                bytes,
                peer: caller.peer,
                peer_name: caller.peer_name.clone(),
                received: Instant::now(),
            };
            let (frames, replies) = (Arc::clone(&frames), replies.clone());
            let held = Arc::clone(&caller.held);
            caller.shared.requests.spawn(async move {
                let answered = AssertUnwindSafe(frames.answer(frame)).catch_unwind().await;
                let reply = answered.unwrap_or_else(|_panic| {
                    tracing::error!("a message was not answered: a panic");
                    Reply::Close
                });
                // Nobody waits any more where the connection has ended.
                drop(replies.send(reply).await);
                drop((turn, held));
            });
        }
        drop(replies);
    };
    let mut writing = pin!(writing);
    // A line that was opened after clients were asked to leave is theirs until the end.
    let was_asked = caller.shared.leave.is_cancelled();
    let spoken = async {
        tokio::select! {
            () = reading => {}
            () = old_or_stopped(&caller, || !was_asked) => {}
            // Who takes no answers is not asked for more messages.
            () = writing.as_mut() => return,
        }
        // What was read is answered after the last was read.
        writing.await;
    };
    tokio::select! {
        biased;
        () = caller.shared.cut.cancelled() => {}
        () = spoken => {}
    }
}

/// The next message; `None` when there is none to wait for.
async fn read(from: &mut (impl AsyncRead + Unpin), caller: &Caller) -> Option<Bytes> {
    let limits = caller.shared.limits;
    let mut length = [0; LENGTH_BYTES];
    let silence = limits.silence(&caller.vouch);
    timeout(silence, from.read_exact(&mut length))
        .await
        .ok()?
        .ok()?;
    let length = usize::from(u16::from_be_bytes(length));
    if length == 0 || length > limits.body_bytes {
        tracing::debug!(length, "a message has a length that none has");
        return None;
    }
    let mut message = vec![0; length];
    timeout(limits.body_timeout, from.read_exact(&mut message))
        .await
        .ok()?
        .ok()?;
    Some(message.into())
}

async fn write(
    mut to: impl AsyncWrite + Unpin,
    mut waiting: mpsc::Receiver<Reply>,
    caller: &Caller,
) {
    while let Some(reply) = waiting.recv().await {
        let bytes = match reply {
            Reply::Bytes(bytes) => bytes,
            Reply::Nothing => continue,
            Reply::Close => break,
        };
        let Ok(length) = u16::try_from(bytes.len()) else {
            tracing::error!("an answer is longer than its length can say");
            break;
        };
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(&bytes);
        let written = async {
            to.write_all(&framed).await?;
            to.flush().await
        };
        match timeout(caller.shared.limits.write_timeout, written).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => break,
        }
    }
    // Its reader learns of it by the end of the stream.
    drop(to.shutdown().await);
}
