//! A SuperNode, from flags to farewell.
//!
//! Start-up goes in Flower's order: certificates, keys, node configuration, then the ports of ClientAppIo and health, then
//! the SuperExec, and last the SuperLink, which is waited for however long it takes.

use std::{fs, path::PathBuf, sync::Arc};

use flwr_api::{UserConfig, appio::Serve};
use flwr_certs::NodeKeyPair;
use flwr_compat_grpc::{Holds, Limits, f1::ClientAppIoF1};
use flwr_state::{DiskFabs, Journal, ObjectFiles, StoreError, files};
use flwr_transport::Drain;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    appio,
    credentials::{PeerFiles, PeerTls, check_client_certificate, load_client_tls, load_keys},
    node::node,
    quic,
    rest::{load_rest_tls, superlink_address},
    serve::Serving,
    superlink::crashed,
};
use crate::{
    address::Address,
    args::{
        superexec::PluginType,
        supernode::{Carrier, ClientTransport, KeyFlags, SuperNodeOptions},
    },
    exit::{Exit, sentence},
    home,
    launch::{Launches, SuperExec},
    listen::{Binder, Listener},
    memory::Memory,
    metrics::{Exporter, Machine, WatchedNode},
    renewal::Renewals,
    signals::Signals,
};

/// What a SuperNode works with; everything in it is checked.
pub(super) struct Parts {
    pub(super) superlink: Address,
    pub(super) tls: Option<PeerTls>,
    renewals: Renewals,
    pub(super) keys: Arc<NodeKeyPair>,
    pub(super) node_config: UserConfig,
    appio: Vec<appio::Port>,
    own: Option<appio::OwnLauncher>,
    health: Option<Listener>,
    metrics: Option<Exporter>,
    pub(super) objects: ObjectFiles,
    pub(super) journal: Journal,
    pub(super) fabs: DiskFabs,
}

/// Runs a SuperNode until a signal ends it.
///
/// # Errors
/// When it cannot start, the SuperLink refuses it, or a service ends by itself.
pub(crate) async fn run(options: SuperNodeOptions) -> Result<(), Exit> {
    let mut signals = Signals::catch().map_err(|error| Exit::because(&error))?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        "Starting Flower SuperNode"
    );
    let parts = tokio::select! {
        biased;
        signal = signals.next() => {
            info!(signal = signal.name(), "Shutting down before serving");
            info!("{FAREWELL}");
            return Ok(());
        }
        parts = prepare(&options) => parts?,
    };
    run_until_signal(&options, parts, signals).await?;
    info!("{FAREWELL}");
    Ok(())
}

async fn prepare(options: &SuperNodeOptions) -> Result<Parts, Exit> {
    check_transport(options)?;
    let (superlink, scheme) = superlink_address(options.carrier(), &options.superlink)?;
    let roots = options.root_certificates.as_deref();
    let tls = match scheme {
        None => load_client_tls(options.insecure, roots, &options.superlink)?,
        Some(scheme) => load_rest_tls(scheme, options.insecure, roots, &options.superlink)?,
    };
    let keys = Arc::new(load_keys(options, || data_folder(options))?);
    let shown = options.client_certificate();
    check_client_certificate(shown, tls.is_some())?;
    let mut renewals = Renewals::default();
    let tls = match tls {
        Some(_) => {
            let files = PeerFiles::given(roots, shown, Some(&keys));
            Some(files.load("superlink_ca", &mut renewals)?)
        }
        None => None,
    };
    if scheme.is_some() && !matches!(options.keys(), KeyFlags::Neither) {
        warn!(
            "Client authentication is not supported for this transport type: REST does without the keys."
        );
    }
    let node_config = load_node_config(options.node_config.as_deref())?;
    let security = appio::Security::load(&options.appio, options.isolation, &mut renewals)?;
    let clientappio = Address::parse(options.clientappio_address())?;
    let health = options.health_server_address.as_deref();
    let health = health.map(Address::parse).transpose()?;

    let mut binder = Binder::default();
    let (appio, own) = security
        .bind(
            CLIENTAPPIO,
            clientappio,
            (options.transport != ClientTransport::Grpc).then(|| options.quic.clone()),
            &mut binder,
        )
        .await?;
    let health = match health {
        Some(address) => Some(binder.bind(address, "--health-server-address").await?),
        None => None,
    };
    if let Some(health) = &health {
        info!("Starting gRPC health server on {}", health.address);
    }
    let machine = Machine::new("supernode").folder("data", data_folder(options)?);
    let metrics = Exporter::bind(options.metrics.address(), machine, &mut binder).await?;
    let (objects, journal, fabs) = open_stores(options).await?;
    Ok(Parts {
        superlink,
        tls,
        renewals,
        keys,
        node_config,
        appio,
        own,
        health,
        metrics,
        objects,
        journal,
        fabs,
    })
}

/// Flags that exclude each other are refused, never silently left out.
fn check_transport(options: &SuperNodeOptions) -> Result<(), Exit> {
    if options.transport == ClientTransport::Grpc {
        return Ok(());
    }
    if options.insecure {
        return Err(quic::refuse_insecure("--transport"));
    }
    if options.carrier() != Carrier::GrpcRere {
        return Err(Exit::Problem(
            "`--transport` is for SuperNodes that speak the Fleet service: leave out `--rest` and `--grpc-adapter`, or \
             give `--transport grpc`."
                .into(),
        ));
    }
    Ok(())
}

