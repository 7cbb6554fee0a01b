//! How long small calls take.

use std::time::Duration;

use serde::Serialize;

/// A summary of latencies in milliseconds.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Latencies {
    calls: usize,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

impl Latencies {
    pub(crate) fn of(mut measured: Vec<Duration>) -> Self {
        measured.sort_unstable();
        let at = |percent: usize| {
            // The nearest rank: the smallest value that so many percent do not exceed.
            let rank = (measured.len() * percent).div_ceil(100).max(1);
            measured.get(rank - 1).map_or(0.0, |one| milliseconds(*one))
        };
        Self {
            calls: measured.len(),
            p50_ms: at(50),
            p99_ms: at(99),
            max_ms: at(100),
        }
    }
}

/// To the microsecond.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let all = Latencies::of((1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!(all.calls, 200);
        assert_eq!(
            [all.p50_ms, all.p99_ms, all.max_ms].map(f64::round),
            [100.0, 198.0, 200.0]
        );
        let one = Latencies::of(vec![Duration::from_millis(7)]);
        assert_eq!(
            [one.p50_ms, one.p99_ms, one.max_ms].map(f64::round),
            [7.0; 3]
        );
        assert_eq!(Latencies::of(Vec::new()).calls, 0);
    }
}
