//! Proofs beside the TLS handshake: of a key that is not the certificate's, made of bytes that TLS exports (RFC 8446,
//! section 7.5) and only the two ends of this connection know. What a proof looks like is not known here.

use std::sync::Arc;

use flwr_transport::Protocol;
use quinn::Connection;

use crate::Connector;
use crate::head::Hello;

/// Makes a proof of exported bytes, or says why there is none.
pub type Prove = Arc<dyn Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync>;

/// A proof, and what it has to be made of.
#[derive(Clone, Copy, Debug)]
pub struct Proof<'a> {
    /// What the client sent.
    pub bytes: &'a [u8],
    /// What TLS exports for it here.
    pub exported: [u8; EXPORTED_BYTES],
}

impl<P: Protocol> Connector<P> {
    /// The same connector with a proof in its hello. Bytes are exported once the handshake is complete, so such a
    /// connection sends nothing before that.
    #[must_use]
    pub fn proving(mut self, prove: Option<Prove>) -> Self {
        self.prove = prove;
        self
    }

    /// Whether connections wait for the handshake to make their proof.
    #[must_use]
    pub fn is_proving(&self) -> bool {
        self.prove.is_some()
    }

    /// What is said first on a connection.
    pub(crate) fn hello_on(&self, connection: &Connection) -> Result<Hello<'static>, String> {
        let mut hello = self.hello.clone();
        if let Some(prove) = &self.prove {
            let exported = exported(connection).ok_or("TLS exports nothing")?;
            hello.proof = Some(prove(&exported)?);
        }
        Ok(hello)
    }
}

/// What TLS exports to both ends of a connection, once the handshake is complete.
pub(crate) fn exported(connection: &Connection) -> Option<[u8; EXPORTED_BYTES]> {
    let mut exported = [0; EXPORTED_BYTES];
    let done = connection.export_keying_material(&mut exported, LABEL, &[]);
    done.is_ok().then_some(exported)
}

const EXPORTED_BYTES: usize = 32;
const LABEL: &[u8] = b"EXPORTER-flwr-quic-node-key";
