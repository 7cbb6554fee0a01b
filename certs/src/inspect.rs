//! What a certificate says, and what is wrong with it, in plain words.

use std::path::Path;

use aws_lc_rs::digest;
use rustls::{
    Error, InconsistentKeys,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _, public_key::PublicKey};

use crate::{
    ca::CertError,
    chain::{self, Signed},
    pem_file,
    timestamp::format_iso,
};

/// What a certificate says. Times are Unix seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct CertInfo {
    /// Whose it is.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// The hosts it is valid for.
    pub alt_names: Vec<String>,
    /// Valid from.
    pub not_before: f64,
    /// Valid until.
    pub not_after: f64,
    /// Whole days until it expires; negative once it has.
    pub days_left: i64,
    /// Such as `ECDSA P-384` or `RSA 2048`.
    pub key_algorithm: String,
    /// Upper-case hex with colons, as `openssl x509 -fingerprint -sha256` shows it.
    pub fingerprint_sha256: String,
    /// Serial number, hex with colons.
    pub serial: String,
    /// Whether it may sign others.
    pub is_ca: bool,
}

impl CertInfo {
    /// Of a certificate as DER, if it is one.
    #[must_use]
    pub fn of(der: &[u8], now_unix: f64) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        Some(info(der, &certificate, now_unix))
    }

    /// Whether a client that dials `host` accepts one of its names.
    #[must_use]
    pub fn is_valid_for(&self, host: &str) -> bool {
        chain::is_valid_for(&self.alt_names, host)
    }
}

/// Every certificate of a PEM file, in its order; at least one.
///
/// # Errors
/// When the file is missing, unreadable, or holds no usable certificate.
pub fn show(path: &Path, now_unix: f64) -> Result<Vec<CertInfo>, CertError> {
    let certificates = pem_file::read_certificates(path)?;
    let infos = certificates.iter().map(|der| {
        let certificate = pem_file::parse(path, der)?;
        Ok(info(der, &certificate, now_unix))
    });
    infos.collect()
}

/// What keeps a certificate from being used with a CA, a key or a host; nothing means that it is fine.
///
/// # Errors
/// When a file is missing, unreadable, or holds nothing usable.
pub fn verify(
    ca_path: &Path,
    certificate_path: &Path,
    key_path: Option<&Path>,
    host: Option<&str>,
    now_unix: f64,
) -> Result<Vec<String>, CertError> {
    let anchors = pem_file::read_certificates(ca_path)?;
    let chain = pem_file::read_certificates(certificate_path)?;
    let certificate = pem_file::parse(certificate_path, &chain[0])?;
    let mut problems = Vec::new();
    match chain::leads_to(&chain, &anchors) {
        Signed::Yes => {}
        Signed::No => problems.push(format!(
            "{} is not signed by the CA in {}",
            certificate_path.display(),
            ca_path.display()
        )),
        Signed::Unknown => problems.push(format!(
            "{} is signed with an algorithm that cannot be checked here",
            certificate_path.display()
        )),
    }
    problems.extend(validity_problem("the certificate", &certificate, now_unix));
    let anchor = pem_file::parse(ca_path, &anchors[0])?;
    if anchors[0] != chain[0] {
        problems.extend(validity_problem("the CA certificate", &anchor, now_unix));
    }
    if let Some(host) = host {
        let names = chain::alt_names(&certificate);
        if !chain::is_valid_for(&names, host) {
            let names = if names.is_empty() {
                "no host at all".to_owned()
            } else {
                names.join(", ")
            };
            problems.push(format!("not valid for {host}; it is valid for {names}"));
        }
    }
    if let Some(key_path) = key_path
        && !key_fits(&chain[..1], pem_file::read_key(key_path)?)
    {
        problems.push(format!(
            "the key {} does not fit the certificate {}",
            key_path.display(),
            certificate_path.display()
        ));
    }
    Ok(problems)
}

/// Whether the key is the first certificate's; a key of unknown kind fits nothing.
pub(crate) fn key_fits(chain: &[CertificateDer<'static>], key: PrivateKeyDer<'static>) -> bool {
    let Ok(key) = default_provider().key_provider.load_private_key(key) else {
        return false;
    };
    matches!(
        CertifiedKey::new(chain.to_vec(), key).keys_match(),
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown))
    )
}

/// Whether now is within the certificate's time.
pub(crate) fn validity_problem(
    what: &str,
    certificate: &X509Certificate<'_>,
    now_unix: f64,
) -> Option<String> {
    let (not_before, not_after) = validity(certificate);
    if now_unix > not_after {
        Some(format!("{what} expired on {}", format_iso(not_after)))
    } else if now_unix < not_before {
        let from = format_iso(not_before);
        Some(format!("{what} is not valid before {from}"))
    } else {
        None
    }
}

/// First and last second, Unix.
#[expect(
    clippy::cast_precision_loss,
    reason = "certificate times have four-digit years"
)]
pub(crate) fn validity(certificate: &X509Certificate<'_>) -> (f64, f64) {
    let validity = certificate.validity();
    (
        validity.not_before.timestamp() as f64,
        validity.not_after.timestamp() as f64,
    )
}

/// Whole days between now and the end; negative once it is over.
#[expect(
    clippy::cast_possible_truncation,
    reason = "`as` saturates, which is as good as any number of days"
)]
pub(crate) fn days_left(certificate: &X509Certificate<'_>, now_unix: f64) -> i64 {
    let (_, not_after) = validity(certificate);
    ((not_after - now_unix) / 86_400.0).floor() as i64
}

fn info(der: &[u8], certificate: &X509Certificate<'_>, now_unix: f64) -> CertInfo {
    let (not_before, not_after) = validity(certificate);
    let hash = digest::digest(&digest::SHA256, der);
    CertInfo {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        alt_names: chain::alt_names(certificate),
        not_before,
        not_after,
        days_left: days_left(certificate, now_unix),
        key_algorithm: key_algorithm(certificate),
        fingerprint_sha256: colon_hex(hash.as_ref()),
        serial: colon_hex(certificate.raw_serial()),
        is_ca: certificate.is_ca(),
    }
}

fn key_algorithm(certificate: &X509Certificate<'_>) -> String {
    let key = certificate.public_key();
    match key.parsed() {
        Ok(PublicKey::EC(point)) => format!("ECDSA P-{}", ec_bits(point.key_size())),
        Ok(PublicKey::RSA(rsa)) => format!("RSA {}", rsa.key_size()),
        _other => {
            let oid = key.algorithm.algorithm.to_id_string();
            if oid == "1.3.101.112" {
                "Ed25519".to_owned()
            } else {
                oid
            }
        }
    }
}

/// Points of P-521 have 66-byte coordinates.
fn ec_bits(coordinate_bits: usize) -> usize {
    if coordinate_bits == 528 {
        521
    } else {
        coordinate_bits
    }
}

fn colon_hex(bytes: &[u8]) -> String {
    let pairs: Vec<_> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}
