//! A node's key pair: made, signed with, and kept in the two OpenSSH files that `flower-supernode` reads with
//! `--auth-supernode-private-key` and `--auth-supernode-public-key`. PKCS#8 files are read as well.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    digest,
    rand::{self, SystemRandom},
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P521_SHA256_ASN1_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _,
    },
};
use p384::ecdsa::{DerSignature, SigningKey, signature::hazmat::PrehashSigner as _};

use crate::{
    files::{self, Mode, NewFile, WriteError},
    key_type::{KeyType, PrivateParts},
    node_key::NodePublicKey,
    openssh::{self, PrivateError},
    pkcs8,
};

/// A node's private key and its public key. Its `Debug` shows the public one only.
pub struct NodeKeyPair {
    public: NodePublicKey,
    /// As in [`PrivateParts`].
    secret: Vec<u8>,
    signer: Signer,
}

/// aws-lc-rs signs P-384 with SHA-384 only, Flower wants SHA-256.
enum Signer {
    Ecdsa(Box<EcdsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
    P384(Box<SigningKey>),
}

impl NodeKeyPair {
    /// Makes a P-384 key pair, the curve of stock nodes.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate() -> Result<Self, KeyFileError> {
        loop {
            let mut secret = vec![0; KeyType::P384.secret_len()];
            rand::fill(&mut secret).map_err(|_error| KeyFileError::NoRandomness)?;
            // One in 2^190 is zero or not below the order.
            if let Ok(key) = SigningKey::from_slice(&secret) {
                let point = key.verifying_key().to_sec1_point(false);
                return Self::from_parts(PrivateParts {
                    key_type: KeyType::P384,
                    public: point.as_bytes().to_vec(),
                    secret,
                });
            }
        }
    }

    /// Makes an Ed25519 key pair, which only our own programs know.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate_ed25519() -> Result<Self, KeyFileError> {
        let mut secret = vec![0; KeyType::Ed25519.secret_len()];
        rand::fill(&mut secret).map_err(|_error| KeyFileError::NoRandomness)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&secret)
            .map_err(|_rejected| KeyFileError::Damaged)?;
        Self::from_parts(PrivateParts {
            key_type: KeyType::Ed25519,
            public: pair.public_key().as_ref().to_vec(),
            secret,
        })
    }

    /// Reads the text of an unencrypted private key: OpenSSH, or PKCS#8 in PEM.
    ///
    /// # Errors
    /// When it is something else, or a key of another kind; the error says what to do.
    pub fn from_text(text: &str) -> Result<Self, KeyFileError> {
        match pkcs8::parse_pem(text) {
            Some(parts) => Self::from_parts(parts?),
            None => Self::from_parts(openssh::parse_private(text)?),
        }
    }

    /// Reads a private key file.
    ///
    /// # Errors
    /// When it cannot be read, or as [`from_text`](Self::from_text).
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let bytes = fs::read(path).map_err(|source| KeyFileError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let text = String::from_utf8(bytes).map_err(|_error| KeyFileError::NotOpenSsh)?;
        Self::from_text(&text)
    }

    /// Refuses a public key that is not the private one's.
    fn from_parts(parts: PrivateParts) -> Result<Self, KeyFileError> {
        let signer = match parts.key_type {
            KeyType::P256 => Signer::ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING, &parts),
            KeyType::P384 => Signer::p384(&parts),
            KeyType::P521 => Signer::ecdsa(&ECDSA_P521_SHA256_ASN1_SIGNING, &parts),
            KeyType::Ed25519 => Signer::ed25519(&parts),
        };
        Ok(Self {
            signer: signer.ok_or(KeyFileError::Damaged)?,
            public: NodePublicKey::from_raw(parts.key_type, &parts.public)
                .map_err(|_error| KeyFileError::Damaged)?,
            secret: parts.secret,
        })
    }

    /// Both halves, as files hold them.
    pub(crate) fn parts(&self) -> PrivateParts {
        PrivateParts {
            key_type: self.public.key_type(),
            public: self.public.raw().to_vec(),
            secret: self.secret.clone(),
        }
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &NodePublicKey {
        &self.public
    }

    /// Signs as a node signs its timestamp: ECDSA with SHA-256, ASN.1 DER; or Ed25519.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyFileError> {
        match &self.signer {
            Signer::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Signer::Ecdsa(pair) => pair
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_error| KeyFileError::NoRandomness),
            Signer::P384(key) => {
                let hash = digest::digest(&digest::SHA256, message);
                let signature: DerSignature = key
                    .sign_prehash(hash.as_ref())
                    .map_err(|_error| KeyFileError::NoRandomness)?;
                Ok(signature.as_bytes().to_vec())
            }
        }
    }

    /// The text of the private key file: OpenSSH, unencrypted.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn to_openssh_private(&self, comment: &str) -> Result<String, KeyFileError> {
        let mut check = [0; 4];
        rand::fill(&mut check).map_err(|_error| KeyFileError::NoRandomness)?;
        let check = u32::from_ne_bytes(check);
        Ok(openssh::private_file(&self.parts(), comment, check))
    }

    /// Writes the private key to `private_path` (mode 0600) and its public line to `<private_path>.pub`, as
    /// ssh-keygen names them. Directories are made.
    ///
    /// # Errors
    /// When one of the files exists and `overwrite` is off, in which case neither is written, or disk errors.
    pub fn save(
        &self,
        private_path: &Path,
        comment: &str,
        overwrite: bool,
    ) -> Result<KeyFiles, KeyFileError> {
        let mut public_path = private_path.as_os_str().to_owned();
        public_path.push(".pub");
        let public_path = PathBuf::from(public_path);
        let line = self.public.to_openssh(comment);
        files::write_all(
            &[
                NewFile {
                    path: private_path.to_owned(),
                    contents: self.to_openssh_private(comment)?.into_bytes(),
                    mode: Mode::Secret(0o600),
                },
                NewFile {
                    path: public_path.clone(),
                    contents: format!("{line}\n").into_bytes(),
                    mode: Mode::Public,
                },
            ],
            overwrite,
        )?;
        Ok(KeyFiles {
            private_path: private_path.to_owned(),
            public_path,
            public_line: line,
        })
    }
}

