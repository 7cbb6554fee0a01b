//! What a SuperLink finds that was away for a while: nobody could be heard meanwhile.

use flwr_api::{NodeId, Phase, RunId, RunStatus, UnixTime};
use flwr_state::conformance::{at, new_node, new_run};
use flwr_state::{Beat, LinkState, Nodes, Runs, Wakeups};
use flwr_state_embedded::{EmbeddedState, open};
use tempfile::TempDir;

use crate::world::{config, copy, files};

const NODE: NodeId = NodeId(7);
const RUN: RunId = RunId(9);

async fn opened(folder: &TempDir, now: UnixTime) -> EmbeddedState {
    let opened = open(config(folder.path()), Wakeups::new(), now).await;
    opened.unwrap()
}

/// A node that is online until 40 s, and a run that is leased until 60 s.
async fn begun(folder: &TempDir) -> EmbeddedState {
    let state = opened(folder, at(0.0)).await;
    state.create_node(new_node(NODE), at(0.0)).await.unwrap();
    assert!(state.beat_node(NODE, 20.0, at(0.0)).await.unwrap());
    assert!(state.create_run(new_run(RUN), at(0.0)).await.unwrap());
    for phase in [Phase::Starting, Phase::Running] {
        let moved = state.move_run(RUN, RunStatus::of(phase), at(0.0)).await;
        moved.unwrap();
    }
    let beat = state.beat_run(RUN, 30.0, at(0.0)).await.unwrap();
    assert_eq!(beat, Beat::Alive);
    state
}

async fn phase(state: &EmbeddedState, now: UnixTime) -> Phase {
    let status = state.run_status(RUN, now).await.unwrap();
    status.unwrap().phase
}

#[tokio::test]
async fn the_time_since_the_last_checkpoint_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let state = begun(&folder).await;
    state.checkpoint(at(5.0)).await.unwrap();
    drop(state);
    let state = opened(&folder, at(1005.0)).await;
    assert_eq!(state.nodes_online(at(1039.0)).await.unwrap(), [NODE]);
    assert_eq!(state.nodes_online(at(1041.0)).await.unwrap(), []);
    assert_eq!(phase(&state, at(1059.0)).await, Phase::Running);
    assert_eq!(phase(&state, at(1061.0)).await, Phase::Finished);
}

#[tokio::test]
async fn who_was_expected_has_half_a_minute_to_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let state = begun(&folder).await;
    state.checkpoint(at(39.0)).await.unwrap();
    drop(state);
    let state = opened(&folder, at(100.0)).await;
    assert_eq!(state.nodes_online(at(129.0)).await.unwrap(), [NODE]);
    assert_eq!(state.nodes_online(at(131.0)).await.unwrap(), []);
}

#[tokio::test]
async fn a_lease_that_was_shortened_is_as_short_after_a_kill() {
    let (folder, left) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let state = begun(&folder).await;
    // Whoever reads waits for what was written before.
    state.run(RUN, at(0.0)).await.unwrap();
    copy(folder.path(), left.path());
    let state = opened(&left, at(5.0)).await;
    assert_eq!(phase(&state, at(64.0)).await, Phase::Running);
    assert_eq!(phase(&state, at(66.0)).await, Phase::Finished);
}

#[tokio::test]
async fn who_was_gone_before_stays_gone() {
    let folder = tempfile::tempdir().unwrap();
    let state = begun(&folder).await;
    state.checkpoint(at(59.0)).await.unwrap();
    drop(state);
    for now in [at(59.5), at(200.0)] {
        let state = opened(&folder, now).await;
        assert_eq!(state.nodes_online(now).await.unwrap(), []);
        assert_eq!(phase(&state, now).await, Phase::Running);
    }
}

#[tokio::test]
async fn whoever_asks_whether_it_works_has_nothing_written() {
    let folder = tempfile::tempdir().unwrap();
    let state = begun(&folder).await;
    state.checkpoint(at(1.0)).await.unwrap();
    // What can wait for the next checkpoint.
    assert!(state.beat_node(NODE, 20.0, at(2.0)).await.unwrap());
    let before = files(folder.path());
    state.check().await.unwrap();
    assert!(files(folder.path()) == before);
    state.checkpoint(at(3.0)).await.unwrap();
    assert!(files(folder.path()) != before);
}
