//! Objects (sections 4.4 and 4.5).

use std::sync::Arc;

use bytes::Bytes;
use flwr_api::{ObjectId, ObjectTree, RunId};
use flwr_transport::{Body, BodyError};
use tokio::task::JoinSet;

use super::fixtures::{
    Made, NODE, RUN, announce, announce_instruction, assert_no_objects, at, confirm, content,
    count, federation, fetch, instruct, instruction, is_pending, is_unknown, join, made, next_id,
    put, put_all, shift, start_run, stopped,
};
use crate::error::StoreError;
use crate::link::{LinkState, Object, Put};

/// 51, 145: each once, children first, whichever tree they are in; shared ones are no exception.
pub async fn only_objects_without_bytes_are_asked_for<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let (a, b, c) = (made("a", &[]), made("b", &[]), made("c", &[]));
    let left = made("left", &[&b, &a, &b]);
    let root = made("root", &[&left, &a, &left]);
    let missing = announce(&state, RUN, &[&root, &root]).await;
    assert_eq!(missing, [b.id(), a.id(), left.id(), root.id()]);
    put(&state, &a.objects[0]).await;
    assert_eq!(
        announce(&state, RUN, &[&root]).await,
        [b.id(), left.id(), root.id()]
    );
    put(&state, root.objects.last().unwrap()).await;
    assert_eq!(announce(&state, RUN, &[&root]).await, [b.id(), left.id()]);
    let second = made("second", &[&c, &left]);
    let missing = announce(&state, RUN, &[&second, &root]).await;
    assert_eq!(missing, [c.id(), b.id(), left.id(), second.id()]);
    put_all(&state, &root).await;
    assert_eq!(announce(&state, RUN, &[&root]).await, []);
    assert_eq!(
        announce(&state, RUN, &[&second]).await,
        [c.id(), second.id()]
    );
    assert_eq!(announce(&state, RUN, &[]).await, []);
}

/// 59, 60, 62, 64: the first writer wins, and repeating it is fine.
pub async fn an_object_is_unknown_then_pending_then_available<S: LinkState>(
    new: impl AsyncFn() -> S,
) {
    let state = new().await;
    federation(&state).await;
    let leaf = made("leaf", &[]);
    assert!(is_unknown(&state, leaf.id()).await);
    assert_eq!(put(&state, &leaf.objects[0]).await, Put::Unannounced);
    assert!(is_unknown(&state, leaf.id()).await);
    announce(&state, RUN, &[&leaf]).await;
    assert!(is_pending(&state, leaf.id()).await);
    assert_eq!(state.object_totals().await.unwrap(), (1, 0));
    assert_eq!(put(&state, &leaf.objects[0]).await, Put::Stored);
    assert_eq!(put(&state, &leaf.objects[0]).await, Put::Present);
    let bytes = &leaf.objects[0].1;
    assert_eq!(fetch(&state, leaf.id()).await, bytes);
    let totals = (1, bytes.len() as u64);
    assert_eq!(state.object_totals().await.unwrap(), totals);
}

/// 59, 61, 63: first the hash, then the format, then whether anybody asked for it.
pub async fn bytes_are_checked_before_they_are_kept<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let leaf = made("leaf", &[]);
    announce(&state, RUN, &[&leaf]).await;
    let wrong = (leaf.id(), Bytes::from_static(b"RecordDict  0\0"));
    assert_eq!(put(&state, &wrong).await, Put::WrongHash);
    let empty = (leaf.id(), Bytes::new());
    assert_eq!(put(&state, &empty).await, Put::WrongHash);
    assert!(is_pending(&state, leaf.id()).await);
    let broken: [&[u8]; 7] = [
        b"",
        b"RecordDict  0",
        b"RecordDict 0\0",
        b"Tensor  0\0",
        b"Array ab 0\0",
        b"Array\xff  0\0",
        b"ArrayChunk  4\0abc",
    ];
    for bytes in broken.map(Bytes::from_static) {
        let id = ObjectId::of(&bytes);
        for announced in [false, true] {
            if announced {
                let trees = [ObjectTree::leaf(id)];
                state.announce(RUN, &trees).await.unwrap();
            }
            let put = put(&state, &(id, bytes.clone())).await;
            assert!(matches!(put, Put::Malformed(_)), "{bytes:?}: {put:?}");
            assert_eq!(is_pending(&state, id).await, announced);
        }
    }
}

/// 2: also when it is hashed elsewhere because it is large.
pub async fn bytes_may_come_in_pieces<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    for (size, piece) in [(10, 1), (3 << 20, 700_000), (4 << 20, 5 << 20)] {
        let leaf = made(&"x".repeat(size), &[]);
        let (id, bytes) = leaf.objects[0].clone();
        announce(&state, RUN, &[&leaf]).await;
        let pieces: Vec<_> = bytes
            .chunks(piece)
            .map(Bytes::copy_from_slice)
            .map(Ok)
            .collect();
        let len = Some(bytes.len() as u64);
        let body = Body::from_stream(len, futures_util::stream::iter(pieces));
        assert_eq!(state.put_object(id, body).await.unwrap(), Put::Stored);
        assert_eq!(fetch(&state, id).await, bytes);
    }
}

