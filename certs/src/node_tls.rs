//! Node keys in TLS: a node shows a certificate that its own key has signed, and its signature over the handshake
//! (RFC 8446, section 4.4.3) proves that it holds the key. Nothing of that can be replayed. Who may join, the allow list
//! says; nobody else vouches for a node.

use std::sync::Arc;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair,
};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{
    key_pair::{KeyFileError, NodeKeyPair},
    node_key::{Curve, NodePublicKey},
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
        let (signing, rcgen_algorithm) = match self.public().curve() {
            Curve::P256 => (
                &ECDSA_P256_SHA256_ASN1_SIGNING,
                &rcgen::PKCS_ECDSA_P256_SHA256,
            ),
            Curve::P384 => (
                &ECDSA_P384_SHA384_ASN1_SIGNING,
                &rcgen::PKCS_ECDSA_P384_SHA384,
            ),
            Curve::P521 => (
                &ECDSA_P521_SHA512_ASN1_SIGNING,
                &rcgen::PKCS_ECDSA_P521_SHA512,
            ),
        };
        let pair = EcdsaKeyPair::from_private_key_and_public_key(
            signing,
            self.scalar(),
            self.public().point(),
        )
        .ok()?;
        let pkcs8 = PrivatePkcs8KeyDer::from(pair.to_pkcs8v1().ok()?.as_ref().to_vec());
        let signer = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, rcgen_algorithm).ok()?;
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

/// The node key in a certificate that [`asking_for_node_keys`] has accepted.
#[must_use]
pub fn node_key_in(certificate: &CertificateDer<'_>) -> Option<NodePublicKey> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    NodePublicKey::from_spki_der(parsed.public_key().raw).ok()
}

/// Accepts any certificate of a node key: the key is what counts.
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
        match node_key_in(end_entity) {
            Some(_) => Ok(ClientCertVerified::assertion()),
            None => Err(CertificateError::ApplicationVerificationFailure.into()),
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
        let pair = NodeKeyPair::generate().unwrap();
        let (certificate, _key) = pair.certificate().unwrap();
        assert_eq!(node_key_in(&certificate).as_ref(), Some(pair.public()));
    }

    #[test]
    fn other_certificates_show_none() {
        let rsa_or_nonsense = CertificateDer::from(vec![0x30, 3, 2, 1, 1]);
        assert_eq!(node_key_in(&rsa_or_nonsense), None);
        let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let certificate = rcgen::CertificateParams::default()
            .self_signed(&ed25519)
            .unwrap();
        assert_eq!(node_key_in(certificate.der()), None);
    }
}
