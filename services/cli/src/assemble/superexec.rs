//! A SuperExec, from flags to farewell.

use std::{io, net::Ipv4Addr, path::PathBuf, sync::Arc, time::Duration};

use flwr_api::appio::{AppIo, AppIoClient};
use flwr_certs::JoinSecret;
use flwr_compat_grpc::{
    Buffers, CallerAuth, Dialect, GrpcListener, Holds, Limits,
    client::{Credentials, GrpcConnector},
    f1::{
        AppIoF1, ClientAppIoF1, SimulationIoF1,
        ask::{AppIoAsker, AppIoService},
    },
};
use flwr_superexec::{
    Config, Endpoint, Environment, JOIN_SECRET_VARIABLE, Launcher, Opened, Output, Reach, Relay,
    Warm,
};
use flwr_transport::{Acceptor, Drain, MemoryBudget, Policy};
use rustix::process::{Pid, test_kill_process};
use tokio::net::TcpListener;
use tracing::{info, warn};

use super::{
    credentials::{PeerFiles, PeerTls, check_client_certificate, load_client_tls},
    quic::{self, Dialled},
    serve::Serving,
};
use crate::{
    address::Address,
    args::{
        superexec::{PluginType, SuperExecOptions, WarmApps},
        supernode::ClientTransport,
    },
    exit::{Exit, sentence},
    home,
    listen::{Binder, Listener},
    memory::Memory,
    metrics::{Exporter, Machine, WatchedLauncher},
    renewal::Renewals,
    signals::Signals,
};

/// What a SuperExec works with; everything in it is checked.
struct Parts {
    daemon: Address,
    tls: Option<PeerTls>,
    renewals: Renewals,
    join_secret: Option<JoinSecret>,
    flwr_dir: PathBuf,
    health: Option<Listener>,
    metrics: Option<Exporter>,
}

/// Runs a SuperExec until a signal ends it, or its parent is gone.
///
/// # Errors
/// When it cannot start.
pub(crate) async fn run(options: SuperExecOptions) -> Result<(), Exit> {
    let signals = Signals::catch().map_err(|error| Exit::because(&error))?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        "Starting Flower SuperExec"
    );
    let mut parts = prepare(&options).await?;
    let drain = Drain::new();
    let mut serving = Serving::new(drain.clone(), Limits::default(), Memory::new(None), 0);
    if let Some(health) = parts.health.take() {
        serving.health(health)?;
    }
    let metrics = parts.metrics.take();
    let service = service(options.plugin_type);
    let reach = match (&parts.tls, options.warm_apps) {
        (None, WarmApps::Off | WarmApps::Fork) => Reach::Direct(parts.daemon.to_string()),
        _ => Reach::Relayed(Arc::new(Loopback(service))),
    };
    let config = Config {
        kind: options.plugin_type.kind(),
        flwr_dir: parts.flwr_dir.clone(),
        environment: Environment::new(options.plugin_type.kind(), |name| {
            std::env::var_os(name).is_some()
        }),
        path: std::env::var_os("PATH").unwrap_or_default(),
        apps_max: APPS_MAX,
        warm: match options.warm_apps {
            WarmApps::Off => Warm::Off,
            WarmApps::Prestart => Warm::Prestart,
            WarmApps::Fork => Warm::Fork,
        },
        idle_max: IDLE_MAX,
    };
    let renewals = std::mem::take(&mut parts.renewals);
    let output = Output::stdio().map_err(|error| Exit::because(&error))?;
    let Dialled { caller, connection } = dial(&options, parts, service)?;
    let launcher = Launcher::new(config, reach, AppIoClient::new(caller), output);
    let launcher = launcher.map_err(|error| Exit::Problem(format!("{}.", sentence(&error))))?;
    if let Some(metrics) = metrics {
        let standing = launcher.standing().clone();
        let watched = WatchedLauncher {
            standing,
            connection,
        };
        serving.metrics(metrics, Arc::new(watched));
    }
    let parent = (options.parent_pid, options.outlive_parent);
    let renewing = tokio::spawn(renewals.watch(signals.hangups(), drain.clone()));
    run_until_signal(launcher, serving, drain, signals, parent).await;
    let _watched = renewing.await;
    info!("SuperExec terminated gracefully.");
    Ok(())
}

