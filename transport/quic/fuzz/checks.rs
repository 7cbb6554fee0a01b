//! What must be true of any bytes; the fuzz targets and the test that replays their corpora share it.

use flwr_api::fleet::Request;
use flwr_transport_quic::frame::{Decoder, encode};

const BYTES_MAX: usize = 1 << 16;

/// The bytes of a stream, cut into pieces of one more than the first byte says: no panic, and every value survives a
/// round trip.
pub(crate) fn frame(input: &[u8]) {
    let Some((cut, stream)) = input.split_first() else {
        return;
    };
    let mut decoder = Decoder::new(BYTES_MAX);
    for piece in stream.chunks(usize::from(*cut) + 1) {
        decoder.push(piece);
        loop {
            match decoder.decode::<Request>() {
                Ok(Some(value)) => survives(&value),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

fn survives(value: &Request) {
    let frame = encode(value, BYTES_MAX).expect("what was read can be written");
    let mut decoder = Decoder::new(BYTES_MAX);
    decoder.push(&frame);
    let again: Request = decoder.decode().expect("a value").expect("all of it");
    assert_eq!(format!("{value:?}"), format!("{again:?}"));
    assert!(decoder.is_empty());
}
