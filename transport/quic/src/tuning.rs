//! What a connection is allowed to hold and how it behaves, each number with its reason.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quinn::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use quinn_proto::congestion::{ControllerFactory, CubicConfig};

use crate::congestion::LossTolerantConfig;
use crate::qlog;
use crate::stream::Limits;

/// How connections are run. Sizes are in bytes and bound the memory of one connection.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Which congestion controller sends.
    pub congestion: Congestion,
    /// Bytes of a stream that may arrive unread. Twice the product of bandwidth and round trip of a
    /// link of 100 Mbit/s and 200 ms.
    pub stream_window: u32,
    /// Bytes of all streams together that may arrive unread. The sender counts what it has buffered,
    /// so this holds the windows of the bodies that travel at once, and then some: otherwise a small
    /// call waits for room.
    pub receive_window: u32,
    /// Bytes sent and not acknowledged, of all streams together. When it is full, small calls wait
    /// too, so it holds the windows of the bodies that travel at once, and then some.
    pub send_window: u64,
    /// Streams that the peer may have open: its calls under way. It begins with [`CALLS_AT_FIRST`].
    pub calls_max: u32,
    /// The longest head of a call or an answer that is read. Answers carry whole app bundles.
    pub head_bytes_max: usize,
    /// After this much silence the connection is gone.
    pub idle_timeout: Duration,
    /// A sign of life is sent after this much silence, so that middle boxes keep the way open; none
    /// is where this end does not.
    pub keep_alive: Option<Duration>,
    /// How long a body may stand still, in either direction, until its stream is given up.
    pub still_max: Duration,
    /// Where to write a trace of every connection. It slows them down.
    pub qlog_dir: Option<PathBuf>,
}

/// A congestion controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// Our own, which tells random loss from a full queue: [`LossTolerant`](crate::congestion::LossTolerant).
    #[default]
    Bbr,
    /// Cubic (RFC 9438), which takes every loss for a full queue.
    Cubic,
}

impl Tuning {
    /// For the end that connects: one or a few connections.
    #[must_use]
    pub fn connecting() -> Self {
        Self {
            congestion: Congestion::default(),
            stream_window: 8 << 20,
            receive_window: 48 << 20,
            send_window: 40 << 20,
            calls_max: 0,
            head_bytes_max: ANSWER_BYTES_MAX,
            idle_timeout: Duration::from_secs(60),
            keep_alive: Some(Duration::from_secs(15)),
            still_max: Duration::from_secs(120),
            qlog_dir: None,
        }
    }

    /// For the end that accepts, and may hold thousands of connections.
    #[must_use]
    pub fn accepting() -> Self {
        Self {
            stream_window: 4 << 20,
            receive_window: 24 << 20,
            calls_max: 256,
            head_bytes_max: CALL_BYTES_MAX,
            // Keeping the way open is for those who may be behind a middle box.
            keep_alive: None,
            ..Self::connecting()
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            read_bytes_max: self.head_bytes_max,
            // What an acceptor reads, which a caller asks before it is told.
            write_bytes_max: CALL_BYTES_MAX,
            still_max: self.still_max,
        }
    }

    /// For a connection with `peer` that is to be traced.
    pub(crate) fn traced(&self, peer: SocketAddr, mtu: u16) -> Option<Arc<TransportConfig>> {
        let folder = self.qlog_dir.as_deref()?;
        let mut transport = self.transport(mtu);
        transport.qlog_stream(qlog::start(folder, peer));
        Some(Arc::new(transport))
    }

    /// For connections whose packets may grow to `mtu` bytes of UDP payload, if they get through.
    pub(crate) fn transport(&self, mtu: u16) -> TransportConfig {
        let mut transport = TransportConfig::default();
        let idle = IdleTimeout::try_from(self.idle_timeout).expect("below 2^62 ms");
        let mut acks = AckFrequencyConfig::default();
        // Acknowledging every tenth packet saves the receiver a quarter of its packets. But what is acknowledged at once is
        // sent at once, and long bursts lose too much where others fill the queue, so slow connections do not wait for ten.
        acks.ack_eliciting_threshold(VarInt::from_u32(10))
            .max_ack_delay(Some(ACK_DELAY));
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(mtu);
        transport
            .stream_receive_window(VarInt::from_u32(self.stream_window))
            .receive_window(VarInt::from_u32(self.receive_window))
            .send_window(self.send_window)
            .max_concurrent_bidi_streams(VarInt::from_u32(self.calls_max.min(CALLS_AT_FIRST)))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(self.keep_alive)
            .initial_rtt(INITIAL_RTT)
            .ack_frequency_config(Some(acks))
            .mtu_discovery_config(Some(discovery))
            .datagram_receive_buffer_size(None)
            .congestion_controller_factory(self.congestion.factory());
        transport
    }
}

impl fmt::Display for Congestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bbr => "bbr",
            Self::Cubic => "cubic",
        })
    }
}

impl Congestion {
    fn factory(self) -> Arc<dyn ControllerFactory + Send + Sync> {
        match self {
            Self::Bbr => Arc::new(LossTolerantConfig::default()),
            Self::Cubic => Arc::new(CubicConfig::default()),
        }
    }
}

/// Calls that a peer may have under way before more are allowed: each costs 84 bytes for as long as the connection lives,
/// whether it is ever made or not, and most peers wait for one thing at a time.
pub(crate) const CALLS_AT_FIRST: u32 = 32;
/// The longest head of a call: a reply names its objects, with 32 bytes and a little more each.
pub(crate) const CALL_BYTES_MAX: usize = 32 << 20;
/// The longest head of an answer: as long as a message of gRPC.
const ANSWER_BYTES_MAX: usize = i32::MAX as usize;
/// The assumed round trip of a link nothing is known of: a lost first packet then costs 0.3 s and not
/// 1 s.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// The least that quinn promises to keep.
const ACK_DELAY: Duration = Duration::from_millis(1);
/// The payload of UDP in an Ethernet frame, with IPv4.
pub(crate) const MTU_ETHERNET: u16 = 1472;
/// The payload on links with larger frames. Ten of them, which the system takes at once, have to fit into one of 64 KiB.
pub(crate) const MTU_JUMBO: u16 = 6472;
