//! Application error codes of streams and connections (RFC 9000, section 20.2).

use flwr_transport::{Code, Status};
use quinn::{ConnectionError, VarInt};

/// A stream whose writer fails, or is cut: what came so far is not the whole.
pub(crate) const BROKEN: VarInt = VarInt::from_u32(1);
/// A connection that was closed on purpose.
pub(crate) const CLOSED: VarInt = VarInt::from_u32(2);
/// A connection whose acceptor shuts down, with nothing under way.
pub(crate) const DRAINED: VarInt = VarInt::from_u32(3);
/// A connection whose hello asks for something that is not here. The reason phrase says what.
pub(crate) const REFUSED: VarInt = VarInt::from_u32(4);
/// A connection whose hello proves nothing that lets it in. The reason phrase says what is wrong.
pub(crate) const UNPROVED: VarInt = VarInt::from_u32(7);
/// Bytes that are no frames of this protocol.
pub(crate) const MALFORMED: VarInt = VarInt::from_u32(5);
/// Nothing came for too long where something was due.
pub(crate) const TOO_SLOW: VarInt = VarInt::from_u32(6);

/// The TLS alert that ended the connection, sent by either end (RFC 9001, section 4.8), and what is said of it.
pub(crate) fn alert(error: &ConnectionError) -> Option<(u8, String)> {
    let (code, why) = match error {
        ConnectionError::TransportError(failure) => (failure.code, failure.reason.clone()),
        ConnectionError::ConnectionClosed(close) => (close.error_code, close.to_string()),
        _ => return None,
    };
    let alert = u64::from(code).checked_sub(0x100)?.try_into().ok()?;
    Some((alert, why))
}

/// What the peer refused the connection with, if that is how it ended.
pub(crate) fn refusal(error: &ConnectionError) -> Option<Status> {
    let ConnectionError::ApplicationClosed(close) = error else {
        return None;
    };
    let code = match close.error_code {
        REFUSED => Code::FailedPrecondition,
        UNPROVED => Code::Unauthenticated,
        _ => return None,
    };
    let why = String::from_utf8_lossy(&close.reason).into_owned();
    Some(Status::new(code, why))
}
