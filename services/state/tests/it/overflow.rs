//! A state in memory that keeps what has no room there in files: the battery, and where bytes are.

use std::path::Path;

use flwr_api::{Phase, RunId, RunStatus, SubStatus};
use flwr_state::conformance::{Made, at, made, new_run};
use flwr_state::{
    Arrived, Bounds, Mailbox, Memory, MemoryState, Object, Objects, Put, Runs, StoreError, files,
};
use flwr_transport::{Body, BodyError};
use futures_util::StreamExt as _;
use tempfile::TempDir;

const RUN: RunId = RunId(1);

thread_local! {
    /// Each test has a thread.
    static FOLDER: TempDir = tempfile::tempdir().unwrap();
}

/// Everything goes to files.
mod battery {
    flwr_state::conformance!(async || crate::overflow::state(0, 1 << 30));
}

/// Nothing does but what breaks off.
mod roomy {
    flwr_state::conformance!(async || crate::overflow::state(1 << 30, 1 << 30));
}

fn state(bytes_max: u64, quota_bytes: u64) -> MemoryState {
    let bounds = Bounds {
        bytes_max,
        object_bytes_min: 0,
    };
    let config = files::Config {
        quota_bytes,
        free_bytes_min: 0,
        durable: false,
    };
    let storage = FOLDER.with(|folder| Memory::overflowing(bounds, folder.path(), config));
    MemoryState::empty(storage.unwrap())
}

async fn announced(state: &MemoryState, objects: &[Made]) {
    assert!(state.create_run(new_run(RUN), at(0.0)).await.unwrap());
    let trees: Vec<_> = objects.iter().map(|made| made.tree.clone()).collect();
    state.announce(RUN, &trees).await.unwrap();
}

async fn put(state: &MemoryState, made: &Made) -> Result<Put, StoreError> {
    let (id, bytes) = &made.objects[0];
    state.put_object(*id, Body::from_bytes(bytes.clone())).await
}

/// The bytes of files below a folder.
fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.file_type().unwrap() {
            kind if kind.is_dir() => bytes_below(&entry.path()),
            _ => entry.metadata().unwrap().len(),
        })
        .sum()
}

fn on_disk() -> u64 {
    FOLDER.with(|folder| bytes_below(folder.path()))
}

#[tokio::test]
async fn what_has_no_room_goes_to_files_until_it_is_not_needed() {
    let objects = ["a", "b", "c"].map(|name| made(&name.repeat(1000), &[]));
    let bytes = objects[0].objects[0].1.len() as u64;
    let state = state(2 * bytes, 1 << 30);
    announced(&state, &objects).await;
    for object in &objects {
        assert_eq!(put(&state, object).await.unwrap(), Put::Stored);
    }
    assert_eq!(on_disk(), bytes);
    for object in &objects {
        let (id, bytes) = &object.objects[0];
        let Object::Available(body) = state.object(*id).await.unwrap() else {
            panic!("{id} is lost");
        };
        assert_eq!(body.collect(u64::MAX).await.unwrap(), bytes);
    }
    // Room that becomes free is used.
    state.confirm(RUN, objects[0].tree.id).await.unwrap();
    let next = made(&"d".repeat(1000), &[]);
    state
        .announce(RUN, std::slice::from_ref(&next.tree))
        .await
        .unwrap();
    assert_eq!(put(&state, &next).await.unwrap(), Put::Stored);
    assert_eq!(on_disk(), bytes);
    let end = RunStatus::finished(SubStatus::Completed, "");
    for status in [
        RunStatus::of(Phase::Starting),
        RunStatus::of(Phase::Running),
        end,
    ] {
        state.move_run(RUN, status, at(0.0)).await.unwrap();
    }
    // The thread that removes files ends with the state.
    drop(state);
    assert_eq!(on_disk(), 0);
}

