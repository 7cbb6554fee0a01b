//! Accepting connections: TCP, TLS where it is asked for, then HTTP/2.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use flwr_transport::{Acceptor, Drain, Drained, Handler, Identity, Peer, Protocol, ServeError};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::auth::CallerAuth;
use crate::buffers::Buffers;
use crate::dialect::Dialect;
use crate::exchange::{Connection, Exchange, Spoken};
use crate::preface::{NotHttp2, expect_http2};

/// Bounds on what peers can make the server hold and wait for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once. Further ones are closed as they come.
    pub connections_max: usize,
    /// The largest message, in bytes. Flower's own limit is 2 GiB less one byte.
    pub message_bytes_max: usize,
    /// Calls at once on one connection.
    pub streams_max: u32,
    /// How long a TLS handshake, or the first bytes of HTTP/2, may take.
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
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            grace: Duration::from_secs(2),
        }
    }
}

/// Windows and frames of HTTP/2, in bytes. Large frames save a quarter and more of the CPU time;
/// large windows keep a long link full.
const STREAM_WINDOW: u32 = 32 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;
const FRAME_MAX: u32 = 256 << 10;
const SEND_BUFFER: usize = 1 << 20;
const HEADERS_MAX: u32 = 64 << 10;

/// How often unused buffers are looked for.
const SWEEP_PERIOD: Duration = Duration::from_secs(5);

/// How a peer that is gone is noticed: pings, and the patience for their answers.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// One listening socket with the dialect that is spoken on it.
pub struct GrpcListener<D> {
    tcp: TcpListener,
    addr: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    auth: Arc<CallerAuth>,
    dialect: Arc<D>,
    limits: Limits,
    buffers: Buffers,
}

impl<D> std::fmt::Debug for GrpcListener<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrpcListener")
            .field("addr", &self.addr)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

impl<D> GrpcListener<D> {
    /// Takes a bound socket. `buffers` is best shared by all listeners of a process. The TLS configuration must offer `h2` (ALPN), or stock clients refuse
    /// the connection.
    ///
    /// # Errors
    /// The socket has no address.
    pub fn new(
        tcp: TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
        auth: CallerAuth,
        dialect: D,
        limits: Limits,
        buffers: Buffers,
    ) -> io::Result<Self> {
        Ok(Self {
            addr: tcp.local_addr()?,
            tcp,
            tls,
            auth: Arc::new(auth),
            dialect: Arc::new(dialect),
            limits,
            buffers,
        })
    }
}

impl<D> GrpcListener<D> {
    pub(crate) fn local(&self) -> SocketAddr {
        self.addr
    }
}

impl<P: Protocol, D: Dialect<P>> Acceptor<P> for GrpcListener<D> {
    fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    async fn serve<H: Handler<P>>(
        self,
        handler: Arc<H>,
        drain: Drain,
    ) -> Result<Drained, ServeError> {
        let exchange = Arc::new(Spoken {
            dialect: Arc::clone(&self.dialect),
            handler,
            protocol: std::marker::PhantomData,
        });
        Ok(serve_exchange(self, exchange, drain).await)
    }
}

/// Serves until the drain is asked and calls under way are finished or the grace is over.
pub(crate) async fn serve_exchange<D, E: Exchange>(
    listener: GrpcListener<D>,
    exchange: Arc<E>,
    drain: Drain,
) -> Drained {
    let connections = Arc::new(Semaphore::new(listener.limits.connections_max));
    let tasks = TaskTracker::new();
    let mut sweeps = tokio::time::interval(SWEEP_PERIOD);
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain.requested() => break,
            _ = sweeps.tick() => {
                listener.buffers.sweep();
                continue;
            }
            accepted = listener.tcp.accept() => accepted,
        };
        let (tcp, addr) = match accepted {
            // IPv4 peers of a dual-stack socket are called by their IPv4 address.
            Ok((tcp, addr)) => (tcp, SocketAddr::new(addr.ip().to_canonical(), addr.port())),
            Err(error) => {
                // Out of file descriptors, mostly: give others a chance to close some.
                warn!(%error, addr = %listener.addr, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            warn!(peer = %addr, max = listener.limits.connections_max, "connection refused: too many");
            continue;
        };
        let connection = Connection {
            exchange: Arc::clone(&exchange),
            auth: Arc::clone(&listener.auth),
            peer: Arc::new(Peer {
                identity: Identity::Anonymous,
                addr,
                transport: "grpc",
            }),
            limits: listener.limits,
            buffers: listener.buffers.clone(),
            drain: drain.clone(),
        };
        tasks.spawn(serve_tcp(tcp, listener.tls.clone(), connection, permit));
    }
    drop(listener.tcp);
    tasks.close();
    let finished = tokio::time::timeout(listener.limits.grace, tasks.wait()).await;
    Drained {
        cut: if finished.is_ok() { 0 } else { tasks.len() },
    }
}

async fn serve_tcp<E: Exchange>(
    tcp: TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
    connection: Connection<E>,
    permit: OwnedSemaphorePermit,
) {
    let peer = connection.peer.addr;
    if let Err(error) = tcp.set_nodelay(true) {
        debug!(%peer, %error, "small packets will be delayed");
    }
    match tls {
        None => serve_http2(tcp, connection).await,
        Some(tls) => {
            let handshake = tokio_rustls::TlsAcceptor::from(tls).accept(tcp);
            let handshake = tokio::time::timeout(connection.limits.handshake, handshake);
            let stream = tokio::select! {
                biased;
                () = connection.drain.requested() => return,
                stream = handshake => stream,
            };
            match stream {
                Ok(Ok(stream)) => serve_http2(stream, connection).await,
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

async fn serve_http2<I, E>(io: I, connection: Connection<E>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    E: Exchange,
{
    let (peer, drain) = (connection.peer.addr, connection.drain.clone());
    let first = tokio::select! {
        biased;
        () = drain.requested() => return,
        first = expect_http2(io, connection.limits.handshake) => first,
    };
    let io = match first {
        Ok(io) => TokioIo::new(io),
        Err(NotHttp2::Closed) => return,
        Err(error) => {
            info!(%peer, "connection refused: {error}");
            return;
        }
    };
    let streams_max = connection.limits.streams_max;
    let connection = Arc::new(connection);
    let service = service_fn(move |request| {
        let connection = Arc::clone(&connection);
        async move { Ok::<_, std::convert::Infallible>(connection.respond(request).await) }
    });
    let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_MAX)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADERS_MAX)
        .max_concurrent_streams(streams_max)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(io, service);
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        biased;
        ended = served.as_mut() => ended,
        () = drain.requested() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        debug!(%peer, %error, cause, "connection ended");
    }
}
