//! TLS of whoever connects: what a refusal means; and of the commands that look at servers, whom they trust and what they
//! show.

use std::path::{Path, PathBuf};

use flwr_certs::{ClientCertificate, ClientTls};
use flwr_state::{Clock as _, SystemClock};
use flwr_transport::ConnectError;

use crate::{args::trust::TrustOptions, exit::sentence};

/// As the flags say; none with `--insecure`. Without a flag, the CAs in `roots` are trusted, or those of the system.
///
/// # Errors
/// The file that cannot be used, and why.
pub(crate) fn client_tls(
    trust: &TrustOptions,
    roots: Option<PathBuf>,
) -> Result<Option<ClientTls>, (PathBuf, String)> {
    if trust.insecure {
        return Ok(None);
    }
    let roots = trust.root_certificates.clone().or(roots);
    let tls = ClientTls::load(roots.as_deref(), None).map_err(|error| {
        let path = roots.unwrap_or_else(|| Path::new("the system's CAs").to_owned());
        (path, sentence(&error))
    })?;
    let Some(certificate) = &trust.ssl_client_certfile else {
        return Ok(Some(tls));
    };
    let (key, now) = (
        trust.ssl_client_keyfile.as_deref(),
        SystemClock.now().seconds(),
    );
    let loaded = ClientCertificate::load(certificate, key, None, now);
    let loaded = loaded.map_err(|error| (certificate.clone(), sentence(&error)))?;
    Ok(Some(tls.showing(&loaded)))
}

/// What a QUIC handshake with `host` means that this TLS alert ended.
pub(crate) fn explain_alert(tls: &ClientTls, host: &str, alert: u8, why: &str) -> ConnectError {
    let error = tls.explain_alert(host, alert, why);
    ConnectError {
        retryable: error.is_retryable(),
        message: sentence(&error),
    }
}
