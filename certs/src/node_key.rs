//! The public key of a node: what it is, how it is written, and whether a signature is its own.
//!
//! Two keys are equal when their SubjectPublicKeyInfo DER is, whatever text they came from.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use aws_lc_rs::{digest, signature::ParsedPublicKey};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use bytes::Bytes;
use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject as _};

use crate::{key_type::KeyType, openssh, pem_file};

/// A node's public key, ready to verify signatures. Cloning is two reference counts.
#[derive(Clone)]
pub struct NodePublicKey {
    spki_der: Bytes,
    prepared: Arc<Prepared>,
}

struct Prepared {
    key_type: KeyType,
    key: ParsedPublicKey,
}

impl NodePublicKey {
    /// Reads the PEM text that a node sends in [`PUBLIC_KEY_HEADER`](crate::PUBLIC_KEY_HEADER).
    ///
    /// # Errors
    /// When there is no `PUBLIC KEY` section, or it holds another kind of key, or a compressed point.
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
    /// When it is not exactly one Ed25519 key or uncompressed P-256, P-384 or P-521 point.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, NodeKeyError> {
        let (key_type, raw) = KeyType::ALL
            .into_iter()
            .find_map(|key_type| Some((key_type, der.strip_prefix(key_type.spki_prefix())?)))
            .ok_or(NodeKeyError::UnknownKind)?;
        Self::from_raw(key_type, raw)
    }

    /// Reads one line of OpenSSH: key type, base64, and a comment that is ignored.
    ///
    /// # Errors
    /// When the line is not an `ecdsa-sha2-nistp*` or `ssh-ed25519` key.
    pub fn from_openssh(line: &str) -> Result<Self, NodeKeyError> {
        let (key_type, raw) = openssh::parse_public_line(line)?;
        Self::from_raw(key_type, &raw)
    }

    /// Reads the text of a public key file: one line of OpenSSH, or PEM.
    ///
    /// # Errors
    /// When it is neither.
    pub fn from_text(text: &str) -> Result<Self, NodeKeyError> {
        let text = text.trim();
        if text.starts_with("-----BEGIN") {
            Self::from_pem(text.as_bytes())
        } else {
            Self::from_openssh(text)
        }
    }

    /// Makes a key of what follows the prefix in SubjectPublicKeyInfo: an uncompressed point (`04 || x || y`), or the 32
    /// bytes of RFC 8032.
    pub(crate) fn from_raw(key_type: KeyType, raw: &[u8]) -> Result<Self, NodeKeyError> {
        let is_whole = raw.len() == key_type.public_len()
            && (key_type == KeyType::Ed25519 || raw.first() == Some(&UNCOMPRESSED));
        if !is_whole {
            return Err(NodeKeyError::BadPoint(key_type));
        }
        let key = key_type
            .verifying(raw)
            .map_err(|_rejected| NodeKeyError::BadPoint(key_type))?;
        let spki_der = Bytes::from([key_type.spki_prefix(), raw].concat());
        Ok(Self {
            spki_der,
            prepared: Arc::new(Prepared { key_type, key }),
        })
    }

    /// The canonical form: SubjectPublicKeyInfo DER, a point in it uncompressed.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// The canonical form as shared bytes, to keep without copying.
    #[must_use]
    pub fn spki_bytes(&self) -> Bytes {
        self.spki_der.clone()
    }

    /// The kind of the key.
    #[must_use]
    pub fn key_type(&self) -> KeyType {
        self.prepared.key_type
    }

    /// Whether `signature` is this key's over `message`: ECDSA with SHA-256 in ASN.1 DER for each of the curves, or
    /// Ed25519.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.prepared.key.verify_sig(message, signature).is_ok()
    }

    /// The text that a node sends: 64-column PEM with LF line ends.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem_file::armor("PUBLIC KEY", &self.spki_der, PEM_COLUMNS)
    }

    /// One OpenSSH line without line end: key type, base64, and the comment if there is one.
    #[must_use]
    pub fn to_openssh(&self, comment: &str) -> String {
        openssh::public_line(self.key_type(), self.raw(), comment)
    }

    /// The fingerprint that `ssh-keygen -l` shows: `SHA256:` and base64 without padding.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let blob = openssh::public_blob(self.key_type(), self.raw());
        let hash = digest::digest(&digest::SHA256, &blob);
        format!("SHA256:{}", STANDARD_NO_PAD.encode(hash))
    }

    /// An uncompressed point, or the 32 bytes of an Ed25519 key.
    pub(crate) fn raw(&self) -> &[u8] {
        &self.spki_der[self.key_type().spki_prefix().len()..]
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
        write!(
            f,
            "NodePublicKey({} {})",
            self.key_type(),
            self.fingerprint()
        )
    }
}

/// Why some text is not a node's public key.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NodeKeyError {
    /// The base64 or what it holds is damaged.
    #[error("the key data is damaged")]
    Damaged,
    /// The point is compressed, of a wrong length, or not on its curve.
    #[error("the key data is not a point on the curve of {0}")]
    BadPoint(KeyType),
    /// A key, but of another kind.
    #[error(
        "{0} keys cannot be used, only ecdsa-sha2-nistp256, -nistp384, -nistp521 and ssh-ed25519"
    )]
    KeyType(String),
    /// Not `<key type> <base64> [comment]`.
    #[error("not an OpenSSH public key line")]
    NotOpenSsh,
    /// No PEM section of type `PUBLIC KEY`.
    #[error("no PEM section of type PUBLIC KEY")]
    NotPem,
    /// Longer than any key in PEM.
    #[error("longer than any public key")]
    TooLong,
    /// A SubjectPublicKeyInfo of another kind of key.
    #[error("not a P-256, P-384, P-521 or Ed25519 public key")]
    UnknownKind,
}

const UNCOMPRESSED: u8 = 4;
const PEM_COLUMNS: usize = 64;
/// A P-521 key takes 268; the rest is room for line ends and text around the section.
const PEM_BYTES_MAX: usize = 4096;
