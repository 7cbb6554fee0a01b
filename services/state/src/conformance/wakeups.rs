//! Whoever subscribed before a change is woken by it.

use std::time::Duration;

use flwr_api::{NodeId, Phase, RunId, RunStatus};

use super::fixtures::{
    Made, NODE, RUN, announce_instruction, answer, at, confirm, content, federation, instruct,
    instruction, join, key, made, new_node, new_run, put, put_all, reply, shift, stopped,
};
use crate::link::{LinkState, NewNode};
use crate::wakeups::{Subscription, Topic};

/// 150: with its last object, or at once if they were all there.
pub async fn nodes_wake_when_an_instruction_is_ready<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let shared = made("shared", &[]);
    let [first, second] = ["first", "second"].map(|name| made(name, &[&shared]));
    announce_instruction(&state, &instruction(RUN, NODE, &first), &first).await;
    put(&state, first.objects.last().unwrap()).await;
    let waiter = subscribe(&state, Topic::Node(NODE));
    put(&state, &shared.objects[0]).await;
    woken(waiter).await;

    state
        .announce(RUN, std::slice::from_ref(&second.tree))
        .await
        .unwrap();
    put_all(&state, &second).await;
    let waiter = subscribe(&state, Topic::Node(NODE));
    announce_instruction(&state, &instruction(RUN, NODE, &second), &second).await;
    woken(waiter).await;

    // Announced on its own, after it.
    let late = content("late");
    let message = vec![instruction(RUN, NODE, &late)];
    let stored = state.store_instructions(RUN, message, vec![], at(0.0));
    stored.await.unwrap();
    state
        .announce(RUN, std::slice::from_ref(&late.tree))
        .await
        .unwrap();
    let waiter = subscribe(&state, Topic::Node(NODE));
    put_all(&state, &late).await;
    woken(waiter).await;

    // Each receiver of a broadcast, by the one object they share.
    let shared = made("more", &[]);
    let roots: Vec<Made> = (0..3)
        .map(|i| made(&format!("to {i}"), &[&shared]))
        .collect();
    let mut waiters = Vec::new();
    for (id, root) in (10..).map(NodeId).zip(&roots) {
        join(&state, id).await;
        announce_instruction(&state, &instruction(RUN, id, root), root).await;
        put(&state, root.objects.last().unwrap()).await;
        waiters.push(subscribe(&state, Topic::Node(id)));
    }
    put(&state, &shared.objects[0]).await;
    for waiter in waiters {
        woken(waiter).await;
    }
}

/// What was stored before is handed out from then on.
pub async fn nodes_wake_when_their_run_is_running<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    join(&state, NODE).await;
    state.create_run(new_run(RUN), at(0.0)).await.unwrap();
    instruct(&state, &content("early")).await;
    shift(&state, RUN, RunStatus::of(Phase::Starting), 0.0).await;
    let waiter = subscribe(&state, Topic::Node(NODE));
    shift(&state, RUN, RunStatus::of(Phase::Running), 0.0).await;
    woken(waiter).await;
}

/// 155: with its last object, or at once if they were all there.
pub async fn runs_wake_when_a_reply_is_complete<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let message = instruct(&state, &content("work")).await;
    let root = content("answer");
    let trees = vec![root.tree.clone()];
    let stored = state.store_reply(reply(&message, &root), trees, Ok(()), at(0.0));
    stored.await.unwrap();
    let (last, others) = root.objects.split_first().unwrap();
    for object in others {
        put(&state, object).await;
    }
    let waiter = subscribe(&state, Topic::Run(RUN));
    put(&state, last).await;
    woken(waiter).await;

    let message = instruct(&state, &content("again")).await;
    let root = content("another answer");
    state
        .announce(RUN, std::slice::from_ref(&root.tree))
        .await
        .unwrap();
    put_all(&state, &root).await;
    let waiter = subscribe(&state, Topic::Run(RUN));
    answer(&state, &message, &root).await;
    woken(waiter).await;
}

/// 46: it is unknown from then on.
pub async fn runs_wake_when_an_instruction_is_dropped<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let message = vec![instruction(RUN, NODE, &content("bare"))];
    let stored = state.store_instructions(RUN, message, vec![], at(0.0));
    stored.await.unwrap();
    let waiter = subscribe(&state, Topic::Run(RUN));
    assert_eq!(state.deliver(NODE, at(0.0)).await.unwrap(), None);
    woken(waiter).await;
}

