//! `flwr-quic status`: the flags.

use std::path::PathBuf;

use clap::Args;

use super::doctor::OutputFormat;

/// Whom to ask, and how to say what they answer.
#[derive(Args, Debug)]
pub(crate) struct StatusOptions {
    /// The Control API of the SuperLink, as the `flwr` command reaches it
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9093")]
    pub(crate) control: String,

    /// The metrics of the SuperLink (its --metrics-address), which know nodes, rounds and transfers [default: runs alone
    /// are shown]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) metrics: Option<String>,

    /// The CA that the SuperLink's certificate is signed with: a PEM file [default: the system's CAs]
    #[arg(long, value_name = "FILE")]
    pub(crate) root_certificates: Option<PathBuf>,

    /// The SuperLink has no TLS
    #[arg(long, conflicts_with = "root_certificates")]
    pub(crate) insecure: bool,

    /// A certificate to show to a SuperLink that demands one (its --control-ssl-client-ca-certfile): a PEM file
    #[arg(long, value_name = "FILE", requires = "ssl_client_keyfile")]
    pub(crate) ssl_client_certfile: Option<PathBuf>,

    /// The private key of that certificate: a PEM file
    #[arg(long, value_name = "FILE", requires = "ssl_client_certfile")]
    pub(crate) ssl_client_keyfile: Option<PathBuf>,

    /// Show it again and again, every so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) watch: Option<u64>,

    /// How long to wait for each answer
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) timeout: u64,

    /// How to say it; with --watch, one JSON object a line
    #[arg(long, value_enum, default_value_t = OutputFormat::Human)]
    pub(crate) format: OutputFormat,
}
