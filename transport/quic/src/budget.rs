//! Memory for all connections of an acceptor: what they may hold unread or unacknowledged, lent to those that have
//! bodies under way.
//!
//! Every connection has windows of [`LEAST_BYTES`] to itself, which small calls get by with. What its windows have beyond
//! that is lent, and all loans together never exceed the budget. Heads of calls are collected before anything is known of
//! them; long ones wait for room of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Gauge, gauge};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::MEMORY_LENT;
use crate::tuning::CALL_BYTES_MAX;

/// What there is to lend.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_max: u64,
    lent: AtomicU64,
    /// Connections with bodies under way.
    busy: AtomicU64,
    /// Room for long heads, in [`HEAD_UNIT_BYTES`].
    heads: Arc<Semaphore>,
    gauge: Gauge,
}

/// The window of one connection in one direction.
#[derive(Debug)]
pub(crate) struct Loan {
    least: u64,
    /// How large the window is when there is enough for all.
    usual: u64,
    window: u64,
    /// What is lent beyond the window. Room that a peer was promised cannot be taken back, but what it fills can be kept
    /// from being promised again.
    owed: u64,
}

impl Budget {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            lent: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            heads: Arc::new(Semaphore::new(head_units(
                (bytes_max / 4).max(CALL_BYTES_MAX as u64),
            ))),
            gauge: gauge!(MEMORY_LENT),
        }
    }

    /// One more connection has bodies under way.
    pub(crate) fn enter(&self) {
        self.busy.fetch_add(1, Ordering::Relaxed);
    }

    /// One less has.
    pub(crate) fn leave(&self) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }

    /// Room for a long head, waited for: a quarter of the budget holds all of them, and at least the longest there may be.
    pub(crate) async fn head(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(head_units(bytes)).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let room = Arc::clone(&self.heads).acquire_many_owned(units).await;
        room.ok()
    }

    /// What one of those that have bodies under way may borrow in one direction.
    fn share(&self) -> u64 {
        self.bytes_max / self.busy.load(Ordering::Relaxed).max(1)
    }

    /// Whether loans that nobody needs should come back.
    fn is_scarce(&self) -> bool {
        self.lent.load(Ordering::Relaxed) > self.bytes_max / 2
    }

    /// Lends `bytes`, or what is left.
    fn take(&self, bytes: u64) -> u64 {
        let take = |lent: u64| Some(lent + bytes.min(self.bytes_max - lent));
        let order = Ordering::Relaxed;
        let before = self.lent.fetch_update(order, order, take);
        let before = before.unwrap_or_else(|unchanged| unchanged);
        let taken = bytes.min(self.bytes_max - before);
        self.gauge.increment(taken as f64);
        taken
    }

    fn give_back(&self, bytes: u64) {
        self.lent.fetch_sub(bytes, Ordering::Relaxed);
        self.gauge.decrement(bytes as f64);
    }
}

impl Loan {
    /// Nothing is lent yet.
    pub(crate) fn new(usual: u64) -> Self {
        let least = usual.min(LEAST_BYTES);
        Self {
            least,
            usual,
            window: least,
            owed: 0,
        }
    }

    pub(crate) fn usual(&self) -> u64 {
        self.usual
    }

    /// The window for `coming` bytes of bodies, where that has changed. A window that is not needed stays as it is while
    /// there is enough: the next body begins faster.
    pub(crate) fn for_bodies(&mut self, coming: u64, budget: &Budget) -> Option<u64> {
        let most = self.usual.min(self.least.saturating_add(budget.share()));
        let wanted = if budget.is_scarce() {
            most.min(self.least.saturating_add(coming))
        } else if coming > 0 {
            most
        } else {
            most.min(self.window)
        };
        self.resize(wanted, budget)
    }

    /// The window without bodies, where that has changed.
    pub(crate) fn for_none(&mut self, budget: &Budget) -> Option<u64> {
        self.resize(self.least, budget)
    }

    /// So many of the bytes that were promised are used, and not promised again.
    pub(crate) fn settle(&mut self, bytes: u64, budget: &Budget) {
        let settled = self.owed.min(bytes);
        self.owed -= settled;
        budget.give_back(settled);
    }

    /// The connection is gone.
    pub(crate) fn end(&mut self, budget: &Budget) {
        let _ = self.for_none(budget);
        self.settle(u64::MAX, budget);
    }

    fn resize(&mut self, wanted: u64, budget: &Budget) -> Option<u64> {
        let before = self.window;
        if wanted < self.window {
            self.owed += self.window - wanted;
            self.window = wanted;
        } else {
            let more = wanted.saturating_sub(self.window + self.owed);
            if more >= STEP_BYTES {
                self.window += budget.take(more);
            }
        }
        (self.window != before).then_some(self.window)
    }
}

