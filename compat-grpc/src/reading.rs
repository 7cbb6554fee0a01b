//! gRPC's length-prefixed messages out of the bodies of HTTP/2 requests.

use std::time::Duration;

use bytes::Bytes;
use flwr_transport::{BodyError, Room};
use futures_util::stream;
use http_body::Body;
use http_body_util::BodyExt;

use crate::accept::Limits;
use crate::buffers::{Buffers, Received};
use crate::dialect::Split;
use crate::framing::PREFIX_BYTES;

/// An announced length is believed up to this; a buffer for more grows as the bytes arrive.
pub(crate) const BELIEVED_BYTES_MAX: usize = 32 << 20;

/// Messages below this size are read whole in any case.
const STREAMED_BYTES_MIN: usize = 256 << 10;

/// An object that has not begun after so many bytes is not looked for any more.
const SPLIT_BYTES_MAX: usize = 64 << 10;

/// Reads the one message of a unary request, or its beginning up to an object that is handed on while it arrives.
///
/// What is read whole has a buffer of its own size, shared with nothing, so that whoever keeps a part
/// of it keeps no more than the message. Its room is taken when its length is known. [`Limits::idle`]
/// bounds the wait for each piece.
pub(crate) async fn read_message<B>(
    mut body: B,
    limits: &Limits,
    buffers: &Buffers,
    split: impl Fn(&[u8], u64) -> Split,
) -> Result<Received, tonic::Status>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    let mut seen = Bytes::new();
    while seen.len() < PREFIX_BYTES {
        seen = more(seen, &mut body, limits.idle).await?;
    }
    let prefix = seen.split_to(PREFIX_BYTES);
    let length = announced(&prefix, limits.message_bytes_max)?;
    let mut is_sought = limits.streams_objects && length >= STREAMED_BYTES_MIN;
    while is_sought {
        match split(&seen, length as u64) {
            Split::At { head, object } => {
                let rest = seen.split_off(object);
                seen.truncate(head);
                let bytes = (length - object) as u64;
                return Ok(Received {
                    message: seen,
                    object: Some(hand_on(rest, bytes, body, limits.idle)),
                    room: Room::default(),
                });
            }
            Split::More if seen.len() < SPLIT_BYTES_MAX => {
                seen = more(seen, &mut body, limits.idle).await?;
            }
            Split::More | Split::Whole => is_sought = false,
        }
    }
    let room = buffers.room(length).await?;
    let mut buffer = buffers.take(length.min(BELIEVED_BYTES_MAX));
    append(&mut buffer, &seen, length)?;
    drop(seen);
    while let Some(data) = next_data(&mut body, limits.idle).await? {
        append(&mut buffer, &data, length)?;
    }
    if buffer.len() < length {
        return Err(ended_early());
    }
    Ok(Received {
        message: buffers.seal(buffer),
        object: None,
        room,
    })
}

/// The bytes of an object: those that are here, then those that come.
fn hand_on<B>(first: Bytes, bytes: u64, body: B, idle: Duration) -> flwr_transport::Body
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    let pieces = stream::unfold(Some((first, body)), move |rest| async move {
        let (first, mut body) = rest?;
        if !first.is_empty() {
            return Some((Ok(first), Some((Bytes::new(), body))));
        }
        match next_data(&mut body, idle).await {
            Ok(Some(data)) => Some((Ok(data), Some((Bytes::new(), body)))),
            Ok(None) => None,
            Err(why) => {
                tracing::debug!(why = why.message(), "an object broke off");
                Some((Err(BodyError::Interrupted), None))
            }
        }
    });
    flwr_transport::Body::from_stream(Some(bytes), pieces)
}

/// What is here and the next piece.
async fn more<B>(seen: Bytes, body: &mut B, idle: Duration) -> Result<Bytes, tonic::Status>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let piece = next_data(body, idle).await?.ok_or_else(ended_early)?;
    Ok(join(seen, piece))
}

/// Copies only where two pieces meet in the few bytes that are looked at.
pub(crate) fn join(seen: Bytes, piece: Bytes) -> Bytes {
    if seen.is_empty() {
        return piece;
    }
    [seen, piece].concat().into()
}

