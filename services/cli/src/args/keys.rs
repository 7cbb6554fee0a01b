//! `flwr-quic keys`: the flags.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

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
    /// The kind of the key: `p384`, which stock Flower knows as well; or `ed25519`, for our own SuperNodes and SuperLinks
    #[arg(long = "type", value_name = "TYPE", value_enum, default_value_t = KeyType::P384, hide_possible_values = true)]
    pub(crate) key_type: KeyType,
    /// Overwrite key files that exist
    #[arg(long)]
    pub(crate) force: bool,
}

/// The kinds of keys that are made.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum KeyType {
    /// Ed25519, which stock Flower does not know.
    Ed25519,
    /// ECDSA on P-384.
    P384,
}
