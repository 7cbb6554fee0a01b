//! One connection at the end that accepts: from its first packet to its end.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flwr_transport::{Bearer, Drain, Handler, Identity, Peer, Protocol};
use metrics::counter;
use quinn::{Connection, ConnectionError, Incoming, ServerConfig, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::answering::Answering;
use crate::budget::Budget;
use crate::code::{DRAINED, MALFORMED, REFUSED, TOO_SLOW, UNPROVED};
use crate::head::{Hello, Notice};
use crate::links::Watched;
use crate::metrics::{ADDRESS_PROOFS, Refusal};
use crate::options::{Options, Shown};
use crate::stream::{self, Limits, Missing, Outgoing};
use crate::tuning::{CALLS_AT_FIRST, MTU_JUMBO};
use crate::windows::{self, Windows};
use crate::{TRANSPORT, Tuning, udp};

/// A connection that has begun.
struct Greeted {
    connection: Connection,
    peer: Arc<Peer>,
    /// With what the peer's hello says that it reads.
    limits: Limits,
    notices: Outgoing,
}

/// What all connections of one acceptor have in common.
pub(crate) struct Serving<H> {
    handler: Arc<H>,
    drain: Drain,
    /// Calls.
    under_way: Arc<AtomicUsize>,
    handshakes: Arc<AtomicUsize>,
    addresses: Arc<Mutex<HashMap<IpAddr, usize>>>,
    budget: Arc<Budget>,
    options: Options,
    /// The options' tuning as connections begin with it.
    at_first: Tuning,
    config: ServerConfig,
    /// For links with large frames.
    jumbo: Arc<ServerConfig>,
}

/// A connection that there is room for.
pub(crate) struct Admitted {
    incoming: Incoming,
    seat: Seat,
}

impl<H> Serving<H> {
    pub(crate) fn new(
        handler: Arc<H>,
        drain: Drain,
        options: Options,
        config: ServerConfig,
    ) -> Self {
        let at_first = windows::least(&options.tuning);
        let mut jumbo = config.clone();
        jumbo.transport_config(Arc::new(at_first.transport(MTU_JUMBO)));
        Self {
            jumbo: Arc::new(jumbo),
            handler,
            drain,
            under_way: Arc::default(),
            handshakes: Arc::default(),
            addresses: Arc::default(),
            budget: Arc::new(Budget::new(options.memory_max)),
            options,
            at_first,
            config,
        }
    }

    /// How many calls are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Turns away whom there is no room for, and makes others prove their address when many come.
    pub(crate) fn screen(&self, incoming: Incoming, connections: usize) -> Option<Admitted> {
        let address = incoming.remote_address();
        if connections >= self.options.connections_max {
            debug!(%address, "refused: there are too many connections");
            Refusal::TooManyConnections.count();
            incoming.refuse();
            return None;
        }
        let is_busy =
            self.handshakes.load(Ordering::Relaxed) >= self.options.handshakes_unproved_max;
        if is_busy && !incoming.remote_address_validated() && incoming.may_retry() {
            counter!(ADDRESS_PROOFS).increment(1);
            // It may retry.
            let _ = incoming.retry();
            return None;
        }
        let Some(seat) = Seat::take(&self.addresses, address.ip(), self.options.per_address_max)
        else {
            debug!(%address, "refused: there are too many connections from its address");
            Refusal::TooManyOfAddress.count();
            incoming.refuse();
            return None;
        };
        Some(Admitted { incoming, seat })
    }

    /// Sees a connection through.
    pub(crate) async fn connection<P: Protocol>(self: Arc<Self>, admitted: Admitted)
    where
        H: Handler<P>,
    {
        let Admitted {
            incoming,
            seat: _seat,
        } = admitted;
        let address = incoming.remote_address();
        let counted = Counted::new(&self.handshakes);
        let greeted = timeout(GREETING_TIME_MAX, self.greet::<P>(incoming)).await;
        drop(counted);
        match greeted {
            Ok(Ok(greeted)) => self.calls::<P>(greeted).await,
            Ok(Err((refusal, why))) => {
                refusal.count();
                debug!(%address, "no connection: {why}");
            }
            Err(_elapsed) => {
                Refusal::TooSlow.count();
                debug!(%address, "no connection: it took too long to begin");
            }
        }
    }

    /// The handshake, and the hellos on the first stream.
    async fn greet<P: Protocol>(&self, incoming: Incoming) -> Result<Greeted, (Refusal, String)> {
        let tuning = &self.options.tuning;
        let limits = tuning.limits();
        let peer = incoming.remote_address();
        let mtu = udp::mtu(peer);
        let connecting = match self.at_first.traced(peer, mtu) {
            Some(traced) => {
                let mut config = self.config.clone();
                config.transport_config(traced);
                incoming.accept_with(Arc::new(config))
            }
            None if mtu == MTU_JUMBO => incoming.accept_with(Arc::clone(&self.jumbo)),
            None => incoming.accept(),
        };
        let failed = |error: ConnectionError| (Refusal::HandshakeFailed, error.to_string());
        let left = |error: ConnectionError| (Refusal::Left, error.to_string());
        let connection = connecting.map_err(failed)?.await.map_err(failed)?;
        let slow = CloseWith(&connection, TOO_SLOW);
        let (outgoing, incoming) = connection.accept_bi().await.map_err(left)?;
        let mut outgoing = Outgoing::new(outgoing, limits.of_hello());
        let mut incoming = stream::Incoming::new(incoming, limits.of_hello());
        let hello = match incoming.next::<Hello<'static>>().await {
            Ok(Some(hello)) => hello,
            Ok(None) => {
                connection.close(MALFORMED, NO_HELLO);
                return Err((Refusal::MalformedHello, "there was no hello".into()));
            }
            Err(Missing::Lost(error)) => return Err(left(error)),
            Err(error) => {
                connection.close(MALFORMED, NO_HELLO);
                return Err((Refusal::MalformedHello, error.to_string()));
            }
        };
        if let Err(why) = hello.agree::<P>() {
            connection.close(REFUSED, why.as_bytes());
            return Err((Refusal::WrongProtocol, why));
        }
        let identity = match self.identity(&connection, hello.credential.as_ref()) {
            Ok(identity) => identity,
            Err(why) => {
                connection.close(UNPROVED, why.as_bytes());
                return Err((Refusal::Unproved, why));
            }
        };
        let ours = Hello::of::<P>(tuning.head_bytes_max, None);
        let sent = outgoing.write_value(&ours).await;
        sent.map_err(|error| (Refusal::Left, error.to_string()))?;
        slow.keep_open();
        let peer = Peer {
            identity,
            addr: connection.remote_address(),
            transport: TRANSPORT,
        };
        Ok(Greeted {
            connection,
            peer: Arc::new(peer),
            limits: Limits {
                write_bytes_max: usize::try_from(hello.head_bytes_max).unwrap_or(usize::MAX),
                ..limits
            },
            notices: outgoing,
        })
    }

    /// Answers the calls of a connection until it ends, or the drain has nothing to wait for.
    async fn calls<P: Protocol>(&self, greeted: Greeted)
    where
        H: Handler<P>,
    {
        let Greeted {
            connection,
            peer,
            limits,
            mut notices,
        } = greeted;
        let watched = Watched::new(&connection);
        let usual = &self.options.tuning;
        let windows = Windows::new(connection.clone(), Arc::clone(&self.budget), usual);
        let gone = CancellationToken::new();
        let _gone = gone.clone().drop_guard();
        let answering = Arc::new(Answering {
            handler: Arc::clone(&self.handler),
            peer,
            admit: Arc::clone(&self.options.admit),
            gone,
            drain: self.drain.clone(),
            limits,
            windows: Arc::new(windows),
        });
        let mut calls = JoinSet::new();
        let (mut is_draining, mut is_busy) = (false, false);
        while !is_draining || !calls.is_empty() {
            tokio::select! {
                biased;
                () = self.drain.requested(), if !is_draining => {
                    is_draining = true;
                    // Whoever does not hear it is refused.
                    let _ = notices.write_value(&Notice::Draining).await;
                }
                Some(_) = calls.join_next() => {}
                accepted = connection.accept_bi() => {
                    let Ok((outgoing, incoming)) = accepted else { return };
                    let answering = Arc::clone(&answering);
                    if is_draining {
                        calls.spawn(answering.refuse::<P>(outgoing));
                        continue;
                    }
                    let counted = Counted::new(&self.under_way);
                    let guard = (self.drain.guard(), watched.call());
                    if !is_busy && calls.len() >= CALLS_AT_FIRST as usize / 2 {
                        is_busy = true;
                        let calls_max = self.options.tuning.calls_max;
                        connection.set_max_concurrent_bi_streams(VarInt::from_u32(calls_max));
                    }
                    calls.spawn(async move {
                        answering.answer::<P>(outgoing, incoming).await;
                        drop((counted, guard));
                    });
                }
            }
        }
        connection.close(DRAINED, b"the server is shutting down");
    }

    fn identity(
        &self,
        connection: &Connection,
        credential: Option<&Bearer>,
    ) -> Result<Identity, String> {
        let shown = connection.peer_identity();
        let chain = shown.and_then(|shown| shown.downcast::<Vec<CertificateDer<'static>>>().ok());
        (self.options.identify)(Shown {
            certificate: chain.as_deref().and_then(|chain| chain.first()),
            credential,
        })
    }
}

/// One of the connections of an address.
struct Seat {
    addresses: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
}

impl Seat {
    fn take(
        addresses: &Arc<Mutex<HashMap<IpAddr, usize>>>,
        address: IpAddr,
        seats_max: usize,
    ) -> Option<Self> {
        let mut taken = addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let seats = taken.entry(address).or_default();
        if *seats >= seats_max {
            return None;
        }
        *seats += 1;
        Some(Self {
            addresses: Arc::clone(addresses),
            address,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(seats) = taken.get_mut(&self.address) {
            *seats -= 1;
            if *seats == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

/// One of as many as the counter says.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counter))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Closes a connection that does not come about.
struct CloseWith<'a>(&'a Connection, VarInt);

impl CloseWith<'_> {
    fn keep_open(self) {
        std::mem::forget(self);
    }
}

impl Drop for CloseWith<'_> {
    fn drop(&mut self) {
        // One that is closed already keeps its reason.
        self.0
            .close(self.1, b"the connection took too long to begin");
    }
}

const NO_HELLO: &[u8] = b"the first stream begins with a hello";
/// How long a connection may take from its first packet to its hello.
const GREETING_TIME_MAX: Duration = Duration::from_secs(10);
