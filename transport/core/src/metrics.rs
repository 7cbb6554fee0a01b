//! What is counted of calls, by whatever transport they come or go: names and meanings.
//!
//! Labels are names of this program's own (protocols, calls, codes, transports): who a peer is never is one.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Calls answered, by protocol, call, transport and code. Those that were refused unread are of the call `unread`.
pub const CALLS: &str = "flwr_quic_calls_total";
/// Calls that a service works on or holds, by protocol and transport.
pub const CALLS_UNDER_WAY: &str = "flwr_quic_calls_under_way";
/// From the head of a call to the head of its answer, by protocol and call.
pub const CALL_SECONDS: &str = "flwr_quic_call_duration_seconds";
/// Bytes of bodies, by transport and direction.
pub const BODY_BYTES: &str = "flwr_quic_body_bytes_total";
/// Calls that this process has made, by protocol, call, transport and code.
pub const CLIENT_CALLS: &str = "flwr_quic_client_calls_total";
/// Bytes of bodies of those, by transport and direction.
pub const CLIENT_BODY_BYTES: &str = "flwr_quic_client_body_bytes_total";

/// The upper bounds of the classes of [`CALL_SECONDS`]: calls that wait for work are held for minutes.
pub const CALL_SECONDS_BOUNDS: [f64; 10] =
    [0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0, 3600.0];

/// Says what each of them means. A recorder has to be installed.
pub fn describe() {
    describe_counter!(
        CALLS,
        Unit::Count,
        "Calls answered; code cancelled: the caller gave up; call unread: refused before a service has seen it"
    );
    describe_gauge!(
        CALLS_UNDER_WAY,
        Unit::Count,
        "Calls that a service works on, or holds until there is something to answer"
    );
    describe_histogram!(
        CALL_SECONDS,
        Unit::Seconds,
        "Time from the head of a call to the head of its answer, waiting for work included"
    );
    describe_counter!(
        BODY_BYTES,
        Unit::Bytes,
        "Bytes of the bodies of calls and answers, mostly objects"
    );
    describe_counter!(
        CLIENT_CALLS,
        Unit::Count,
        "Calls that this process made and that were answered, or given up (cancelled)"
    );
    describe_counter!(
        CLIENT_BODY_BYTES,
        Unit::Bytes,
        "Bytes of the bodies of calls that this process made, and of their answers"
    );
}
