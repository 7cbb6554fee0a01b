//! What connections are accepted with: TLS as it is when they begin, and a transport for the size of their packets.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use flwr_transport::Current;
use quinn::ServerConfig;
use quinn::crypto::rustls::QuicServerConfig;
use tracing::error;

use crate::tuning::{MTU_ETHERNET, MTU_JUMBO};
use crate::{ALPN, Tuning, sessions, udp};

/// Makes configurations, once for each TLS that there ever is.
pub(crate) struct Served {
    tls: Current<rustls::ServerConfig>,
    /// As connections begin.
    tuning: Tuning,
    made: Mutex<Made>,
}

/// What was made of one TLS.
struct Made {
    of: Arc<rustls::ServerConfig>,
    ethernet: Arc<ServerConfig>,
    /// For links with large frames.
    jumbo: Arc<ServerConfig>,
}

impl Served {
    /// # Errors
    /// When TLS does not allow for TLS 1.3 with AES-128-GCM.
    pub(crate) fn new(tls: Current<rustls::ServerConfig>, tuning: Tuning) -> io::Result<Self> {
        let of = tls.load();
        let config = ServerConfig::with_crypto(crypto(&of)?);
        Ok(Self {
            made: Mutex::new(Made::new(of, config, &tuning)),
            tls,
            tuning,
        })
    }

    /// What an endpoint begins with.
    pub(crate) fn first(&self) -> ServerConfig {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        ServerConfig::clone(&made.ethernet)
    }

    /// What a connection with `peer` that begins now is run with.
    pub(crate) fn config(&self, peer: SocketAddr) -> Arc<ServerConfig> {
        let mtu = udp::mtu(peer);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        self.follow(&mut made);
        match self.tuning.traced(peer, mtu) {
            Some(traced) => {
                let mut config = ServerConfig::clone(&made.ethernet);
                config.transport_config(traced);
                Arc::new(config)
            }
            None if mtu == MTU_JUMBO => Arc::clone(&made.jumbo),
            None => Arc::clone(&made.ethernet),
        }
    }

    /// Sessions begin anew with another TLS; what tells addresses that have proved themselves stays.
    fn follow(&self, made: &mut Made) {
        let now = self.tls.load();
        if Arc::ptr_eq(&now, &made.of) {
            return;
        }
        match crypto(&now) {
            Ok(crypto) => {
                let mut config = ServerConfig::clone(&made.ethernet);
                config.crypto = crypto;
                *made = Made::new(now, config, &self.tuning);
            }
            Err(error) => {
                error!(%error, "The new TLS configuration cannot be used for QUIC; the old one stays");
                made.of = now;
            }
        }
    }
}

impl Made {
    fn new(of: Arc<rustls::ServerConfig>, mut config: ServerConfig, tuning: &Tuning) -> Self {
        config.transport_config(Arc::new(tuning.transport(MTU_ETHERNET)));
        let mut jumbo = config.clone();
        jumbo.transport_config(Arc::new(tuning.transport(MTU_JUMBO)));
        Self {
            of,
            ethernet: Arc::new(config),
            jumbo: Arc::new(jumbo),
        }
    }
}

fn crypto(tls: &rustls::ServerConfig) -> io::Result<Arc<QuicServerConfig>> {
    let mut tls = tls.clone();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    sessions::kept_by(&mut tls);
    let crypto = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    Ok(Arc::new(crypto))
}
