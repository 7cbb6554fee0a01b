//! A certificate authority of one federation: made once, loaded for every certificate it signs.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use aws_lc_rs::rand;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, SerialNumber,
    SignatureAlgorithm,
};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::{
    files::WriteError,
    layout::Role,
    pem_file::{self, FileError},
};

/// How a CA is made.
#[derive(Clone, Debug)]
pub struct CaOptions {
    /// The name that clients see as issuer.
    pub common_name: String,
    /// Of the CA's key.
    pub curve: CertCurve,
    /// How long it is valid.
    pub days: u32,
}

impl Default for CaOptions {
    fn default() -> Self {
        Self {
            common_name: "Flower federation CA".to_owned(),
            curve: CertCurve::P384,
            days: CA_DAYS,
        }
    }
}

/// The curve of a certificate's ECDSA key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CertCurve {
    /// The cheapest handshakes.
    P256,
    /// The default of CAs.
    P384,
}

impl CertCurve {
    pub(crate) fn algorithm(self) -> &'static SignatureAlgorithm {
        match self {
            Self::P256 => &PKCS_ECDSA_P256_SHA256,
            Self::P384 => &PKCS_ECDSA_P384_SHA384,
        }
    }
}

/// A CA with its private key. Its `Debug` shows neither.
pub struct Ca {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    pub(crate) not_after: i64,
    pub(crate) issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    /// Makes a CA that is valid from an hour before `now_unix` (Unix seconds).
    ///
    /// # Errors
    /// When the system has no randomness, or the time is beyond the calendar.
    pub fn generate(options: &CaOptions, now_unix: f64) -> Result<Self, CertError> {
        let key = KeyPair::generate_for(options.curve.algorithm())?;
        let mut params = params(&options.common_name, options.days, now_unix, i64::MAX)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
        ];
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            certificate: certificate.der().clone(),
            certificate_pem: certificate.pem(),
            not_after: params.not_after.unix_timestamp(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Loads a CA from its two files.
    ///
    /// # Errors
    /// When a file is unusable, the certificate is not a CA's, or the key is not the certificate's.
    pub fn load(certificate_path: &Path, key_path: &Path) -> Result<Self, CertError> {
        let mut certificates = pem_file::read_certificates(certificate_path)?;
        let der = certificates.swap_remove(0);
        let parsed = pem_file::parse(certificate_path, &der)?;
        if !parsed.is_ca() {
            return Err(CertError::NotCa {
                path: certificate_path.into(),
            });
        }
        let not_after = parsed.validity().not_after.timestamp();
        let key = KeyPair::try_from(&pem_file::read_key(key_path)?).map_err(|_error| {
            FileError::Damaged {
                path: key_path.into(),
            }
        })?;
        if parsed.public_key().subject_public_key.data != key.public_key_raw() {
            let next = next_key(key_path);
            if next.exists() {
                let key = key_path.into();
                return Err(CertError::CutOff { next, key });
            }
            return Err(CertError::CaKeyMismatch {
                certificate: certificate_path.into(),
                key: key_path.into(),
            });
        }
        Ok(Self {
            certificate_pem: pem_file::armor("CERTIFICATE", &der, 64),
            not_after,
            issuer: Issuer::from_ca_cert_der(&der, key)?,
            certificate: der,
        })
    }

    /// The certificate, for everybody.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The certificate as DER.
    #[must_use]
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate
    }

    /// The private key as PKCS#8, for nobody.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca").finish_non_exhaustive()
    }
}

