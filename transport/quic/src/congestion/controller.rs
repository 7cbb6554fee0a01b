//! The controller: what quinn reports goes into the model, and the window comes out.

mod phases;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerMetrics};

use super::LossTolerantConfig;
use super::aggregation::Aggregation;
use super::cycle::{Growth, Phase};
use super::delivery::{Delivery, Sample};
use super::filter::{MinRtt, RoundMax};
use super::loss::Losses;
use super::outlet::Outlet;
use super::pace::WakeUps;

/// A congestion controller that follows a model of the path instead of single losses. See the [module](super).
#[derive(Clone)]
pub struct LossTolerant {
    config: Arc<LossTolerantConfig>,
    mtu: u64,
    window: f64,
    phase: Phase,
    delivery: Delivery,
    rate: RoundMax,
    min_rtt: MinRtt,
    smoothed_rtt: Duration,
    aggregation: Aggregation,
    losses: Losses,
    growth: Growth,
    wake_ups: WakeUps,
    pub(super) outlet: Outlet,
    in_flight: u64,
    app_limited: bool,
    queued_acks: u32,
    round: Round,
    cycle: Cycle,
}

/// The current round trip.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    count: u64,
    /// It ends when a packet is acknowledged that left after this much was delivered.
    ends_at: u64,
    lowest_rtt: Option<Duration>,
    best_rate: f64,
    app_limited: bool,
}

/// The current turn of the steady cycle.
#[derive(Clone, Copy, Debug, Default)]
struct Cycle {
    count: u64,
    lowest_rtt: Option<Duration>,
    /// The phase began in this round.
    phase_round: u64,
    /// How sure it is that somebody else holds the queue and takes from this connection, 0 to 1.
    contest: f64,
    /// The rate when the turn began.
    rate: f64,
    /// Rounds in a row that delivered far less than the model says.
    slow_rounds: u32,
    slow_best: f64,
    /// So much of a lean window was lost that the ceiling fell.
    squeezed: bool,
    /// The shortest round trip of the last turn with a queue that never emptied.
    standing_rtt: Option<Duration>,
}

impl LossTolerant {
    /// A controller for a path of which nothing is known.
    pub fn new(config: Arc<LossTolerantConfig>, now: Instant, mtu: u16) -> Self {
        let mtu = u64::from(mtu);
        Self {
            window: config.initial_window_bytes.max(WINDOW_MIN_PACKETS * mtu) as f64,
            config,
            mtu,
            phase: Phase::Startup,
            delivery: Delivery::new(now),
            rate: RoundMax::default(),
            min_rtt: MinRtt::new(now),
            smoothed_rtt: Duration::ZERO,
            aggregation: Aggregation::new(now),
            losses: Losses::default(),
            growth: Growth::default(),
            wake_ups: WakeUps::new(now),
            outlet: Outlet::default(),
            in_flight: 0,
            app_limited: false,
            queued_acks: 0,
            round: Round::default(),
            cycle: Cycle::default(),
        }
    }

    /// Bytes per second that the path is believed to deliver; 0 before the first sample.
    pub fn rate(&self) -> f64 {
        self.rate.get()
    }

    /// The round-trip time of the path without queues, if any is known.
    pub fn min_rtt(&self) -> Option<Duration> {
        self.min_rtt.get()
    }

    /// The bandwidth-delay product, with the queue that others hold.
    fn bdp(&self) -> f64 {
        self.rate() * self.base_rtt().as_secs_f64()
    }

    /// The bandwidth-delay product of the path without any queue.
    fn bare_bdp(&self) -> f64 {
        self.rate() * self.min_rtt().unwrap_or_default().as_secs_f64()
    }

    fn min_window(&self) -> f64 {
        (WINDOW_MIN_PACKETS * self.mtu) as f64
    }

    /// Room for quinn's bursts and for acknowledgements of every other packet.
    fn headroom(&self) -> f64 {
        let bursts = (self.rate() * BATCH_SECONDS).min((BATCH_PACKETS * self.mtu) as f64);
        bursts + (3 * self.mtu) as f64
    }

