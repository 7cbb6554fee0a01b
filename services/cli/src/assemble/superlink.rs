//! A SuperLink, from flags to farewell.
//!
//! Start-up goes in Flower's order, so that of several mistakes the same one is reported: deprecated flags, addresses,
//! certificates, then the ports of Control, ServerAppIo, Fleet and health. Peers can connect from the moment their port
//! is bound, and are served once all is well.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use flwr_certs::{AllowList, Reload};
use flwr_state::{Clock, SystemClock};
use flwr_superlink::Runtime;
use flwr_transport::Drain;
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};
use tracing::{error, info, warn};

use crate::{
    address::Address,
    args::{
        superexec::PluginType,
        superlink::{FleetApiType, SuperLinkOptions, Transport},
    },
    assemble::{
        appio,
        checks::{
            Addresses, LinkTls, check_available, check_deprecated, check_storage_dir,
            load_allow_list, load_tls,
        },
        quic::Quic,
        serve::{Fleet, Parts, serve},
        state::{self, Backend},
    },
    exit::{Code, Exit, sentence},
    home,
    launch::{Launches, SuperExec},
    listen::Binder,
    memory::Memory,
    metrics::{Exporter, Machine},
    renewal::Renewals,
    signals::Signals,
};

/// Runs a SuperLink until a signal ends it.
///
/// # Errors
/// When it cannot start, or a service ends by itself.
pub(crate) async fn run(options: SuperLinkOptions) -> Result<(), Exit> {
    let mut signals = Signals::catch().map_err(|error| Exit::because(&error))?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        "Starting Flower SuperLink"
    );
    check_deprecated(&options)?;
    check_available(&options)?;
    let parts = tokio::select! {
        biased;
        // Looking up a name can take long.
        signal = signals.next() => {
            info!(signal = signal.name(), "Shutting down before serving");
            info!("{FAREWELL}");
            return Ok(());
        }
        parts = prepare(&options) => parts?,
    };
    let (state, parts, own) = parts;
    let superexec = own.map(|own| superexec(&options, &own)).transpose()?;
    run_until_signal((state, parts), superexec, signals).await?;
    info!("{FAREWELL}");
    Ok(())
}

fn superexec(options: &SuperLinkOptions, own: &appio::OwnLauncher) -> Result<SuperExec, Exit> {
    SuperExec::own(Launches {
        plugin: match options.runtime() {
            Runtime::Deployment => PluginType::ServerApp,
            Runtime::Simulation => PluginType::Simulation,
        },
        appio: &own.address,
        join_secret: &own.secret,
        flwr_dir: None,
        warm_apps: options.warm_apps,
        log_format: options.log.format,
        outlive_parent: options.database_file().is_some(),
    })
}

type Prepared = (Backend, Parts, Option<appio::OwnLauncher>);

async fn prepare(options: &SuperLinkOptions) -> Result<Prepared, Exit> {
    let addresses = Addresses::parse(options)?;
    let mut renewals = Renewals::default();
    let tls = load_tls(options, &mut renewals)?;
    let appio = appio::Security::load(&options.appio, options.isolation, &mut renewals)?;
    let storage_dir = options
        .storage_dir()
        .map_or_else(home::default_storage_dir, Ok)?;
    check_storage_dir(&storage_dir)?;
    let security = Security {
        tls,
        appio,
        renewals,
    };
    bind(options, addresses, security, storage_dir).await
}

/// What the files of keys and certificates say.
struct Security {
    tls: Option<LinkTls>,
    appio: appio::Security,
    renewals: Renewals,
}

/// Takes the ports, and reads the list of nodes before that of Fleet.
async fn bind(
    options: &SuperLinkOptions,
    addresses: Addresses,
    security: Security,
    storage_dir: PathBuf,
) -> Result<Prepared, Exit> {
    let mut binder = Binder::default();
    let control_flag = if options.exec_api_address.is_some() {
        "--exec-api-address"
    } else {
        "--control-api-address"
    };
    let control = binder.bind(addresses.control, control_flag).await?;
    info!(
        "Flower Deployment Runtime: Starting Control API on {}",
        control.address
    );
    let service = match options.runtime() {
        Runtime::Deployment => SERVERAPPIO,
        Runtime::Simulation => SIMULATIONIO,
    };
    let tls = security.tls;
    let (appio, own) = security
        .appio
        .bind(
            service,
            addresses.appio,
            options
                .transport
                .contains(&Transport::Quic)
                .then(|| options.quic.clone()),
            &mut binder,
        )
        .await?;
    let fleet = match addresses.fleet {
        Some(address) => Some(bind_fleet(options, address, tls.as_ref(), &mut binder).await?),
        None => None,
    };
    let health = match addresses.health {
        Some(address) => Some(binder.bind(address, "--health-server-address").await?),
        None => None,
    };
    if let Some(health) = &health {
        info!("Starting gRPC health server on {}", health.address);
    }
    let machine = machine(options, &storage_dir);
    let metrics = Exporter::bind(options.metrics.address(), machine, &mut binder).await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let memory = Memory::new(options.memory_budget);
    let state = state::backend(options, &storage_dir, &clock, memory).await?;
    info!(bytes = memory.bytes(), "memory budget");
    let parts = Parts {
        memory,
        keep_runs: options.keep_runs,
        control,
        appio,
        fleet,
        health,
        metrics,
        tls: tls.map(|tls| tls.control),
        renewals: security.renewals,
        storage_dir,
        hold_max: options.hold_seconds,
    };
    Ok((state, parts, own))
}

