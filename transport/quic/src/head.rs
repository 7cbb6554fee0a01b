//! What stands at the beginning of every stream.
//!
//! Each call is a bidirectional stream of the connecting end: [`Asked`] and the body's bytes one way,
//! [`Answered`] and the tail's the other. The first stream of a connection carries [`Hello`] both
//! ways instead, and then [`Notice`]s from the accepting end. Enums are append-only.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use flwr_transport::{Bearer, Body, Protocol, Status, Tail};
use serde::{Deserialize, Deserializer, Serialize};

/// What a peer speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello<'a> {
    /// The name of the protocol.
    pub(crate) protocol: Cow<'a, str>,
    /// The first and the last of its versions that this end speaks.
    pub(crate) versions: (u16, u16),
    /// The longest head that this end reads, in bytes.
    pub(crate) head_bytes_max: u32,
    /// A secret that proves who the connecting end is, where that is not a key.
    pub(crate) credential: Option<Bearer>,
    /// What proves a key that is not the certificate's. It is left out where there is none, as by peers that do not know
    /// it.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "or_nothing"
    )]
    pub(crate) proof: Option<Vec<u8>>,
}

/// What the accepting end tells without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Notice {
    /// No more calls: what is under way is finished, then the connection ends.
    Draining,
}

/// The head of a call.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Asked<R> {
    /// How long the caller waits, in milliseconds.
    pub(crate) patience_ms: u64,
    pub(crate) bearer: Option<Bearer>,
    pub(crate) body: Follows,
    pub(crate) request: R,
}

/// The head of an answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answered<R> {
    Reply { response: R, tail: Follows },
    Failed(Status),
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Follows {
    Nothing,
    /// Raw bytes until the stream ends, this many where that is known.
    Body(Option<u64>),
    /// Frames of [`Told`] until the stream ends.
    Events,
}

/// One event, or how they end if not well.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Told<E> {
    Event(E),
    Failed(Status),
}

impl Hello<'static> {
    pub(crate) fn of<P: Protocol>(head_bytes_max: usize, credential: Option<Bearer>) -> Self {
        Self {
            protocol: Cow::Borrowed(P::NAME),
            versions: (*P::VERSIONS.start(), *P::VERSIONS.end()),
            head_bytes_max: u32::try_from(head_bytes_max).unwrap_or(u32::MAX),
            credential,
            proof: None,
        }
    }
}

impl Hello<'_> {
    /// The version that both ends speak: the last one.
    ///
    /// # Errors
    /// A sentence for the person at the other end, if there is none.
    pub(crate) fn agree<P: Protocol>(&self) -> Result<u16, String> {
        if self.protocol != P::NAME {
            return Err(format!("{} is served here, not {}", P::NAME, self.protocol));
        }
        last_common(self.versions.0..=self.versions.1, P::VERSIONS).ok_or_else(|| {
            let (ours, (first, last)) = (P::VERSIONS, self.versions);
            let name = P::NAME;
            let (start, end) = (ours.start(), ours.end());
            format!("{name} is served in the versions {start} to {end}, and the peer speaks {first} to {last}")
        })
    }
}

impl Follows {
    pub(crate) fn body(body: Option<&Body>) -> Self {
        body.map_or(Self::Nothing, |body| Self::Body(body.len()))
    }

    pub(crate) fn tail<P: Protocol>(tail: &Tail<P>) -> Self {
        match tail {
            Tail::None => Self::Nothing,
            Tail::Body(body) => Self::Body(body.len()),
            Tail::Events(_) => Self::Events,
        }
    }
}

/// A last field, unless the value ends before it. One that is cut proves nothing, and counts as none.
fn or_nothing<'de, D: Deserializer<'de>>(field: D) -> Result<Option<Vec<u8>>, D::Error> {
    Ok(Option::deserialize(field).unwrap_or_default())
}

fn last_common(theirs: RangeInclusive<u16>, ours: RangeInclusive<u16>) -> Option<u16> {
    let last = *theirs.end().min(ours.end());
    (theirs.contains(&last) && ours.contains(&last)).then_some(last)
}

/// The longest hello or notice.
pub(crate) const HELLO_BYTES_MAX: usize = 1 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_without_a_proof_is_what_it_was_before_there_were_proofs() {
        let without = ("a", (1_u16, 2_u16), 3_u32, None::<Bearer>);
        let bytes = postcard::to_stdvec(&without).unwrap();
        let mut hello: Hello<'_> = postcard::from_bytes(&bytes).unwrap();
        assert_eq!((hello.head_bytes_max, &hello.proof), (3, &None));
        assert_eq!(postcard::to_stdvec(&hello).unwrap(), bytes);
        hello.proof = Some(vec![7; 300]);
        let bytes = postcard::to_stdvec(&hello).unwrap();
        assert!(bytes.len() < HELLO_BYTES_MAX);
        assert_eq!(postcard::from_bytes::<Hello<'_>>(&bytes).unwrap(), hello);
        let cut = &bytes[..bytes.len() - 1];
        hello.proof = None;
        assert_eq!(postcard::from_bytes::<Hello<'_>>(cut).unwrap(), hello);
    }

    #[test]
    fn the_last_common_version_is_agreed_on() {
        for (theirs, ours, agreed) in [
            (1..=1, 1..=1, Some(1)),
            (1..=3, 2..=5, Some(3)),
            (2..=9, 1..=4, Some(4)),
            (1..=2, 3..=4, None),
            (5..=6, 3..=4, None),
            (RangeInclusive::new(4, 2), 1..=5, None),
        ] {
            assert_eq!(
                last_common(theirs.clone(), ours.clone()),
                agreed,
                "{theirs:?} {ours:?}"
            );
        }
    }
}