    /// Whether the window lets quinn send another batch, so that only its pacer or the machine can hold it back.
    fn has_room(&self) -> bool {
        self.in_flight as f64 + ((BATCH_PACKETS * self.mtu) as f64) < self.window
    }

    /// How long quinn's pacer waits between two batches, if it is what the connection waits for.
    fn paced(&self) -> Option<Duration> {
        let batch = (BATCH_PACKETS * self.mtu) as f64;
        (!self.app_limited && self.has_room())
            .then(|| self.smoothed_rtt.mul_f64(batch / (1.25 * self.window)))
    }

    fn is_queued(&self, rtt: Option<Duration>, by: f64) -> bool {
        match (rtt, self.min_rtt()) {
            (Some(rtt), Some(min)) => {
                rtt > min.mul_f64(by) + Duration::from_millis(1) + self.wake_ups.late()
            }
            _ => false,
        }
    }

    pub(super) fn on_packet_acked(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        smoothed_rtt: Duration,
    ) {
        self.app_limited |= app_limited;
        self.wake_ups.on_run(now, self.paced());
        self.smoothed_rtt = smoothed_rtt;
        self.delivery.on_packet_acked(sent, bytes);
    }

    fn on_sample(&mut self, now: Instant, sample: Sample) {
        let starts_round = sample.prior_delivered >= self.round.ends_at;
        if starts_round {
            self.end_round(now);
            self.round = Round {
                count: self.round.count + 1,
                ends_at: self.delivery.delivered(),
                ..Round::default()
            };
        }
        self.round.app_limited |= sample.app_limited;
        self.losses.on_acked(sample.newly_acked);
        self.on_rtt(now, sample.rtt);
        self.on_rate(sample);
        if self.phase != Phase::Startup {
            self.aggregation
                .update(now, sample.newly_acked, self.rate.get(), self.round.count);
        }
        self.leave_queued_startup(sample.rtt);
        self.leave_drained(now);
        self.set_window(sample.newly_acked, sample.rtt);
    }

    fn on_rtt(&mut self, now: Instant, rtt: Duration) {
        let lower = |lowest: Option<Duration>| Some(lowest.map_or(rtt, |lowest| lowest.min(rtt)));
        self.round.lowest_rtt = lower(self.round.lowest_rtt);
        if let Phase::RefreshRtt { until, lowest } = &mut self.phase {
            *lowest = until.and_then(|_| lower(*lowest));
        } else {
            self.cycle.lowest_rtt = lower(self.cycle.lowest_rtt);
        }
        self.min_rtt.update(now, rtt);
    }

    fn on_rate(&mut self, sample: Sample) {
        self.round.best_rate = self.round.best_rate.max(sample.rate);
        if !sample.app_limited || sample.rate > self.rate.get() {
            self.rate.update(self.round.count, sample.rate, RATE_ROUNDS);
        }
    }

    fn set_window(&mut self, newly_acked: u64, rtt: Duration) {
        let bdp = self.bdp();
        if bdp <= 0.0 {
            self.window += newly_acked as f64;
            return;
        }
        let mut target = self.gain() * bdp + self.headroom();
        let mut growth = newly_acked as f64;
        target = match self.phase {
            // A queue has formed: the rate will show within a round, and more would only be dropped.
            Phase::Startup if self.is_queued(Some(rtt), STARTUP_RTT_HOLD) => self.window,
            // What went out in half a round trip met no queue, so the path carries twice as much.
            Phase::Startup if !self.is_queued(Some(rtt), STARTUP_RTT_FREE) => {
                growth *= STARTUP_GAIN_FREE - 1.0;
                (STARTUP_GAIN_FREE * bdp + self.headroom()).max(self.window)
            }
            Phase::Startup => target.max(self.window),
            Phase::RefreshRtt { .. } => self.refresh_window(),
            Phase::Settle | Phase::Drain => target + self.aggregation.excess(self.rate.get()),
            _ => (target + self.aggregation.excess(self.rate.get())).min(self.losses.ceiling()),
        };
        self.window = target.min(self.window + growth).max(self.min_window());
    }
}

