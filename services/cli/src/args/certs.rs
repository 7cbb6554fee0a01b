//! `flwr-quic certs`: the flags.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What to do with certificates.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a certificate authority
    Ca(Ca),
    /// Make the SuperLink's certificate, signed by the certificate authority
    Server(Server),
    /// Make the certificate of client N, signed by the certificate authority
    Client(Client),
    /// Make certificates of the SuperLink and of clients anew, with the same names and keys, before they expire
    Renew(Renew),
    /// Check that certificates are valid, belong together and fit their keys
    Verify(Verify),
    /// Show what certificate files hold
    Show(Show),
}

#[derive(Args, Debug)]
pub(crate) struct Ca {
    #[command(flatten)]
    pub(crate) place: Place,
    /// The name of the certificate authority
    #[arg(long, value_name = "CN", default_value = "Flower federation CA")]
    pub(crate) name: String,
    /// Make the CA after the one that is there: it signs from now on, and ca.crt holds both
    #[arg(long, conflicts_with = "force")]
    pub(crate) rollover: bool,
    /// Take the CAs before the one that signs out of ca.crt. Refused while a certificate in the directory is signed by one
    /// of them, unless --force is given; what was handed out is for you to know
    #[arg(long, conflicts_with = "rollover")]
    pub(crate) retire: bool,
    /// With either of them: write into the files that are there instead of replacing them, for files that are mounted one
    /// by one into containers
    #[arg(long)]
    pub(crate) in_place: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Renew {
    /// The directory of the certificates
    #[arg(long, value_name = "DIR", default_value = "certificates")]
    pub(crate) dir: PathBuf,
    /// Renew all, not only what expires soon or was signed by a former CA; also what no CA in ca.crt has signed
    #[arg(long)]
    pub(crate) all: bool,
    /// How many days before it expires a certificate is due
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    pub(crate) within: u32,
    /// Make new keys as well
    #[arg(long)]
    pub(crate) new_keys: bool,
    /// Write into the files that are there instead of replacing them, for files that are mounted one by one into
    /// containers
    #[arg(long)]
    pub(crate) in_place: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Server {
    #[command(flatten)]
    pub(crate) place: Place,
    /// A name or IP address that peers use, beside superlink, localhost, 127.0.0.1 and ::1; may be repeated
    #[arg(long, value_name = "NAME_OR_IP", action = clap::ArgAction::Append)]
    pub(crate) san: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Client {
    /// The number of the client
    #[arg(value_name = "N")]
    pub(crate) number: u32,
    /// The public key file of a SuperNode, to make the certificate for the key that it has [default: a new key]
    #[arg(long, value_name = "FILE")]
    pub(crate) node_key: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) place: Place,
    /// A name or IP address of the client; may be repeated
    #[arg(long, value_name = "NAME_OR_IP", action = clap::ArgAction::Append)]
    pub(crate) san: Vec<String>,
}

/// Where files go.
#[derive(Args, Debug)]
pub(crate) struct Place {
    /// The directory of the certificates
    #[arg(long, value_name = "DIR", default_value = "certificates")]
    pub(crate) dir: PathBuf,
    /// Overwrite files that exist
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Verify {
    /// The directory of the certificates
    #[arg(long, value_name = "DIR", default_value = "certificates", conflicts_with_all = ["ca", "cert", "key"])]
    pub(crate) dir: PathBuf,
    /// The certificate of a certificate authority, to check single files
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) ca: Option<PathBuf>,
    /// The certificate to check
    #[arg(long, value_name = "FILE", requires = "ca")]
    pub(crate) cert: Option<PathBuf>,
    /// The private key of the certificate
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// The name or IP address that the certificate must be valid for
    #[arg(long, value_name = "NAME_OR_IP")]
    pub(crate) host: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Show {
    /// PEM files of certificates
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
}