/// The peer ended the stream, or its connection broke.
fn ended_early() -> tonic::Status {
    tonic::Status::unavailable("the request ended early")
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
                // Whoever is gone does not hear it.
                return Err(tonic::Status::cancelled(format!(
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use flwr_transport::MemoryBudget;
    use http_body::Frame;
    use http_body_util::StreamBody;

    fn limits(message_bytes_max: usize) -> Limits {
        Limits {
            message_bytes_max,
            idle: Duration::from_secs(1),
            ..Limits::default()
        }
    }

    async fn read<B>(
        body: B,
        bytes_max: usize,
        buffers: &Buffers,
    ) -> Result<Received, tonic::Status>
    where
        B: Body<Data = Bytes, Error = BodyError> + Send + Unpin + 'static,
    {
        read_message(body, &limits(bytes_max), buffers, |_, _| Split::Whole).await
    }

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
                let read = read(body, 3, &no_buffers()).await;
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
            let refused = read(pieces(&[bytes]), 8, &no_buffers()).await.unwrap_err();
            assert_eq!(refused.code(), code, "{bytes:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_stops_is_not_waited_for() {
        let silent = StreamBody::new(stream::pending::<Result<Frame<Bytes>, BodyError>>());
        let refused = read(Box::pin(silent), 8, &no_buffers()).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unavailable);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_without_room_is_not_read() {
        let budget = MemoryBudget::new(1 << 20);
        let buffers = Buffers::new(0, budget.clone());
        let taken = budget.take(1 << 20).await.unwrap();
        let mut whole = vec![0u8, 0, 1, 0, 0];
        whole.resize(PREFIX_BYTES + (64 << 10), 7);
        let asked_for = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked_for);
        let cut: Vec<_> = whole.chunks(1 << 10).map(Bytes::copy_from_slice).collect();
        let frames = cut.into_iter().map(move |piece| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok::<_, BodyError>(Frame::data(piece))
        });
        let body = StreamBody::new(stream::iter(frames));
        let refused = read(body, 1 << 20, &buffers).await;
        assert_eq!(refused.unwrap_err().code(), tonic::Code::Unavailable);
        assert_eq!(asked_for.load(Ordering::Relaxed), 1);
        drop(taken);
        let message = read(pieces(&[&whole]), 1 << 20, &buffers).await.unwrap();
        assert_eq!(budget.free_bytes(), (1 << 20) - (64 << 10));
        drop(message);
        assert_eq!(budget.free_bytes(), 1 << 20);
    }

    /// A message of four bytes and an object of sevens, and where that begins.
    fn announced_object(object_bytes: usize) -> (Vec<u8>, impl Fn(&[u8], u64) -> Split) {
        let length = u32::try_from(4 + object_bytes).unwrap();
        let mut message = vec![0];
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(b"head");
        message.resize(PREFIX_BYTES + 4 + object_bytes, 7);
        let split = |seen: &[u8], _| match seen.len() {
            0..4 => Split::More,
            _ => Split::At { head: 2, object: 4 },
        };
        (message, split)
    }

    #[tokio::test]
    async fn a_large_object_is_handed_on_while_it_arrives_and_takes_no_room() {
        let (message, split) = announced_object(1 << 20);
        let limits = Limits {
            streams_objects: true,
            ..limits(2 << 20)
        };
        for (bytes, cut) in [
            (message.len(), 3),
            (message.len(), 8),
            (message.len() - 1, 5),
        ] {
            let budget = MemoryBudget::new(1 << 20);
            let buffers = Buffers::new(0, budget.clone());
            let all = budget.take(1 << 20).await.unwrap();
            let body = pieces(&[&message[..cut], &message[cut..bytes]]);
            let received = read_message(body, &limits, &buffers, &split).await.unwrap();
            assert_eq!(received.message, &b"he"[..]);
            let object = received.object.unwrap();
            assert_eq!(object.len(), Some(1 << 20));
            let object = object.checked().collect(2 << 20).await;
            if bytes == message.len() {
                assert_eq!(object.unwrap(), vec![7; 1 << 20]);
            } else {
                assert_eq!(
                    object.unwrap_err(),
                    BodyError::TooShort {
                        announced: 1 << 20,
                        received: (1 << 20) - 1,
                    }
                );
            }
            drop(all);
        }
    }

    #[tokio::test]
    async fn objects_are_read_whole_where_they_are_small_or_nobody_streams() {
        let (message, split) = announced_object(1000);
        let (large, _) = announced_object(1 << 20);
        for (message, streams_objects) in [(&message, true), (&large, false)] {
            let limits = Limits {
                streams_objects,
                ..limits(2 << 20)
            };
            let read = read_message(pieces(&[message]), &limits, &no_buffers(), &split).await;
            let read = read.unwrap();
            assert!(read.object.is_none());
            assert_eq!(read.message, message[PREFIX_BYTES..]);
        }
    }
}
