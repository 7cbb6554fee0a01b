//! What a direction counts, and how it is reported.

use serde::Serialize;

/// The counters of one direction.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) packets_in: u64,
    pub(crate) bytes_in: u64,
    pub(crate) packets_out: u64,
    pub(crate) bytes_out: u64,
    /// Packets that found the queue full.
    pub(crate) tail_drops: u64,
    /// Packets that the loss took.
    pub(crate) random_drops: u64,
    /// Packets that came, or were waiting, while the direction was down.
    pub(crate) down_drops: u64,
    /// Packets that the device did not take.
    pub(crate) write_errors: u64,
    pub(crate) packet_bytes_max: usize,
    pub(crate) queue_bytes_peak: usize,
    /// Nanoseconds from when a packet was due to when it was delivered.
    pub(crate) lateness_ns: Histogram,
}

/// The counters as they are printed.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    packets_in: u64,
    bytes_in: u64,
    packets_out: u64,
    bytes_out: u64,
    tail_drops: u64,
    random_drops: u64,
    down_drops: u64,
    write_errors: u64,
    packet_bytes_max: usize,
    queue_bytes_peak: usize,
    lateness_us: Lateness,
}

impl From<&Counters> for Report {
    fn from(counters: &Counters) -> Self {
        Self {
            packets_in: counters.packets_in,
            bytes_in: counters.bytes_in,
            packets_out: counters.packets_out,
            bytes_out: counters.bytes_out,
            tail_drops: counters.tail_drops,
            random_drops: counters.random_drops,
            down_drops: counters.down_drops,
            write_errors: counters.write_errors,
            packet_bytes_max: counters.packet_bytes_max,
            queue_bytes_peak: counters.queue_bytes_peak,
            lateness_us: Lateness::from(&counters.lateness_ns),
        }
    }
}

#[derive(Debug, Serialize)]
struct Lateness {
    p50: f64,
    p99: f64,
    max: f64,
}

impl From<&Histogram> for Lateness {
    fn from(histogram: &Histogram) -> Self {
        let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1e3;
        Self {
            p50: microseconds(histogram.percentile(50)),
            p99: microseconds(histogram.percentile(99)),
            max: microseconds(histogram.max),
        }
    }
}

/// Counts in buckets whose width is at most 1/16 of their value.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: Box<[u64; BUCKETS]>,
    count: u64,
    max: u64,
}

impl Histogram {
    pub(crate) fn record(&mut self, value: u64) {
        self.buckets[bucket(value)] += 1;
        self.count += 1;
        self.max = self.max.max(value);
    }

    /// The largest value that may be in the bucket of this percentile; 0 if nothing was recorded.
    pub(crate) fn percentile(&self, percent: u64) -> u64 {
        let rank = (self.count * percent).div_ceil(100);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank && seen > 0 {
                return largest(index).min(self.max);
            }
        }
        self.max
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: Box::new([0; BUCKETS]),
            count: 0,
            max: 0,
        }
    }
}

/// One bucket a value below 32, then 16 buckets a power of two.
#[expect(clippy::cast_possible_truncation, reason = "below 32 after the shift")]
fn bucket(value: u64) -> usize {
    let shift = (value | 16).ilog2() - 4;
    shift as usize * 16 + (value >> shift) as usize
}

fn largest(bucket: usize) -> u64 {
    if bucket < 32 {
        return bucket as u64;
    }
    let shift = bucket / 16 - 1;
    let first = (bucket % 16 + 16) as u64;
    ((first + 1) << shift).wrapping_sub(1)
}

const BUCKETS: usize = 61 * 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_largest_value_and_not_the_next() {
        for index in 0..BUCKETS - 1 {
            assert_eq!(bucket(largest(index)), index);
            assert_eq!(bucket(largest(index) + 1), index + 1);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_right_to_a_sixteenth() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(99), 0);
        (1..=100_000).for_each(|value| histogram.record(value));
        for percent in [1, 50, 99, 100] {
            let (found, exact) = (histogram.percentile(percent), percent * 1_000);
            assert!(
                found >= exact && found <= exact + exact / 16,
                "{found} instead of {exact}"
            );
        }
        assert_eq!(histogram.max, 100_000);
    }
}
