//! A stream that gives up on a peer: one that does not finish the head of a request in time, or
//! does not take a response.
//!
//! hyper's own header timeout counts from the end of the last response, so it cannot be both short
//! for a head and long for an idle connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::{ServerLimits, Vouch};

/// Whether a request is being worked on, and whether its sender is known.
#[derive(Clone, Default)]
pub(super) struct Phase {
    /// Counts up at a request's begin and its end, so it is odd between.
    turns: Arc<AtomicU64>,
    vouch: Vouch,
}

pub(super) struct TimedIo<S> {
    stream: S,
    phase: Phase,
    seen: u64,
    header_timeout: Duration,
    write_timeout: Duration,
    head: Option<Pin<Box<Sleep>>>,
    write: Option<Pin<Box<Sleep>>>,
}

// === impl Phase ===

impl Phase {
    pub(super) fn of(vouch: &Vouch) -> Self {
        Self {
            turns: Arc::default(),
            vouch: vouch.clone(),
        }
    }

    pub(super) fn begin(&self) {
        self.turns.fetch_or(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        if self.get() % 2 == 1 {
            self.turns.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether there has been a request.
    pub(super) fn had_one(&self) -> bool {
        self.get() > 0
    }

    fn get(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }
}

// === impl TimedIo ===

impl<S> TimedIo<S> {
    pub(super) fn new(stream: S, phase: Phase, limits: &ServerLimits) -> Self {
        Self {
            stream,
            seen: phase.get(),
            phase,
            header_timeout: limits.header_timeout,
            write_timeout: limits.write_timeout,
            // The first head is due from the moment of connecting.
            head: Some(Box::pin(sleep(limits.header_timeout))),
            write: None,
        }
    }

    /// Without limits on heads: for connections whose requests overlap.
    pub(super) fn without_heads(stream: S, limits: &ServerLimits) -> Self {
        let mut timed = Self::new(stream, Phase::default(), limits);
        timed.phase.begin();
        timed.note_phase();
        timed
    }

    fn note_phase(&mut self) -> bool {
        let phase = self.phase.get();
        if phase != self.seen {
            self.seen = phase;
            self.head = None;
        }
        phase % 2 == 1
    }

    fn expire(
        timer: &mut Option<Pin<Box<Sleep>>>,
        cx: &mut Context<'_>,
        what: &'static str,
    ) -> Poll<io::Error> {
        match timer {
            Some(timer) => {
                ready!(timer.as_mut().poll(cx));
                Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, what))
            }
            None => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let busy = self.note_phase();
        let before = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(result) => {
                let some = buf.filled().len() > before;
                if some && !busy && self.head.is_none() {
                    self.head = Some(Box::pin(sleep(self.header_timeout)));
                }
                // A peer that always has one more byte must not outrun the deadline.
                let late = |timer: &Pin<Box<Sleep>>| timer.deadline() <= Instant::now();
                if some && !busy && self.head.as_ref().is_some_and(late) {
                    let error = io::Error::new(io::ErrorKind::TimedOut, "head not finished");
                    return Poll::Ready(Err(error));
                }
                Poll::Ready(result)
            }
            Poll::Pending if busy => Poll::Pending,
            Poll::Pending => {
                if self.head.is_none() && !self.phase.vouch.is_known() {
                    // A stranger has no time between requests.
                    self.head = Some(Box::pin(sleep(self.header_timeout)));
                }
                Self::expire(&mut self.head, cx, "head not finished").map(Err)
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, bytes) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => self.write_stalled(cx).map(Err),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write_vectored(cx, slices) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => self.write_stalled(cx).map(Err),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(cx) {
            // hyper flushes when all it had was taken: only then is the client no longer slow.
            Poll::Ready(flushed) => {
                self.write = None;
                Poll::Ready(flushed)
            }
            // TLS takes what it is given into its own buffer: that the client does not shows here.
            Poll::Pending => self.write_stalled(cx).map(Err),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_shutdown(cx) {
            Poll::Ready(closed) => Poll::Ready(closed),
            // TLS has a last word to say, and what is buffered goes before it.
            Poll::Pending => self.write_stalled(cx).map(Err),
        }
    }
}

impl<S: AsyncWrite + Unpin> TimedIo<S> {
    fn write_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let limit = self.write_timeout;
        self.write.get_or_insert_with(|| Box::pin(sleep(limit)));
        Self::expire(&mut self.write, cx, "response not taken")
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Takes whatever it is given and passes nothing on, as TLS does over a socket that is full.
    struct Stuck;

    impl AsyncWrite for Stuck {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_and_never_passed_on_is_given_up() {
        let limits = ServerLimits::default();
        let late = Duration::from_secs(3_600);
        let mut stream = TimedIo::new(Stuck, Phase::default(), &limits);
        stream.write_all(b"a response").await.unwrap();
        let flushed = tokio::time::timeout(late, stream.flush()).await;
        let error = flushed.expect("it gives up").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let mut stream = TimedIo::new(Stuck, Phase::default(), &limits);
        let closed = tokio::time::timeout(late, stream.shutdown()).await;
        let error = closed.expect("it gives up").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
