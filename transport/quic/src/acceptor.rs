//! Accepting connections and having their calls answered.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::hmac;
use flwr_transport::{
    Bearer, Drain, Drained, Handler, Identity, Peer, Protocol, ServeError, Status,
};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, EndpointConfig, Incoming, ServerConfig, TokioRuntime};
use quinn_proto::HashedConnectionIdGenerator;
use rustls::pki_types::CertificateDer;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::answering::{Answering, anyone};
use crate::code::{CLOSED, DRAINED, MALFORMED, REFUSED, TOO_SLOW, UNPROVED};
use crate::connector::HEAD_BYTES_MAX;
use crate::head::{HELLO_BYTES_MAX, Hello, Notice};
use crate::stream::{self, Outgoing};
use crate::{ALPN, TRANSPORT, Tuning};

/// Who a client is that has shown this; or a sentence for the person there if it is wrong.
pub type Identify = Arc<dyn Fn(Shown<'_>) -> Result<Identity, String> + Send + Sync>;

/// Whether somebody may call, judged for every call.
pub type Admit = Arc<dyn Fn(&Identity) -> Result<(), Status> + Send + Sync>;

/// What a client shows of itself.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The certificate whose key it has proved to hold, in a handshake that TLS has accepted.
    pub certificate: Option<&'a CertificateDer<'a>>,
    /// The secret in its hello.
    pub credential: Option<&'a Bearer>,
}

/// How connections are accepted.
#[derive(Clone)]
pub struct Options {
    /// Who a client is.
    pub identify: Identify,
    /// Who may call.
    pub admit: Admit,
    /// How long a drain waits for calls under way before it cuts them.
    pub grace: Duration,
    /// How many connections there may be at once; further ones are refused.
    pub connections_max: usize,
    /// With this many handshakes under way, addresses have to prove themselves first (RFC 9000,
    /// section 8.1.2), which costs a round trip.
    pub handshakes_unproved_max: usize,
    /// A secret that is the same after a restart. With it, those who were connected before learn
    /// with their next packet that their connections are gone (RFC 9000, section 10.3), instead of
    /// waiting for an answer in vain.
    pub restart_secret: Option<[u8; 32]>,
    /// How connections are run.
    pub tuning: Tuning,
}

/// Serves one address.
pub struct Acceptor<P: Protocol> {
    endpoint: Endpoint,
    addr: SocketAddr,
    options: Options,
    _protocol: PhantomData<fn() -> P>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            identify: Arc::new(|_| Ok(Identity::Anonymous)),
            admit: Arc::new(anyone),
            grace: Duration::from_secs(30),
            connections_max: 16 << 10,
            handshakes_unproved_max: 128,
            restart_secret: None,
            tuning: Tuning::accepting(),
        }
    }
}

impl<P: Protocol> Acceptor<P> {
    /// Listens on `socket`. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the socket cannot be used, or `tls` does not allow for TLS 1.3 with AES-128-GCM, which
    /// QUIC begins with.
    pub fn new(
        socket: UdpSocket,
        tls: &rustls::ServerConfig,
        options: Options,
    ) -> io::Result<Self> {
        let mut tls = tls.clone();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.max_early_data_size = 0;
        let tls = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
        let mut config = ServerConfig::with_crypto(Arc::new(tls));
        config.transport_config(Arc::new(options.tuning.transport()));
        let addr = socket.local_addr()?;
        let endpoint = Endpoint::new(
            endpoint_config(options.restart_secret.as_ref()),
            Some(config),
            socket,
            Arc::new(TokioRuntime),
        )?;
        Ok(Self {
            endpoint,
            addr,
            options,
            _protocol: PhantomData,
        })
    }
}

