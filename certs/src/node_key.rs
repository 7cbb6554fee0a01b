//! The public key of a node: what it is, how it is written, and whether a signature is its own.
//!
//! Three curves exist because OpenSSH can write three: P-256, P-384 and P-521. The digest is SHA-256 for each of
//! them. Two keys are equal when their SubjectPublicKeyInfo DER is, whatever text they came from.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use aws_lc_rs::{
    digest,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P521_SHA256_ASN1,
        EcdsaVerificationAlgorithm, ParsedPublicKey,
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use bytes::Bytes;
use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject as _};

use crate::openssh;

/// A node's public key, ready to verify signatures. Cloning is two reference counts.
#[derive(Clone)]
pub struct NodePublicKey {
    spki_der: Bytes,
    prepared: Arc<Prepared>,
}

struct Prepared {
    curve: Curve,
    key: ParsedPublicKey,
}

impl NodePublicKey {
    /// Reads the PEM text that a node sends in [`PUBLIC_KEY_HEADER`](crate::PUBLIC_KEY_HEADER).
    ///
    /// # Errors
    /// When there is no `PUBLIC KEY` section, or it holds no uncompressed P-256, P-384 or P-521 point.
    pub fn from_pem(pem: &[u8]) -> Result<Self, NodeKeyError> {
        if pem.len() > PEM_BYTES_MAX {
            return Err(NodeKeyError::TooLong);
        }
        let der =
            SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_error| NodeKeyError::NotPem)?;
        Self::from_spki_der(&der)
    }

    /// Reads SubjectPublicKeyInfo DER, the form of [`spki_der`](Self::spki_der).
    ///
    /// # Errors
    /// When it is not exactly one uncompressed P-256, P-384 or P-521 point.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, NodeKeyError> {
        let (curve, point) = Curve::ALL
            .into_iter()
            .find_map(|curve| Some((curve, der.strip_prefix(curve.spki_prefix())?)))
            .ok_or(NodeKeyError::NotEcKey)?;
        Self::from_point(curve, point)
    }

    /// Reads one line of OpenSSH: key type, base64, and a comment that is ignored.
    ///
    /// # Errors
    /// When the line is not an `ecdsa-sha2-nistp*` key.
    pub fn from_openssh(line: &str) -> Result<Self, NodeKeyError> {
        let (curve, point) = openssh::parse_public_line(line)?;
        Self::from_point(curve, &point)
    }

    /// Makes a key of an uncompressed point (`04 || x || y`).
    pub(crate) fn from_point(curve: Curve, point: &[u8]) -> Result<Self, NodeKeyError> {
        if point.len() != curve.point_len() || point.first() != Some(&UNCOMPRESSED) {
            return Err(NodeKeyError::BadPoint(curve));
        }
        let key = ParsedPublicKey::new(curve.verification(), point)
            .map_err(|_rejected| NodeKeyError::BadPoint(curve))?;
        let spki_der = Bytes::from([curve.spki_prefix(), point].concat());
        Ok(Self {
            spki_der,
            prepared: Arc::new(Prepared { curve, key }),
        })
    }

    /// The canonical form: SubjectPublicKeyInfo DER with an uncompressed point.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// The canonical form as shared bytes, to keep without copying.
    #[must_use]
    pub fn spki_bytes(&self) -> Bytes {
        self.spki_der.clone()
    }

    /// The curve of the key.
    #[must_use]
    pub fn curve(&self) -> Curve {
        self.prepared.curve
    }

    /// Whether `signature_der` (ASN.1 DER of r and s) is this key's ECDSA signature over the SHA-256 of `message`.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature_der: &[u8]) -> bool {
        self.prepared.key.verify_sig(message, signature_der).is_ok()
    }

    /// The text that a stock node sends: 64-column PEM with LF line ends.
    #[must_use]
    pub fn to_pem(&self) -> String {
        openssh::armor("PUBLIC KEY", &self.spki_der, PEM_COLUMNS)
    }

    /// One OpenSSH line without line end: key type, base64, and the comment if there is one.
    #[must_use]
    pub fn to_openssh(&self, comment: &str) -> String {
        openssh::public_line(self.curve(), self.point(), comment)
    }

    /// The fingerprint that `ssh-keygen -l` shows: `SHA256:` and base64 without padding.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let blob = openssh::public_blob(self.curve(), self.point());
        let hash = digest::digest(&digest::SHA256, &blob);
        format!("SHA256:{}", STANDARD_NO_PAD.encode(hash))
    }

    pub(crate) fn point(&self) -> &[u8] {
        &self.spki_der[self.curve().spki_prefix().len()..]
    }
}

impl PartialEq for NodePublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.spki_der == other.spki_der
    }
}

impl Eq for NodePublicKey {}

impl Hash for NodePublicKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.spki_der.hash(state);
    }
}

impl fmt::Debug for NodePublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodePublicKey({} {})", self.curve(), self.fingerprint())
    }
}

/// The curves of node keys.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Curve {
    /// secp256r1
    P256,
    /// secp384r1, which stock nodes generate
    P384,
    /// secp521r1
    P521,
}

impl Curve {
    /// Every curve.
    pub const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    /// The curve's name in OpenSSH keys.
    #[must_use]
    pub const fn openssh_name(self) -> &'static str {
        match self {
            Self::P256 => "nistp256",
            Self::P384 => "nistp384",
            Self::P521 => "nistp521",
        }
    }

    /// Bytes of a coordinate and of a private scalar.
    pub(crate) const fn scalar_len(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    pub(crate) const fn point_len(self) -> usize {
        1 + 2 * self.scalar_len()
    }

    fn verification(self) -> &'static EcdsaVerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_ASN1,
            Self::P384 => &ECDSA_P384_SHA256_ASN1,
            Self::P521 => &ECDSA_P521_SHA256_ASN1,
        }
    }

    /// Everything that precedes the point: DER has only one way to write it.
    fn spki_prefix(self) -> &'static [u8] {
        match self {
            Self::P256 => SPKI_P256,
            Self::P384 => SPKI_P384,
            Self::P521 => SPKI_P521,
        }
    }
}

impl fmt::Display for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        })
    }
}

/// Why some text is not a node's public key.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NodeKeyError {
    /// The base64 or what it holds is damaged.
    #[error("the key data is damaged")]
    Damaged,
    /// The point is compressed, of a wrong length, or not on its curve.
    #[error("the key data is not a point on {0}")]
    BadPoint(Curve),
    /// A key, but of another kind.
    #[error("{0} keys cannot be used, only ecdsa-sha2-nistp256, -nistp384 and -nistp521")]
    KeyType(String),
    /// A SubjectPublicKeyInfo of another kind of key.
    #[error("not a P-256, P-384 or P-521 public key")]
    NotEcKey,
    /// Not `<key type> <base64> [comment]`.
    #[error("not an OpenSSH public key line")]
    NotOpenSsh,
    /// No PEM section of type `PUBLIC KEY`.
    #[error("no PEM section of type PUBLIC KEY")]
    NotPem,
    /// Longer than any key in PEM.
    #[error("longer than any public key")]
    TooLong,
}

const UNCOMPRESSED: u8 = 4;
const PEM_COLUMNS: usize = 64;
/// A P-521 key takes 268; the rest is room for line ends and text around the section.
const PEM_BYTES_MAX: usize = 4096;

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
