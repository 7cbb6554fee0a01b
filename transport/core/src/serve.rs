//! Who answers calls, who makes them, and who carries them.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::call::{Call, Protocol, Reply};
use crate::drain::Drain;
use crate::peer::{Bearer, Peer};
use crate::presence::Presence;
use crate::status::{Code, Status};

/// What a service learns about a call beside its request.
#[derive(Clone, Debug)]
pub struct Context {
    /// Who calls.
    pub peer: Arc<Peer>,
    /// The claim the caller presented with this call.
    pub bearer: Option<Bearer>,
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// The drain of the acceptor the call came through: a held call answers when it is asked.
    pub drain: Drain,
    /// Cancelled when the connection that the call came over is gone, long after the call maybe.
    pub gone: CancellationToken,
    /// How long the caller has been silent, where the transport hears from it between calls.
    pub presence: Option<Presence>,
    /// Whether the caller can make every call of the protocol. Those that are translated for it, from a dialect, may be
    /// fewer.
    pub is_native: bool,
}

/// Answers the calls of a protocol.
///
/// A transport drops the future when the caller has gone, so a handler must not consume anything
/// before it returns.
pub trait Handler<P: Protocol>: Send + Sync + 'static {
    /// Answers one call.
    fn handle(
        &self,
        context: Context,
        call: Call<P>,
    ) -> impl Future<Output = Result<Reply<P>, Status>> + Send;
}

/// Makes calls over one connection.
pub trait Caller<P: Protocol>: fmt::Debug + Send + Sync + 'static {
    /// Who answers.
    fn peer(&self) -> &Peer;

    /// Makes one call. Dropping the future cancels the call at the other end.
    fn call(&self, call: Call<P>) -> impl Future<Output = Result<Reply<P>, Status>> + Send;

    /// Completes when the connection is gone, with the reason. Cancel safe.
    fn closed(&self) -> impl Future<Output = Closed> + Send;

    /// Closes the connection; calls under way fail with [`Code::Unavailable`].
    fn close(&self, reason: &'static str);
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// This end closed it.
    Here(&'static str),
    /// The peer closed it or is shutting down.
    Peer,
    /// Packets stopped coming.
    Lost,
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// [`Caller`] as an object, so that a transport can be chosen at run time for one allocation a
/// call. Every [`Caller`] is one.
pub trait DynCaller<P: Protocol>: fmt::Debug + Send + Sync + 'static {
    /// See [`Caller::peer`].
    fn peer(&self) -> &Peer;
    /// See [`Caller::call`].
    fn call(&self, call: Call<P>) -> BoxFuture<'_, Result<Reply<P>, Status>>;
    /// See [`Caller::closed`].
    fn closed(&self) -> BoxFuture<'_, Closed>;
    /// See [`Caller::close`].
    fn close(&self, reason: &'static str);
}

impl<P: Protocol, C: Caller<P>> DynCaller<P> for C {
    fn peer(&self) -> &Peer {
        Caller::peer(self)
    }

    fn call(&self, call: Call<P>) -> BoxFuture<'_, Result<Reply<P>, Status>> {
        Box::pin(Caller::call(self, call))
    }

    fn closed(&self) -> BoxFuture<'_, Closed> {
        Box::pin(Caller::closed(self))
    }

    fn close(&self, reason: &'static str) {
        Caller::close(self, reason);
    }
}

/// Opens connections to one address.
pub trait Connector<P: Protocol>: Send + Sync + 'static {
    /// What a connection is called by.
    type Caller: Caller<P>;

    /// Opens a connection.
    fn connect(&self) -> impl Future<Output = Result<Self::Caller, ConnectError>> + Send;
}

/// Why no connection came about.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ConnectError {
    /// Whether trying again can help.
    pub retryable: bool,
    /// What went wrong, for people.
    pub message: String,
}

/// Accepts connections on one address and has their calls answered.
pub trait Acceptor<P: Protocol>: Send + 'static {
    /// The address it listens on.
    fn local_addr(&self) -> SocketAddr;

    /// Serves until `drain` is asked and its calls are finished or the transport's grace is over.
    ///
    /// On drain it refuses new connections and calls with [`Code::Draining`], ends event tails
    /// cleanly and lets bodies finish.
    fn serve<H: Handler<P>>(
        self,
        handler: Arc<H>,
        drain: Drain,
    ) -> impl Future<Output = Result<Drained, ServeError>> + Send;
}

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Calls that were still under way when the grace period ended and were cut.
    pub cut: usize,
}

/// Why serving ended without being asked to.
#[derive(Debug, thiserror::Error)]
#[error("cannot accept connections on {addr}")]
pub struct ServeError {
    /// The address that was served.
    pub addr: SocketAddr,
    /// What the system said.
    #[source]
    pub source: std::io::Error,
}

impl Context {
    /// The status of a call that came too late in this acceptor's life.
    #[must_use]
    pub fn draining() -> Status {
        Status::new(Code::Draining, "the server is shutting down")
    }
}
