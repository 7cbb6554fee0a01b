//! A node key that is not the key of the TLS certificate: it signs what TLS exports (RFC 8446, section 7.5), which only
//! the two ends of one connection know, so that the signature is worth nothing elsewhere.

use crate::{
    key_pair::{KeyFileError, NodeKeyPair},
    node_key::NodePublicKey,
};

impl NodeKeyPair {
    /// The proof of this key on the connection that `exported` comes from: the length of the public key's DER, two bytes
    /// big endian; the DER; and the signature.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn prove(&self, exported: &[u8]) -> Result<Vec<u8>, KeyFileError> {
        let spki = self.public().spki_der();
        let len = u16::try_from(spki.len()).map_err(|_error| KeyFileError::Damaged)?;
        let signature = self.sign(&signed(exported))?;
        Ok([&len.to_be_bytes(), spki, &signature].concat())
    }
}

/// The key that `proof` proves on the connection that `exported` comes from.
#[must_use]
pub fn proved_key(proof: &[u8], exported: &[u8]) -> Option<NodePublicKey> {
    let (len, rest) = proof.split_first_chunk()?;
    let (spki, signature) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    let key = NodePublicKey::from_spki_der(spki).ok()?;
    key.verify(&signed(exported), signature).then_some(key)
}

/// No timestamp of Flower's, which the same key signs, begins like this.
fn signed(exported: &[u8]) -> Vec<u8> {
    [b"flwr-quic node key\0", exported].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_for_one_connection() {
        for pair in [NodeKeyPair::generate(), NodeKeyPair::generate_ed25519()] {
            let pair = pair.unwrap();
            let proof = pair.prove(&[1; 32]).unwrap();
            assert_eq!(proved_key(&proof, &[1; 32]).as_ref(), Some(pair.public()));
            assert_eq!(proved_key(&proof, &[2; 32]), None);
            for len in 0..proof.len() {
                assert_eq!(proved_key(&proof[..len], &[1; 32]), None, "{len}");
            }
        }
    }

    #[test]
    fn nobody_proves_the_key_of_another() {
        let [pair, other] = [(); 2].map(|()| NodeKeyPair::generate().unwrap());
        let proof = pair.prove(&[1; 32]).unwrap();
        let spki = other.public().spki_der();
        let forged = [&proof[..2], spki, &proof[2 + spki.len()..]].concat();
        assert_eq!(proved_key(&forged, &[1; 32]), None);
        // Nor does the signature of a call.
        let call = pair.sign(&[1; 32]).unwrap();
        let own = [&proof[..2], pair.public().spki_der(), &call].concat();
        assert_eq!(proved_key(&own, &[1; 32]), None);
    }
}
