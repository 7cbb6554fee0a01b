//! When a phase ends, what comes next, and how much each may have in flight.

use std::time::{Duration, Instant};

use super::{Cycle, LossTolerant, RATE_ROUNDS};
use crate::congestion::cycle::{Growth, Phase};

impl LossTolerant {
    pub(super) fn end_round(&mut self, now: Instant) {
        let queued = self.is_queued(self.round.lowest_rtt, 1.1);
        let lean = self.window <= LEAN * self.bare_bdp() + self.headroom();
        let tolerated = self.config.loss_tolerated;
        let too_lossy = self.losses.end_round(tolerated, self.mtu, queued, lean);
        if too_lossy {
            // What others drop must not take what is needed to hold the rate beside them.
            let contested = 1.0 + self.cycle.contest * (self.config.cruise_gain - 1.0);
            self.losses.cut(self.window, contested * self.bdp());
            self.cycle.squeezed |= lean;
        }
        if !self.round.app_limited {
            self.notice_slow(now);
        }
        self.refresh_old_rtt(now);
        match self.phase {
            Phase::Startup => {
                let queued = self.is_queued(self.round.lowest_rtt, 1.25);
                if too_lossy
                    || !self.round.app_limited && self.growth.ended(self.rate.get(), queued)
                {
                    self.enter(Phase::Drain);
                }
            }
            Phase::Drain => {
                if self.round.count >= self.cycle.phase_round + DRAIN_ROUNDS_MAX {
                    self.enter(Phase::Cruise { rounds_left: 2 });
                }
            }
            Phase::Probe => {
                let enough = self.gain() * self.bdp();
                let more =
                    !too_lossy && !self.round.app_limited && self.losses.raise(self.window, enough);
                if !more || self.round.count >= self.cycle.phase_round + PROBE_ROUNDS_MAX {
                    self.enter(Phase::Settle);
                }
            }
            Phase::Settle => {
                if self.round.count > self.cycle.phase_round + 1 {
                    self.enter(Phase::Cruise {
                        rounds_left: self.cruise_rounds(),
                    });
                }
            }
            Phase::Cruise { rounds_left: 0 } => self.end_cycle(),
            Phase::Cruise { rounds_left } => {
                self.phase = Phase::Cruise {
                    rounds_left: rounds_left - 1,
                }
            }
            Phase::RefreshRtt { .. } => self.leave_refresh(now),
        }
    }

    /// Flows that share a queue saw it at its lowest together, and so look at it again together.
    fn refresh_old_rtt(&mut self, now: Instant) {
        let steady = matches!(
            self.phase,
            Phase::Probe | Phase::Settle | Phase::Cruise { .. }
        );
        if steady && !self.round.app_limited && self.min_rtt.age(now) > self.config.min_rtt_expiry {
            self.enter(Phase::RefreshRtt {
                until: None,
                lowest: None,
            });
        }
    }

    fn end_cycle(&mut self) {
        self.judge_contest();
        self.cycle.count += 1;
        self.cycle.lowest_rtt = None;
        self.enter(Phase::Probe);
    }

    /// A queue that never empties is somebody else's. It costs this connection if its rate falls meanwhile, or if so much
    /// of what does not fill a queue is dropped.
    fn judge_contest(&mut self) {
        let queued = self.is_queued(self.cycle.lowest_rtt, CONTEST_RTT);
        let fell = self.rate() < CONTEST_DECLINE * self.cycle.rate;
        if queued {
            self.cycle.standing_rtt = self.cycle.lowest_rtt;
        }
        self.cycle.contest = if queued && (fell || self.cycle.squeezed) {
            (self.cycle.contest + CONTEST_UP).min(1.0)
        } else {
            self.cycle.contest * CONTEST_DOWN
        };
        self.cycle.rate = self.rate();
        self.cycle.squeezed = false;
    }

    /// What the path takes, and as much of the queue of others as this connection has to live with.
    pub(super) fn base_rtt(&self) -> Duration {
        let min = self.min_rtt().unwrap_or_default();
        let standing = self.cycle.standing_rtt.unwrap_or(min);
        min + standing.saturating_sub(min).mul_f64(self.cycle.contest)
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.cycle.phase_round = self.round.count;
    }

    /// A queue that several acknowledgements in a row saw ends start-up before it overflows.
    pub(super) fn leave_queued_startup(&mut self, rtt: Duration) {
        self.queued_acks = if self.is_queued(Some(rtt), STARTUP_RTT) {
            self.queued_acks + 1
        } else {
            0
        };
        if self.phase == Phase::Startup && self.queued_acks >= QUEUED_ACKS {
            self.enter(Phase::Drain);
        }
    }