/// Pairs, or a TOML file.
fn load_node_config(given: Option<&str>) -> Result<UserConfig, Exit> {
    let Some(text) = given.filter(|text| !text.trim().is_empty()) else {
        return Ok(UserConfig::new());
    };
    let refuse = |why: String| Exit::Problem(format!("`--node-config`: {why}."));
    if flwr_fab::names_file(text) {
        let file = fs::read_to_string(text.trim())
            .map_err(|error| refuse(format!("{} cannot be read: {error}", text.trim())))?;
        return flwr_fab::parse_config_toml(&file).map_err(|error| refuse(sentence(&error)));
    }
    flwr_fab::parse_config_args(text).map_err(|error| refuse(sentence(&error)))
}

/// Where this node keeps what outlives its process.
fn data_folder(options: &SuperNodeOptions) -> Result<PathBuf, Exit> {
    if let Some(folder) = &options.data_dir {
        return Ok(folder.clone());
    }
    let home = home::flower(options.flwr_dir.as_deref())?;
    let port = Address::parse(options.clientappio_address())?.port;
    Ok(home.join("supernode").join(format!("data-{port}")))
}

async fn open_stores(options: &SuperNodeOptions) -> Result<(ObjectFiles, Journal, DiskFabs), Exit> {
    let home = home::flower(options.flwr_dir.as_deref())?.join("supernode");
    let folder = data_folder(options)?;
    let config = files::Config {
        quota_bytes: options.data_quota,
        free_bytes_min: options.data_free,
        durable: false,
    };
    // It belongs to whoever holds the lock of the objects' folder.
    let journal = Journal::new(folder.join("journal"));
    let opened = tokio::task::spawn_blocking(move || ObjectFiles::open(&folder, config)).await;
    let objects = opened
        .unwrap_or(Err(StoreError::Stopped))
        .map_err(|error| Exit::Problem(format!("`--data-dir`: {}.", sentence(&error))))?;
    Ok((objects, journal, DiskFabs::new(home.join("ffs"))))
}

/// Serves and works; then leaves the SuperLink, ends children, and finishes the calls under way.
async fn run_until_signal(
    options: &SuperNodeOptions,
    mut parts: Parts,
    mut signals: Signals,
) -> Result<(), Exit> {
    let drain = Drain::new();
    let own = parts.own.take();
    let superexec = own.map(|own| superexec(options, &own)).transpose()?;
    let memory = Memory::new(options.memory_budget);
    let mut serving = Serving::new(
        drain.clone(),
        memory.within(limits()),
        memory,
        KEPT_BUFFER_BYTES,
    );
    if let Some(health) = parts.health.take() {
        serving.health(health)?;
    }
    let metrics = parts.metrics.take();
    let ports = std::mem::take(&mut parts.appio);
    let renewals = std::mem::take(&mut parts.renewals);
    let exit = CancellationToken::new();
    let (node, connection) = node(options, parts, exit.clone())?;
    if let Some(metrics) = metrics {
        let node = node.clone();
        serving.metrics(metrics, Arc::new(WatchedNode { node, connection }));
    }
    for port in ports {
        let handler = Arc::new(Serve(node.appio(port.launchers)));
        let holds = Holds::default();
        serving.appio(port, ClientAppIoF1 { holds }, &handler)?;
    }
    let renewing = tokio::spawn(renewals.watch(signals.hangups(), drain.clone()));
    let mut serving = tokio::spawn(serving.until_drained());
    let launching = superexec.map(|superexec| tokio::spawn(superexec.supervise(drain.clone())));
    let mut working = tokio::spawn({
        let drain = drain.clone();
        async move { node.run(&drain).await }
    });

    let outcome = tokio::select! {
        biased;
        signal = signals.next() => {
            info!(signal = signal.name(), "Shutting down");
            Ok(())
        }
        () = exit.cancelled() => {
            info!("The SuperLink's adapter has told this SuperNode to end");
            Ok(())
        }
        ended = &mut serving => Err(match ended {
            Ok(Err(exit)) => exit,
            _ => crashed("The services ended without being asked to."),
        }),
        ended = &mut working => Err(match ended {
            Ok(Err(ended)) => Exit::Problem(format!("The SuperNode ends: {}.", sentence(&ended))),
            _ => crashed("The node ended without being asked to."),
        }),
    };
    drain.begin();
    let second_signal = tokio::spawn(signals.die_on_next());
    if !working.is_finished() {
        let _left = working.await;
    }
    if let Some(launching) = launching {
        let _ended = launching.await;
    }
    let _watched = renewing.await;
    if !serving.is_finished() {
        let _served = serving.await;
    }
    second_signal.abort();
    outcome
}

fn superexec(options: &SuperNodeOptions, own: &appio::OwnLauncher) -> Result<SuperExec, Exit> {
    SuperExec::own(Launches {
        plugin: PluginType::ClientApp,
        appio: &own.address,
        join_secret: &own.secret,
        flwr_dir: options.flwr_dir.as_deref(),
        warm_apps: options.warm_apps,
        log_format: options.log.format,
        // Work that was in hand is begun again.
        outlive_parent: false,
    })
}

/// What ClientApps may make a SuperNode hold: they are near, so small windows keep their links full, and what they
/// hand in goes to files as it comes.
fn limits() -> Limits {
    Limits {
        streams_objects: true,
        stream_window_bytes: 4 << 20,
        connection_window_bytes: 36 << 20,
        ..Limits::default()
    }
}

/// Memory kept for the next objects that ClientApps hand in, in bytes.
const KEPT_BUFFER_BYTES: usize = 32 << 20;
/// How Flower names the API that a SuperNode serves.
const CLIENTAPPIO: appio::Service = appio::Service {
    starting: "Flower Deployment Runtime: Starting ClientAppIo API on",
    flag: "--clientappio-api-address",
};
const FAREWELL: &str = "SuperNode terminated gracefully.";
