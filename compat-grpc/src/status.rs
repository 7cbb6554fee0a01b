//! Status codes and texts.

use flwr_transport::{Code, Status};

/// The gRPC code for a code of ours.
pub(crate) fn to_grpc(code: Code) -> tonic::Code {
    match code {
        Code::Cancelled => tonic::Code::Cancelled,
        Code::DeadlineExceeded => tonic::Code::DeadlineExceeded,
        Code::Draining | Code::Unavailable => tonic::Code::Unavailable,
        Code::FailedPrecondition => tonic::Code::FailedPrecondition,
        Code::Internal => tonic::Code::Internal,
        Code::InvalidArgument => tonic::Code::InvalidArgument,
        Code::NotFound => tonic::Code::NotFound,
        Code::PermissionDenied => tonic::Code::PermissionDenied,
        Code::ResourceExhausted => tonic::Code::ResourceExhausted,
        Code::Unauthenticated => tonic::Code::Unauthenticated,
        Code::Unimplemented => tonic::Code::Unimplemented,
    }
}

/// The code of ours for a gRPC code of ours.
pub(crate) fn from_grpc(code: tonic::Code) -> Code {
    let found = Code::ALL.into_iter().find(|ours| to_grpc(*ours) == code);
    found.unwrap_or(Code::Internal)
}

/// A status without words of a dialect.
pub(crate) fn plain(status: &Status) -> tonic::Status {
    tonic::Status::new(to_grpc(status.code), status.message.clone())
}

/// What the end of a stream says. A stock log reader reconnects after DEADLINE_EXCEEDED but gives
/// up after UNAVAILABLE, so that is what a shutdown looks like to it.
pub(crate) fn end_of_stream(status: &Status) -> tonic::Status {
    match status.code {
        Code::Draining => tonic::Status::deadline_exceeded(status.message.clone()),
        _ => plain(status),
    }
}
