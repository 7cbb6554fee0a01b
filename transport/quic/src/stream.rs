//! The two halves of a stream, which end whole or visibly broken.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flwr_transport::{Code, Status};
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, StoppedError, VarInt, WriteError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::code::{BROKEN, refusal};
use crate::frame::{Decoder, FrameError, encode};
use crate::head::HELLO_BYTES_MAX;
use crate::metrics::Direction;
use crate::pulse::{Awaited, Pulse};
use crate::windows::{Receiving, Sending, Windows};

/// What a peer may ask of this end's patience and memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The longest value that this end reads, in bytes.
    pub(crate) read_bytes_max: usize,
    /// The longest value that the peer reads, in bytes.
    pub(crate) write_bytes_max: usize,
    /// How long a stream may stand still in the middle of a body.
    pub(crate) still_max: Duration,
}

impl Limits {
    /// For the first stream.
    pub(crate) fn of_hello(self) -> Self {
        Self {
            read_bytes_max: HELLO_BYTES_MAX,
            write_bytes_max: HELLO_BYTES_MAX,
            ..self
        }
    }
}

/// The half that this end writes. Dropping it before [`finish`](Self::finish) breaks it, so that
/// nobody takes what came for the whole.
#[derive(Debug)]
pub(crate) struct Outgoing {
    stream: SendStream,
    /// How the stream is reset when it is dropped.
    broken: Option<VarInt>,
    limits: Limits,
    windows: Option<Arc<Windows>>,
    sending: Option<Sending>,
}

/// The half that this end reads. Dropping it stops the writer.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) stream: RecvStream,
    pub(crate) decoder: Decoder,
    pub(crate) still_max: Duration,
    windows: Option<Arc<Windows>>,
    receiving: Option<Receiving>,
    pulse: Option<Arc<Pulse>>,
    /// While a value has begun whose rest is to come.
    awaited: Option<Awaited>,
    /// Where a long head is collected, for as long as its call is answered.
    room: Option<OwnedSemaphorePermit>,
}

/// Why the next value does not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Missing {
    #[error("the stream ended in the middle of a value")]
    Cut,
    #[error("the stream was reset with code {0}")]
    Reset(VarInt),
    #[error("the connection is gone: {0}")]
    Lost(ConnectionError),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl Outgoing {
    pub(crate) fn new(stream: SendStream, limits: Limits) -> Self {
        Self {
            stream,
            broken: Some(BROKEN),
            limits,
            windows: None,
            sending: None,
        }
    }

    /// The same half, whose long heads and bodies need room in these windows.
    pub(crate) fn within(mut self, windows: &Arc<Windows>) -> Self {
        self.windows = Some(Arc::clone(windows));
        self
    }

    /// Writes; a peer that makes no room for so long counts as gone.
    pub(crate) async fn write(&mut self, mut bytes: Bytes) -> Result<(), WriteError> {
        if bytes.len() >= LONG_BYTES {
            self.make_room();
        }
        while !bytes.is_empty() {
            let some = bytes.split_to(bytes.len().min(WRITE_BYTES));
            let written = timeout(self.limits.still_max, self.stream.write_chunk(some)).await;
            let Ok(written) = written else {
                Direction::Sent.count_stalled();
                return Err(WriteError::ClosedStream);
            };
            written?;
            if let Some(sending) = &self.sending {
                sending.written();
            }
        }
        Ok(())
    }

    fn make_room(&mut self) {
        if self.sending.is_none() {
            self.sending = self.windows.as_ref().map(Windows::sending);
        }
    }

    /// A value as it is written.
    pub(crate) fn frame<T: Serialize>(&self, value: &T) -> Result<Bytes, FrameError> {
        encode(value, self.limits.write_bytes_max)
    }

    /// Writes a value; one that is too long for the peer breaks the stream.
    pub(crate) async fn write_value<T: Serialize>(&mut self, value: &T) -> Result<(), WriteError> {
        match self.frame(value) {
            Ok(frame) => self.write(frame).await,
            Err(error) => {
                tracing::warn!(%error, "a value cannot be sent");
                Err(WriteError::Stopped(BROKEN))
            }
        }
    }

    /// Makes room for many bytes, and lets small calls pass this stream.
    pub(crate) fn carry_many(&mut self) {
        self.make_room();
        // A stream that is stopped already needs none.
        let _ = self.stream.set_priority(-1);
    }

    /// Ends the stream.
    pub(crate) fn finish(&mut self) {
        self.broken = None;
        // If the peer has stopped it, it is ended already.
        let _ = self.stream.finish();
    }

    /// Completes when the peer has all of a finished stream, or wants no more of it.
    pub(crate) fn over(
        &self,
    ) -> impl Future<Output = Result<Option<VarInt>, StoppedError>> + Send + use<> {
        self.stream.stopped()
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Some(code) = self.broken {
            // It is ended already.
            let _ = self.stream.reset(code);
        }
    }
}

