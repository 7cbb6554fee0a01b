//! The kinds of node keys, and what is written around each.
//!
//! P-256, P-384 and P-521 are what stock nodes can have, because OpenSSH can write these three; their digest is SHA-256
//! for each. Ed25519 is known to our own programs only.

use std::fmt;

use aws_lc_rs::{
    error::KeyRejected,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P521_SHA256_ASN1, ED25519,
        ParsedPublicKey,
    },
};

/// The kinds of node keys.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum KeyType {
    /// ECDSA on secp256r1
    P256,
    /// ECDSA on secp384r1, which stock nodes generate
    P384,
    /// ECDSA on secp521r1
    P521,
    /// RFC 8032
    Ed25519,
}

impl KeyType {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::P256, Self::P384, Self::P521, Self::Ed25519];

    /// Its name in OpenSSH keys.
    #[must_use]
    pub const fn openssh_name(self) -> &'static str {
        match self {
            Self::P256 => "ecdsa-sha2-nistp256",
            Self::P384 => "ecdsa-sha2-nistp384",
            Self::P521 => "ecdsa-sha2-nistp521",
            Self::Ed25519 => "ssh-ed25519",
        }
    }

    /// The curve's name, where OpenSSH keys give it once more.
    pub(crate) fn openssh_curve(self) -> Option<&'static str> {
        self.openssh_name().strip_prefix("ecdsa-sha2-")
    }

    /// Bytes of a coordinate and of a private scalar, or of a seed.
    pub(crate) const fn secret_len(self) -> usize {
        match self {
            Self::P256 | Self::Ed25519 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// Bytes of an uncompressed point, or of an Ed25519 key.
    pub(crate) const fn public_len(self) -> usize {
        match self {
            Self::Ed25519 => 32,
            Self::P256 | Self::P384 | Self::P521 => 1 + 2 * self.secret_len(),
        }
    }

    /// A key that verifies signatures.
    pub(crate) fn verifying(self, raw: &[u8]) -> Result<ParsedPublicKey, KeyRejected> {
        match self {
            Self::P256 => ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, raw),
            Self::P384 => ParsedPublicKey::new(&ECDSA_P384_SHA256_ASN1, raw),
            Self::P521 => ParsedPublicKey::new(&ECDSA_P521_SHA256_ASN1, raw),
            Self::Ed25519 => ParsedPublicKey::new(&ED25519, raw),
        }
    }

    /// Everything that precedes the key in SubjectPublicKeyInfo: DER has only one way to write it.
    pub(crate) const fn spki_prefix(self) -> &'static [u8] {
        match self {
            Self::P256 => SPKI_P256,
            Self::P384 => SPKI_P384,
            Self::P521 => SPKI_P521,
            Self::Ed25519 => SPKI_ED25519,
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
            Self::Ed25519 => "Ed25519",
        })
    }
}

/// A private key with its public one, as files hold them.
pub(crate) struct PrivateParts {
    pub(crate) key_type: KeyType,
    /// An uncompressed point, or the 32 bytes of an Ed25519 key.
    pub(crate) public: Vec<u8>,
    /// A scalar, big endian, padded to the width of the curve; or the seed of an Ed25519 key.
    pub(crate) secret: Vec<u8>,
}

const SPKI_P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const SPKI_P384: &[u8] = &[
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b,
    0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
];
const SPKI_P521: &[u8] = &[
    0x30, 0x81, 0x9b, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05,
    0x2b, 0x81, 0x04, 0x00, 0x23, 0x03, 0x81, 0x86, 0x00,
];
const SPKI_ED25519: &[u8] = &[
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
