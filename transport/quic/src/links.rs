//! The connections of this process, their figures while they live, and what is left of those that ended.
//!
//! Like metrics themselves, there is one list for the process: it holds as many entries as there are connections.

use std::collections::HashMap;
use std::fmt;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use metrics::{counter, gauge, histogram};
use quinn::{Connection, ConnectionStats, Side};
use tokio::time::Instant;
use tracing::{debug, info};

use crate::metrics::{
    BYTES, CONNECTION_DATAGRAMS, CONNECTIONS, CONNECTIONS_BEGUN, Direction, PACKETS_LOST,
    PACKETS_SENT, RTT_SECONDS, STREAMS, WINDOW_BYTES,
};

/// A connection that is watched until this is dropped, which is its end.
pub(crate) struct Watched(Arc<Link>);

struct Link {
    connection: Connection,
    began: Instant,
    calls: AtomicU64,
    /// Calls whose streams are open.
    open: AtomicU64,
}

/// An open stream.
#[derive(Debug)]
pub(crate) struct Open(Arc<Link>);

impl Watched {
    pub(crate) fn new(connection: &Connection) -> Self {
        let link = Arc::new(Link {
            connection: connection.clone(),
            began: Instant::now(),
            calls: AtomicU64::new(0),
            open: AtomicU64::new(0),
        });
        counter!(CONNECTIONS_BEGUN, "side" => name(connection.side())).increment(1);
        links()
            .live
            .insert(connection.stable_id(), Arc::clone(&link));
        Self(link)
    }

    /// Counts a call, as open until what is returned is dropped.
    pub(crate) fn call(&self) -> Open {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        self.0.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(&self.0))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let link = &self.0;
        let stats = link.connection.stats();
        let side = link.connection.side();
        {
            let mut links = links();
            links.live.remove(&link.connection.stable_id());
            *links.ended(side) += Totals::of(&stats);
        }
        link.log(&stats);
    }
}

impl Link {
    /// Its figures: for whoever looks at one link at the end that connects, for those who look for one of many at the
    /// other.
    fn log(&self, stats: &ConnectionStats) {
        let why = self.connection.close_reason();
        let why = why.map_or_else(|| "let go".to_owned(), |why| why.to_string());
        let address = self.connection.remote_address();
        let seconds = self.began.elapsed().as_secs();
        let calls = self.calls.load(Ordering::Relaxed);
        let rtt_ms = stats.path.rtt.as_millis();
        let Totals {
            bytes_sent,
            bytes_received,
            packets_sent,
            packets_lost,
            ..
        } = Totals::of(stats);
        let cwnd_bytes = stats.path.cwnd;
        match self.connection.side() {
            Side::Client => info!(
                %address, why, seconds, calls, bytes_sent, bytes_received, packets_sent, packets_lost, rtt_ms, cwnd_bytes,
                "QUIC connection ended"
            ),
            Side::Server => debug!(
                %address, why, seconds, calls, bytes_sent, bytes_received, packets_sent, packets_lost, rtt_ms, cwnd_bytes,
                "QUIC connection ended"
            ),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes the figures of all connections. Called before metrics are read.
pub fn sample() {
    for side in [Side::Client, Side::Server] {
        let (live, mut totals) = {
            let mut links = links();
            let live = links.live.values();
            let live = live.filter(|link| link.connection.side() == side);
            let live: Vec<_> = live
                .map(|link| (Arc::clone(link), link.connection.stats()))
                .collect();
            (live, *links.ended(side))
        };
        let label = name(side);
        let mut open = 0;
        for (link, stats) in &live {
            totals += Totals::of(stats);
            open += link.open.load(Ordering::Relaxed);
            histogram!(RTT_SECONDS, "side" => label).record(stats.path.rtt);
            histogram!(WINDOW_BYTES, "side" => label).record(stats.path.cwnd as f64);
        }
        gauge!(CONNECTIONS, "side" => label).set(live.len() as f64);
        gauge!(STREAMS, "side" => label).set(open as f64);
        totals.tell(label);
    }
}

static LINKS: LazyLock<Mutex<Links>> = LazyLock::new(Mutex::default);

fn links() -> MutexGuard<'static, Links> {
    LINKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection goes from `live` to the sum of those that ended in one step, so that no sum ever goes back.
#[derive(Default)]
struct Links {
    live: HashMap<usize, Arc<Link>>,
    ended_clients: Totals,
    ended_servers: Totals,
}

impl Links {
    fn ended(&mut self, side: Side) -> &mut Totals {
        match side {
            Side::Client => &mut self.ended_clients,
            Side::Server => &mut self.ended_servers,
        }
    }
}

/// What only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    bytes_sent: u64,
    bytes_received: u64,
    datagrams_received: u64,
    packets_sent: u64,
    packets_lost: u64,
}

impl Totals {
    fn of(stats: &ConnectionStats) -> Self {
        Self {
            bytes_sent: stats.udp_tx.bytes,
            bytes_received: stats.udp_rx.bytes,
            datagrams_received: stats.udp_rx.datagrams,
            packets_sent: stats.path.sent_packets,
            packets_lost: stats.path.lost_packets,
        }
    }

    fn tell(self, side: &'static str) {
        let [sent, received] = [Direction::Sent, Direction::Received].map(Direction::name);
        for (direction, bytes) in [(sent, self.bytes_sent), (received, self.bytes_received)] {
            counter!(BYTES, "side" => side, "direction" => direction).absolute(bytes);
        }
        counter!(CONNECTION_DATAGRAMS, "side" => side).absolute(self.datagrams_received);
        counter!(PACKETS_SENT, "side" => side).absolute(self.packets_sent);
        counter!(PACKETS_LOST, "side" => side).absolute(self.packets_lost);
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.datagrams_received += other.datagrams_received;
        self.packets_sent += other.packets_sent;
        self.packets_lost += other.packets_lost;
    }
}

/// The label of a side.
pub(crate) fn name(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("connection", &self.connection.stable_id())
            .field("calls", &self.calls)
            .finish_non_exhaustive()
    }
}
