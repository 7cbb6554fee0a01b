//! Where a server is, and the way there: TCP, and TLS where it is asked for.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use flwr_certs::{ClientTls, HandshakeError};
use flwr_transport::{ConnectError, Current};
use http::uri::Authority;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::dial::{DialError, dial};
use super::greeting::WITH_TLS;
use super::reply::Bounds;

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

/// Where requests go, as HTTP has it.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) scheme: &'static str,
    pub(super) authority: Authority,
}

/// One server.
pub(super) struct Endpoint {
    host: String,
    port: u16,
    pub(super) tls: Option<Current<ClientTls>>,
    pub(super) settings: Settings,
}

impl Endpoint {
    pub(super) fn new(host: impl Into<String>, port: u16, tls: Option<Current<ClientTls>>) -> Self {
        Self {
            host: host.into(),
            port,
            tls,
            settings: Settings::default(),
        }
    }

    pub(super) fn target(&self) -> Result<Target, ConnectError> {
        let authority = Authority::try_from(self.to_string()).map_err(|error| {
            self.failed(false, format_args!("its address is unusable: {error}"))
        })?;
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        Ok(Target { scheme, authority })
    }

    pub(super) fn bounds(&self) -> Bounds {
        Bounds {
            message_bytes_max: self.settings.message_bytes_max,
            idle: self.settings.idle,
        }
    }

    /// Opens TCP.
    pub(super) async fn dial(&self) -> Result<(TcpStream, SocketAddr), ConnectError> {
        let tcp = dial(&self.host, self.port, self.settings.connect).await;
        let tcp = tcp.map_err(|error| match error {
            // There is no need to name an address twice.
            DialError::Refused { source, .. } if self.host.parse::<IpAddr>().is_ok() => {
                self.failed(true, source)
            }
            error => self.failed(true, error),
        })?;
        let addr = tcp.peer_addr().map_err(|error| self.failed(true, error))?;
        Ok((tcp, addr))
    }

    /// Begins TLS as `config` has it, which is that of `tls`, maybe with other protocols to choose from.
    pub(super) async fn handshake(
        &self,
        tls: &ClientTls,
        config: Arc<rustls::ClientConfig>,
        tcp: TcpStream,
    ) -> Result<TlsStream<TcpStream>, ConnectError> {
        // The zone of a link-local address is no part of its name.
        let host = self.host.split('%').next().unwrap_or_default();
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| self.failed(false, format_args!("its name is unusable: {error}")))?;
        let speaks_http2 = config.alpn_protocols.iter().any(|name| name == b"h2");
        let connector = tokio_rustls::TlsConnector::from(config);
        let shaken = tokio::time::timeout(self.settings.handshake, connector.connect(name, tcp));
        shaken
            .await
            .map_err(|_| self.failed(true, "the TLS handshake takes too long"))?
            .map_err(|error| {
                let why = tls.explain(host, &error);
                match plain_http(&why).filter(|_| !speaks_http2) {
                    Some(words) => self.failed(why.is_retryable(), words),
                    None => self.failed(why.is_retryable(), why),
                }
            })
    }

    pub(super) fn closed_at_once(&self) -> ConnectError {
        let why = "it closed the connection at once";
        match self.tls {
            Some(_) => self.failed(true, why),
            None => self.failed(true, format_args!("{why}: if it expects TLS, {WITH_TLS}")),
        }
    }

    pub(super) fn failed(&self, retryable: bool, why: impl fmt::Display) -> ConnectError {
        ConnectError {
            retryable,
            message: format!("no connection to {self}: {why}"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, .. } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("target", &self.to_string())
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

/// What has other words where plain HTTP is spoken, which has its own ways to say so.
fn plain_http(why: &HandshakeError) -> Option<&'static str> {
    match why {
        HandshakeError::Closed | HandshakeError::NoTls => Some(
            "the server speaks no TLS on this port: check the port, and whether it takes http://",
        ),
        HandshakeError::NoHttp2 => {
            Some("the server does not offer HTTP/1 over TLS: if it speaks gRPC, leave out --rest")
        }
        _ => None,
    }
}
