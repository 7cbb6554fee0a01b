//! Acknowledgements that come in lumps: how far they run ahead of the delivery rate, which is what must be in flight on
//! top of the bandwidth-delay product to send on between two lumps.

use std::time::{Duration, Instant};

use super::filter::RoundMax;

/// The excess of acknowledged bytes over what the rate explains.
#[derive(Clone, Debug)]
pub(super) struct Aggregation {
    since: Instant,
    acked: f64,
    excess: RoundMax,
}

impl Aggregation {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            acked: 0.0,
            excess: RoundMax::default(),
        }
    }

    /// Bytes, at most what the path delivers in 100 ms.
    pub(super) fn excess(&self, rate: f64) -> f64 {
        self.excess.get().min(rate * EXCESS_MAX_SECONDS)
    }

    pub(super) fn update(&mut self, now: Instant, acked: u64, rate: f64, round: u64) {
        let age = now.saturating_duration_since(self.since);
        let mut explained = rate * age.as_secs_f64();
        if self.acked <= explained || age > LUMP_MAX {
            self.since = now;
            self.acked = 0.0;
            explained = 0.0;
        }
        self.acked += acked as f64;
        self.excess
            .update(round, self.acked - explained, EXCESS_ROUNDS);
    }
}

const EXCESS_ROUNDS: u64 = 10;
const EXCESS_MAX_SECONDS: f64 = 0.1;
/// What takes longer to come in is no lump but a change of rate.
const LUMP_MAX: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::congestion::tests::origin;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn lumps_count_and_an_even_stream_does_not() {
        let start = origin();
        let mut even = Aggregation::new(start);
        let mut lumpy = Aggregation::new(start);
        for ms in 1..200 {
            even.update(start + ms * MS, 1000, 1e6, 1);
            if ms % 20 == 0 {
                lumpy.update(start + ms * MS, 20_000, 1e6, 1);
            }
        }
        assert!(even.excess(1e6) <= 2000.0, "{}", even.excess(1e6));
        assert_eq!(lumpy.excess(1e6), 20_000.0);
    }

    #[test]
    fn a_lump_is_believed_up_to_100_ms_of_the_rate() {
        let mut lumpy = Aggregation::new(origin());
        lumpy.update(origin() + 500 * MS, 500_000, 1e6, 1);
        assert_eq!(lumpy.excess(1e6), 100_000.0);
    }
}
