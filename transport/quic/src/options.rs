//! How connections are accepted, and who may call.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use flwr_transport::{Bearer, Identity, Status};
use rustls::pki_types::CertificateDer;

use crate::{Proof, Tuning};

/// Who a client is that has shown this; or a sentence for the person there if it is wrong.
pub type Identify = Arc<dyn Fn(Shown<'_>) -> Result<Identity, String> + Send + Sync>;

/// Whether somebody may call, judged for every call.
pub type Admit = Arc<dyn Fn(&Identity) -> Result<(), Status> + Send + Sync>;

/// What a client shows of itself.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The certificate whose key it has proved to hold, in a handshake that TLS has accepted.
    pub certificate: Option<&'a CertificateDer<'a>>,
    /// The secret in its hello.
    pub credential: Option<&'a Bearer>,
    /// The proof in its hello.
    pub proof: Option<Proof<'a>>,
}

/// How connections are accepted.
#[derive(Clone)]
pub struct Options {
    /// Who a client is.
    pub identify: Identify,
    /// Who may call.
    pub admit: Admit,
    /// How long a drain waits for calls under way before it cuts them.
    pub grace: Duration,
    /// How many connections there may be at once; further ones are refused.
    pub connections_max: usize,
    /// How many of them may come from one address: a site behind one middle box, or an attacker.
    pub per_address_max: usize,
    /// With this many handshakes under way, addresses have to prove themselves first (RFC 9000,
    /// section 8.1.2), which costs a round trip.
    pub handshakes_unproved_max: usize,
    /// A secret that is the same after a restart. With it, those who were connected before learn
    /// with their next packet that their connections are gone (RFC 9000, section 10.3), instead of
    /// waiting for an answer in vain.
    pub restart_secret: Option<[u8; 32]>,
    /// What all connections together may hold of what was received and not read, and sent and not acknowledged, in
    /// bytes; beside it each may hold 64 KiB either way. The windows of [`tuning`](Self::tuning) are what one gets of it
    /// at most.
    pub memory_max: u64,
    /// How connections are run.
    pub tuning: Tuning,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            identify: Arc::new(|_| Ok(Identity::Anonymous)),
            admit: Arc::new(anyone),
            grace: Duration::from_secs(30),
            connections_max: 16 << 10,
            per_address_max: 4 << 10,
            handshakes_unproved_max: 128,
            restart_secret: None,
            memory_max: 1 << 30,
            tuning: Tuning::accepting(),
        }
    }
}

/// Whoever calls may.
fn anyone(_: &Identity) -> Result<(), Status> {
    Ok(())
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("grace", &self.grace)
            .field("connections_max", &self.connections_max)
            .field("memory_max", &self.memory_max)
            .field("tuning", &self.tuning)
            .finish_non_exhaustive()
    }
}
