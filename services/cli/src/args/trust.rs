//! The flags of commands that look at servers: whom they trust and what they show.

use std::path::PathBuf;

use clap::Args;

/// Whether there is TLS, and whose.
#[derive(Args, Debug)]
pub(crate) struct TrustOptions {
    /// The CA that the certificates of servers are signed with: a PEM file [default: the system's CAs; doctor: ca.crt among
    /// the certificates, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(crate) root_certificates: Option<PathBuf>,

    /// Servers have no TLS
    #[arg(long, conflicts_with = "root_certificates")]
    pub(crate) insecure: bool,

    /// A certificate to show to servers that demand one: a PEM file
    #[arg(long, value_name = "FILE", requires = "ssl_client_keyfile")]
    pub(crate) ssl_client_certfile: Option<PathBuf>,

    /// The private key of that certificate: a PEM file
    #[arg(long, value_name = "FILE", requires = "ssl_client_certfile")]
    pub(crate) ssl_client_keyfile: Option<PathBuf>,
}
