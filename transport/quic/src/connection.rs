//! One connection at the end that accepts: from its first packet to its end.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flwr_transport::{Drain, Handler, Presence, Protocol};
use metrics::counter;
use quinn::{Connection, Incoming, VarInt};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::answering::Answering;
use crate::budget::Budget;
use crate::code::{DRAINED, TOO_SLOW};
use crate::greeting::{Greeted, SLOW, greet};
use crate::head::Notice;
use crate::links::Watched;
use crate::metrics::{ADDRESS_PROOFS, Refusal};
use crate::options::Options;
use crate::refusals::{self, Refusals};
use crate::served::Served;
use crate::tuning::CALLS_AT_FIRST;
use crate::windows::Windows;

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
    served: Served,
}

/// A connection that there is room for.
pub(crate) struct Admitted {
    incoming: Incoming,
    seat: Seat,
}

impl<H> Serving<H> {
    pub(crate) fn new(handler: Arc<H>, drain: Drain, options: Options, served: Served) -> Self {
        Self {
            handler,
            drain,
            under_way: Arc::default(),
            handshakes: Arc::default(),
            addresses: Arc::default(),
            budget: Arc::new(Budget::new(options.memory_max)),
            options,
            served,
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
        let by = Instant::now() + GREETING_TIME_MAX;
        let greeting = greet::<P>(&self.options, incoming, self.served.config(address));
        match timeout_at(by, greeting).await {
            Ok(Ok(greeted)) => self.calls::<P>(greeted, by, counted).await,
            Ok(Err((refusal, why))) => refusals::connection(refusal, address, &why),
            Err(_elapsed) => {
                refusals::connection(Refusal::TooSlow, address, "it took too long to begin");
            }
        }
    }

    /// Answers the calls of a connection until it ends, or the drain has nothing to wait for. Its handshake has to end `by`
    /// then, and is `counted` until it does.
    async fn calls<P: Protocol>(&self, greeted: Greeted, by: Instant, counted: Counted)
    where
        H: Handler<P>,
    {
        let Greeted {
            connection,
            peer,
            limits,
            mut notices,
            handshake,
        } = greeted;
        let mut handshake = pin!(timeout_at(by, handshake));
        let mut handshaking = Some(counted);
        let established = CancellationToken::new();
        let watched = Watched::new(&connection);
        let usual = &self.options.tuning;
        let windows = Windows::new(connection.clone(), Arc::clone(&self.budget), usual);
        let gone = CancellationToken::new();
        let _gone = gone.clone().drop_guard();
        let answering = Arc::new(Answering {
            handler: Arc::clone(&self.handler),
            peer,
            admit: Arc::clone(&self.options.admit),
            refusals: Refusals::default(),
            gone,
            presence: presence(&connection),
            established: established.clone(),
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
                ended = &mut handshake, if handshaking.is_some() => {
                    handshaking = None;
                    if ended.is_err() {
                        Refusal::TooSlow.count();
                        connection.close(TOO_SLOW, SLOW);
                        return;
                    }
                    established.cancel();
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
}

/// When the peer was last heard, as exactly as it is asked. Only what it has encrypted counts.
fn presence(connection: &Connection) -> Presence {
    let connection = connection.clone();
    let last = Mutex::new((0, Instant::now()));
    Presence::new(move || {
        let frames = connection.stats().frame_rx;
        let heard = frames.acks + frames.ping + frames.stream;
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0 != heard {
            *last = (heard, Instant::now());
        }
        last.1.elapsed()
    })
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

/// How long a connection may take from its first packet to its hello.
const GREETING_TIME_MAX: Duration = Duration::from_secs(10);
