//! Large receive buffers, kept for the next message of their size.
//!
//! The objects of a model are of one size, and a round frees as many as the next one brings. Memory
//! that goes back to the system in between has to be mapped and cleared again page by page, which
//! on virtual machines costs as much as hashing. Small messages do not come here.
//!
//! A large message has room in the process' [`MemoryBudget`] before it has a buffer, for as long as its call lasts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use flwr_api::Reason;
use flwr_transport::{Body, MemoryBudget, Room};
use tokio::time::Instant;

use crate::f1::ask::telling;

/// The smallest buffer that is kept, in bytes.
pub(crate) const KEPT_BYTES_MIN: usize = 1 << 20;

/// Large buffers have a multiple of this many bytes.
const ROUNDED_BYTES: usize = 64 << 10;

/// How long an unused buffer is kept.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// Free buffers. Cheap to clone: all clones are the same.
#[derive(Clone, Debug)]
pub struct Buffers {
    free: Arc<Mutex<Free>>,
    budget: MemoryBudget,
}

/// A message, and the room that it has while its call is worked on.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) message: Bytes,
    /// The end of the message, where that is an object which still arrives and has no room here.
    pub(crate) object: Option<Body>,
    pub(crate) room: Room,
}

#[derive(Debug)]
struct Free {
    /// Oldest first.
    buffers: Vec<(Instant, Vec<u8>)>,
    bytes: usize,
    bytes_max: usize,
}

impl Buffers {
    /// Keeps at most `bytes_max` bytes that nobody uses; messages under way take their room from `budget`.
    #[must_use]
    pub fn new(bytes_max: usize, budget: MemoryBudget) -> Self {
        Self {
            free: Arc::new(Mutex::new(Free {
                buffers: Vec::new(),
                bytes: 0,
                bytes_max,
            })),
            budget,
        }
    }

    /// Room for a message of `length` bytes, once there is some.
    pub(crate) async fn room(&self, length: usize) -> Result<Room, tonic::Status> {
        let room = self.budget.take(length as u64).await;
        room.map_err(|none| telling(Reason::NoRoom, tonic::Status::unavailable(none.message)))
    }

    /// An empty buffer for `length` bytes: a free one that is not much larger, or a new one. Large
    /// ones are rounded up a little, because messages around equal objects differ by some bytes.
    pub(crate) fn take(&self, length: usize) -> Vec<u8> {
        if length < KEPT_BYTES_MIN {
            return Vec::with_capacity(length);
        }
        let length = length.next_multiple_of(ROUNDED_BYTES);
        let fits = |capacity: usize| (length..=length + length / 8).contains(&capacity);
        self.with(|free| {
            let found = free.buffers.iter().rposition(|(_, b)| fits(b.capacity()))?;
            let (_, buffer) = free.buffers.remove(found);
            free.bytes -= buffer.capacity();
            Some(buffer)
        })
        .unwrap_or_else(|| Vec::with_capacity(length))
    }

    /// A filled buffer as bytes; the buffer comes back when the last of them is dropped.
    pub(crate) fn seal(&self, buffer: Vec<u8>) -> Bytes {
        if buffer.capacity() < KEPT_BYTES_MIN {
            return buffer.into();
        }
        Bytes::from_owner(Lent {
            buffer,
            home: self.clone(),
        })
    }

    /// Gives buffers back to the system that nobody wanted for a while.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let stale = self.with(|free| {
            let fresh = free
                .buffers
                .partition_point(|(since, _)| now.duration_since(*since) > KEPT_FOR);
            let stale: Vec<_> = free.buffers.drain(..fresh).collect();
            free.bytes -= stale.iter().map(|(_, b)| b.capacity()).sum::<usize>();
            stale
        });
        drop(stale);
    }

    fn put_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let now = Instant::now();
        let refused = self.with(|free| {
            let bytes = free.bytes + buffer.capacity();
            if bytes > free.bytes_max {
                return Some(buffer);
            }
            free.bytes = bytes;
            free.buffers.push((now, buffer));
            None
        });
        drop(refused);
    }

    fn with<T>(&self, work: impl FnOnce(&mut Free) -> T) -> T {
        work(&mut self.free.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A buffer in use.
struct Lent {
    buffer: Vec<u8>,
    home: Buffers,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.put_back(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn filled(buffers: &Buffers, length: usize) -> Bytes {
        let mut buffer = buffers.take(length);
        buffer.resize(length, 7);
        buffers.seal(buffer)
    }

    fn kept(buffers: &Buffers) -> (usize, usize) {
        buffers.with(|free| (free.buffers.len(), free.bytes))
    }

    #[tokio::test]
    async fn a_buffer_comes_back_with_the_last_slice_and_serves_its_size_again() {
        let buffers = Buffers::new(64 * MIB, MemoryBudget::unbounded());
        let bytes = filled(&buffers, 20 * MIB);
        let slice = bytes.slice(5..10);
        drop(bytes);
        assert_eq!(kept(&buffers), (0, 0));
        drop(slice);
        assert_eq!(kept(&buffers), (1, 20 * MIB));
        // Far smaller and larger messages get memory of their own.
        let (small, large) = (filled(&buffers, 2 * MIB), filled(&buffers, 21 * MIB));
        assert_eq!(kept(&buffers), (1, 20 * MIB));
        let again = filled(&buffers, 20 * MIB - 3);
        assert_eq!(kept(&buffers), (0, 0));
        assert_eq!(again.len(), 20 * MIB - 3);
        drop((small, large, again));
        assert_eq!(kept(&buffers), (3, 43 * MIB));
    }

    #[tokio::test]
    async fn no_more_than_the_bound_is_kept_and_nothing_small() {
        let buffers = Buffers::new(3 * MIB, MemoryBudget::unbounded());
        drop([filled(&buffers, 2 * MIB), filled(&buffers, 2 * MIB)]);
        assert_eq!(kept(&buffers), (1, 2 * MIB));
        drop(filled(&buffers, 10));
        assert_eq!(kept(&buffers), (1, 2 * MIB));
    }

    #[tokio::test(start_paused = true)]
    async fn unused_buffers_go_back_to_the_system() {
        let buffers = Buffers::new(64 * MIB, MemoryBudget::unbounded());
        drop(filled(&buffers, 2 * MIB));
        tokio::time::advance(Duration::from_secs(8)).await;
        drop(filled(&buffers, 4 * MIB));
        buffers.sweep();
        assert_eq!(kept(&buffers), (2, 6 * MIB));
        tokio::time::advance(Duration::from_secs(3)).await;
        buffers.sweep();
        assert_eq!(kept(&buffers), (1, 4 * MIB));
    }
}