/// Why a certificate could not be made or looked at.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// The CA's files belong to different CAs.
    #[error("the key {} does not fit the CA certificate {}: use the pair that was made together", key.display(), certificate.display())]
    CaKeyMismatch {
        /// The CA's certificate.
        certificate: PathBuf,
        /// The key beside it.
        key: PathBuf,
    },
    /// The CA cannot sign any more.
    #[error(
        "the CA expired on {since}: make the next one with `certs ca --rollover`, and give ca.crt to every client"
    )]
    CaExpired {
        /// ISO 8601.
        since: String,
    },
    /// The certificate is the next CA's already, the key is not.
    #[error("a change to the next CA was cut off: `mv {} {}` completes it", next.display(), key.display())]
    CutOff {
        /// The key of the next CA.
        next: PathBuf,
        /// The key in use.
        key: PathBuf,
    },
    /// A file of more than one certificate where there is one CA.
    #[error("{} holds one CA, the one in use: there is none to retire", path.display())]
    NoFormerCa {
        /// The certificate of the CA.
        path: PathBuf,
    },
    /// Certificates that nobody would trust any more.
    #[error(
        "a CA that would be taken out of ca.crt has signed {}: renew these with `certs renew` and hand them out first, or \
             give --force",
        listed(paths)
    )]
    StillInUse {
        /// The certificates.
        paths: Vec<PathBuf>,
    },
    /// A subject of more than one attribute of a kind, as other programs make them.
    #[error("the subject of {} cannot be written again as it is: make a new certificate instead", path.display())]
    Subject {
        /// The certificate.
        path: PathBuf,
    },
    /// A directory without certificates.
    #[error("{} holds no certificate of a server or a client: make one first with `certs server` or `certs client`", dir.display())]
    NothingToRenew {
        /// The directory.
        dir: PathBuf,
    },
    /// Files of different pairs.
    #[error("the key {} does not fit the certificate {}: give --new-keys to have a new pair made", key.display(), certificate.display())]
    KeyMismatch {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// A directory without a CA.
    #[error("{} holds no CA with its key: make one there first with `certs ca`", dir.display())]
    NoCa {
        /// The directory.
        dir: PathBuf,
    },
    /// A certificate that may not sign.
    #[error("{} is not a CA certificate: name the directory of the CA", path.display())]
    NotCa {
        /// The certificate.
        path: PathBuf,
    },
    /// A file is unusable.
    #[error(transparent)]
    File(#[from] FileError),
    /// The libraries refused.
    #[error("cannot make the certificate")]
    Make(#[from] rcgen::Error),
    /// What was signed does not lead back to the CA, as with exotic names in a CA of other making.
    #[error("the {0} certificate does not verify against the CA: make the CA anew with `certs ca`")]
    Unverifiable(Role),
    /// A name is neither a DNS name nor an IP address.
    #[error("{0:?} is neither a DNS name nor an IP address: leave out scheme and port")]
    Name(String),
    /// No randomness.
    #[error("the system has no randomness to give")]
    NoRandomness,
    /// A validity beyond the calendar.
    #[error("the validity leaves the calendar: give fewer days")]
    Validity,
    /// Files were not written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Where the key of the next CA is while a rollover is not complete.
pub(crate) fn next_key(key: &Path) -> PathBuf {
    key.with_extension("key.next")
}

fn listed(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    names.join(", ")
}

/// What all certificates have in common: name, random serial, validity that ends no later than `not_after_max`.
pub(crate) fn params(
    common_name: &str,
    days: u32,
    now_unix: f64,
    not_after_max: i64,
) -> Result<CertificateParams, CertError> {
    let mut serial = [0; 16];
    rand::fill(&mut serial).map_err(|_error| CertError::NoRandomness)?;
    // Positive, and never shorter.
    serial[0] = serial[0] & 0x3f | 0x40;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "`as` saturates, and a saturated time is refused below"
    )]
    let now = now_unix.floor() as i64;
    let not_after = now.saturating_add(i64::from(days) * DAY).min(not_after_max);
    let at = |unix| OffsetDateTime::from_unix_timestamp(unix).map_err(|_error| CertError::Validity);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, ORGANIZATION);
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.not_before = at(now.saturating_sub(BACKDATE))?;
    params.not_after = at(not_after)?;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

const ORGANIZATION: &str = "Flower federation";
/// Ten years with their leap days.
const CA_DAYS: u32 = 3652;
const DAY: i64 = 86_400;
/// Clocks of clients may be behind.
const BACKDATE: i64 = 3600;
