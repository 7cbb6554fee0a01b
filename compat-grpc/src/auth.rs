//! Who calls: nodes by Flower's signed timestamps (Flower 1.22,
//! `server/superlink/fleet/grpc_rere/server_interceptor.py`), launchers by a join secret.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use flwr_certs::{
    AllowList, JOIN_SECRET_HEADER, JoinSecretDigest, KeyCache, PUBLIC_KEY_HEADER, SIGNATURE_HEADER,
    TIMESTAMP_HEADER, WRONG_JOIN_SECRET, verify_node_request,
};
use flwr_transport::{Identity, PublicKey};
use http::HeaderMap;

/// How many parsed keys are remembered.
const KEYS_MAX: usize = 65_536;

/// What callers have to prove.
pub struct CallerAuth {
    mode: Mode,
}

enum Mode {
    Nothing,
    JoinSecret(JoinSecretDigest),
    Signature {
        allow_list: Option<Arc<AllowList>>,
        keys: KeyCache,
        now: Box<dyn Fn() -> f64 + Send + Sync>,
    },
}

impl CallerAuth {
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

    /// Callers that present the join secret are launchers; those that present none are anonymous,
    /// as apps are.
    #[must_use]
    pub fn join_secret(digest: JoinSecretDigest) -> Self {
        Self {
            mode: Mode::JoinSecret(digest),
        }
    }

    /// Proves who sent these headers. Costs one signature verification where calls are signed.
    pub(crate) fn identify(&self, headers: &HeaderMap) -> Result<Identity, tonic::Status> {
        let (allow_list, keys, now) = match &self.mode {
            Mode::Nothing => return Ok(Identity::Anonymous),
            Mode::JoinSecret(digest) => return launcher(digest, headers),
            Mode::Signature {
                allow_list,
                keys,
                now,
            } => (allow_list, keys, now),
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
        .map_err(|error| tonic::Status::unauthenticated(error.to_string()))?;
        Ok(Identity::NodeKey(PublicKey::from_spki_der(
            key.spki_bytes(),
        )))
    }
}

fn launcher(digest: &JoinSecretDigest, headers: &HeaderMap) -> Result<Identity, tonic::Status> {
    let Some(presented) = headers.get_all(JOIN_SECRET_HEADER).into_iter().next_back() else {
        return Ok(Identity::Anonymous);
    };
    if digest.recognises(presented.as_bytes()) {
        return Ok(Identity::Launcher);
    }
    Err(tonic::Status::unauthenticated(WRONG_JOIN_SECRET))
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

impl fmt::Debug for CallerAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.mode {
            Mode::Nothing => "CallerAuth(none)",
            Mode::JoinSecret(_) => "CallerAuth(join secret)",
            Mode::Signature { .. } => "CallerAuth(signed)",
        })
    }
}

#[cfg(test)]
mod tests {
    use flwr_certs::JoinSecret;
    use http::HeaderValue;

    use super::*;

    #[test]
    fn whoever_presents_the_join_secret_is_a_launcher() {
        let secret = JoinSecret::generate().unwrap();
        let auth = CallerAuth::join_secret(secret.digest());
        let presenting = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(JOIN_SECRET_HEADER, HeaderValue::from_str(value).unwrap());
            }
            auth.identify(&headers).map_err(|refused| refused.code())
        };
        let wrong = "0".repeat(64);
        assert_eq!(presenting(&[]), Ok(Identity::Anonymous));
        assert_eq!(presenting(&[secret.expose()]), Ok(Identity::Launcher));
        assert_eq!(
            presenting(&[&wrong, secret.expose()]),
            Ok(Identity::Launcher)
        );
        for refused in [&[""][..], &[&wrong], &[secret.expose(), &wrong]] {
            assert_eq!(presenting(refused), Err(tonic::Code::Unauthenticated));
        }
    }

    #[test]
    fn a_secret_means_nothing_where_none_is_asked_for() {
        let mut headers = HeaderMap::new();
        headers.append(JOIN_SECRET_HEADER, HeaderValue::from_static("anything"));
        let identity = CallerAuth::none().identify(&headers);
        assert_eq!(identity.unwrap(), Identity::Anonymous);
    }
}