#[tokio::test]
async fn what_has_no_room_at_all_is_refused_and_costs_nothing() {
    let objects = ["a", "b", "c"].map(|name| made(&name.repeat(1000), &[]));
    let bytes = objects[0].objects[0].1.len() as u64;
    let state = state(bytes, bytes);
    announced(&state, &objects).await;
    for object in &objects[..2] {
        assert_eq!(put(&state, object).await.unwrap(), Put::Stored);
    }
    let refused = put(&state, &objects[2]).await;
    assert!(
        matches!(refused, Err(StoreError::Full { .. })),
        "{refused:?}"
    );
    state.confirm(RUN, objects[0].tree.id).await.unwrap();
    assert_eq!(put(&state, &objects[2]).await.unwrap(), Put::Stored);
}

#[tokio::test]
async fn each_process_has_a_folder_of_its_own_and_finds_nothing_in_it() {
    let object = made("a", &[]);
    let [first, second] = [state(0, 1 << 30), state(0, 1 << 30)];
    for state in [&first, &second] {
        announced(state, std::slice::from_ref(&object)).await;
        assert_eq!(put(state, &object).await.unwrap(), Put::Stored);
    }
    let bytes = object.objects[0].1.len() as u64;
    assert_eq!(on_disk(), 2 * bytes);
    // As after a kill, the files stay.
    drop(first);
    assert_eq!(on_disk(), 2 * bytes);
    let third = state(0, 1 << 30);
    assert_eq!(on_disk(), bytes);
    drop(third);
}

#[tokio::test]
async fn objects_under_way_have_their_share() {
    let objects = ["a", "b"].map(|name| made(&name.repeat(1000), &[]));
    let (id, bytes) = &objects[0].objects[0];
    let state = state(bytes.len() as u64, 1 << 30);
    announced(&state, &objects).await;
    let (send, arrives) = tokio::sync::oneshot::channel::<()>();
    let rest = bytes.slice(1..);
    let pieces = futures_util::stream::iter([Ok(bytes.slice(..1))]).chain(
        futures_util::stream::once(async move {
            arrives.await.unwrap();
            Ok(rest)
        }),
    );
    let slow = Body::from_stream(Some(bytes.len() as u64), pieces);
    let slow = state.put_object(*id, slow);
    tokio::pin!(slow);
    let pending = futures_util::poll!(&mut slow);
    assert!(pending.is_pending());
    // The slow one has all there is in memory.
    assert_eq!(put(&state, &objects[1]).await.unwrap(), Put::Stored);
    assert_eq!(on_disk(), bytes.len() as u64);
    send.send(()).unwrap();
    assert_eq!(slow.await.unwrap(), Put::Stored);
    assert_eq!(on_disk(), bytes.len() as u64);
}

#[tokio::test]
async fn what_broke_off_goes_to_a_file_and_takes_no_more_than_what_came() {
    let objects = ["a", "b", "c"].map(|name| made(&name.repeat(1000), &[]));
    let (id, bytes) = &objects[0].objects[0];
    let state = state(bytes.len() as u64, 10 + bytes.len() as u64);
    announced(&state, &objects).await;
    let pieces = [Ok(bytes.slice(..10)), Err(BodyError::Interrupted)];
    let body = Body::from_stream(Some(bytes.len() as u64), futures_util::stream::iter(pieces));
    let begun = state.receive_object(*id, None, body).await.unwrap();
    let Arrived::BrokeOff(Some(begun), _) = begun else {
        panic!("{begun:?}");
    };
    assert_eq!((begun.len(), on_disk()), (10, 10));
    // The memory is free, and of the quota all but ten bytes.
    for object in &objects[1..] {
        assert_eq!(put(&state, object).await.unwrap(), Put::Stored);
    }
    assert_eq!(on_disk(), 10 + bytes.len() as u64);
    drop(begun);
    while on_disk() > bytes.len() as u64 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_processes_left_behind_that_were_killed_is_removed() {
    let left = FOLDER.with(|folder| folder.path().join("overflow-2/objects/ab"));
    std::fs::create_dir_all(&left).unwrap();
    let id = "ab".repeat(32);
    std::fs::write(left.join(id), "bytes").unwrap();
    assert_eq!(on_disk(), 5);
    let _state = state(0, 1 << 30);
    assert_eq!(on_disk(), 0);
}
