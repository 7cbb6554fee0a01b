//! What Linux calls `bbr`, as far as others on the link feel it: two bandwidth-delay products in flight whatever is lost,
//! and once in ten seconds next to nothing for 200 ms (draft-cardwell-iccrg-bbr-congestion-control-00).

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory};

use crate::congestion::controller::whole;
use crate::congestion::delivery::Delivery;
use crate::congestion::filter::{MinRtt, RoundMax};

#[derive(Debug)]
pub(super) struct Bbr1;

#[derive(Clone, Debug)]
struct State {
    mtu: f64,
    delivery: Delivery,
    rate: RoundMax,
    min_rtt: MinRtt,
    smoothed_rtt: Duration,
    in_flight: u64,
    round: u64,
    round_ends_at: u64,
    /// The best rate of start-up and the rounds without more, until there were three.
    startup: Option<(f64, u32)>,
    /// While the window is as small as can be, to see the bare round trip.
    refresh_until: Option<Instant>,
}

impl ControllerFactory for Bbr1 {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(State {
            mtu: f64::from(current_mtu),
            delivery: Delivery::new(now),
            rate: RoundMax::default(),
            min_rtt: MinRtt::new(now),
            smoothed_rtt: Duration::ZERO,
            in_flight: 0,
            round: 0,
            round_ends_at: 0,
            startup: Some((0.0, 0)),
            refresh_until: None,
        })
    }
}

impl State {
    fn end_round(&mut self) {
        self.round += 1;
        self.round_ends_at = self.delivery.delivered();
        let rate = self.rate.get();
        self.startup = match self.startup {
            Some((best, _)) if rate >= 1.25 * best => Some((rate, 0)),
            Some((best, rounds)) if rounds < 2 => Some((best, rounds + 1)),
            _ => None,
        };
    }
}

impl Controller for State {
    fn on_sent(&mut self, now: Instant, bytes: u64, _last_packet_number: u64) {
        self.delivery
            .on_sent(now, self.in_flight == 0, self.smoothed_rtt / 64);
        self.in_flight += bytes;
    }

    fn on_ack(
        &mut self,
        _now: Instant,
        sent: Instant,
        bytes: u64,
        _app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.smoothed_rtt = rtt.get();
        self.delivery.on_packet_acked(sent, bytes);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        _largest_packet_num_acked: Option<u64>,
    ) {
        self.in_flight = in_flight;
        let Some(sample) = self.delivery.sample(now, in_flight, app_limited) else {
            return;
        };
        if sample.prior_delivered >= self.round_ends_at {
            self.end_round();
        }
        if self.min_rtt.age(now) > Duration::from_secs(10) {
            self.min_rtt.replace(now, sample.rtt);
            self.refresh_until = Some(now + Duration::from_millis(200) + sample.rtt);
        }
        self.refresh_until = self.refresh_until.filter(|until| now < *until);
        self.min_rtt.update(now, sample.rtt);
        self.rate.update(self.round, sample.rate, 10);
    }

    fn on_congestion_event(
        &mut self,
        _now: Instant,
        _sent: Instant,
        _is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.in_flight = self.in_flight.saturating_sub(lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = f64::from(new_mtu);
    }

    fn window(&self) -> u64 {
        let bdp = self.rate.get() * self.min_rtt.get().unwrap_or_default().as_secs_f64();
        let gain = if self.startup.is_some() { 2.885 } else { 2.0 };
        let window = match self.refresh_until {
            Some(_) => 0.0,
            None if bdp <= 0.0 => 10.0 * self.mtu,
            None => gain * bdp,
        };
        whole(window.max(4.0 * self.mtu))
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        whole(10.0 * self.mtu)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
