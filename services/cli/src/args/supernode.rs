//! `flwr-quic supernode`: every flag of `flower-supernode`, and a few of our own.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, ValueEnum};

use super::{
    OURS, appio::AppIoOptions, given, health::HEALTH_VARIABLE, log::LogOptions, memory_size,
    metrics::MetricsOptions, quic::QuicServerOptions, size, superexec::WarmApps,
    superlink::Isolation,
};

/// The flags of a SuperNode, as given.
#[derive(Args, Debug)]
pub(crate) struct SuperNodeOptions {
    /// Connect without TLS. Anybody on the way can read and change everything
    #[arg(long)]
    pub(crate) insecure: bool,

    /// Speak gRPC to the SuperLink (the default)
    #[arg(long, group = "carrier")]
    grpc_rere: bool,

    /// Speak through a gRPC adapter to the SuperLink
    #[arg(long, group = "carrier")]
    grpc_adapter: bool,

    /// Speak plain HTTP to the SuperLink, whose address then begins with `http://` or `https://`. Nodes do not prove
    /// who they are
    #[arg(long, group = "carrier")]
    rest: bool,

    /// The certificate of the CA that the SuperLink's certificate is signed with: a PEM file [default: the system's CAs]
    #[arg(long, value_name = "FILE")]
    pub(crate) root_certificates: Option<OsString>,

    /// A certificate that a CA of the SuperLink's --ssl-client-ca-certfile signed, for this SuperNode: a PEM file
    #[arg(long, value_name = "FILE", help_heading = OURS, env = "FLWR_QUIC_SSL_CLIENT_CERTFILE")]
    ssl_client_certfile: Option<OsString>,

    /// The private key of that certificate: a PEM file [default: the certificate is for the node's own key]
    #[arg(long, value_name = "FILE", help_heading = OURS, env = "FLWR_QUIC_SSL_CLIENT_KEYFILE")]
    ssl_client_keyfile: Option<OsString>,

    /// Where the SuperLink is
    #[arg(long, value_name = "HOST:PORT", default_value = "0.0.0.0:9092")]
    pub(crate) superlink: String,

    /// Give up on a SuperLink that cannot be reached after this many further tries [default: never]
    #[arg(long, value_name = "N")]
    pub(crate) max_retries: Option<u32>,

    /// Give up on a SuperLink that cannot be reached for this long [default: never]
    #[arg(long, value_name = "SECONDS", value_parser = wait_time, allow_negative_numbers = true)]
    pub(crate) max_wait_time: Option<Duration>,

    /// The private key that this SuperNode proves itself with: an OpenSSH file [default: a new key at every start]
    #[arg(long, value_name = "FILE")]
    auth_supernode_private_key: Option<OsString>,

    /// The public key that belongs to it: an OpenSSH file
    #[arg(long, value_name = "FILE")]
    auth_supernode_public_key: Option<OsString>,

    /// What ClientApps find as this node's configuration: `key=value` pairs separated by blanks, values as in TOML, or
    /// a TOML file
    #[arg(long, value_name = "PAIRS", allow_hyphen_values = true)]
    pub(crate) node_config: Option<String>,

    /// Where apps are installed and bundles kept [default: Flower's home directory, which is $FLWR_HOME, or
    /// $XDG_DATA_HOME/.flwr, or $HOME/.flwr]
    #[arg(long, value_name = "DIR")]
    pub(crate) flwr_dir: Option<PathBuf>,

