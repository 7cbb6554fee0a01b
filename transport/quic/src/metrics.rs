//! What is counted of connections: names, meanings, and the labels there are.
//!
//! No label says who a peer is: that is for logs and traces ([`Tuning::qlog_dir`](crate::Tuning::qlog_dir)).

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram};

pub use crate::links::sample;

/// Connections that began, by side.
pub const CONNECTIONS_BEGUN: &str = "flwr_quic_connections_begun_total";
/// Connections that did not begin, by [`Refusal`].
pub const CONNECTIONS_REFUSED: &str = "flwr_quic_connections_refused_total";
/// Peers that had to prove their address first.
pub const ADDRESS_PROOFS: &str = "flwr_quic_address_validations_total";
/// Calls that were refused unread, by [`Unread`].
pub const CALLS_REFUSED: &str = "flwr_quic_calls_refused_total";
/// Streams that were given up because they stood still, by direction.
pub const STREAMS_STALLED: &str = "flwr_quic_streams_stalled_total";
/// Datagrams from the network, by side.
pub const DATAGRAMS: &str = "flwr_quic_datagrams_received_total";
/// Those of them that belong to connections that began, by side.
pub const CONNECTION_DATAGRAMS: &str = "flwr_quic_connection_datagrams_received_total";
/// Connections there are, by side.
pub const CONNECTIONS: &str = "flwr_quic_connections";
/// Streams there are, by side.
pub const STREAMS: &str = "flwr_quic_streams_open";
/// Bytes of UDP payload, by side and direction.
pub const BYTES: &str = "flwr_quic_connection_bytes_total";
/// Packets sent, by side.
pub const PACKETS_SENT: &str = "flwr_quic_packets_sent_total";
/// Packets of them that were lost, by side.
pub const PACKETS_LOST: &str = "flwr_quic_packets_lost_total";
/// Round trip times of connections, by side.
pub const RTT_SECONDS: &str = "flwr_quic_connection_rtt_seconds";
/// Congestion windows of connections, by side.
pub const WINDOW_BYTES: &str = "flwr_quic_connection_congestion_window_bytes";
/// What connections may hold beyond the least that each has.
pub const MEMORY_LENT: &str = "flwr_quic_memory_lent_bytes";

/// The upper bounds of the classes of [`RTT_SECONDS`].
pub const RTT_SECONDS_BOUNDS: [f64; 11] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0,
];
/// The upper bounds of the classes of [`WINDOW_BYTES`].
pub const WINDOW_BYTES_BOUNDS: [f64; 8] = [16e3, 64e3, 256e3, 1e6, 4e6, 16e6, 64e6, 256e6];

/// Why a connection did not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    TooManyConnections,
    TooManyOfAddress,
    HandshakeFailed,
    /// The peer left between the handshake and the hellos.
    Left,
    TooSlow,
    MalformedHello,
    WrongProtocol,
    Unproved,
}

/// Why a call was refused before it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    Malformed,
    Oversized,
    TooSlow,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Received,
    Sent,
}

impl Refusal {
    pub(crate) fn count(self) {
        let reason = match self {
            Self::TooManyConnections => "too_many_connections",
            Self::TooManyOfAddress => "too_many_of_address",
            Self::HandshakeFailed => "handshake_failed",
            Self::Left => "left",
            Self::TooSlow => "too_slow",
            Self::MalformedHello => "malformed_hello",
            Self::WrongProtocol => "wrong_protocol",
            Self::Unproved => "unproved",
        };
        counter!(CONNECTIONS_REFUSED, "reason" => reason).increment(1);
    }
}

impl Unread {
    pub(crate) fn count(self) {
        let reason = match self {
            Self::Malformed => "malformed",
            Self::Oversized => "oversized",
            Self::TooSlow => "too_slow",
        };
        counter!(CALLS_REFUSED, "reason" => reason).increment(1);
    }
}

impl Direction {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Sent => "sent",
        }
    }

    pub(crate) fn count_stalled(self) {
        counter!(STREAMS_STALLED, "direction" => self.name()).increment(1);
    }
}

/// Says what each of them means. A recorder has to be installed.
pub fn describe() {
    let counters = [
        (
            CONNECTIONS_BEGUN,
            "Connections that began: handshake and hello are done",
        ),
        (
            CONNECTIONS_REFUSED,
            "Connections that were refused, or ended before they began",
        ),
        (
            ADDRESS_PROOFS,
            "Peers that had to prove their address first because many came at once",
        ),
        (
            CALLS_REFUSED,
            "Calls that were refused because their head could not be read",
        ),
        (
            STREAMS_STALLED,
            "Streams that were given up because the peer sent, or took, nothing for too long",
        ),
        (DATAGRAMS, "Datagrams from the network, whatever is in them"),
        (
            CONNECTION_DATAGRAMS,
            "Datagrams of connections that began; all others belong to none",
        ),
        (PACKETS_SENT, "Packets sent by connections"),
        (
            PACKETS_LOST,
            "Packets sent by connections that did not arrive",
        ),
    ];
    for (name, meaning) in counters {
        describe_counter!(name, Unit::Count, meaning);
    }
    describe_counter!(BYTES, Unit::Bytes, "UDP payload of connections");
    describe_gauge!(
        CONNECTIONS,
        Unit::Count,
        "Connections that have begun and not ended"
    );
    describe_gauge!(STREAMS, Unit::Count, "Calls whose streams are open");
    describe_gauge!(
        MEMORY_LENT,
        Unit::Bytes,
        "What connections may hold of the budget for all of them"
    );
    describe_histogram!(
        RTT_SECONDS,
        Unit::Seconds,
        "Round trip times of the connections there are, each observed at every scrape"
    );
    describe_histogram!(
        WINDOW_BYTES,
        Unit::Bytes,
        "Congestion windows of the connections there are, each observed at every scrape"
    );
}
