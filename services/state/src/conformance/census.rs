//! What there is, counted.

use flwr_api::{NodeId, Phase, RunId, RunStatus, SubStatus};

use super::fixtures::{
    INTERVAL, NODE, RUN, announce_instruction, answer, at, confirm, content, federation,
    instruction, join, new_run, next_id, put_all, shift, start_run, stopped,
};
use crate::link::{Census, FinishedRuns, LinkState, Queue};

/// An empty state has nothing.
pub async fn nothing_is_counted_of_nothing<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    assert_eq!(state.census(at(0.0)).await.unwrap(), Census::default());
}

/// Those that are overdue count until they are forgotten.
pub async fn nodes_are_counted_by_their_heartbeats<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    join(&state, NODE).await;
    join(&state, NodeId(7)).await;
    state.beat_node(NODE, INTERVAL, at(0.0)).await.unwrap();
    for (seconds, counts) in [(0.0, (2, 0)), (1.5 * INTERVAL, (1, 1)), (100.0, (0, 2))] {
        let census = state.census(at(seconds)).await.unwrap();
        assert_eq!((census.nodes_online, census.nodes_offline), counts);
    }
    state.delete_node(NODE).await.unwrap();
    let census = state.census(at(100.0)).await.unwrap();
    assert_eq!((census.nodes_online, census.nodes_offline), (0, 1));
}

/// Every status has its own count.
pub async fn runs_are_counted_by_status<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    start_run(&state, RUN).await;
    for id in 1..=5 {
        assert!(state.create_run(new_run(RunId(id)), at(0.0)).await.unwrap());
    }
    shift(&state, RunId(1), RunStatus::of(Phase::Starting), 0.0).await;
    shift(&state, RunId(2), stopped(), 0.0).await;
    shift(&state, RunId(3), stopped(), 0.0).await;
    let failed = RunStatus::finished(SubStatus::Failed, "");
    shift(&state, RunId(4), failed, 0.0).await;
    let census = state.census(at(1.0)).await.unwrap();
    assert_eq!((census.runs_pending, census.runs_starting), (1, 1));
    assert_eq!(census.running, [RUN]);
    let finished = FinishedRuns {
        completed: 0,
        failed: 1,
        stopped: 2,
    };
    assert_eq!(census.runs_finished, finished);
    let completed = RunStatus::finished(SubStatus::Completed, "");
    shift(&state, RUN, completed, 1.0).await;
    let census = state.census(at(1.0)).await.unwrap();
    assert_eq!(census.runs_finished.completed, 1);
    assert!(census.running.is_empty());
}

/// From the first object to the confirmation of its reply.
pub async fn an_instruction_counts_where_it_is<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let (asked, answered) = (content("work"), content("answer"));
    let message = instruction(RUN, NODE, &asked);
    let queues = async || {
        let census = state.census(at(1.0)).await.unwrap();
        let queues = [
            census.incomplete,
            census.ready,
            census.offered,
            census.working,
            census.answered,
        ];
        for queue in queues {
            let oldest = (queue.len > 0).then_some(message.metadata.created_at);
            let expected = Queue { oldest, ..queue };
            assert_eq!(queue, expected);
        }
        (queues.map(|queue| queue.len), census.objects)
    };
    announce_instruction(&state, &message, &asked).await;
    assert_eq!(queues().await, ([1, 0, 0, 0, 0], 2));
    put_all(&state, &asked).await;
    assert_eq!(queues().await, ([0, 1, 0, 0, 0], 2));
    let bytes: usize = asked.objects.iter().map(|(_, bytes)| bytes.len()).sum();
    let census = state.census(at(1.0)).await.unwrap();
    assert_eq!(census.object_bytes, bytes as u64);
    assert!(next_id(&state, NODE, 1.0).await.is_some());
    assert_eq!(queues().await, ([0, 0, 1, 0, 0], 2));
    confirm(&state, &asked).await;
    assert_eq!(queues().await, ([0, 0, 0, 1, 0], 0));
    answer(&state, &message, &answered).await;
    assert_eq!(queues().await, ([0, 0, 0, 0, 1], 2));
    confirm(&state, &answered).await;
    assert_eq!(queues().await, ([0; 5], 0));
}
