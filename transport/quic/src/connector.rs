//! Opening connections.

use std::fmt;
use std::marker::PhantomData;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flwr_transport::{Bearer, ConnectError, Current, Identity, Peer, Protocol};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, ConnectionError, Endpoint, EndpointConfig};
use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::caller::Caller;
use crate::head::Hello;
use crate::{ALPN, Prove, TRANSPORT, Tuning, code, sessions, udp};

/// Where a connector connects to.
#[derive(Clone, Debug)]
pub struct Target {
    /// A name or an address, without brackets. The certificate has to be for it.
    pub host: String,
    /// The UDP port.
    pub port: u16,
}

/// Opens connections to one address, each from a socket of its own. One that takes up the session of an earlier one is
/// there before the other end has answered: whether anybody is, its first call tells.
pub struct Connector<P: Protocol> {
    target: Target,
    tls: Current<rustls::ClientConfig>,
    made: Mutex<Made>,
    pub(crate) hello: Hello<'static>,
    tuning: Tuning,
    explain: Explain,
    pub(crate) prove: Option<Prove>,
    _protocol: PhantomData<fn() -> P>,
}

/// What was made of one TLS; sessions begin anew with another.
struct Made {
    of: Arc<rustls::ClientConfig>,
    config: ClientConfig,
}

/// Says what a failed handshake means, from the alert of TLS (RFC 8446, section 6) and what was wrong.
pub(crate) type Explain = Arc<dyn Fn(u8, &str) -> ConnectError + Send + Sync>;

impl<P: Protocol> Connector<P> {
    /// A connector that trusts whom `tls` trusts, and shows what `tls` has to show, each time as it is then.
    ///
    /// # Errors
    /// When `tls` does not allow for TLS 1.3 with AES-128-GCM, which QUIC begins with.
    pub fn new(
        target: Target,
        tls: impl Into<Current<rustls::ClientConfig>>,
        tuning: &Tuning,
    ) -> Result<Self, ConnectError> {
        let tls = tls.into();
        Ok(Self {
            target,
            made: Mutex::new(Made::new(tls.load())?),
            tls,
            hello: Hello::of::<P>(tuning.head_bytes_max, None),
            tuning: tuning.clone(),
            explain: Arc::new(|_, why| refused(format!("the TLS handshake failed: {why}"))),
            prove: None,
            _protocol: PhantomData,
        })
    }

    /// The same connector with a secret that proves who it is.
    #[must_use]
    pub fn presenting(mut self, credential: Option<Bearer>) -> Self {
        self.hello.credential = credential;
        self
    }

    /// The same connector with better words for handshakes that fail.
    #[must_use]
    pub fn explaining(
        mut self,
        explain: impl Fn(u8, &str) -> ConnectError + Send + Sync + 'static,
    ) -> Self {
        self.explain = Arc::new(explain);
        self
    }

    fn config(&self) -> Result<ClientConfig, ConnectError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.tls.load();
        if !Arc::ptr_eq(&now, &made.of) {
            *made = Made::new(now)?;
        }
        Ok(made.config.clone())
    }

    async fn try_address(&self, address: SocketAddr) -> Result<Caller<P>, ConnectError> {
        let (endpoint, socket) = client_endpoint(address).map_err(|error| {
            unreachable(format!("no UDP socket to reach {address} with: {error}"))
        })?;
        let (mut config, mtu) = (self.config()?, udp::mtu(address));
        let traced = self.tuning.traced(address, mtu);
        config.transport_config(traced.unwrap_or_else(|| Arc::new(self.tuning.transport(mtu))));
        let connecting = endpoint
            .connect_with(config, address, &self.target.host)
            .map_err(|error| refused(error.to_string()))?;
        let begun = match self.is_proving() {
            true => Err(connecting),
            false => connecting.into_0rtt(),
        };
        let (connection, handshake) = match begun {
            Ok((connection, handshake)) => (connection, Some(handshake)),
            Err(connecting) => match timeout(CONNECT_TIME_MAX, connecting).await {
                Ok(Ok(connection)) => (connection, None),
                Ok(Err(error)) => return Err(self.failed(address, &error)),
                Err(_elapsed) => {
                    let seconds = CONNECT_TIME_MAX.as_secs();
                    let why = format!("{address} does not answer over UDP within {seconds} s");
                    return Err(unreachable(why));
                }
            },
        };
        socket.log(address, self.tuning.congestion, mtu);
        let peer = Peer {
            identity: Identity::Anonymous,
            addr: address,
            transport: TRANSPORT,
        };
        let hello = self.hello_on(&connection).map_err(refused)?;
        let caller = Caller::new(
            endpoint,
            connection,
            handshake,
            peer,
            &hello,
            &self.tuning,
            Arc::clone(&self.explain),
        )
        .await;
        caller.map_err(|error| self.failed(address, &error))
    }

    pub(crate) fn failed(&self, address: SocketAddr, error: &ConnectionError) -> ConnectError {
        if let Some(why) = code::refusal(error) {
            return refused(format!("{address} refuses: {why}"));
        }
        match code::alert(error) {
            Some((alert, why)) => (self.explain)(alert, &why),
            None => unreachable(format!("no connection to {address}: {error}")),
        }
    }
}

impl Made {
    fn new(of: Arc<rustls::ClientConfig>) -> Result<Self, ConnectError> {
        let mut tls = rustls::ClientConfig::clone(&of);
        tls.alpn_protocols = vec![ALPN.to_vec()];
        sessions::used_by(&mut tls);
        let tls = QuicClientConfig::try_from(tls).map_err(|error| refused(error.to_string()))?;
        let config = ClientConfig::new(Arc::new(tls));
        Ok(Self { of, config })
    }
}

impl<P: Protocol> flwr_transport::Connector<P> for Connector<P> {
    type Caller = Caller<P>;

    async fn connect(&self) -> Result<Caller<P>, ConnectError> {
        let Target { host, port } = &self.target;
        let found = lookup_host((host.as_str(), *port)).await;
        let addresses: Vec<_> = found
            .map_err(|error| unreachable(format!("{host} is not found: {error}")))?
            .collect();
        let mut last = unreachable(format!("{host} has no address"));
        for address in addresses {
            match self.try_address(address).await {
                Ok(caller) => return Ok(caller),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl<P: Protocol> fmt::Debug for Connector<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

fn client_endpoint(address: SocketAddr) -> std::io::Result<(Endpoint, udp::Facts)> {
    let local = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = udp::bind(local)?;
    udp::endpoint(EndpointConfig::default(), None, socket)
}

fn unreachable(message: String) -> ConnectError {
    ConnectError {
        retryable: true,
        message,
    }
}

fn refused(message: String) -> ConnectError {
    ConnectError {
        retryable: false,
        message,
    }
}

/// How long an address is tried.
pub(crate) const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
