//! The connections of one caller: each carries one call, and then maybe the next.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flwr_transport::ConnectError;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::client::endpoint::Endpoint;
use crate::client::errors::broken;
use crate::client::request::RequestBody;

/// How long a connection may wait for its next call: uvicorn, in stock servers, ends those that wait for 5 s.
const REST_MAX: Duration = Duration::from_secs(4);
/// How many may wait.
const WAITING_MAX: usize = 8;
/// How a server that is gone is noticed.
const SILENT_MAX: Duration = Duration::from_secs(20);
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
const UNHEARD_MAX: Duration = Duration::from_secs(45);

/// Opens connections, and keeps those that are not in use for a while.
#[derive(Debug)]
pub(super) struct Lines {
    endpoint: Arc<Endpoint>,
    /// Ends all of them.
    closing: CancellationToken,
    waiting: Mutex<Vec<(Line, Instant)>>,
}

/// One connection. It ends if this is dropped.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) requests: SendRequest<RequestBody>,
    /// Whether it has carried a call before.
    pub(super) is_used: bool,
    _end: DropGuard,
}

impl Lines {
    pub(super) fn new(endpoint: Arc<Endpoint>, closing: CancellationToken) -> Self {
        Self {
            endpoint,
            closing,
            waiting: Mutex::default(),
        }
    }

    /// A connection that waits, or a new one.
    pub(super) async fn take(&self) -> Result<Line, ConnectError> {
        while let Some(mut line) = self.waiting() {
            if line.requests.ready().await.is_ok() {
                return Ok(line);
            }
        }
        Box::pin(self.open()).await.map(|(line, _)| line)
    }

    fn waiting(&self) -> Option<Line> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|(_, since)| since.elapsed() < REST_MAX);
        waiting.pop().map(|(line, _)| line)
    }

    pub(super) fn put(&self, mut line: Line) {
        line.is_used = true;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|(_, since)| since.elapsed() < REST_MAX);
        if waiting.len() < WAITING_MAX {
            waiting.push((line, Instant::now()));
        }
    }

    /// A new connection, and whom it reaches.
    pub(super) async fn open(&self) -> Result<(Line, SocketAddr), ConnectError> {
        let endpoint = &self.endpoint;
        let (tcp, addr) = endpoint.dial().await?;
        if let Err(error) = probe(&tcp) {
            tracing::debug!(%error, "a server that is gone will be noticed late");
        }
        let line = match &endpoint.tls {
            None => self.http1(tcp).await?,
            Some(tls) => {
                let tls = tls.load();
                let mut config = (*tls.config()).clone();
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                let config = Arc::new(config);
                let stream = Box::pin(endpoint.handshake(&tls, config, tcp)).await?;
                self.http1(stream).await?
            }
        };
        Ok((line, addr))
    }

    async fn http1<I>(&self, io: I) -> Result<Line, ConnectError>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let opened = Builder::new().handshake(TokioIo::new(io)).await;
        let (requests, served) = opened.map_err(|error| self.endpoint.failed(true, error))?;
        let closing = self.closing.child_token();
        let end = closing.clone().drop_guard();
        tokio::spawn(async move {
            if let Some(Err(error)) = closing.run_until_cancelled(served).await {
                tracing::debug!("connection ended: {}", broken(&error).message);
            }
        });
        Ok(Line {
            requests,
            is_used: false,
            _end: end,
        })
    }
}

/// Has the system look after the other end, which HTTP/1 cannot.
fn probe(tcp: &TcpStream) -> std::io::Result<()> {
    let socket = socket2::SockRef::from(tcp);
    let probes = socket2::TcpKeepalive::new()
        .with_time(SILENT_MAX)
        .with_interval(PROBE_INTERVAL);
    socket.set_tcp_keepalive(&probes)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNHEARD_MAX))?;
    Ok(())
}

/// A connection in use. It is fit for the next call only if it is given back.
#[derive(Debug)]
pub(in crate::client) struct Lease {
    pub(super) line: Line,
    pub(super) lines: Arc<Lines>,
}

impl Lease {
    /// After the whole answer.
    pub(in crate::client) fn give_back(self) {
        self.lines.put(self.line);
    }
}
