//! The in-process transport, on which services are tested.
//!
//! It moves values instead of bytes and keeps every other promise of a transport: queues are
//! bounded and their writers wait, dropping a call drops its handler, deadlines are enforced, a
//! drain refuses, finishes and cuts. It reads no clock but tokio's, so a test can pause it.
//!
//! [`pair`] makes both ends. The connecting end is whoever the test says
//! ([`Connector::with_identity`]), and [`Connector::lose_connections`] plays a network that fails.
//! Addresses are of the discard prefix (RFC 6666), which no packet reaches.
//!
//! Absent on purpose: requests are not serialized, and heads have no size limit.

mod acceptor;
mod caller;
mod pipe;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::call::{Call, Protocol, Reply};
use crate::peer::{Identity, Peer};
use crate::serve::Closed;
use crate::status::{Code, Status};

pub use acceptor::Acceptor;
pub use caller::{Caller, Connector};

/// The label of this transport in [`Peer::transport`].
pub const TRANSPORT: &str = "memory";

/// Bounds of one pair. Numbers below 1 count as 1.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the accepting end has proved to be.
    pub acceptor_identity: Identity,
    /// How long a drain waits for calls under way before it cuts them.
    pub grace: Duration,
    /// How many calls are answered at once; further ones wait in a queue, then at their callers.
    pub calls_max: usize,
    /// How many events wait for a slow reader before the service waits.
    pub events_max: usize,
    /// Larger pieces of a body arrive cut to this many bytes.
    pub piece_bytes_max: usize,
    /// How many pieces of a body wait for a slow reader before the writer waits.
    pub pieces_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            acceptor_identity: Identity::Anonymous,
            grace: Duration::from_secs(30),
            calls_max: 1024,
            events_max: 16,
            piece_bytes_max: 64 << 10,
            pieces_max: 4,
        }
    }
}

/// Two ends that reach each other and nobody else. Connections and calls made before
/// [`Acceptor::serve`](crate::Acceptor::serve) wait for it.
#[must_use]
pub fn pair<P: Protocol>(options: Options) -> (Connector<P>, Acceptor<P>) {
    let (calls, incoming) = mpsc::channel(WAITING_CALLS_MAX);
    let link = Arc::new(Link {
        acceptor: Peer {
            identity: options.acceptor_identity.clone(),
            addr: addr(1, 1),
            transport: TRANSPORT,
        },
        calls,
        refusing: CancellationToken::new(),
        gone: CancellationToken::new(),
        network: Mutex::default(),
        last_port: AtomicU16::new(0),
    });
    (
        Connector::new(Arc::clone(&link)),
        Acceptor::new(link, incoming, options),
    )
}

/// What both ends of a pair share.
#[derive(Debug)]
struct Link<P: Protocol> {
    acceptor: Peer,
    calls: mpsc::Sender<Incoming<P>>,
    /// No new connections: the acceptor drains or is gone.
    refusing: CancellationToken,
    /// The acceptor is gone.
    gone: CancellationToken,
    /// Parent of all connections that are not lost yet.
    network: Mutex<CancellationToken>,
    last_port: AtomicU16,
}

/// A call on its way to the acceptor.
#[derive(Debug)]
struct Incoming<P: Protocol> {
    connection: Arc<Connection>,
    call: Call<P>,
    /// Closed by the caller when it stops waiting.
    reply_to: oneshot::Sender<Result<Reply<P>, Status>>,
}

/// One connection, as both ends see it.
#[derive(Debug)]
struct Connection {
    caller: Arc<Peer>,
    ended: CancellationToken,
    /// Set if this was on purpose.
    closed_for: OnceLock<&'static str>,
}

impl<P: Protocol> Link<P> {
    fn open(&self, identity: Identity) -> Arc<Connection> {
        let port = self
            .last_port
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(1);
        let network = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::new(Connection {
            caller: Arc::new(Peer {
                identity,
                addr: addr(2, port),
                transport: TRANSPORT,
            }),
            ended: network.child_token(),
            closed_for: OnceLock::new(),
        })
    }

    fn lose_connections(&self) {
        let mut network = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *network).cancel();
    }
}

impl Connection {
    fn close(&self, reason: &'static str) {
        if !self.ended.is_cancelled() {
            // Only the first reason counts, so a refused one is dropped.
            self.closed_for.get_or_init(|| reason);
            self.ended.cancel();
        }
    }

    async fn ended(&self) -> Closed {
        self.ended.cancelled().await;
        self.closed_for
            .get()
            .map_or(Closed::Lost, |reason| Closed::Here(reason))
    }
}

fn addr(host: u16, port: u16) -> SocketAddr {
    let host = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, host);
    SocketAddr::new(IpAddr::V6(host), port)
}

fn unavailable() -> Status {
    Status::new(Code::Unavailable, "the connection is gone")
}

/// Calls that wait while [`Options::calls_max`] others are answered: enough for a burst, little
/// enough that a test of a stuck service notices.
const WAITING_CALLS_MAX: usize = 64;

#[cfg(test)]
mod tests;
