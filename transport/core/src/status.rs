//! How a call fails: a closed set of codes, a protocol's own reason, and a text for people.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a call failed, cut by what the caller can do about it.
///
/// Codes follow gRPC's meaning. Variants are append-only: their order is the wire encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Code {
    /// The caller gave up.
    Cancelled,
    /// The request is malformed, whatever the state of the server.
    InvalidArgument,
    /// The deadline passed before an answer was ready.
    DeadlineExceeded,
    /// The thing named does not exist.
    NotFound,
    /// The caller is known and may not do this now.
    PermissionDenied,
    /// A quota or a bound of the server is reached.
    ResourceExhausted,
    /// The state of the system forbids the call; repeating it does not help.
    FailedPrecondition,
    /// The call is not served here.
    Unimplemented,
    /// A broken invariant of the server.
    Internal,
    /// The server cannot answer for the moment; the call can be repeated.
    Unavailable,
    /// The server is shutting down; the call can be repeated elsewhere or later.
    Draining,
    /// The caller did not prove who it is.
    Unauthenticated,
}

impl Code {
    /// Every code, in wire order.
    pub const ALL: [Self; 12] = [
        Self::Cancelled,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::Draining,
        Self::Unauthenticated,
    ];

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::InvalidArgument => "invalid_argument",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::NotFound => "not_found",
            Self::PermissionDenied => "permission_denied",
            Self::ResourceExhausted => "resource_exhausted",
            Self::FailedPrecondition => "failed_precondition",
            Self::Unimplemented => "unimplemented",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
            Self::Draining => "draining",
            Self::Unauthenticated => "unauthenticated",
        }
    }

    /// Whether repeating the same call later can succeed.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::Draining)
    }
}

/// A failed call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Status {
    /// What kind of failure.
    pub code: Code,
    /// The protocol's own number for the cause, 0 if it has none. Edges that must reproduce
    /// another implementation's texts choose them by this number.
    pub reason: u16,
    /// A lowercase sentence for people.
    pub message: Cow<'static, str>,
}

impl Status {
    /// A failure without a protocol reason.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            reason: 0,
            message: message.into(),
        }
    }

    /// The same failure with the protocol's `reason`.
    #[must_use]
    pub fn with_reason(mut self, reason: u16) -> Self {
        self.reason = reason;
        self
    }

    /// A call that this server does not serve.
    #[must_use]
    pub fn unimplemented(method: &str) -> Self {
        Self::new(Code::Unimplemented, format!("unknown method {method}"))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.message, self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_codes_stand_in_wire_order() {
        // The order other builds were compiled with: append, never insert.
        let names = [
            "Cancelled",
            "InvalidArgument",
            "DeadlineExceeded",
            "NotFound",
            "PermissionDenied",
            "ResourceExhausted",
            "FailedPrecondition",
            "Unimplemented",
            "Internal",
            "Unavailable",
            "Draining",
            "Unauthenticated",
        ];
        assert_eq!(Code::ALL.map(|code| format!("{code:?}")), names);
        for (index, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, index);
        }
    }

    #[test]
    fn only_a_server_that_cannot_answer_now_is_worth_another_try() {
        let retryable: Vec<_> = Code::ALL.into_iter().filter(|c| c.is_retryable()).collect();
        assert_eq!(retryable, [Code::Unavailable, Code::Draining]);
    }

    #[test]
    fn a_status_tells_people_what_and_why() {
        let status = Status::new(Code::NotFound, "no such run").with_reason(3);
        assert_eq!(status.to_string(), "no such run (NotFound)");
        assert_eq!(status.reason, 3);
        let unknown = Status::unimplemented("Fly");
        assert_eq!(unknown.code, Code::Unimplemented);
        assert_eq!(unknown.message, "unknown method Fly");
    }
}
