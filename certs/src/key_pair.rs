//! A node's key pair: made, signed with, and kept in the two OpenSSH files that `flower-supernode` reads with
//! `--auth-supernode-private-key` and `--auth-supernode-public-key`.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    digest,
    rand::{self, SystemRandom},
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P521_SHA256_ASN1_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm,
    },
};
use p384::ecdsa::{DerSignature, SigningKey, signature::hazmat::PrehashSigner as _};

use crate::{
    files::{self, Mode, NewFile, WriteError},
    node_key::{Curve, NodePublicKey},
    openssh::{self, PrivateError, PrivateParts},
};

/// A node's private key and its public key. Its `Debug` shows the public one only.
pub struct NodeKeyPair {
    public: NodePublicKey,
    /// Big endian, padded to the width of the curve.
    scalar: Vec<u8>,
    signer: Signer,
}

/// aws-lc-rs signs P-384 with SHA-384 only, Flower wants SHA-256.
enum Signer {
    Aws(Box<EcdsaKeyPair>),
    P384(Box<SigningKey>),
}

impl NodeKeyPair {
    /// Makes a P-384 key pair, the curve of stock nodes.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate() -> Result<Self, KeyFileError> {
        loop {
            let mut scalar = vec![0; Curve::P384.scalar_len()];
            rand::fill(&mut scalar).map_err(|_error| KeyFileError::NoRandomness)?;
            // One in 2^190 is zero or not below the order.
            if let Ok(pair) = Self::from_p384_scalar(scalar) {
                return Ok(pair);
            }
        }
    }

    /// Reads the text of an unencrypted OpenSSH private key on one of the three curves.
    ///
    /// # Errors
    /// When it is something else; the error says what to do.
    pub fn from_openssh(text: &str) -> Result<Self, KeyFileError> {
        let parts = openssh::parse_private(text)?;
        let pair = match parts.curve {
            Curve::P256 => Self::from_aws(&ECDSA_P256_SHA256_ASN1_SIGNING, &parts)?,
            Curve::P384 => Self::from_p384_scalar(parts.scalar)?,
            Curve::P521 => Self::from_aws(&ECDSA_P521_SHA256_ASN1_SIGNING, &parts)?,
        };
        if pair.public.point() == parts.point {
            Ok(pair)
        } else {
            Err(KeyFileError::Damaged)
        }
    }

    /// Reads a private key file.
    ///
    /// # Errors
    /// When it cannot be read, or as [`from_openssh`](Self::from_openssh).
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let bytes = fs::read(path).map_err(|source| KeyFileError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let text = String::from_utf8(bytes).map_err(|_error| KeyFileError::NotOpenSsh)?;
        Self::from_openssh(&text)
    }

    fn from_p384_scalar(scalar: Vec<u8>) -> Result<Self, KeyFileError> {
        let key = SigningKey::from_slice(&scalar).map_err(|_error| KeyFileError::Damaged)?;
        let point = key.verifying_key().to_sec1_point(false);
        let public = NodePublicKey::from_point(Curve::P384, point.as_bytes())
            .map_err(|_error| KeyFileError::Damaged)?;
        Ok(Self {
            public,
            scalar,
            signer: Signer::P384(Box::new(key)),
        })
    }

    fn from_aws(
        algorithm: &'static EcdsaSigningAlgorithm,
        parts: &PrivateParts,
    ) -> Result<Self, KeyFileError> {
        // Refuses a point that is not the scalar's.
        let pair =
            EcdsaKeyPair::from_private_key_and_public_key(algorithm, &parts.scalar, &parts.point)
                .map_err(|_rejected| KeyFileError::Damaged)?;
        let public = NodePublicKey::from_point(parts.curve, &parts.point)
            .map_err(|_error| KeyFileError::Damaged)?;
        Ok(Self {
            public,
            scalar: parts.scalar.clone(),
            signer: Signer::Aws(Box::new(pair)),
        })
    }

    /// Big endian, padded to the width of the curve.
    pub(crate) fn scalar(&self) -> &[u8] {
        &self.scalar
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &NodePublicKey {
        &self.public
    }

    /// Signs as a node signs its timestamp: ECDSA with SHA-256, ASN.1 DER.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyFileError> {
        match &self.signer {
            Signer::Aws(pair) => pair
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
        let parts = PrivateParts {
            curve: self.public.curve(),
            point: self.public.point().to_vec(),
            scalar: self.scalar.clone(),
        };
        let check = u32::from_ne_bytes(check);
        Ok(openssh::private_file(&parts, comment, check))
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
    #[error("the private key is encrypted: remove its passphrase with `ssh-keygen -p -N ''`")]
    Encrypted,
    /// A key of another kind.
    #[error("a private key of type {0} cannot be used: make one with `ssh-keygen -t ecdsa -b 384`")]
    KeyType(String),
    /// The system gave none.
    #[error("the system has no randomness to give")]
    NoRandomness,
    /// PKCS#8, SEC1 or no key at all.
    #[error("not an OpenSSH private key: make one with `ssh-keygen -t ecdsa -b 384`")]
    NotOpenSsh,
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
