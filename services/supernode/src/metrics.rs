//! What is counted of a SuperNode: names and meanings.
//!
//! Labels are words of this program's own: who a peer is, and what a run is called, is never one.

use flwr_api::{AppError, Payload};
use metrics::{Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

use crate::node::SuperNode;

/// 1 while the node is one of the SuperLink's, else 0.
pub const REGISTERED: &str = "flwr_quic_node_registered";
/// Messages in hand, by stage.
pub const IN_HAND: &str = "flwr_quic_node_messages_in_hand";
/// Launches of ClientApps that were claimed.
pub const APPS_BEGUN: &str = "flwr_quic_node_app_launches_total";
/// Messages that were answered, by outcome.
pub const ANSWERED: &str = "flwr_quic_node_replies_total";
/// Objects in files.
pub const FILES: &str = "flwr_quic_node_store_objects";
/// Their bytes.
pub const FILE_BYTES: &str = "flwr_quic_node_store_bytes";
/// Objects from and to the SuperLink, by direction.
pub const OBJECTS: &str = "flwr_quic_node_objects_total";

impl SuperNode {
    /// Brings the gauges up to date.
    pub fn survey(&self) {
        let core = &self.core;
        let registered = core.standing.check().is_ok();
        gauge!(REGISTERED).set(if registered { 1.0 } else { 0.0 });
        for (stage, messages) in core.desk.stages() {
            gauge!(IN_HAND, "stage" => stage).set(messages as f64);
        }
        let totals = core.objects.totals();
        gauge!(FILES).set(totals.objects as f64);
        gauge!(FILE_BYTES).set(totals.bytes as f64);
    }
}

/// A message that counts as being fetched until this is dropped.
pub(crate) struct Fetching(Gauge);

impl Fetching {
    pub(crate) fn begin() -> Self {
        let fetching = gauge!(IN_HAND, "stage" => "fetching");
        fetching.increment(1);
        Self(fetching)
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

/// Begins to count: Prometheus sees no increase to the first value that it hears.
pub(crate) fn begin() {
    counter!(APPS_BEGUN).increment(0);
    counter!(ANSWERED, "outcome" => "content").increment(0);
    for code in [
        AppError::APP_NOT_LOADED,
        AppError::APP_RAISED,
        AppError::MESSAGE_UNAVAILABLE,
        AppError::REPLY_MESSAGE_UNAVAILABLE,
    ] {
        counter!(ANSWERED, "outcome" => name_of(code)).increment(0);
    }
}

/// Counts a reply that the SuperLink has, whole.
pub(crate) fn count_reply(payload: &Payload) {
    let outcome = match payload {
        Payload::Content(_) => "content",
        Payload::Error(error) => name_of(error.code),
    };
    counter!(ANSWERED, "outcome" => outcome).increment(1);
}

/// Flower's names of errors (Flower 1.22, `common/constant.py`, `ErrorCode`).
fn name_of(code: i64) -> &'static str {
    match code {
        AppError::APP_NOT_LOADED => "load_client_app_exception",
        AppError::APP_RAISED => "client_app_raised_exception",
        AppError::MESSAGE_UNAVAILABLE => "message_unavailable",
        AppError::REPLY_MESSAGE_UNAVAILABLE => "reply_message_unavailable",
        AppError::NODE_UNAVAILABLE => "node_unavailable",
        _ => "unknown",
    }
}

/// Counts objects that came from the SuperLink.
pub(crate) fn count_received(objects: u64) {
    counter!(OBJECTS, "direction" => "received").increment(objects);
}

/// Counts objects that the SuperLink took.
pub(crate) fn count_sent(objects: u64) {
    counter!(OBJECTS, "direction" => "sent").increment(objects);
}

/// Counts a launch of a ClientApp.
pub(crate) fn count_launch() {
    counter!(APPS_BEGUN).increment(1);
}

/// Says what each of them means. A recorder has to be installed.
pub fn describe() {
    let gauges = [
        (
            REGISTERED,
            Unit::Count,
            "1 while the SuperLink knows this node and answers it, else 0",
        ),
        (
            IN_HAND,
            Unit::Count,
            "Messages of the SuperLink; fetching: on their way here, queued: wait for a ClientApp, launched: their ClientApp starts, working: it works, replying: their reply is on its way",
        ),
        (FILES, Unit::Count, "Objects in the files of this node"),
        (
            FILE_BYTES,
            Unit::Bytes,
            "Bytes of the objects in the files of this node",
        ),
    ];
    for (name, unit, meaning) in gauges {
        describe_gauge!(name, unit, meaning);
    }
    let counters = [
        (APPS_BEGUN, "Launches of ClientApps"),
        (
            ANSWERED,
            "Replies that the SuperLink has, whole; outcome: content, or the error in its place",
        ),
        (
            OBJECTS,
            "Objects of messages that came from the SuperLink, or that it took",
        ),
    ];
    for (name, meaning) in counters {
        describe_counter!(name, Unit::Count, meaning);
    }
}
