//! Windowed extremes: the model is the best that was seen of late.

use std::time::{Duration, Instant};

/// The largest value of the last rounds.
#[derive(Clone, Debug, Default)]
pub(super) struct RoundMax {
    /// The largest of each round, oldest first; strictly falling, so that the first is the largest of all.
    peaks: Vec<(u64, f64)>,
}

impl RoundMax {
    pub(super) fn get(&self) -> f64 {
        self.peaks.first().map_or(0.0, |(_, value)| *value)
    }

    pub(super) fn update(&mut self, round: u64, value: f64, rounds: u64) {
        self.peaks.retain(|(_, peak)| *peak > value);
        if self.peaks.last().is_none_or(|(at, _)| *at != round) {
            self.peaks.push((round, value));
        }
        self.expire(round, rounds);
    }

    /// Forgets what is older than `rounds`, but never everything.
    pub(super) fn expire(&mut self, round: u64, rounds: u64) {
        let stale = self
            .peaks
            .iter()
            .take_while(|(at, _)| at + rounds <= round)
            .count();
        let stale = stale.min(self.peaks.len().saturating_sub(1));
        self.peaks.drain(..stale);
    }

    pub(super) fn clear(&mut self) {
        self.peaks.clear();
    }
}

/// The smallest round-trip time, and when it was last confirmed.
#[derive(Clone, Copy, Debug)]
pub(super) struct MinRtt {
    value: Option<Duration>,
    seen: Instant,
}

impl MinRtt {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            value: None,
            seen: now,
        }
    }

    pub(super) fn get(&self) -> Option<Duration> {
        self.value
    }

    pub(super) fn update(&mut self, now: Instant, rtt: Duration) {
        let confirms = |value: Duration| rtt <= value + value / 32 + Duration::from_micros(100);
        if self.value.is_none_or(confirms) {
            self.seen = now;
        }
        self.value = Some(self.value.map_or(rtt, |value| value.min(rtt)));
    }

    pub(super) fn replace(&mut self, now: Instant, rtt: Duration) {
        *self = Self {
            value: Some(rtt),
            seen: now,
        };
    }

    /// Lets the value be believed until `deadline` at least.
    pub(super) fn believe_until(&mut self, deadline: Instant, expiry: Duration) {
        self.seen = deadline
            .checked_sub(expiry)
            .map_or(self.seen, |seen| self.seen.max(seen));
    }

    /// Lets the value be believed until `deadline` at most, unless it is confirmed.
    pub(super) fn doubt_from(&mut self, deadline: Instant, expiry: Duration) {
        self.seen = deadline
            .checked_sub(expiry)
            .map_or(self.seen, |seen| self.seen.min(seen));
    }

    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::congestion::tests::origin;

    #[test]
    fn the_largest_of_the_last_rounds_wins() {
        let mut filter = RoundMax::default();
        for (round, value) in [(1, 5.0), (2, 9.0), (3, 7.0), (4, 8.0), (5, 1.0)] {
            filter.update(round, value, 3);
        }
        assert_eq!(filter.get(), 8.0);
        filter.update(6, 2.0, 3);
        assert_eq!(filter.get(), 8.0);
        filter.update(7, 1.0, 3);
        assert_eq!(filter.get(), 2.0);
    }

    #[test]
    fn a_falling_value_leaves_one_peak_a_round() {
        let mut filter = RoundMax::default();
        for number in 0..10_000_u32 {
            filter.update(u64::from(number / 1000), f64::from(10_000 - number), 3);
        }
        assert_eq!(filter.peaks.len(), 3);
        assert_eq!(filter.get(), 3000.0);
    }

    #[test]
    fn a_long_silence_keeps_the_last_value() {
        let mut filter = RoundMax::default();
        filter.update(1, 5.0, 3);
        filter.update(1000, 4.0, 3);
        assert_eq!(filter.get(), 4.0);
    }

    #[test]
    fn a_near_miss_confirms_the_round_trip() {
        let start = origin();
        let ms = Duration::from_millis;
        let mut rtt = MinRtt::new(start);
        rtt.update(start, ms(50));
        rtt.update(start + ms(1000), ms(60));
        assert_eq!(rtt.age(start + ms(1000)), ms(1000));
        rtt.update(start + ms(2000), ms(51));
        assert_eq!(
            (rtt.age(start + ms(2000)), rtt.get()),
            (ms(0), Some(ms(50)))
        );
        rtt.replace(start + ms(3000), ms(80));
        assert_eq!(rtt.get(), Some(ms(80)));
    }
}
