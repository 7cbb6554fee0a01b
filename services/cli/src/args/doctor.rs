//! `flwr-quic doctor`: the flags.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{supernode::ClientTransport, trust::TrustOptions};

/// What to look at, and how to say what was found.
#[derive(Args, Debug)]
pub(crate) struct DoctorOptions {
    /// The directory of the certificates [default: certificates, if it is there]
    #[arg(long, value_name = "DIR")]
    pub(crate) certificates: Option<PathBuf>,

    /// The Fleet API of the SuperLink, as SuperNodes reach it
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) superlink: Option<String>,

    /// The Control API of the SuperLink, as the `flwr` command reaches it
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) control: Option<String>,

    /// The AppIo API of a SuperLink or SuperNode, as SuperExecs reach it
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) appio: Option<String>,

    /// The gRPC health checks of a daemon (--health-server-address)
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) health: Option<String>,

    #[command(flatten)]
    pub(crate) trust: TrustOptions,

    /// Whether the SuperLink has to be reached over QUIC: `grpc`, it is not tried; `auto`, it would be better; `quic`, it
    /// has to be
    #[arg(long, value_enum, default_value_t = ClientTransport::Auto, hide_possible_values = true)]
    pub(crate) transport: ClientTransport,

    /// Names and addresses that the server's certificate has to be valid for, beside those given above; may be repeated
    #[arg(long, value_name = "NAME_OR_IP", action = clap::ArgAction::Append)]
    pub(crate) host: Vec<String>,

    /// The user who has to be able to read the certificates, such as 49999 in containers; keys with --strict by nobody
    /// else
    #[arg(long, value_name = "UID")]
    pub(crate) uid: Option<u32>,

    /// Ports of this machine that have to be free, separated by commas
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    pub(crate) free: Vec<u16>,

    /// As in production: private keys that others can read are problems, not only worth a warning
    #[arg(long)]
    pub(crate) strict: bool,

    /// How long to wait for each answer
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) timeout: u64,

    /// How to say what was found
    #[arg(long, value_enum, default_value_t = OutputFormat::Human)]
    pub(crate) format: OutputFormat,
}

/// How a command answers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Lines that a person reads
    #[default]
    Human,
    /// One JSON object
    Json,
}
