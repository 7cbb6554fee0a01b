//! Bodies whose every byte is known, and what is known about their way.
//!
//! A body is a stretch of one endless pattern, so the reader tells every lost, repeated or moved
//! piece by comparing what came with what belongs there, and nobody holds more than a piece.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::body::{Body, BodyError};

/// The shape of a body.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Bytes that come.
    pub bytes: u64,
    /// Bytes that are announced, if any are.
    pub announced: Option<u64>,
    /// Whether the sender fails after the last byte instead of ending.
    pub fails: bool,
}

impl Plan {
    /// A body of `bytes`, announced as such.
    #[must_use]
    pub fn announced(bytes: u64) -> Self {
        Self {
            bytes,
            announced: Some(bytes),
            fails: false,
        }
    }

    /// A body of `bytes` without announcement.
    #[must_use]
    pub fn unannounced(bytes: u64) -> Self {
        Self {
            bytes,
            announced: None,
            fails: false,
        }
    }

    /// A body nobody can send to its end.
    #[must_use]
    pub fn endless() -> Self {
        Self::unannounced(u64::MAX)
    }

    /// The same body whose sender fails at its end.
    #[must_use]
    pub fn failing(self) -> Self {
        Self {
            fails: true,
            ..self
        }
    }
}

/// A number that both ends of a test see and can wait for.
#[derive(Clone, Debug)]
pub struct Counter(watch::Sender<u64>);

impl Counter {
    /// A counter at `value`.
    #[must_use]
    pub fn new(value: u64) -> Self {
        Self(watch::Sender::new(value))
    }

    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.send_modify(|value| *value += amount);
    }

    /// Replaces the number.
    pub fn set(&self, value: u64) {
        self.0.send_replace(value);
    }

    /// The number now.
    #[must_use]
    pub fn value(&self) -> u64 {
        *self.0.borrow()
    }

    /// Waits until the number is at least `value`, and returns it. Cancel safe.
    pub async fn reaches(&self, value: u64) -> u64 {
        let mut watched = self.0.subscribe();
        let reached = watched.wait_for(|now| *now >= value).await;
        // The sender lives in `self`.
        *reached.expect("the counter outlives its watcher")
    }
}

impl Default for Counter {
    fn default() -> Self {
        Self::new(0)
    }
}

/// Adds one to a counter when dropped.
#[derive(Debug)]
pub(super) struct CountDrop(pub(super) Counter);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.add(1);
    }
}

/// The bodies that go one way in one test: how far they are, and how far they may go.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Bytes the sender has handed to the transport.
    pub sent: Counter,
    /// Bytes the receiver has taken from the transport.
    pub read: Counter,
    /// Where the sender stops until this is raised.
    pub send_max: Counter,
    /// Where the receiver stops until this is raised.
    pub read_max: Counter,
    /// Bodies that the transport has let go of, at their end or before.
    pub let_go: Counter,
    /// Bodies that came to their end without a failure.
    pub ended: Counter,
    /// Bodies whose failure the receiver has seen.
    pub failed: Counter,
    under_way_max: Arc<AtomicU64>,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            sent: Counter::default(),
            read: Counter::default(),
            send_max: Counter::new(u64::MAX),
            read_max: Counter::new(u64::MAX),
            let_go: Counter::default(),
            ended: Counter::default(),
            failed: Counter::default(),
            under_way_max: Arc::default(),
        }
    }
}

impl Flow {
    /// The most bytes that were ever sent and not read.
    #[must_use]
    pub fn under_way_max(&self) -> u64 {
        self.under_way_max.load(Ordering::Relaxed)
    }

    /// A body after `plan`, whose sending this flow follows.
    #[must_use]
    pub fn body(&self, plan: Plan) -> Body {
        let sending = Sending {
            flow: self.clone(),
            plan,
            at: 0,
            _let_go: CountDrop(self.let_go.clone()),
        };
        let chunks = stream::unfold(Some(sending), async |sending| sending?.next().await);
        Body::from_stream(plan.announced, chunks)
    }

