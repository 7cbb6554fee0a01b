//! `flwr-quic status`: the flags.

use clap::Args;

use super::{doctor::OutputFormat, trust::TrustOptions};

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

    #[command(flatten)]
    pub(crate) trust: TrustOptions,

    /// Show it again and again, every so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) watch: Option<u64>,

    /// How long to wait for each answer
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) timeout: u64,

    /// How to say it; with --watch, one JSON object a line, which has an `error` and nothing else if there is no answer
    #[arg(long, value_enum, default_value_t = OutputFormat::Human)]
    pub(crate) format: OutputFormat,
}
