//! Accepting connections.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use flwr_transport::{Current, Drain, Drained, Handler, Protocol, ServeError};
use quinn::{Endpoint, EndpointConfig};
use quinn_proto::HashedConnectionIdGenerator;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::code::CLOSED;
use crate::connection::Serving;
use crate::options::Options;
use crate::served::Served;
use crate::tuning::MTU_JUMBO;
use crate::{udp, windows};

/// Serves one address.
pub struct Acceptor<P: Protocol> {
    endpoint: Endpoint,
    addr: SocketAddr,
    options: Options,
    served: Served,
    _protocol: PhantomData<fn() -> P>,
}

impl<P: Protocol> Acceptor<P> {
    /// Listens on `socket`. Connections that begin later take TLS as it is then. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the socket cannot be used, or `tls` does not allow for TLS 1.3 with AES-128-GCM, which
    /// QUIC begins with.
    pub fn new(
        socket: UdpSocket,
        tls: impl Into<Current<rustls::ServerConfig>>,
        options: Options,
    ) -> io::Result<Self> {
        let served = Served::new(tls.into(), windows::least(&options.tuning))?;
        let addr = socket.local_addr()?;
        let ids = endpoint_config(options.restart_secret.as_ref(), addr);
        let (endpoint, socket) = udp::endpoint(ids, Some(served.first()), socket)?;
        socket.log(addr, options.tuning.congestion, MTU_JUMBO);
        Ok(Self {
            endpoint,
            addr,
            options,
            served,
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
        let Self {
            endpoint,
            options,
            served,
            ..
        } = self;
        let grace = options.grace;
        let serving = Arc::new(Serving::new(handler, drain.clone(), options, served));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = drain.requested() => break,
                Some(_) = connections.join_next() => {}
                incoming = endpoint.accept() => {
                    // The endpoint is ours, and nobody closes it.
                    let Some(incoming) = incoming else { break };
                    if let Some(admitted) = serving.screen(incoming, connections.len()) {
                        connections.spawn(Arc::clone(&serving).connection(admitted));
                    }
                }
            }
        }
        let cut = finish(&endpoint, grace, &serving, &mut connections).await;
        connections.shutdown().await;
        drop(closing);
        // What the last connections are told is sent again until they know, or for this long.
        let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
        Ok(Drained { cut })
    }
}

/// Refuses who comes and waits for what is there; returns how many calls have to be cut.
async fn finish<H>(
    endpoint: &Endpoint,
    grace: Duration,
    serving: &Serving<H>,
    connections: &mut JoinSet<()>,
) -> usize {
    let grace = tokio::time::sleep(grace);
    tokio::pin!(grace);
    while !connections.is_empty() {
        tokio::select! {
            biased;
            Some(_) = connections.join_next() => {}
            () = &mut grace => break,
            Some(late) = endpoint.accept() => late.refuse(),
        }
    }
    serving.under_way()
}

/// Connection ids and reset tokens that are the same after a restart, and others at each address: one
/// that did not know a connection of another would give away how to end it (RFC 9000, section 21.11).
fn endpoint_config(restart_secret: Option<&[u8; 32]>, addr: SocketAddr) -> EndpointConfig {
    let Some(secret) = restart_secret else {
        return EndpointConfig::default();
    };
    let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let derive = |what: &str| hmac::sign(&secret, format!("{what} of {addr}").as_bytes());
    let resets = hmac::Key::new(hmac::HMAC_SHA256, derive("reset tokens").as_ref());
    let ids = derive("connection ids");
    let ids = ids.as_ref().first_chunk();
    let ids = u64::from_le_bytes(*ids.expect("HMAC-SHA256 has 32 bytes"));
    let mut config = EndpointConfig::new(Arc::new(resets));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}

struct CloseOnDrop(Endpoint);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close(CLOSED, b"the server is gone");
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

/// How long the end of serving is repeated to connections that do not answer.
const FAREWELL: Duration = Duration::from_millis(300);
