//! Flags of metrics, which all daemons have.

use clap::Args;

use super::OURS;

/// Where metrics are, as given.
#[derive(Args, Clone, Debug)]
pub(crate) struct MetricsOptions {
    /// Where Prometheus finds metrics (`/metrics`), and whoever asks that this process is up (`/healthz`); never TLS
    /// [default: nowhere]
    #[arg(long, value_name = "HOST:PORT", help_heading = OURS, env = METRICS_VARIABLE)]
    metrics_address: Option<String>,
}

impl MetricsOptions {
    /// The address. As in Flower, an empty value counts as none.
    pub(crate) fn address(&self) -> Option<&str> {
        self.metrics_address
            .as_deref()
            .filter(|address| !address.is_empty())
    }
}

/// What says the same as the flag, to one process: its children are not meant.
pub(crate) const METRICS_VARIABLE: &str = "FLWR_QUIC_METRICS_ADDRESS";
