//! Objects between SuperLink, SuperNode and apps.

use std::time::Duration;

use flwr_api::appio::{AppIoService, PullObject};
use flwr_api::fleet::{ObjectState, Parcel, Request};
use flwr_api::{AppError, NodeId, Payload};

use crate::world::{AtWork, World, parts};

#[tokio::test(start_paused = true)]
async fn test_116_what_is_here_is_not_fetched_again_and_the_app_once_per_run() {
    let world = World::new().await;
    let (node, _running) = world.join().await;
    let run = world.running().await;
    for name in ["a", "b", "c"] {
        let asked = world.instruct(run, node, name, "frozen layers").await;
        let answer = format!("answer to {name}");
        world.play(&world.launch(run).await, &answer, "").await;
        world.reply(run, &asked).await;
    }
    let (frozen, _) = parts("a", "frozen layers")[0];
    let pulled =
        |call: &Request| matches!(call, Request::PullObject(pull) if pull.object == frozen);
    assert_eq!(world.calls.count(pulled), 1);
    assert_eq!(
        world
            .calls
            .count(|call| matches!(call, Request::PullObject(_))),
        4
    );
    assert_eq!(
        world.calls.count(|call| matches!(call, Request::GetFab(_))),
        1
    );
    let asked_by_work = |call: &Request| matches!(call, Request::GetRun(_));
    assert_eq!(world.calls.count(asked_by_work), 1);
}

#[tokio::test(start_paused = true)]
async fn small_objects_travel_with_their_message() {
    let world = World::new().await;
    world.calls.take_parcels();
    let (node, _running) = world.join().await;
    let run = world.running().await;
    let large = "x".repeat(usize::try_from(Parcel::OBJECT_BYTES_MAX).unwrap());
    // Too large are: nothing, a part of the instruction, and both parts of the reply.
    for (name, content, reply, alone) in [
        ("a", "small", "answer", 0),
        ("b", large.as_str(), "another answer", 1),
        ("c", "small", large.as_str(), 3),
    ] {
        let asked = world.instruct(run, node, name, content).await;
        world.play(&world.launch(run).await, reply, "").await;
        let answered = world.reply(run, &asked).await;
        assert_eq!(answered.message.metadata.reply_to, asked);
        let moved =
            |call: &Request| matches!(call, Request::PullObject(_) | Request::PushObject(_));
        assert_eq!(world.calls.count(moved), alone);
    }
    let announced = |call: &Request| matches!(call, Request::PushMessages(_));
    assert_eq!(world.calls.count(announced), 0);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_fetched_is_answered_for() {
    for broken in ["GetRun", "GetFab", "PullObject"] {
        let world = World::new().await;
        let (node, _running) = world.join().await;
        let run = world.running().await;
        world.calls.break_for_good(broken);
        let asked = world.instruct(run, node, "a", "model").await;
        let Payload::Error(error) = world.reply(run, &asked).await.message.payload else {
            panic!("{broken} failed and the instruction was worked on");
        };
        assert_eq!(error.code, AppError::MESSAGE_UNAVAILABLE, "{broken}");
        let reason = error.reason.unwrap();
        assert!(reason.contains("out of order"), "{broken}: {reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_confirmed_is_worked_on_once() {
    let world = World::new().await;
    let (node, _running) = world.join().await;
    let run = world.running().await;
    world.calls.break_for_good("ConfirmMessage");
    let asked = world.instruct(run, node, "a", "model").await;
    world.play(&world.launch(run).await, "answer", "").await;
    let reply = world.reply(run, &asked).await.message;
    assert!(matches!(reply.payload, Payload::Content(_)), "{reply:?}");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.launchable().await, []);
}

#[tokio::test(start_paused = true)]
async fn test_114_115_a_reply_waits_for_its_last_object() {
    let AtWork {
        world,
        run,
        asked,
        app,
        instruction,
        ..
    } = AtWork::new().await;
    let mut missing = world.announce(&app, &instruction, "answer").await.unwrap();
    assert_eq!(missing.len(), 2);
    let last = missing.pop().unwrap();
    assert!(world.push(&app, run, missing.pop().unwrap()).await);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let pushed = |call: &Request| matches!(call, Request::PushMessages(_));
    assert_eq!(world.calls.count(pushed), 0);
    assert!(world.push(&app, run, last).await);
    assert_eq!(
        world.reply(run, &asked).await.message.metadata.reply_to,
        asked
    );
    world.finish(&app, "").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn objects_are_checked_and_only_taken_if_announced() {
    let AtWork {
        world,
        run,
        app,
        instruction,
        ..
    } = AtWork::new().await;
    let [stranger, _] = parts("x", "never announced");
    assert!(!world.push(&app, run, stranger.clone()).await);
    let missing = world.announce(&app, &instruction, "answer").await.unwrap();
    assert!(!world.push(&app, run, (missing[0].0, stranger.1)).await);
    assert!(world.push(&app, run, missing[0].clone()).await);
    assert!(world.push(&app, run, missing[0].clone()).await);
}

#[tokio::test(start_paused = true)]
async fn apps_see_the_objects_of_their_own_run_only() {
    let world = World::new().await;
    let (node, _running) = world.join().await;
    let (run, other) = (world.running().await, world.running().await);
    world.instruct(run, node, "a", "secret").await;
    let app = world.launch(run).await;
    let instruction = world.pull(&app).await;
    let missing = world.announce(&app, &instruction, "answer").await.unwrap();
    let (secret, _) = parts("a", "secret")[0];
    let announced = missing[0].0;
    for (run, object, expected) in [
        (run, secret, ObjectState::Available),
        (run, announced, ObjectState::Pending),
        (other, secret, ObjectState::Unknown),
        (other, announced, ObjectState::Unknown),
    ] {
        let call = PullObject {
            node: NodeId(0),
            run,
            object,
            wait: Duration::ZERO,
        };
        let (state, body) = world.apps.pull_object(&app, call).await.unwrap();
        assert_eq!(state, expected);
        assert_eq!(body.is_some(), state == ObjectState::Available);
    }
}
