//! The byte streams that travel with a call.

use std::fmt;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt};

/// Bytes of a call or a reply: one piece that is already here, or a stream of pieces.
///
/// Pieces are handed on as [`Bytes`] and are never copied by passing through.
pub struct Body {
    len: Option<u64>,
    inner: Inner,
}

enum Inner {
    Whole(Option<Bytes>),
    Stream(BoxStream<'static, Result<Bytes, BodyError>>),
}

/// Why a body ended before its last byte.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The sender stopped or its connection broke.
    #[error("the sender stopped before the end of the body")]
    Interrupted,
    /// More bytes came than were announced or allowed.
    #[error("the body is longer than {max} bytes")]
    TooLong {
        /// The bound that was passed, in bytes.
        max: u64,
    },
    /// Fewer bytes came than were announced.
    #[error("the body ended at {received} of {announced} bytes")]
    TooShort {
        /// Bytes announced.
        announced: u64,
        /// Bytes that came.
        received: u64,
    },
}

impl Body {
    /// A body that is wholly here.
    #[must_use]
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self {
            len: Some(bytes.len() as u64),
            inner: Inner::Whole(Some(bytes)),
        }
    }

    /// A body that arrives in pieces; `len` is its length in bytes where it is known beforehand.
    pub fn from_stream<S>(len: Option<u64>, chunks: S) -> Self
    where
        S: futures_util::Stream<Item = Result<Bytes, BodyError>> + Send + 'static,
    {
        Self {
            len,
            inner: Inner::Stream(chunks.boxed()),
        }
    }

    /// The announced length in bytes.
    #[must_use]
    pub fn len(&self) -> Option<u64> {
        self.len
    }

    /// Whether the body is announced to have no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == Some(0)
    }

    /// The next piece, or nothing at the end. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        match &mut self.inner {
            Inner::Whole(bytes) => bytes.take().filter(|b| !b.is_empty()).map(Ok),
            Inner::Stream(chunks) => chunks.next().await,
        }
    }

    /// The pieces as a stream.
    #[must_use]
    pub fn into_stream(self) -> BoxStream<'static, Result<Bytes, BodyError>> {
        match self.inner {
            Inner::Whole(bytes) => stream::iter(bytes.filter(|b| !b.is_empty()).map(Ok)).boxed(),
            Inner::Stream(chunks) => chunks,
        }
    }

    /// The whole body in one piece, without a copy where it came in one.
    ///
    /// Dropping the future loses what was read.
    ///
    /// # Errors
    /// [`BodyError::TooLong`] beyond `max` bytes, [`BodyError::TooShort`] if fewer bytes came than
    /// were announced, [`BodyError::Interrupted`] if the sender stopped.
    pub async fn collect(mut self, max: u64) -> Result<Bytes, BodyError> {
        if self.len.is_some_and(|len| len > max) {
            return Err(BodyError::TooLong { max });
        }
        let announced = self.len;
        let Some(first) = self.next().await.transpose()? else {
            return finish(Bytes::new(), announced);
        };
        let Some(second) = self.next().await.transpose()? else {
            return finish(within(first, max)?, announced);
        };
        let mut whole = BytesMut::with_capacity(capacity_hint(announced, first.len()));
        whole.extend_from_slice(&first);
        drop(first);
        let mut next = Some(second);
        while let Some(chunk) = next {
            if whole.len() as u64 + chunk.len() as u64 > max {
                return Err(BodyError::TooLong { max });
            }
            whole.extend_from_slice(&chunk);
            next = self.next().await.transpose()?;
        }
        finish(whole.freeze(), announced)
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::from_bytes(bytes)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

fn within(bytes: Bytes, max: u64) -> Result<Bytes, BodyError> {
    if bytes.len() as u64 > max {
        return Err(BodyError::TooLong { max });
    }
    Ok(bytes)
}

fn finish(bytes: Bytes, announced: Option<u64>) -> Result<Bytes, BodyError> {
    match announced {
        Some(announced) if bytes.len() as u64 != announced => {
            let received = bytes.len() as u64;
            if received > announced {
                Err(BodyError::TooLong { max: announced })
            } else {
                Err(BodyError::TooShort {
                    announced,
                    received,
                })
            }
        }
        _ => Ok(bytes),
    }
}

/// A peer's announcement is believed up to 64 MiB; beyond that the buffer grows as bytes arrive.
fn capacity_hint(announced: Option<u64>, at_least: usize) -> usize {
    const BELIEVED_MAX: u64 = 64 << 20;
    let announced = announced.unwrap_or(0).min(BELIEVED_MAX);
    usize::try_from(announced).unwrap_or(0).max(at_least)
}