/// So many units hold a head of `bytes`.
fn head_units(bytes: u64) -> usize {
    let units = usize::try_from(bytes.div_ceil(HEAD_UNIT_BYTES)).unwrap_or(usize::MAX);
    units.min(Semaphore::MAX_PERMITS)
}

const HEAD_UNIT_BYTES: u64 = 1 << 10;
/// What every connection may hold in each direction: more than the first flight of a new one.
pub(crate) const LEAST_BYTES: u64 = 64 << 10;
/// A window that grows by less is not worth telling the peer.
const STEP_BYTES: u64 = 16 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const USUAL: u64 = 24 << 20;
    const MANY: u64 = 1 << 40;

    fn busy(budget: &Budget, number: usize) -> Vec<Loan> {
        let loans = std::iter::repeat_with(|| Loan::new(USUAL)).take(number);
        loans.inspect(|_| budget.enter()).collect()
    }

    #[test]
    fn few_connections_have_their_usual_windows() {
        let budget = Budget::new(1 << 30);
        for mut loan in busy(&budget, 3) {
            assert_eq!(loan.for_bodies(1, &budget), Some(USUAL));
            // And keep them.
            assert_eq!(loan.for_bodies(0, &budget), None);
        }
    }

    #[test]
    fn many_share() {
        let budget = Budget::new(1 << 30);
        for mut loan in busy(&budget, 1024) {
            assert_eq!(
                loan.for_bodies(MANY, &budget),
                Some(LEAST_BYTES + (1 << 20))
            );
        }
        assert_eq!(budget.lent.load(Ordering::Relaxed), 1 << 30);
        let mut late = Loan::new(USUAL);
        assert_eq!(late.for_bodies(MANY, &budget), None, "nothing is left");
    }

    #[test]
    fn room_that_was_promised_comes_back_as_it_is_used() {
        let budget = Budget::new(2 * USUAL);
        let mut first = Loan::new(USUAL);
        budget.enter();
        assert_eq!(first.for_bodies(MANY, &budget), Some(USUAL));
        // With as many others that what is left does not do.
        let others = busy(&budget, 99);
        let lent = budget.lent.load(Ordering::Relaxed);
        assert!(
            first
                .for_bodies(MANY, &budget)
                .is_some_and(|window| window < 1 << 20)
        );
        assert_eq!(budget.lent.load(Ordering::Relaxed), lent);
        first.settle(1 << 20, &budget);
        assert_eq!(budget.lent.load(Ordering::Relaxed), lent - (1 << 20));
        // It is not promised anew before it is settled.
        others.iter().for_each(|_| budget.leave());
        assert!(
            first
                .for_bodies(MANY, &budget)
                .is_some_and(|window| window < USUAL)
        );
        assert_eq!(first.window + first.owed, USUAL);
    }

    #[test]
    fn where_little_is_left_a_body_gets_room_for_what_is_to_come() {
        let budget = Budget::new(1 << 20);
        budget.take(900 << 10);
        let mut loan = Loan::new(USUAL);
        let some = 100 << 10;
        assert_eq!(loan.for_bodies(some, &budget), Some(LEAST_BYTES + some));
        loan.settle(some, &budget);
        assert_eq!(loan.for_bodies(0, &budget), Some(LEAST_BYTES));
        loan.settle(some, &budget);
        assert_eq!(budget.lent.load(Ordering::Relaxed), 900 << 10);
    }

    #[test]
    fn narrow_windows_stay_as_they_are() {
        let budget = Budget::new(1 << 30);
        let mut loan = Loan::new(8 << 10);
        assert_eq!(loan.for_bodies(MANY, &budget), None);
        assert_eq!(loan.window, 8 << 10);
    }

    proptest! {
        /// Whatever happens, what is lent is what the windows and the promises say, and not more than there is.
        #[test]
        fn the_books_balance(
            bytes_max in 0_u64..200 << 20,
            steps in prop::collection::vec((0_usize..8, 0_u8..4, 0_u64..64 << 20), 0..200),
        ) {
            let budget = Budget::new(bytes_max);
            let mut loans = busy(&budget, 8);
            for (number, step, bytes) in steps {
                let loan = &mut loans[number];
                match step {
                    0 => { let _ = loan.for_bodies(bytes, &budget); }
                    1 => { let _ = loan.for_none(&budget); }
                    2 => loan.settle(bytes, &budget),
                    _ => loan.end(&budget),
                }
                let owned = loans.iter().map(|loan| loan.window + loan.owed - loan.least);
                let lent = budget.lent.load(Ordering::Relaxed);
                prop_assert_eq!(owned.sum::<u64>(), lent);
                prop_assert!(lent <= bytes_max);
                prop_assert!(loans.iter().all(|loan| loan.window >= loan.least && loan.window <= USUAL));
            }
            loans.iter_mut().for_each(|loan| loan.end(&budget));
            prop_assert_eq!(budget.lent.load(Ordering::Relaxed), 0);
        }
    }
}
