//! One direction of the link: queue, serialisation, loss and delay, in virtual time and without input or output.

use std::collections::VecDeque;

use crate::loss::{Loss, LossRate};
use crate::random::Random;
use crate::statistics::Counters;

/// What a direction is like.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parameters {
    pub(crate) rate: Rate,
    pub(crate) delay_ns: u64,
    /// The most that is added to the delay of a packet.
    pub(crate) jitter_ns: u64,
    pub(crate) loss: LossRate,
    pub(crate) queue_bytes_max: usize,
}

/// A change while packets are moving. What is in the queue keeps its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Change {
    Down(bool),
    Rate(Rate),
    Loss(LossRate),
}

/// Bits a second of IP packets, from 1 kbit/s to 100 Gbit/s.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate {
    bits_per_second: u64,
}

impl Rate {
    pub(crate) fn from_mbit(mbit: f64) -> Option<Self> {
        let bits_per_second = whole(mbit * 1e6)?;
        (1_000..=100_000_000_000)
            .contains(&bits_per_second)
            .then_some(Self { bits_per_second })
    }

    /// What passes in this time.
    pub(crate) fn bytes_in(self, nanoseconds: u64) -> u64 {
        let bits = u128::from(self.bits_per_second) * u128::from(nanoseconds) / 1_000_000_000;
        u64::try_from(bits / 8).unwrap_or(u64::MAX)
    }

    fn nanoseconds_for(self, bytes: usize) -> u64 {
        bytes as u64 * 8_000_000_000 / self.bits_per_second
    }
}

/// Packets arrive with [`arrive`](Self::arrive) and leave with [`deliver`](Self::deliver), in order. The time is an
/// argument in nanoseconds and never goes back.
#[derive(Debug)]
pub(crate) struct Direction {
    parameters: Parameters,
    down: bool,
    /// The first packet is being sent.
    queue: VecDeque<Packet>,
    queue_bytes: usize,
    /// When the first packet of the queue will have been sent. The next one follows without a gap.
    sent_ns: u64,
    flying: VecDeque<Flying>,
    last_due_ns: u64,
    loss: Loss,
    jitter: Random,
    counters: Counters,
}

pub(crate) type Packet = Box<[u8]>;

#[derive(Debug)]
struct Flying {
    due_ns: u64,
    packet: Packet,
}

impl Direction {
    /// Losses and jitter have random numbers of their own, hence a change of one does not change the other.
    pub(crate) fn new(parameters: Parameters, seed: u64, number: u64) -> Self {
        Self {
            down: false,
            queue: VecDeque::new(),
            queue_bytes: 0,
            sent_ns: 0,
            flying: VecDeque::new(),
            last_due_ns: 0,
            loss: Loss::new(parameters.loss, Random::new(seed, 2 * number)),
            jitter: Random::new(seed, 2 * number + 1),
            counters: Counters::default(),
            parameters,
        }
    }

    /// A packet reaches the queue, or is dropped in front of it.
    pub(crate) fn arrive(&mut self, now_ns: u64, packet: Packet) {
        self.advance(now_ns);
        let size = packet.len();
        self.counters.packets_in += 1;
        self.counters.bytes_in += size as u64;
        self.counters.packet_bytes_max = self.counters.packet_bytes_max.max(size);
        if self.down {
            self.counters.down_drops += 1;
            return;
        }
        if self.queue_bytes + size > self.parameters.queue_bytes_max {
            self.counters.tail_drops += 1;
            return;
        }
        if self.queue.is_empty() {
            self.sent_ns = now_ns + self.parameters.rate.nanoseconds_for(size);
        }
        self.queue_bytes += size;
        self.counters.queue_bytes_peak = self.counters.queue_bytes_peak.max(self.queue_bytes);
        self.queue.push_back(packet);
    }

    /// The next packet that is due.
    pub(crate) fn deliver(&mut self, now_ns: u64) -> Option<Packet> {
        self.advance(now_ns);
        let due = self.flying.pop_front_if(|flying| flying.due_ns <= now_ns)?;
        self.counters.lateness_ns.record(now_ns - due.due_ns);
        self.counters.packets_out += 1;
        self.counters.bytes_out += due.packet.len() as u64;
        Some(due.packet)
    }

    /// No packet is due before this; `None` if there are no packets.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        match self.flying.front() {
            Some(flying) => Some(flying.due_ns),
            None if self.queue.is_empty() => None,
            None => Some(self.sent_ns + self.parameters.delay_ns),
        }
    }

    /// A direction that goes down loses its queue; what was sent before still arrives.
    pub(crate) fn change(&mut self, now_ns: u64, change: Change) {
        self.advance(now_ns);
        match change {
            Change::Rate(rate) => self.parameters.rate = rate,
            Change::Loss(rate) => self.loss.change(rate),
            Change::Down(down) => {
                self.down = down;
                if down {
                    self.counters.down_drops += self.queue.len() as u64;
                    self.queue.clear();
                    self.queue_bytes = 0;
                }
            }
        }
    }

    pub(crate) fn write_failed(&mut self) {
        self.counters.write_errors += 1;
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Sends what has been sent by now.
    fn advance(&mut self, now_ns: u64) {
        while self.sent_ns <= now_ns
            && let Some(packet) = self.queue.pop_front()
        {
            self.queue_bytes -= packet.len();
            let sent_ns = self.sent_ns;
            if let Some(next) = self.queue.front() {
                self.sent_ns += self.parameters.rate.nanoseconds_for(next.len());
            }
            self.fly(sent_ns, packet);
        }
    }

    fn fly(&mut self, sent_ns: u64, packet: Packet) {
        if self.loss.next() {
            self.counters.random_drops += 1;
            return;
        }
        let jitter_ns = self.jitter.up_to(self.parameters.jitter_ns);
        let due_ns = (sent_ns + self.parameters.delay_ns + jitter_ns).max(self.last_due_ns);
        self.last_due_ns = due_ns;
        self.flying.push_back(Flying { due_ns, packet });
    }
}

/// The nearest whole number; `None` for what is negative, not a number or too large.
pub(crate) fn whole(value: f64) -> Option<u64> {
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
    #[expect(clippy::cast_sign_loss, reason = "the range is checked")]
    (0.0..1e18).contains(&value).then(|| value.round() as u64)
}

#[cfg(test)]
#[path = "direction_tests.rs"]
mod tests;