    /// Ends what waits for the flight to shrink.
    pub(super) fn leave_drained(&mut self, now: Instant) {
        let bdp = self.bdp() + self.headroom();
        match self.phase {
            Phase::Drain if self.in_flight as f64 <= bdp => {
                self.enter(Phase::Cruise { rounds_left: 2 });
            }
            Phase::RefreshRtt {
                until: None,
                lowest: None,
            } if self.in_flight as f64 <= self.refresh_window() => {
                let hold = REFRESH_MIN.max(self.min_rtt().unwrap_or_default());
                self.phase = Phase::RefreshRtt {
                    until: Some(now + hold),
                    lowest: None,
                };
                self.cycle.phase_round = self.round.count;
            }
            _ => {}
        }
    }

    fn leave_refresh(&mut self, now: Instant) {
        let Phase::RefreshRtt {
            until: Some(until),
            lowest,
        } = self.phase
        else {
            return;
        };
        if now < until || self.round.count <= self.cycle.phase_round {
            return;
        }
        if let Some(lowest) = lowest {
            self.min_rtt.replace(now, lowest);
        }
        self.enter(Phase::Probe);
    }

    /// The path got slower: three rounds far below the model are the model.
    fn notice_slow(&mut self, now: Instant) {
        let draining = !matches!(self.phase, Phase::Cruise { .. } | Phase::Probe);
        if draining || self.round.best_rate > SLOW * self.rate.get() {
            self.cycle.slow_rounds = 0;
            return;
        }
        self.cycle.slow_rounds += 1;
        if self.cycle.slow_rounds >= SLOW_ROUNDS {
            let rate = self.cycle.slow_best.max(self.round.best_rate);
            self.rate.clear();
            self.rate.update(self.round.count, rate, RATE_ROUNDS);
            self.cycle.slow_rounds = 0;
            // Or longer: then what is in flight empties no queue.
            self.min_rtt
                .doubt_from(now + SLOW_DOUBT, self.config.min_rtt_expiry);
        }
        // The first slow round began before the path slowed, so only the last two count.
        self.cycle.slow_best = self.round.best_rate;
    }

    /// Flows that share a bottleneck must not probe in step.
    fn cruise_rounds(&self) -> u32 {
        let mixed = (self.delivery.delivered() ^ self.cycle.count)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            >> 62;
        CRUISE_ROUNDS_MIN + u32::try_from(mixed).unwrap_or(0)
    }

    pub(super) fn refresh_window(&self) -> f64 {
        (REFRESH_GAIN * self.bare_bdp()).max(self.min_window())
    }

    /// In flight over the bandwidth-delay product.
    pub(super) fn gain(&self) -> f64 {
        match self.phase {
            Phase::Startup => STARTUP_GAIN,
            Phase::Drain => 1.0,
            Phase::Probe => self.config.probe_gain,
            Phase::Settle => SETTLE_GAIN,
            Phase::Cruise { .. } => self.config.cruise_gain,
            Phase::RefreshRtt { .. } => REFRESH_GAIN,
        }
    }

    /// Nothing got through for several round trips: the path is new, or gone.
    pub(super) fn restart(&mut self) {
        self.rate.clear();
        self.losses.forget();
        self.growth = Growth::default();
        self.cycle = Cycle::default();
        self.window = self.min_window();
        self.enter(Phase::Startup);
    }
}

const STARTUP_GAIN: f64 = 2.0;
/// A round trip this many times the bare one, in so many acknowledgements in a row, ends start-up.
const STARTUP_RTT: f64 = 1.4;
const QUEUED_ACKS: u32 = 8;
const DRAIN_ROUNDS_MAX: u64 = 3;
const PROBE_ROUNDS_MAX: u64 = 4;
const SETTLE_GAIN: f64 = 0.95;
const CRUISE_ROUNDS_MIN: u32 = 4;
/// The shortest round trip of a cycle over the bare one, above which somebody else holds the queue.
const CONTEST_RTT: f64 = 1.25;
const CONTEST_DECLINE: f64 = 0.92;
const CONTEST_UP: f64 = 0.35;
const CONTEST_DOWN: f64 = 0.7;
/// A window this close to the bandwidth-delay product does not make a queue overflow.
const LEAN: f64 = 1.25;
const REFRESH_GAIN: f64 = 0.5;
const REFRESH_MIN: Duration = Duration::from_millis(200);
const SLOW: f64 = 0.6;
const SLOW_ROUNDS: u32 = 3;
/// How long the queue may take to empty, once no more is in flight than a slower path carries.
const SLOW_DOUBT: Duration = Duration::from_secs(1);
