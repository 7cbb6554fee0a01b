//! Calls in the first flight of a connection that takes up an earlier session (0-RTT, RFC 9001, section 4.6).
//!
//! They are sent before it is known whether anybody is there, and can be recorded and sent again by others. So only calls
//! without a body are made then that may be made twice; others wait for the handshake. If the server will not have the first
//! flight, what was in it is sent anew.

use std::future::Future;

use flwr_transport::{Call, Protocol, Reply, Status};
use quinn::{Connection, ZeroRttAccepted};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use crate::code::TOO_SLOW;
use crate::connector::CONNECT_TIME_MAX;

/// Whether the handshake is over, and what became of the first flight.
#[derive(Clone, Debug)]
pub(crate) struct Early(watch::Receiver<Flight>);

/// Says what became of it.
#[derive(Debug)]
pub(crate) struct Settle(watch::Sender<Flight>);

/// What became of the first flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flight {
    /// Nobody knows yet.
    Open,
    /// It counts, or there was none, or the connection is gone: errors are what they say.
    Settled,
    /// The server has not looked at it.
    Void,
}

impl Early {
    /// For a connection whose handshake is over.
    pub(crate) fn none() -> Self {
        // What was sent stays after the sender is gone.
        Self(watch::channel(Flight::Settled).1)
    }

    /// For a connection whose handshake is under way.
    pub(crate) fn open() -> (Self, Settle) {
        let (settle, early) = watch::channel(Flight::Open);
        (Self(early), Settle(settle))
    }

    /// Makes a call with `make` as soon as it may be made, and once more if the first was for nothing; until its deadline,
    /// which `make` knows as well.
    pub(crate) async fn call<P, F>(
        &self,
        call: Call<P>,
        make: impl Fn(Call<P>) -> F,
    ) -> Result<Reply<P>, Status>
    where
        P: Protocol,
        F: Future<Output = Result<Reply<P>, Status>>,
    {
        if *self.0.borrow() != Flight::Open {
            return make(call).await;
        }
        let deadline = call.deadline;
        let Some(again) = call.again() else {
            self.settled(deadline).await;
            return make(call).await;
        };
        let answered = make(call).await;
        if answered.is_err() && self.settled(deadline).await == Flight::Void {
            return make(again).await;
        }
        answered
    }

    /// What became of the first flight, if that shows before `deadline`.
    async fn settled(&self, deadline: Instant) -> Flight {
        let mut flight = self.0.clone();
        let settled = flight.wait_for(|flight| *flight != Flight::Open);
        match timeout_at(deadline, settled).await {
            Ok(Ok(settled)) => *settled,
            // The connection is gone.
            Ok(Err(_)) => Flight::Settled,
            Err(_elapsed) => Flight::Open,
        }
    }
}

impl Settle {
    /// Waits for the end of the handshake, or ends the connection if it does not come. False if the first flight was for
    /// nothing; then streams have to be opened anew before [`again`](Self::again).
    pub(crate) async fn handshake(
        &self,
        connection: &Connection,
        handshake: ZeroRttAccepted,
    ) -> bool {
        let Ok(is_accepted) = timeout(CONNECT_TIME_MAX, handshake).await else {
            connection.close(TOO_SLOW, b"the handshake took too long");
            self.0.send_replace(Flight::Settled);
            return true;
        };
        let counts = is_accepted || connection.close_reason().is_some();
        if counts {
            self.0.send_replace(Flight::Settled);
        }
        counts
    }

    /// What was in the first flight may be sent again.
    pub(crate) fn again(&self) {
        self.0.send_replace(Flight::Void);
    }
}
