//! The TLS side of a server: the three files checked at start-up, and the rustls configuration made of them.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ServerConfig,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, Ticketer, cipher_suite},
    },
    pki_types::CertificateDer,
    version::{TLS12, TLS13},
};

use x509_parser::certificate::X509Certificate;

use crate::{
    chain::{self, Signed},
    inspect,
    pem_file::{self, FileError},
    timestamp::format_iso,
};

/// A server's TLS configuration, and what an operator should know about its files.
#[derive(Clone)]
pub struct ServerTls {
    /// TLS 1.2 and 1.3, ALPN `h2`, no client certificates, session tickets.
    pub config: Arc<ServerConfig>,
    /// One sentence each: the certificate works, but not for everybody.
    pub warnings: Vec<String>,
    /// Made from the private key, one way: known to this server alone, and the same after a restart.
    pub restart_secret: [u8; 32],
}

impl ServerTls {
    /// Reads and checks the files in the order CA, certificate, key. The CA's is not used for TLS, but must be a
    /// certificate, as with Flower 1.22. `now_unix` is in Unix seconds.
    ///
    /// # Errors
    /// When a file is missing or unusable, the key does not fit the certificate, or the certificate has expired or is
    /// not yet valid. Each is one sentence that says what to do.
    pub fn load(
        ca_path: &Path,
        certificate_path: &Path,
        key_path: &Path,
        now_unix: f64,
    ) -> Result<Self, TlsError> {
        let anchors = pem_file::read_certificates(ca_path)?;
        let chain = pem_file::read_certificates(certificate_path)?;
        let key = pem_file::read_key(key_path)?;
        let leaf = pem_file::parse(certificate_path, &chain[0])?;
        check_time(certificate_path, &leaf, now_unix)?;
        if !inspect::key_fits(&chain, key.clone_key()) {
            return Err(TlsError::KeyMismatch {
                certificate: certificate_path.into(),
                key: key_path.into(),
            });
        }
        let mut warnings = Vec::new();
        if chain::alt_names(&leaf).is_empty() {
            warnings.push(format!(
                "the certificate {} names no host: clients will refuse it, make one with subject alternative names",
                certificate_path.display()
            ));
        }
        warnings.extend(ca_warnings(
            ca_path,
            &anchors,
            certificate_path,
            &chain,
            now_unix,
        )?);
        let restart_secret = restart_secret(key.secret_der());
        let config = server_config(chain, key)?;
        Ok(Self {
            config: Arc::new(config),
            warnings,
            restart_secret,
        })
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

/// Why a server or a client cannot start with its TLS files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Too late.
    #[error("the certificate {} expired on {since}: make a new one", path.display())]
    Expired {
        /// The certificate.
        path: PathBuf,
        /// ISO 8601.
        since: String,
    },
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
    /// Too early, or the clock is wrong.
    #[error("the certificate {} is not valid before {from}: check the clock of this machine, or make a new one", path.display())]
    NotYetValid {
        /// The certificate.
        path: PathBuf,
        /// ISO 8601.
        from: String,
    },
    /// A client's certificate without a key file is for the node's key.
    #[error("the certificate {} is not for this node's key: give its own key with --ssl-client-keyfile", certificate.display())]
    NotOfNode {
        /// The certificate.
        certificate: PathBuf,
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

/// Refuses a certificate whose time is over or has not come.
pub(crate) fn check_time(
    path: &Path,
    leaf: &X509Certificate<'_>,
    now_unix: f64,
) -> Result<(), TlsError> {
    let (not_before, not_after) = inspect::validity(leaf);
    if now_unix > not_after {
        return Err(TlsError::Expired {
            path: path.into(),
            since: format_iso(not_after),
        });
    }
    if now_unix < not_before {
        return Err(TlsError::NotYetValid {
            path: path.into(),
            from: format_iso(not_before),
        });
    }
    Ok(())
}

fn ca_warnings(
    ca_path: &Path,
    anchors: &[CertificateDer<'_>],
    certificate_path: &Path,
    chain: &[CertificateDer<'_>],
    now_unix: f64,
) -> Result<Vec<String>, TlsError> {
    let mut warnings = Vec::new();
    if chain::leads_to(chain, anchors) == Signed::No {
        warnings.push(format!(
            "the certificate {} is not signed by the CA in {}: clients that trust only that CA will refuse it",
            certificate_path.display(),
            ca_path.display()
        ));
    }
    let anchor = pem_file::parse(ca_path, &anchors[0])?;
    if anchors[0] != chain[0]
        && let Some(problem) = inspect::validity_problem("the CA certificate", &anchor, now_unix)
    {
        warnings.push(format!("{problem}: clients will refuse what it signed"));
    }
    Ok(warnings)
}

fn restart_secret(key: &[u8]) -> [u8; 32] {
    use ::aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
    let key = Key::new(HMAC_SHA256, key);
    let tag = sign(&key, b"flwr-quic restart secret");
    let bytes = tag.as_ref().try_into();
    bytes.expect("HMAC-SHA256 has 32 bytes")
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: rustls::pki_types::PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.ignore_client_order = true;
    config.ticketer = Ticketer::new()?;
    Ok(config)
}

/// aws-lc-rs with AES-128-GCM first: the cheapest per byte wherever AES is in hardware.
pub(crate) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ],
        ..aws_lc_rs::default_provider()
    }
}

pub(crate) const ALPN_H2: &[u8] = b"h2";
