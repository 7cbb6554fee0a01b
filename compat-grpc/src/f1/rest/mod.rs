//! Fleet over plain HTTP: what `flower-supernode --rest` 1.22 says. The messages are those of
//! [`FleetF1`]; nodes are not authenticated (Flower 1.22, `server/superlink/fleet/rest_rere`).

mod form;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use flwr_api::fleet::Fleet;
use flwr_transport::{Acceptor, Current, Drain, Drained, Handler, Identity, Peer, ServeError};
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::form::{Refusal, RestBody, answered, method};
use super::FleetF1;
use crate::accept::{Converse, Limits, Socket};
use crate::buffers::{Buffers, Received};
use crate::exchange::{Called, Calls, Exchange, Spoken};
use crate::preface::{NotHttp2, Version, expect_http};
use crate::reading::{BELIEVED_BYTES_MAX, append, next_data};
use crate::serving::{Respond, serve_http1, serve_http2};

/// One listening socket for SuperNodes that speak HTTP.
pub struct RestListener {
    socket: Socket,
    dialect: FleetF1,
}

impl std::fmt::Debug for RestListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestListener")
            .field("addr", &self.socket.addr)
            .field("tls", &self.socket.tls.is_some())
            .finish_non_exhaustive()
    }
}

impl RestListener {
    /// Takes a bound socket. Both versions of HTTP are offered in TLS, whatever the configuration
    /// says. `buffers` is best shared by all listeners of a process.
    ///
    /// # Errors
    /// The socket has no address.
    pub fn new(
        tcp: TcpListener,
        tls: Option<Current<rustls::ServerConfig>>,
        dialect: FleetF1,
        limits: Limits,
        buffers: Buffers,
    ) -> io::Result<Self> {
        let socket = Socket::new(tcp, tls, limits, buffers)?;
        Ok(Self {
            socket: socket.offering(&[b"h2", b"http/1.1"]),
            dialect,
        })
    }
}

impl Acceptor<Fleet> for RestListener {
    fn local_addr(&self) -> SocketAddr {
        self.socket.addr
    }

    async fn serve<H: Handler<Fleet>>(
        self,
        handler: Arc<H>,
        drain: Drain,
    ) -> Result<Drained, ServeError> {
        let exchange = Spoken {
            dialect: Arc::new(self.dialect),
            handler,
            protocol: std::marker::PhantomData,
        };
        let conversation = Rest {
            exchange: Arc::new(exchange),
            limits: self.socket.limits,
            buffers: self.socket.buffers.clone(),
        };
        Ok(self.socket.serve(Arc::new(conversation), drain).await)
    }
}

/// What all connections of a listener share.
struct Rest<E> {
    exchange: Arc<E>,
    limits: Limits,
    buffers: Buffers,
}

impl<E: Exchange> Converse for Rest<E> {
    async fn converse<I>(&self, io: I, peer: SocketAddr, drain: Drain)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let first = tokio::select! {
            biased;
            () = drain.requested() => return,
            first = expect_http(io, self.limits.handshake) => first,
        };
        let (version, io) = match first {
            Ok(found) => found,
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
                    transport: "rest",
                }),
                drain: drain.clone(),
                gone: CancellationToken::new(),
            },
            limits: self.limits,
            buffers: self.buffers.clone(),
        };
        match version {
            Version::Http1 => serve_http1(io, peer, &self.limits, connection, &drain).await,
            Version::Http2 => serve_http2(io, peer, &self.limits, connection, &drain).await,
        }
    }
}

/// One connection.
struct Connection<E> {
    calls: Calls<E>,
    limits: Limits,
    buffers: Buffers,
}

impl<E: Exchange> Respond for Connection<E> {
    type Body = RestBody;

    async fn respond(&self, request: Request<Incoming>) -> Response<RestBody> {
        let method = match method(&request) {
            Ok(method) => method,
            Err(refusal) => return refusal.into_response(),
        };
        let call = Called {
            method,
            identity: Identity::Anonymous,
            timeout: None,
        };
        let message = self.read(request.into_body());
        match self.calls.answer(call, message).await {
            Ok(answer) => answered(answer),
            Err(status) => {
                self.calls.log_refusal(method, &status);
                Refusal::of(&status).into_response()
            }
        }
    }
}

impl<E> Connection<E> {
    /// Reads a whole body, with the same care as a message of gRPC.
    async fn read<B>(&self, mut body: B) -> Result<Received, tonic::Status>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let announced = body.size_hint().exact();
        // Room is taken beforehand, so what does not say how long it is has to be short.
        let bytes_max = match announced {
            Some(_) => self.limits.message_bytes_max,
            None => self.limits.message_bytes_max.min(BELIEVED_BYTES_MAX),
        };
        let too_long = || {
            let text = format!("the message is too long: {bytes_max} bytes are allowed");
            tonic::Status::resource_exhausted(text)
        };
        let length = announced.map_or(Ok(bytes_max), usize::try_from);
        let length = length.ok().filter(|length| *length <= bytes_max);
        let length = length.ok_or_else(too_long)?;
        let room = self.buffers.room(length).await?;
        let mut buffer = self.buffers.take(match announced {
            Some(_) => length.min(BELIEVED_BYTES_MAX),
            None => UNANNOUNCED_BYTES,
        });
        while let Some(data) = next_data(&mut body, self.limits.idle).await? {
            if buffer.len() + data.len() > length {
                return Err(too_long());
            }
            append(&mut buffer, &data, length)?;
        }
        let message = self.buffers.seal(buffer);
        Ok(Received {
            message,
            object: None,
            room,
        })
    }
}

/// The first buffer for a body of unknown length.
const UNANNOUNCED_BYTES: usize = 16 << 10;
