//! When bytes arrive: how many in each tenth of a second, and the longest silences.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::{Serialize, Serializer};
use tokio::time::Instant;

use crate::Error;

/// What has arrived since the start, whatever it belongs to.
#[derive(Debug)]
pub(crate) struct Arrivals {
    start: Instant,
    /// The start on the clock that all processes of a machine share.
    start_monotonic: Duration,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    last: Option<Duration>,
    /// Longest first.
    gaps: Vec<Gap>,
    buckets: Vec<u64>,
}

/// A silence between two arrivals, the first of which was at `at` after the start.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Gap {
    at: Duration,
    length: Duration,
}

/// Times are seconds of the monotonic clock.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    begin_s: f64,
    bucket_s: f64,
    bytes: Vec<u64>,
    last_s: Option<f64>,
    gaps: Vec<Silence>,
}

#[derive(Debug, Serialize)]
struct Silence {
    at_s: f64,
    #[serde(serialize_with = "seconds")]
    seconds: Duration,
}

impl Arrivals {
    pub(crate) fn begin() -> Result<Self, Error> {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(std::io::Error::from)?;
        Ok(Self {
            start: Instant::now(),
            start_monotonic: now.into(),
            record: Mutex::default(),
        })
    }

    pub(crate) fn add(&self, bytes: u64) {
        let since = self.start.elapsed();
        self.record
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(since, bytes);
    }

    pub(crate) fn report(&self) -> Report {
        let record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let at_s = |since: Duration| (self.start_monotonic + since).as_secs_f64();
        Report {
            begin_s: at_s(Duration::ZERO),
            bucket_s: BUCKET.as_secs_f64(),
            bytes: record.buckets.clone(),
            last_s: record.last.map(at_s),
            gaps: record
                .gaps
                .iter()
                .map(|gap| Silence {
                    at_s: at_s(gap.at),
                    seconds: gap.length,
                })
                .collect(),
        }
    }
}

impl Record {
    fn add(&mut self, since: Duration, bytes: u64) {
        // Two threads may come in another order than that in which they looked at the clock.
        let at = self.last.unwrap_or(since);
        let length = since.saturating_sub(at);
        self.last = Some(at + length);
        self.keep(Gap { at, length });
        let bucket = usize::try_from(since.as_millis() / BUCKET.as_millis()).unwrap_or(usize::MAX);
        if bucket >= BUCKETS_MAX {
            return;
        }
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += bytes;
    }

    fn keep(&mut self, gap: Gap) {
        if self.gaps.len() == GAPS_MAX && self.gaps[GAPS_MAX - 1].length >= gap.length {
            return;
        }
        let place = self.gaps.partition_point(|kept| kept.length >= gap.length);
        self.gaps.insert(place, gap);
        self.gaps.truncate(GAPS_MAX);
    }
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

const BUCKET: Duration = Duration::from_millis(100);
/// Half an hour; what comes later is in no bucket.
const BUCKETS_MAX: usize = 18_000;
const GAPS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn bytes_are_counted_when_they_come() {
        let mut record = Record::default();
        for (ms, bytes) in [(0, 1), (99, 2), (100, 4), (350, 8)] {
            record.add(ms * MS, bytes);
        }
        assert_eq!(record.buckets, [3, 4, 0, 8]);
        record.add(Duration::from_secs(1_000_000), 16);
        assert_eq!(record.buckets.len(), 4);
    }

    #[test]
    fn the_longest_silences_are_kept_with_their_beginning() {
        let mut record = Record::default();
        // The n-th silence takes n ms.
        let times = (0..100).scan(0, |at, n| {
            *at += n;
            Some(*at)
        });
        times.for_each(|ms| record.add(ms * MS, 1));
        assert_eq!(record.gaps.len(), GAPS_MAX);
        let longest = Gap {
            at: (98 * 99 / 2) * MS,
            length: 99 * MS,
        };
        assert_eq!(record.gaps[0], longest);
        assert_eq!(record.gaps[GAPS_MAX - 1].length, 84 * MS);
    }

    #[test]
    fn nothing_comes_before_what_came_last() {
        let mut record = Record::default();
        for ms in [10, 30, 20, 31] {
            record.add(ms * MS, 1);
        }
        assert_eq!(record.last, Some(31 * MS));
        assert_eq!(record.gaps[0].length, 20 * MS);
        assert_eq!(record.gaps[1].length, MS);
    }

    #[test]
    fn a_report_is_on_the_clock_of_the_machine() {
        let arrivals = Arrivals::begin().unwrap();
        assert!(arrivals.report().last_s.is_none());
        arrivals.add(7);
        let report = arrivals.report();
        assert!(report.last_s >= Some(report.begin_s));
        assert_eq!(report.bytes.iter().sum::<u64>(), 7);
        let now: Duration = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap().into();
        assert!((now.as_secs_f64() - report.begin_s).abs() < 60.0);
    }
}
