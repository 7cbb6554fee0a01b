//! What a SuperLink's flags and the files they name say, checked in Flower's order before anything is served.

use std::{fs, path::Path, sync::Arc};

use flwr_certs::{AllowList, asking_for_node_keys};
use flwr_superlink::Runtime;
use flwr_transport::Current;
use rustls::ServerConfig;
use tracing::{debug, info, warn};

use super::{
    quic,
    tls::{self, Purpose, demanding},
};
use crate::{
    address::Address,
    args::superlink::{FleetApiType, SuperLinkOptions, Transport},
    exit::{Code, Exit, sentence},
    renewal::{Certificate, Renewals},
};

/// What Flower warns of or refuses before it looks at anything else.
pub(super) fn check_deprecated(options: &SuperLinkOptions) -> Result<(), Exit> {
    let refuse = |context: &str| Err(Exit::Code(Code::INVALID_ARGUMENTS, context.to_owned()));
    if options.flwr_dir.is_some() {
        warn!("The `--flwr-dir` option is not in use and is ignored.");
    }
    if options.has_executor_flags() {
        return refuse(
            "`--executor`, `--executor-dir` and `--executor-config` were removed from Flower. Start the SuperLink \
             without them.",
        );
    }
    if options.exec_api_address.is_some() {
        if options.control_api_address.is_some() {
            return refuse(
                "Both `--control-api-address` and `--exec-api-address` are set. Give `--control-api-address` only; \
                 the other one is deprecated.",
            );
        }
        warn!(
            "The `--exec-api-address` argument is deprecated. Use `--control-api-address` instead."
        );
    }
    Ok(())
}

/// What comes in a later release is refused, never silently left out.
pub(super) fn check_available(options: &SuperLinkOptions) -> Result<(), Exit> {
    let refuse = |sentence: String| Err(Exit::Problem(sentence));
    if options.transport.contains(&Transport::Quic) {
        if options.insecure {
            return Err(quic::refuse_insecure("--transport"));
        }
        if options.fleet_api_type != FleetApiType::GrpcRere {
            return refuse(format!(
                "`--transport quic` and `--fleet-api-type {}` exclude each other: nodes that speak it do not prove who \
                 they are.",
                options.fleet_api_type
            ));
        }
    }
    for (flag, ca) in [
        (CLIENT_CA, options.client_ca()),
        (CONTROL_CLIENT_CA, options.control_client_ca()),
    ] {
        if ca.is_some() && options.insecure {
            return refuse(format!(
                "`{flag}` and `--insecure` exclude each other: certificates are shown in TLS. Leave one of them out."
            ));
        }
    }
    if options.client_ca().is_some() && options.runtime() == Runtime::Simulation {
        return refuse(
            "`--ssl-client-ca-certfile` is for SuperNodes, which `--simulation` does without: leave one of them out."
                .into(),
        );
    }
    Ok(())
}

/// What each API listens on.
pub(super) struct Addresses {
    /// ServerAppIo or SimulationIo.
    pub(super) appio: Address,
    pub(super) control: Address,
    pub(super) health: Option<Address>,
    /// Nodes of their own are all that simulations need.
    pub(super) fleet: Option<Address>,
}

impl Addresses {
    pub(super) fn parse(options: &SuperLinkOptions) -> Result<Self, Exit> {
        let serverappio = Address::parse(options.serverappio_address())?;
        let control = Address::parse(options.control_address())?;
        let simulationio = Address::parse(options.simulationio_address())?;
        let health = options
            .health_server_address
            .as_deref()
            .map(Address::parse)
            .transpose()?;
        let (appio, fleet) = match options.runtime() {
            Runtime::Deployment => (serverappio, Some(Address::parse(options.fleet_address())?)),
            Runtime::Simulation => (simulationio, None),
        };
        Ok(Self {
            appio,
            control,
            health,
            fleet,
        })
    }
}

/// TLS of a SuperLink, as its files are now.
pub(super) struct LinkTls {
    pub(super) control: Current<ServerConfig>,
    /// Of Fleet over TCP.
    pub(super) fleet: Current<ServerConfig>,
    /// Of Fleet over QUIC, where nodes show their keys.
    pub(super) nodes: Current<ServerConfig>,
    pub(super) restart_secret: [u8; 32],
}

