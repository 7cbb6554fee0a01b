//! Golden bytes recorded from the reference implementation, and what the opaque
//! fields promise.

mod golden;
mod opaque;

use bytes::Bytes;
use prost::Message as _;

use flwr_proto::v1_22::{Metadata, RecordDict};

/// Decodes `hex`.
fn unhex(hex: &str) -> Bytes {
    assert_eq!(hex.len() % 2, 0, "odd number of hex digits");
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits"))
        .collect()
}

/// The object `hex` without its head: all after the first NUL.
fn body(hex: &str) -> Bytes {
    let object = unhex(hex);
    let nul = object.iter().position(|byte| *byte == 0).expect("a head");
    let head = str::from_utf8(&object[..nul]).expect("a head of text");
    let body = object.slice(nul + 1..);
    assert_eq!(
        head.rsplit(' ').next(),
        Some(body.len().to_string().as_str()),
        "the head states the length of the body"
    );
    body
}

/// Metadata of the instruction all vectors go back to, as in its object.
fn instruction_metadata() -> Metadata {
    Metadata {
        run_id: 42,
        src_node_id: 1,
        dst_node_id: 7,
        group_id: "1".into(),
        ttl: 3600.0,
        message_type: "train".into(),
        created_at: 1_757_000_000.5,
        ..Metadata::default()
    }
}

/// Encodes a typed content into what an opaque field holds.
fn opaque(content: &RecordDict) -> Bytes {
    content.encode_to_vec().into()
}
