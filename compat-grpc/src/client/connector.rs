//! Opening a connection: TCP, TLS where it is asked for, then HTTP/2.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use flwr_certs::{ClientTls, HandshakeError};
use flwr_transport::{ConnectError, Connector, Current, Identity, Peer, Protocol};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::asking::Asking;
use super::caller::{Connection, GrpcCaller};
use super::credentials::Credentials;
use super::endpoint::{Endpoint, Settings};
use super::greeting::Greeted;
use super::request::RequestBody;

/// Opens connections to one server and has `A` put its calls into words.
pub struct GrpcConnector<A> {
    endpoint: Endpoint,
    credentials: Arc<Credentials>,
    asking: Arc<A>,
}

impl<A> GrpcConnector<A> {
    /// Connects to `host`, a name or an IP address (IPv6 without brackets), in plain text if there is no `tls`. The
    /// name is resolved anew for each connection, and TLS is what it is then.
    pub fn new(
        host: impl Into<String>,
        port: u16,
        tls: Option<Current<ClientTls>>,
        credentials: Credentials,
        asking: A,
    ) -> Self {
        Self {
            endpoint: Endpoint::new(host, port, tls),
            credentials: Arc::new(credentials),
            asking: Arc::new(asking),
        }
    }

    /// The same connector with other bounds.
    #[must_use]
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.endpoint.settings = settings;
        self
    }

    async fn http2<I>(
        &self,
        io: I,
        connection: &Arc<Connection>,
    ) -> Result<SendRequest<RequestBody>, ConnectError>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let settings = self.endpoint.settings;
        let (io, greeting) = Greeted::new(io);
        let opened = Builder::new(Tasks(connection.closing.clone()))
            .timer(TokioTimer::new())
            .initial_stream_window_size(settings.stream_window_bytes)
            .initial_connection_window_size(settings.connection_window_bytes)
            .max_frame_size(FRAME_MAX)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(HEADERS_MAX)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .handshake(TokioIo::new(io))
            .await;
        let (requests, served) = opened.map_err(|error| self.endpoint.failed(true, error))?;
        let driven = Arc::clone(connection);
        tokio::spawn(async move { driven.drive(served).await });
        match tokio::time::timeout(settings.handshake, greeting).await {
            Ok(Ok(Ok(()))) => Ok(requests),
            Ok(Ok(Err(why))) => Err(self.endpoint.failed(false, why)),
            Ok(Err(_)) => Err(self.endpoint.closed_at_once()),
            Err(_) => Err(self
                .endpoint
                .failed(true, "it accepts connections but says nothing")),
        }
    }
}

impl<P: Protocol, A: Asking<P>> Connector<P> for GrpcConnector<A> {
    type Caller = GrpcCaller<A>;

    /// Opens a connection. Dropping the future gives it up.
    async fn connect(&self) -> Result<GrpcCaller<A>, ConnectError> {
        let endpoint = &self.endpoint;
        let target = endpoint.target()?;
        let (tcp, addr) = endpoint.dial().await?;
        let connection = Arc::<Connection>::default();
        // What was begun ends if this future does.
        let unfinished = connection.closing.clone().drop_guard();
        let requests = match &endpoint.tls {
            None => Box::pin(self.http2(tcp, &connection)).await?,
            Some(tls) => {
                let tls = tls.load();
                let stream = Box::pin(endpoint.handshake(&tls, tls.config(), tcp)).await?;
                if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                    return Err(endpoint.failed(false, HandshakeError::NoHttp2));
                }
                Box::pin(self.http2(stream, &connection)).await?
            }
        };
        unfinished.disarm();
        Ok(GrpcCaller {
            asking: Arc::clone(&self.asking),
            credentials: Arc::clone(&self.credentials),
            target,
            peer: Peer {
                identity: Identity::Anonymous,
                addr,
                transport: "grpc",
            },
            bounds: endpoint.bounds(),
            requests,
            connection,
        })
    }
}

impl<A> fmt::Display for GrpcConnector<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
    }
}

impl<A> fmt::Debug for GrpcConnector<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcConnector")
            .field("endpoint", &self.endpoint)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

/// Runs what hyper spawns for a connection until the connection is to end.
#[derive(Clone)]
struct Tasks(CancellationToken);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        let closing = self.0.clone();
        tokio::spawn(async move { closing.run_until_cancelled(task).await.map(drop) });
    }
}

/// Frames and buffers of HTTP/2, in bytes; see the listener's.
const FRAME_MAX: u32 = 256 << 10;
const SEND_BUFFER: usize = 1 << 20;
const HEADERS_MAX: u32 = 64 << 10;

/// How a server that is gone is noticed while calls wait for it. An idle connection is not probed: stock servers take
/// that for abuse and hang up.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
