//! The body of a request: one gRPC message, its end streamed.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use flwr_transport::BodyError;
use futures_util::stream::BoxStream;
use http_body::{Body, Frame};

use crate::framing::prefixed;

/// Sends a head and then a body's pieces as they come. Nothing is copied but the head.
pub(super) struct RequestBody {
    state: State,
    failure: Failure,
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
    /// `tail` has a known length.
    pub(super) fn new(head: &[u8], tail: Option<flwr_transport::Body>) -> (Self, Failure) {
        let tail_bytes = tail.as_ref().and_then(flwr_transport::Body::len);
        let tail = tail.map(|tail| tail.checked().into_stream());
        let failure = Failure::default();
        let body = Self {
            state: State::Head(prefixed(head, tail_bytes.unwrap_or(0)), tail),
            failure: Arc::clone(&failure),
        };
        (body, failure)
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
                Poll::Ready(Some(Ok(Frame::data(head))))
            }
            State::Tail(mut tail) => {
                let Poll::Ready(next) = tail.as_mut().poll_next(cx) else {
                    self.state = State::Tail(tail);
                    return Poll::Pending;
                };
                match next {
                    Some(Ok(piece)) => {
                        self.state = State::Tail(tail);
                        Poll::Ready(Some(Ok(Frame::data(piece))))
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
}
