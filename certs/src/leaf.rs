//! Certificates of servers and clients, signed by a [`Ca`].

use std::{fmt, net::IpAddr};

use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData,
    SanType, SubjectPublicKeyInfo,
};
use rustls::pki_types::DnsName;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use crate::{
    ca::{self, Ca, CertCurve, CertError},
    chain::{self, Signed},
    layout::Role,
    node_key::NodePublicKey,
    timestamp::format_iso,
};

/// How certificates of servers and clients are made.
#[derive(Clone, Debug)]
pub struct LeafOptions {
    /// Host names and IP addresses beyond the usual ones.
    pub names: Vec<String>,
    /// How long it is valid; never longer than the CA.
    pub days: u32,
    /// Of its key.
    pub curve: CertCurve,
}

impl Default for LeafOptions {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            days: LEAF_DAYS,
            curve: CertCurve::P256,
        }
    }
}

/// A certificate with its private key. Its `Debug` shows neither.
pub struct Leaf {
    /// The certificate alone.
    pub certificate_pem: String,
    /// The certificate, then the CA's.
    pub chain_pem: String,
    /// PKCS#8.
    pub key_pem: String,
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf").finish_non_exhaustive()
    }
}

impl Ca {
    /// Signs a certificate for the SuperLink, valid for `superlink`, `flower-superlink`, the loopback and the given
    /// names.
    ///
    /// # Errors
    /// When a name is none, or the CA has expired.
    pub fn issue_server(&self, options: &LeafOptions, now_unix: f64) -> Result<Leaf, CertError> {
        let key = KeyPair::generate_for(options.curve.algorithm())?;
        let certificate = self.sign(Role::Server, &key, options, now_unix)?;
        Ok(self.leaf(certificate, &key))
    }

    /// Signs a certificate for client `number`, valid for `supernode-N`, `flower-supernode-N`, the loopback and the
    /// given names. It may also serve, for a SuperNode's own API.
    ///
    /// # Errors
    /// As [`issue_server`](Self::issue_server).
    pub fn issue_client(
        &self,
        number: u32,
        options: &LeafOptions,
        now_unix: f64,
    ) -> Result<Leaf, CertError> {
        let key = KeyPair::generate_for(options.curve.algorithm())?;
        let certificate = self.sign(Role::Client(number), &key, options, now_unix)?;
        Ok(self.leaf(certificate, &key))
    }

    /// Signs a certificate like that of [`issue_client`](Self::issue_client) for a key that a node has already. Gives
    /// the certificate alone, as PEM.
    ///
    /// # Errors
    /// As [`issue_server`](Self::issue_server).
    pub fn issue_for_node(
        &self,
        number: u32,
        node: &NodePublicKey,
        options: &LeafOptions,
        now_unix: f64,
    ) -> Result<String, CertError> {
        let key = SubjectPublicKeyInfo::from_der(node.spki_der())?;
        self.sign(Role::Client(number), &key, options, now_unix)
    }

    fn leaf(&self, certificate_pem: String, key: &KeyPair) -> Leaf {
        Leaf {
            chain_pem: format!("{certificate_pem}{}", self.certificate_pem()),
            certificate_pem,
            key_pem: key.serialize_pem(),
        }
    }

    /// PEM.
    fn sign(
        &self,
        role: Role,
        key: &impl PublicKeyData,
        options: &LeafOptions,
        now_unix: f64,
    ) -> Result<String, CertError> {
        let purposes = match role {
            Role::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Role::Client(_) => vec![
                ExtendedKeyUsagePurpose::ClientAuth,
                ExtendedKeyUsagePurpose::ServerAuth,
            ],
        };
        let usual = usual_names(role);
        self.check_unexpired(now_unix)?;
        let mut params: CertificateParams =
            ca::params(&usual[0], options.days, now_unix, self.not_after)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = purposes;
        for name in usual.iter().chain(&options.names) {
            let name = alt_name(name)?;
            if !params.subject_alt_names.contains(&name) {
                params.subject_alt_names.push(name);
            }
        }
        let certificate = params.signed_by(key, &self.issuer)?;
        self.check(role, certificate.der())?;
        Ok(certificate.pem())
    }

    /// What an expired CA signs, nobody accepts.
    pub(crate) fn check_unexpired(&self, now_unix: f64) -> Result<(), CertError> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "certificate times have four-digit years"
        )]
        let not_after = self.not_after as f64;
        if not_after <= now_unix {
            return Err(CertError::CaExpired {
                since: format_iso(not_after),
            });
        }
        Ok(())
    }

    /// A CA of other making may have a name that is not written back byte for byte.
    fn check(&self, role: Role, der: &[u8]) -> Result<(), CertError> {
        let (Ok((_, leaf)), Ok((_, ca))) = (
            X509Certificate::from_der(der),
            X509Certificate::from_der(self.certificate_der()),
        ) else {
            return Err(CertError::Unverifiable(role));
        };
        match chain::signed_by(&leaf, &ca) {
            Signed::Yes | Signed::Unknown => Ok(()),
            Signed::No => Err(CertError::Unverifiable(role)),
        }
    }
}

/// The names that a certificate of this role has without being told; its own comes first.
#[must_use]
pub fn usual_names(role: Role) -> Vec<String> {
    let own = match role {
        Role::Server => "superlink".to_owned(),
        Role::Client(number) => format!("supernode-{number}"),
    };
    let with_flower = format!("flower-{own}");
    let loopback = LOOPBACK.map(str::to_owned);
    [own, with_flower].into_iter().chain(loopback).collect()
}

fn alt_name(name: &str) -> Result<SanType, CertError> {
    let bare = name.trim();
    let unbracketed = bare
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(bare);
    if let Ok(ip) = unbracketed.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(ip));
    }
    let wrong = || CertError::Name(name.to_owned());
    let host = bare.strip_prefix("*.").unwrap_or(bare);
    DnsName::try_from(host).map_err(|_error| wrong())?;
    let dns = bare.try_into().map_err(|_error| wrong())?;
    Ok(SanType::DnsName(dns))
}

const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// The longest that all common clients accept of a server.
pub(crate) const LEAF_DAYS: u32 = 825;
