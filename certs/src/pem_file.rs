//! Certificates and private keys as PEM files, with errors that say which file is wrong and what to do.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject as _},
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

/// Every certificate of a PEM file, in its order; at least one. All of them parse.
pub(crate) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let text = read(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|_error| FileError::Damaged { path: path.into() })?;
    if certificates.is_empty() {
        return Err(FileError::NoCertificate { path: path.into() });
    }
    for der in &certificates {
        parse(path, der)?;
    }
    Ok(certificates)
}

/// The first private key of a PEM file: PKCS#8, PKCS#1 or SEC1.
pub(crate) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    let text = read(path)?;
    let has = |mark: &[u8]| text.windows(mark.len()).any(|window| window == mark);
    if has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED") {
        return Err(FileError::EncryptedKey { path: path.into() });
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => FileError::NoKey { path: path.into() },
        _damaged => FileError::Damaged { path: path.into() },
    })
}

/// A certificate's fields. `path` is only for the error.
pub(crate) fn parse<'a>(path: &Path, der: &'a [u8]) -> Result<X509Certificate<'a>, FileError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _damaged => Err(FileError::Damaged { path: path.into() }),
    }
}

/// PEM with LF line ends and a last one.
pub(crate) fn armor(label: &str, data: &[u8], columns: usize) -> String {
    let base64 = STANDARD.encode(data);
    let mut out = String::with_capacity(base64.len() * 66 / 64 + 80);
    out.push_str("-----BEGIN ");
    out.push_str(label);
    out.push_str("-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(columns));
        out.push_str(line);
        out.push('\n');
        rest = tail;
    }
    out.push_str("-----END ");
    out.push_str(label);
    out.push_str("-----\n");
    out
}

/// Why a PEM file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Base64, DER or what they hold is broken.
    #[error("{} is damaged: copy it again or make it anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A passphrase protects the key.
    #[error("the private key in {} is encrypted: decrypt it with `openssl pkey -in FILE -out NEW_FILE`", path.display())]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// There is no such file.
    #[error("{} does not exist: check the path", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// No `CERTIFICATE` section.
    #[error("{} holds no certificate: give a PEM file with a BEGIN CERTIFICATE line", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// No private key section.
    #[error("{} holds no private key: give a PEM file with a BEGIN PRIVATE KEY line", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The system did not let us read it.
    #[error("cannot read {}: check that it is a file that this user may read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(|source| {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::NotFound {
            FileError::Missing { path }
        } else {
            FileError::Unreadable { path, source }
        }
    })
}
