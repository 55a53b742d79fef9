//! A body that stops half way.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// The first half of a body; the other never comes.
pub(super) struct Stalled {
    first: Option<Bytes>,
    /// What the head promises.
    whole: u64,
}

// === impl Stalled ===

impl Stalled {
    pub(super) fn half_of(body: &Bytes) -> Self {
        let (first, _never) = body.split_at(body.len() / 2);
        Self {
            first: Some(Bytes::copy_from_slice(first)),
            whole: u64::try_from(body.len()).unwrap_or(u64::MAX),
        }
    }
}

impl Body for Stalled {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
            // Nobody is woken: it never goes on.
            None => Poll::Pending,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.whole)
    }
}
