//! One connection, at the end that asks.

use std::sync::{Arc, OnceLock};

use flwr_transport::{Call, Closed, Code, Peer, Protocol, Reply, Status};
use quinn::{Connection, ConnectionError, Endpoint};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::calling;
use crate::code::CLOSED;
use crate::head::{Hello, Notice};
use crate::links::Watched;
use crate::stream::{Incoming, Limits, Outgoing};

/// Makes calls over one connection. Tails of its replies outlive it.
#[derive(Debug)]
pub struct Caller<P: Protocol> {
    connection: Connection,
    peer: Peer,
    shared: Arc<Shared>,
    watched: Watched,
    _greeting: AbortOnDropHandle<()>,
    _endpoint: Endpoint,
    limits: Limits,
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
    /// flight.
    pub(crate) async fn new(
        endpoint: Endpoint,
        connection: Connection,
        peer: Peer,
        hello: &Hello<'static>,
        limits: Limits,
    ) -> Result<Self, ConnectionError> {
        let (outgoing, incoming) = connection.open_bi().await?;
        let mut outgoing = Outgoing::new(outgoing, limits.of_hello());
        // A connection that is gone already says so in the first call.
        let _ = outgoing.write_value(hello).await;
        let shared = Arc::new(Shared::default());
        let incoming = Incoming::new(incoming, limits.of_hello());
        let greeting = listen(outgoing, incoming, Arc::clone(&shared));
        Ok(Self {
            watched: Watched::new(&connection),
            connection,
            peer,
            shared,
            _greeting: AbortOnDropHandle::new(tokio::spawn(greeting)),
            _endpoint: endpoint,
            limits,
            _protocol: std::marker::PhantomData,
        })
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
        calling::call(&self.connection, call, self.limits).await
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

/// Listens to what the other end has to say. The first stream stays open as long.
async fn listen(_outgoing: Outgoing, mut incoming: Incoming, shared: Arc<Shared>) {
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
