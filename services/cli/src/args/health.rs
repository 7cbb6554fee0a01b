//! `flwr-quic health`: the flags.

use std::{ffi::OsString, time::Duration};

use clap::Args;

/// Whom to ask how it is.
#[derive(Args, Debug)]
pub(crate) struct HealthOptions {
    /// The `--health-server-address` of a SuperLink, SuperNode or SuperExec; with --root-certificates, any address at
    /// which a SuperLink or SuperNode serves
    #[arg(value_name = "HOST:PORT", env = HEALTH_VARIABLE)]
    pub(crate) address: String,

    /// Ask over TLS, and trust this CA: a PEM file. Health checks are served without TLS only; at other addresses it
    /// counts that an API of Flower answers
    #[arg(long, value_name = "FILE")]
    pub(crate) root_certificates: Option<OsString>,

    /// How many seconds the answer may take
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 1..=3600) => Ok(Duration::from_secs(seconds)),
        _ => Err("must be a number of seconds from 1 to 3600".into()),
    }
}

/// What says to daemons where they answer health checks, and to this command where to ask. A daemon's children are not
/// meant.
pub(crate) const HEALTH_VARIABLE: &str = "FLWR_QUIC_HEALTH_SERVER_ADDRESS";
