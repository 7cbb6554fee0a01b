//! The form of REST: paths, headers, status codes, bodies.

use std::borrow::Cow;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use flwr_transport::BodyError;
use futures_util::stream::BoxStream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};

use crate::client::REASON_HEADER;
use crate::dialect::Answer;

/// The paths below [`ROOT`] and the methods of Fleet.
const METHODS: [(&str, &str); 10] = [
    ("confirm-message-received", "ConfirmMessageReceived"),
    ("create-node", "CreateNode"),
    ("delete-node", "DeleteNode"),
    ("get-fab", "GetFab"),
    ("get-run", "GetRun"),
    ("pull-messages", "PullMessages"),
    ("pull-object", "PullObject"),
    ("push-messages", "PushMessages"),
    ("push-object", "PushObject"),
    ("send-node-heartbeat", "SendNodeHeartbeat"),
];
const ROOT: &str = "api/v0/fleet/";

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/protobuf");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The method of Fleet that is asked for.
///
/// # Errors
/// The refusal that Flower 1.22 gives.
pub(super) fn method<B>(request: &Request<B>) -> Result<&'static str, Refusal> {
    // Stock SuperNodes ask for some paths with two slashes, which newer releases of their HTTP
    // library send as they are.
    let path = request.uri().path().trim_start_matches('/');
    let name = path.strip_prefix(ROOT);
    let known = METHODS.iter().find(|(path, _)| Some(*path) == name);
    let Some((_, method)) = known else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "Not Found"));
    };
    if request.method() != Method::POST {
        let code = StatusCode::METHOD_NOT_ALLOWED;
        return Err(Refusal::new(code, "Method Not Allowed"));
    }
    let headers = request.headers();
    expect_protobuf(headers, &header::CONTENT_TYPE, "Content-Type")?;
    expect_protobuf(headers, &header::ACCEPT, "Accept")?;
    Ok(method)
}

fn expect_protobuf(headers: &HeaderMap, header: &HeaderName, name: &str) -> Result<(), Refusal> {
    let text = match headers.get(header) {
        Some(value) if value == PROTOBUF => return Ok(()),
        Some(_) => format!("Unsupported `{name}`"),
        None => format!("Missing header `{name}`"),
    };
    Err(Refusal::new(StatusCode::BAD_REQUEST, text))
}

/// What a caller gets instead of an answer.
#[derive(Debug)]
pub(super) struct Refusal {
    code: StatusCode,
    text: Cow<'static, str>,
    /// For callers of ours.
    reason: Option<HeaderValue>,
}

impl Refusal {
    fn new(code: StatusCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            text: text.into(),
            reason: None,
        }
    }

    /// Codes are mapped as gRPC's own gateways do. Stock SuperNodes only know success and failure.
    pub(super) fn of(status: &tonic::Status) -> Self {
        let code = match status.code() {
            tonic::Code::InvalidArgument | tonic::Code::FailedPrecondition => {
                StatusCode::BAD_REQUEST
            }
            tonic::Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            tonic::Code::PermissionDenied => StatusCode::FORBIDDEN,
            tonic::Code::NotFound => StatusCode::NOT_FOUND,
            tonic::Code::ResourceExhausted => StatusCode::PAYLOAD_TOO_LARGE,
            tonic::Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            tonic::Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            tonic::Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let reason = status.metadata().get(REASON_HEADER);
        Self {
            reason: reason.and_then(|reason| HeaderValue::from_bytes(reason.as_bytes()).ok()),
            ..Self::new(code, status.message().to_owned())
        }
    }

    pub(super) fn into_response(self) -> Response<RestBody> {
        let mut response = Response::new(RestBody::of(self.text.into_owned().into()));
        *response.status_mut() = self.code;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, TEXT);
        if let Some(reason) = self.reason {
            headers.insert(REASON_HEADER, reason);
        }
        if self.code == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        response
    }
}

/// The response to a call.
pub(super) fn answered(answer: Answer) -> Response<RestBody> {
    let mut response = Response::new(RestBody::new(answer));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, PROTOBUF);
    response
}

