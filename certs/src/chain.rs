//! Questions about certificates that are already parsed: who signed, for which hosts, until when.

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate, error::X509Error, extensions::GeneralName, prelude::FromDer as _,
};

/// Whether a signature leads from one certificate to another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Signed {
    Yes,
    No,
    /// The names fit, the algorithm is one that cannot be checked here.
    Unknown,
}

/// Whether `issuer` signed `certificate`.
pub(crate) fn signed_by(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> Signed {
    if certificate.issuer().as_raw() != issuer.subject().as_raw() {
        return Signed::No;
    }
    match certificate.verify_signature(Some(issuer.public_key())) {
        Ok(()) => Signed::Yes,
        Err(X509Error::SignatureUnsupportedAlgorithm) => Signed::Unknown,
        Err(_) => Signed::No,
    }
}

/// Whether the first certificate of `chain` leads to one of `anchors`, by way of the others.
pub(crate) fn leads_to(chain: &[CertificateDer<'_>], anchors: &[CertificateDer<'_>]) -> Signed {
    let Some((mut current, others)) = chain.split_first() else {
        return Signed::No;
    };
    let mut certainty = Signed::Yes;
    // Each step uses up one certificate of the chain at most.
    for _ in 0..chain.len() {
        if anchors.contains(current) {
            return certainty;
        }
        let (next, signed) = match signer_among(current, anchors) {
            Some((_, Signed::Yes)) => return certainty,
            Some(_unknown) => return Signed::Unknown,
            None => match signer_among(current, others) {
                Some(found) => found,
                None => return Signed::No,
            },
        };
        if signed == Signed::Unknown {
            certainty = Signed::Unknown;
        }
        current = next;
    }
    Signed::No
}

fn signer_among<'c, 'der>(
    certificate: &CertificateDer<'_>,
    candidates: &'c [CertificateDer<'der>],
) -> Option<(&'c CertificateDer<'der>, Signed)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    candidates.iter().find_map(|candidate| {
        let (_, issuer) = X509Certificate::from_der(candidate).ok()?;
        match signed_by(&certificate, &issuer) {
            Signed::No => None,
            signed => Some((candidate, signed)),
        }
    })
}

/// The subject alternative names that clients compare hosts with: DNS names and IP addresses.
pub(crate) fn alt_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(dns) => Some((*dns).to_owned()),
            GeneralName::IPAddress(bytes) => ip_of(bytes).map(|ip| ip.to_string()),
            _other => None,
        })
        .collect()
}

/// Whether a client that dials `host` accepts one of `names`.
pub(crate) fn is_valid_for(names: &[String], host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = host.parse::<IpAddr>() {
        return names.iter().any(|name| name.parse() == Ok(ip));
    }
    names.iter().any(|name| {
        name.eq_ignore_ascii_case(host)
            || name.strip_prefix("*.").is_some_and(|parent| {
                host.split_once('.').is_some_and(|(label, rest)| {
                    !label.is_empty() && rest.eq_ignore_ascii_case(parent)
                })
            })
    })
}

fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}
