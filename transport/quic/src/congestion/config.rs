//! What can be set, and the factory that quinn asks for a controller.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_proto::congestion::{Controller, ControllerFactory};

use super::LossTolerant;

/// Settings of [`LossTolerant`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LossTolerantConfig {
    /// Bytes that a new path may have in flight before anything is known of it. Default: 38 400, 32 packets of
    /// 1 200 bytes.
    pub initial_window_bytes: u64,
    /// In flight over the bandwidth-delay product between probes. Default: 1.2.
    pub cruise_gain: f64,
    /// In flight over the bandwidth-delay product while probing for more. Default: 1.5.
    pub probe_gain: f64,
    /// Share of a round's bytes that may be lost without a reaction. Default: 0.05.
    pub loss_tolerated: f64,
    /// How long a minimum of the round-trip time is believed. Default: 10 s.
    pub min_rtt_expiry: Duration,
}

impl Default for LossTolerantConfig {
    fn default() -> Self {
        Self {
            initial_window_bytes: 32 * 1200,
            cruise_gain: 1.2,
            probe_gain: 1.5,
            loss_tolerated: 0.05,
            min_rtt_expiry: Duration::from_secs(10),
        }
    }
}

impl ControllerFactory for LossTolerantConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(LossTolerant::new(self, now, current_mtu))
    }
}