/// The sender may try again.
pub async fn a_body_that_breaks_off_leaves_nothing<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let leaf = made("leaf", &[]);
    announce(&state, RUN, &[&leaf]).await;
    let start = leaf.objects[0].1.slice(..5);
    let pieces = [Ok(start.clone()), Err(BodyError::Interrupted)];
    for (len, pieces) in [(None, pieces.to_vec()), (Some(20), vec![Ok(start)])] {
        let body = Body::from_stream(len, futures_util::stream::iter(pieces));
        let error = state.put_object(leaf.id(), body).await.unwrap_err();
        assert!(matches!(error, StoreError::Body(_)), "{error}");
        assert!(is_pending(&state, leaf.id()).await);
    }
    assert_eq!(put(&state, &leaf.objects[0]).await, Put::Stored);
}

/// Its sender may have got no answer, and its receiver may have been faster. A stock app ends if
/// nobody has announced what it pushes.
pub async fn an_object_that_was_confirmed_may_be_pushed_again<S: LinkState>(
    new: impl AsyncFn() -> S,
) {
    let state = new().await;
    federation(&state).await;
    let message = content("message");
    announce(&state, RUN, &[&message]).await;
    put_all(&state, &message).await;
    confirm(&state, &message).await;
    assert_no_objects(&state).await;
    for object in &message.objects {
        assert_eq!(put(&state, object).await, Put::Present);
    }
    assert_no_objects(&state).await;
    let (id, _) = message.objects[0];
    let wrong = (id, Bytes::from_static(b"wrong"));
    assert_eq!(put(&state, &wrong).await, Put::WrongHash);
    let other = made("other", &[]);
    assert_eq!(put(&state, &other.objects[0]).await, Put::Unannounced);
    // It can come again as well.
    announce(&state, RUN, &[&message]).await;
    assert_eq!(put(&state, &message.objects[0]).await, Put::Stored);
}

/// 65, 146: with or without its bytes.
pub async fn a_shared_object_lives_as_long_as_its_last_parent<S: LinkState>(
    new: impl AsyncFn() -> S,
) {
    for complete in [true, false] {
        let state = new().await;
        federation(&state).await;
        let shared = made("shared", &[&made("deep", &[])]);
        let (first, second) = (
            made("first", &[&shared]),
            made("second", &[&shared, &shared]),
        );
        for root in [&first, &second] {
            announce_instruction(&state, &instruction(RUN, NODE, root), root).await;
            if complete {
                put_all(&state, root).await;
            }
        }
        for _ in 0..2 {
            confirm(&state, &first).await;
            assert!(is_unknown(&state, first.id()).await);
            assert_eq!(count(&state).await, 3);
        }
        put_all(&state, &second).await;
        assert_eq!(next_id(&state, NODE, 0.0).await, Some(second.id().into()));
        fetch(&state, shared.id()).await;
        confirm(&state, &second).await;
        assert_no_objects(&state).await;
    }
}

/// One copy, however many nodes there are, and each can tell when all of it is there.
pub async fn a_broadcast_is_kept_once<S: LinkState>(new: impl AsyncFn() -> S) {
    const NODES: u64 = 50;
    let state = new().await;
    federation(&state).await;
    let arrays: Vec<Made> = (0..100).map(|i| made(&format!("array {i}"), &[])).collect();
    let record = made("record", &arrays.iter().collect::<Vec<_>>());
    let nodes = 100..100 + NODES;
    let roots: Vec<Made> = nodes
        .clone()
        .map(|i| made(&format!("to {i}"), &[&record]))
        .collect();
    let mut messages = Vec::new();
    for (node, root) in nodes.zip(&roots) {
        join(&state, flwr_api::NodeId(node)).await;
        messages.push(instruction(RUN, flwr_api::NodeId(node), root));
    }
    let trees = roots.iter().map(|root| root.tree.clone()).collect();
    let stored = state.store_instructions(RUN, messages.clone(), trees, at(0.0));
    let (_, missing) = stored.await.unwrap();
    assert_eq!(missing.len(), roots.len() + record.objects.len());
    assert_eq!(missing[..record.objects.len()], record.ids());
    for root in &roots {
        put(&state, root.objects.last().unwrap()).await;
    }
    let (last, others) = record.objects.split_first().unwrap();
    for object in others {
        put(&state, object).await;
    }
    for message in &messages {
        assert_eq!(next_id(&state, message.metadata.dst, 0.0).await, None);
    }
    put(&state, last).await;
    for (message, root) in messages.iter().zip(&roots) {
        let delivered = state
            .deliver(message.metadata.dst, at(0.0))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(delivered.delivery.tree, root.tree);
        assert!(count(&state).await > record.objects.len());
        confirm(&state, root).await;
    }
    assert_no_objects(&state).await;
}