impl<P: Protocol> flwr_transport::Acceptor<P> for Acceptor<P> {
    fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves. Dropping the future cuts every call under way.
    async fn serve<H: Handler<P>>(
        self,
        handler: Arc<H>,
        drain: Drain,
    ) -> Result<Drained, ServeError> {
        // Those who are connected learn at once that nobody is here any more.
        let closing = CloseOnDrop(self.endpoint.clone());
        let serving = Arc::new(Serving {
            handler,
            drain: drain.clone(),
            under_way: Arc::default(),
            handshakes: Arc::default(),
            options: self.options.clone(),
        });
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = drain.requested() => break,
                Some(_) = connections.join_next() => {}
                incoming = self.endpoint.accept() => {
                    // The endpoint is ours, and nobody closes it.
                    let Some(incoming) = incoming else { break };
                    if let Some(incoming) = serving.screen(incoming, connections.len()) {
                        connections.spawn(Arc::clone(&serving).connection(incoming));
                    }
                }
            }
        }
        let cut = self.finish(&serving, &mut connections).await;
        connections.shutdown().await;
        drop(closing);
        // What the last connections are told is sent again until they know, or for this long.
        let _ = timeout(FAREWELL, self.endpoint.wait_idle()).await;
        Ok(Drained { cut })
    }
}

impl<P: Protocol> Acceptor<P> {
    /// Refuses who comes and waits for what is there; returns how many calls have to be cut.
    async fn finish<H>(&self, serving: &Serving<H>, connections: &mut JoinSet<()>) -> usize {
        let grace = tokio::time::sleep(self.options.grace);
        tokio::pin!(grace);
        while !connections.is_empty() {
            tokio::select! {
                biased;
                Some(_) = connections.join_next() => {}
                () = &mut grace => break,
                Some(late) = self.endpoint.accept() => late.refuse(),
            }
        }
        serving.under_way.load(Ordering::Relaxed)
    }
}

/// A connection that has begun.
struct Greeted {
    connection: Connection,
    peer: Arc<Peer>,
    notices: Outgoing,
}

/// What all connections of one acceptor have in common.
struct Serving<H> {
    handler: Arc<H>,
    drain: Drain,
    /// Calls.
    under_way: Arc<AtomicUsize>,
    handshakes: Arc<AtomicUsize>,
    options: Options,
}

impl<H> Serving<H> {
    /// Turns away whom there is no room for, and makes others prove their address when many come.
    fn screen(&self, incoming: Incoming, connections: usize) -> Option<Incoming> {
        let address = incoming.remote_address();
        if connections >= self.options.connections_max {
            debug!(%address, "refused: there are too many connections");
            incoming.refuse();
            return None;
        }
        let is_busy =
            self.handshakes.load(Ordering::Relaxed) >= self.options.handshakes_unproved_max;
        if is_busy && !incoming.remote_address_validated() && incoming.may_retry() {
            // It may retry.
            let _ = incoming.retry();
            return None;
        }
        Some(incoming)
    }

    /// Sees a connection through.
    async fn connection<P: Protocol>(self: Arc<Self>, incoming: Incoming)
    where
        H: Handler<P>,
    {
        let address = incoming.remote_address();
        let counted = Counted::new(&self.handshakes);
        let greeted = timeout(GREETING_TIME_MAX, self.greet::<P>(incoming)).await;
        drop(counted);
        match greeted {
            Ok(Ok(greeted)) => self.calls::<P>(greeted).await,
            Ok(Err(why)) => debug!(%address, "no connection: {why}"),
            Err(_elapsed) => debug!(%address, "no connection: it took too long to begin"),
        }
    }