    /// Reads a body to its end, or to `bytes_max` if that comes first. Returns how many bytes came.
    ///
    /// # Errors
    /// What the body failed with.
    ///
    /// # Panics
    /// If a byte is not the one that was sent.
    pub async fn read(&self, body: &mut Body, bytes_max: u64) -> Result<u64, BodyError> {
        let mut at = 0;
        while at < bytes_max {
            match self.read_piece(body, at).await {
                ControlFlow::Continue(next) => at = next,
                ControlFlow::Break(Ok(())) => {
                    self.ended.add(1);
                    return Ok(at);
                }
                ControlFlow::Break(Err(failure)) => {
                    self.failed.add(1);
                    return Err(failure);
                }
            }
        }
        Ok(at)
    }

    /// Reads the piece at `at` and returns where the next one begins.
    pub(super) async fn read_piece(
        &self,
        body: &mut Body,
        at: u64,
    ) -> ControlFlow<Result<(), BodyError>, u64> {
        self.read_max.reaches(self.read.value() + 1).await;
        let piece = match body.next().await {
            Some(Ok(piece)) => piece,
            Some(Err(failure)) => return ControlFlow::Break(Err(failure)),
            None => return ControlFlow::Break(Ok(())),
        };
        assert!(
            belongs(&piece, at),
            "bytes after {at} are not what was sent"
        );
        let len = piece.len() as u64;
        self.read.add(len);
        ControlFlow::Continue(at + len)
    }

    fn note_sent(&self, bytes: u64) {
        self.sent.add(bytes);
        let under_way = self.sent.value().saturating_sub(self.read.value());
        self.under_way_max.fetch_max(under_way, Ordering::Relaxed);
    }
}

struct Sending {
    flow: Flow,
    plan: Plan,
    at: u64,
    _let_go: CountDrop,
}

impl Sending {
    async fn next(mut self) -> Option<(Result<Bytes, BodyError>, Option<Self>)> {
        if self.at == self.plan.bytes {
            let failure = self.plan.fails.then_some(Err(BodyError::Interrupted))?;
            return Some((failure, None));
        }
        let sent = self.flow.sent.value();
        let room = self.flow.send_max.reaches(sent + 1).await - sent;
        let piece = stretch(self.at, room.min(self.plan.bytes - self.at));
        let len = piece.len() as u64;
        self.at += len;
        self.flow.note_sent(len);
        Some((Ok(piece), Some(self)))
    }
}

/// A piece of the pattern from `at`, of at most `bytes_max` bytes.
fn stretch(at: u64, bytes_max: u64) -> Bytes {
    let start = place(at);
    let most = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let len = most.min(PIECE_BYTES_MAX).min(PERIOD - start);
    PATTERN.slice(start..start + len)
}

/// Whether `piece` is the pattern from `at` on.
fn belongs(piece: &[u8], at: u64) -> bool {
    let head = piece.len().min(PERIOD - place(at));
    let (head, rest) = piece.split_at(head);
    PATTERN[place(at)..].starts_with(head)
        && rest.chunks(PERIOD).all(|chunk| PATTERN.starts_with(chunk))
}

fn place(at: u64) -> usize {
    usize::try_from(at % PERIOD as u64).expect("a remainder of a usize")
}

/// A prime near 1 MiB, so that no piece of a usual size fits twice into the pattern's period.
const PERIOD: usize = 1_048_573;

/// Pieces of this size are large to some transports and small to others.
const PIECE_BYTES_MAX: usize = 256 << 10;

static PATTERN: LazyLock<Bytes> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(PERIOD).collect()
});

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_reader_notices_what_changed_on_the_way() {
        let flow = Flow::default();
        let plan = Plan::unannounced(3 * PERIOD as u64);
        let pieces: Vec<_> = flow.body(plan).into_stream().collect().await;
        let whole: Vec<u8> = pieces.into_iter().flat_map(Result::unwrap).collect();

        assert_eq!(whole.len(), 3 * PERIOD);
        assert!(belongs(&whole, 0));
        assert!(belongs(&whole[70_000..], 70_000));
        assert!(!belongs(&whole[65_536..], 0), "a lost piece");
        let mut changed = whole;
        changed[2 * PERIOD + 5] ^= 1;
        assert!(!belongs(&changed, 0), "a changed bit");
    }
}
