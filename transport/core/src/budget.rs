//! How many bytes of calls may be in memory at once, of a whole process.
//!
//! Whoever has to hold a large body in memory takes room for it first, and waits where there is none: the sender is
//! held up meanwhile by the flow control of its transport, so many senders at once cost time and not memory. What such
//! senders have sent unread must not fill the window of a whole connection, or those that have room would starve. Room is
//! given in the order in which it was asked for. Small bodies need none: how many of them there can be is bounded by
//! the numbers of connections and calls.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::status::{Code, Status};

/// Room for bodies. Cheap to clone: all clones are the same.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    /// One permit is [`UNIT_BYTES`].
    units: Arc<Semaphore>,
    units_max: u32,
}

/// Room that was taken, until it is dropped; by default none.
#[derive(Debug, Default)]
#[must_use]
pub struct Room {
    _units: Option<OwnedSemaphorePermit>,
}

impl MemoryBudget {
    /// Room for `bytes`. A single body that is larger gets all there is, so that it is the only one.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let units_max = units(bytes).max(1);
        Self {
            units: Arc::new(Semaphore::new(units_max as usize)),
            units_max,
        }
    }

    /// No bound, for tests and tools.
    #[must_use]
    pub fn unbounded() -> Self {
        Self::new(u64::MAX)
    }

    /// Takes room for a body of `bytes`, once there is some. Cancel safe.
    ///
    /// # Errors
    /// [`Code::Unavailable`] if there was none for [`PATIENCE`].
    pub async fn take(&self, bytes: u64) -> Result<Room, Status> {
        if bytes < SMALL_BYTES {
            return Ok(Room::default());
        }
        let wanted = units(bytes).min(self.units_max);
        let taken = Arc::clone(&self.units).acquire_many_owned(wanted);
        match tokio::time::timeout(PATIENCE, taken).await {
            Ok(Ok(taken)) => Ok(Room {
                _units: Some(taken),
            }),
            // It is never closed, so this is time that has passed.
            Ok(Err(_)) | Err(_) => Err(none_left()),
        }
    }

    /// Bytes that can be taken in all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        u64::from(self.units_max) * UNIT_BYTES
    }

    /// Bytes that nobody has taken.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.units.available_permits() as u64 * UNIT_BYTES
    }
}

fn none_left() -> Status {
    Status::new(
        Code::Unavailable,
        "too many large messages at once: there was no memory for this one in time",
    )
}

fn units(bytes: u64) -> u32 {
    let units = bytes.div_ceil(UNIT_BYTES).min(UNITS_MAX);
    u32::try_from(units).unwrap_or(u32::MAX)
}

/// How long somebody waits for room.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Bodies below this size need no room.
pub const SMALL_BYTES: u64 = 64 << 10;

/// What is counted with.
const UNIT_BYTES: u64 = 4 << 10;

/// 16 TiB, which is as much as no bound, and no more than a semaphore and its permits can count.
const UNITS_MAX: u64 = u32::MAX as u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_room_waits_in_order_and_not_for_ever() {
        let budget = MemoryBudget::new(1 << 20);
        let first = budget.take(1 << 20).await.unwrap();
        assert_eq!(budget.free_bytes(), 0);
        let small = budget.take(SMALL_BYTES - 1).await.unwrap();
        let waiting = budget.take(512 << 10);
        tokio::pin!(waiting);
        let now = tokio::time::timeout(PATIENCE / 2, &mut waiting).await;
        assert!(now.is_err(), "there is no room");
        drop(first);
        let second = waiting.await.unwrap();
        assert_eq!(budget.free_bytes(), 512 << 10);
        let refused = budget.take(1 << 20).await.unwrap_err();
        assert_eq!(refused.code, Code::Unavailable);
        drop((second, small));
        assert_eq!(budget.free_bytes(), 1 << 20);
    }

    #[tokio::test]
    async fn a_body_that_is_larger_than_all_room_is_alone() {
        let budget = MemoryBudget::new(1 << 20);
        let room = budget.take(5 << 30).await.unwrap();
        assert_eq!(budget.free_bytes(), 0);
        drop(room);
        assert_eq!(budget.free_bytes(), 1 << 20);
        assert!(MemoryBudget::unbounded().free_bytes() > 1 << 40);
    }
}
