//! gRPC's length-prefixed messages over HTTP/2 bodies.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use flwr_transport::{BodyError, Room, Status};
use futures_util::stream::BoxStream;
use http::HeaderMap;
use http_body::{Body, Frame};
use http_body_util::BodyExt;

use crate::buffers::{Buffers, Received};
use crate::dialect::Answer;
use crate::status::end_of_stream;

/// A compression flag and the message's length.
pub(crate) const PREFIX_BYTES: usize = 5;

/// An announced length is believed up to this; a buffer for more grows as the bytes arrive.
pub(crate) const BELIEVED_BYTES_MAX: usize = 32 << 20;

/// Reads the one message of a unary request.
///
/// The message has a buffer of its own size, shared with nothing, so that whoever keeps a part
/// of it keeps no more than the message. Its room is taken when its length is known. `idle` bounds
/// the wait for each piece.
pub(crate) async fn read_message<B>(
    mut body: B,
    bytes_max: usize,
    idle: Duration,
    buffers: &Buffers,
) -> Result<Received, tonic::Status>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let mut prefix = BytesMut::with_capacity(PREFIX_BYTES);
    let mut message: Option<(usize, Vec<u8>, Room)> = None;
    while let Some(mut data) = next_data(&mut body, idle).await? {
        if message.is_none() {
            let missing = PREFIX_BYTES - prefix.len();
            prefix.extend_from_slice(&data.split_to(missing.min(data.len())));
            if prefix.len() < PREFIX_BYTES {
                continue;
            }
            let length = announced(&prefix, bytes_max)?;
            let room = buffers.room(length).await?;
            message = Some((length, buffers.take(length.min(BELIEVED_BYTES_MAX)), room));
        }
        if let Some((length, buffer, _)) = &mut message {
            append(buffer, &data, *length)?;
        }
    }
    match message {
        Some((length, buffer, room)) if buffer.len() == length => Ok(Received {
            message: buffers.seal(buffer),
            room,
        }),
        // The peer ended the stream, or its connection broke.
        _ => Err(tonic::Status::unavailable("the request ended early")),
    }
}

/// The next piece of a body; `idle` bounds the wait for it.
pub(crate) async fn next_data<B>(
    body: &mut B,
    idle: Duration,
) -> Result<Option<Bytes>, tonic::Status>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    loop {
        let frame = tokio::time::timeout(idle, body.frame())
            .await
            .map_err(|_| tonic::Status::unavailable("the request stopped arriving"))?;
        match frame {
            None => return Ok(None),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Some(Err(error)) => {
                return Err(tonic::Status::unavailable(format!(
                    "the request broke off: {error}"
                )));
            }
        }
    }
}

pub(crate) fn announced(prefix: &[u8], bytes_max: usize) -> Result<usize, tonic::Status> {
    if prefix[0] != 0 {
        return Err(tonic::Status::unimplemented(
            "compressed messages are not supported",
        ));
    }
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    if length > bytes_max {
        return Err(tonic::Status::resource_exhausted(format!(
            "the message has {length} bytes; {bytes_max} are allowed"
        )));
    }
    Ok(length)
}

pub(crate) fn append(
    buffer: &mut Vec<u8>,
    data: &[u8],
    length: usize,
) -> Result<(), tonic::Status> {
    let needed = buffer.len() + data.len();
    if needed > length {
        return Err(tonic::Status::invalid_argument(
            "the request has more than one message",
        ));
    }
    if needed > buffer.capacity() {
        // Doubling, but never past the announced end.
        let goal = (buffer.capacity() * 2).max(needed).min(length);
        buffer.try_reserve_exact(goal - buffer.len()).map_err(|_| {
            tonic::Status::resource_exhausted("no memory for a message of this size")
        })?;
    }
    buffer.extend_from_slice(data);
    Ok(())
}

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
    use flwr_transport::MemoryBudget;
    use futures_util::stream;
    use http_body_util::StreamBody;

    const IDLE: Duration = Duration::from_secs(1);

    fn pieces(pieces: &[&[u8]]) -> impl Body<Data = Bytes, Error = BodyError> + Unpin + use<> {
        let frames: Vec<_> = pieces
            .iter()
            .map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece))))
            .collect();
        StreamBody::new(stream::iter(frames))
    }

    fn no_buffers() -> Buffers {
        Buffers::new(0, MemoryBudget::unbounded())
    }

    #[tokio::test]
    async fn a_message_is_read_however_it_is_cut() {
        let whole = [0u8, 0, 0, 0, 3, b'a', b'b', b'c'];
        for cut in 0..=whole.len() {
            for second in cut..=whole.len() {
                let body = pieces(&[&whole[..cut], &whole[cut..second], &whole[second..]]);
                let read = read_message(body, 3, IDLE, &no_buffers()).await;
                assert_eq!(read.unwrap().message, "abc");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_single_message_is_refused() {
        let cases: [(&[u8], tonic::Code); 7] = [
            (b"", tonic::Code::Unavailable),
            (b"\0\0\0", tonic::Code::Unavailable),
            (b"\0\0\0\0\x03ab", tonic::Code::Unavailable),
            (b"\0\0\0\0\x02abc", tonic::Code::InvalidArgument),
            (b"\x01\0\0\0\x02ab", tonic::Code::Unimplemented),
            (b"\0\0\0\0\x09abcdefghi", tonic::Code::ResourceExhausted),
            (b"\0\xff\xff\xff\xff", tonic::Code::ResourceExhausted),
        ];
        for (bytes, code) in cases {
            let refused = read_message(pieces(&[bytes]), 8, IDLE, &no_buffers())
                .await
                .unwrap_err();
            assert_eq!(refused.code(), code, "{bytes:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_stops_is_not_waited_for() {
        let silent = StreamBody::new(stream::pending::<Result<Frame<Bytes>, BodyError>>());
        let refused = read_message(Box::pin(silent), 8, IDLE, &no_buffers())
            .await
            .unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unavailable);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_without_room_is_not_read() {
        let budget = MemoryBudget::new(1 << 20);
        let buffers = Buffers::new(0, budget.clone());
        let taken = budget.take(1 << 20).await.unwrap();
        let mut whole = vec![0u8, 0, 1, 0, 0];
        whole.resize(PREFIX_BYTES + (64 << 10), 7);
        let mut read = 0;
        let frames = whole.chunks(1 << 10).map(|piece| {
            read += 1;
            Ok::<_, BodyError>(Frame::data(Bytes::copy_from_slice(piece)))
        });
        let body = StreamBody::new(stream::iter(frames));
        let refused = read_message(body, 1 << 20, IDLE, &buffers).await;
        assert_eq!(refused.unwrap_err().code(), tonic::Code::Unavailable);
        assert_eq!(read, 1);
        drop(taken);
        let message = read_message(pieces(&[&whole]), 1 << 20, IDLE, &buffers)
            .await
            .unwrap();
        assert_eq!(budget.free_bytes(), (1 << 20) - (64 << 10));
        drop(message);
        assert_eq!(budget.free_bytes(), 1 << 20);
    }

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
