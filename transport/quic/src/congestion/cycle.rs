//! Where the controller is: finding the rate, emptying the queue it made, or going round the steady cycle.

use std::time::{Duration, Instant};

/// The phase, and what it needs to end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Phase {
    /// Doubles each round until the rate stops growing.
    Startup,
    /// Sends less than the path delivers until what start-up queued is gone.
    Drain,
    /// One round with more in flight, to see whether the path has more to give.
    Probe,
    /// Empties the queue after a probe, and for as long as it shows the bare round-trip time.
    Settle,
    /// Holds the rate for this many more rounds.
    Cruise { rounds_left: u32 },
    /// Half the flight for a moment, because no recent packet met an empty queue. Ends at `until`,
    /// which is set once the flight is down.
    RefreshRtt {
        until: Option<Instant>,
        lowest: Option<Duration>,
    },
}

/// Whether start-up has found the rate: it did not grow by a quarter for three rounds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Growth {
    best: f64,
    rounds_without: u32,
}

impl Growth {
    /// Ends a round of start-up; a standing queue makes one round enough.
    pub(super) fn ended(&mut self, rate: f64, queued: bool) -> bool {
        if rate >= self.best * GROWTH_MIN {
            *self = Self {
                best: rate,
                rounds_without: 0,
            };
            return false;
        }
        self.rounds_without += 1;
        queued || self.rounds_without >= ROUNDS_WITHOUT_MAX
    }
}

const GROWTH_MIN: f64 = 1.25;
const ROUNDS_WITHOUT_MAX: u32 = 3;
