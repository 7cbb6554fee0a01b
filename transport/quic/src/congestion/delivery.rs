//! How fast the path delivers, from acknowledgements: bytes delivered over the longer of the time it took to send them
//! and the time it took to acknowledge them (draft-cheng-iccrg-delivery-rate-estimation).
//!
//! quinn names an acknowledged packet by the time at which it was sent, so that is the key here.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Counts what is sent and delivered, and samples the rate.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    delivered: u64,
    delivered_at: Instant,
    /// When the packet that was acknowledged last had been sent.
    first_sent: Instant,
    /// Packets sent before more than this is delivered do not show what the path can do.
    app_limited_until: Option<u64>,
    departures: VecDeque<Departure>,
    /// The latest departure among the packets of this acknowledgement.
    newest: Option<(Departure, Instant)>,
    newly_acked: u64,
}

/// The state when a packet, or several within a short time, left.
#[derive(Clone, Copy, Debug)]
struct Departure {
    sent: Instant,
    delivered: u64,
    delivered_at: Instant,
    first_sent: Instant,
    app_limited: bool,
}

/// What one acknowledgement shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Bytes per second.
    pub(super) rate: f64,
    /// From the departure of the newest packet to now.
    pub(super) rtt: Duration,
    pub(super) app_limited: bool,
    /// What had been delivered when the newest packet left.
    pub(super) prior_delivered: u64,
    pub(super) newly_acked: u64,
}

impl Delivery {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            delivered: 0,
            delivered_at: now,
            first_sent: now,
            app_limited_until: None,
            departures: VecDeque::new(),
            newest: None,
            newly_acked: 0,
        }
    }

    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// A packet left; nothing else was in flight if `idle`. Departures closer than `spacing` count as one.
    pub(super) fn on_sent(&mut self, now: Instant, idle: bool, spacing: Duration) {
        if idle {
            self.first_sent = now;
            self.delivered_at = now;
        }
        let last = self.departures.back().map(|last| last.sent);
        if !idle && last.is_some_and(|last| now.saturating_duration_since(last) < spacing) {
            return;
        }
        if self.departures.len() == DEPARTURES_MAX {
            self.departures.pop_front();
        }
        self.departures.push_back(Departure {
            sent: now,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent: self.first_sent,
            app_limited: self.app_limited_until.is_some(),
        });
    }

    pub(super) fn on_packet_acked(&mut self, sent: Instant, bytes: u64) {
        self.delivered += bytes;
        self.newly_acked += bytes;
        if self.newest.is_some_and(|(_, newest)| newest >= sent) {
            return;
        }
        let after = self
            .departures
            .partition_point(|departure| departure.sent <= sent);
        if let Some(departure) = after.checked_sub(1).and_then(|at| self.departures.get(at)) {
            self.newest = Some((*departure, sent));
            // Its group may have more packets to come.
            self.departures.drain(..after - 1);
        }
    }

    /// All packets of an acknowledgement are counted. `None` if it tells nothing about the path.
    pub(super) fn sample(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
    ) -> Option<Sample> {
        let newly_acked = std::mem::take(&mut self.newly_acked);
        self.app_limited_until = self
            .app_limited_until
            .filter(|until| self.delivered <= *until);
        if app_limited {
            self.app_limited_until = Some(self.delivered + in_flight);
        }
        let (departure, sent) = self.newest.take()?;
        let send_time = departure
            .sent
            .saturating_duration_since(departure.first_sent);
        let ack_time = now.saturating_duration_since(departure.delivered_at);
        self.first_sent = departure.sent;
        self.delivered_at = now;
        let bytes = self.delivered - departure.delivered;
        let seconds = send_time.max(ack_time).as_secs_f64();
        Some(Sample {
            rate: if seconds > 0.0 {
                bytes as f64 / seconds
            } else {
                0.0
            },
            rtt: now.saturating_duration_since(sent),
            app_limited: departure.app_limited,
            prior_delivered: departure.delivered,
            newly_acked,
        })
    }
}

/// Bounds the memory of an end that sends acknowledgements only, which quinn reports as sent but never as acknowledged.
const DEPARTURES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::congestion::tests::origin;

    const MS: Duration = Duration::from_millis(1);

    /// Sends 1 000 bytes each millisecond and acknowledges them 20 ms later, one by one.
    #[test]
    fn measures_a_steady_stream() {
        let start = origin();
        let mut delivery = Delivery::new(start);
        let mut rates = Vec::new();
        for ms in 0..200 {
            if ms >= 20 {
                delivery.on_packet_acked(start + MS * (ms - 20), 1000);
                let sample = delivery.sample(start + MS * ms, 20_000, false);
                rates.push(sample.expect("known departure").rate);
            }
            delivery.on_sent(start + MS * ms, ms == 0, Duration::ZERO);
        }
        let steady = &rates[30..];
        assert!(
            steady.iter().all(|rate| (rate - 1e6).abs() < 1.0),
            "{steady:?}"
        );
    }

    /// Twenty acknowledgements that the machine handed over at once are no faster a path.
    #[test]
    fn is_not_fooled_by_a_late_lump() {
        let start = origin();
        let mut delivery = Delivery::new(start);
        let mut highest: f64 = 0.0;
        for ms in 0..400 {
            if ms >= 40 && ms % 20 == 0 {
                for sent in ms - 40..ms - 20 {
                    delivery.on_packet_acked(start + MS * sent, 1000);
                }
                let sample = delivery.sample(start + MS * ms, 20_000, false);
                highest = highest.max(sample.expect("known departure").rate);
            }
            delivery.on_sent(start + MS * ms, ms == 0, Duration::ZERO);
        }
        assert!(highest <= 1.06e6, "{highest}");
    }

    #[test]
    fn marks_what_left_while_there_was_little_to_send() {
        let start = origin();
        let mut delivery = Delivery::new(start);
        delivery.on_sent(start, true, Duration::ZERO);
        delivery.on_packet_acked(start, 1000);
        let first = delivery
            .sample(start + 20 * MS, 0, true)
            .expect("known departure");
        assert!(!first.app_limited);
        delivery.on_sent(start + 50 * MS, true, Duration::ZERO);
        delivery.on_packet_acked(start + 50 * MS, 1000);
        let second = delivery
            .sample(start + 70 * MS, 0, false)
            .expect("known departure");
        assert!(second.app_limited);
        delivery.on_sent(start + 71 * MS, true, Duration::ZERO);
        delivery.on_packet_acked(start + 71 * MS, 1000);
        let third = delivery
            .sample(start + 91 * MS, 0, false)
            .expect("known departure");
        assert!(!third.app_limited);
    }

    #[test]
    fn knows_nothing_of_packets_of_an_earlier_path() {
        let start = origin();
        let mut delivery = Delivery::new(start + 10 * MS);
        delivery.on_packet_acked(start, 1000);
        assert!(delivery.sample(start + 20 * MS, 0, false).is_none());
        assert_eq!(delivery.delivered(), 1000);
    }

    #[test]
    fn an_end_that_only_acknowledges_stays_small() {
        let start = origin();
        let mut delivery = Delivery::new(start);
        for ms in 0..10_000 {
            delivery.on_sent(start + MS * ms, false, Duration::ZERO);
        }
        assert_eq!(delivery.departures.len(), DEPARTURES_MAX);
    }
}
