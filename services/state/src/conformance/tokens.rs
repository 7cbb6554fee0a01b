//! Tokens: who may launch and speak for a run.

use bytes::Bytes;
use flwr_api::{Phase, RunId, RunStatus, Token};

use super::fixtures::{RUN, at, new_run, shift, start_run, stopped};
use crate::link::{AppOutputs, LAUNCH_LEASE_SECONDS, LinkState, StartedApp};

/// 71, 72.
pub async fn a_run_is_claimed_once<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    for run in [RUN, RunId(2)] {
        state.create_run(new_run(run), at(0.0)).await.unwrap();
    }
    assert!(issue(&state, RUN, "a", 0.0).await);
    assert!(!issue(&state, RUN, "b", 1.0).await, "claimed");
    assert!(!issue(&state, RUN, "a", 1.0).await, "a repeat is no claim");
    assert!(
        !issue(&state, RunId(2), "a", 1.0).await,
        "the token is taken"
    );
    let queue = state.launch_queue(at(1.0)).await.unwrap();
    assert_eq!(queue.ready, [RunId(2)]);
    assert_eq!(start(&state, "b", 1.0).await, StartedApp::InvalidToken);
}

/// Only a run that waits for its launch can be claimed.
pub async fn only_pending_runs_are_claimed<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    assert!(!issue(&state, RUN, "a", 0.0).await, "unknown");
    state.create_run(new_run(RUN), at(0.0)).await.unwrap();
    for status in [
        RunStatus::of(Phase::Starting),
        RunStatus::of(Phase::Running),
        stopped(),
    ] {
        shift(&state, RUN, status.clone(), 0.0).await;
        assert!(!issue(&state, RUN, "a", 0.0).await, "{status}");
    }
}

/// B-5: the queue says when, and the former token is worth nothing from then on.
pub async fn a_launch_that_takes_too_long_loses_its_claim<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    for (run, token, seconds) in [(RunId(1), "later", 7.0), (RUN, "dead", 5.0)] {
        state.create_run(new_run(run), at(0.0)).await.unwrap();
        assert!(issue(&state, run, token, seconds).await);
    }
    let queue = state.launch_queue(at(10.0)).await.unwrap();
    assert_eq!(queue.ready, []);
    let ends = queue.changes_at.unwrap();
    let end = 5.0 + LAUNCH_LEASE_SECONDS;
    assert!(ends >= at(end) && ends < at(end + 0.001), "{ends:?}");
    assert!(!issue(&state, RUN, "early", end - 0.001).await);
    assert_eq!(state.launch_queue(ends).await.unwrap().ready, [RUN]);
    let started = state.start_app(&Token::presented("dead"), ends).await;
    assert_eq!(started.unwrap(), StartedApp::InvalidToken);
    assert!(issue(&state, RUN, "next", end + 1.0).await);
    let queue = state.launch_queue(at(end + 1.5)).await.unwrap();
    assert_eq!(queue.ready, [], "the other one has 0.5 s left");
    assert_eq!(
        start(&state, "dead", end + 1.0).await,
        StartedApp::InvalidToken
    );
    assert!(is_started(&start(&state, "next", end + 1.0).await));
    let dead = start(&state, "dead", end + 1.0).await;
    assert_eq!(dead, StartedApp::InvalidToken, "the run is another's now");
    assert_eq!(finish(&state, "dead", RUN).await, AppOutputs::InvalidToken);
}

/// 73, 74: and the same again if the answer is lost.
pub async fn a_token_starts_its_run<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    for (run, token) in [(RUN, "a"), (RunId(2), "b")] {
        state.create_run(new_run(run), at(0.0)).await.unwrap();
        assert!(issue(&state, run, token, 0.0).await);
    }
    for invalid in ["", "A", "aa", "0"] {
        assert_eq!(start(&state, invalid, 1.0).await, StartedApp::InvalidToken);
    }
    let first = start(&state, "a", 2.0).await;
    let StartedApp::Started(run, None) = &first else {
        panic!("{first:?}");
    };
    assert_eq!(
        Some(run.as_ref()),
        state.run(RUN, at(2.0)).await.unwrap().as_ref()
    );
    assert_eq!(run.status, RunStatus::of(Phase::Starting));
    assert_eq!(run.starting_at, Some(at(2.0)));
    let repeated = start(&state, "a", 3.0 + LAUNCH_LEASE_SECONDS).await;
    assert_eq!(repeated, first, "starting runs need no launch lease");
    let other = state.run_status(RunId(2), at(2.0)).await.unwrap();
    assert_eq!(other, Some(RunStatus::of(Phase::Pending)));
    shift(&state, RUN, RunStatus::of(Phase::Running), 4.0).await;
    let running = StartedApp::NotPending(RunStatus::of(Phase::Running));
    assert_eq!(start(&state, "a", 4.0).await, running);
}

