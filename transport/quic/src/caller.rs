//! One connection, at the end that asks.

use std::fmt;
use std::sync::{Arc, OnceLock};

use flwr_transport::{Call, Closed, Code, Peer, Protocol, Reply, Status};
use quinn::{Connection, ConnectionError, Endpoint, ZeroRttAccepted};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::Tuning;
use crate::calling;
use crate::code::{self, CLOSED};
use crate::connector::Explain;
use crate::early::Early;
use crate::head::{Hello, Notice};
use crate::links::Watched;
use crate::pulse::Pulse;
use crate::stream::{Incoming, Limits, Outgoing};

/// Makes calls over one connection. Tails of its replies outlive it.
pub struct Caller<P: Protocol> {
    connection: Connection,
    pulse: Arc<Pulse>,
    peer: Peer,
    shared: Arc<Shared>,
    watched: Watched,
    _greeting: AbortOnDropHandle<()>,
    _endpoint: Endpoint,
    limits: Limits,
    early: Early,
    explain: Explain,
    _protocol: std::marker::PhantomData<fn() -> P>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The acceptor wants no more calls.
    draining: CancellationToken,
    closed_for: OnceLock<&'static str>,
}

impl<P: Protocol> Caller<P> {
    /// Says hello on the first stream, and does not wait for the answer: calls are in the same
    /// flight, which is the first of all where `handshake` is still under way.
    pub(crate) async fn new(
        endpoint: Endpoint,
        connection: Connection,
        handshake: Option<ZeroRttAccepted>,
        peer: Peer,
        hello: &Hello<'static>,
        tuning: &Tuning,
        explain: Explain,
    ) -> Result<Self, ConnectionError> {
        let limits = tuning.limits();
        let shared = Arc::new(Shared::default());
        let first = greet(&connection, hello, limits).await?;
        let (early, greeting) = match handshake {
            None => (
                Early::none(),
                tokio::spawn(listen(first, Arc::clone(&shared))),
            ),
            Some(handshake) => {
                let (early, settle) = Early::open();
                let (connection, hello) = (connection.clone(), hello.clone());
                let shared = Arc::clone(&shared);
                let greeting = async move {
                    let mut first = first;
                    if !settle.handshake(&connection, handshake).await {
                        match greet(&connection, &hello, limits).await {
                            Ok(anew) => first = anew,
                            Err(_gone) => return,
                        }
                        settle.again();
                    }
                    listen(first, shared).await;
                };
                (early, tokio::spawn(greeting))
            }
        };
        Ok(Self {
            watched: Watched::new(&connection),
            pulse: Pulse::new(connection.clone(), tuning.receive_window),
            connection,
            peer,
            shared,
            _greeting: AbortOnDropHandle::new(greeting),
            _endpoint: endpoint,
            limits,
            early,
            explain,
            _protocol: std::marker::PhantomData,
        })
    }
}

impl<P: Protocol> Caller<P> {
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// What a TLS alert means that has ended the connection: a server judges the client's certificate when the handshake
    /// is complete for the client.
    fn refused(&self) -> Option<Status> {
        let (alert, why) = code::alert(&self.connection.close_reason()?)?;
        let error = (self.explain)(alert, &why);
        Some(Status::new(Code::Unauthenticated, error.message))
    }
}

impl<P: Protocol> flwr_transport::Caller<P> for Caller<P> {
    fn peer(&self) -> &Peer {
        &self.peer
    }

    async fn call(&self, call: Call<P>) -> Result<Reply<P>, Status> {
        if self.shared.closed_for.get().is_some() {
            return Err(Status::new(Code::Unavailable, "the connection is closed"));
        }
        let _open = self.watched.call();
        let make = |call| calling::call(&self.pulse, call, self.limits);
        let answer = self.early.call(call, make).await;
        answer.map_err(|status| self.refused().unwrap_or(status))
    }

    async fn closed(&self) -> Closed {
        let ended = tokio::select! {
            biased;
            ended = self.connection.closed() => ended,
            () = self.shared.draining.cancelled() => return Closed::Peer,
        };
        if let Some(reason) = self.shared.closed_for.get() {
            return Closed::Here(reason);
        }
        match ended {
            ConnectionError::ApplicationClosed(_) | ConnectionError::ConnectionClosed(_) => {
                Closed::Peer
            }
            _ => Closed::Lost,
        }
    }

    fn close(&self, reason: &'static str) {
        if self.connection.close_reason().is_none() {
            // Only the first reason counts.
            self.shared.closed_for.get_or_init(|| reason);
            self.connection.close(CLOSED, reason.as_bytes());
        }
    }
}

/// Opens the first stream with a hello.
async fn greet(
    connection: &Connection,
    hello: &Hello<'static>,
    limits: Limits,
) -> Result<(Outgoing, Incoming), ConnectionError> {
    let (outgoing, incoming) = connection.open_bi().await?;
    let mut outgoing = Outgoing::new(outgoing, limits.of_hello());
    // A connection that is gone already says so in the first call.
    let _ = outgoing.write_value(hello).await;
    Ok((outgoing, Incoming::new(incoming, limits.of_hello())))
}

impl<P: Protocol> fmt::Debug for Caller<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Listens to what the other end has to say. The first stream stays open as long.
async fn listen((_outgoing, mut incoming): (Outgoing, Incoming), shared: Arc<Shared>) {
    match incoming.next::<Hello<'static>>().await {
        Ok(Some(theirs)) => debug!(?theirs, "greeted"),
        Ok(None) | Err(_) => return,
    }
    while let Ok(Some(notice)) = incoming.next::<Notice>().await {
        match notice {
            Notice::Draining => shared.draining.cancel(),
        }
    }
}
