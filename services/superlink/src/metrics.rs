//! What is counted of a SuperLink: names and meanings.
//!
//! Labels are words of this program's own: who a peer is, and what a run is called, is never one.

use std::time::Duration;

use bytes::Bytes;
use flwr_api::ObjectId;
use flwr_transport::Body;
use metrics::{
    Counter, Gauge, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

/// Nodes that have joined and not left, by state.
pub const NODES: &str = "flwr_quic_nodes";
/// Runs, by status.
pub const RUNS: &str = "flwr_quic_runs";
/// Messages to nodes that are under way, by state.
pub const INSTRUCTIONS: &str = "flwr_quic_instructions";
/// The age of the oldest of them, by state.
pub const INSTRUCTION_AGE: &str = "flwr_quic_instruction_oldest_age_seconds";
/// Objects in the store.
pub const STORE_OBJECTS: &str = "flwr_quic_store_objects";
/// Their bytes.
pub const STORE_BYTES: &str = "flwr_quic_store_bytes";
/// Objects that were received and sent whole, by direction and transport.
pub const OBJECTS: &str = "flwr_quic_objects_total";
/// Their bytes, by direction and transport.
pub const OBJECT_BYTES: &str = "flwr_quic_object_bytes_total";
/// Calls that are held, by what they wait for.
pub const CALLS_HELD: &str = "flwr_quic_calls_held";
/// How long rounds took, by kind.
pub const ROUND_SECONDS: &str = "flwr_quic_round_duration_seconds";
/// Replies that were handed out, by kind and outcome.
pub const ROUND_REPLIES: &str = "flwr_quic_round_replies_total";
/// For how long nothing has happened in a running run.
pub const STANDSTILL: &str = "flwr_quic_run_standstill_seconds";

/// The upper bounds of the classes of [`ROUND_SECONDS`]: from nothing to compute to a night of training.
pub const ROUND_SECONDS_BOUNDS: [f64; 11] = [
    0.1, 0.5, 2.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0,
];

/// Which way objects go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Received,
    Sent,
}

/// What a call is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    Instruction,
    /// One that is still on its way to the SuperLink.
    Announced,
    Replies,
    Launch,
    Object,
    EndOfRun,
    /// Nothing: it is held so that its connection counts as a node's signs of life.
    NextHeartbeat,
}

/// A call that counts as held until this is dropped.
pub(crate) struct Held(Gauge);

impl Held {
    pub(crate) fn for_(awaited: Awaited) -> Self {
        let waits_for = match awaited {
            Awaited::Instruction => "instruction",
            Awaited::Announced => "announced",
            Awaited::Replies => "replies",
            Awaited::Launch => "launch",
            Awaited::Object => "object",
            Awaited::EndOfRun => "end_of_run",
            Awaited::NextHeartbeat => "next_heartbeat",
        };
        let held = gauge!(CALLS_HELD, "waits_for" => waits_for);
        held.increment(1);
        Self(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Sent => "sent",
        }
    }

    /// Counts objects that went this way.
    pub(crate) fn count_objects(self, transport: &'static str, objects: u64) {
        counter!(OBJECTS, "direction" => self.name(), "transport" => transport).increment(objects);
    }

    /// Counts objects that travel with their message.
    pub(crate) fn count_parcel(self, transport: &'static str, objects: &[(ObjectId, Bytes)]) {
        let bytes: usize = objects.iter().map(|(_, bytes)| bytes.len()).sum();
        self.count_objects(transport, objects.len() as u64);
        self.bytes(transport).increment(bytes as u64);
    }

    /// Counts the bytes of objects as they pass.
    pub(crate) fn count_bytes(self, transport: &'static str, body: Body) -> Body {
        let bytes = self.bytes(transport);
        body.inspect(move |piece| bytes.increment(piece as u64))
    }

    fn bytes(self, transport: &'static str) -> Counter {
        counter!(OBJECT_BYTES, "direction" => self.name(), "transport" => transport)
    }
}

/// Counts a round that is over.
pub(crate) fn count_round(kind: &'static str, took: Duration) {
    histogram!(ROUND_SECONDS, "kind" => kind).record(took);
}

/// Counts replies that were handed out.
pub(crate) fn count_replies(kind: &'static str, is_error: bool) {
    let outcome = if is_error { "error" } else { "content" };
    counter!(ROUND_REPLIES, "kind" => kind, "outcome" => outcome).increment(1);
}

/// Says what each of them means. A recorder has to be installed.
pub fn describe() {
    let gauges = [
        (
            NODES,
            Unit::Count,
            "Nodes that have joined and not left; offline: their heartbeats are overdue. They are forgotten after a day",
        ),
        (RUNS, Unit::Count, "Runs by status"),
        (
            INSTRUCTIONS,
            Unit::Count,
            "Messages to nodes; incomplete: objects are missing, ready: wait for their node to ask, offered: their node fetches them, working: their node has them, answered: their replies wait for the ServerApp",
        ),
        (
            INSTRUCTION_AGE,
            Unit::Seconds,
            "Age of the oldest message to a node in this state, by the clock of its ServerApp; 0 if there is none",
        ),
        (
            STORE_OBJECTS,
            Unit::Count,
            "Objects of messages that the state knows of",
        ),
        (
            STORE_BYTES,
            Unit::Bytes,
            "Bytes of the objects that the state has",
        ),
        (
            CALLS_HELD,
            Unit::Count,
            "Calls that are held until there is something to answer",
        ),
        (
            STANDSTILL,
            Unit::Seconds,
            "Longest time that a running run has seen no message or object come or go; 0 if none runs",
        ),
    ];
    for (name, unit, meaning) in gauges {
        describe_gauge!(name, unit, meaning);
    }
    let counters = [
        (
            OBJECTS,
            Unit::Count,
            "Objects of messages that were taken or handed out",
        ),
        (
            OBJECT_BYTES,
            Unit::Bytes,
            "Bytes of objects of messages, as they passed",
        ),
        (
            ROUND_REPLIES,
            Unit::Count,
            "Replies that were handed out to ServerApps; error: an error in place of content",
        ),
    ];
    for (name, unit, meaning) in counters {
        describe_counter!(name, unit, meaning);
    }
    describe_histogram!(
        ROUND_SECONDS,
        Unit::Seconds,
        "Time from the first message of a run with this kind and group to the hand-out of the last reply to them"
    );
}
