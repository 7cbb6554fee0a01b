//! The first bytes a server sends: whether it speaks HTTP/2, and if not, what.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use flwr_certs::HandshakeError;
use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// What whoever spoke in the clear is told to do, as most of our commands have it.
pub const WITH_TLS: &str = "connect without --insecure";

/// A frame's header, in bytes (RFC 9113, section 4.1).
const HEADER_BYTES: usize = 9;

/// Why a server cannot be talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotHttp2 {
    #[error("the server speaks HTTP/1, and gRPC needs HTTP/2: check the port")]
    Http1,
    #[error("the server speaks TLS: {WITH_TLS}")]
    Tls,
    #[error("the server does not speak HTTP/2: check the port")]
    Garbage,
    /// A server judges a client's certificate when the handshake is complete for the client.
    #[error("{}", HandshakeError::refused(*.0))]
    Refused(AlertDescription),
}

/// A connection whose first bytes are looked at as they pass.
#[derive(Debug)]
pub(super) struct Greeted<I> {
    io: I,
    seen: Vec<u8>,
    /// Taken once it is clear what the server speaks.
    judged: Option<oneshot::Sender<Result<(), NotHttp2>>>,
}

impl<I> Greeted<I> {
    /// The receiver hears what the server speaks, or nothing if the connection ends before that is clear.
    pub(super) fn new(io: I) -> (Self, oneshot::Receiver<Result<(), NotHttp2>>) {
        let (judged, greeting) = oneshot::channel();
        let greeted = Self {
            io,
            seen: Vec::with_capacity(HEADER_BYTES),
            judged: Some(judged),
        };
        (greeted, greeting)
    }

    fn look(&mut self, read: &[u8]) -> io::Result<()> {
        if self.judged.is_none() {
            return Ok(());
        }
        let missing = HEADER_BYTES - self.seen.len();
        self.seen
            .extend_from_slice(&read[..read.len().min(missing)]);
        let Some(judgement) = judge(&self.seen) else {
            return Ok(());
        };
        if let Some(judged) = self.judged.take() {
            // Whoever connects may have given up.
            judged.send(judgement).ok();
        }
        judgement.map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))
    }
}

/// A server sends its settings first (RFC 9113, section 3.4).
fn judge(read: &[u8]) -> Option<Result<(), NotHttp2>> {
    const HTTP1: &[u8] = b"HTTP/1";
    const TLS_ALERT: &[u8] = &[0x15, 0x03];
    const TLS_HANDSHAKE: &[u8] = &[0x16, 0x03];
    const SETTINGS: u8 = 4;
    let begins = |what: &[u8]| what.starts_with(read) || read.starts_with(what);
    if read.starts_with(HTTP1) {
        return Some(Err(NotHttp2::Http1));
    }
    if read.starts_with(TLS_ALERT) || read.starts_with(TLS_HANDSHAKE) {
        return Some(Err(NotHttp2::Tls));
    }
    match read {
        [0, _, _, SETTINGS, _, 0, 0, 0, 0] => Some(Ok(())),
        [0, _, _, SETTINGS, ..] | [0] | [0, _] | [0, _, _] if read.len() < HEADER_BYTES => None,
        _ if [HTTP1, TLS_ALERT, TLS_HANDSHAKE].into_iter().any(begins) => None,
        _ => Some(Err(NotHttp2::Garbage)),
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Greeted<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = std::task::ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        if let Err(error) = &read
            && let Some(alert) = alert(error)
            && let Some(judged) = self.judged.take()
        {
            judged.send(Err(NotHttp2::Refused(alert))).ok();
        }
        read?;
        Poll::Ready(self.look(&buf.filled()[before..]))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Greeted<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// The TLS alert that ended a connection.
fn alert(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_speaks_shows_in_its_first_bytes() {
        let settings = b"\0\0\x06\x04\0\0\0\0\0\0\x03";
        let cases: [(&[u8], Result<(), NotHttp2>); 6] = [
            (&settings[..9], Ok(())),
            (b"HTTP/1.1 400 Bad Request", Err(NotHttp2::Http1)),
            (b"\x15\x03\x03\0\x02\x02\x46", Err(NotHttp2::Tls)),
            (b"SSH-2.0-OpenSSH", Err(NotHttp2::Garbage)),
            (b"\0\0\x06\x01\0\0\0\0\0", Err(NotHttp2::Garbage)),
            (b"\0\0\x06\x04\0\0\0\0\x01", Err(NotHttp2::Garbage)),
        ];
        for (bytes, expected) in cases {
            let judged = (1..=bytes.len().min(9)).find_map(|end| judge(&bytes[..end]));
            assert_eq!(judged, Some(expected), "{bytes:?}");
        }
        for undecided in [&b"\0"[..], b"\0\0\x06\x04\0", b"H", b"HTTP/", b"\x15"] {
            assert_eq!(judge(undecided), None, "{undecided:?}");
        }
    }
}
