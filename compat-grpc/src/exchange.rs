//! One HTTP request, one gRPC call.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flwr_transport::{Call, Context, Drain, Handler, Identity, Peer, Protocol};
use futures_util::FutureExt;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::auth::CallerAuth;
use crate::buffers::Buffers;
use crate::dialect::{Answer, Dialect, Subject};
use crate::framing::{GrpcBody, read_message};
use crate::listener::Limits;

/// Answers the methods of one gRPC service.
pub(crate) trait Exchange: Send + Sync + 'static {
    /// The service's full name.
    const SERVICE: &'static str;

    /// Answers one message.
    fn exchange(
        &self,
        context: Context,
        method: &str,
        message: Bytes,
    ) -> impl Future<Output = Result<Answer, tonic::Status>> + Send;
}

/// A handler behind a dialect.
pub(crate) struct Spoken<P, D, H> {
    pub(crate) dialect: Arc<D>,
    pub(crate) handler: Arc<H>,
    pub(crate) protocol: std::marker::PhantomData<fn() -> P>,
}

impl<P: Protocol, D: Dialect<P>, H: Handler<P>> Exchange for Spoken<P, D, H> {
    const SERVICE: &'static str = D::SERVICE;

    async fn exchange(
        &self,
        mut context: Context,
        method: &str,
        message: Bytes,
    ) -> Result<Answer, tonic::Status> {
        let question = self.dialect.decode(method, message);
        let question = question.map_err(|status| self.dialect.refuse(&status, Subject::None))?;
        let subject = question.subject;
        context.bearer = question.bearer;
        let call = Call {
            request: question.request,
            bearer: None,
            body: question.body,
            deadline: context.deadline,
        };
        let reply = self.handler.handle(context, call).await;
        let reply = reply.map_err(|status| self.dialect.refuse(&status, subject))?;
        Ok(self.dialect.encode(reply))
    }
}

/// What all requests of one connection share.
pub(crate) struct Connection<E> {
    pub(crate) exchange: Arc<E>,
    pub(crate) auth: Arc<CallerAuth>,
    pub(crate) peer: Arc<Peer>,
    pub(crate) limits: Limits,
    pub(crate) buffers: Buffers,
    pub(crate) drain: Drain,
}

/// A caller without a deadline is waited for this long: longer than any hold or transfer.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(24 * 3600);

impl<E: Exchange> Connection<E> {
    /// Answers one request. Never fails: every failure is a response.
    pub(crate) async fn respond(&self, request: Request<Incoming>) -> Response<GrpcBody> {
        if let Some(refused) = refuse_http(&request) {
            return refused;
        }
        let guard = self.drain.guard();
        let path = request.uri().path().to_owned();
        let answered = AssertUnwindSafe(self.answer(&path, request))
            .catch_unwind()
            .await;
        let answered = answered.unwrap_or_else(|_| {
            tracing::error!(
                method = path,
                "a bug ended the call; the caller may repeat it"
            );
            Err(tonic::Status::unavailable("the server failed to answer"))
        });
        drop(guard);
        match answered {
            Ok(answer) => {
                let mut response = Response::new(GrpcBody::new(answer));
                let content_type = http::HeaderValue::from_static("application/grpc");
                response
                    .headers_mut()
                    .insert(header::CONTENT_TYPE, content_type);
                response
            }
            Err(status) => {
                self.log_refusal(&path, &status);
                status.into_http()
            }
        }
    }

    async fn answer(
        &self,
        path: &str,
        request: Request<Incoming>,
    ) -> Result<Answer, tonic::Status> {
        let unknown = || tonic::Status::unimplemented("Method not found!");
        let (service, method) = path
            .strip_prefix('/')
            .and_then(|path| path.split_once('/'))
            .ok_or_else(unknown)?;
        if service != E::SERVICE {
            return Err(unknown());
        }
        let identity = self.auth.identify(request.headers())?;
        let peer = match identity {
            Identity::Anonymous => Arc::clone(&self.peer),
            identity => Arc::new(Peer {
                identity,
                ..(*self.peer).clone()
            }),
        };
        let now = Instant::now();
        let context = Context {
            peer,
            bearer: None,
            deadline: now + timeout(request.headers()).unwrap_or(DEADLINE_DEFAULT),
            drain: self.drain.clone(),
        };
        let deadline = context.deadline;
        let body = request.into_body();
        let work = async {
            let limits = &self.limits;
            let message =
                read_message(body, limits.message_bytes_max, limits.idle, &self.buffers).await?;
            self.exchange.exchange(context, method, message).await
        };
        let answered = tokio::time::timeout_at(deadline, work).await;
        answered.unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("the deadline passed")))
    }

    fn log_refusal(&self, method: &str, status: &tonic::Status) {
        let (peer, code, why) = (self.peer.addr, status.code(), status.message());
        match code {
            tonic::Code::Unauthenticated => warn!(%peer, method, why, "call refused"),
            tonic::Code::Cancelled | tonic::Code::DeadlineExceeded => {
                debug!(%peer, method, ?code, why, "call ended");
            }
            _ if self.drain.is_requested() => debug!(%peer, method, ?code, why, "call ended"),
            _ => info!(%peer, method, ?code, why, "call refused"),
        }
    }
}

/// What is no gRPC at all.
fn refuse_http<B>(request: &Request<B>) -> Option<Response<GrpcBody>> {
    let refuse = |code: StatusCode| {
        let mut response = Response::new(GrpcBody::default());
        *response.status_mut() = code;
        Some(response)
    };
    if request.method() != Method::POST {
        return refuse(StatusCode::METHOD_NOT_ALLOWED);
    }
    let content_type = request.headers().get(header::CONTENT_TYPE);
    if !content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc")) {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    None
}

/// The caller's patience: at most 8 digits and a unit (gRPC over HTTP/2, "Timeout").
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    let timeout = match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    };
    Some(timeout.min(DEADLINE_DEFAULT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts() {
        let parse = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", http::HeaderValue::from_static(text));
            timeout(&headers)
        };
        assert_eq!(parse("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse("4999m"), Some(Duration::from_millis(4999)));
        assert_eq!(parse("99999999H"), Some(DEADLINE_DEFAULT));
        for bad in ["", "S", "5", "123456789S", "-1S", "5x", "5 S"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
