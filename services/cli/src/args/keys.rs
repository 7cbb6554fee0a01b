//! `flwr-quic keys`: the flags.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a secret that SuperExecs prove themselves with
    JoinSecret(JoinSecret),
    /// Make a SuperNode's key pair, and add it to the list of nodes that may join
    Node(Node),
}

#[derive(Args, Debug)]
pub(crate) struct JoinSecret {
    /// Where the secret goes
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Overwrite a file that exists
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Node {
    /// Where the private key goes; the public key goes beside it, with `.pub` added
    #[arg(long, value_name = "PATH")]
    pub(crate) out: PathBuf,
    /// The CSV file of a SuperLink's --auth-list-public-keys to add the public key to; made if missing
    #[arg(long, value_name = "CSV")]
    pub(crate) list: Option<PathBuf>,
    /// Overwrite key files that exist
    #[arg(long)]
    pub(crate) force: bool,
}