/// Also demands certificates of clients, where that was asked for.
pub(super) fn load_tls(
    options: &SuperLinkOptions,
    renewals: &mut Renewals,
) -> Result<Option<LinkTls>, Exit> {
    let paths = options.certificate_paths();
    if options.insecure {
        warn!(
            "Option `--insecure` was set. Starting insecure HTTP server with unencrypted communication (TLS disabled). \
             Proceed only if you understand the risks."
        );
        if paths.iter().any(Option::is_some) {
            warn!("The certificate flags are ignored because of `--insecure`.");
        }
        return Ok(None);
    }
    let Some(files) = tls::Files::given(CERTIFICATE_FLAGS, paths)? else {
        return Err(Exit::Problem(
            "Certificates are required unless running in insecure mode: give `--ssl-ca-certfile`, `--ssl-certfile` \
             and `--ssl-keyfile` (`flwr-quic certs ca` and `flwr-quic certs server` make the files), or \
             `--insecure` if you understand the risks."
                .into(),
        ));
    };
    let (nodes, users) = (options.client_ca(), options.control_client_ca());
    let of_nodes = nodes.iter().map(|ca| Certificate::cas("client_ca", ca));
    let of_users = users
        .iter()
        .map(|ca| Certificate::cas("control_client_ca", ca));
    let client_cas = of_nodes.chain(of_users).collect();
    let make = move |tls: &flwr_certs::ServerTls| {
        let control = demanding(&tls.config, CONTROL_CLIENT_CA, users.as_deref())?;
        let fleet = demanding(&tls.config, CLIENT_CA, nodes.as_deref())?;
        let asking = match nodes {
            Some(_) => Arc::clone(&fleet),
            None => {
                let asking = asking_for_node_keys(&tls.config);
                Arc::new(asking.map_err(|error| Exit::because(&error))?)
            }
        };
        Ok([control, fleet, asking])
    };
    let ([control, fleet, nodes], restart_secret) =
        files.served(PURPOSE, client_cas, make, renewals)?;
    say_who_shows_certificates(options);
    Ok(Some(LinkTls {
        control,
        fleet,
        nodes,
        restart_secret,
    }))
}

fn say_who_shows_certificates(options: &SuperLinkOptions) {
    if let Some(ca) = options.client_ca() {
        let ca = ca.display();
        info!("SuperNodes have to show a certificate that a CA in {ca} signed");
    }
    if let Some(ca) = options.control_client_ca() {
        let ca = ca.display();
        info!(
            "Users have to show a certificate that a CA in {ca} signed, which the stock `flwr` command cannot"
        );
    }
}

/// Makes the folder for app bundles, and makes sure that files can be written there: better now than when the first
/// app is submitted.
pub(super) fn check_storage_dir(folder: &Path) -> Result<(), Exit> {
    let probe = folder.join(format!(".probe-{}", std::process::id()));
    let probed = fs::create_dir_all(folder)
        .and_then(|()| fs::write(&probe, b""))
        .and_then(|()| fs::remove_file(&probe));
    probed.map_err(|error| {
        Exit::Problem(format!(
            "App bundles cannot be stored in {}: {error}. Give `--storage-dir` a folder that can be written.",
            folder.display()
        ))
    })
}

/// The nodes that may join. As in Flower, only nodes that come over gRPC proper are asked who they are.
pub(super) fn load_allow_list(options: &SuperLinkOptions) -> Result<Option<Arc<AllowList>>, Exit> {
    let path = options.key_list();
    if options.fleet_api_type != FleetApiType::GrpcRere {
        warn!(
            "Nodes are not authenticated with `--fleet-api-type {}`: whoever reaches the Fleet API can join, and speak \
             for any node.{}",
            options.fleet_api_type,
            if path.is_some() {
                " `--auth-list-public-keys` has no effect."
            } else {
                ""
            }
        );
        return Ok(None);
    }
    if options.has_superlink_key_flags() {
        warn!(
            "The `--auth-superlink-private-key` and `--auth-superlink-public-key` arguments are deprecated and have \
             no effect."
        );
    }
    let Some(path) = path else {
        debug!("Automatic node authentication enabled");
        return Ok(None);
    };
    let list = AllowList::load(&path).map_err(|error| {
        Exit::Problem(format!("`--auth-list-public-keys`: {}.", sentence(&error)))
    })?;
    info!(
        "Node authentication enabled with {} known public keys",
        list.len()
    );
    Ok(Some(Arc::new(list)))
}

const CERTIFICATE_FLAGS: tls::Flags = ["--ssl-ca-certfile", "--ssl-certfile", "--ssl-keyfile"];
const PURPOSE: Purpose = Purpose {
    says: "of Fleet and Control",
    own: "server",
    ca: "server_ca",
};
const CLIENT_CA: &str = "--ssl-client-ca-certfile";
const CONTROL_CLIENT_CA: &str = "--control-ssl-client-ca-certfile";
