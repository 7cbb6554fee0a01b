//! Runs: submission, statuses, the launch queue, and their end.

use bytes::Bytes;
use flwr_api::{MessageId, NodeId, Phase, RunId, RunStatus, Scalar, SubStatus, Token, UnixTime};

use super::fixtures::{
    NODE, RUN, announce_instruction, answer, ask, assert_no_objects, at, content, count,
    federation, instruct, instruction, join, new_run, next_id, reply, shift, start_run, stopped,
};
use crate::link::{LaunchQueue, LinkState, NewRun, ReplyOutcome, Transition};

/// 74, 106, 168: nothing is lost or rounded.
pub async fn a_run_is_kept_as_submitted<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    let mut submitted = NewRun {
        series: u64::MAX,
        federation: "local".into(),
        options: Some(Bytes::from_static(b"\x00options\xff")),
        ..new_run(RUN)
    };
    let values = [
        Scalar::Bool(true),
        Scalar::Bytes(Bytes::from_static(b"\x00\xff")),
        Scalar::Double(0.1),
        Scalar::Sint64(i64::MIN),
        Scalar::String("é".into()),
        Scalar::Uint64(u64::MAX),
    ];
    for (index, value) in values.into_iter().enumerate() {
        submitted.overrides.insert(format!("key.{index}"), value);
    }
    assert!(state.create_run(submitted.clone(), at(0.25)).await.unwrap());
    assert!(!state.create_run(new_run(RUN), at(1.0)).await.unwrap());
    let run = state.run(RUN, at(1.0)).await.unwrap().unwrap();
    assert_eq!(run.id, RUN);
    assert_eq!(run.series, submitted.series);
    assert_eq!(run.federation, submitted.federation);
    assert_eq!(run.fab, submitted.fab);
    assert_eq!(run.overrides, submitted.overrides);
    assert_eq!(run.status, RunStatus::of(Phase::Pending));
    assert_eq!(run.pending_at, at(0.25));
    assert_eq!(
        [run.starting_at, run.running_at, run.finished_at],
        [None; 3]
    );
    assert_eq!(
        state.federation_options(RUN).await.unwrap(),
        submitted.options
    );
    let unknown = RunId(0);
    assert_eq!(state.run(unknown, at(1.0)).await.unwrap(), None);
    assert_eq!(state.run_status(unknown, at(1.0)).await.unwrap(), None);
    assert_eq!(state.federation_options(unknown).await.unwrap(), None);
}

/// 135.
pub async fn runs_are_listed_in_the_order_of_their_submission<S: LinkState>(
    new: impl AsyncFn() -> S,
) {
    let state = new().await;
    let ids = [9, u64::MAX, 0, 1 << 63, 3].map(RunId);
    for id in ids {
        assert!(state.create_run(new_run(id), at(0.0)).await.unwrap());
    }
    shift(&state, ids[1], stopped(), 1.0).await;
    let listed = state.runs(at(2.0)).await.unwrap();
    assert_eq!(listed.iter().map(|run| run.id).collect::<Vec<_>>(), ids);
    for run in listed {
        assert_eq!(state.run(run.id, at(2.0)).await.unwrap(), Some(run));
    }
}

