//! Certificates, a node key, and both ends on the loopback.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use flwr_certs::{
    CaOptions, ClientTls, LeafOptions, NodeKeyPair, ServerTls, WriteOptions, asking_for_node_keys,
    create_ca, create_server, node_key_in,
};
use flwr_transport::{Acceptor as _, Current, Identity, Protocol, PublicKey};
use flwr_transport_quic::{Acceptor, Options, Target, udp};
use rustls::pki_types::UnixTime;
use rustls::{ClientConfig, ServerConfig};

/// The certificates and keys of a site, made once.
pub(crate) struct Site {
    server: ServerConfig,
    trusting: Arc<ClientConfig>,
    key: NodeKeyPair,
}

impl Site {
    pub(crate) fn get() -> &'static Self {
        static SITE: OnceLock<Site> = OnceLock::new();
        SITE.get_or_init(Self::make)
    }

    pub(crate) fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let now = UnixTime::now().as_secs();
        let now = f64::from(u32::try_from(now).unwrap());
        let write = WriteOptions::default();
        create_ca(folder.path(), &CaOptions::default(), &write, now).unwrap();
        create_server(folder.path(), &LeafOptions::default(), &write, now).unwrap();
        Self {
            server: server_tls(folder.path(), now),
            trusting: trusting(folder.path()),
            key: NodeKeyPair::generate().unwrap(),
        }
    }

    pub(crate) fn server(&self) -> &ServerConfig {
        &self.server
    }

    /// A client without a key.
    pub(crate) fn anonymous(&self) -> ClientConfig {
        ClientConfig::clone(&self.trusting)
    }

    /// A client with the node key.
    pub(crate) fn as_node(&self) -> ClientConfig {
        self.key.shown_by(&self.trusting).unwrap()
    }

    pub(crate) fn node_identity(&self) -> Identity {
        let key = self.key.public().spki_bytes();
        Identity::NodeKey(PublicKey::from_spki_der(key))
    }

    /// An acceptor that knows node keys.
    pub(crate) fn options(&self) -> Options {
        Options {
            identify: Arc::new(|shown| {
                Ok(match shown.certificate.and_then(node_key_in) {
                    Some(key) => Identity::NodeKey(PublicKey::from_spki_der(key.spki_bytes())),
                    None => Identity::Anonymous,
                })
            }),
            ..Options::default()
        }
    }

    pub(crate) fn target<P: Protocol>(&self, acceptor: &Acceptor<P>) -> Target {
        let addr = acceptor.local_addr();
        Target {
            host: addr.ip().to_string(),
            port: addr.port(),
        }
    }
}

/// An acceptor on a port of its own.
pub(crate) fn listen<P: Protocol>(site: &Site, options: Options) -> Acceptor<P> {
    let socket = udp::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    Acceptor::new(socket, &site.server, options).unwrap()
}

/// The same with a configuration of one's own, which may be replaced.
pub(crate) fn listen_with<P: Protocol>(
    tls: Current<ServerConfig>,
    options: Options,
) -> Acceptor<P> {
    let socket = udp::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    Acceptor::new(socket, tls, options).unwrap()
}

fn server_tls(folder: &Path, now: f64) -> ServerConfig {
    let [ca, certificate, key] =
        ["ca.crt", "server.pem", "server.key"].map(|name| folder.join(name));
    let tls = ServerTls::load(&ca, &certificate, &key, now).unwrap();
    asking_for_node_keys(&tls.config).unwrap()
}

fn trusting(folder: &Path) -> Arc<ClientConfig> {
    ClientTls::load(Some(&folder.join("ca.crt")), None)
        .unwrap()
        .config()
}
