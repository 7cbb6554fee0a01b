//! The connecting end.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::{Connection, Incoming, Link, unavailable};
use crate::call::{Call, Protocol, Reply};
use crate::peer::{Identity, Peer};
use crate::serve::{self, Closed, ConnectError};
use crate::status::{Code, Status};

/// Opens connections to the acceptor of its pair. Clones share the pair.
#[derive(Debug)]
pub struct Connector<P: Protocol> {
    link: Arc<Link<P>>,
    identity: Identity,
}

impl<P: Protocol> Connector<P> {
    pub(super) fn new(link: Arc<Link<P>>) -> Self {
        Self {
            link,
            identity: Identity::Anonymous,
        }
    }

    /// A connector to the same acceptor whose connections have proved to be `identity`.
    #[must_use]
    pub fn with_identity(&self, identity: Identity) -> Self {
        Self {
            link: Arc::clone(&self.link),
            identity,
        }
    }

    /// Breaks every open connection of the pair, as a failing network would: they end as
    /// [`Closed::Lost`]. Connections opened afterwards work.
    pub fn lose_connections(&self) {
        self.link.lose_connections();
    }
}

impl<P: Protocol> Clone for Connector<P> {
    fn clone(&self) -> Self {
        self.with_identity(self.identity.clone())
    }
}

impl<P: Protocol> serve::Connector<P> for Connector<P> {
    type Caller = Caller<P>;

    async fn connect(&self) -> Result<Caller<P>, ConnectError> {
        if self.link.refusing.is_cancelled() {
            return Err(ConnectError {
                retryable: true,
                message: format!("nobody accepts on {}", self.link.acceptor.addr),
            });
        }
        Ok(Caller {
            link: Arc::clone(&self.link),
            connection: self.link.open(self.identity.clone()),
        })
    }
}

/// One connection. Tails of its replies outlive it.
#[derive(Debug)]
pub struct Caller<P: Protocol> {
    link: Arc<Link<P>>,
    connection: Arc<Connection>,
}

impl<P: Protocol> Caller<P> {
    async fn exchange(&self, call: Call<P>) -> Result<Reply<P>, Status> {
        let (reply_to, reply) = oneshot::channel();
        let incoming = Incoming {
            connection: Arc::clone(&self.connection),
            call,
            reply_to,
        };
        let sent = self.link.calls.send(incoming).await;
        sent.map_err(|_| unavailable())?;
        reply.await.unwrap_or_else(|_| Err(unavailable()))
    }
}

impl<P: Protocol> serve::Caller<P> for Caller<P> {
    fn peer(&self) -> &Peer {
        &self.link.acceptor
    }

    async fn call(&self, call: Call<P>) -> Result<Reply<P>, Status> {
        let deadline = call.deadline;
        tokio::select! {
            biased;
            _ = self.connection.ended() => Err(unavailable()),
            answered = timeout_at(deadline, self.exchange(call)) => {
                answered.unwrap_or_else(|_| Err(deadline_exceeded()))
            }
        }
    }

    async fn closed(&self) -> Closed {
        tokio::select! {
            biased;
            closed = self.connection.ended() => closed,
            () = self.link.gone.cancelled() => Closed::Peer,
        }
    }

    fn close(&self, reason: &'static str) {
        self.connection.close(reason);
    }
}

fn deadline_exceeded() -> Status {
    Status::new(Code::DeadlineExceeded, "no answer before the deadline")
}
