//! Certificates of a layout made anew before they expire: the same names and usages, later, and by the CA that is there
//! now.

use std::path::{Path, PathBuf};

use rcgen::{
    CustomExtension, DistinguishedName, DnType, KeyPair, PublicKeyData, SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate,
    der_parser::Oid,
    oid_registry::{
        OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER as AUTHORITY_KEY,
        OID_X509_EXT_SUBJECT_KEY_IDENTIFIER as SUBJECT_KEY,
    },
    public_key::PublicKey,
};

use crate::{
    ca::{self, Ca, CertCurve, CertError},
    chain::{self, Signed},
    files::{self, NewContents},
    inspect,
    layout::{ca_files, client_certificates, server_certificates},
    leaf::LEAF_DAYS,
    pem_file,
    timestamp::format_iso,
};

/// What is renewed, and how.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RenewOptions {
    /// Also what is not due, and what none of the CAs in `ca.crt` has signed.
    pub all: bool,
    /// What expires within so many days is due; so is what a former CA has signed.
    pub within_days: i64,
    /// Whether keys are made anew too. That of a node which has made it itself stays.
    pub new_keys: bool,
    /// Whether files are written to where they are instead of being replaced by others of their name.
    pub in_place: bool,
}

impl Default for RenewOptions {
    fn default() -> Self {
        Self {
            all: false,
            within_days: 30,
            new_keys: false,
            in_place: false,
        }
    }
}

/// What became of one certificate, which can be in several files.
#[derive(Clone, Debug, PartialEq)]
pub struct Renewal {
    /// The files of the certificate.
    pub certificates: Vec<PathBuf>,
    /// Whole days until the one that was there expires; negative once it has.
    pub days_left: i64,
    /// Whether none of the CAs in `ca.crt` has signed the one that was there.
    pub is_foreign: bool,
    /// What took its place; nothing if it was not due.
    pub renewed: Option<Renewed>,
}

/// A certificate that was made anew.
#[derive(Clone, Debug, PartialEq)]
pub struct Renewed {
    /// Valid until, ISO 8601.
    pub until: String,
    /// Whether it ends with the CA, and would last longer otherwise.
    pub ends_with_ca: bool,
    /// The files of its new key; none if it is for the same one.
    pub keys: Vec<PathBuf>,
}

/// Renews the certificates of servers and clients below `dir` with the CA there. Everything is made, and may be written,
/// before anything is.
///
/// # Errors
/// When there is no usable CA or nothing to renew, a file is unusable, or disk errors.
pub fn renew(dir: &Path, options: &RenewOptions, now_unix: f64) -> Result<Vec<Renewal>, CertError> {
    let (ca_certificate, ca_key) = ca_files(dir)?;
    let ca = Ca::load(&ca_certificate, &ca_key)?;
    let anchors = pem_file::read_certificates(&ca_certificate)?;
    let mut renewals = Vec::new();
    let mut writes = Vec::new();
    for old in in_use(dir)? {
        let certificate = pem_file::parse(&old.paths[0], &old.chain[0])?;
        let days_left = inspect::days_left(&certificate, now_unix);
        let is_foreign = chain::leads_to(&old.chain, &anchors) == Signed::No;
        let is_old = days_left < options.within_days || !ca.has_signed(&certificate);
        let renewed = match options.all || is_old && !is_foreign {
            true => {
                let days = lifetime_days(&certificate, &anchors);
                Some(old.renewed(&ca, &certificate, days, options.new_keys, now_unix)?)
            }
            false => None,
        };
        renewals.push(Renewal {
            certificates: old.paths.clone(),
            days_left,
            is_foreign,
            renewed: renewed.map(|(renewed, files)| {
                writes.extend(files);
                renewed
            }),
        });
    }
    if renewals.is_empty() {
        return Err(CertError::NothingToRenew { dir: dir.into() });
    }
    files::replace_all(&writes, options.in_place)?;
    Ok(renewals)
}

/// A certificate and all files that hold it.
pub(crate) struct InUse {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) paths: Vec<PathBuf>,
}

/// The certificates below `dir`. Both layouts hold the same one of the server.
pub(crate) fn in_use(dir: &Path) -> Result<Vec<InUse>, CertError> {
    let mut found: Vec<InUse> = Vec::new();
    let mut paths = server_certificates(dir);
    paths.extend(client_certificates(dir));
    for path in paths {
        let chain = pem_file::read_certificates(&path)?;
        match found.iter_mut().find(|other| other.chain[0] == chain[0]) {
            Some(other) => other.paths.push(path),
            None => found.push(InUse {
                chain,
                paths: vec![path],
            }),
        }
    }
    Ok(found)
}

