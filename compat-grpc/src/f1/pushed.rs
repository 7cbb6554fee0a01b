//! `PushObjectRequest` while it still arrives: its last field is the object, which is most of it.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::dialect::Split;

/// Where the object begins in the request of a method.
pub(super) fn split(method: &str, seen: &[u8], message_bytes: u64) -> Split {
    if method != "PushObject" {
        return Split::Whole;
    }
    let mut rest = seen;
    loop {
        let head = seen.len() - rest.len();
        let Ok((field, wire)) = decode_key(&mut rest) else {
            return Split::More;
        };
        if (field, wire) != (CONTENT, WireType::LengthDelimited) {
            if skip_field(wire, field, &mut rest, DecodeContext::default()).is_err() {
                return Split::More;
            }
            continue;
        }
        let Ok(length) = decode_varint(&mut rest) else {
            return Split::More;
        };
        let object = seen.len() - rest.len();
        // Whatever comes after the object, the message has to be read whole for it.
        return match (object as u64).checked_add(length) {
            Some(end) if end == message_bytes => Split::At { head, object },
            _ => Split::Whole,
        };
    }
}

/// The number of the field that holds the object.
const CONTENT: u32 = 4;

#[cfg(test)]
mod tests {
    use flwr_proto::v1_22 as pb;
    use prost::Message as _;

    use super::*;

    fn request() -> (pb::PushObjectRequest, Vec<u8>) {
        let request = pb::PushObjectRequest {
            node: Some(pb::Node { node_id: 7 }),
            run_id: 5,
            object_id: "ab".repeat(32),
            object_content: vec![4; 1000].into(),
        };
        let bytes = request.encode_to_vec();
        (request, bytes)
    }

    #[test]
    fn an_object_is_found_as_soon_as_its_length_is_here() {
        let (request, bytes) = request();
        let all = bytes.len() as u64;
        let begin = bytes.len() - request.object_content.len();
        for seen in 0..=bytes.len() {
            let split = split("PushObject", &bytes[..seen], all);
            if seen < begin {
                assert_eq!(split, Split::More, "{seen}");
                continue;
            }
            let Split::At { head, object } = split else {
                panic!("{split:?} after {seen} bytes");
            };
            assert_eq!(object, begin);
            let alone = pb::PushObjectRequest::decode(&bytes[..head]).unwrap();
            let expected = pb::PushObjectRequest {
                object_content: Default::default(),
                ..request.clone()
            };
            assert_eq!(alone, expected);
        }
    }

    #[test]
    fn a_request_whose_object_is_not_the_end_is_read_whole() {
        let (_, mut bytes) = request();
        bytes.extend_from_slice(&[0x10, 6]); // another run_id
        let all = bytes.len() as u64;
        assert_eq!(split("PushObject", &bytes, all), Split::Whole);
        assert_eq!(split("PushMessages", &bytes, all), Split::Whole);
    }
}
