//! One HTTP request, one gRPC call.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use crate::accept::Limits;
use crate::auth::CallerAuth;
use crate::buffers::Buffers;
use crate::dialect::Answer;
use crate::exchange::{Called, Calls, DEADLINE_DEFAULT, Exchange};
use crate::f1::look::VERSION_HEADER;
use crate::framing::GrpcBody;
use crate::reading::read_message;
use crate::serving::Respond;

/// One connection.
pub(crate) struct Connection<E> {
    pub(crate) calls: Calls<E>,
    pub(crate) auth: Arc<CallerAuth>,
    pub(crate) limits: Limits,
    pub(crate) buffers: Buffers,
}

impl<E: Exchange> Respond for Connection<E> {
    type Body = GrpcBody;

    async fn respond(&self, request: Request<Incoming>) -> Response<GrpcBody> {
        if let Some(refused) = refuse_http(&request) {
            return refused;
        }
        let path = request.uri().path().to_owned();
        match self.answer(&path, request).await {
            Ok(answer) => {
                let mut response = Response::new(GrpcBody::new(answer));
                let content_type = http::HeaderValue::from_static("application/grpc");
                response
                    .headers_mut()
                    .insert(header::CONTENT_TYPE, content_type);
                response
            }
            Err(status) => {
                self.calls.log_refusal(&path, &status);
                status.into_http()
            }
        }
    }
}

impl<E: Exchange> Connection<E> {
    async fn answer(
        &self,
        path: &str,
        request: Request<Incoming>,
    ) -> Result<Answer, tonic::Status> {
        let service_and_method = path.strip_prefix('/').and_then(|path| path.split_once('/'));
        let unread = |status| self.calls.unread(status);
        let Some((service, method)) = service_and_method else {
            return Err(unread(unknown_method()));
        };
        if service != E::SERVICE {
            return Err(unread(unknown_method()));
        }
        let identity = self.auth.identify(request.headers());
        let call = Called {
            method,
            identity: identity.map_err(unread)?,
            timeout: timeout(request.headers()),
        };
        let split = |seen: &[u8], bytes| self.calls.exchange.split(method, seen, bytes);
        let message = read_message(request.into_body(), &self.limits, &self.buffers, split);
        self.calls.answer(call, message).await
    }
}

/// As stock servers say it, and who says it: `flwr-quic doctor` asks for what does not exist.
fn unknown_method() -> tonic::Status {
    let mut status = tonic::Status::unimplemented("Method not found!");
    let version = tonic::metadata::MetadataValue::from_static(env!("CARGO_PKG_VERSION"));
    status.metadata_mut().insert(VERSION_HEADER, version);
    status
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
