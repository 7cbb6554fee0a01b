//! QUIC, from flags and files to both ends.

use std::{net::UdpSocket, sync::Arc, time::Duration};

use flwr_api::{appio::AppIo, fleet::Fleet};
use flwr_certs::{
    AllowList, AuthError, JoinSecret, JoinSecretDigest, NodeKeyPair, WRONG_JOIN_SECRET,
    node_key_in, proved_key,
};
use flwr_state::SystemEntropy;
use flwr_transport::{
    Bearer, Code, Current, DynCaller, Identity, LinkState, Policy, Prefer, Protocol, PublicKey,
    Redial, Status,
};
use flwr_transport_quic::{Acceptor, Admit, Connector, Identify, Options, Prove, Target, Tuning};
use tokio::sync::watch;

use super::credentials::PeerTls;
use crate::{
    address::Address,
    args::quic::{QuicOptions, QuicServerOptions},
    exit::{Exit, sentence},
    memory::Memory,
    peer,
};

/// What those are served with that come by QUIC.
#[derive(Debug)]
pub(crate) struct Quic {
    /// Listen for them.
    pub(crate) sockets: Vec<UdpSocket>,
    /// Without certificates there is no QUIC.
    pub(crate) tls: Current<rustls::ServerConfig>,
    /// Of the private key there was at the start: connections outlive a change, and so do the tokens that end them.
    pub(crate) restart_secret: [u8; 32],
    /// How it sends and is served.
    pub(crate) options: QuicServerOptions,
}

impl Quic {
    /// Fleet on every socket. Nodes prove who they are in the TLS handshake, or beside it with a certificate that is not
    /// for their key.
    pub(super) fn for_nodes(
        self,
        list: Option<&Arc<AllowList>>,
        memory: Memory,
    ) -> Result<Vec<Acceptor<Fleet>>, Exit> {
        self.acceptors(identify_node(), admit_nodes(list.cloned()), memory)
    }

    /// AppIo on every socket. Launchers prove themselves with the secret.
    pub(super) fn for_launchers(
        self,
        secret: Option<&JoinSecret>,
        memory: Memory,
    ) -> Result<Vec<Acceptor<AppIo>>, Exit> {
        let identify = identify_launcher(secret.map(JoinSecret::digest));
        self.acceptors(identify, Options::default().admit, memory)
    }

    fn acceptors<P: Protocol>(
        self,
        identify: Identify,
        admit: Admit,
        memory: Memory,
    ) -> Result<Vec<Acceptor<P>>, Exit> {
        let options = Options {
            identify,
            admit,
            grace: GRACE,
            restart_secret: Some(self.restart_secret),
            memory_max: self.options.memory_max(memory),
            tuning: self.options.link.tuning(Tuning::accepting()),
            ..Options::default()
        };
        let acceptors = self.sockets.into_iter().map(|socket| {
            let acceptor = Acceptor::new(socket, self.tls.clone(), options.clone());
            acceptor.map_err(|error| Exit::because(&error))
        });
        acceptors.collect()
    }
}

/// The way to a SuperLink, for a node with these keys. With `proves`, it shows a certificate that need not be for them.
pub(super) fn for_node(
    superlink: &Address,
    tls: &PeerTls,
    keys: &Arc<NodeKeyPair>,
    proves: bool,
    options: &QuicOptions,
) -> Result<Connector<Fleet>, Exit> {
    let connector = connector(superlink, tls, options)?;
    let prove = || -> Prove {
        let keys = Arc::clone(keys);
        Arc::new(move |exported| keys.prove(exported).map_err(|error| sentence(&error)))
    };
    Ok(connector.proving(proves.then(prove)))
}

/// The way to a daemon, for a launcher with this secret.
pub(super) fn for_launcher(
    daemon: &Address,
    tls: &PeerTls,
    secret: Option<&JoinSecret>,
    options: &QuicOptions,
) -> Result<Connector<AppIo>, Exit> {
    let connector = connector(daemon, tls, options)?;
    Ok(connector.presenting(secret.map(|secret| Bearer::new(secret.expose()))))
}

