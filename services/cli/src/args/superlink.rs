//! `flwr-quic superlink`: every flag of `flower-superlink`, and a few of our own.
//!
//! Flags whose mere presence matters are options without a default here; [`SuperLinkOptions`] has a method for each of
//! the values in force. As in Flower, an empty value of a path flag counts as none.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    path::PathBuf,
    time::Duration,
};

use clap::{Args, ValueEnum};
use flwr_superlink::Runtime;

use super::{
    OURS, appio::AppIoOptions, given, health::HEALTH_VARIABLE, log::LogOptions, memory_size,
    metrics::MetricsOptions, quic::QuicServerOptions, size, superexec::WarmApps,
};

/// The flags of a SuperLink, as given.
#[derive(Args, Debug)]
pub(crate) struct SuperLinkOptions {
    /// Serve Fleet and Control without TLS; the --ssl flags are ignored. Anybody on the way can read and change
    /// everything
    #[arg(long)]
    pub(crate) insecure: bool,

    /// Ignored: a SuperLink installs no apps
    #[arg(long, value_name = "DIR", help_heading = DEPRECATED)]
    pub(crate) flwr_dir: Option<OsString>,

    /// The certificate of the Fleet and Control APIs: a PEM file, with intermediate certificates if there are any
    #[arg(long, value_name = "FILE")]
    pub(crate) ssl_certfile: Option<OsString>,

    /// The private key of the certificate: a PEM file
    #[arg(long, value_name = "FILE")]
    pub(crate) ssl_keyfile: Option<OsString>,

    /// The certificate of the CA that signed the certificate: a PEM file
    #[arg(long, value_name = "FILE")]
    pub(crate) ssl_ca_certfile: Option<OsString>,

    /// Let only SuperNodes in that show a certificate that this CA signed: a PEM file. The list of keys that may join
    /// holds beside it
    #[arg(long, value_name = "FILE", help_heading = OURS, env = "FLWR_QUIC_SSL_CLIENT_CA_CERTFILE")]
    ssl_client_ca_certfile: Option<OsString>,

    /// Let only users in that show a certificate that this CA signed: a PEM file. Stock `flwr` cannot show one
    #[arg(long, value_name = "FILE", help_heading = OURS, env = "FLWR_QUIC_CONTROL_SSL_CLIENT_CA_CERTFILE")]
    control_ssl_client_ca_certfile: Option<OsString>,

