//! Node keys in TLS: a node shows a certificate that its own key has signed, and its signature over the handshake
//! (RFC 8446, section 4.4.3) proves that it holds the key. Nothing of that can be replayed. Who may join, the allow list
//! says; nobody else vouches for a node.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{
    key_pair::{KeyFileError, NodeKeyPair},
    key_type::KeyType,
    node_key::NodePublicKey,
    pkcs8,
    tls::provider,
};

impl NodeKeyPair {
    /// `config`, showing this key to servers that ask for it.
    ///
    /// # Errors
    /// When TLS cannot use the key.
    pub fn shown_by(&self, config: &ClientConfig) -> Result<ClientConfig, KeyFileError> {
        let (certificate, key) = self.certificate().ok_or(KeyFileError::Damaged)?;
        let certified = CertifiedKey::from_der(vec![certificate], key, &provider())
            .map_err(|_error| KeyFileError::Damaged)?;
        let mut config = config.clone();
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
        Ok(config)
    }

    fn certificate(&self) -> Option<(CertificateDer<'static>, PrivateKeyDer<'static>)> {
        let algorithm = match self.public().key_type() {
            KeyType::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyType::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            KeyType::P521 => &rcgen::PKCS_ECDSA_P521_SHA512,
            KeyType::Ed25519 => &rcgen::PKCS_ED25519,
        };
        let pkcs8 = pkcs8::write(&self.parts())?;
        let signer = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, algorithm).ok()?;
        let mut parameters = rcgen::CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        let certificate = parameters.self_signed(&signer).ok()?;
        Some((certificate.der().clone(), pkcs8.into()))
    }
}

/// `config` for TLS 1.3, asking clients for their node keys. Those without one are accepted as well.
///
/// # Errors
/// Never with the cryptography of this crate.
pub fn asking_for_node_keys(config: &ServerConfig) -> Result<ServerConfig, Error> {
    let verifier = NodeKeyVerifier {
        algorithms: provider().signature_verification_algorithms,
    };
    let mut asking = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::clone(&config.cert_resolver));
    asking.ignore_client_order = config.ignore_client_order;
    asking.ticketer = Arc::clone(&config.ticketer);
    Ok(asking)
}

/// The key of a certificate, if it can be a node's.
#[must_use]
pub fn node_key_in(certificate: &CertificateDer<'_>) -> Option<NodePublicKey> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    NodePublicKey::from_spki_der(parsed.public_key().raw).ok()
}

/// Accepts any certificate: the key is what counts, or the one that is proved beside it.
#[derive(Debug)]
struct NodeKeyVerifier {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for NodeKeyVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match X509Certificate::from_der(end_entity) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(_) => Err(CertificateError::BadEncoding.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_of_a_key_shows_the_key() {
        for pair in [NodeKeyPair::generate(), NodeKeyPair::generate_ed25519()] {
            let pair = pair.unwrap();
            let (certificate, _key) = pair.certificate().unwrap();
            assert_eq!(node_key_in(&certificate).as_ref(), Some(pair.public()));
        }
    }

    #[test]
    fn other_certificates_show_none() {
        let nonsense = CertificateDer::from(vec![0x30, 3, 2, 1, 1]);
        assert_eq!(node_key_in(&nonsense), None);
        let rsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let certificate = rcgen::CertificateParams::default()
            .self_signed(&rsa)
            .unwrap();
        assert_eq!(node_key_in(certificate.der()), None);
    }
}