/// 92: deleted, replaced or swept. The node's own call wakes too.
pub async fn runs_wake_when_a_node_goes<S: LinkState>(new: impl AsyncFn() -> S) {
    for how in ["delete", "replace", "sweep"] {
        let state = new().await;
        federation(&state).await;
        let id = NodeId(10);
        let keyed = |id, interval| NewNode {
            key: Some(key("k")),
            heartbeat_interval: interval,
            ..new_node(id)
        };
        state.create_node(keyed(id, 1.0), at(0.0)).await.unwrap();
        state.node_of_key(&key("k")).await.unwrap();
        let root = content("work");
        announce_instruction(&state, &instruction(RUN, id, &root), &root).await;
        put_all(&state, &root).await;
        state.deliver(id, at(0.0)).await.unwrap().unwrap();
        confirm(&state, &root).await;
        let waiters = [Topic::Run(RUN), Topic::Node(id)].map(|topic| subscribe(&state, topic));
        match how {
            "delete" => assert!(state.delete_node(id).await.unwrap()),
            "replace" => {
                let next = keyed(NodeId(11), 1.0);
                state.create_node(next, at(5.0)).await.unwrap();
            }
            _ => assert_eq!(state.sweep_nodes(at(5.0)).await.unwrap(), [id]),
        }
        assert!(!state.has_node(id).await.unwrap(), "{how}");
        for waiter in waiters {
            woken(waiter).await;
        }
    }
}

/// 153: moved by somebody, or lost.
pub async fn runs_and_logs_wake_when_a_status_changes<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    let topics = |run| [Topic::Run(run), Topic::Log(run)];
    let statuses = [
        RunStatus::of(Phase::Starting),
        RunStatus::of(Phase::Running),
        stopped(),
    ];
    state.create_run(new_run(RUN), at(0.0)).await.unwrap();
    for status in statuses {
        let waiters = topics(RUN).map(|topic| subscribe(&state, topic));
        shift(&state, RUN, status, 0.0).await;
        for waiter in waiters {
            woken(waiter).await;
        }
    }
    let lost = RunId(2);
    state.create_run(new_run(lost), at(0.0)).await.unwrap();
    shift(&state, lost, RunStatus::of(Phase::Starting), 0.0).await;
    let waiters = topics(lost).map(|topic| subscribe(&state, topic));
    let end = state.next_lease_end().await.unwrap().unwrap();
    state.run_status(RUN, end).await.unwrap();
    state.runs(end).await.unwrap();
    for waiter in waiters {
        woken(waiter).await;
    }
}

/// A held fetch goes on when the bytes come, and ends when they cannot come any more.
pub async fn objects_wake_when_they_come_and_go<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let root = content("work");
    let message = instruction(RUN, NODE, &root);
    announce_instruction(&state, &message, &root).await;
    for object in &root.objects {
        let waiter = subscribe(&state, Topic::Object(object.0));
        put(&state, object).await;
        woken(waiter).await;
    }
    let waiters: Vec<_> = root.ids().into_iter().map(Topic::Object).collect();
    let waiters: Vec<_> = waiters
        .into_iter()
        .map(|topic| subscribe(&state, topic))
        .collect();
    confirm(&state, &root).await;
    for waiter in waiters {
        woken(waiter).await;
    }
    let half = content("half");
    state
        .announce(RUN, std::slice::from_ref(&half.tree))
        .await
        .unwrap();
    let waiter = subscribe(&state, Topic::Object(half.objects[0].0));
    shift(&state, RUN, stopped(), 0.0).await;
    woken(waiter).await;
}

/// 157.
pub async fn launchers_wake_when_a_run_is_submitted<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    let waiter = subscribe(&state, Topic::Launch);
    state.create_run(new_run(RUN), at(0.0)).await.unwrap();
    woken(waiter).await;
}

/// 131.
pub async fn logs_wake_when_they_grow<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    state.create_run(new_run(RUN), at(0.0)).await.unwrap();
    let waiter = subscribe(&state, Topic::Log(RUN));
    state.append_log(RUN, "text".into(), at(0.0)).await.unwrap();
    woken(waiter).await;
}

fn subscribe(state: &impl LinkState, topic: Topic) -> Subscription {
    state.wakeups().subscribe(topic)
}

/// Fails if nothing comes, though a wakeup may have a way to go.
async fn woken(mut waiter: Subscription) {
    let woken = tokio::time::timeout(Duration::from_secs(10), waiter.changed()).await;
    assert!(woken.is_ok(), "{waiter:?} is not woken");
}