impl Incoming {
    pub(crate) fn new(stream: RecvStream, limits: Limits) -> Self {
        Self {
            stream,
            decoder: Decoder::new(limits.read_bytes_max),
            still_max: limits.still_max,
            windows: None,
            receiving: None,
            pulse: None,
            awaited: None,
            room: None,
        }
    }

    /// The same half, whose long heads and bodies need room in these windows.
    pub(crate) fn within(mut self, windows: &Arc<Windows>) -> Self {
        self.windows = Some(Arc::clone(windows));
        self
    }

    /// The same half, of which this connection awaits the rest of what has begun.
    pub(crate) fn of(mut self, pulse: &Arc<Pulse>) -> Self {
        self.pulse = Some(Arc::clone(pulse));
        self
    }

    /// A body is awaited, at the end that asks.
    pub(crate) fn awaiting(&self) -> Option<Awaited> {
        self.pulse.as_ref().map(Pulse::awaiting)
    }

    /// Room for a body of so many bytes.
    pub(crate) fn receiving(&self, announced: Option<u64>) -> Option<Receiving> {
        let windows = self.windows.as_ref();
        windows.map(|windows| windows.receiving(announced))
    }

    /// The next value, or nothing at the end. Cancel safe.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Missing> {
        loop {
            if let Some(value) = self.decoder.decode()? {
                (self.receiving, self.awaited) = (None, None);
                return Ok(Some(value));
            }
            if self.awaited.is_none() && !self.decoder.is_empty() {
                self.awaited = self.awaiting();
            }
            let long = self.decoder.announced();
            let long = long.filter(|bytes| *bytes >= LONG_BYTES as u64);
            if let (Some(bytes), Some(windows), None) = (long, &self.windows, &self.receiving) {
                self.room = windows.head(bytes).await;
                self.receiving = self.receiving(long);
            }
            match self.stream.read_chunk(CHUNK_BYTES_MAX, true).await {
                Ok(Some(chunk)) => {
                    let bytes = chunk.bytes.len() as u64;
                    match (&mut self.receiving, &self.windows) {
                        (Some(receiving), _) => receiving.read(bytes),
                        (None, Some(windows)) => windows.read(bytes),
                        (None, None) => {}
                    }
                    self.decoder.push(&chunk.bytes);
                }
                Ok(None) if self.decoder.is_empty() => return Ok(None),
                Ok(None) => return Err(Missing::Cut),
                Err(ReadError::Reset(code)) => return Err(Missing::Reset(code)),
                Err(ReadError::ConnectionLost(error)) => return Err(Missing::Lost(error)),
                Err(
                    ReadError::ClosedStream
                    | ReadError::IllegalOrderedRead
                    | ReadError::ZeroRttRejected,
                ) => {
                    return Err(Missing::Cut);
                }
            }
        }
    }
}

impl From<Missing> for Status {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::Lost(error) => lost(&error),
            Missing::Cut | Missing::Reset(_) => {
                Self::new(Code::Unavailable, format!("there is no answer: {missing}"))
            }
            Missing::Frame(error) => Self::new(
                Code::Internal,
                format!("the answer cannot be understood: {error}"),
            ),
        }
    }
}

/// What the end of the connection means to its calls.
pub(crate) fn lost(error: &ConnectionError) -> Status {
    refusal(error).unwrap_or_else(|| {
        Status::new(
            Code::Unavailable,
            format!("the connection is gone: {error}"),
        )
    })
}

/// Bytes that a peer has to make room for in [`Limits::still_max`].
const WRITE_BYTES: usize = 256 << 10;
/// Heads from here on are long, as bodies are.
const LONG_BYTES: usize = 32 << 10;
/// Bytes that are copied behind a value at most, beside the value.
const CHUNK_BYTES_MAX: usize = 16 << 10;
