//! Which node calls: Flower's signed timestamps (Flower 1.22,
//! `server/superlink/fleet/grpc_rere/server_interceptor.py`).

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use flwr_certs::{
    AllowList, AuthError, KeyCache, PUBLIC_KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER,
    verify_node_request,
};
use flwr_transport::{Identity, PublicKey};
use http::HeaderMap;

/// How many parsed keys are remembered.
const KEYS_MAX: usize = 65_536;

/// What callers have to prove.
pub struct NodeAuth {
    mode: Mode,
}

enum Mode {
    Nothing,
    Signature {
        allow_list: Option<Arc<AllowList>>,
        keys: KeyCache,
        now: Box<dyn Fn() -> f64 + Send + Sync>,
    },
}

impl NodeAuth {
    /// Nothing: every caller is anonymous, and headers that claim something are ignored.
    #[must_use]
    pub fn none() -> Self {
        Self {
            mode: Mode::Nothing,
        }
    }

    /// Every call carries a timestamp signed by the node's key, which is on the allow list if there
    /// is one. `now` tells Unix seconds.
    pub fn signed(
        allow_list: Option<Arc<AllowList>>,
        now: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Self {
        Self {
            mode: Mode::Signature {
                allow_list,
                keys: KeyCache::new(KEYS_MAX),
                now: Box::new(now),
            },
        }
    }

    /// Proves who sent these headers. Costs one signature verification.
    pub(crate) fn identify(&self, headers: &HeaderMap) -> Result<Identity, tonic::Status> {
        let Mode::Signature {
            allow_list,
            keys,
            now,
        } = &self.mode
        else {
            return Ok(Identity::Anonymous);
        };
        let pem = binary(headers, PUBLIC_KEY_HEADER);
        let signature = binary(headers, SIGNATURE_HEADER);
        let timestamp = headers.get_all(TIMESTAMP_HEADER).into_iter().next_back();
        let key = verify_node_request(
            pem.as_deref(),
            timestamp.map(http::HeaderValue::as_bytes),
            signature.as_deref(),
            now(),
            allow_list.as_deref(),
            keys,
        )
        .map_err(|error| tonic::Status::unauthenticated(text(&error)))?;
        Ok(Identity::NodeKey(PublicKey::from_spki_der(
            key.spki_bytes(),
        )))
    }
}

/// The texts Flower 1.22 uses.
fn text(error: &AuthError) -> &'static str {
    match error {
        AuthError::MissingMetadata => "Missing authentication metadata",
        AuthError::KeyNotRecognized => "Public key not recognized",
        AuthError::InvalidSignature => "Invalid signature",
        AuthError::InvalidTimestamp => "Invalid timestamp",
    }
}

/// A binary header's bytes, with or without padding (gRPC over HTTP/2, "Binary headers"); nothing if
/// it is absent or not base64. Of several headers of one name the last counts.
fn binary(headers: &HeaderMap, name: &'static str) -> Option<Vec<u8>> {
    let value = headers.get_all(name).into_iter().next_back()?;
    BASE64.decode(value).ok()
}

/// Standard base64 that does not insist on padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl fmt::Debug for NodeAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.mode {
            Mode::Nothing => "NodeAuth(none)",
            Mode::Signature { .. } => "NodeAuth(signed)",
        })
    }
}
