//! `PullObjectResponse` while it still arrives: its last field is the object, which is most of it.

use bytes::{Buf, Bytes};
use flwr_api::fleet::ObjectState;
use flwr_proto::v1_22 as pb;
use flwr_transport::{Body, Protocol, Reply, Status, Tail};
use prost::encoding::{WireType, decode_key, decode_varint};

use super::read::{parse, unusable};
use crate::client::{Peeked, Received};

/// Where the object begins in a response.
pub(super) fn peek(seen: &[u8], message_bytes: u64) -> Peeked {
    let mut rest = seen;
    loop {
        let Ok((field, wire)) = decode_key(&mut rest) else {
            return Peeked::More;
        };
        match (field, wire) {
            (1 | 2, WireType::Varint) => {
                if decode_varint(&mut rest).is_err() {
                    return Peeked::More;
                }
            }
            (CONTENT, WireType::LengthDelimited) => return ends_with(seen, rest, message_bytes),
            _ => return Peeked::Whole,
        }
    }
}

/// Where the object begins in a response in an envelope.
pub(super) fn peek_in_envelope(seen: &[u8], message_bytes: u64) -> Peeked {
    let mut rest = seen;
    loop {
        let Ok((field, wire)) = decode_key(&mut rest) else {
            return Peeked::More;
        };
        match (field, wire) {
            (1 | 2, WireType::LengthDelimited) => {
                let length = decode_varint(&mut rest)
                    .ok()
                    .and_then(|l| l.try_into().ok());
                let Some(length) = length.filter(|length| *length <= rest.len()) else {
                    return Peeked::More;
                };
                rest.advance(length);
            }
            (CONTENT, WireType::LengthDelimited) => {
                let Peeked::ObjectAt(at) = ends_with(seen, rest, message_bytes) else {
                    return ends_with(seen, rest, message_bytes);
                };
                return match peek(&seen[at..], message_bytes - at as u64) {
                    Peeked::ObjectAt(inner) => Peeked::ObjectAt(at + inner),
                    other => other,
                };
            }
            _ => return Peeked::Whole,
        }
    }
}

/// Judges the length of a field whose key was just read: whether it is the end of the message.
fn ends_with(seen: &[u8], mut rest: &[u8], message_bytes: u64) -> Peeked {
    let Ok(length) = decode_varint(&mut rest) else {
        return Peeked::More;
    };
    let at = seen.len() - rest.len();
    if (at as u64).checked_add(length) == Some(message_bytes) {
        Peeked::ObjectAt(at)
    } else {
        Peeked::Whole
    }
}

/// The content of an envelope: the envelope's other fields, and what is in it.
pub(super) fn open(received: Received) -> Result<(pb::MessageContainer, Received), Status> {
    let Received { mut head, tail } = received;
    if tail.is_none() {
        let mut envelope: pb::MessageContainer = parse(head)?;
        let content = std::mem::take(&mut envelope.grpc_message_content);
        let received = Received {
            head: content,
            tail: None,
        };
        return Ok((envelope, received));
    }
    let mut rest = &head[..];
    let mut before = 0;
    while let Ok((1 | 2, WireType::LengthDelimited)) = decode_key(&mut rest) {
        let length = decode_varint(&mut rest)
            .ok()
            .and_then(|l| l.try_into().ok());
        let length = length.filter(|length| *length <= rest.len());
        rest.advance(length.ok_or_else(|| unusable("its envelope is cut off"))?);
        before = head.len() - rest.len();
    }
    decode_varint(&mut rest).map_err(unusable)?;
    let at = head.len() - rest.len();
    let content = head.split_off(at);
    head.truncate(before);
    let received = Received {
        head: content,
        tail,
    };
    Ok((parse(head)?, received))
}

