//! The gRPC listener: a socket, who may call, and the dialect that is spoken.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use flwr_transport::{
    Acceptor, Current, Drain, Drained, Handler, Identity, Peer, Protocol, ServeError,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::accept::{Converse, Limits, Socket};
use crate::auth::CallerAuth;
use crate::buffers::Buffers;
use crate::dialect::Dialect;
use crate::exchange::{Calls, Exchange, Spoken};
use crate::grpc::Connection;
use crate::preface::{NotHttp2, expect_http2};
use crate::serving::serve_http2;

/// One listening socket with the dialect that is spoken on it.
pub struct GrpcListener<D> {
    socket: Socket,
    auth: Arc<CallerAuth>,
    dialect: Arc<D>,
}

impl<D> std::fmt::Debug for GrpcListener<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrpcListener")
            .field("addr", &self.socket.addr)
            .field("tls", &self.socket.tls.is_some())
            .finish_non_exhaustive()
    }
}

impl<D> GrpcListener<D> {
    /// Takes a bound socket. `buffers` is best shared by all listeners of a process. The TLS
    /// configuration, which connections that begin later take as it is then, must offer `h2` (ALPN), or stock clients
    /// refuse the connection.
    ///
    /// # Errors
    /// The socket has no address.
    pub fn new(
        tcp: TcpListener,
        tls: Option<Current<rustls::ServerConfig>>,
        auth: CallerAuth,
        dialect: D,
        limits: Limits,
        buffers: Buffers,
    ) -> io::Result<Self> {
        Ok(Self {
            socket: Socket::new(tcp, tls, limits, buffers)?,
            auth: Arc::new(auth),
            dialect: Arc::new(dialect),
        })
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.socket.addr
    }
}

impl<P: Protocol, D: Dialect<P>> Acceptor<P> for GrpcListener<D> {
    fn local_addr(&self) -> SocketAddr {
        self.local()
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
    let conversation = Grpc {
        exchange,
        auth: listener.auth,
        limits: listener.socket.limits,
        buffers: listener.socket.buffers.clone(),
    };
    let conversation = Arc::new(conversation);
    listener.socket.serve(conversation, drain).await
}

/// What all connections of a listener share.
struct Grpc<E> {
    exchange: Arc<E>,
    auth: Arc<CallerAuth>,
    limits: Limits,
    buffers: Buffers,
}

impl<E: Exchange> Converse for Grpc<E> {
    async fn converse<I>(&self, io: I, peer: SocketAddr, drain: Drain)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let first = tokio::select! {
            biased;
            () = drain.requested() => return,
            first = expect_http2(io, self.limits.handshake) => first,
        };
        let io = match first {
            Ok(io) => io,
            Err(NotHttp2::Closed) => return,
            Err(error) => {
                info!(%peer, "connection refused: {error}");
                return;
            }
        };
        let connection = Connection {
            calls: Calls {
                exchange: Arc::clone(&self.exchange),
                peer: Arc::new(Peer {
                    identity: Identity::Anonymous,
                    addr: peer,
                    transport: "grpc",
                }),
                drain: drain.clone(),
                gone: CancellationToken::new(),
            },
            auth: Arc::clone(&self.auth),
            limits: self.limits,
            buffers: self.buffers.clone(),
        };
        serve_http2(io, peer, &self.limits, connection, &drain).await;
    }
}