    /// Who starts the processes that run ClientApps
    #[arg(long, value_enum, default_value_t = Isolation::Subprocess, hide_possible_values = true,
          help = "Who starts ClientApp processes: `subprocess`, this SuperNode does; `process`, you do, with \
                  `flwr-quic superexec` or `flower-superexec`")]
    pub(crate) isolation: Isolation,

    /// Where SuperExecs and ClientApps reach this SuperNode [default: 127.0.0.1:9094, with --isolation process
    /// 0.0.0.0:9094]
    #[arg(long, value_name = "HOST:PORT")]
    clientappio_api_address: Option<String>,

    /// Where to answer gRPC health checks; never TLS [default: nowhere]
    #[arg(long, value_name = "HOST:PORT", env = HEALTH_VARIABLE)]
    pub(crate) health_server_address: Option<String>,

    #[command(flatten)]
    pub(crate) appio: AppIoOptions,

    /// What carries calls to the SuperLink: `grpc`; `quic`, which a `flwr-quic superlink --transport grpc,quic`
    /// serves; or `auto`, which is QUIC where it gets through, else gRPC
    #[arg(long, value_enum, default_value_t = ClientTransport::Grpc, help_heading = OURS, hide_possible_values = true,
          env = "FLWR_QUIC_TRANSPORT")]
    pub(crate) transport: ClientTransport,

    #[command(flatten)]
    pub(crate) quic: QuicServerOptions,

    #[command(flatten)]
    pub(crate) metrics: MetricsOptions,

    /// How many ClientApps may run at once; those of one run never do
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one, help_heading = OURS)]
    pub(crate) max_concurrent_apps: usize,

    /// Where this node keeps what outlives it: who it is, what it has in hand, and the objects of messages [default:
    /// supernode/data-PORT in Flower's home directory]
    #[arg(long, value_name = "DIR", help_heading = OURS)]
    pub(crate) data_dir: Option<PathBuf>,

    /// How much may be kept there: a number of bytes, or one with K, M, G or T
    #[arg(long, value_name = "SIZE", default_value = "64G", value_parser = size, help_heading = OURS)]
    pub(crate) data_quota: u64,

    /// How much of that disk is left free: nothing more is fetched or handed in at that point
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = size, help_heading = OURS)]
    pub(crate) data_free: u64,

    /// How much memory is used for messages under way and by QUIC, together: more of them wait [default: half of what
    /// this process can have]
    #[arg(long, value_name = "SIZE", value_parser = memory_size, help_heading = OURS)]
    pub(crate) memory_budget: Option<u64>,

    /// How ClientApps are started faster than from nothing
    #[arg(long, value_enum, default_value_t = WarmApps::Fork, help_heading = OURS)]
    pub(crate) warm_apps: WarmApps,

    #[command(flatten)]
    pub(crate) log: LogOptions,
}

/// How a SuperNode speaks to a SuperLink.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Carrier {
    /// The Fleet service inside the messages of the GrpcAdapter service.
    GrpcAdapter,
    /// The Fleet service.
    GrpcRere,
    /// Protobuf over HTTP.
    Rest,
}

/// What carries the calls of a SuperNode or a SuperExec.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum ClientTransport {
    /// QUIC where it gets through, else gRPC.
    Auto,
    /// gRPC, also to stock SuperLinks.
    Grpc,
    /// QUIC.
    Quic,
}

/// A SuperNode's key files, as given.
pub(crate) enum KeyFlags<'a> {
    /// None: a key is made at every start.
    Neither,
    /// Only one of the two.
    One,
    /// Private and public.
    Both(&'a Path, &'a Path),
}

impl SuperNodeOptions {
    pub(crate) fn carrier(&self) -> Carrier {
        if self.grpc_adapter {
            Carrier::GrpcAdapter
        } else if self.rest {
            Carrier::Rest
        } else {
            Carrier::GrpcRere
        }
    }

    /// As in Flower, an empty value counts as none.
    pub(crate) fn keys(&self) -> KeyFlags<'_> {
        let given = |flag: &'_ Option<OsString>| flag.as_ref().is_some_and(|file| !file.is_empty());
        let (private, public) = (
            &self.auth_supernode_private_key,
            &self.auth_supernode_public_key,
        );
        match (private, public) {
            (Some(private_file), Some(public_file)) if given(private) && given(public) => {
                KeyFlags::Both(private_file.as_ref(), public_file.as_ref())
            }
            _ if given(private) || given(public) => KeyFlags::One,
            _ => KeyFlags::Neither,
        }
    }

    /// The certificate that is shown to the SuperLink and its key, as far as given.
    pub(crate) fn client_certificate(&self) -> [Option<&Path>; 2] {
        [&self.ssl_client_certfile, &self.ssl_client_keyfile]
            .map(|flag| given(flag.as_deref()).map(Path::new))
    }

    /// The ClientAppIo API's address. An API that only this process's own children use is not for
    /// others, unless it was said.
    pub(crate) fn clientappio_address(&self) -> &str {
        match (&self.clientappio_api_address, self.isolation) {
            (Some(address), _) => address,
            (None, Isolation::Process) => "0.0.0.0:9094",
            (None, Isolation::Subprocess) => "127.0.0.1:9094",
        }
    }
}

fn wait_time(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "must be a number of seconds, 0 or more".into())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| "must be 1 or more".into())
}