/// 76, 77, 78, 80, 138: section 3.8, from every status to every other.
pub async fn every_transition_follows_the_table<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    let ends = [
        SubStatus::None,
        SubStatus::Completed,
        SubStatus::Failed,
        SubStatus::Stopped,
    ]
    .map(|sub| RunStatus::finished(sub, "why"));
    let befores = [Phase::Pending, Phase::Starting, Phase::Running].map(RunStatus::of);
    let statuses = [befores.to_vec(), ends.to_vec()].concat();
    for (index, from) in statuses.iter().enumerate() {
        for (offset, to) in statuses.iter().enumerate() {
            let run = RunId((index * 100 + offset) as u64);
            state.create_run(new_run(run), at(0.0)).await.unwrap();
            for phase in [Phase::Starting, Phase::Running] {
                if phase <= from.phase {
                    shift(&state, run, RunStatus::of(phase), 0.0).await;
                }
            }
            if from.phase == Phase::Finished {
                shift(&state, run, from.clone(), 0.0).await;
            }
            let (expected, after) = if from.may_become(to) {
                (Transition::Applied, to)
            } else {
                (Transition::Refused(from.clone()), from)
            };
            let moved = state.move_run(run, to.clone(), at(1.0)).await.unwrap();
            assert_eq!(moved, expected, "{from} to {to}");
            let status = state.run_status(run, at(1.0)).await.unwrap();
            assert_eq!(status.as_ref(), Some(after), "{from} to {to}");
        }
    }
    let unknown = state.move_run(RunId(u64::MAX), stopped(), at(0.0)).await;
    assert_eq!(unknown.unwrap(), Transition::Unknown);
}

/// 76: times are those of the moves, and of no other.
pub async fn times_are_set_on_entry<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    state.create_run(new_run(RUN), at(0.0)).await.unwrap();
    shift(&state, RUN, RunStatus::of(Phase::Starting), 1.5).await;
    let refused = state.move_run(RUN, RunStatus::of(Phase::Starting), at(2.0));
    refused.await.unwrap();
    shift(&state, RUN, RunStatus::of(Phase::Running), 3.5).await;
    let failed = RunStatus::finished(SubStatus::Failed, "details");
    shift(&state, RUN, failed.clone(), 4.5).await;
    let run = state.run(RUN, at(9.0)).await.unwrap().unwrap();
    let entered = [run.starting_at, run.running_at, run.finished_at];
    assert_eq!(entered, [1.5, 3.5, 4.5].map(|s| Some(at(s))));
    assert_eq!(run.status, failed);

    let skipping = RunId(1);
    state.create_run(new_run(skipping), at(0.0)).await.unwrap();
    shift(&state, skipping, stopped(), 1.0).await;
    let run = state.run(skipping, at(9.0)).await.unwrap().unwrap();
    let entered = [run.starting_at, run.running_at, run.finished_at];
    assert_eq!(entered, [None, None, Some(at(1.0))]);
}

/// 70, 71: all pending runs and no others, the oldest first.
pub async fn runs_wait_for_launch_while_pending<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    let queue = state.launch_queue(at(0.0)).await.unwrap();
    assert_eq!(queue, LaunchQueue::default());
    let ids = [7, 3, u64::MAX, 5].map(RunId);
    for id in ids {
        state.create_run(new_run(id), at(0.0)).await.unwrap();
    }
    assert_eq!(state.launch_queue(at(0.0)).await.unwrap().ready, ids);
    shift(&state, RunId(3), RunStatus::of(Phase::Starting), 0.0).await;
    shift(&state, RunId(5), stopped(), 0.0).await;
    let queue = state.launch_queue(at(0.0)).await.unwrap();
    assert_eq!(queue.ready, [RunId(7), RunId(u64::MAX)]);
    assert_eq!(queue.changes_at, None);
}

/// 79, 139, 147, 149.
pub async fn a_run_that_finishes_takes_its_messages_and_objects_along<S: LinkState>(
    new: impl AsyncFn() -> S,
) {
    let state = new().await;
    federation(&state).await;
    let other = RunId(2);
    start_run(&state, other).await;
    let waiting = instruct(&state, &content("waiting")).await;
    let answered = instruct(&state, &content("answered")).await;
    answer(&state, &answered, &content("an answer")).await;
    let unfinished = content("unfinished");
    announce_instruction(&state, &instruction(RUN, NODE, &unfinished), &unfinished).await;
    ask(&state, &MessageId::new("nobody's"), 0.0).await;
    let kept = content("of the other");
    announce_instruction(&state, &instruction(other, NODE, &kept), &kept).await;

    shift(&state, RUN, stopped(), 0.0).await;
    assert_eq!(count(&state).await, kept.objects.len());
    assert_eq!(next_id(&state, NODE, 0.0).await, None);
    let late = reply(&waiting, &content("late"));
    let (outcome, missing) = state
        .store_reply(late, vec![], Ok(()), at(0.0))
        .await
        .unwrap();
    assert!(matches!(outcome, ReplyOutcome::Rejected(_)), "{outcome:?}");
    assert_eq!(missing, []);
    shift(&state, other, stopped(), 0.0).await;
    assert_no_objects(&state).await;
}

