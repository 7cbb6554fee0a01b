//! Accepting connections: TCP, and TLS where it is asked for.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use flwr_transport::{Current, Drain, Drained};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::buffers::Buffers;

/// Bounds on what peers can make the server hold and wait for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once. Further ones are closed as they come.
    pub connections_max: usize,
    /// The largest message, in bytes. Flower's own limit is 2 GiB less one byte.
    pub message_bytes_max: usize,
    /// Calls at once on one connection.
    pub streams_max: u32,
    /// How many bytes of one HTTP/2 request may wait for their reader.
    pub stream_window_bytes: u32,
    /// How many bytes of all requests of an HTTP/2 connection may wait for their readers.
    pub connection_window_bytes: u32,
    /// Whether large objects are handed on while they arrive: for services that do not hold them in memory.
    pub streams_objects: bool,
    /// How long a TLS handshake, or the first bytes of HTTP, may take.
    pub handshake: Duration,
    /// How long a request may stop arriving before it is given up.
    pub idle: Duration,
    /// How long a shutdown waits for calls under way.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            message_bytes_max: i32::MAX as usize,
            streams_max: 1_000,
            // Large windows keep a long link full.
            stream_window_bytes: 8 << 20,
            connection_window_bytes: 72 << 20,
            streams_objects: false,
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            grace: Duration::from_secs(2),
        }
    }
}

/// How often unused buffers are looked for.
const SWEEP_PERIOD: Duration = Duration::from_secs(5);

/// One listening socket.
pub(crate) struct Socket {
    tcp: TcpListener,
    pub(crate) addr: SocketAddr,
    pub(crate) tls: Option<Current<rustls::ServerConfig>>,
    /// What is offered in TLS (ALPN), if not what the configuration says.
    offers: Option<Vec<Vec<u8>>>,
    pub(crate) limits: Limits,
    pub(crate) buffers: Buffers,
}

/// What is spoken on a connection.
pub(crate) trait Converse: Send + Sync + 'static {
    /// Serves a connection until the peer ends it, or the drain is asked and its calls are finished.
    fn converse<I>(&self, io: I, peer: SocketAddr, drain: Drain) -> impl Future<Output = ()> + Send
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static;
}

impl Socket {
    /// Takes a bound socket.
    ///
    /// # Errors
    /// The socket has no address.
    pub(crate) fn new(
        tcp: TcpListener,
        tls: Option<Current<rustls::ServerConfig>>,
        limits: Limits,
        buffers: Buffers,
    ) -> io::Result<Self> {
        Ok(Self {
            addr: tcp.local_addr()?,
            tcp,
            tls,
            offers: None,
            limits,
            buffers,
        })
    }

    /// The same socket, offering these protocols in TLS.
    pub(crate) fn offering(mut self, protocols: &[&[u8]]) -> Self {
        self.offers = Some(protocols.iter().map(|name| name.to_vec()).collect());
        self
    }

    /// TLS for a connection that begins now.
    fn tls(&self) -> Option<Arc<rustls::ServerConfig>> {
        let tls = self.tls.as_ref()?.load();
        let Some(offers) = &self.offers else {
            return Some(tls);
        };
        let mut offering = rustls::ServerConfig::clone(&tls);
        offering.alpn_protocols.clone_from(offers);
        Some(Arc::new(offering))
    }

    /// Serves until the drain is asked and calls under way are finished or the grace is over.
    pub(crate) async fn serve(self, conversation: Arc<impl Converse>, drain: Drain) -> Drained {
        let connections = Arc::new(Semaphore::new(self.limits.connections_max));
        let tasks = TaskTracker::new();
        let mut sweeps = tokio::time::interval(SWEEP_PERIOD);
        loop {
            let accepted = tokio::select! {
                biased;
                () = drain.requested() => break,
                _ = sweeps.tick() => {
                    self.buffers.sweep();
                    continue;
                }
                accepted = self.tcp.accept() => accepted,
            };
            let (tcp, addr) = match accepted {
                // IPv4 peers of a dual-stack socket are called by their IPv4 address.
                Ok((tcp, addr)) => (tcp, SocketAddr::new(addr.ip().to_canonical(), addr.port())),
                Err(error) => {
                    // Out of file descriptors, mostly: give others a chance to close some.
                    warn!(%error, addr = %self.addr, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
                warn!(peer = %addr, max = self.limits.connections_max, "connection refused: too many");
                continue;
            };
            let connection = Accepted {
                peer: addr,
                tls: self.tls(),
                handshake: self.limits.handshake,
                drain: drain.clone(),
            };
            tasks.spawn(connection.serve(tcp, Arc::clone(&conversation), permit));
        }
        drop(self.tcp);
        tasks.close();
        let finished = tokio::time::timeout(self.limits.grace, tasks.wait()).await;
        Drained {
            cut: if finished.is_ok() { 0 } else { tasks.len() },
        }
    }
}

/// One connection.
struct Accepted {
    peer: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    handshake: Duration,
    drain: Drain,
}

impl Accepted {
    async fn serve(
        self,
        tcp: TcpStream,
        conversation: Arc<impl Converse>,
        permit: OwnedSemaphorePermit,
    ) {
        let peer = self.peer;
        if let Err(error) = tcp.set_nodelay(true) {
            debug!(%peer, %error, "small packets will be delayed");
        }
        match self.tls {
            None => conversation.converse(tcp, peer, self.drain).await,
            Some(tls) => {
                let handshake = tokio_rustls::TlsAcceptor::from(tls).accept(tcp);
                let handshake = tokio::time::timeout(self.handshake, handshake);
                let stream = tokio::select! {
                    biased;
                    () = self.drain.requested() => return,
                    stream = handshake => stream,
                };
                match stream {
                    Ok(Ok(stream)) => conversation.converse(stream, peer, self.drain).await,
                    // Port probes connect and say nothing.
                    Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        debug!(%peer, %error, "TLS handshake failed");
                    }
                    Ok(Err(error)) => info!(%peer, %error, "TLS handshake failed"),
                    Err(_) => info!(%peer, "TLS handshake given up: the peer was too slow"),
                }
            }
        }
        drop(permit);
    }
}
