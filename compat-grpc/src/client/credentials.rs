//! What a caller proves with each call: a node its key (protocol section 5.1.1), a launcher that it was let in.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use flwr_certs::{
    JOIN_SECRET_HEADER, JoinSecret, NodeKeyPair, PUBLIC_KEY_HEADER, SIGNATURE_HEADER,
    TIMESTAMP_HEADER, format_iso,
};
use flwr_transport::{Code, Status};
use http::{HeaderMap, HeaderValue};

/// What each call carries beside its message. Secrets are not shown.
#[derive(Default)]
pub struct Credentials {
    node: Option<NodeSigner>,
    join_secret: Option<HeaderValue>,
}

impl Credentials {
    /// Nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The signature of a node, made anew for each call.
    #[must_use]
    pub fn node(signer: NodeSigner) -> Self {
        Self {
            node: Some(signer),
            ..Self::default()
        }
    }

    /// The secret of a launcher.
    #[must_use]
    pub fn join_secret(secret: &JoinSecret) -> Self {
        let mut value = HeaderValue::from_str(secret.expose()).expect("join secrets are ASCII");
        value.set_sensitive(true);
        Self {
            join_secret: Some(value),
            ..Self::default()
        }
    }

    /// Adds them to the headers of a call. Costs one signature for a node.
    pub(crate) fn add(&self, headers: &mut HeaderMap) -> Result<(), Status> {
        if let Some(signer) = &self.node {
            signer.sign(headers)?;
        }
        if let Some(secret) = &self.join_secret {
            headers.insert(JOIN_SECRET_HEADER, secret.clone());
        }
        Ok(())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (&self.node, &self.join_secret) {
            (Some(_), _) => "Credentials(node)",
            (None, Some(_)) => "Credentials(join secret)",
            (None, None) => "Credentials(none)",
        })
    }
}

/// Signs the calls of a node as `flower-supernode` 1.22 does: the time, with the node's key.
pub struct NodeSigner {
    keys: Arc<NodeKeyPair>,
    public_key: HeaderValue,
    now: Box<dyn Fn() -> f64 + Send + Sync>,
}

impl NodeSigner {
    /// Signs with `keys`. `now` tells Unix seconds.
    pub fn new(
        keys: impl Into<Arc<NodeKeyPair>>,
        now: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Self {
        let keys = keys.into();
        Self {
            public_key: binary(keys.public().to_pem().as_bytes()),
            keys,
            now: Box::new(now),
        }
    }

    fn sign(&self, headers: &mut HeaderMap) -> Result<(), Status> {
        let timestamp = format_iso((self.now)());
        let signature = self.keys.sign(timestamp.as_bytes()).map_err(|error| {
            Status::new(Code::Internal, format!("the call is not signed: {error}"))
        })?;
        let timestamp = HeaderValue::try_from(timestamp)
            .map_err(|_| Status::new(Code::Internal, "the time is not ASCII"))?;
        headers.insert(PUBLIC_KEY_HEADER, self.public_key.clone());
        headers.insert(TIMESTAMP_HEADER, timestamp);
        headers.insert(SIGNATURE_HEADER, binary(&signature));
        Ok(())
    }
}

impl fmt::Debug for NodeSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeSigner")
            .field("public", self.keys.public())
            .finish_non_exhaustive()
    }
}

/// A binary header: base64, sent without padding (gRPC over HTTP/2, "Binary headers").
fn binary(bytes: &[u8]) -> HeaderValue {
    HeaderValue::try_from(STANDARD_NO_PAD.encode(bytes)).expect("base64 is ASCII")
}