/// The body of a response: a head, then maybe bytes of known length.
pub(crate) struct RestBody {
    head: Bytes,
    tail: Option<BoxStream<'static, Result<Bytes, BodyError>>>,
    left: u64,
}

impl RestBody {
    fn of(head: Bytes) -> Self {
        Self {
            left: head.len() as u64,
            head,
            tail: None,
        }
    }

    /// Fleet has no streams.
    fn new(answer: Answer) -> Self {
        let Answer::Message { head, tail } = answer else {
            return Self::of(Bytes::new());
        };
        let tail_bytes = tail.as_ref().and_then(flwr_transport::Body::len);
        Self {
            left: head.len() as u64 + tail_bytes.unwrap_or(0),
            head,
            tail: tail.map(flwr_transport::Body::into_stream),
        }
    }
}

impl Body for RestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let data = if self.head.is_empty() {
            match &mut self.tail {
                None => None,
                Some(tail) => ready!(tail.as_mut().poll_next(cx)).transpose()?,
            }
        } else {
            Some(std::mem::take(&mut self.head))
        };
        Poll::Ready(data.map(|data| {
            self.left = self.left.saturating_sub(data.len() as u64);
            Ok(Frame::data(data))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    const GOOD: [(&str, &str); 2] = [
        ("content-type", "application/protobuf"),
        ("accept", "application/protobuf"),
    ];

    fn asked(
        http_method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<&'static str, (u16, String)> {
        let mut request = Request::builder().method(http_method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        method(&request.body(()).unwrap())
            .map_err(|refusal| (refusal.code.as_u16(), refusal.text.into_owned()))
    }

    #[test]
    fn the_last_part_of_the_path_is_the_method() {
        for (path, expected) in METHODS {
            assert_eq!(crate::client::kebab(expected), path);
            for root in ["/api/v0/fleet/", "//api/v0/fleet/"] {
                let found = asked("POST", &format!("{root}{path}"), &GOOD);
                assert_eq!(found, Ok(expected));
            }
        }
        for path in ["/", "/api/v0/fleet/", "/api/v0/fleet/fly", "/create-node"] {
            let (code, text) = asked("POST", path, &GOOD).unwrap_err();
            assert_eq!((code, text.as_str()), (404, "Not Found"), "{path}");
        }
    }

    #[test]
    fn other_methods_and_headers_are_refused_in_flowers_words() {
        let path = "/api/v0/fleet/get-run";
        let [content_type, accept] = GOOD;
        for (http_method, headers, code, text) in [
            ("GET", &[][..], 405, "Method Not Allowed"),
            ("POST", &[accept], 400, "Missing header `Content-Type`"),
            (
                "POST",
                &[accept, ("content-type", "application/protobuf; q=1")],
                400,
                "Unsupported `Content-Type`",
            ),
            ("POST", &[content_type], 400, "Missing header `Accept`"),
            (
                "POST",
                &[content_type, ("accept", "*/*")],
                400,
                "Unsupported `Accept`",
            ),
        ] {
            let refused = asked(http_method, path, headers).unwrap_err();
            assert_eq!(refused, (code, text.to_owned()));
        }
        let response = asked_response("GET", path);
        assert_eq!(response.headers()[header::ALLOW], "POST");
    }

    fn asked_response(http_method: &str, path: &str) -> Response<RestBody> {
        let request = Request::builder().method(http_method).uri(path);
        let refused = method(&request.body(()).unwrap()).unwrap_err();
        refused.into_response()
    }

    #[tokio::test]
    async fn an_answer_has_a_length_and_its_bytes() {
        let answer = Answer::Message {
            head: Bytes::from_static(b"ab"),
            tail: Some(Bytes::from_static(b"cde").into()),
        };
        let response = answered(answer);
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROTOBUF);
        let body = response.into_body();
        assert_eq!(body.size_hint().exact(), Some(5));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abcde");
        let empty = Answer::Message {
            head: Bytes::new(),
            tail: None,
        };
        let body = answered(empty).into_body();
        assert!(body.is_end_stream());
        assert!(body.collect().await.unwrap().to_bytes().is_empty());
    }
}