/// 75.
pub async fn a_stopped_run_does_not_start<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    state.create_run(new_run(RUN), at(0.0)).await.unwrap();
    assert!(issue(&state, RUN, "a", 0.0).await);
    shift(&state, RUN, stopped(), 1.0).await;
    assert_eq!(
        start(&state, "a", 2.0).await,
        StartedApp::NotPending(stopped())
    );
    let status = state.run_status(RUN, at(2.0)).await.unwrap();
    assert_eq!(status, Some(stopped()));
}

/// 105: the token comes first, then the run, then its status.
pub async fn outputs_need_the_token_and_a_running_run<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    state.create_run(new_run(RUN), at(0.0)).await.unwrap();
    start_run(&state, RunId(2)).await;
    assert!(issue(&state, RUN, "a", 0.0).await);
    assert_eq!(finish(&state, "x", RUN).await, AppOutputs::InvalidToken);
    assert_eq!(
        finish(&state, "x", RunId(99)).await,
        AppOutputs::InvalidToken
    );
    for wrong in [RunId(2), RunId(99)] {
        assert_eq!(finish(&state, "a", wrong).await, AppOutputs::UnknownRun);
    }
    let pending = AppOutputs::NotRunning(RunStatus::of(Phase::Pending));
    assert_eq!(finish(&state, "a", RUN).await, pending);
    assert!(is_started(&start(&state, "a", 0.0).await));
    let starting = AppOutputs::NotRunning(RunStatus::of(Phase::Starting));
    assert_eq!(finish(&state, "a", RUN).await, starting);
    shift(&state, RUN, RunStatus::of(Phase::Running), 0.0).await;
    shift(&state, RUN, stopped(), 0.0).await;
    assert_eq!(
        finish(&state, "a", RUN).await,
        AppOutputs::NotRunning(stopped())
    );
}

/// 105: repeating it is fine, whatever has become of the run; anything else is over.
pub async fn a_token_is_given_back_once<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    state.create_run(new_run(RUN), at(0.0)).await.unwrap();
    assert!(issue(&state, RUN, "a", 0.0).await);
    assert!(is_started(&start(&state, "a", 0.0).await));
    shift(&state, RUN, RunStatus::of(Phase::Running), 0.0).await;
    for _ in 0..2 {
        assert_eq!(finish(&state, "a", RUN).await, AppOutputs::Stored);
        assert_eq!(start(&state, "a", 0.0).await, StartedApp::InvalidToken);
    }
    assert_eq!(finish(&state, "a", RunId(1)).await, AppOutputs::UnknownRun);
    shift(&state, RUN, stopped(), 0.0).await;
    assert_eq!(finish(&state, "a", RUN).await, AppOutputs::Stored);
}

/// A token names its run until another token takes its place.
pub async fn a_token_names_its_run<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    state.create_run(new_run(RUN), at(0.0)).await.unwrap();
    let run_of = async |token: &str| {
        let token = Token::presented(token);
        state.run_of_token(&token).await.unwrap()
    };
    assert_eq!(run_of("a").await, None);
    assert!(issue(&state, RUN, "a", 0.0).await);
    assert_eq!(run_of("a").await, Some(RUN));
    assert!(issue(&state, RUN, "b", 2.0 * LAUNCH_LEASE_SECONDS).await);
    assert_eq!((run_of("a").await, run_of("b").await), (None, Some(RUN)));
    assert!(is_started(&start(&state, "b", 130.0).await));
    shift(&state, RUN, RunStatus::of(Phase::Running), 130.0).await;
    assert_eq!(finish(&state, "b", RUN).await, AppOutputs::Stored);
    assert_eq!(run_of("b").await, Some(RUN));
}

async fn issue(state: &impl LinkState, run: RunId, token: &str, seconds: f64) -> bool {
    let token = Token::presented(token);
    state.issue_token(run, token, at(seconds)).await.unwrap()
}

async fn start(state: &impl LinkState, token: &str, seconds: f64) -> StartedApp {
    let token = Token::presented(token);
    state.start_app(&token, at(seconds)).await.unwrap()
}

async fn finish(state: &impl LinkState, token: &str, run: RunId) -> AppOutputs {
    let (token, context) = (Token::presented(token), Bytes::from_static(b"context"));
    state
        .finish_app(&token, run, context, at(0.0))
        .await
        .unwrap()
}

fn is_started(started: &StartedApp) -> bool {
    matches!(started, StartedApp::Started(run, _) if run.status.phase == Phase::Starting)
}
