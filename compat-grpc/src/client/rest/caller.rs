//! Calls, each over a connection of its own.

use std::fmt;
use std::sync::Arc;

use flwr_transport::{Body, Call, Caller, Closed, Code, Peer, Protocol, Reply, Status};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header};
use hyper::body::Incoming;

use super::answer::{self, PROTOBUF};
use super::lines::{Lease, Lines};
use crate::client::asking::{Asked, Asking};
use crate::client::caller::{Connection, USER_AGENT, blamed, measured};
use crate::client::endpoint::Target;
use crate::client::errors::{Failed, broken, unusable};
use crate::client::reply::Bounds;
use crate::client::request::RequestBody;

/// Makes calls to one server over as many connections as there are calls. It is over once a new connection fails.
pub struct RestCaller<A> {
    pub(super) asking: Arc<A>,
    pub(super) target: Target,
    pub(super) peer: Peer,
    pub(super) bounds: Bounds,
    pub(super) lines: Arc<Lines>,
    pub(super) connection: Connection,
}

impl<A> RestCaller<A> {
    async fn exchange<P: Protocol>(&self, call: Call<P>) -> Result<Reply<P>, Status>
    where
        A: Asking<P>,
    {
        let body = match call.body {
            Some(body) => Some(measured(body, self.bounds.message_bytes_max).await?),
            None => None,
        };
        let body_bytes = body.as_ref().and_then(Body::len);
        let asked = self
            .asking
            .ask(call.request, call.bearer.as_ref(), body_bytes)?;
        self.bounds
            .check(asked.head.len() as u64 + body_bytes.unwrap_or(0))?;
        let uri = self.uri(&asked)?;
        let headers = self.headers()?;
        let (body, failure) = RequestBody::plain(asked.head, body);
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let received = match self.send(request).await {
            Ok((response, lease)) => answer::read(response, asked.peek, self.bounds, lease).await,
            Err(status) => Err(status.into()),
        };
        match received {
            Ok(received) => (asked.answer)(received),
            Err(Failed::Refused(status)) => Err(self.asking.refused(&status)),
            Err(Failed::Broken(status)) => Err(blamed(&failure, status)),
        }
    }

    /// Sends over a connection that waits; over the next one if the server has ended it meanwhile.
    async fn send(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Lease), Status> {
        loop {
            let line = self.lines.take().await.map_err(|error| {
                self.connection.end(Closed::Lost);
                Status::new(Code::Unavailable, error.message)
            })?;
            let (is_used, mut lease) = (
                line.is_used,
                Lease {
                    line,
                    lines: Arc::clone(&self.lines),
                },
            );
            let mut error = match lease.line.requests.try_send_request(request).await {
                Ok(response) => return Ok((response, lease)),
                Err(error) => error,
            };
            match error.take_message() {
                Some(unsent) if is_used => request = unsent,
                _ if error.error().is_parse() => return Err(unusable(NOT_HTTP1)),
                _ => return Err(broken(error.error())),
            }
        }
    }

    /// `flwr.proto.Fleet` and `GetRun` are `/api/v0/fleet/get-run`. Servers see the path alone.
    fn uri<P: Protocol>(&self, asked: &Asked<P>) -> Result<Uri, Status> {
        let service = asked.service.rsplit('.').next().unwrap_or_default();
        let (service, method) = (kebab(service), kebab(asked.method));
        Uri::try_from(format!("/api/v0/{service}/{method}"))
            .map_err(|error| Status::new(Code::Internal, error.to_string()))
    }

    fn headers(&self) -> Result<HeaderMap, Status> {
        let host = HeaderValue::try_from(self.target.authority.as_str())
            .map_err(|error| Status::new(Code::Internal, error.to_string()))?;
        let mut headers = HeaderMap::with_capacity(5);
        headers.insert(header::HOST, host);
        headers.insert(header::ACCEPT, PROTOBUF);
        headers.insert(header::CONTENT_TYPE, PROTOBUF);
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        Ok(headers)
    }
}

const NOT_HTTP1: &str = "it is not HTTP/1: check the port, and whether it takes https://";

/// `GetRun` is `get-run`.
pub(crate) fn kebab(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

impl<P: Protocol, A: Asking<P>> Caller<P> for RestCaller<A> {
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
        self.connection.end(Closed::Here(reason));
    }
}

impl<A> fmt::Debug for RestCaller<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestCaller")
            .field("target", &self.target)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}
