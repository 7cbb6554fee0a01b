//! Values on a stream: four bytes of length, little endian, and as many bytes of postcard.
//!
//! Pure: bytes in, values out. What follows the last value of a head is the raw body.

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Finds values in the bytes of a stream. Holds at most one value and what came with its end.
#[derive(Debug)]
pub struct Decoder {
    held: BytesMut,
    bytes_max: usize,
}

/// Bytes that are no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A value is longer than this end reads or writes.
    #[error("a value of {bytes} bytes, and {bytes_max} are the limit")]
    TooLong {
        /// What was announced, in bytes.
        bytes: u64,
        /// The limit, in bytes.
        bytes_max: usize,
    },
    /// The bytes are not the postcard form of a value of this type, and nothing else.
    #[error("a value cannot be read: {0}")]
    Malformed(postcard::Error),
    /// The value has no postcard form.
    #[error("a value cannot be written: {0}")]
    Unwritable(postcard::Error),
}

/// The frame of a value.
///
/// # Errors
/// When it is longer than `bytes_max`, or has no postcard form.
pub fn encode<T: Serialize>(value: &T, bytes_max: usize) -> Result<Bytes, FrameError> {
    let mut frame = postcard::to_extend(value, Frame(vec![0; LENGTH_BYTES]))
        .map_err(FrameError::Unwritable)?
        .0;
    let bytes = frame.len() - LENGTH_BYTES;
    match u32::try_from(bytes) {
        Ok(length) if bytes <= bytes_max => {
            frame[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
            Ok(frame.into())
        }
        _ => Err(FrameError::TooLong {
            bytes: bytes as u64,
            bytes_max,
        }),
    }
}

impl Decoder {
    /// Reads values of at most `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            held: BytesMut::new(),
            bytes_max,
        }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next value, if all of it is here.
    ///
    /// # Errors
    /// When it is too long, as soon as its length is here, or is no value. The stream is of no use
    /// then.
    pub fn decode<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Some((length, rest)) = self.held.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let announced = u32::from_le_bytes(*length);
        let bytes_max = self.bytes_max;
        let bytes = usize::try_from(announced).unwrap_or(usize::MAX);
        if bytes > bytes_max {
            let bytes = u64::from(announced);
            return Err(FrameError::TooLong { bytes, bytes_max });
        }
        let Some(value) = rest.get(..bytes) else {
            return Ok(None);
        };
        let (value, unread) = postcard::take_from_bytes(value).map_err(FrameError::Malformed)?;
        if !unread.is_empty() {
            return Err(FrameError::Malformed(
                postcard::Error::DeserializeBadEncoding,
            ));
        }
        let _read = self.held.split_to(LENGTH_BYTES + bytes);
        Ok(Some(value))
    }

    /// The length of a value that is not all here, once that is known.
    #[must_use]
    pub fn announced(&self) -> Option<u64> {
        let length = self.held.first_chunk::<LENGTH_BYTES>()?;
        Some(u32::from_le_bytes(*length).into())
    }

    /// Whether nothing of another value is here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// What came behind the last value.
    #[must_use]
    pub fn into_rest(self) -> Bytes {
        self.held.freeze()
    }
}

/// What postcard writes to.
struct Frame(Vec<u8>);

impl Extend<u8> for Frame {
    fn extend<I: IntoIterator<Item = u8>>(&mut self, bytes: I) {
        self.0.extend(bytes);
    }
}

impl<'a> Extend<&'a u8> for Frame {
    fn extend<I: IntoIterator<Item = &'a u8>>(&mut self, bytes: I) {
        self.0.extend(bytes);
    }
}

const LENGTH_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1000;

    #[test]
    fn values_come_out_as_they_went_in_however_they_are_cut() {
        let values = ["", "a", "some text", &"x".repeat(900)];
        let mut stream: Vec<u8> = values
            .iter()
            .flat_map(|value| encode(value, MAX).unwrap())
            .collect();
        stream.extend(b"body");
        for cut in [1, 2, 3, 7, 100, stream.len()] {
            let mut decoder = Decoder::new(MAX);
            let mut decoded = Vec::new();
            for piece in stream.chunks(cut) {
                decoder.push(piece);
                while decoded.len() < values.len() {
                    let Some(value) = decoder.decode::<String>().unwrap() else {
                        break;
                    };
                    decoded.push(value);
                }
            }
            assert_eq!(decoded, values);
            assert_eq!(decoder.into_rest(), "body");
        }
    }

    #[test]
    fn golden_bytes() {
        let value = (7_u16, Some("ab"), [300_u64, 0]);
        let frame = [8, 0, 0, 0, 7, 1, 2, b'a', b'b', 0xac, 2, 0];
        assert_eq!(encode(&value, MAX).unwrap(), frame.as_slice());
    }

    #[test]
    fn a_value_that_is_too_long_is_refused_at_its_length() {
        let too_long = |bytes| FrameError::TooLong {
            bytes,
            bytes_max: MAX,
        };
        assert_eq!(encode(&"x".repeat(999), MAX), Err(too_long(1001)));
        let mut decoder = Decoder::new(MAX);
        decoder.push(&u32::MAX.to_le_bytes());
        let refused = decoder.decode::<String>();
        assert_eq!(refused, Err(too_long(u64::from(u32::MAX))));
    }

    #[test]
    fn other_bytes_are_refused() {
        for bytes in [
            [1, 0, 0, 0, 2].as_slice(),    // neither false nor true
            [2, 0, 0, 0, 1, 1].as_slice(), // more than one value
            [0, 0, 0, 0].as_slice(),       // none
        ] {
            let mut decoder = Decoder::new(MAX);
            decoder.push(bytes);
            let refused = decoder.decode::<bool>();
            assert!(
                matches!(refused, Err(FrameError::Malformed(_))),
                "{refused:?}"
            );
        }
    }
}
