//! The body of a request: one message, its end streamed.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use flwr_transport::BodyError;
use futures_util::stream::BoxStream;
use http_body::{Body, Frame, SizeHint};

use crate::framing::prefixed;

/// Sends a head and then a body's pieces as they come. Nothing is copied but the head.
pub(super) struct RequestBody {
    state: State,
    failure: Failure,
    /// What is left, where HTTP is told.
    left: Option<u64>,
}

/// Why a body of ours could not be sent, for the caller whose call then fails.
pub(super) type Failure = Arc<OnceLock<BodyError>>;

enum State {
    Head(Bytes, Option<Pieces>),
    Tail(Pieces),
    Done,
}

type Pieces = BoxStream<'static, Result<Bytes, BodyError>>;

impl RequestBody {
    /// A message of gRPC. `tail` has a known length.
    pub(super) fn new(head: &[u8], tail: Option<flwr_transport::Body>) -> (Self, Failure) {
        let tail_bytes = tail.as_ref().and_then(flwr_transport::Body::len);
        Self::begin(prefixed(head, tail_bytes.unwrap_or(0)), tail, None)
    }

    /// Nothing but a message, whose length HTTP is told. `tail` has a known length.
    pub(super) fn plain(head: Bytes, tail: Option<flwr_transport::Body>) -> (Self, Failure) {
        let tail_bytes = tail.as_ref().and_then(flwr_transport::Body::len);
        let left = head.len() as u64 + tail_bytes.unwrap_or(0);
        Self::begin(head, tail, Some(left))
    }

    fn begin(
        head: Bytes,
        tail: Option<flwr_transport::Body>,
        left: Option<u64>,
    ) -> (Self, Failure) {
        let tail = tail.map(|tail| tail.checked().into_stream());
        let failure = Failure::default();
        let body = Self {
            state: State::Head(head, tail),
            failure: Arc::clone(&failure),
            left,
        };
        (body, failure)
    }

    fn data(&mut self, data: Bytes) -> Frame<Bytes> {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(data.len() as u64);
        }
        Frame::data(data)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Head(head, tail) => {
                self.state = tail.map_or(State::Done, State::Tail);
                Poll::Ready(Some(Ok(self.data(head))))
            }
            State::Tail(mut tail) => {
                let Poll::Ready(next) = tail.as_mut().poll_next(cx) else {
                    self.state = State::Tail(tail);
                    return Poll::Pending;
                };
                match next {
                    Some(Ok(piece)) => {
                        self.state = State::Tail(tail);
                        Poll::Ready(Some(Ok(self.data(piece))))
                    }
                    Some(Err(error)) => {
                        // A body fails once.
                        self.failure.set(error.clone()).ok();
                        Poll::Ready(Some(Err(error)))
                    }
                    None => Poll::Ready(None),
                }
            }
            State::Done => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Done)
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