    /// Who starts the processes that run ServerApps
    #[arg(long, value_enum, default_value_t = Isolation::Subprocess, hide_possible_values = true,
          help = "Who starts ServerApp processes: `subprocess`, this SuperLink does; `process`, you do, with \
                  `flower-superexec`")]
    pub(crate) isolation: Isolation,

    /// The SQLite file that keeps the state, which is made if it is not there: a SuperLink that ends in any way goes on
    /// where it was [default: state is kept in memory]
    #[arg(long, value_name = "FILE")]
    pub(crate) database: Option<OsString>,

    /// Where FABs are stored, and the objects of a SuperLink with a database [default: superlink/ffs in Flower's home
    /// directory, which is $FLWR_HOME, or $XDG_DATA_HOME/.flwr, or $HOME/.flwr]
    #[arg(long, value_name = "DIR")]
    storage_dir: Option<OsString>,

    /// How much the objects of messages under way may take there: a number of bytes, or one with K, M, G or T [default:
    /// the disk, less --storage-free]
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = OURS)]
    pub(crate) storage_quota: Option<u64>,

    /// How much of that disk is left free: uploads are refused at that point, and everything else goes on
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = size, help_heading = OURS)]
    pub(crate) storage_free: u64,

    /// How many days runs that have finished, and their logs, are kept; at most 10,000 of them
    #[arg(long, value_name = "DAYS", default_value = "90", value_parser = days, help_heading = OURS)]
    pub(crate) keep_runs: Duration,

    /// How much memory is used for messages under way, for objects that are kept in memory, and by QUIC, together: more
    /// of them wait, or go to files [default: half of what this process can have]
    #[arg(long, value_name = "SIZE", value_parser = memory_size, help_heading = OURS)]
    pub(crate) memory_budget: Option<u64>,

    /// A CSV file of the OpenSSH public keys of the SuperNodes that may join; read again when it changes
    #[arg(long, value_name = "FILE")]
    auth_list_public_keys: Option<OsString>,

    /// Deprecated and without effect
    #[arg(long, value_name = "FILE", help_heading = DEPRECATED)]
    auth_superlink_private_key: Option<OsString>,

    /// Deprecated and without effect
    #[arg(long, value_name = "FILE", help_heading = DEPRECATED)]
    auth_superlink_public_key: Option<OsString>,

    /// Where SuperExecs and ServerApps reach this SuperLink [default: 127.0.0.1:9091, or 0.0.0.0:9091 with
    /// --isolation process]
    #[arg(long, value_name = "HOST:PORT")]
    serverappio_api_address: Option<String>,

    /// How SuperNodes speak to this SuperLink
    #[arg(long, value_enum, default_value_t = FleetApiType::GrpcRere)]
    pub(crate) fleet_api_type: FleetApiType,

    /// Where SuperNodes reach this SuperLink [default: 0.0.0.0:9092, or 0.0.0.0:9095 with --fleet-api-type rest]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) fleet_api_address: Option<String>,

    /// Only 1 is supported; threads are used as needed
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        allow_negative_numbers = true
    )]
    pub(crate) fleet_api_num_workers: i64,

    /// Where the `flwr` command reaches this SuperLink [default: 0.0.0.0:9093]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) control_api_address: Option<String>,

    /// Deprecated, use --control-api-address
    #[arg(long, value_name = "HOST:PORT", help_heading = DEPRECATED)]
    pub(crate) exec_api_address: Option<String>,

    /// Removed from Flower: an error if given
    #[arg(long, help_heading = DEPRECATED)]
    pub(crate) executor: Option<OsString>,

    /// Removed from Flower: an error if given
    #[arg(long, help_heading = DEPRECATED)]
    executor_dir: Option<OsString>,

    /// Removed from Flower: an error if given
    #[arg(long, help_heading = DEPRECATED)]
    executor_config: Option<OsString>,

    /// Run simulations, which need no SuperNodes: SimulationIo is served instead of ServerAppIo and Fleet
    #[arg(long)]
    simulation: bool,

    /// Where SuperExecs and simulations reach this SuperLink, with --simulation [default: 127.0.0.1:9096, or
    /// 0.0.0.0:9096 with --isolation process]
    #[arg(long, value_name = "HOST:PORT")]
    simulationio_api_address: Option<String>,

    /// Where to answer gRPC health checks; never TLS [default: nowhere]
    #[arg(long, value_name = "HOST:PORT", env = HEALTH_VARIABLE)]
    pub(crate) health_server_address: Option<String>,

    /// How SuperExecs and ServerApps are served
    #[command(flatten)]
    pub(crate) appio: AppIoOptions,

    /// What SuperNodes are served over, separated by commas: `grpc` (TCP) for all, `quic` (UDP, same port) for
    /// `flwr-quic supernode`. Everybody else is served over gRPC in any case
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', default_value = "grpc", help_heading = OURS,
          hide_possible_values = true, env = "FLWR_QUIC_TRANSPORT")]
    pub(crate) transport: Vec<Transport>,

    #[command(flatten)]
    pub(crate) quic: QuicServerOptions,

    #[command(flatten)]
    pub(crate) metrics: MetricsOptions,

    /// Hold no unanswerable call longer than this; 0 answers at once [default: as long as each call allows]
    #[arg(long, value_name = "N", value_parser = seconds, allow_negative_numbers = true, help_heading = OURS)]
    pub(crate) hold_seconds: Option<Duration>,

    /// How ServerApps are started faster than from nothing
    #[arg(long, value_enum, default_value_t = WarmApps::Fork, help_heading = OURS)]
    pub(crate) warm_apps: WarmApps,

    #[command(flatten)]
    pub(crate) log: LogOptions,
}

/// Who starts ServerApp processes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Isolation {
    /// The operator.
    Process,
    /// The SuperLink.
    Subprocess,
}

/// How SuperNodes speak to a SuperLink.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum FleetApiType {
    /// The Fleet service.
    GrpcRere,
    /// The Fleet service inside the messages of the GrpcAdapter service; nodes are not authenticated.
    GrpcAdapter,
    /// The messages of the Fleet service over plain HTTP; nodes are not authenticated.
    Rest,
}

impl fmt::Display for FleetApiType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GrpcRere => "grpc-rere",
            Self::GrpcAdapter => "grpc-adapter",
            Self::Rest => "rest",
        })
    }
}

/// What peers are served over.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Transport {
    /// gRPC, for stock Flower programs.
    Grpc,
    /// QUIC, between our own programs.
    Quic,
}

