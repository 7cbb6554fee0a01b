//! One bottleneck: a rate, a byte-limited tail-drop queue, then random loss.

use std::collections::VecDeque;
use std::time::Duration;

/// What a scenario asks of the path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    pub(super) mbit: f64,
    pub(super) rtt: Duration,
    /// The queue, in bandwidth-delay products of the path.
    pub(super) queue_bdp: f64,
    pub(super) loss: Loss,
}

impl Path {
    pub(super) fn new(rtt_ms: u64, loss: f64, mbit: f64) -> Self {
        Self {
            mbit,
            rtt: Duration::from_millis(rtt_ms),
            queue_bdp: 1.0,
            loss: Loss::Bernoulli(loss),
        }
    }

    pub(super) fn queue(self, bdp: f64) -> Self {
        Self {
            queue_bdp: bdp,
            ..self
        }
    }

    pub(super) fn bytes_per_second(&self) -> f64 {
        self.mbit * 1e6 / 8.0
    }

    pub(super) fn bdp_bytes(&self) -> f64 {
        self.bytes_per_second() * self.rtt.as_secs_f64()
    }

    pub(super) fn mean_loss(&self) -> f64 {
        match self.loss {
            Loss::Bernoulli(mean) | Loss::GilbertElliott(mean, _) => mean,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Loss {
    Bernoulli(f64),
    /// Mean loss and mean length of a burst of losses, in packets.
    GilbertElliott(f64, f64),
}

pub(super) struct Link<P> {
    rate: f64,
    queue_max: f64,
    queue: VecDeque<(usize, P)>,
    queue_bytes: f64,
    loss: Loss,
    in_burst: bool,
    /// Loses everything.
    pub(super) is_cut: bool,
    rng: Rng,
    pub(super) tail_drops: u64,
    pub(super) accepted: u64,
}

impl<P> Link<P> {
    pub(super) fn new(path: &Path, seed: u64) -> Self {
        let floor = if path.queue_bdp < 1.0 {
            0.0
        } else {
            128.0 * 1024.0
        };
        Self {
            rate: path.bytes_per_second(),
            is_cut: false,
            queue_max: (path.queue_bdp * path.bdp_bytes()).max(floor),
            queue: VecDeque::new(),
            queue_bytes: 0.0,
            loss: path.loss,
            in_burst: false,
            rng: Rng(seed),
            tail_drops: 0,
            accepted: 0,
        }
    }

    /// Takes a packet, or drops it; true if it now is the only one and its departure must be scheduled.
    pub(super) fn offer(&mut self, bytes: usize, packet: P) -> bool {
        if self.queue_bytes + bytes as f64 > self.queue_max.max(bytes as f64) {
            self.tail_drops += 1;
            return false;
        }
        self.accepted += 1;
        self.queue_bytes += bytes as f64;
        self.queue.push_back((bytes, packet));
        self.queue.len() == 1
    }

    /// How long the packet at the head takes to leave.
    pub(super) fn head_time(&self) -> Option<Duration> {
        let (bytes, _) = self.queue.front()?;
        Some(Duration::from_secs_f64(*bytes as f64 / self.rate))
    }

    /// The packet at the head, gone from the queue; `None` if the path lost it.
    pub(super) fn depart(&mut self) -> Option<P> {
        let (bytes, packet) = self.queue.pop_front()?;
        self.queue_bytes -= bytes as f64;
        (!self.loses() && !self.is_cut).then_some(packet)
    }

    pub(super) fn set_mbit(&mut self, mbit: f64) {
        self.rate = mbit * 1e6 / 8.0;
    }

    pub(super) fn backlog(&self) -> f64 {
        self.queue_bytes
    }

    fn loses(&mut self) -> bool {
        match self.loss {
            Loss::Bernoulli(p) => self.rng.unit() < p,
            Loss::GilbertElliott(mean, burst) => {
                let leave = 1.0 / burst;
                let enter = mean * leave / (1.0 - mean);
                let switch = self.rng.unit();
                self.in_burst = if self.in_burst {
                    switch >= leave
                } else {
                    switch < enter
                };
                self.in_burst
            }
        }
    }
}

/// SplitMix64.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}