async fn prepare(options: &SuperExecOptions) -> Result<Parts, Exit> {
    if options.appio_transport != ClientTransport::Grpc && options.insecure {
        return Err(quic::refuse_insecure("--appio-transport"));
    }
    let daemon = Address::parse(&options.appio_api_address)?;
    let roots = options.root_certificates.as_deref();
    let tls = load_client_tls(options.insecure, roots, &options.appio_api_address)?;
    let shown = options.client_certificate();
    check_client_certificate(shown, tls.is_some())?;
    if let [Some(_), None] = shown {
        return Err(Exit::Problem(
            "`--ssl-client-certfile` has a key: give it with `--ssl-client-keyfile`.".into(),
        ));
    }
    let mut renewals = Renewals::default();
    let tls = match tls {
        Some(_) => Some(PeerFiles::given(roots, shown, None).load("daemon_ca", &mut renewals)?),
        None => None,
    };
    let join_secret = load_join_secret(options)?;
    let flwr_dir = home::flower(options.flwr_dir.as_deref())?;
    let health = options.health_server_address.as_deref();
    let mut binder = Binder::default();
    let health = match health.map(Address::parse).transpose()? {
        Some(address) => Some(binder.bind(address, "--health-server-address").await?),
        None => None,
    };
    let machine = Machine::new("superexec");
    let metrics = Exporter::bind(options.metrics.address(), machine, &mut binder).await?;
    Ok(Parts {
        daemon,
        tls,
        renewals,
        join_secret,
        flwr_dir,
        health,
        metrics,
    })
}

fn load_join_secret(options: &SuperExecOptions) -> Result<Option<JoinSecret>, Exit> {
    let problem = |source: &str, error: &dyn std::error::Error| {
        Exit::Problem(format!("{source}: {}.", sentence(error)))
    };
    if let Some(file) = &options.appio_join_secret_file {
        let loaded = JoinSecret::load(file)
            .map_err(|error| problem("`--appio-join-secret-file`", &error))?;
        if let Some(warning) = loaded.warning {
            warn!("{warning}");
        }
        return Ok(Some(loaded.secret));
    }
    match std::env::var(JOIN_SECRET_VARIABLE) {
        Ok(secret) if !secret.is_empty() => {
            let secret = JoinSecret::parse(&secret);
            secret
                .map(Some)
                .map_err(|error| problem(JOIN_SECRET_VARIABLE, &error))
        }
        _ => Ok(None),
    }
}

async fn run_until_signal(
    launcher: Launcher,
    serving: Serving,
    drain: Drain,
    mut signals: Signals,
    (parent, outlives_parent): (Option<i32>, bool),
) {
    let serving = tokio::spawn(serving.until_drained());
    let retire = Drain::new();
    let mut launching = tokio::spawn(launcher.run(drain.clone(), retire.clone()));
    tokio::select! {
        biased;
        signal = signals.next() => info!(signal = signal.name(), "Shutting down"),
        () = gone(parent) => {
            if outlives_parent {
                warn!("The process that started this SuperExec is gone; waiting for the apps that run");
                retire.begin();
                tokio::select! {
                    biased;
                    signal = signals.next() => info!(signal = signal.name(), "Shutting down"),
                    _ = tokio::time::timeout(ORPHANED_MAX, &mut launching) => {}
                }
            } else {
                warn!("The process that started this SuperExec is gone; ending");
            }
            // Apps that are left notice that this process is gone, and end.
            std::process::exit(0);
        }
    }
    drain.begin();
    let second_signal = tokio::spawn(signals.die_on_next());
    let _launched = launching.await;
    let _served = serving.await;
    second_signal.abort();
}