/// Reads a response, whole or still arriving.
pub(super) fn read<P: Protocol>(
    received: Received,
    respond: impl FnOnce(ObjectState) -> P::Response,
) -> Result<Reply<P>, Status> {
    let Received { head, tail } = received;
    let (state, body) = match tail {
        Some(body) => (flags(&head)?, body),
        None => {
            let response: pb::PullObjectResponse = parse(head)?;
            let state = state(response.object_found, response.object_available);
            (state, Body::from_bytes(response.object_content))
        }
    };
    Ok(Reply {
        response: respond(state),
        tail: match state {
            ObjectState::Available => Tail::Body(body),
            ObjectState::Pending | ObjectState::Unknown => Tail::None,
        },
    })
}

/// What stands before an object.
fn flags(head: &Bytes) -> Result<ObjectState, Status> {
    let mut rest = &head[..];
    let (mut found, mut available) = (false, false);
    while let (field @ (1 | 2), WireType::Varint) = decode_key(&mut rest).map_err(unusable)? {
        let value = decode_varint(&mut rest).map_err(unusable)? != 0;
        if field == 1 {
            found = value;
        } else {
            available = value;
        }
    }
    Ok(state(found, available))
}

fn state(found: bool, available: bool) -> ObjectState {
    match (found, available) {
        (true, true) => ObjectState::Available,
        (true, false) => ObjectState::Pending,
        (false, _) => ObjectState::Unknown,
    }
}

/// The field of the object in a response, and of the response in an envelope.
const CONTENT: u32 = 3;

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    fn response(content: &'static [u8]) -> Vec<u8> {
        let response = pb::PullObjectResponse {
            object_found: true,
            object_available: true,
            object_content: Bytes::from_static(content),
        };
        response.encode_to_vec()
    }

    /// Peeks with one byte more each time, as if they came one by one.
    fn decision(peek: fn(&[u8], u64) -> Peeked, message: &[u8]) -> Peeked {
        let decisions =
            (0..=message.len()).map(|seen| peek(&message[..seen], message.len() as u64));
        let mut decided = decisions.skip_while(|peeked| *peeked == Peeked::More);
        let first = decided.next().unwrap_or(Peeked::More);
        assert!(decided.all(|peeked| peeked == first), "{message:?}");
        first
    }

    #[test]
    fn an_object_at_the_end_is_found_however_it_is_cut() {
        let message = response(b"object");
        assert_eq!(
            decision(peek, &message),
            Peeked::ObjectAt(message.len() - 6)
        );
        let enveloped = pb::MessageContainer {
            metadata: [("flower-version".to_owned(), "1.22.0".to_owned())].into(),
            grpc_message_name: "PullObjectResponse".into(),
            grpc_message_content: message.into(),
        };
        let message = enveloped.encode_to_vec();
        let at = message.len() - 6;
        assert_eq!(decision(peek_in_envelope, &message), Peeked::ObjectAt(at));
        let received = Received {
            head: message[..at].to_vec().into(),
            tail: Some(Bytes::from_static(b"object").into()),
        };
        let (envelope, inner) = open(received).unwrap();
        assert_eq!(envelope.grpc_message_name, "PullObjectResponse");
        assert_eq!(envelope.metadata["flower-version"], "1.22.0");
        assert_eq!(flags(&inner.head).unwrap(), ObjectState::Available);
    }

    #[test]
    fn everything_else_is_read_whole() {
        let in_order = response(b"object");
        let mut content_first = in_order[4..].to_vec();
        content_first.extend_from_slice(&in_order[..4]);
        assert_eq!(decision(peek, &content_first), Peeked::Whole);
        let mut unknown_field = vec![0x20, 1];
        unknown_field.extend_from_slice(&in_order);
        assert_eq!(decision(peek, &unknown_field), Peeked::Whole);
        let mut too_long = in_order.clone();
        too_long.push(0);
        assert_eq!(decision(peek, &too_long), Peeked::Whole);
        assert_eq!(decision(peek, &response(b"")), Peeked::More);
        assert_eq!(decision(peek, b""), Peeked::More);
        assert_eq!(decision(peek_in_envelope, &in_order), Peeked::Whole);
    }
}
