//! The checks of a signed Fleet request, in the order Flower 1.22 makes them
//! (`flwr/server/superlink/fleet/grpc_rere/server_interceptor.py`).
//!
//! Whether the key is bound to the node that the request names is for the caller, who knows the nodes.

use crate::{
    allow_list::AllowList, key_cache::KeyCache, node_key::NodePublicKey, timestamp::parse_iso,
};

/// Binary header: PEM of the node's public key.
pub const PUBLIC_KEY_HEADER: &str = "flwr-public-key-bin";
/// Binary header: signature of the timestamp's bytes.
pub const SIGNATURE_HEADER: &str = "flwr-signature-bin";
/// ASCII header: when the request was signed.
pub const TIMESTAMP_HEADER: &str = "flwr-timestamp";

/// Proves which key signed a request.
///
/// The three values are those of the headers, `None` where a header is absent; binary ones are already decoded.
/// In order: all three are present; with an allow-list, the key is on it; the signature over the timestamp's bytes is
/// the key's; the timestamp is older than -5 s and younger than 305 s at `now_unix`. A key that passed is remembered
/// in `cache`. Costs one signature verification.
///
/// # Errors
/// The first check that fails. A key that cannot be parsed is not recognized, or without an allow-list its signature
/// is invalid; a timestamp that cannot be parsed is invalid once its signature was found good.
pub fn verify_node_request(
    public_key_pem: Option<&[u8]>,
    timestamp: Option<&[u8]>,
    signature: Option<&[u8]>,
    now_unix: f64,
    allow_list: Option<&AllowList>,
    cache: &KeyCache,
) -> Result<NodePublicKey, AuthError> {
    let (Some(pem), Some(timestamp), Some(signature)) = (public_key_pem, timestamp, signature)
    else {
        return Err(AuthError::MissingMetadata);
    };
    let remembered = cache.lookup(pem);
    let is_new = remembered.is_none();
    let key = remembered.or_else(|| NodePublicKey::from_pem(pem).ok());
    if let Some(list) = allow_list
        && !key.as_ref().is_some_and(|key| list.contains(key))
    {
        return Err(AuthError::KeyNotRecognized);
    }
    let key = key
        .filter(|key| key.verify(timestamp, signature))
        .ok_or(AuthError::InvalidSignature)?;
    let signed_at = parse_iso(timestamp).map_err(|_error| AuthError::InvalidTimestamp)?;
    let age = now_unix - signed_at;
    if !(AGE_MIN < age && age < AGE_MAX) {
        return Err(AuthError::InvalidTimestamp);
    }
    if is_new {
        cache.remember(pem, &key);
    }
    Ok(key)
}

/// Why a request is UNAUTHENTICATED. The texts are what stock nodes are told, word for word as Flower 1.22 does.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
pub enum AuthError {
    /// The signature is not this key's over this timestamp, or the key is none.
    #[error("Invalid signature")]
    InvalidSignature,
    /// Too old, too far ahead, or no time at all.
    #[error("Invalid timestamp")]
    InvalidTimestamp,
    /// Not on the allow-list.
    #[error("Public key not recognized")]
    KeyNotRecognized,
    /// A header is absent.
    #[error("Missing authentication metadata")]
    MissingMetadata,
}

/// Seconds a node's clock may be ahead; exclusive.
const AGE_MIN: f64 = -5.0;
/// Seconds a request may be old, clock tolerance included; exclusive.
const AGE_MAX: f64 = 305.0;
