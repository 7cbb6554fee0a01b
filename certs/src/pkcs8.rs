//! Node keys as PKCS#8 (RFC 5208, RFC 8410), which openssl and TLS libraries use.

use aws_lc_rs::{
    encoding::AsBigEndian as _,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING,
        ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
        KeyPair as _,
    },
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};

use crate::{
    key_pair::KeyFileError,
    key_type::{KeyType, PrivateParts},
};

/// Reads PEM, if it is PKCS#8.
pub(crate) fn parse_pem(text: &str) -> Option<Result<PrivateParts, KeyFileError>> {
    if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
        return Some(Err(KeyFileError::Encrypted));
    }
    text.contains("-----BEGIN PRIVATE KEY-----").then(|| {
        let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes())
            .map_err(|_error| KeyFileError::Damaged)?;
        parse(der.secret_pkcs8_der()).ok_or(KeyFileError::Pkcs8)
    })
}

/// Writes DER.
pub(crate) fn write(parts: &PrivateParts) -> Option<PrivatePkcs8KeyDer<'static>> {
    let PrivateParts {
        key_type,
        public,
        secret,
    } = parts;
    let document = match ecdsa(*key_type) {
        Some(algorithm) => EcdsaKeyPair::from_private_key_and_public_key(algorithm, secret, public)
            .ok()?
            .to_pkcs8v1(),
        None => Ed25519KeyPair::from_seed_and_public_key(secret, public)
            .ok()?
            .to_pkcs8v1(),
    };
    Some(document.ok()?.as_ref().to_vec().into())
}

fn parse(der: &[u8]) -> Option<PrivateParts> {
    KeyType::ALL.into_iter().find_map(|key_type| {
        let (public, secret) = match ecdsa(key_type) {
            Some(algorithm) => {
                let pair = EcdsaKeyPair::from_pkcs8(algorithm, der).ok()?;
                let scalar = pair.private_key().as_be_bytes().ok()?;
                (
                    pair.public_key().as_ref().to_vec(),
                    scalar.as_ref().to_vec(),
                )
            }
            None => {
                let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok()?;
                let seed = pair.seed().ok()?.as_be_bytes().ok()?;
                (pair.public_key().as_ref().to_vec(), seed.as_ref().to_vec())
            }
        };
        Some(PrivateParts {
            key_type,
            public,
            secret,
        })
    })
}

/// The digest matters to signatures, not to files.
fn ecdsa(key_type: KeyType) -> Option<&'static EcdsaSigningAlgorithm> {
    match key_type {
        KeyType::P256 => Some(&ECDSA_P256_SHA256_ASN1_SIGNING),
        KeyType::P384 => Some(&ECDSA_P384_SHA384_ASN1_SIGNING),
        KeyType::P521 => Some(&ECDSA_P521_SHA512_ASN1_SIGNING),
        KeyType::Ed25519 => None,
    }
}
