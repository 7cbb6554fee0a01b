//! Bodies on streams.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flwr_transport::{Body, BodyError};
use futures_util::stream;
use quinn::RecvStream;
use tokio::time::timeout;

use crate::metrics::Direction;
use crate::pulse::Awaited;
use crate::stream::{Incoming, Outgoing};
use crate::windows::Receiving;

/// A body did not go out whole: its source failed, or the peer wants no more of it.
#[derive(Debug)]
pub(crate) struct Unsent;

/// Sends a body. The stream is not ended.
pub(crate) async fn send(body: Body, outgoing: &mut Outgoing) -> Result<(), Unsent> {
    if body.len().is_none_or(|bytes| bytes > SMALL_BYTES_MAX) {
        outgoing.carry_many();
    }
    let mut body = body.checked();
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|_error| Unsent)?;
        outgoing.write(piece).await.map_err(|_error| Unsent)?;
    }
    Ok(())
}

/// The rest of a stream as a body, held to its announcement.
pub(crate) fn receive(incoming: Incoming, announced: Option<u64>) -> Body {
    let reading = Reading {
        room_for: incoming.receiving(announced),
        _awaited: incoming.awaiting(),
        stream: incoming.stream,
        still_max: incoming.still_max,
        first: incoming.decoder.into_rest(),
        room: BytesMut::new(),
        left: announced.unwrap_or(u64::MAX),
    };
    let pieces = stream::unfold(Some(reading), async |reading| {
        let mut reading = reading?;
        let piece = reading.next().await.transpose()?;
        let rest = piece.is_ok().then_some(reading);
        Some((piece, rest))
    });
    Body::from_stream(announced, pieces).checked()
}

struct Reading {
    /// In the windows of the connection.
    room_for: Option<Receiving>,
    _awaited: Option<Awaited>,
    stream: RecvStream,
    still_max: Duration,
    /// What came together with the head.
    first: Bytes,
    /// Where the next bytes go. Packets are small, and each would keep its whole receive buffer.
    room: BytesMut,
    /// Bytes that are still to come, at most.
    left: u64,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        if !self.first.is_empty() {
            self.left = self.left.saturating_sub(self.first.len() as u64);
            return Ok(Some(std::mem::take(&mut self.first)));
        }
        // One byte more than is to come, to see the end, or that it is none.
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX);
        let wanted = wanted.saturating_add(1).min(ROOM_BYTES);
        if self.room.len() < wanted.min(PIECE_BYTES_MIN) {
            self.room = BytesMut::zeroed(wanted);
        }
        let read = timeout(self.still_max, self.stream.read(&mut self.room)).await;
        let Ok(read) = read else {
            Direction::Received.count_stalled();
            return Err(BodyError::Interrupted);
        };
        let Ok(read) = read else {
            return Err(BodyError::Interrupted);
        };
        Ok(read.map(|bytes| {
            if let Some(room) = &mut self.room_for {
                room.read(bytes as u64);
            }
            self.left = self.left.saturating_sub(bytes as u64);
            self.room.split_to(bytes).freeze()
        }))
    }
}

/// Bodies up to here go out like heads.
const SMALL_BYTES_MAX: u64 = 64 << 10;
/// Bytes that are read at once, at most.
const ROOM_BYTES: usize = 256 << 10;
/// Room that is worth another read.
const PIECE_BYTES_MIN: usize = 16 << 10;
