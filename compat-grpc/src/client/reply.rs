//! Reading a response: one message and a status, or an object that is handed on while it arrives.

use std::time::Duration;

use bytes::Bytes;
use flwr_transport::{BodyError, Code, Status};
use futures_util::stream;
use http::{HeaderMap, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::asking::{Peek, Peeked, Received};
use super::errors::{Failed, broke_off, broken, status_in, status_of_http, unusable};
use super::rest::Lease;
use crate::framing::PREFIX_BYTES;
use crate::reading::{BELIEVED_BYTES_MAX, announced, append, join};

/// An object that does not begin within this many bytes is not looked for.
const PEEK_BYTES_MAX: usize = 16 << 10;

/// What a server may make this end hold and wait for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) message_bytes_max: usize,
    /// How long a message that has begun may stop arriving.
    pub(super) idle: Duration,
}

impl Bounds {
    /// Refuses to send what no server takes.
    pub(super) fn check(&self, message_bytes: u64) -> Result<(), Status> {
        if message_bytes <= self.message_bytes_max as u64 {
            return Ok(());
        }
        Err(Status::new(
            Code::ResourceExhausted,
            format!("the message has {message_bytes} bytes, more than gRPC carries"),
        ))
    }
}

/// Reads an answer. An object's bytes may still be arriving when it returns.
pub(super) async fn read(
    response: Response<Incoming>,
    peek: Option<Peek>,
    bounds: Bounds,
) -> Result<Received, Failed> {
    let (head, body) = response.into_parts();
    judge_head(head.status, &head.headers)?;
    let mut pieces = Pieces {
        body,
        idle: None,
        ending: Ending::Trailers(None),
    };
    let (length, seen) = begin(&mut pieces, bounds.message_bytes_max).await?;
    pieces.idle = Some(bounds.idle);
    message(seen, length, peek, pieces).await
}

/// Reads a message of this length, of which `seen` is here, to its end or to where its object begins.
pub(super) async fn message(
    mut seen: Bytes,
    length: usize,
    peek: Option<Peek>,
    mut pieces: Pieces,
) -> Result<Received, Failed> {
    if let Some(peek) = peek {
        loop {
            match peek(&seen, length as u64) {
                Peeked::ObjectAt(at) => return Ok(hand_on(seen, at, length, pieces)),
                Peeked::More if seen.len() < length.min(PEEK_BYTES_MAX) => {}
                Peeked::More | Peeked::Whole => break,
            }
            let piece = pieces.next().await?.ok_or_else(|| pieces.ended_early())?;
            seen = join(seen, piece);
        }
    }
    collect(seen, length, pieces).await
}

/// A refusal without a body, or what is no gRPC at all.
fn judge_head(code: StatusCode, headers: &HeaderMap) -> Result<(), Failed> {
    if let Some(status) = status_in(headers) {
        return Err(match status.code() {
            tonic::Code::Ok => unusable("it has no message").into(),
            _ => status.into(),
        });
    }
    if code != StatusCode::OK {
        return Err(status_of_http(code).into());
    }
    let content_type = headers.get(header::CONTENT_TYPE);
    if content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc")) {
        return Ok(());
    }
    Err(unusable("it is not gRPC: check the port").into())
}

/// The length of the message and what came of it so far.
async fn begin(pieces: &mut Pieces, bytes_max: usize) -> Result<(usize, Bytes), Failed> {
    let mut seen = Bytes::new();
    while seen.len() < PREFIX_BYTES {
        let piece = pieces.next().await?.ok_or_else(|| pieces.ended_early())?;
        seen = join(seen, piece);
    }
    let prefix = seen.split_to(PREFIX_BYTES);
    let length = announced(&prefix, bytes_max).map_err(|why| unusable(why.message()))?;
    Ok((length, seen))
}