    /// The handshake, and the hellos on the first stream.
    async fn greet<P: Protocol>(&self, incoming: Incoming) -> Result<Greeted, String> {
        let connection = incoming.await.map_err(|error| error.to_string())?;
        let slow = CloseWith(&connection, TOO_SLOW);
        let (outgoing, incoming) = connection
            .accept_bi()
            .await
            .map_err(|error| error.to_string())?;
        let mut outgoing = Outgoing::new(outgoing);
        let mut incoming = stream::Incoming::new(incoming, HELLO_BYTES_MAX);
        let hello = match incoming.next::<Hello<'static>>().await {
            Ok(Some(hello)) => hello,
            Ok(None) => return Err("there was no hello".into()),
            Err(error) => {
                connection.close(MALFORMED, b"the first stream begins with a hello");
                return Err(error.to_string());
            }
        };
        if let Err(why) = hello.agree::<P>() {
            connection.close(REFUSED, why.as_bytes());
            return Err(why);
        }
        let identity = match self.identity(&connection, hello.credential.as_ref()) {
            Ok(identity) => identity,
            Err(why) => {
                connection.close(UNPROVED, why.as_bytes());
                return Err(why);
            }
        };
        let ours = Hello::of::<P>(HEAD_BYTES_MAX, None);
        let sent = outgoing.write_value(&ours, HELLO_BYTES_MAX).await;
        sent.map_err(|error| error.to_string())?;
        slow.keep_open();
        let peer = Peer {
            identity,
            addr: connection.remote_address(),
            transport: TRANSPORT,
        };
        Ok(Greeted {
            connection,
            peer: Arc::new(peer),
            notices: outgoing,
        })
    }

    /// Answers the calls of a connection until it ends, or the drain has nothing to wait for.
    async fn calls<P: Protocol>(&self, greeted: Greeted)
    where
        H: Handler<P>,
    {
        let Greeted {
            connection,
            peer,
            mut notices,
        } = greeted;
        let gone = CancellationToken::new();
        let _gone = gone.clone().drop_guard();
        let answering = Arc::new(Answering {
            handler: Arc::clone(&self.handler),
            peer,
            admit: Arc::clone(&self.options.admit),
            gone,
            drain: self.drain.clone(),
            head_bytes_max: HEAD_BYTES_MAX,
        });
        let mut calls = JoinSet::new();
        let mut is_draining = false;
        while !is_draining || !calls.is_empty() {
            tokio::select! {
                biased;
                () = self.drain.requested(), if !is_draining => {
                    is_draining = true;
                    // Whoever does not hear it is refused.
                    let _ = notices.write_value(&Notice::Draining, HELLO_BYTES_MAX).await;
                }
                Some(_) = calls.join_next() => {}
                accepted = connection.accept_bi() => {
                    let Ok((outgoing, incoming)) = accepted else { return };
                    let answering = Arc::clone(&answering);
                    if is_draining {
                        calls.spawn(answering.refuse::<P>(outgoing));
                        continue;
                    }
                    let counted = Counted::new(&self.under_way);
                    let guard = self.drain.guard();
                    calls.spawn(async move {
                        answering.answer::<P>(outgoing, incoming).await;
                        drop((counted, guard));
                    });
                }
            }
        }
        connection.close(DRAINED, b"the server is shutting down");
    }

    fn identity(
        &self,
        connection: &Connection,
        credential: Option<&Bearer>,
    ) -> Result<Identity, String> {
        let shown = connection.peer_identity();
        let chain = shown.and_then(|shown| shown.downcast::<Vec<CertificateDer<'static>>>().ok());
        (self.options.identify)(Shown {
            certificate: chain.as_deref().and_then(|chain| chain.first()),
            credential,
        })
    }
}

fn endpoint_config(restart_secret: Option<&[u8; 32]>) -> EndpointConfig {
    let Some(secret) = restart_secret else {
        return EndpointConfig::default();
    };
    let resets = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let ids = hmac::sign(&resets, b"connection ids");
    let ids = ids.as_ref().first_chunk();
    let ids = u64::from_le_bytes(*ids.expect("HMAC-SHA256 has 32 bytes"));
    let mut config = EndpointConfig::new(Arc::new(resets));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}

/// One of as many as the counter says.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counter))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct CloseOnDrop(Endpoint);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close(CLOSED, b"the server is gone");
    }
}

/// Closes a connection that does not come about.
struct CloseWith<'a>(&'a Connection, quinn::VarInt);

impl CloseWith<'_> {
    fn keep_open(self) {
        std::mem::forget(self);
    }
}

impl Drop for CloseWith<'_> {
    fn drop(&mut self) {
        // One that is closed already keeps its reason.
        self.0
            .close(self.1, b"the connection took too long to begin");
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("grace", &self.grace)
            .field("connections_max", &self.connections_max)
            .field("tuning", &self.tuning)
            .finish_non_exhaustive()
    }
}

impl<P: Protocol> fmt::Debug for Acceptor<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor")
            .field("addr", &self.addr)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// How long a connection may take from its first packet to its hello.
const GREETING_TIME_MAX: Duration = Duration::from_secs(10);
/// How long the end of serving is repeated to connections that do not answer.
const FAREWELL: Duration = Duration::from_millis(300);
