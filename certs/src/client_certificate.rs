//! Client certificates of a CA: a client's own, and a server's demand for one.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};

use crate::{
    inspect,
    key_pair::NodeKeyPair,
    node_tls::node_key_in,
    pem_file, pkcs8,
    tls::{TlsError, check_time, provider},
};

/// A certificate that a client shows, with its key. Its `Debug` shows neither.
pub struct ClientCertificate {
    certified: Arc<CertifiedKey>,
}

impl ClientCertificate {
    /// Reads PEM files. Without a file for the key, the certificate is for the key of `node`, if this is one. `now_unix` is in Unix
    /// seconds.
    ///
    /// # Errors
    /// When a file is missing or unusable, the key does not fit the certificate, or the certificate has expired or is
    /// not yet valid. Each is one sentence that says what to do.
    pub fn load(
        certificate_path: &Path,
        key_path: Option<&Path>,
        node: Option<&NodeKeyPair>,
        now_unix: f64,
    ) -> Result<Self, TlsError> {
        let chain = pem_file::read_certificates(certificate_path)?;
        let leaf = pem_file::parse(certificate_path, &chain[0])?;
        check_time(certificate_path, &leaf, now_unix)?;
        let not_of_node = || TlsError::NotOfNode {
            certificate: certificate_path.into(),
        };
        let key: PrivateKeyDer<'static> = match key_path {
            Some(path) => pem_file::read_key(path)?,
            None => {
                let node = node.filter(|node| is_for(&chain[0], node));
                let key = node.and_then(|node| pkcs8::write(&node.parts()));
                key.ok_or_else(not_of_node)?.into()
            }
        };
        if let Some(path) = key_path
            && !inspect::key_fits(&chain, key.clone_key())
        {
            return Err(TlsError::KeyMismatch {
                certificate: certificate_path.into(),
                key: path.into(),
            });
        }
        let certified = CertifiedKey::from_der(chain, key, &provider())?;
        Ok(Self {
            certified: Arc::new(certified),
        })
    }

    /// `config`, showing this certificate to servers that ask for one.
    #[must_use]
    pub fn shown_by(&self, config: &ClientConfig) -> ClientConfig {
        let mut config = config.clone();
        let certified = CertifiedKey::clone(&self.certified);
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
        config
    }
}

impl std::fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientCertificate").finish_non_exhaustive()
    }
}

fn is_for(certificate: &CertificateDer<'_>, node: &NodeKeyPair) -> bool {
    node_key_in(certificate).as_ref() == Some(node.public())
}

/// `config`, letting only clients in whose certificate a CA in the PEM file `ca_path` has signed. Sessions are not
/// resumed: every connection shows a certificate whose time has not run out, to this service and no other.
///
/// # Errors
/// When the file is missing or unusable, or holds no CA.
pub fn demanding_certificates(
    config: &ServerConfig,
    ca_path: &Path,
) -> Result<ServerConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    let (added, _ignored) = roots.add_parsable_certificates(pem_file::read_certificates(ca_path)?);
    let unusable = || TlsError::UnusableRoots {
        path: ca_path.into(),
    };
    if added == 0 {
        return Err(unusable());
    }
    let provider = Arc::new(provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|_error| unusable())?;
    let mut demanding = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(&config.cert_resolver));
    demanding.alpn_protocols.clone_from(&config.alpn_protocols);
    demanding.ignore_client_order = config.ignore_client_order;
    demanding.session_storage = Arc::new(NoServerSessionStorage {});
    demanding.send_tls13_tickets = 0;
    Ok(demanding)
}