async fn collect(seen: Bytes, length: usize, mut pieces: Pieces) -> Result<Received, Failed> {
    let mut message = Vec::with_capacity(length.min(BELIEVED_BYTES_MAX));
    let mut next = Some(seen);
    while let Some(piece) = next {
        append(&mut message, &piece, length).map_err(|why| unusable(why.message()))?;
        next = pieces.next().await?;
    }
    if message.len() < length {
        return Err(pieces.ended_early());
    }
    pieces.ended()?;
    Ok(Received {
        head: message.into(),
        tail: None,
    })
}

/// The object's bytes as a body: the piece that is here, then what comes.
fn hand_on(mut seen: Bytes, at: usize, length: usize, pieces: Pieces) -> Received {
    let head = seen.split_to(at);
    let object_bytes = (length - at) as u64;
    let rest = Rest {
        first: seen,
        pieces,
        missing: object_bytes,
        object_bytes,
    };
    let chunks = stream::unfold(Some(rest), async |rest| rest?.next().await);
    Received {
        head,
        tail: Some(flwr_transport::Body::from_stream(
            Some(object_bytes),
            chunks,
        )),
    }
}

/// What is still to come of an object.
struct Rest {
    first: Bytes,
    pieces: Pieces,
    missing: u64,
    object_bytes: u64,
}

impl Rest {
    async fn next(mut self) -> Option<(Result<Bytes, BodyError>, Option<Self>)> {
        let piece = if self.first.is_empty() {
            match self.pieces.next().await {
                Ok(Some(piece)) => piece,
                Ok(None) if self.missing == 0 && self.pieces.ended().is_ok() => return None,
                Ok(None) | Err(_) => return Some((Err(BodyError::Interrupted), None)),
            }
        } else {
            std::mem::take(&mut self.first)
        };
        match self.missing.checked_sub(piece.len() as u64) {
            Some(missing) => self.missing = missing,
            None => {
                let max = self.object_bytes;
                return Some((Err(BodyError::TooLong { max }), None));
            }
        }
        Some((Ok(piece), Some(self)))
    }
}

/// A response's data.
pub(super) struct Pieces {
    body: Incoming,
    /// The longest wait for the next piece.
    idle: Option<Duration>,
    ending: Ending,
}

/// How a response ends.
enum Ending {
    /// With a status in these, once they came.
    Trailers(Option<HeaderMap>),
    /// Where HTTP says; then the next request may use its connection.
    Length(Option<Lease>),
}

impl Pieces {
    /// Those of a response of HTTP/1.
    pub(super) fn of_http1(body: Incoming, idle: Duration, lease: Lease) -> Self {
        let mut pieces = Self {
            body,
            idle: Some(idle),
            ending: Ending::Length(Some(lease)),
        };
        pieces.give_back();
        pieces
    }

    /// The next bytes, at least one; nothing at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failed> {
        loop {
            let frame = match self.idle {
                None => self.body.frame().await,
                Some(idle) => tokio::time::timeout(idle, self.body.frame())
                    .await
                    .map_err(|_| broke_off())?,
            };
            let Some(frame) = frame else { break };
            match frame.map_err(|error| broken(&error))?.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    self.give_back();
                    return Ok(Some(data));
                }
                Err(frame) => {
                    if let Ending::Trailers(trailers) = &mut self.ending {
                        *trailers = frame.into_trailers().ok();
                    }
                }
            }
        }
        self.give_back();
        Ok(None)
    }

    fn give_back(&mut self) {
        if let Ending::Length(lease) = &mut self.ending
            && self.body.is_end_stream()
            && let Some(lease) = lease.take()
        {
            lease.give_back();
        }
    }

    /// After the whole message: whether the server stands by it.
    fn ended(&self) -> Result<(), Failed> {
        let Ending::Trailers(trailers) = &self.ending else {
            return Ok(());
        };
        match trailers.as_ref().and_then(status_in) {
            Some(status) if status.code() == tonic::Code::Ok => Ok(()),
            Some(status) => Err(status.into()),
            // hyper takes some resets for an end.
            None => Err(broke_off().into()),
        }
    }

    /// Before the whole message was there.
    fn ended_early(&self) -> Failed {
        match self.ended() {
            Ok(()) => unusable("its message is cut off").into(),
            Err(failed) => failed,
        }
    }
}
