//! The yardstick: TLS over one TCP connection, and as little as possible on top.
//!
//! A request is a byte that says what is wanted and a length of 8 bytes, then for a push as many bytes. A push and a
//! heartbeat are answered with one byte, a pull with as many bytes as were asked for. Answers come in the order of
//! requests, and nobody waits for one before the next request.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::handler::Moved;
use crate::mover::Done;
use crate::source::Source;

/// The end that asks.
#[derive(Debug)]
pub(crate) struct Plain {
    stream: Mutex<TlsStream<TcpStream>>,
    source: Source,
}

impl Plain {
    pub(crate) async fn connect(
        server: SocketAddr,
        congestion: Option<&str>,
        tls: &rustls::ClientConfig,
        source: Source,
    ) -> io::Result<Self> {
        let mut tls = tls.clone();
        tls.alpn_protocols.clear();
        let tcp = TcpStream::connect(server).await?;
        tcp.set_nodelay(true)?;
        if let Some(name) = congestion {
            SockRef::from(&tcp).set_tcp_congestion(name.as_bytes())?;
        }
        let name = ServerName::IpAddress(server.ip().into());
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await?;
        Ok(Self {
            stream: Mutex::new(stream),
            source,
        })
    }

    /// The congestion control of what this end sends.
    pub(crate) async fn congestion(&self) -> io::Result<String> {
        let stream = self.stream.lock().await;
        let name = SockRef::from(stream.get_ref().0).tcp_congestion()?;
        let name = String::from_utf8_lossy(&name);
        Ok(name.trim_end_matches('\0').to_owned())
    }

    pub(crate) async fn heartbeat(&self) -> io::Result<()> {
        let mut stream = self.stream.lock().await;
        write_head(&mut *stream, HEARTBEAT, 0).await?;
        stream.flush().await?;
        stream.read_u8().await.map(drop)
    }

    /// Adds to `done` what has been acknowledged.
    pub(crate) async fn push(&self, objects: u64, len: u64, done: &Done) -> io::Result<()> {
        let mut stream = self.stream.lock().await;
        let (mut reading, mut writing) = tokio::io::split(&mut *stream);
        let pushing = async {
            for _ in 0..objects {
                write_head(&mut writing, PUSH, len).await?;
                write_body(&mut writing, self.source.pieces(len)).await?;
            }
            writing.flush().await
        };
        let confirming = async {
            for _ in 0..objects {
                reading.read_u8().await?;
                done.add(len);
            }
            Ok(())
        };
        tokio::try_join!(pushing, confirming).map(drop)
    }

    /// Adds to `done` what arrives.
    pub(crate) async fn pull(&self, objects: u64, len: u64, done: &Done) -> io::Result<()> {
        let mut stream = self.stream.lock().await;
        for _ in 0..objects {
            write_head(&mut *stream, PULL, len).await?;
        }
        stream.flush().await?;
        let count = |bytes| {
            done.add(bytes);
        };
        skip(&mut *stream, objects * len, count).await
    }
}

/// Serves one connection after the other, all at once; never returns without an error.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: &rustls::ServerConfig,
    source: Source,
    moved: Arc<Moved>,
) -> io::Result<()> {
    let mut tls = tls.clone();
    tls.alpn_protocols.clear();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    loop {
        let (tcp, _) = listener.accept().await?;
        let (acceptor, source, moved) = (acceptor.clone(), source.clone(), Arc::clone(&moved));
        // Who leaves, or says nonsense, notices by itself.
        tokio::spawn(async move {
            tcp.set_nodelay(true)?;
            answer(acceptor.accept(tcp).await?, &source, &moved).await
        });
    }
}

async fn answer<S>(mut stream: S, source: &Source, moved: &Moved) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let (wanted, len) = (stream.read_u8().await?, stream.read_u64().await?);
        match wanted {
            HEARTBEAT => stream.write_u8(1).await?,
            PUSH => {
                skip(&mut stream, len, |bytes| moved.receive(bytes)).await?;
                stream.write_u8(1).await?;
            }
            PULL => {
                let counted = source.pieces(len).inspect(|piece| {
                    moved.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                });
                write_body(&mut stream, counted).await?;
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
        stream.flush().await?;
    }
}

async fn write_head<S: AsyncWrite + Unpin>(stream: &mut S, what: u8, len: u64) -> io::Result<()> {
    let mut head = [what; 9];
    head[1..].copy_from_slice(&len.to_be_bytes());
    stream.write_all(&head).await
}

async fn write_body<S: AsyncWrite + Unpin>(
    stream: &mut S,
    pieces: impl Iterator<Item = bytes::Bytes>,
) -> io::Result<()> {
    for piece in pieces {
        stream.write_all(&piece).await?;
    }
    Ok(())
}

/// Reads so many bytes and has them counted.
async fn skip<S: AsyncRead + Unpin>(
    stream: &mut S,
    mut left: u64,
    count: impl Fn(u64),
) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    while left > 0 {
        let wanted = READ_BYTES.min(usize::try_from(left).unwrap_or(READ_BYTES));
        let read = stream.read(&mut buffer[..wanted]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= read as u64;
        count(read as u64);
    }
    Ok(())
}

const HEARTBEAT: u8 = 0;
const PUSH: u8 = 1;
const PULL: u8 = 2;
const READ_BYTES: usize = 256 << 10;