/// All the way down.
pub async fn objects_with_children_below_children_are_freed_whole<S: LinkState>(
    new: impl AsyncFn() -> S,
) {
    let state = new().await;
    federation(&state).await;
    let mut root = made("bottom", &[]);
    for level in 0..20 {
        let side = made(&format!("side {level}"), &[]);
        root = made(&format!("level {level}"), &[&root, &side]);
    }
    instruct(&state, &root).await;
    let delivered = state.deliver(NODE, at(0.0)).await.unwrap().unwrap();
    assert_eq!(delivered.delivery.tree, root.tree);
    assert_eq!(count(&state).await, 41);
    confirm(&state, &root).await;
    assert_no_objects(&state).await;
}

/// 98, 147: what one run brought, another does not have to.
pub async fn an_object_is_shared_between_runs<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let other = RunId(2);
    start_run(&state, other).await;
    let shared = made("shared", &[]);
    let (mine, theirs) = (made("mine", &[&shared]), made("theirs", &[&shared]));
    assert_eq!(announce(&state, RUN, &[&mine]).await, mine.ids());
    put_all(&state, &mine).await;
    assert_eq!(announce(&state, other, &[&theirs]).await, [theirs.id()]);
    assert_eq!(announce(&state, other, &[&mine]).await, []);
    shift(&state, RUN, stopped(), 0.0).await;
    fetch(&state, mine.id()).await;
    fetch(&state, shared.id()).await;
    state.confirm(other, mine.id()).await.unwrap();
    assert!(is_unknown(&state, mine.id()).await);
    fetch(&state, shared.id()).await;
    shift(&state, other, stopped(), 0.0).await;
    assert_no_objects(&state).await;
}

/// Only roots are let go of.
pub async fn confirming_a_part_of_a_message_frees_nothing<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let root = content("work");
    instruct(&state, &root).await;
    for (id, _) in &root.objects[..root.objects.len() - 1] {
        state.confirm(RUN, *id).await.unwrap();
    }
    state.confirm(RUN, ObjectId::of(b"unknown")).await.unwrap();
    state.confirm(RunId(404), root.id()).await.unwrap();
    assert_eq!(count(&state).await, root.objects.len());
    assert_eq!(next_id(&state, NODE, 0.0).await, Some(root.id().into()));
}

/// Trees that would never be freed, never complete or never fit are not announced; what is sound
/// beside them is.
pub async fn hostile_trees_are_left_out<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let sound = content("sound");
    let node = |name: &str, children: Vec<ObjectTree>| ObjectTree {
        id: ObjectId::of(name.as_bytes()),
        children,
    };
    let itself = node("itself", vec![node("itself", vec![])]);
    let around = node("b", vec![node("a", vec![])]);
    let cycle = node("a", vec![node("beside", vec![]), around]);
    let deep = (0..1000).fold(sound.tree.clone(), |below, level| {
        node(&format!("deep {level}"), vec![below])
    });
    let mut trees = vec![itself, cycle, deep];
    trees.push(sound.tree.clone());
    let missing = state.announce(RUN, &trees).await.unwrap();
    assert_eq!(missing[missing.len() - 2..], sound.ids());
    for hostile in ["itself", "a", "b", "beside", "deep 999", "deep 0"] {
        let id = ObjectId::of(hostile.as_bytes());
        assert!(is_unknown(&state, id).await, "{hostile}");
        assert!(!missing.contains(&id), "{hostile}");
    }
    instruct(&state, &sound).await;
    assert_eq!(next_id(&state, NODE, 0.0).await, Some(sound.id().into()));
    shift(&state, RUN, stopped(), 0.0).await;
    assert_no_objects(&state).await;
}

/// 148, B-19.
pub async fn announcing_and_freeing_at_once_loses_nothing<S: LinkState>(new: impl AsyncFn() -> S) {
    const WORKERS: u64 = 4;
    const ROUNDS: usize = 50;
    let state = Arc::new(new().await);
    federation(&*state).await;
    let arrays: Vec<Made> = (0..10).map(|i| made(&format!("array {i}"), &[])).collect();
    let record = made("record", &arrays.iter().collect::<Vec<_>>());
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let (state, record) = (Arc::clone(&state), record.clone());
        workers.spawn(async move {
            for round in 0..ROUNDS {
                let root = made(&format!("{worker} {round}"), &[&record]);
                state
                    .announce(RUN, std::slice::from_ref(&root.tree))
                    .await
                    .unwrap();
                for (id, bytes) in &root.objects {
                    let body = Body::from_bytes(bytes.clone());
                    let put = state.put_object(*id, body).await.unwrap();
                    assert!(matches!(put, Put::Stored | Put::Present), "{put:?}");
                }
                for id in root.ids() {
                    let object = state.object(id).await.unwrap();
                    assert!(matches!(object, Object::Available(_)), "{object:?}");
                }
                state.confirm(RUN, root.id()).await.unwrap();
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.unwrap();
    }
    assert_no_objects(&*state).await;
}
