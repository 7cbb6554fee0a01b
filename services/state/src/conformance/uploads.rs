//! Objects whose bodies break off, and what came of them.

use bytes::Bytes;
use flwr_transport::{Body, BodyError};

use super::fixtures::{RUN, announce, federation, fetch, is_pending, made, put};
use crate::error::StoreError;
use crate::link::{Arrived, LinkState, Put};

/// Whoever has what came can have the rest alone sent.
pub async fn an_object_goes_on_where_it_broke_off<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let [leaf, dropped] = ["a", "b"].map(|name| made(&name.repeat(3 << 20), &[]));
    announce(&state, RUN, &[&leaf, &dropped]).await;
    let (id, bytes) = &leaf.objects[0];
    let mut begun = None;
    for (from, to) in [(0, 1 << 20), (1 << 20, (2 << 20) + 7)] {
        let arrived = state
            .receive_object(*id, begun, broken_off(bytes, from, to))
            .await;
        let interrupted = BodyError::Interrupted;
        let Ok(Arrived::BrokeOff(Some(beginning), StoreError::Body(why))) = arrived else {
            panic!("{arrived:?}");
        };
        assert_eq!((beginning.len(), why), (to as u64, interrupted));
        assert!(is_pending(&state, *id).await);
        begun = Some(beginning);
    }
    let rest = Body::from_bytes(bytes.slice((2 << 20) + 7..));
    let arrived = state.receive_object(*id, begun, rest).await.unwrap();
    assert!(matches!(arrived, Arrived::Over(Put::Stored)), "{arrived:?}");
    assert_eq!(fetch(&state, *id).await, bytes);
    // What is not gone on with is forgotten.
    let (id, bytes) = &dropped.objects[0];
    let body = broken_off(bytes, 0, 1 << 20);
    drop(state.receive_object(*id, None, body).await.unwrap());
    assert_eq!(put(&state, &dropped.objects[0]).await, Put::Stored);
    assert_eq!(fetch(&state, *id).await, bytes);
}

/// The whole is judged, however it came.
pub async fn a_rest_that_does_not_fit_spoils_nothing<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let leaf = made(&"a".repeat(3 << 20), &[]);
    announce(&state, RUN, &[&leaf]).await;
    let (id, bytes) = &leaf.objects[0];
    let begin = async || {
        let body = broken_off(bytes, 0, 1 << 20);
        match state.receive_object(*id, None, body).await.unwrap() {
            Arrived::BrokeOff(beginning, _) => beginning,
            over @ Arrived::Over(_) => panic!("{over:?}"),
        }
    };
    let right = bytes.slice(1 << 20..);
    let other = Bytes::from(vec![b'b'; right.len()]);
    let arrived = state
        .receive_object(*id, begin().await, Body::from_bytes(other))
        .await;
    assert!(
        matches!(arrived, Ok(Arrived::Over(Put::WrongHash))),
        "{arrived:?}"
    );
    assert!(is_pending(&state, *id).await);
    // No object is longer or shorter than its sender said at first.
    let longer = Bytes::from([&right[..], b"more"].concat());
    for rest in [longer, right.slice(1..)] {
        let arrived = state
            .receive_object(*id, begin().await, Body::from_bytes(rest))
            .await;
        let Ok(Arrived::BrokeOff(None, StoreError::Body(_))) = arrived else {
            panic!("{arrived:?}");
        };
        assert!(is_pending(&state, *id).await);
    }
    // It came another way meanwhile, and nobody looks at the rest.
    let begun = begin().await;
    assert_eq!(put(&state, &leaf.objects[0]).await, Put::Stored);
    let wrong = Body::from_bytes(vec![0; right.len()].into());
    let arrived = state.receive_object(*id, begun, wrong).await.unwrap();
    assert!(
        matches!(arrived, Arrived::Over(Put::Present)),
        "{arrived:?}"
    );
    assert_eq!(fetch(&state, *id).await, bytes);
}

/// A part of an object, after which its sender is gone.
fn broken_off(bytes: &Bytes, from: usize, to: usize) -> Body {
    let pieces = bytes.slice(from..to);
    let pieces: Vec<_> = pieces
        .chunks(100_000)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .chain([Err(BodyError::Interrupted)])
        .collect();
    let len = (bytes.len() - from) as u64;
    Body::from_stream(Some(len), futures_util::stream::iter(pieces))
}
