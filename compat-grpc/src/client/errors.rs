//! What failures of gRPC, HTTP and connections mean.

use std::error::Error;

use flwr_transport::{Code, Status};
use http::{HeaderMap, HeaderName, StatusCode};

/// Beside the words of a refusal, its reason's number: told by servers of ours.
pub(crate) const REASON_HEADER: &str = "flwr-quic-reason";

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// The server said so.
    Refused(Box<tonic::Status>),
    /// It did not come to that.
    Broken(Status),
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Self::Broken(status)
    }
}

impl From<tonic::Status> for Failed {
    fn from(status: tonic::Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

/// Our code for a gRPC code.
pub(crate) fn from_grpc(code: tonic::Code) -> Code {
    match code {
        tonic::Code::Cancelled => Code::Cancelled,
        tonic::Code::DeadlineExceeded => Code::DeadlineExceeded,
        tonic::Code::Unavailable | tonic::Code::Aborted => Code::Unavailable,
        tonic::Code::FailedPrecondition | tonic::Code::AlreadyExists => Code::FailedPrecondition,
        tonic::Code::InvalidArgument | tonic::Code::OutOfRange => Code::InvalidArgument,
        tonic::Code::NotFound => Code::NotFound,
        tonic::Code::PermissionDenied => Code::PermissionDenied,
        tonic::Code::ResourceExhausted => Code::ResourceExhausted,
        tonic::Code::Unauthenticated => Code::Unauthenticated,
        tonic::Code::Unimplemented => Code::Unimplemented,
        tonic::Code::Ok | tonic::Code::Unknown | tonic::Code::Internal | tonic::Code::DataLoss => {
            Code::Internal
        }
    }
}

/// The status in the headers or trailers of a response.
pub(super) fn status_in(headers: &HeaderMap) -> Option<tonic::Status> {
    // Only these: tonic panics on details that are not base64.
    let mut wanted = HeaderMap::with_capacity(3);
    for name in ["grpc-status", "grpc-message", REASON_HEADER] {
        if let Some(value) = headers.get(name) {
            wanted.insert(HeaderName::from_static(name), value.clone());
        }
    }
    tonic::Status::from_header_map(&wanted)
}

/// What a response without a gRPC status means (gRPC, "HTTP to gRPC Status Code Mapping").
pub(super) fn status_of_http(code: StatusCode) -> tonic::Status {
    let grpc = match code {
        StatusCode::BAD_REQUEST => tonic::Code::Internal,
        StatusCode::UNAUTHORIZED => tonic::Code::Unauthenticated,
        StatusCode::FORBIDDEN => tonic::Code::PermissionDenied,
        StatusCode::NOT_FOUND => tonic::Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => tonic::Code::Unavailable,
        _ => tonic::Code::Unknown,
    };
    tonic::Status::new(grpc, format!("the server answered with HTTP status {code}"))
}

/// The connection, or the stream of this call, broke.
pub(super) fn broken(error: &(dyn Error + 'static)) -> Status {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Status::new(Code::Unavailable, format!("the connection broke: {cause}"))
}

/// The server did something that gRPC does not allow.
pub(super) fn unusable(what: impl std::fmt::Display) -> Status {
    Status::new(Code::Internal, format!("the answer cannot be used: {what}"))
}

/// The answer stopped before its end.
pub(super) fn broke_off() -> Status {
    Status::new(Code::Unavailable, "the answer broke off")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::to_grpc;

    #[test]
    fn codes_come_back_as_they_went() {
        for code in Code::ALL {
            let expected = match code {
                Code::Draining => Code::Unavailable,
                other => other,
            };
            assert_eq!(from_grpc(to_grpc(code)), expected);
        }
    }

    #[test]
    fn a_status_is_read_from_headers_whatever_else_they_hold() {
        let mut headers = HeaderMap::new();
        assert!(status_in(&headers).is_none());
        headers.insert("grpc-status", "7".parse().unwrap());
        headers.insert("grpc-message", "Run is%20%F0%9F%8C%B8".parse().unwrap());
        headers.insert("grpc-status-details-bin", "!!!".parse().unwrap());
        let status = status_in(&headers).unwrap();
        assert_eq!(status.code(), tonic::Code::PermissionDenied);
        assert_eq!(status.message(), "Run is \u{1f338}");
        headers.insert("grpc-status", "seven".parse().unwrap());
        assert_eq!(status_in(&headers).unwrap().code(), tonic::Code::Unknown);
    }
}