fn connector<P: Protocol>(
    server: &Address,
    tls: &PeerTls,
    options: &QuicOptions,
) -> Result<Connector<P>, Exit> {
    let target = Target {
        host: server.host.clone(),
        port: server.port,
    };
    let tuning = options.tuning(Tuning::connecting());
    let connector =
        Connector::new(target, tls.quic.clone(), &tuning).map_err(|error| Exit::because(&error))?;
    let (tls, host) = (tls.tcp.clone(), server.host.clone());
    Ok(connector.explaining(move |alert, why| peer::explain_alert(&tls.load(), &host, alert, why)))
}

/// Calls over QUIC where there is a way, over gRPC where that has to do or there is none.
pub(super) fn caller<P: Protocol>(
    quic: Option<Connector<P>>,
    grpc: impl flwr_transport::Connector<P>,
    is_auto: bool,
    policy: Policy,
) -> Dialled<P> {
    match quic {
        Some(quic) if is_auto => {
            let connector = Prefer::new(quic, grpc, PATIENCE, TRY_AGAIN);
            Dialled::over(connector, policy)
        }
        Some(quic) => Dialled::over(quic, policy),
        None => Dialled::over(grpc, policy),
    }
}

/// Calls over a connection that is made again when it is lost, and how that is.
pub(super) struct Dialled<P: Protocol> {
    pub(super) caller: Arc<dyn DynCaller<P>>,
    pub(super) connection: watch::Receiver<LinkState>,
}

impl<P: Protocol> Dialled<P> {
    pub(super) fn over(connector: impl flwr_transport::Connector<P>, policy: Policy) -> Self {
        let random = || flwr_state::fraction(&SystemEntropy);
        let redial = Redial::new(connector, policy, random);
        Self {
            connection: redial.states(),
            caller: Arc::new(redial),
        }
    }
}

/// `--insecure` and QUIC exclude each other.
pub(super) fn refuse_insecure(flag: &str) -> Exit {
    Exit::Problem(format!(
        "`{flag} quic` and `--insecure` exclude each other: QUIC is always encrypted, with TLS 1.3. Give certificates \
         instead (`flwr-quic certs ca` and `flwr-quic certs server` make them), or `{flag} grpc`."
    ))
}

fn identify_node() -> Identify {
    Arc::new(|shown| {
        let key = match &shown.proof {
            Some(proof) => {
                let key = proved_key(proof.bytes, &proof.exported);
                Some(key.ok_or("the proof of the node's key is not for this connection")?)
            }
            None => shown.certificate.and_then(node_key_in),
        };
        Ok(match key {
            Some(key) => Identity::NodeKey(PublicKey::from_spki_der(key.spki_bytes())),
            None => Identity::Anonymous,
        })
    })
}

fn identify_launcher(secret: Option<JoinSecretDigest>) -> Identify {
    Arc::new(move |shown| match (&secret, shown.credential) {
        (Some(secret), Some(shown)) if secret.recognises(shown.expose().as_bytes()) => {
            Ok(Identity::Launcher)
        }
        (Some(_), Some(_)) => Err(WRONG_JOIN_SECRET.to_owned()),
        _ => Ok(Identity::Anonymous),
    })
}

/// Nodes with a key, of the list if there is one. The texts are those over gRPC.
fn admit_nodes(list: Option<Arc<AllowList>>) -> Admit {
    Arc::new(move |identity| {
        let is_listed = |key: &PublicKey| {
            let list = list.as_ref();
            list.is_none_or(|list| list.contains_spki(key.spki_der()))
        };
        let error = match identity {
            Identity::NodeKey(key) if is_listed(key) => return Ok(()),
            Identity::NodeKey(_) => AuthError::KeyNotRecognized,
            _ => AuthError::MissingMetadata,
        };
        Err(Status::new(Code::Unauthenticated, error.to_string()))
    })
}

/// How long calls under way may take to finish once the SuperLink shuts down: as long as over gRPC.
const GRACE: Duration = Duration::from_secs(2);
/// How long a SuperLink is waited for over QUIC before gRPC is tried.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often QUIC is tried while gRPC has to do.
const TRY_AGAIN: Duration = Duration::from_secs(300);
/// How long the SuperLink may hold a call for work over QUIC, which keeps its own way open.
pub(super) const HOLD: Duration = Duration::from_secs(3600);
