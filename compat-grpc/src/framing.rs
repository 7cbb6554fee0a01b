//! gRPC's length-prefixed messages as bodies of HTTP/2 responses.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use flwr_transport::{BodyError, Status};
use futures_util::stream::BoxStream;
use http::HeaderMap;
use http_body::{Body, Frame};

use crate::dialect::Answer;
use crate::status::end_of_stream;

/// A compression flag and the message's length.
pub(crate) const PREFIX_BYTES: usize = 5;

/// The body of a response: messages, then the status in the trailers.
pub(crate) struct GrpcBody {
    state: State,
}

enum State {
    /// The prefix and head of a message, then maybe its tail.
    Head(Bytes, Option<BoxStream<'static, Result<Bytes, BodyError>>>),
    Tail(BoxStream<'static, Result<Bytes, BodyError>>),
    Messages(BoxStream<'static, Result<Bytes, Status>>),
    Trailers(Box<HeaderMap>),
    Done,
}

impl GrpcBody {
    pub(crate) fn new(answer: Answer) -> Self {
        let state = match answer {
            Answer::Message { head, tail } => {
                let tail_bytes = tail
                    .as_ref()
                    .and_then(flwr_transport::Body::len)
                    .unwrap_or(0);
                let tail = tail.map(flwr_transport::Body::into_stream);
                State::Head(prefixed(&head, tail_bytes), tail)
            }
            Answer::Stream(messages) => State::Messages(messages),
        };
        Self { state }
    }
}

impl Default for GrpcBody {
    /// No body at all: the status is in the headers.
    fn default() -> Self {
        Self { state: State::Done }
    }
}

impl Body for GrpcBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match &mut self.state {
                State::Head(head, tail) => {
                    let head = std::mem::take(head);
                    self.state = match tail.take() {
                        Some(tail) => State::Tail(tail),
                        None => ok_trailers(),
                    };
                    return Poll::Ready(Some(Ok(Frame::data(head))));
                }
                State::Tail(tail) => match ready!(tail.as_mut().poll_next(cx)) {
                    Some(Ok(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => self.state = ok_trailers(),
                },
                State::Messages(messages) => match ready!(messages.as_mut().poll_next(cx)) {
                    Some(Ok(message)) => {
                        return Poll::Ready(Some(Ok(Frame::data(prefixed(&message, 0)))));
                    }
                    Some(Err(status)) => self.state = trailers(&end_of_stream(&status)),
                    None => self.state = ok_trailers(),
                },
                State::Trailers(trailers) => {
                    let trailers = std::mem::take(&mut **trailers);
                    self.state = State::Done;
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                State::Done => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Done)
    }
}

fn ok_trailers() -> State {
    trailers(&tonic::Status::new(tonic::Code::Ok, ""))
}

fn trailers(status: &tonic::Status) -> State {
    let mut headers = HeaderMap::new();
    if let Err(worse) = status.add_header(&mut headers) {
        tracing::debug!(%worse, "a status text could not be sent");
    }
    State::Trailers(Box::new(headers))
}

pub(crate) fn prefixed(head: &[u8], tail_bytes: u64) -> Bytes {
    let length = head.len() as u64 + tail_bytes;
    let mut message = BytesMut::with_capacity(PREFIX_BYTES + head.len());
    message.put_u8(0);
    // Messages of 4 GiB and more are refused on their way in.
    message.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.put_slice(head);
    message.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn an_answer_is_prefix_head_tail_and_status() {
        let answer = Answer::Message {
            head: Bytes::from_static(b"ab"),
            tail: Some(Bytes::from_static(b"cde").into()),
        };
        let collected = GrpcBody::new(answer).collect().await.unwrap();
        let status = collected.trailers().unwrap()["grpc-status"].clone();
        assert_eq!(status, "0");
        assert_eq!(collected.to_bytes(), &b"\0\0\0\0\x05abcde"[..]);
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_status() {
        let messages = stream::iter([
            Ok(Bytes::from_static(b"a")),
            Err(flwr_transport::Context::draining()),
        ]);
        let collected = GrpcBody::new(Answer::Stream(Box::pin(messages)))
            .collect()
            .await
            .unwrap();
        let status = collected.trailers().unwrap()["grpc-status"].clone();
        assert_eq!(status, "4");
        assert_eq!(collected.to_bytes(), &b"\0\0\0\0\x01a"[..]);
    }
}
