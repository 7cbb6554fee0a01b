//! The window that makes quinn's pacer send at the rate the model wants.
//!
//! quinn paces at 1.25 windows a smoothed round trip, in bursts of at most 2 ms of that, and loses
//! what it could not send because it woke later. On a busy machine the round trip grows and the
//! wake-ups are late, and both would throttle the connection. What is in flight stays bounded by the
//! congestion window all the same, give or take the batch that quinn hands to the socket at once.

use std::time::{Duration, Instant};

/// How much later than its pacer asks this machine lets the connection send.
#[derive(Clone, Copy, Debug)]
pub(super) struct WakeUps {
    last: Instant,
    late: Duration,
}

impl WakeUps {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last: now,
            late: Duration::ZERO,
        }
    }

    pub(super) fn late(&self) -> Duration {
        self.late
    }

    /// The connection runs at `now`. If it was its pacer's turn since the last time, that would have taken `paced`.
    pub(super) fn on_run(&mut self, now: Instant, paced: Option<Duration>) {
        let gap = now.saturating_duration_since(self.last);
        if gap.is_zero() {
            return;
        }
        self.last = now;
        let late = paced.map_or(Duration::ZERO, |paced| gap.saturating_sub(paced.max(BURST)));
        self.late = late.min(LATE_MAX).max(self.late - self.late / 64);
    }

    /// What quinn's pacer must believe to send 1.25 of `window` in a bare round trip, and what is late at once.
    pub(super) fn window(&self, window: f64, min_rtt: Duration, smoothed_rtt: Duration) -> f64 {
        if min_rtt.is_zero() {
            return window;
        }
        let bursts = 1.0 + self.late.as_secs_f64() / BURST.as_secs_f64();
        window * bursts * smoothed_rtt.as_secs_f64() / min_rtt.as_secs_f64()
    }
}

const BURST: Duration = Duration::from_millis(2);
const LATE_MAX: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::congestion::tests::origin;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_timely_machine_is_told_the_window() {
        let mut wake_ups = WakeUps::new(origin());
        for ms in 0..100 {
            wake_ups.on_run(origin() + ms * MS, Some(MS));
        }
        assert_eq!(wake_ups.window(1000.0, 20 * MS, 20 * MS), 1000.0);
        assert_eq!(wake_ups.window(1000.0, 20 * MS, 40 * MS), 2000.0);
    }

    #[test]
    fn a_late_machine_may_catch_up_and_forgets_in_time() {
        let start = origin();
        let mut wake_ups = WakeUps::new(start);
        wake_ups.on_run(start + 12 * MS, Some(MS));
        assert_eq!(wake_ups.late(), 10 * MS);
        assert_eq!(wake_ups.window(1000.0, 20 * MS, 20 * MS), 6000.0);
        for ms in 13..600 {
            wake_ups.on_run(start + ms * MS, Some(MS));
        }
        assert!(wake_ups.late() < MS / 10);
    }

    #[test]
    fn waiting_for_data_is_not_late() {
        let mut wake_ups = WakeUps::new(origin());
        wake_ups.on_run(origin() + 1000 * MS, None);
        assert_eq!(wake_ups.late(), Duration::ZERO);
    }
}