impl Signer {
    fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm, parts: &PrivateParts) -> Option<Self> {
        let PrivateParts { secret, public, .. } = parts;
        let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, secret, public);
        pair.ok().map(Box::new).map(Self::Ecdsa)
    }

    fn ed25519(parts: &PrivateParts) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_and_public_key(&parts.secret, &parts.public);
        pair.ok().map(Box::new).map(Self::Ed25519)
    }

    fn p384(parts: &PrivateParts) -> Option<Self> {
        let key = SigningKey::from_slice(&parts.secret).ok()?;
        let point = key.verifying_key().to_sec1_point(false);
        (point.as_bytes() == parts.public).then(|| Self::P384(Box::new(key)))
    }
}

impl fmt::Debug for NodeKeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeKeyPair")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

/// What [`NodeKeyPair::save`] wrote.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyFiles {
    /// For `--auth-supernode-private-key`.
    pub private_path: PathBuf,
    /// For `--auth-supernode-public-key`.
    pub public_path: PathBuf,
    /// The line for the SuperLink's CSV list, without line end.
    pub public_line: String,
}

/// Why a node's private key could not be read, used or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Its parts contradict each other or are cut.
    #[error("the private key is damaged: copy the file again or make a new key")]
    Damaged,
    /// A passphrase protects it; Flower cannot ask for one.
    #[error(
        "the private key is encrypted: remove its passphrase with `ssh-keygen -p -N ''`, that of a PKCS#8 file with `openssl pkey`"
    )]
    Encrypted,
    /// A key of another kind.
    #[error(
        "a private key of type {0} cannot be used: make one with `flwr-quic keys node`, or `ssh-keygen -t ecdsa -b 384`"
    )]
    KeyType(String),
    /// The system gave none.
    #[error("the system has no randomness to give")]
    NoRandomness,
    /// SEC1 or no key at all.
    #[error("not an OpenSSH or PKCS#8 private key: make one with `ssh-keygen -t ecdsa -b 384`")]
    NotOpenSsh,
    /// PKCS#8 of an RSA key and the like, or cut.
    #[error(
        "the PKCS#8 private key is damaged, or of another kind than P-256, P-384, P-521 and Ed25519: make one with `flwr-quic keys node`"
    )]
    Pkcs8,
    /// The file is not there or may not be read.
    #[error("cannot read the private key {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing or not everything was written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl From<PrivateError> for KeyFileError {
    fn from(error: PrivateError) -> Self {
        match error {
            PrivateError::Damaged => Self::Damaged,
            PrivateError::Encrypted => Self::Encrypted,
            PrivateError::KeyType(key_type) => Self::KeyType(key_type),
            PrivateError::NotOpenSsh => Self::NotOpenSsh,
        }
    }
}
