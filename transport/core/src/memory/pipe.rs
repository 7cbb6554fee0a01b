//! A bounded queue with an end that is told from a broken one.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use futures_util::{FutureExt, Stream};
use tokio::sync::{mpsc, oneshot};

use crate::body::{Body, BodyError};

/// The writing end. Dropping it without [`carry`] breaks the pipe.
pub(super) struct Writer<T, E> {
    items: mpsc::Sender<T>,
    /// Beside the queue, so that a full one cannot delay the end.
    end: oneshot::Sender<Result<(), E>>,
}

/// A pipe that holds `capacity` items. Its reader fails with `broken` if the writer vanishes.
pub(super) fn pipe<T, E>(
    capacity: usize,
    broken: E,
) -> (Writer<T, E>, BoxStream<'static, Result<T, E>>)
where
    T: Send + 'static,
    E: Send + 'static,
{
    let (items, received) = mpsc::channel(capacity.max(1));
    let (end, ended) = oneshot::channel();
    let reader = stream::unfold(Some((received, ended, broken)), async |pipe| {
        let (mut received, mut ended, broken) = pipe?;
        if let Some(item) = received.recv().await {
            return Some((Ok(item), Some((received, ended, broken))));
        }
        match (&mut ended).await {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => Some((Err(failure), None)),
            Err(_) => Some((Err(broken), None)),
        }
    });
    (Writer { items, end }, reader.boxed())
}

/// Moves `source` into a pipe until it ends, its reader is gone, or `stop` decides how it ends.
/// If `source` panics, the reader fails with `panicked`.
pub(super) async fn carry<T, E>(
    source: impl Stream<Item = Result<T, E>>,
    writer: Writer<T, E>,
    stop: impl Future<Output = Result<(), E>>,
    panicked: E,
) {
    let Writer { items, end } = writer;
    let end_with = tokio::select! {
        biased;
        stopped = stop => stopped,
        carried = AssertUnwindSafe(copy(source, &items)).catch_unwind() => {
            carried.unwrap_or(Err(panicked))
        }
    };
    // A reader that is gone needs no end.
    end.send(end_with).ok();
}

async fn copy<T, E>(
    source: impl Stream<Item = Result<T, E>>,
    items: &mpsc::Sender<T>,
) -> Result<(), E> {
    let mut source = pin!(source);
    // Room comes first: what was taken from the source is never lost to a stop.
    while let Ok(room) = items.reserve().await {
        let item = tokio::select! {
            biased;
            () = items.closed() => break,
            item = source.next() => item,
        };
        let Some(item) = item else { break };
        room.send(item?);
    }
    Ok(())
}

/// The pieces of a body as they travel: the announced length is kept to, no piece is longer than
/// `bytes_max`, and the reason of a failure stays behind.
pub(super) fn pieces(
    body: Body,
    bytes_max: usize,
) -> impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static {
    let bytes_max = bytes_max.max(1);
    body.checked().into_stream().flat_map(move |piece| {
        let mut rest = Some(piece);
        stream::iter(std::iter::from_fn(move || match rest.take()? {
            Ok(bytes) if bytes.is_empty() => None,
            Ok(mut bytes) => {
                let piece = bytes.split_to(bytes.len().min(bytes_max));
                rest = Some(Ok(bytes));
                Some(Ok(piece))
            }
            Err(_) => Some(Err(BodyError::Interrupted)),
        }))
    })
}
