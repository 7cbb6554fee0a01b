//! Objects of any length, out of one buffer that is never copied.

use bytes::Bytes;
use flwr_api::ObjectId;
use flwr_transport::Body;
use futures_util::stream;

/// Random bytes that all objects are cut from.
#[derive(Clone, Debug)]
pub(crate) struct Source(Bytes);

impl Source {
    pub(crate) fn new() -> Self {
        let mut bytes = vec![0; BUFFER_BYTES];
        getrandom::fill(&mut bytes).expect("the system has random bytes");
        Self(bytes.into())
    }

    /// An object of `len` bytes.
    pub(crate) fn body(&self, len: u64) -> Body {
        Body::from_stream(Some(len), stream::iter(self.pieces(len).map(Ok)))
    }

    pub(crate) fn pieces(&self, len: u64) -> impl Iterator<Item = Bytes> + Send + use<> {
        let (buffer, mut left, mut at) = (self.0.clone(), len, 0);
        std::iter::from_fn(move || {
            let piece_bytes = PIECE_BYTES.min(usize::try_from(left).unwrap_or(usize::MAX));
            let piece = buffer.slice(at..at + piece_bytes);
            left -= piece_bytes as u64;
            at = (at + PIECE_BYTES) % BUFFER_BYTES;
            Some(piece).filter(|piece| !piece.is_empty())
        })
    }
}

/// The id of an object, which says how long it is.
pub(crate) fn object_id(number: u64, len: u64) -> ObjectId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&len.to_be_bytes());
    id[8..16].copy_from_slice(&number.to_be_bytes());
    ObjectId(id)
}

/// How long the object with this id is.
pub(crate) fn object_bytes(id: ObjectId) -> u64 {
    let (len, _) = id.0.split_first_chunk().expect("an id has 32 bytes");
    u64::from_be_bytes(*len)
}

const PIECE_BYTES: usize = 512 << 10;
const BUFFER_BYTES: usize = 8 * PIECE_BYTES;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_add_up_to_the_length_in_the_id() {
        let source = Source::new();
        for len in [0, 1, PIECE_BYTES as u64, 10_485_760, 10_485_761] {
            let sum: usize = source.pieces(len).map(|piece| piece.len()).sum();
            assert_eq!(sum as u64, object_bytes(object_id(3, len)));
        }
    }
}