/// What a log needs; not the records of single packets.
impl fmt::Debug for LossTolerant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LossTolerant")
            .field("phase", &self.phase)
            .field("window_bytes", &whole(self.window))
            .field("in_flight_bytes", &self.in_flight)
            .field("rate_bytes_per_second", &whole(self.rate()))
            .field("min_rtt", &self.min_rtt())
            .field("smoothed_rtt", &self.smoothed_rtt)
            .field("ceiling_bytes", &self.losses.ceiling())
            .field("contest", &self.cycle.contest)
            .field("late", &self.wake_ups.late())
            .field("round", &self.round.count)
            .field("mtu", &self.mtu)
            .finish_non_exhaustive()
    }
}

impl Controller for LossTolerant {
    fn on_sent(&mut self, now: Instant, bytes: u64, _last_packet_number: u64) {
        self.wake_ups.on_run(now, self.paced());
        self.delivery
            .on_sent(now, self.in_flight == 0, self.smoothed_rtt / 64);
        if self.in_flight == 0 {
            // What comes after a pause must not start with half a flight.
            self.min_rtt
                .believe_until(now + RESUME_GRACE, self.config.min_rtt_expiry);
        }
        self.in_flight += bytes;
        self.outlet.on_sent();
        self.app_limited = false;
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.on_packet_acked(now, sent, bytes, app_limited, rtt.get());
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        _largest_packet_num_acked: Option<u64>,
    ) {
        self.in_flight = in_flight;
        self.outlet.on_acked(in_flight);
        self.app_limited = app_limited;
        if let Some(sample) = self.delivery.sample(now, in_flight, app_limited) {
            self.on_sample(now, sample);
        }
    }

    fn on_congestion_event(
        &mut self,
        _now: Instant,
        _sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.in_flight = self.in_flight.saturating_sub(lost_bytes);
        self.losses.on_lost(lost_bytes);
        if is_persistent_congestion {
            self.restart();
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = u64::from(new_mtu);
        self.window = self.window.max(self.min_window());
    }

    /// More than the congestion window while that is not within reach, see the module `pace`.
    fn window(&self) -> u64 {
        if !self.has_room() {
            let window = whole(self.window);
            return self.outlet.window(window, self.in_flight, self.mtu);
        }
        let window = self.window
            * if self.phase == Phase::Startup {
                STARTUP_PACE
            } else {
                1.0
            };
        let min_rtt = self.min_rtt().unwrap_or_default();
        let paced = self.wake_ups.window(window, min_rtt, self.smoothed_rtt);
        whole(paced.max(self.window))
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = whole(self.window);
        let rtt = self.smoothed_rtt.as_secs_f64();
        metrics.pacing_rate = (rtt > 0.0).then(|| whole(self.window() as f64 * 8.0 * 1.25 / rtt));
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.config
            .initial_window_bytes
            .max(WINDOW_MIN_PACKETS * self.mtu)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and no quantity is negative"
)]
pub(super) fn whole(value: f64) -> u64 {
    value as u64
}

const WINDOW_MIN_PACKETS: u64 = 4;
/// What quinn hands to the socket at once.
const BATCH_PACKETS: u64 = 10;
const RATE_ROUNDS: u64 = 10;
/// A rate of which bursts of a whole batch are less than this is too slow for such bursts.
const BATCH_SECONDS: f64 = 0.005;
/// How many bare round trips a new path's queue must show to stop growing.
const STARTUP_RTT_HOLD: f64 = 1.25;
/// How many bare round trips a new path may show that is filled as fast as may be.
const STARTUP_RTT_FREE: f64 = 1.1;
const STARTUP_GAIN_FREE: f64 = 3.0;
/// Start-up sends what it may in half a round trip, to have the answer sooner.
const STARTUP_PACE: f64 = 2.0;
const RESUME_GRACE: Duration = Duration::from_secs(1);
