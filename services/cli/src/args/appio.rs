//! The flags of a daemon's AppIo service, beside its address.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;

use super::{OURS, given};

/// How a daemon serves the apps of its site and those that launch them.
#[derive(Args, Debug)]
pub(crate) struct AppIoOptions {
    /// The certificate of the AppIo API: a PEM file, with intermediate certificates if there are any
    #[arg(long, value_name = "FILE", help_heading = OURS)]
    appio_ssl_certfile: Option<OsString>,

    /// The private key of the AppIo API's certificate: a PEM file
    #[arg(long, value_name = "FILE", help_heading = OURS)]
    appio_ssl_keyfile: Option<OsString>,

    /// The certificate of the CA that signed the AppIo API's certificate: a PEM file
    #[arg(long, value_name = "FILE", help_heading = OURS)]
    appio_ssl_ca_certfile: Option<OsString>,

    /// Let only SuperExecs in that also show a certificate that this CA signed: a PEM file
    #[arg(long, value_name = "FILE", help_heading = OURS)]
    appio_ssl_client_ca_certfile: Option<OsString>,

    /// The secret that SuperExecs prove themselves with; `flwr-quic keys join-secret` makes one
    #[arg(long, value_name = "FILE", help_heading = OURS)]
    appio_join_secret_file: Option<OsString>,

    /// Where to serve the AppIo API also without TLS, for stock apps and SuperExecs [default: nowhere]
    #[arg(long, value_name = "HOST:PORT", help_heading = OURS)]
    pub(crate) appio_plaintext_address: Option<String>,
}

impl AppIoOptions {
    /// CA certificate, certificate and private key, as far as given.
    pub(crate) fn certificate_paths(&self) -> [Option<PathBuf>; 3] {
        [
            &self.appio_ssl_ca_certfile,
            &self.appio_ssl_certfile,
            &self.appio_ssl_keyfile,
        ]
        .map(|flag| given(flag.as_deref()).map(PathBuf::from))
    }

    /// The CA of the certificates that SuperExecs have to show.
    pub(crate) fn client_ca(&self) -> Option<PathBuf> {
        given(self.appio_ssl_client_ca_certfile.as_deref()).map(PathBuf::from)
    }

    /// The file of the join secret.
    pub(crate) fn join_secret_file(&self) -> Option<PathBuf> {
        given(self.appio_join_secret_file.as_deref()).map(PathBuf::from)
    }
}
