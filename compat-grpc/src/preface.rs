//! The first bytes of a connection: which HTTP the peer speaks, if it speaks any.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// What every HTTP/2 client sends first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client of HTTP/1 is told.
const HTTP1_ANSWER: &[u8] = b"HTTP/1.1 426 Upgrade Required\r\n\
Content-Type: text/plain\r\nContent-Length: 46\r\nConnection: close\r\n\r\n\
this port speaks gRPC, which needs HTTP/2 only";

/// Why a connection is not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotHttp2 {
    #[error("the peer sent nothing")]
    Closed,
    #[error("the peer sent nothing for {0:?}")]
    Silent(Duration),
    #[error("the peer speaks HTTP/1 and gRPC needs HTTP/2")]
    Http1,
    #[error("the peer opened TLS, but this port is served without")]
    Tls,
    #[error("the peer does not speak HTTP/2")]
    Garbage,
    #[error("the connection broke")]
    Io(#[from] io::Error),
}

/// Which HTTP a peer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

/// Refuses everything but HTTP/2, HTTP/1 with an explanation.
pub(crate) async fn expect_http2<I>(io: I, patience: Duration) -> Result<Rewound<I>, NotHttp2>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let (version, mut io) = expect_http(io, patience).await?;
    if version == Version::Http2 {
        return Ok(io);
    }
    let farewell = async {
        io.write_all(HTTP1_ANSWER).await?;
        io.shutdown().await
    };
    // The peer gets an explanation if it can be had; the outcome is the same.
    let _ = tokio::time::timeout(patience, farewell).await;
    Err(NotHttp2::Http1)
}

/// Reads the first bytes, and returns the connection with them still to be read.
pub(crate) async fn expect_http<I>(
    mut io: I,
    patience: Duration,
) -> Result<(Version, Rewound<I>), NotHttp2>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let mut read = BytesMut::with_capacity(PREFACE.len());
    let looked = tokio::time::timeout(patience, async {
        while read.len() < PREFACE.len() {
            let mut rest = (&mut io).take((PREFACE.len() - read.len()) as u64);
            if rest.read_buf(&mut read).await? == 0 {
                return Err(if read.is_empty() {
                    NotHttp2::Closed
                } else {
                    NotHttp2::Garbage
                });
            }
            if !PREFACE.starts_with(&read) {
                return Err(judge(&read));
            }
        }
        Ok(Version::Http2)
    });
    let version = match looked.await {
        Ok(Ok(version)) => version,
        Ok(Err(NotHttp2::Http1)) => Version::Http1,
        Ok(Err(error)) => return Err(error),
        Err(_) => return Err(NotHttp2::Silent(patience)),
    };
    let first = read.freeze();
    Ok((version, Rewound { first, io }))
}

fn judge(read: &[u8]) -> NotHttp2 {
    const METHODS: [&[u8]; 8] = [
        b"GET ", b"POST", b"PUT ", b"HEAD", b"DELE", b"OPTI", b"CONN", b"PATC",
    ];
    const TLS_HANDSHAKE: &[u8] = &[0x16, 0x03];
    let begins = |method: &&[u8]| read.starts_with(method) || method.starts_with(read);
    if METHODS.iter().any(begins) {
        NotHttp2::Http1
    } else if read.starts_with(TLS_HANDSHAKE) {
        NotHttp2::Tls
    } else {
        NotHttp2::Garbage
    }
}

/// A connection whose first bytes were read and are read again.
#[derive(Debug)]
pub(crate) struct Rewound<I> {
    first: Bytes,
    io: I,
}

impl<I: AsyncRead + Unpin> AsyncRead for Rewound<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let count = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..count]);
        self.first.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Rewound<I> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    async fn first_bytes(bytes: &'static [u8]) -> (Result<Vec<u8>, NotHttp2>, Vec<u8>) {
        let (mut client, server) = tokio::io::duplex(256);
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let served = match expect_http2(server, PATIENCE).await {
            Ok(mut io) => {
                let mut all = Vec::new();
                io.read_to_end(&mut all).await.unwrap();
                Ok(all)
            }
            Err(error) => Err(error),
        };
        let mut told = Vec::new();
        client.read_to_end(&mut told).await.unwrap();
        (served, told)
    }

    #[tokio::test]
    async fn http2_is_passed_on_whole() {
        let (served, _) = first_bytes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nframes").await;
        assert_eq!(served.unwrap(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nframes");
    }

    #[tokio::test]
    async fn everything_else_is_named() {
        let (served, told) = first_bytes(b"GET / HTTP/1.1\r\n\r\n").await;
        assert!(matches!(served, Err(NotHttp2::Http1)));
        assert!(told.starts_with(b"HTTP/1.1 426 "));
        let body = told.splitn(2, |b| *b == b'\n').count();
        assert_eq!(body, 2);
        let length = "this port speaks gRPC, which needs HTTP/2 only".len();
        assert!(
            String::from_utf8(told)
                .unwrap()
                .contains(&format!("Content-Length: {length}\r\n"))
        );
        assert!(matches!(
            first_bytes(b"\x16\x03\x01\x02").await.0,
            Err(NotHttp2::Tls)
        ));
        assert!(matches!(
            first_bytes(b"\0\x01\x02").await.0,
            Err(NotHttp2::Garbage)
        ));
        assert!(matches!(
            first_bytes(b"PRI * ").await.0,
            Err(NotHttp2::Garbage)
        ));
        assert!(matches!(first_bytes(b"").await.0, Err(NotHttp2::Closed)));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_not_waited_for() {
        let (_client, server) = tokio::io::duplex(256);
        assert!(matches!(
            expect_http2(server, PATIENCE).await,
            Err(NotHttp2::Silent(_))
        ));
    }
}