/// Nothing would ever free it.
pub async fn nothing_is_kept_for_a_run_that_is_not_open<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    start_run(&state, RUN).await;
    shift(&state, RUN, stopped(), 0.0).await;
    join(&state, NodeId(9)).await;
    let root = content("late");
    for run in [RUN, RunId(12)] {
        let message = instruction(run, NodeId(9), &root);
        let trees = vec![root.tree.clone()];
        assert_eq!(state.announce(run, &trees).await.unwrap(), []);
        let stored = state.store_instructions(run, vec![message.clone()], trees.clone(), at(0.0));
        assert_eq!(stored.await.unwrap(), (vec![None], vec![]));
        let answer = reply(&message, &content("answer"));
        let (outcome, _) = state
            .store_reply(answer, trees, Ok(()), at(0.0))
            .await
            .unwrap();
        assert!(matches!(outcome, ReplyOutcome::Rejected(_)), "{outcome:?}");
        let asked = [message.metadata.id];
        let replies = state.replies(run, &asked, at(0.0)).await.unwrap();
        assert_eq!((replies.ready, replies.waiting), (vec![], 1));
        state.confirm(run, root.id()).await.unwrap();
    }
    assert_no_objects(&state).await;
}

/// With their tokens and logs: those that finished before a time, and the oldest beyond a number. Others stay as they
/// are, in their order.
pub async fn runs_that_finished_long_ago_are_forgotten<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    let listed = async |seconds| {
        let runs = state.runs(at(seconds)).await.unwrap();
        runs.into_iter().map(|run| run.id.0).collect::<Vec<_>>()
    };
    let token = |run: u64| Token::presented(format!("token {run}"));
    // Submitted in this order, and finished in another.
    for (run, finished_at) in [(5, Some(20.0)), (1, Some(10.0)), (4, None), (2, Some(30.0))] {
        let id = RunId(run);
        state.create_run(new_run(id), at(0.0)).await.unwrap();
        assert!(state.issue_token(id, token(run), at(0.0)).await.unwrap());
        state
            .append_log(id, format!("{run}\n"), at(0.0))
            .await
            .unwrap();
        if let Some(seconds) = finished_at {
            shift(&state, id, stopped(), seconds).await;
        }
    }
    assert_eq!(state.sweep_runs(at(10.0), 10).await.unwrap(), []);
    assert_eq!(state.sweep_runs(at(10.1), 10).await.unwrap(), [RunId(1)]);
    assert_eq!(listed(40.0).await, [5, 4, 2]);
    assert_eq!(state.run_of_token(&token(1)).await.unwrap(), None);
    let read = async |run| {
        let slice = state.log_after(RunId(run), UnixTime::default()).await;
        slice.unwrap().text
    };
    assert_eq!(read(1).await, "");
    assert!(
        !state
            .append_log(RunId(1), "late".into(), at(40.0))
            .await
            .unwrap()
    );
    assert_eq!(state.sweep_runs(at(0.0), 1).await.unwrap(), [RunId(5)]);
    assert_eq!(listed(40.0).await, [4, 2]);
    assert_eq!(read(2).await, "2\n");
    assert_eq!(state.run_of_token(&token(2)).await.unwrap(), Some(RunId(2)));
    assert_eq!(
        state.launch_queue(at(61.0)).await.unwrap().ready,
        [RunId(4)]
    );
    // An id that is free again begins anew, and comes last.
    assert!(state.create_run(new_run(RunId(1)), at(50.0)).await.unwrap());
    assert_eq!(listed(50.0).await, [4, 2, 1]);
    assert_eq!(read(1).await, "");
}
