//! What carries the objects, by name.

use clap::ValueEnum;
use flwr_transport_quic::Tuning;
use flwr_transport_quic::tuning::Congestion;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    /// The project's QUIC
    Quic,
    /// The project's gRPC, as stock Flower speaks it, over TLS
    Grpc,
    /// A plain exchange over TLS, a yardstick
    Tls,
}

impl Transport {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Grpc => "grpc",
            Self::Tls => "tls",
        }
    }
}

/// Windows of HTTP/2 in bytes, of a stream and of all streams of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    pub(crate) stream: u32,
    pub(crate) connection: u32,
}

/// What a server built on hyper, such as one of tonic, has where nobody says otherwise.
pub(crate) const DEFAULT_SERVER_WINDOWS: Windows = Windows {
    stream: 1 << 20,
    connection: 1 << 20,
};

/// The same for clients.
pub(crate) const DEFAULT_CLIENT_WINDOWS: Windows = Windows {
    stream: 2 << 20,
    connection: 5 << 20,
};

/// The congestion controller of QUIC with this name.
pub(crate) fn congestion(name: &str) -> Result<Congestion, String> {
    CONGESTIONS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, congestion)| *congestion)
        .ok_or_else(|| {
            format!(
                "known are {}",
                CONGESTIONS.map(|(known, _)| known).join(", ")
            )
        })
}

/// `tuning` with the congestion controller that was asked for, if one was.
pub(crate) fn with(tuning: Tuning, congestion: Option<Congestion>) -> Tuning {
    Tuning {
        congestion: congestion.unwrap_or(tuning.congestion),
        ..tuning
    }
}

const CONGESTIONS: [(&str, Congestion); 2] =
    [("bbr", Congestion::Bbr), ("cubic", Congestion::Cubic)];
