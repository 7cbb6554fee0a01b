//! QUIC for Fleet, from flags and files to both ends.

use std::{net::UdpSocket, sync::Arc, time::Duration};

use flwr_api::fleet::Fleet;
use flwr_certs::{AllowList, ClientTls, NodeKeyPair, asking_for_node_keys, node_key_in};
use flwr_transport::{Code, ConnectError, Identity, PublicKey, Status};
use flwr_transport_quic::{Acceptor, Admit, Connector, Identify, Options, Target, Tuning};

use crate::{
    address::Address,
    exit::{Exit, sentence},
};

/// What SuperNodes are served with that come by QUIC.
#[derive(Debug)]
pub(crate) struct Quic {
    /// Listen for them.
    pub(crate) sockets: Vec<UdpSocket>,
    /// Without certificates there is no QUIC.
    pub(crate) tls: Arc<rustls::ServerConfig>,
}

impl Quic {
    /// An acceptor for every socket. Nodes prove who they are in the TLS handshake.
    pub(super) fn acceptors(
        self,
        list: Option<&Arc<AllowList>>,
    ) -> Result<Vec<Acceptor<Fleet>>, Exit> {
        let tls = asking_for_node_keys(&self.tls).map_err(|error| Exit::because(&error))?;
        let options = Options {
            identify: identify(),
            admit: admit(list.cloned()),
            grace: GRACE,
            tuning: Tuning::accepting(),
            ..Options::default()
        };
        let acceptors = self.sockets.into_iter().map(|socket| {
            let acceptor = Acceptor::new(socket, &tls, options.clone());
            acceptor.map_err(|error| Exit::because(&error))
        });
        acceptors.collect()
    }
}

/// The way to a SuperLink, for a node with this key.
pub(super) fn connector(
    superlink: &Address,
    tls: &ClientTls,
    keys: &NodeKeyPair,
) -> Result<Connector<Fleet>, Exit> {
    let target = Target {
        host: superlink.host.clone(),
        port: superlink.port,
    };
    let config = keys
        .shown_by(&tls.config())
        .map_err(|error| Exit::because(&error))?;
    let connector = Connector::new(target, &config, &Tuning::connecting())
        .map_err(|error| Exit::because(&error))?;
    let (tls, host) = (tls.clone(), superlink.host.clone());
    Ok(connector.explaining(move |alert, why| {
        let error = tls.explain_alert(&host, alert, why);
        ConnectError {
            retryable: error.is_retryable(),
            message: sentence(&error),
        }
    }))
}

/// `--insecure` and QUIC exclude each other.
pub(super) fn refuse_insecure() -> Exit {
    Exit::Problem(
        "`--transport quic` and `--insecure` exclude each other: QUIC is always encrypted, with TLS 1.3. Give \
         certificates instead (`flwr-quic certs ca` and `flwr-quic certs server` make them), or `--transport grpc`."
            .into(),
    )
}

fn identify() -> Identify {
    Arc::new(|certificate| match node_key_in(certificate) {
        Some(key) => Identity::NodeKey(PublicKey::from_spki_der(key.spki_bytes())),
        None => Identity::Anonymous,
    })
}

/// Nodes with a key, of the list if there is one. The texts are Flower 1.22's, as over gRPC.
fn admit(list: Option<Arc<AllowList>>) -> Admit {
    Arc::new(move |identity| {
        let refuse = |text| Err(Status::new(Code::Unauthenticated, text));
        let Identity::NodeKey(key) = identity else {
            return refuse("Missing authentication metadata");
        };
        match &list {
            Some(list) if !list.contains_spki(key.spki_der()) => {
                refuse("Public key not recognized")
            }
            _ => Ok(()),
        }
    })
}

/// How long calls under way may take to finish once the SuperLink shuts down: as long as over gRPC.
const GRACE: Duration = Duration::from_secs(2);
/// How long a SuperLink is waited for over QUIC before gRPC is tried.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// How often QUIC is tried while gRPC has to do.
pub(super) const TRY_AGAIN: Duration = Duration::from_secs(300);
/// How long the SuperLink may hold a call for work over QUIC, which keeps its own way open.
pub(super) const HOLD: Duration = Duration::from_secs(3600);
