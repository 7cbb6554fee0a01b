//! A clock, one bottleneck and the flows that share it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::host::Host;
use super::link::{Link, Path};
use super::{Factory, origin};

pub(super) struct Sim {
    pub(super) now: Instant,
    pub(super) link: Link<(usize, BytesMut)>,
    pub(super) flows: Vec<Flow>,
    /// Bytes in the queue as each packet of data came to it, from `watch_from` on.
    backlogs: Vec<f64>,
    watch_from: Instant,
    /// Whether senders ask for an acknowledgement of every tenth packet only.
    pub(super) rare_acks: bool,
    path: Path,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    sequence: u64,
}

pub(super) struct Flow {
    pub(super) sender: Host,
    pub(super) receiver: Host,
    pub(super) sent_bytes: u64,
    extra_delay: Duration,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Depart,
    ToReceiver(usize, BytesMut),
    ToSender(usize, BytesMut),
    Write(usize, u64),
    Wake,
}

impl Sim {
    pub(super) fn new(path: Path, seed: u64) -> Self {
        let epoch = origin();
        Self {
            now: epoch,
            link: Link::new(&path, seed),
            flows: Vec::new(),
            backlogs: Vec::new(),
            watch_from: epoch,
            rare_acks: false,
            path,
            events: BinaryHeap::new(),
            sequence: 0,
        }
    }

    /// Adds a flow that connects now.
    pub(super) fn flow(&mut self, controller: Factory) -> usize {
        let id = self.flows.len();
        self.flows.push(Flow {
            sender: Host::client(self.now, id as u64, controller, self.rare_acks),
            receiver: Host::server(self.now, id as u64),
            sent_bytes: 0,
            extra_delay: Duration::ZERO,
        });
        self.push(self.now, Event::Wake);
        self.drive_sender(id);
        id
    }

    /// Starts to watch the queue afresh, in `after`.
    pub(super) fn watch(&mut self, after: Duration) {
        self.backlogs.clear();
        self.watch_from = self.now + after;
    }

    /// Has the application of a flow hand over `bytes` in `after`.
    pub(super) fn write(&mut self, flow: usize, bytes: u64, after: Duration) {
        self.push(self.now + after, Event::Write(flow, bytes));
    }

    pub(super) fn extra_delay(&mut self, flow: usize, delay: Duration) {
        self.flows[flow].extra_delay = delay;
    }

    pub(super) fn set_mbit(&mut self, mbit: f64) {
        self.path.mbit = mbit;
        self.link.set_mbit(mbit);
    }

    /// Whether the path loses everything from now on.
    pub(super) fn cut(&mut self, is_cut: bool) {
        self.link.is_cut = is_cut;
    }

    /// Runs until the application of a flow got `bytes` in all, or the time is over; the time it took.
    pub(super) fn run_until_received(
        &mut self,
        flow: usize,
        bytes: u64,
        limit: Duration,
    ) -> Duration {
        let from = self.now;
        let end = from + limit;
        while self.flows[flow].receiver.received < bytes && self.step(end) {}
        self.now - from
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
    }

    /// Bytes the application of each flow receives in `time`, as a share of what the link carries.
    pub(super) fn shares(&mut self, time: Duration) -> Vec<f64> {
        let before: Vec<u64> = self
            .flows
            .iter()
            .map(|flow| flow.receiver.received)
            .collect();
        self.run_for(time);
        let link = self.path.bytes_per_second() * time.as_secs_f64();
        self.flows
            .iter()
            .zip(before)
            .map(|(flow, before)| (flow.receiver.received - before) as f64 / link)
            .collect()
    }

    /// The 99th percentile of the queue that packets met.
    pub(super) fn backlog_p99(&mut self) -> f64 {
        self.backlogs.sort_by(f64::total_cmp);
        self.backlogs
            .get(self.backlogs.len() * 99 / 100)
            .copied()
            .unwrap_or(0.0)
    }

    /// Does everything of the next instant at which something happens; false once `end` is reached.
    fn step(&mut self, end: Instant) -> bool {
        let event = self.events.peek().map(|Reverse((at, ..))| *at);
        let mut next = event.unwrap_or(end);
        for flow in &self.flows {
            for host in [&flow.sender, &flow.receiver] {
                if let Some(at) = host.timeout {
                    next = next.min(host.ready(at));
                }
            }
        }
        if next >= end {
            self.now = end;
            return false;
        }
        self.now = next.max(self.now);
        let mut dirty = vec![(false, false); self.flows.len()];
        while self
            .events
            .peek()
            .is_some_and(|Reverse((at, ..))| *at <= self.now)
        {
            if let Some(Reverse((_, _, event))) = self.events.pop() {
                self.happen(event, &mut dirty);
            }
        }
        for (flow, (sender, receiver)) in dirty.into_iter().enumerate() {
            let now = self.now;
            if receiver || self.flows[flow].receiver.is_due(now) {
                self.drive_receiver(flow);
            }
            if sender || self.flows[flow].sender.is_due(now) {
                self.drive_sender(flow);
            }
        }
        true
    }

    fn happen(&mut self, event: Event, dirty: &mut [(bool, bool)]) {
        match event {
            Event::Depart => {
                if let Some((flow, datagram)) = self.link.depart() {
                    let at = self.now + self.path.rtt / 2 + self.flows[flow].extra_delay;
                    let at = self.flows[flow].receiver.ready(at);
                    self.push(at, Event::ToReceiver(flow, datagram));
                }
                if let Some(time) = self.link.head_time() {
                    self.push(self.now + time, Event::Depart);
                }
            }
            Event::ToReceiver(flow, datagram) => {
                self.flows[flow].receiver.inbox.push(datagram);
                dirty[flow].1 = true;
            }
            Event::ToSender(flow, datagram) => {
                self.flows[flow].sender.inbox.push(datagram);
                dirty[flow].0 = true;
            }
            Event::Write(flow, bytes) => {
                self.flows[flow].sender.unwritten += bytes;
                dirty[flow].0 = true;
            }
            Event::Wake => {}
        }
    }

    fn drive_sender(&mut self, id: usize) {
        let mut datagrams = Vec::new();
        let flow = &mut self.flows[id];
        flow.sender
            .drive(self.now, |datagram| datagrams.push(datagram));
        for datagram in datagrams {
            let bytes = datagram.len() + IP_UDP_HEADER;
            self.flows[id].sent_bytes += bytes as u64;
            if self.now >= self.watch_from {
                self.backlogs.push(self.link.backlog());
            }
            if self.link.offer(bytes, (id, datagram))
                && let Some(time) = self.link.head_time()
            {
                self.push(self.now + time, Event::Depart);
            }
        }
    }

    fn drive_receiver(&mut self, id: usize) {
        let mut datagrams = Vec::new();
        self.flows[id]
            .receiver
            .drive(self.now, |datagram| datagrams.push(datagram));
        for datagram in datagrams {
            let at = self.now + self.path.rtt / 2;
            let at = self.flows[id].sender.ready(at);
            self.push(at, Event::ToSender(id, datagram));
        }
    }

    fn push(&mut self, at: Instant, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }
}

const IP_UDP_HEADER: usize = 28;
