//! From one CA to the next without an hour in which peers distrust each other: for a while `ca.crt` holds both.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;

use crate::{
    ca::{Ca, CaOptions, CertError},
    files::{self, NewContents},
    inspect,
    layout::ca_files,
    pem_file,
};

/// Makes a CA that signs from now on below `dir`, where one is, and keeps the certificates of those before that are still
/// valid: whoever trusts `ca.crt` trusts what each of them has signed. Files are written `in_place` or replaced. Gives the files
/// written.
///
/// # Errors
/// When there is no CA yet, or disk errors.
pub fn roll_over(
    dir: &Path,
    options: &CaOptions,
    in_place: bool,
    now_unix: f64,
) -> Result<Vec<PathBuf>, CertError> {
    let (certificate, key) = ca_files(dir)?;
    let former = pem_file::read_certificates(&certificate)?;
    let ca = Ca::generate(options, now_unix)?;
    let mut bundle = ca.certificate_pem().to_owned();
    for der in former {
        let parsed = pem_file::parse(&certificate, &der)?;
        if inspect::days_left(&parsed, now_unix) >= 0 {
            bundle.push_str(&pem(&der));
        }
    }
    let mut writes = bundles(dir, &certificate, &bundle);
    writes.push((key, ca.key_pem().into_bytes()));
    files::replace_all(&writes, in_place)?;
    Ok(writes.into_iter().map(|(path, _)| path).collect())
}

/// Takes all CAs but the one that signs out of `ca.crt` below `dir`. Gives the files written.
///
/// # Errors
/// When there is no other CA, or disk errors.
pub fn retire_former(dir: &Path, in_place: bool) -> Result<Vec<PathBuf>, CertError> {
    let (certificate, key) = ca_files(dir)?;
    if pem_file::read_certificates(&certificate)?.len() == 1 {
        return Err(CertError::NoFormerCa { path: certificate });
    }
    // The first, which the key has to fit.
    let ca = Ca::load(&certificate, &key)?;
    let writes = bundles(dir, &certificate, ca.certificate_pem());
    files::replace_all(&writes, in_place)?;
    Ok(writes.into_iter().map(|(path, _)| path).collect())
}

/// The same for each `ca.crt` of the layout.
fn bundles(dir: &Path, certificate: &Path, pem: &str) -> Vec<NewContents> {
    let mut paths = vec![certificate.to_owned()];
    let flat = dir.join("ca.crt");
    if flat != certificate && flat.exists() {
        paths.push(flat);
    }
    let contents = pem.as_bytes();
    let files = paths.into_iter();
    files.map(|path| (path, contents.to_vec())).collect()
}

fn pem(der: &CertificateDer<'_>) -> String {
    pem_file::armor("CERTIFICATE", der, 64)
}
