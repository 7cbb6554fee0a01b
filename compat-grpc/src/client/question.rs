//! One gRPC call with one message each way, of any service, over a connection of its own: for those who look at a server
//! instead of working with it, and want to see more of the answer than what it says.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use flwr_certs::{ClientTls, HandshakeError};
use flwr_transport::{ConnectError, Current};
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::Builder;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::oneshot::{Receiver, error::TryRecvError};
use tokio_util::task::AbortOnDropHandle;

use super::endpoint::{Endpoint, Settings};
use super::greeting::{Greeted, NotHttp2};

/// Where to ask, and how long to wait for each step.
pub struct Questioner {
    endpoint: Endpoint,
    patience: Duration,
}

/// What came back.
#[derive(Debug)]
pub struct Said {
    /// The status of the call. Of what is no gRPC, the one that its HTTP status stands for.
    pub status: tonic::Status,
    /// The message, if there is one.
    pub message: Bytes,
}

/// What a TLS handshake has shown.
#[derive(Debug)]
pub struct Shaken {
    /// The server's certificate and what it sent with it; empty without TLS.
    pub chain: Vec<CertificateDer<'static>>,
    /// Such as `TLSv1_3`; nothing without TLS.
    pub version: Option<String>,
}

impl Questioner {
    /// Asks `host`, a name or an IP address (IPv6 without brackets), in plain text if there is no `tls`.
    pub fn new(
        host: impl Into<String>,
        port: u16,
        tls: Option<Current<ClientTls>>,
        patience: Duration,
    ) -> Self {
        let mut endpoint = Endpoint::new(host, port, tls);
        endpoint.settings = Settings {
            connect: patience,
            handshake: patience,
            idle: patience,
            ..Settings::default()
        };
        Self { endpoint, patience }
    }

    /// Connects, shakes hands and hangs up.
    ///
    /// # Errors
    /// In words, as of a connector.
    pub async fn shake(&self) -> Result<Shaken, ConnectError> {
        let (tcp, _) = self.endpoint.dial().await?;
        let Some(tls) = &self.endpoint.tls else {
            return Ok(Shaken {
                chain: Vec::new(),
                version: None,
            });
        };
        let tls = tls.load();
        let handshake = self.endpoint.handshake(&tls, tls.config(), tcp);
        let mut stream = Box::pin(handshake).await?;
        // A server judges a client's certificate when the handshake is over for the client (RFC 8446, section 4.4.2.4).
        let said = tokio::time::timeout(VERDICT_TIME_MAX, stream.read_u8()).await;
        if let Ok(Err(error)) = said
            && let Some(refused) = HandshakeError::refusal(&error)
        {
            return Err(self.endpoint.failed(false, refused));
        }
        let session = stream.get_ref().1;
        let chain = session.peer_certificates().unwrap_or_default();
        Ok(Shaken {
            chain: chain.iter().map(|one| one.clone().into_owned()).collect(),
            version: session
                .protocol_version()
                .map(|version| format!("{version:?}")),
        })
    }

    /// Makes a call, such as `/flwr.proto.Control/ListRuns`. A refusal is an answer too.
    ///
    /// # Errors
    /// In words, when there is no answer.
    pub async fn ask(&self, path: &str, message: &[u8]) -> Result<Said, ConnectError> {
        let asked = tokio::time::timeout(self.patience * 3, self.converse(path, message));
        asked
            .await
            .unwrap_or_else(|_| Err(self.endpoint.failed(true, "it does not answer in time")))
    }

    async fn converse(&self, path: &str, message: &[u8]) -> Result<Said, ConnectError> {
        let target = self.endpoint.target()?;
        let uri = format!("{}://{}{path}", target.scheme, target.authority);
        let mut framed = BytesMut::with_capacity(message.len() + FRAME_HEAD);
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
        framed.put_slice(message);
        let request = Request::post(uri)
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(Full::new(framed.freeze()))
            .map_err(|error| self.endpoint.failed(false, error))?;
        let (tcp, _) = self.endpoint.dial().await?;
        match &self.endpoint.tls {
            None => self.exchange(tcp, request).await,
            Some(tls) => {
                let tls = tls.load();
                let handshake = self.endpoint.handshake(&tls, tls.config(), tcp);
                self.exchange(Box::pin(handshake).await?, request).await
            }
        }
    }

    async fn exchange<I>(&self, io: I, request: Request<Full<Bytes>>) -> Result<Said, ConnectError>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (io, mut greeting) = Greeted::new(io);
        let builder = Builder::new(TokioExecutor::new());
        let opened = builder.handshake(TokioIo::new(io)).await;
        let (mut requests, served) = match opened {
            Ok(opened) => opened,
            Err(error) => return Err(self.unanswered(&error, &mut greeting)),
        };
        let driven = AbortOnDropHandle::new(tokio::spawn(served));
        let response = match requests.send_request(request).await {
            Ok(response) => response,
            // What ended the connection says more.
            Err(error) if error.is_canceled() => {
                let ended = tokio::time::timeout(self.patience, driven).await;
                let cause = match ended {
                    Ok(Ok(Err(cause))) => cause,
                    _ => error,
                };
                return Err(self.unanswered(&cause, &mut greeting));
            }
            Err(error) => return Err(self.unanswered(&error, &mut greeting)),
        };
        let (head, body) = response.into_parts();
        let collected = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let collected = collected.map_err(|error| self.endpoint.failed(true, error))?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let status = status(&head.headers, &trailers)
            .unwrap_or_else(|| tonic::Status::unknown(format!("HTTP status {}", head.status)));
        let mut message = collected.to_bytes();
        Ok(Said {
            status,
            message: message.split_off(message.len().min(FRAME_HEAD)),
        })
    }
}

impl Questioner {
    /// What a server speaks that does not speak HTTP/2 says more than what HTTP/2 makes of it.
    fn unanswered(
        &self,
        error: &hyper::Error,
        greeting: &mut Receiver<Result<(), NotHttp2>>,
    ) -> ConnectError {
        match greeting.try_recv() {
            Ok(Err(why)) => self.endpoint.failed(false, why),
            Err(TryRecvError::Closed) => self.endpoint.closed_at_once(),
            Ok(Ok(())) | Err(TryRecvError::Empty) => self.endpoint.failed(true, Chain(error)),
        }
    }
}

/// A refusal's status is in the head, that of an answer behind it.
fn status(head: &HeaderMap, trailers: &HeaderMap) -> Option<tonic::Status> {
    tonic::Status::from_header_map(trailers).or_else(|| tonic::Status::from_header_map(head))
}

/// An error with its causes.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl std::fmt::Debug for Questioner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Questioner")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// How long a server may take to say that it does not want a client.
const VERDICT_TIME_MAX: Duration = Duration::from_millis(500);
/// A flag and a length come before a message of gRPC.
const FRAME_HEAD: usize = 5;
/// The lists of runs of a long life.
const ANSWER_BYTES_MAX: usize = 64 << 20;