impl InUse {
    /// The certificate that takes its place, and the files to write.
    fn renewed(
        &self,
        ca: &Ca,
        certificate: &X509Certificate<'_>,
        days: u32,
        new_keys: bool,
        now_unix: f64,
    ) -> Result<(Renewed, Vec<NewContents>), CertError> {
        let mut keys: Vec<_> = self
            .paths
            .iter()
            .map(|path| path.with_extension("key"))
            .filter(|key| key.exists())
            .collect();
        let mut writes = Vec::new();
        let signed = if new_keys && !keys.is_empty() {
            let key = KeyPair::generate_for(curve(certificate).algorithm())?;
            let pem = key.serialize_pem().into_bytes();
            writes.extend(keys.iter().map(|path| (path.clone(), pem.clone())));
            ca.sign_again(&self.paths[0], certificate, &key, days, now_unix)?
        } else {
            self.check_keys(&keys)?;
            keys.clear();
            let key = SubjectPublicKeyInfo::from_der(certificate.public_key().raw)?;
            ca.sign_again(&self.paths[0], certificate, &key, days, now_unix)?
        };
        for path in &self.paths {
            let mut pem = signed.pem.clone();
            if pem_file::read_certificates(path)?.len() > 1 {
                pem.push_str(ca.certificate_pem());
            }
            writes.push((path.clone(), pem.into_bytes()));
        }
        let renewed = Renewed {
            until: signed.until,
            ends_with_ca: signed.ends_with_ca,
            keys,
        };
        Ok((renewed, writes))
    }

    /// A certificate for a key that nobody has would lock its owner out.
    fn check_keys(&self, keys: &[PathBuf]) -> Result<(), CertError> {
        for path in keys {
            if !inspect::key_fits(&self.chain[..1], pem_file::read_key(path)?) {
                return Err(CertError::KeyMismatch {
                    certificate: self.paths[0].clone(),
                    key: path.clone(),
                });
            }
        }
        Ok(())
    }
}

/// A certificate that was signed again.
struct SignedAgain {
    pem: String,
    until: String,
    ends_with_ca: bool,
}

/// How long a certificate is to last: as long as the one that was there, unless that had to end with its CA.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and what is beyond the calendar is refused"
)]
fn lifetime_days(old: &X509Certificate<'_>, anchors: &[CertificateDer<'_>]) -> u32 {
    let (from, until) = inspect::validity(old);
    let ended_with_ca = anchors.iter().any(|anchor| {
        pem_file::parse(Path::new(""), anchor).is_ok_and(|ca| {
            inspect::validity(&ca).1 <= until && chain::signed_by(old, &ca) != Signed::No
        })
    });
    match ended_with_ca {
        true => LEAF_DAYS,
        false => ((until - from) / DAY).round() as u32,
    }
}

impl Ca {
    pub(crate) fn has_signed(&self, certificate: &X509Certificate<'_>) -> bool {
        pem_file::parse(Path::new(""), self.certificate_der())
            .is_ok_and(|ca| chain::signed_by(certificate, &ca) != Signed::No)
    }

    /// The same certificate for `key`, valid from now on for so many days, but no longer than the CA.
    fn sign_again(
        &self,
        path: &Path,
        old: &X509Certificate<'_>,
        key: &impl PublicKeyData,
        days: u32,
        now_unix: f64,
    ) -> Result<SignedAgain, CertError> {
        self.check_unexpired(now_unix)?;
        let mut params = ca::params("", days, now_unix, self.not_after)?;
        params.distinguished_name = subject(path, old)?;
        params.custom_extensions = extensions(old);
        let until = params.not_after.unix_timestamp();
        let ends_with_ca = until == self.not_after;
        let certificate = params.signed_by(key, &self.issuer)?;
        let der = certificate.der();
        if !self.has_signed(&pem_file::parse(path, der)?) {
            return Err(CertError::Subject { path: path.into() });
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "certificate times have four-digit years"
        )]
        let until = format_iso(until as f64);
        Ok(SignedAgain {
            pem: certificate.pem(),
            until,
            ends_with_ca,
        })
    }
}

/// Whose it is.
fn subject(path: &Path, old: &X509Certificate<'_>) -> Result<DistinguishedName, CertError> {
    let wrong = || CertError::Subject { path: path.into() };
    let mut name = DistinguishedName::new();
    let mut attributes = 0;
    for attribute in old.subject().iter_attributes() {
        let oid = components(attribute.attr_type()).ok_or_else(wrong)?;
        let text = attribute.as_str().map_err(|_error| wrong())?;
        name.push(DnType::from_oid(&oid), text);
        attributes += 1;
    }
    // One of each kind is all that is kept apart.
    if name.iter().count() == attributes {
        Ok(name)
    } else {
        Err(wrong())
    }
}

/// What it may be used for and by whom, byte for byte; not whose keys are in it.
fn extensions(old: &X509Certificate<'_>) -> Vec<CustomExtension> {
    let extensions = old.extensions().iter();
    extensions
        .filter(|extension| ![AUTHORITY_KEY, SUBJECT_KEY].contains(&extension.oid))
        .filter_map(|extension| {
            let oid = components(&extension.oid)?;
            let mut copy = CustomExtension::from_oid_content(&oid, extension.value.to_vec());
            copy.set_criticality(extension.critical);
            Some(copy)
        })
        .collect()
}

fn components(oid: &Oid<'_>) -> Option<Vec<u64>> {
    Some(oid.iter()?.collect())
}

/// Keys of other kinds become what `certs` makes.
fn curve(certificate: &X509Certificate<'_>) -> CertCurve {
    match certificate.public_key().parsed() {
        Ok(PublicKey::EC(point)) if point.key_size() == 384 => CertCurve::P384,
        _other => CertCurve::P256,
    }
}

const DAY: f64 = 86_400.0;