/// Completes when the process `parent` is gone; never without one. As in Flower, one that may not be signalled counts as
/// gone.
async fn gone(parent: Option<i32>) {
    let Some(parent) = parent.and_then(Pid::from_raw) else {
        return std::future::pending().await;
    };
    while test_kill_process(parent).is_ok() {
        tokio::time::sleep(PARENT_PERIOD).await;
    }
}

/// The way to the daemon.
fn dial(
    options: &SuperExecOptions,
    parts: Parts,
    service: AppIoService,
) -> Result<Dialled<AppIo>, Exit> {
    let transport = options.appio_transport;
    let secret = parts.join_secret.as_ref();
    let quic = match &parts.tls {
        Some(tls) if transport != ClientTransport::Grpc => Some(quic::for_launcher(
            &parts.daemon,
            tls,
            secret,
            &options.quic,
        )?),
        _ => None,
    };
    let credentials = match secret {
        Some(secret) => Credentials::join_secret(secret),
        None => Credentials::none(),
    };
    let Address { host, port } = parts.daemon;
    let tls = parts.tls.map(|tls| tls.tcp);
    let grpc = GrpcConnector::new(host, port, tls, credentials, AppIoAsker(service));
    let is_auto = transport == ClientTransport::Auto;
    Ok(quic::caller(quic, grpc, is_auto, Policy::default()))
}

/// Endpoints on the loopback that speak one AppIo service in the clear.
#[derive(Clone, Copy, Debug)]
struct Loopback(AppIoService);

impl Endpoint for Loopback {
    fn open(&self, relay: Arc<Relay>) -> io::Result<Opened> {
        let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        let socket = TcpListener::from_std(socket)?;
        let holds = Holds::default();
        match self.0 {
            AppIoService::ClientApp => serve(socket, ClientAppIoF1 { holds }, relay),
            AppIoService::ServerApp => serve(socket, AppIoF1 { holds }, relay),
            AppIoService::Simulation => serve(socket, SimulationIoF1 { holds }, relay),
        }
    }
}

fn serve<D: Dialect<AppIo>>(
    socket: TcpListener,
    dialect: D,
    relay: Arc<Relay>,
) -> io::Result<Opened> {
    let limits = Limits {
        connections_max: 16,
        streams_objects: true,
        ..Limits::default()
    };
    let auth = CallerAuth::none();
    let buffers = Buffers::new(0, MemoryBudget::new(APP_BYTES_MAX));
    let listener = GrpcListener::new(socket, None, auth, dialect, limits, buffers)?;
    let address = listener.local_addr().to_string();
    let closing = Closing(Drain::new());
    let drain = closing.0.clone();
    tokio::spawn(async move { listener.serve(relay, drain).await });
    Ok(Opened {
        address,
        guard: Box::new(closing),
    })
}

/// What one app may have under way at once, in bytes.
const APP_BYTES_MAX: u64 = 256 << 20;

/// Closes a listener when it is dropped.
struct Closing(Drain);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.begin();
    }
}

fn service(plugin: PluginType) -> AppIoService {
    match plugin {
        PluginType::ClientApp => AppIoService::ClientApp,
        PluginType::ServerApp => AppIoService::ServerApp,
        PluginType::Simulation => AppIoService::Simulation,
    }
}

/// Apps that wait for work: the one after the next is started while the next one works.
const IDLE_MAX: usize = 1;
/// More runs at once than a machine bears; what bounds ClientApps is their SuperNode.
const APPS_MAX: usize = 256;
/// How long apps may go on whose SuperLink does not come back.
const ORPHANED_MAX: Duration = Duration::from_secs(3600);
/// How often the parent is looked for (Flower 1.22, `supercore/app_utils.py`).
const PARENT_PERIOD: Duration = Duration::from_millis(200);
