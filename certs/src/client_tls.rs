//! The TLS side of a client: which CAs it trusts, and the rustls configuration made of them.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    AlertDescription, ClientConfig, RootCertStore,
    version::{TLS12, TLS13},
};

use crate::{
    client_certificate::ClientCertificate,
    handshake::HandshakeError,
    inspect,
    judged::Judge,
    pem_file::{self, FileError},
    tls::{ALPN_H2, provider},
};

/// A client's TLS configuration, and where its trust comes from.
#[derive(Clone, Debug)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    trust: Trust,
    judge: Arc<Judge>,
}

/// Whom a client trusts.
#[derive(Clone, Debug)]
pub(crate) enum Trust {
    /// The CAs in this file.
    File(PathBuf),
    /// The CAs that the system trusts.
    System,
}

/// The PEM files that a client proves with who it is.
#[derive(Clone, Copy, Debug)]
pub struct OwnFiles<'a> {
    /// The certificate and its chain.
    pub certificate: &'a Path,
    /// The private key.
    pub key: &'a Path,
}

impl ClientTls {
    /// TLS 1.2 and 1.3, ALPN `h2`. Trusts the CAs in the PEM file `roots`, or without one those that the system trusts.
    /// Shows `own` to servers that ask for a certificate.
    ///
    /// # Errors
    /// When a file is missing or unusable, the key does not fit the certificate, or there is no CA to trust. Each is one
    /// sentence that says what to do.
    pub fn load(roots: Option<&Path>, own: Option<OwnFiles<'_>>) -> Result<Self, ClientTlsError> {
        let (store, trust) = match roots {
            Some(path) => (roots_in(path)?, Trust::File(path.into())),
            None => (roots_of_system()?, Trust::System),
        };
        let provider = Arc::new(provider());
        let judge = Judge::new(store, Arc::clone(&provider))
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let judge = Arc::new(judge);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&judge) as _);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let chain = pem_file::read_certificates(files.certificate)?;
                let key = pem_file::read_key(files.key)?;
                if !inspect::key_fits(&chain, key.clone_key()) {
                    return Err(ClientTlsError::KeyMismatch {
                        certificate: files.certificate.into(),
                        key: files.key.into(),
                    });
                }
                builder.with_client_auth_cert(chain, key)?
            }
        };
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        Ok(Self {
            config: Arc::new(config),
            trust,
            judge,
        })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }

    /// The same, showing `certificate` to servers that ask for one.
    #[must_use]
    pub fn showing(mut self, certificate: &ClientCertificate) -> Self {
        self.config = Arc::new(certificate.shown_by(&self.config));
        self
    }

    /// What a failed handshake with `host` means.
    #[must_use]
    pub fn explain(&self, host: &str, error: &io::Error) -> HandshakeError {
        HandshakeError::explain(&self.trust, host, error)
    }

    /// What a handshake with `host` means that failed with this TLS alert (RFC 8446, section 6), sent by either end.
    /// `why` is what the transport says of it.
    #[must_use]
    pub fn explain_alert(&self, host: &str, alert: u8, why: &str) -> HandshakeError {
        match (self.judge.take_refused(), alert.into()) {
            (Some(refused), _) => HandshakeError::certificate(&self.trust, host, &refused),
            (None, AlertDescription::NoApplicationProtocol) => HandshakeError::NoQuic,
            (None, alert) if is_about_clients(alert) => HandshakeError::refused(alert),
            (None, _) => HandshakeError::Unusable {
                why: why.to_owned(),
            },
        }
    }
}

/// Why a client cannot use TLS.
#[derive(Debug, thiserror::Error)]
pub enum ClientTlsError {
    /// One of the files is unusable.
    #[error(transparent)]
    File(#[from] FileError),
    /// Files of different pairs.
    #[error("the key {} does not fit the certificate {}: give the key that was made with it", key.display(), certificate.display())]
    KeyMismatch {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// The system trusts nobody, or does not say whom.
    #[error(
        "this system has no CA certificates: give those of the server's CA with --root-certificates"
    )]
    NoRoots {
        /// What went wrong while looking for them, for people.
        problems: Vec<String>,
    },
    /// rustls refused, as for kinds of keys that TLS does not know.
    #[error("the certificate and key cannot be used for TLS: make an ECDSA or RSA pair")]
    Refused(#[from] rustls::Error),
    /// No certificate in the file can be a CA's.
    #[error("no certificate in {} can be trusted as a CA's: give the certificate of the CA", path.display())]
    UnusableRoots {
        /// The file.
        path: PathBuf,
    },
}

/// Whether a server says this of a client's certificate.
fn is_about_clients(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate
    )
}

fn roots_in(path: &Path) -> Result<RootCertStore, ClientTlsError> {
    let mut store = RootCertStore::empty();
    let (added, _ignored) = store.add_parsable_certificates(pem_file::read_certificates(path)?);
    if added == 0 {
        return Err(ClientTlsError::UnusableRoots { path: path.into() });
    }
    Ok(store)
}

fn roots_of_system() -> Result<RootCertStore, ClientTlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    let (added, _ignored) = store.add_parsable_certificates(found.certs);
    if added == 0 {
        let problems = found.errors.iter().map(ToString::to_string).collect();
        return Err(ClientTlsError::NoRoots { problems });
    }
    Ok(store)
}
