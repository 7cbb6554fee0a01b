//! Calls over QUIC (RFC 9000), between our own programs.
//!
//! One connection carries all calls of a caller, each on a stream of its own, so that one that waits
//! or loses a packet holds up no other. [`frame`] and `head.rs` are the wire format. [`Connector`] and
//! [`Acceptor`] are the two ends; `calling.rs` and `answering.rs` see one call through.
//!
//! TLS comes ready made: this crate adds the ALPN and leaves trust to whoever makes the
//! configurations, which can be replaced: connections that begin later take what is there then. What a client certificate proves, [`Options::identify`] says.

mod acceptor;
mod answering;
mod body;
mod budget;
mod caller;
mod calling;
mod code;
pub mod congestion;
mod connection;
mod connector;
mod counted_socket;
mod early;
pub mod frame;
mod greeting;
mod head;
mod links;
pub mod metrics;
mod options;
mod probe;
mod proof;
mod pulse;
mod qlog;
mod refusals;
mod served;
mod sessions;
mod stream;
pub mod tuning;
pub mod udp;
mod windows;

pub use acceptor::Acceptor;
pub use caller::Caller;
pub use connector::{Connector, Target};
pub use options::{Admit, Identify, Options, Shown};
pub use probe::Probed;
pub use proof::{Proof, Prove};
pub use tuning::Tuning;

/// The label of this transport in [`Peer::transport`](flwr_transport::Peer::transport).
pub const TRANSPORT: &str = "quic";

/// The protocol name in the TLS handshake (RFC 7301).
pub const ALPN: &[u8] = b"flwr-quic";
