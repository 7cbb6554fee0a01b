//! A SuperNode that calls its SuperLink: what carries its calls, and what it proves itself with.

use std::sync::Arc;

use flwr_api::fleet::FleetClient;
use flwr_compat_grpc::{
    client::{Credentials, GrpcConnector, NodeSigner, RestConnector},
    f1::ask::{AdapterAsker, FleetAsker},
};
use flwr_state::{Clock as _, SystemClock, SystemEntropy};
use flwr_supernode::{Config, SuperNode};
use flwr_transport::{LinkState, Policy};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    quic::{self, Dialled},
    supernode::Parts,
};
use crate::{
    address::Address,
    args::supernode::{Carrier, ClientTransport, SuperNodeOptions},
    exit::Exit,
};

/// Makes the node, and tells how its connection is. `exit` is cancelled when an adapter has it end.
///
/// # Errors
/// When QUIC cannot be set up.
pub(super) fn node(
    options: &SuperNodeOptions,
    parts: Parts,
    exit: CancellationToken,
) -> Result<(SuperNode, watch::Receiver<LinkState>), Exit> {
    let quic = match &parts.tls {
        Some(tls) if options.transport != ClientTransport::Grpc => Some(quic::for_node(
            &parts.superlink,
            tls,
            &parts.keys,
            options.client_certificate()[1].is_some(),
            &options.quic.link,
        )?),
        _ => None,
    };
    let keys = parts.keys;
    let credentials = Credentials::node(NodeSigner::new(keys, || SystemClock.now().seconds()));
    let policy = Policy {
        tries_max: options.max_retries.map(|retries| retries.saturating_add(1)),
        time_max: options.max_wait_time,
        ..Policy::default()
    };
    let gives_up = policy.tries_max.is_some() || policy.time_max.is_some();
    let Address { host, port } = parts.superlink;
    let tls = parts.tls.map(|tls| tls.tcp);
    let entropy = Arc::new(SystemEntropy);
    let fleet = match options.carrier() {
        Carrier::GrpcAdapter => {
            let connector =
                GrpcConnector::new(host, port, tls, credentials, AdapterAsker::new(exit));
            Dialled::over(connector, policy)
        }
        Carrier::Rest => {
            let connector = RestConnector::new(host, port, tls, FleetAsker);
            Dialled::over(connector, policy)
        }
        Carrier::GrpcRere => {
            let grpc = GrpcConnector::new(host, port, tls, credentials, FleetAsker);
            let is_auto = options.transport == ClientTransport::Auto;
            quic::caller(quic, grpc, is_auto, policy)
        }
    };
    let hold = match options.transport {
        ClientTransport::Quic | ClientTransport::Auto => quic::HOLD,
        ClientTransport::Grpc => Config::default().hold,
    };
    let config = Config {
        node_config: parts.node_config,
        hold,
        apps_max: options.max_concurrent_apps,
        gives_up,
        ..Config::default()
    };
    let node = SuperNode::new(
        config,
        FleetClient::new(fleet.caller),
        parts.objects,
        parts.journal,
        parts.fabs,
        Arc::new(SystemClock),
        entropy,
    );
    Ok((node, fleet.connection))
}
