//! Leases of runs (section 3.9).

use flwr_api::{Phase, RunId, RunStatus, SubStatus, Token, UnixTime};

use super::fixtures::{
    NODE, RUN, ask, assert_no_objects, at, content, federation, instruct, new_run, next_id, shift,
    start_run, stopped,
};
use crate::link::{
    AppOutputs, Beat, FIRST_LEASE_SECONDS, LEASE_EXPIRED, LinkState, StartedApp, Transition,
};

/// 104, B-5: starting and running each give one; its end itself is still alive.
pub async fn a_run_without_heartbeat_lives_on_its_first_lease<S: LinkState>(
    new: impl AsyncFn() -> S,
) {
    let state = new().await;
    state.create_run(new_run(RUN), at(0.0)).await.unwrap();
    let pending = state.run_status(RUN, at(1e9)).await.unwrap();
    assert_eq!(pending, Some(RunStatus::of(Phase::Pending)), "no lease yet");
    shift(&state, RUN, RunStatus::of(Phase::Starting), 0.0).await;
    let end = FIRST_LEASE_SECONDS;
    assert_eq!(phase(&state, RUN, end).await, Phase::Starting);
    shift(&state, RUN, RunStatus::of(Phase::Running), 500.0).await;
    assert_eq!(phase(&state, RUN, 500.0 + end).await, Phase::Running);
    let run = state.run(RUN, at(501.0 + end)).await.unwrap().unwrap();
    assert_eq!(run.status, lost());
    assert!(run.finished_at.is_some());

    let other = RunId(2);
    state.create_run(new_run(other), at(0.0)).await.unwrap();
    shift(&state, other, RunStatus::of(Phase::Starting), 0.0).await;
    assert_eq!(phase(&state, other, end + 1.0).await, Phase::Finished);
}

/// 103; odd intervals count as nothing.
pub async fn a_heartbeat_extends_the_lease<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    for (run, interval, lives) in [
        (RUN, 30.0, 60.0),
        (RunId(1), f64::NAN, 0.0),
        (RunId(2), -30.0, 0.0),
        (RunId(3), 1e300, 1e12),
    ] {
        start_run(&state, run).await;
        let beat = state.beat_run(run, interval, at(10.0)).await.unwrap();
        assert_eq!(beat, Beat::Alive);
        assert_eq!(phase(&state, run, 10.0 + lives).await, Phase::Running);
        if lives < 1e6 {
            let status = state.run_status(run, at(11.0 + lives)).await.unwrap();
            assert_eq!(status, Some(lost()), "{interval}");
        }
    }
}

/// 101.
pub async fn only_starting_and_running_runs_beat<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    let beat = || async { state.beat_run(RUN, 30.0, at(0.0)).await.unwrap() };
    assert_eq!(beat().await, Beat::Unknown);
    state.create_run(new_run(RUN), at(0.0)).await.unwrap();
    let pending = RunStatus::of(Phase::Pending);
    assert_eq!(beat().await, Beat::NotAlive(pending));
    for phase in [Phase::Starting, Phase::Running] {
        shift(&state, RUN, RunStatus::of(phase), 0.0).await;
        assert_eq!(beat().await, Beat::Alive);
    }
    shift(&state, RUN, stopped(), 0.0).await;
    assert_eq!(beat().await, Beat::NotAlive(stopped()));
}

/// Whoever looks first applies the lease.
pub async fn every_reader_sees_that_a_lease_has_passed<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    let late = at(FIRST_LEASE_SECONDS + 1.0);
    let fresh = async |id: u64| {
        let (run, token) = (RunId(id), Token::presented(id.to_string()));
        state.create_run(new_run(run), at(0.0)).await.unwrap();
        assert!(
            state
                .issue_token(run, token.clone(), at(0.0))
                .await
                .unwrap()
        );
        let started = state.start_app(&token, at(0.0)).await.unwrap();
        assert!(matches!(started, StartedApp::Started(..)), "{started:?}");
        shift(&state, run, RunStatus::of(Phase::Running), 0.0).await;
        (run, token)
    };
    let (run, _) = fresh(1).await;
    let read = state.run(run, late).await.unwrap().unwrap();
    assert_eq!(read.status, lost());
    let (run, _) = fresh(2).await;
    assert_eq!(state.run_status(run, late).await.unwrap(), Some(lost()));
    fresh(3).await;
    let listed = state.runs(late).await.unwrap();
    assert!(listed.iter().all(|run| run.status == lost()), "{listed:?}");
    let (run, _) = fresh(4).await;
    let beat = state.beat_run(run, 30.0, late).await.unwrap();
    assert_eq!(beat, Beat::NotAlive(lost()));
    let (run, _) = fresh(5).await;
    let moved = state.move_run(run, stopped(), late).await.unwrap();
    assert_eq!(moved, Transition::Refused(lost()));
    let (run, token) = fresh(6).await;
    let outputs = state.finish_app(&token, run, "context".into(), late).await;
    assert_eq!(outputs.unwrap(), AppOutputs::NotRunning(lost()));
    let (_, token) = fresh(7).await;
    let started = state.start_app(&token, late).await.unwrap();
    assert_eq!(started, StartedApp::NotPending(lost()));
}

/// 139, 149: as any end does.
pub async fn a_lost_run_takes_its_messages_and_objects_along<S: LinkState>(
    new: impl AsyncFn() -> S,
) {
    let state = new().await;
    federation(&state).await;
    state.beat_run(RUN, 30.0, at(0.0)).await.unwrap();
    let message = instruct(&state, &content("work")).await;
    assert!(next_id(&state, NODE, 1.0).await.is_some());
    assert_eq!(next_id(&state, NODE, 61.0).await, None);
    assert_no_objects(&state).await;
    assert_eq!(ask(&state, &message.metadata.id, 61.0).await.ready, []);
}

/// Whoever waits until then finds something done.
pub async fn the_next_lease_end_is_when_something_happens<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    assert_eq!(next(&state).await, None);
    state.create_run(new_run(RUN), at(0.0)).await.unwrap();
    assert_eq!(next(&state).await, None);
    start_run(&state, RunId(2)).await;
    shift(&state, RUN, RunStatus::of(Phase::Starting), 0.0).await;
    state.beat_run(RunId(2), 15.0, at(0.0)).await.unwrap();
    for (run, seconds) in [(RunId(2), 30.0), (RUN, FIRST_LEASE_SECONDS)] {
        let end = next(&state).await.unwrap();
        assert!(end >= at(seconds) && end < at(seconds + 0.001), "{end:?}");
        assert_ne!(phase(&state, run, seconds - 0.001).await, Phase::Finished);
        assert_eq!(state.run_status(run, end).await.unwrap(), Some(lost()));
    }
    assert_eq!(next(&state).await, None);
}

async fn next(state: &impl LinkState) -> Option<UnixTime> {
    state.next_lease_end().await.unwrap()
}

async fn phase(state: &impl LinkState, run: RunId, seconds: f64) -> Phase {
    let status = state.run_status(run, at(seconds)).await.unwrap();
    status.unwrap().phase
}

fn lost() -> RunStatus {
    RunStatus::finished(SubStatus::Failed, LEASE_EXPIRED)
}