impl SuperLinkOptions {
    /// Whether one of the flags of the removed executor plug-ins is set.
    pub(crate) fn has_executor_flags(&self) -> bool {
        [&self.executor, &self.executor_dir, &self.executor_config]
            .into_iter()
            .any(|flag| given(flag.as_deref()).is_some())
    }

    /// Whether one of the deprecated key flags of the SuperLink itself is set.
    pub(crate) fn has_superlink_key_flags(&self) -> bool {
        [
            &self.auth_superlink_private_key,
            &self.auth_superlink_public_key,
        ]
        .into_iter()
        .any(|flag| given(flag.as_deref()).is_some())
    }

    /// The ServerAppIo API's address: this machine's own where nobody from outside has to reach it.
    pub(crate) fn serverappio_address(&self) -> &str {
        self.serverappio_api_address
            .as_deref()
            .unwrap_or(match self.isolation {
                Isolation::Process => "0.0.0.0:9091",
                Isolation::Subprocess => "127.0.0.1:9091",
            })
    }

    /// The SimulationIo API's address; see [`serverappio_address`](Self::serverappio_address).
    pub(crate) fn simulationio_address(&self) -> &str {
        self.simulationio_api_address
            .as_deref()
            .unwrap_or(match self.isolation {
                Isolation::Process => "0.0.0.0:9096",
                Isolation::Subprocess => "127.0.0.1:9096",
            })
    }

    /// What executes runs.
    pub(crate) fn runtime(&self) -> Runtime {
        if self.simulation {
            Runtime::Simulation
        } else {
            Runtime::Deployment
        }
    }

    /// The Control API's address.
    pub(crate) fn control_address(&self) -> &str {
        self.exec_api_address
            .as_deref()
            .or(self.control_api_address.as_deref())
            .unwrap_or("0.0.0.0:9093")
    }

    /// The Fleet API's address.
    pub(crate) fn fleet_address(&self) -> &str {
        self.fleet_api_address
            .as_deref()
            .filter(|address| !address.is_empty())
            .unwrap_or(match self.fleet_api_type {
                FleetApiType::GrpcAdapter | FleetApiType::GrpcRere => "0.0.0.0:9092",
                FleetApiType::Rest => "0.0.0.0:9095",
            })
    }

    /// CA certificate, certificate and private key, as far as given.
    pub(crate) fn certificate_paths(&self) -> [Option<PathBuf>; 3] {
        [&self.ssl_ca_certfile, &self.ssl_certfile, &self.ssl_keyfile]
            .map(|flag| given(flag.as_deref()).map(PathBuf::from))
    }

    /// The CA of the certificates that SuperNodes have to show.
    pub(crate) fn client_ca(&self) -> Option<PathBuf> {
        given(self.ssl_client_ca_certfile.as_deref()).map(PathBuf::from)
    }

    /// The CA of the certificates that users have to show.
    pub(crate) fn control_client_ca(&self) -> Option<PathBuf> {
        given(self.control_ssl_client_ca_certfile.as_deref()).map(PathBuf::from)
    }

    /// The database to keep state in, unless it is one of the names for keeping it in memory.
    pub(crate) fn database_file(&self) -> Option<&OsStr> {
        self.database
            .as_deref()
            .filter(|database| !IN_MEMORY.iter().any(|memory| database == memory))
    }

    /// The list of keys that may join.
    pub(crate) fn key_list(&self) -> Option<PathBuf> {
        given(self.auth_list_public_keys.as_deref()).map(PathBuf::from)
    }

    /// Where FABs go, if it was said.
    pub(crate) fn storage_dir(&self) -> Option<PathBuf> {
        given(self.storage_dir.as_deref()).map(PathBuf::from)
    }
}

fn days(text: &str) -> Result<Duration, String> {
    let days: u32 = text.parse().map_err(|_| "must be a number of days")?;
    Ok(Duration::from_secs(u64::from(days) * 24 * 3600))
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|hold| *hold <= HOLD_MAX)
        .ok_or_else(|| {
            format!(
                "must be a number of seconds from 0 to {}",
                HOLD_MAX.as_secs()
            )
        })
}

/// Flower's default of `--database`, and SQLite's name for the same; nothing counts as not given.
const IN_MEMORY: [&str; 3] = [":flwr-in-memory-state:", ":memory:", ""];
/// No call is ever held for so long; a greater number is a slip.
const HOLD_MAX: Duration = Duration::from_secs(86_400);
const DEPRECATED: &str = "Deprecated options";
