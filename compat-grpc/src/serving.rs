//! HTTP on an accepted connection, until the peer ends it or a shutdown has let its calls finish.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use flwr_transport::Drain;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use crate::accept::Limits;

/// Frames of HTTP/2, in bytes. Large ones save a quarter and more of the CPU time.
const FRAME_MAX: u32 = 256 << 10;
const SEND_BUFFER: usize = 1 << 20;
const HEADERS_MAX: u32 = 64 << 10;

/// How a peer that is gone is noticed: pings, and the patience for their answers.
const PING_INTERVAL: std::time::Duration = std::time::Duration::from_secs(20);
const PING_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// What answers the requests of a connection. Every failure is a response.
pub(crate) trait Respond: Send + Sync + 'static {
    /// The body of a response.
    type Body: http_body::Body<Data = Bytes, Error: std::error::Error + Send + Sync>
        + Send
        + 'static;

    /// Answers one request.
    fn respond(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// Serves HTTP/2.
pub(crate) async fn serve_http2<I>(
    io: I,
    peer: SocketAddr,
    limits: &Limits,
    answers: impl Respond,
    drain: &Drain,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answers = Arc::new(answers);
    let service = service_fn(move |request| answered(Arc::clone(&answers), request));
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .max_frame_size(FRAME_MAX)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADERS_MAX)
        .max_concurrent_streams(limits.streams_max)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(io), service);
    finish(served, |served| served.graceful_shutdown(), peer, drain).await;
}

/// Serves HTTP/1. A peer that does not go on with its next request is let go.
pub(crate) async fn serve_http1<I>(
    io: I,
    peer: SocketAddr,
    limits: &Limits,
    answers: impl Respond,
    drain: &Drain,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answers = Arc::new(answers);
    let service = service_fn(move |request| answered(Arc::clone(&answers), request));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_header_size(HEADERS_MAX as usize)
        .serve_connection(TokioIo::new(io), service);
    finish(served, |served| served.graceful_shutdown(), peer, drain).await;
}

async fn answered<R: Respond>(
    answers: Arc<R>,
    request: Request<Incoming>,
) -> Result<Response<R::Body>, Infallible> {
    Ok(answers.respond(request).await)
}

/// Waits for the end of a connection, which the drain brings nearer.
async fn finish<C: Future<Output = hyper::Result<()>>>(
    served: C,
    wind_down: impl FnOnce(Pin<&mut C>),
    peer: SocketAddr,
    drain: &Drain,
) {
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        biased;
        ended = served.as_mut() => ended,
        () = drain.requested() => {
            wind_down(served.as_mut());
            served.await
        }
    };
    if let Err(error) = ended {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        debug!(%peer, %error, cause, "connection ended");
    }
}