/// What metrics tell of files and folders.
fn machine(options: &SuperLinkOptions, storage_dir: &Path) -> Machine {
    let machine = Machine::new("superlink").folder("storage", storage_dir.to_path_buf());
    match options.database_file() {
        Some(database) => machine.database(PathBuf::from(database)),
        None => machine,
    }
}

async fn bind_fleet(
    options: &SuperLinkOptions,
    address: Address,
    tls: Option<&LinkTls>,
    binder: &mut Binder,
) -> Result<Fleet, Exit> {
    if options.fleet_api_num_workers != 1 {
        warn!(
            asked = options.fleet_api_num_workers,
            "The Fleet API supports only 1 worker, which uses as many threads as it needs. Proceeding with 1."
        );
    }
    let allow_list = load_allow_list(options)?;
    let starting = |api: &str| {
        info!("Flower Deployment Runtime: Starting Fleet API ({api}) on {address}");
    };
    let is_wanted = |transport| options.transport.contains(&transport);
    let listener = if is_wanted(Transport::Grpc) {
        let listener = binder.bind(address.clone(), FLEET_FLAG).await?;
        starting(match options.fleet_api_type {
            FleetApiType::GrpcAdapter => "GrpcAdapter",
            FleetApiType::GrpcRere => "gRPC-rere",
            FleetApiType::Rest => "REST",
        });
        Some(listener)
    } else {
        None
    };
    let quic = match tls {
        Some(tls) if is_wanted(Transport::Quic) => {
            let sockets = binder.bind_udp(&address, FLEET_FLAG).await?;
            starting("QUIC");
            Some(Quic {
                sockets,
                tls: tls.nodes.clone(),
                restart_secret: tls.restart_secret,
                options: options.quic.clone(),
            })
        }
        _ => None,
    };
    Ok(Fleet {
        listener,
        quic,
        tls: tls.map(|tls| tls.fleet.clone()),
        allow_list,
        api_type: options.fleet_api_type,
    })
}

/// Serves; then, in this order: refuses new calls, ends children, finishes the calls under way.
async fn run_until_signal(
    (state, mut parts): (Backend, Parts),
    superexec: Option<SuperExec>,
    mut signals: Signals,
) -> Result<(), Exit> {
    let drain = Drain::new();
    let renewals = std::mem::take(&mut parts.renewals);
    let renewing = tokio::spawn(renewals.watch(signals.hangups(), drain.clone()));
    let watching = parts
        .fleet
        .as_ref()
        .and_then(|fleet| fleet.allow_list.clone())
        .map(|list| tokio::spawn(watch(list, drain.clone())));
    let mut serving = tokio::spawn(serve(state, parts, drain.clone()));
    let launching = superexec.map(|superexec| tokio::spawn(superexec.supervise(drain.clone())));

    let ended_early = tokio::select! {
        biased;
        signal = signals.next() => {
            info!(signal = signal.name(), "Shutting down");
            None
        }
        ended = &mut serving => Some(ended),
    };
    drain.begin();
    let second_signal = tokio::spawn(signals.die_on_next());
    join("SuperExec", launching).await;
    join("allow list", watching).await;
    join("certificates", Some(renewing)).await;
    let outcome = match ended_early {
        Some(Ok(Ok(()))) => Err(crashed("The services ended without being asked to.")),
        Some(ended) => flatten(ended),
        None => flatten(serving.await),
    };
    if !drain.finished(GRACE).await {
        warn!(
            calls = drain.in_flight(),
            "Cutting off calls that do not end"
        );
    }
    second_signal.abort();
    outcome
}

/// Reads the list of nodes again when it changed.
async fn watch(list: Arc<AllowList>, drain: Drain) {
    let mut ticks = interval(WATCH_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = drain.requested() => return,
            _ = ticks.tick() => {}
        }
        let list = Arc::clone(&list);
        match tokio::task::spawn_blocking(move || list.reload_if_changed()).await {
            Ok(Ok(Reload::Unchanged)) => {}
            Ok(Ok(Reload::Reloaded { before, after })) => {
                info!(
                    before,
                    "Node authentication enabled with {after} known public keys"
                );
            }
            Ok(Err(error)) => warn!(
                "The known public keys stay as they were: {}",
                sentence(&error)
            ),
            Err(error) => error!(%error, "The list of known public keys was not checked"),
        }
    }
}

async fn join(task: &'static str, handle: Option<JoinHandle<()>>) {
    if let Some(handle) = handle
        && let Err(error) = handle.await
    {
        error!(%error, task, "Background task died");
    }
}

fn flatten(ended: Result<Result<(), Exit>, tokio::task::JoinError>) -> Result<(), Exit> {
    ended.unwrap_or_else(|error| Err(crashed(&format!("The services died: {error}."))))
}

pub(super) fn crashed(context: &str) -> Exit {
    Exit::Code(Code::SERVICE_CRASHED, context.to_owned())
}

const SERVERAPPIO: appio::Service = appio::Service {
    starting: "Flower Deployment Runtime: Starting ServerAppIo API on",
    flag: "--serverappio-api-address",
};
const SIMULATIONIO: appio::Service = appio::Service {
    starting: "Flower Simulation Engine: Starting SimulationIo API on",
    flag: "--simulationio-api-address",
};
/// How soon a changed list of nodes counts.
const WATCH_PERIOD: Duration = Duration::from_secs(2);
/// What calls under way get to finish beyond the grace that their transport gave them.
const GRACE: Duration = Duration::from_secs(1);
/// Where the address of Fleet comes from.
const FLEET_FLAG: &str = "--fleet-api-address";
const FAREWELL: &str = "SuperLink terminated gracefully.";
