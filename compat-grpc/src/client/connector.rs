//! Opening a connection: TCP, TLS where it is asked for, then HTTP/2.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use flwr_certs::{ClientTls, HandshakeError};
use flwr_transport::{ConnectError, Connector, Identity, Peer, Protocol};
use http::uri::Authority;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::asking::Asking;
use super::caller::{Connection, GrpcCaller, Target};
use super::credentials::Credentials;
use super::dial::{DialError, dial};
use super::greeting::Greeted;
use super::reply::Bounds;
use super::request::RequestBody;

/// Bounds on what a server can make this end hold and wait for.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long finding an address and opening TCP to it may take.
    pub connect: Duration,
    /// How long a TLS handshake, and then the first bytes of HTTP/2, may take.
    pub handshake: Duration,
    /// How long an answer that has begun may stop arriving.
    pub idle: Duration,
    /// The largest message, in bytes. Flower's own limit is 2 GiB less one byte.
    pub message_bytes_max: usize,
    /// How many bytes of one answer may wait for their reader.
    pub stream_window_bytes: u32,
    /// How many bytes of all answers may wait for their readers.
    pub connection_window_bytes: u32,
}

impl Default for Settings {
    /// Small windows, because SuperNodes run on small machines: a link of 100 Mbit/s and 200 ms needs 2.5 MB.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            message_bytes_max: i32::MAX as usize,
            stream_window_bytes: 8 << 20,
            connection_window_bytes: 16 << 20,
        }
    }
}

/// Opens connections to one server and has `A` put its calls into words.
pub struct GrpcConnector<A> {
    host: String,
    port: u16,
    tls: Option<ClientTls>,
    credentials: Arc<Credentials>,
    asking: Arc<A>,
    settings: Settings,
}

impl<A> GrpcConnector<A> {
    /// Connects to `host`, a name or an IP address (IPv6 without brackets), in plain text if there is no `tls`. The
    /// name is resolved anew for each connection.
    pub fn new(
        host: impl Into<String>,
        port: u16,
        tls: Option<ClientTls>,
        credentials: Credentials,
        asking: A,
    ) -> Self {
        Self {
            host: host.into(),
            port,
            tls,
            credentials: Arc::new(credentials),
            asking: Arc::new(asking),
            settings: Settings::default(),
        }
    }

    /// The same connector with other bounds.
    #[must_use]
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    fn target(&self) -> Result<Target, ConnectError> {
        let authority = Authority::try_from(self.to_string()).map_err(|error| {
            self.failed(false, format_args!("its address is unusable: {error}"))
        })?;
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        Ok(Target { scheme, authority })
    }

    async fn handshake(
        &self,
        tls: &ClientTls,
        tcp: TcpStream,
    ) -> Result<TlsStream<TcpStream>, ConnectError> {
        // The zone of a link-local address is no part of its name.
        let host = self.host.split('%').next().unwrap_or_default();
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| self.failed(false, format_args!("its name is unusable: {error}")))?;
        let connector = tokio_rustls::TlsConnector::from(tls.config());
        let shaken = tokio::time::timeout(self.settings.handshake, connector.connect(name, tcp));
        let stream = shaken
            .await
            .map_err(|_| self.failed(true, "the TLS handshake takes too long"))?
            .map_err(|error| {
                let why = tls.explain(host, &error);
                self.failed(why.is_retryable(), why)
            })?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(self.failed(false, HandshakeError::NoHttp2));
        }
        Ok(stream)
    }

    async fn http2<I>(
        &self,
        io: I,
        connection: &Arc<Connection>,
    ) -> Result<SendRequest<RequestBody>, ConnectError>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (io, greeting) = Greeted::new(io);
        let opened = Builder::new(Tasks(connection.closing.clone()))
            .timer(TokioTimer::new())
            .initial_stream_window_size(self.settings.stream_window_bytes)
            .initial_connection_window_size(self.settings.connection_window_bytes)
            .max_frame_size(FRAME_MAX)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(HEADERS_MAX)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .handshake(TokioIo::new(io))
            .await;
        let (requests, served) = opened.map_err(|error| self.failed(true, error))?;
        let driven = Arc::clone(connection);
        tokio::spawn(async move { driven.drive(served).await });
        match tokio::time::timeout(self.settings.handshake, greeting).await {
            Ok(Ok(Ok(()))) => Ok(requests),
            Ok(Ok(Err(why))) => Err(self.failed(false, why)),
            Ok(Err(_)) => Err(self.failed(true, self.closed_at_once())),
            Err(_) => Err(self.failed(true, "it accepts connections but says nothing")),
        }
    }

    fn closed_at_once(&self) -> &'static str {
        if self.tls.is_some() {
            "it closed the connection at once"
        } else {
            "it closed the connection at once: if it expects TLS, connect without --insecure"
        }
    }

    fn failed(&self, retryable: bool, why: impl fmt::Display) -> ConnectError {
        ConnectError {
            retryable,
            message: format!("no connection to {self}: {why}"),
        }
    }
}

impl<P: Protocol, A: Asking<P>> Connector<P> for GrpcConnector<A> {
    type Caller = GrpcCaller<A>;

    /// Opens a connection. Dropping the future gives it up.
    async fn connect(&self) -> Result<GrpcCaller<A>, ConnectError> {
        let target = self.target()?;
        let tcp = dial(&self.host, self.port, self.settings.connect).await;
        let tcp = tcp.map_err(|error| match error {
            // There is no need to name an address twice.
            DialError::Refused { source, .. } if self.host.parse::<IpAddr>().is_ok() => {
                self.failed(true, source)
            }
            error => self.failed(true, error),
        })?;
        let addr = tcp.peer_addr().map_err(|error| self.failed(true, error))?;
        let connection = Arc::<Connection>::default();
        // What was begun ends if this future does.
        let unfinished = connection.closing.clone().drop_guard();
        let requests = match &self.tls {
            None => self.http2(tcp, &connection).await?,
            Some(tls) => {
                let stream = self.handshake(tls, tcp).await?;
                self.http2(stream, &connection).await?
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
            bounds: Bounds {
                message_bytes_max: self.settings.message_bytes_max,
                idle: self.settings.idle,
            },
            requests,
            connection,
        })
    }
}

impl<A> fmt::Display for GrpcConnector<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, .. } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

impl<A> fmt::Debug for GrpcConnector<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcConnector")
            .field("target", &self.to_string())
            .field("tls", &self.tls.is_some())
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
