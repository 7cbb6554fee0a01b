//! The way between one client and a server: of a certain length and width, it can be interrupted, and go on from elsewhere.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flwr_transport_quic::Target;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

/// Carries datagrams for as long as it lives.
pub(crate) struct Road {
    pub(crate) target: Target,
    state: watch::Sender<State>,
    sent: Arc<AtomicU64>,
    _carrying: AbortOnDropHandle<()>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    is_open: bool,
    /// Where the client seems to be.
    from: IpAddr,
    moves: u32,
}

/// One direction.
struct Lane {
    on_the_way: VecDeque<(Instant, Vec<u8>)>,
    free_at: Instant,
}

impl Road {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = near.local_addr().unwrap();
        let state = watch::Sender::new(State {
            is_open: true,
            from: HERE,
            moves: 0,
        });
        let sent = Arc::default();
        let carrying = carry(near, server, state.subscribe(), Arc::clone(&sent));
        Self {
            target: Target {
                host: address.ip().to_string(),
                port: address.port(),
            },
            state,
            sent,
            _carrying: AbortOnDropHandle::new(tokio::spawn(carrying)),
        }
    }

    /// Nothing gets through until it is opened.
    pub(crate) fn close(&self) {
        self.state.send_modify(|state| state.is_open = false);
    }

    /// What is sent from now on gets through.
    pub(crate) fn open(&self) {
        self.state.send_modify(|state| state.is_open = true);
    }

    /// The client seems to be on another port of this address from now on.
    pub(crate) fn lead_from(&self, address: IpAddr) {
        self.state.send_modify(|state| {
            state.from = address;
            state.moves += 1;
        });
    }

    /// Datagrams that the client has sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

async fn carry(
    near: UdpSocket,
    server: SocketAddr,
    mut states: watch::Receiver<State>,
    sent: Arc<AtomicU64>,
) {
    let (mut there, mut back) = ([0; 1 << 16], [0; 1 << 16]);
    let (mut up, mut down) = (Lane::new(), Lane::new());
    let mut client = None;
    let mut state = *states.borrow_and_update();
    let mut far = far_end(state.from, server).await;
    loop {
        tokio::select! {
            Ok(()) = states.changed() => {
                let now = *states.borrow_and_update();
                if now.moves != state.moves {
                    far = far_end(now.from, server).await;
                }
                state = now;
            }
            datagram = up.next() => {
                // Lost is lost.
                let _ = far.send(&datagram).await;
            }
            datagram = down.next() => {
                if let Some(client) = client {
                    let _ = near.send_to(&datagram, client).await;
                }
            }
            Ok((bytes, from)) = near.recv_from(&mut there) => {
                client = Some(from);
                sent.fetch_add(1, Ordering::Relaxed);
                if state.is_open {
                    up.take(&there[..bytes]);
                }
            }
            Ok(bytes) = far.recv(&mut back) => {
                if state.is_open {
                    down.take(&back[..bytes]);
                }
            }
        }
    }
}

async fn far_end(address: IpAddr, server: SocketAddr) -> UdpSocket {
    let far = UdpSocket::bind((address, 0)).await.unwrap();
    far.connect(server).await.unwrap();
    far
}

impl Lane {
    fn new() -> Self {
        Self {
            on_the_way: VecDeque::new(),
            free_at: Instant::now(),
        }
    }

    /// Takes a datagram, or drops it where too many are queued.
    fn take(&mut self, datagram: &[u8]) {
        let now = Instant::now();
        if self.free_at.saturating_duration_since(now) < QUEUE {
            let taken = Duration::from_secs_f64(datagram.len() as f64 / BYTES_PER_SECOND);
            self.free_at = self.free_at.max(now) + taken;
            let arrives = self.free_at + DELAY;
            self.on_the_way.push_back((arrives, datagram.to_vec()));
        }
    }

    /// What arrives next, when it does. Cancel safe.
    async fn next(&mut self) -> Vec<u8> {
        match self.on_the_way.front() {
            Some((arrives, _)) => sleep_until(*arrives).await,
            None => std::future::pending().await,
        }
        let (_, datagram) = self.on_the_way.pop_front().unwrap();
        datagram
    }
}

/// Where the client seems to be at first.
pub(crate) const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Another place on the same machine.
pub(crate) const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// Each way.
const DELAY: Duration = Duration::from_millis(25);
const BYTES_PER_SECOND: f64 = 4e6;
const QUEUE: Duration = Duration::from_millis(50);
