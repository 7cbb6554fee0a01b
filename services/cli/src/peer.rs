//! TLS of the commands that look at servers: whom they trust and what they show.

use std::path::{Path, PathBuf};

use flwr_certs::{ClientCertificate, ClientTls};
use flwr_state::{Clock as _, SystemClock};

use crate::exit::sentence;

/// The files of a certificate to show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown<'a> {
    certificate: &'a Path,
    key: &'a Path,
}

impl<'a> Shown<'a> {
    /// Both, or none; the command line lets nothing else through.
    pub(crate) fn given(certificate: Option<&'a Path>, key: Option<&'a Path>) -> Option<Self> {
        Some(Self {
            certificate: certificate?,
            key: key?,
        })
    }
}

/// Trusts the CAs in `roots`, or those of the system.
///
/// # Errors
/// The file that cannot be used, and why.
pub(crate) fn client_tls(
    roots: Option<&Path>,
    shown: Option<Shown<'_>>,
) -> Result<ClientTls, (PathBuf, String)> {
    let tls = ClientTls::load(roots, None).map_err(|error| {
        let path = roots.unwrap_or_else(|| Path::new("the system's CAs"));
        (path.to_owned(), sentence(&error))
    })?;
    let Some(Shown { certificate, key }) = shown else {
        return Ok(tls);
    };
    let now = SystemClock.now().seconds();
    let loaded = ClientCertificate::load(certificate, Some(key), None, now);
    let loaded = loaded.map_err(|error| (certificate.to_owned(), sentence(&error)))?;
    Ok(tls.showing(&loaded))
}
