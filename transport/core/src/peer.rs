//! Who is at the other end, as far as the transport has proved it.

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The other end of a connection or call.
#[derive(Clone, Debug)]
pub struct Peer {
    /// What the peer has proved to be.
    pub identity: Identity,
    /// Where its packets come from.
    pub addr: SocketAddr,
    /// The transport's label for logs and metrics. Services never branch on it.
    pub transport: &'static str,
}

/// What a transport has proved about a peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// Nothing.
    Anonymous,
    /// It holds the private half of this key.
    NodeKey(PublicKey),
    /// It logged in to this account.
    Account(AccountId),
    /// It knows the secret that the server gave to those who may launch apps.
    Launcher,
}

/// A public key: its SubjectPublicKeyInfo in DER (RFC 5280, section 4.1.2.7).
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PublicKey(Bytes);

impl PublicKey {
    /// Wraps a DER-encoded SubjectPublicKeyInfo, which must be canonical: keys are compared by
    /// their bytes.
    #[must_use]
    pub fn from_spki_der(der: Bytes) -> Self {
        Self(der)
    }

    /// The DER bytes.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tail = &self.0[self.0.len().saturating_sub(4)..];
        write!(f, "PublicKey(..{tail:02x?})")
    }
}

/// An account of a user of the control service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AccountId(pub String);

/// A claim a caller presents with a call. Transports carry it; services judge it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bearer(String);

impl Bearer {
    /// Wraps a claim.
    pub fn new(claim: impl Into<String>) -> Self {
        Self(claim.into())
    }

    /// The claim itself. Never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(secret)")
    }
}
