//! `flwr-quic superexec`: every flag of `flower-superexec`, and a few of our own.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use flwr_superexec::Kind;

use super::{
    OURS, given, health::HEALTH_VARIABLE, log::LogOptions, metrics::MetricsOptions,
    quic::QuicOptions, supernode::ClientTransport,
};

/// The flags of a SuperExec, as given.
#[derive(Args, Debug)]
pub(crate) struct SuperExecOptions {
    /// Where the SuperLink or SuperNode is that apps are launched for
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) appio_api_address: String,

    /// What is launched
    #[arg(long, value_enum)]
    pub(crate) plugin_type: PluginType,

    /// Connect without TLS. Anybody on the way can read and change everything
    #[arg(long)]
    pub(crate) insecure: bool,

    /// The certificate of the CA that the daemon's certificate is signed with: a PEM file [default: the system's CAs]
    #[arg(long, value_name = "FILE", help_heading = OURS)]
    pub(crate) root_certificates: Option<OsString>,

    /// A certificate that a CA of the daemon's --appio-ssl-client-ca-certfile signed, for this SuperExec: a PEM file
    #[arg(long, value_name = "FILE", help_heading = OURS)]
    ssl_client_certfile: Option<OsString>,

    /// The private key of that certificate: a PEM file
    #[arg(long, value_name = "FILE", help_heading = OURS)]
    ssl_client_keyfile: Option<OsString>,

    /// Where apps are installed [default: Flower's home directory, which is $FLWR_HOME, or $XDG_DATA_HOME/.flwr, or
    /// $HOME/.flwr]
    #[arg(long, value_name = "DIR")]
    pub(crate) flwr_dir: Option<PathBuf>,

    /// End when this process is gone
    #[arg(long, value_name = "PID")]
    pub(crate) parent_pid: Option<i32>,

    /// When the process of `--parent-pid` is gone, start nothing more, and end with the last app: a SuperLink that keeps
    /// its state goes on with them after its restart
    #[arg(long, hide = true, help_heading = OURS)]
    pub(crate) outlive_parent: bool,

    /// Where to answer gRPC health checks; never TLS [default: nowhere]
    #[arg(long, value_name = "HOST:PORT", env = HEALTH_VARIABLE)]
    pub(crate) health_server_address: Option<String>,

    /// What carries calls to the daemon: `grpc`; `quic`, which our daemons serve beside it with TLS and `--transport`
    /// with `quic`; or `auto`, which is QUIC where it gets through, else gRPC
    #[arg(long, value_enum, default_value_t = ClientTransport::Grpc, help_heading = OURS, hide_possible_values = true,
          env = "FLWR_QUIC_APPIO_TRANSPORT")]
    pub(crate) appio_transport: ClientTransport,

    #[command(flatten)]
    pub(crate) quic: QuicOptions,

    #[command(flatten)]
    pub(crate) metrics: MetricsOptions,

    /// A file with the secret that the daemon lets launchers in by [default: the value of $FLWR_QUIC_JOIN_SECRET]
    #[arg(long, value_name = "FILE", help_heading = OURS)]
    pub(crate) appio_join_secret_file: Option<PathBuf>,

    /// How apps are started faster than from nothing
    #[arg(long, value_enum, default_value_t = WarmApps::Fork, help_heading = OURS)]
    pub(crate) warm_apps: WarmApps,

    #[command(flatten)]
    pub(crate) log: LogOptions,
}

impl SuperExecOptions {
    /// The certificate that is shown to the daemon and its key, as far as given.
    pub(crate) fn client_certificate(&self) -> [Option<&Path>; 2] {
        [&self.ssl_client_certfile, &self.ssl_client_keyfile]
            .map(|flag| given(flag.as_deref()).map(Path::new))
    }
}

/// What a SuperExec launches.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
#[value(rename_all = "lower")]
pub(crate) enum PluginType {
    /// ClientApps, for a SuperNode
    ClientApp,
    /// ServerApps, for a SuperLink
    ServerApp,
    /// Simulations, for a SuperLink
    Simulation,
}

impl PluginType {
    /// What the launcher calls it.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::ClientApp => Kind::ClientApp,
            Self::ServerApp => Kind::ServerApp,
            Self::Simulation => Kind::Simulation,
        }
    }
}

/// How apps are started.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum WarmApps {
    /// A new interpreter for every app
    Off,
    /// An interpreter is started ahead and waits for its app
    Prestart,
    /// Apps are forked off an interpreter that has Flower loaded
    Fork,
}
