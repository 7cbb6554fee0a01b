//! What a failed TLS handshake means, in one sentence a person can act on.

use std::{fmt, io, path::PathBuf, time::Duration};

use rustls::{
    AlertDescription, CertificateError, Error,
    pki_types::{ServerName, UnixTime},
};

use crate::{client_tls::Trust, timestamp::format_iso};

/// Why a client does not go on with a server.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HandshakeError {
    /// A CA's certificate cannot be a server's as well.
    #[error("the server shows a CA's certificate as its own: have the CA sign one for the server")]
    CaAsServer,
    /// The connection ended without a word.
    #[error(
        "the server closed the connection when TLS was offered: if it serves without TLS, connect with --insecure"
    )]
    Closed,
    /// Too late.
    #[error(
        "the server's certificate expired{}: have it renewed, or check the clock of this machine",
        on(since)
    )]
    Expired {
        /// ISO 8601, if it is known.
        since: Option<String>,
    },
    /// The connection broke.
    #[error("the connection broke during the TLS handshake: {why}")]
    Io {
        /// What the system said.
        why: String,
    },
    /// HTTP/2 was not agreed on.
    #[error(
        "the server does not offer HTTP/2 over TLS (ALPN h2), so it does not speak gRPC: check the port"
    )]
    NoHttp2,
    /// Something else than ours is behind the UDP port.
    #[error("the server does not speak to flwr-quic over QUIC: check the port")]
    NoQuic,
    /// No TLS came back.
    #[error(
        "the server speaks no TLS on this port: connect with --insecure, or give the server a certificate"
    )]
    NoTls,
    /// Too early, or a clock is wrong.
    #[error(
        "the server's certificate is not valid {}: check the clock of this machine",
        yet(from)
    )]
    NotYetValid {
        /// ISO 8601, if it is known.
        from: Option<String>,
    },
    /// The server ended the handshake.
    #[error("the server refused the TLS handshake ({alert}){}", hint(alert))]
    Refused {
        /// The name of its alert.
        alert: String,
    },
    /// Anything else.
    #[error("the server's certificate or TLS cannot be used: {why}")]
    Unusable {
        /// What rustls said.
        why: String,
    },
    /// Signed by somebody else.
    #[error(
        "the server's certificate is not signed by {}: give its CA's certificate with --root-certificates",
        trusted(file)
    )]
    UnknownCa {
        /// The trusted CAs; the system's if there is no file.
        file: Option<PathBuf>,
    },
    /// For other hosts.
    #[error("the server's certificate is not valid for {host} but for {names}: connect by a name it has, or make one that has this name", names = list(names))]
    WrongName {
        /// The host that was connected to.
        host: String,
        /// The hosts it is valid for.
        names: Vec<String>,
    },
}

impl HandshakeError {
    /// Whether trying again can help without anybody changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Closed | Self::Io { .. })
    }

    /// The server ended the handshake with this alert.
    #[must_use]
    pub fn refused(alert: AlertDescription) -> Self {
        Self::Refused {
            alert: format!("{alert:?}"),
        }
    }

    /// What ended a connection whose handshake was complete for the client, if it is the server's alert.
    #[must_use]
    pub fn refusal(error: &io::Error) -> Option<Self> {
        match error.get_ref()?.downcast_ref::<Error>()? {
            Error::AlertReceived(alert) => Some(Self::refused(*alert)),
            _ => None,
        }
    }

    pub(crate) fn explain(trust: &Trust, host: &str, error: &io::Error) -> Self {
        let tls = error.get_ref().and_then(|e| e.downcast_ref::<Error>());
        match tls {
            Some(Error::InvalidCertificate(problem)) => Self::certificate(trust, host, problem),
            Some(Error::InvalidMessage(_)) => Self::NoTls,
            Some(Error::NoApplicationProtocol) => Self::NoHttp2,
            Some(Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => Self::NoHttp2,
            Some(Error::AlertReceived(alert)) => Self::refused(*alert),
            Some(other) => Self::Unusable {
                why: other.to_string(),
            },
            None => match error.kind() {
                io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::UnexpectedEof => Self::Closed,
                _other => Self::Io {
                    why: error.to_string(),
                },
            },
        }
    }

    pub(crate) fn certificate(trust: &Trust, host: &str, problem: &CertificateError) -> Self {
        match problem {
            // The signature is another key's if the CA only has the name of the one that signed.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownCa {
                file: match trust {
                    Trust::File(path) => Some(path.clone()),
                    Trust::System => None,
                },
            },
            CertificateError::Expired => Self::Expired { since: None },
            CertificateError::ExpiredContext { not_after, .. } => Self::Expired {
                since: Some(iso(*not_after)),
            },
            CertificateError::NotValidYet => Self::NotYetValid { from: None },
            CertificateError::NotValidYetContext { not_before, .. } => Self::NotYetValid {
                from: Some(iso(*not_before)),
            },
            CertificateError::NotValidForName => Self::WrongName {
                host: host.to_owned(),
                names: Vec::new(),
            },
            CertificateError::NotValidForNameContext {
                expected,
                presented,
            } => Self::WrongName {
                host: name(expected).unwrap_or_else(|| host.to_owned()),
                names: presented.iter().map(|shown| plain(shown)).collect(),
            },
            other => {
                let why = other.to_string();
                if why.contains("CaUsedAsEndEntity") {
                    Self::CaAsServer
                } else {
                    Self::Unusable { why }
                }
            }
        }
    }
}

fn iso(at: UnixTime) -> String {
    format_iso(Duration::from_secs(at.as_secs()).as_secs_f64())
}

fn name(name: &ServerName<'_>) -> Option<String> {
    match name {
        ServerName::DnsName(dns) => Some(dns.as_ref().to_owned()),
        ServerName::IpAddress(ip) => Some(std::net::IpAddr::from(*ip).to_string()),
        _other => None,
    }
}

/// rustls shows names as `DnsName("superlink")` and `IpAddress(127.0.0.1)`.
fn plain(shown: &str) -> String {
    let inner = shown
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(shown).trim_matches('"').to_owned()
}

fn on(since: &Option<String>) -> impl fmt::Display {
    since
        .as_ref()
        .map_or_else(String::new, |since| format!(" on {since}"))
}

fn yet(from: &Option<String>) -> impl fmt::Display {
    let before = |from| format!("before {from}");
    from.as_ref().map_or_else(|| "yet".to_owned(), before)
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "no host at all".to_owned()
    } else {
        names.join(", ")
    }
}

fn trusted(file: &Option<PathBuf>) -> String {
    match file {
        Some(path) => format!("the CA in {}", path.display()),
        None => "a CA that this system trusts".to_owned(),
    }
}

fn hint(alert: &str) -> &'static str {
    match alert {
        // The signature is another key's if the CA only has the name of the one that signed.
        "CertificateRequired" | "DecryptError" | "UnknownCA" => {
            ": it wants a client certificate that its CA signed: give one with --ssl-client-certfile"
        }
        "CertificateExpired" => ": this client's certificate has expired: make a new one",
        alert if alert.contains("Certificate") => {
            ": it wants a client certificate that its CA signed"
        }
        _ => ": it needs TLS 1.2 or 1.3 and a common cipher suite",
    }
}
