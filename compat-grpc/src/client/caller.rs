//! Calls over one connection.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use flwr_transport::{Body, Call, Caller, Closed, Code, Peer, Protocol, Reply, Status};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};
use hyper::client::conn::http2::SendRequest;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::asking::{Asked, Asking};
use super::credentials::Credentials;
use super::endpoint::Target;
use super::errors::{Failed, broken};
use super::reply::{self, Bounds};
use super::request::{Failure, RequestBody};

/// Makes calls over one connection. Bodies of its replies outlive it.
pub struct GrpcCaller<A> {
    pub(super) asking: Arc<A>,
    pub(super) credentials: Arc<Credentials>,
    pub(super) target: Target,
    pub(super) peer: Peer,
    pub(super) bounds: Bounds,
    pub(super) requests: SendRequest<RequestBody>,
    pub(super) connection: Arc<Connection>,
}

/// How a connection ends. Once it has `ended` it takes no more calls.
#[derive(Debug, Default)]
pub(super) struct Connection {
    /// Asked to end: everything of this connection stops.
    pub(super) closing: CancellationToken,
    ended: CancellationToken,
    closed: OnceLock<Closed>,
}

impl Connection {
    /// Sees a connection to its end.
    pub(super) async fn drive(&self, served: impl Future<Output = hyper::Result<()>>) {
        let served = self.closing.run_until_cancelled(served).await;
        if let Some(Err(error)) = &served {
            tracing::debug!("connection ended: {}", broken(error).message);
        }
        // Answers that are under way go on arriving after a GOAWAY. How it ended is known already if this end closed it.
        self.end(match served {
            Some(Err(error)) if error.is_timeout() => Closed::Lost,
            _ => Closed::Peer,
        });
    }

    pub(super) fn is_over(&self) -> bool {
        self.closing.is_cancelled() || self.ended.is_cancelled()
    }

    pub(super) fn close(&self, reason: &'static str) {
        if !self.is_over() {
            self.closed.get_or_init(|| Closed::Here(reason));
        }
        self.closing.cancel();
    }

    /// Sees one call through.
    ///
    /// # Errors
    /// The call's own, `DEADLINE_EXCEEDED`, or `UNAVAILABLE` if the connection is over, or closed
    /// from this end meanwhile.
    pub(super) async fn exchange<T>(
        &self,
        deadline: Instant,
        exchange: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        if self.is_over() {
            return Err(gone());
        }
        tokio::select! {
            biased;
            answered = timeout_at(deadline, exchange) => {
                answered.unwrap_or_else(|_| Err(deadline_exceeded()))
            }
            // An answer that came before the end is looked at first.
            () = self.closing.cancelled() => Err(gone()),
        }
    }

    /// It takes no more calls; those under way go on.
    pub(super) fn end(&self, how: Closed) {
        self.closed.get_or_init(|| how);
        self.ended.cancel();
    }

    pub(super) async fn closed(&self) -> Closed {
        self.ended.cancelled().await;
        self.closed.get().cloned().unwrap_or(Closed::Lost)
    }
}

impl<A> GrpcCaller<A> {
    async fn exchange<P: Protocol>(&self, call: Call<P>) -> Result<Reply<P>, Status>
    where
        A: Asking<P>,
    {
        let body = match call.body {
            Some(body) => Some(measured(body, self.bounds.message_bytes_max).await?),
            None => None,
        };
        let body_bytes = body.as_ref().and_then(Body::len);
        let bearer = call.bearer.as_ref();
        let asked = self.asking.ask(call.request, bearer, body_bytes)?;
        let message_bytes = asked.head.len() as u64 + body_bytes.unwrap_or(0);
        self.bounds.check(message_bytes)?;
        let headers = self.headers(&asked, call.deadline)?;
        let uri = self.uri(&asked)?;
        let (body, failure) = RequestBody::new(&asked.head, body);
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let response = self.requests.clone().send_request(request).await;
        let received = match response {
            Ok(response) => reply::read(response, asked.peek, self.bounds).await,
            Err(error) => Err(broken(&error).into()),
        };
        match received {
            Ok(received) => (asked.answer)(received),
            Err(Failed::Refused(status)) => Err(self.asking.refused(&status)),
            Err(Failed::Broken(status)) => Err(blamed(&failure, status)),
        }
    }

    fn uri<P: Protocol>(&self, asked: &Asked<P>) -> Result<Uri, Status> {
        Uri::builder()
            .scheme(self.target.scheme)
            .authority(self.target.authority.clone())
            .path_and_query(format!("/{}/{}", asked.service, asked.method))
            .build()
            .map_err(|error| Status::new(Code::Internal, error.to_string()))
    }

    fn headers<P: Protocol>(
        &self,
        asked: &Asked<P>,
        deadline: Instant,
    ) -> Result<HeaderMap, Status> {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        let content_type = HeaderValue::from_static("application/grpc");
        headers.insert(header::CONTENT_TYPE, content_type);
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        if asked.tells_deadline {
            headers.insert("grpc-timeout", timeout(deadline));
        }
        self.credentials.add(&mut headers)?;
        Ok(headers)
    }
}

impl<P: Protocol, A: Asking<P>> Caller<P> for GrpcCaller<A> {
    fn peer(&self) -> &Peer {
        &self.peer
    }

    async fn call(&self, call: Call<P>) -> Result<Reply<P>, Status> {
        let deadline = call.deadline;
        self.connection
            .exchange(deadline, self.exchange(call))
            .await
    }

    async fn closed(&self) -> Closed {
        self.connection.closed().await
    }

    fn close(&self, reason: &'static str) {
        self.connection.close(reason);
    }
}

impl<A> fmt::Debug for GrpcCaller<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcCaller")
            .field("target", &self.target)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// A body whose length is known: gRPC announces it before the first byte.
pub(super) async fn measured(body: Body, bytes_max: usize) -> Result<Body, Status> {
    if body.len().is_some() {
        return Ok(body);
    }
    let bytes: Result<Bytes, _> = body.collect(bytes_max as u64).await;
    bytes
        .map(Body::from_bytes)
        .map_err(|why| Status::new(Code::Cancelled, format!("the call broke off: {why}")))
}

/// Why a call failed, if a body of ours is why the server got no further.
pub(super) fn blamed(failure: &Failure, status: Status) -> Status {
    match failure.get() {
        Some(why) => Status::new(Code::Cancelled, format!("the call broke off: {why}")),
        None => status,
    }
}

/// At most 8 digits and a unit (gRPC over HTTP/2, "Timeout").
fn timeout(deadline: Instant) -> HeaderValue {
    const MILLIS_MAX: u128 = 99_999_999;
    let left = deadline.saturating_duration_since(Instant::now());
    let millis = left.as_millis().clamp(1, MILLIS_MAX);
    HeaderValue::try_from(format!("{millis}m")).expect("digits and a letter are ASCII")
}

fn gone() -> Status {
    Status::new(Code::Unavailable, "the connection is gone")
}

fn deadline_exceeded() -> Status {
    Status::new(Code::DeadlineExceeded, "no answer before the deadline")
}

pub(super) const USER_AGENT: &str = concat!("flwr-quic/", env!("CARGO_PKG_VERSION"));
