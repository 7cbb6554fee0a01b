//! From one CA to the next without an hour in which peers distrust each other: for a while `ca.crt` holds both.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustls::pki_types::CertificateDer;

use crate::{
    ca::{Ca, CaOptions, CertError, next_key},
    chain::{self, Signed},
    files::{self, Mode, NewContents, NewFile},
    inspect,
    layout::ca_files,
    pem_file,
    renew::in_use,
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
    // A certificate without its key signs nothing. So the key is on the disk before the certificate takes its place.
    let next = NewFile {
        path: next_key(&key),
        contents: ca.key_pem().into_bytes(),
        mode: Mode::Secret(0o600),
    };
    files::write_all(std::slice::from_ref(&next), true)?;
    let mut writes = bundles(dir, &certificate, &bundle);
    writes.push((key.clone(), next.contents));
    let written = files::replace_all(&writes, in_place);
    if Ca::load(&certificate, &key).is_ok() {
        fs::remove_file(&next.path).map_err(|source| files::WriteError::io(&next.path, source))?;
    }
    written?;
    Ok(writes.into_iter().map(|(path, _)| path).collect())
}

/// Takes all CAs but the one that signs out of `ca.crt` below `dir`. Unless it is `forced`, nothing below `dir` may be signed
/// by them. Gives the files written.
///
/// # Errors
/// When there is no other CA, it is needed still, or disk errors.
pub fn retire_former(dir: &Path, forced: bool, in_place: bool) -> Result<Vec<PathBuf>, CertError> {
    let (certificate, key) = ca_files(dir)?;
    let anchors = pem_file::read_certificates(&certificate)?;
    let former = &anchors[1..];
    if former.is_empty() {
        return Err(CertError::NoFormerCa { path: certificate });
    }
    // The first, which the key has to fit.
    let ca = Ca::load(&certificate, &key)?;
    if !forced {
        let signed = |chain: &[CertificateDer<'_>]| {
            let leaf = pem_file::parse(&certificate, &chain[0]);
            let is_ours = leaf.is_ok_and(|leaf| ca.has_signed(&leaf));
            !is_ours && chain::leads_to(chain, former) != Signed::No
        };
        let needed = in_use(dir)?.into_iter().filter(|one| signed(&one.chain));
        let paths: Vec<_> = needed.flat_map(|one| one.paths).collect();
        if !paths.is_empty() {
            return Err(CertError::StillInUse { paths });
        }
    }
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
