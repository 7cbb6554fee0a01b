//! A SuperNode that is killed with work in hand, and started again.

use std::time::Duration;

use flwr_api::appio::AppContext;
use flwr_api::fleet::{DeleteNode, FleetService, Request};
use flwr_api::{AppError, MessageId, NodeId, Payload, RunId};
use flwr_state::journal::NoteName;

use crate::world::{World, parts};

/// Larger than what is worth going on with, and than one read of a file.
const LARGE: usize = 300_000;

/// Where the upload is when the node is killed.
const BREAK: usize = 270_000;

/// A node that was killed while its reply was on the way.
struct Killed {
    world: World,
    node: NodeId,
    run: RunId,
    asked: MessageId,
    reply_bytes: u64,
}

impl Killed {
    async fn new() -> Self {
        let mut world = World::new().await;
        let (node, running) = world.join().await;
        let run = world.running().await;
        let asked = world.instruct(run, node, "a", "model").await;
        let app = world.launch(run).await;
        world.inputs(&app).await.unwrap();
        let instruction = world.pull(&app).await;
        let before = world.calls.moved();
        let answer = "x".repeat(LARGE);
        // Both of its objects are under way at once.
        world.calls.stall("PushObject", BREAK);
        world.calls.stall("PushObject", BREAK);
        for part in world.announce(&app, &instruction, &answer).await.unwrap() {
            assert!(world.push(&app, run, part).await);
        }
        while world.calls.moved() - before < 2 * BREAK as u64 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        world.kill(running);
        let parts = parts(&answer, &answer);
        Self {
            world,
            node,
            run,
            asked,
            reply_bytes: parts.iter().map(|part| part.1.len() as u64).sum(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_on_its_way_is_delivered_from_where_it_was_and_no_app_works_again() {
    let Killed {
        mut world,
        node,
        run,
        asked,
        reply_bytes,
    } = Killed::new().await;
    assert_eq!(world.other_notes().await, 1);
    let _running = world.restart().await;
    let reply = world.reply(run, &asked).await.message;
    assert!(matches!(reply.payload, Payload::Content(_)), "{reply:?}");
    assert_eq!(reply.metadata.reply_to, asked);
    assert_eq!(world.calls.moved(), reply_bytes - 2 * BREAK as u64);
    let joined = |call: &Request| matches!(call, Request::CreateNode(_));
    assert_eq!(world.calls.count(joined), 0);
    assert_eq!(world.launchable().await, []);
    assert_eq!(world.nodes().await, [node]);
    assert_eq!(world.other_notes().await, 0);
    // It goes on as ever.
    let asked = world.instruct(run, node, "b", "model").await;
    world.play(&world.launch(run).await, "answer", "").await;
    world.reply(run, &asked).await;
}

#[tokio::test(start_paused = true)]
async fn an_instruction_whose_app_was_at_work_is_worked_on_again_with_the_context_before_it() {
    let mut world = World::new().await;
    let (node, mut running) = world.join().await;
    let run = world.running().await;
    world.instruct(run, node, "first", "model").await;
    world.play(&world.launch(run).await, "one", "state").await;
    let asked = world.instruct(run, node, "second", "model").await;
    for _ in 0..2 {
        world.pull(&world.launch(run).await).await;
        world.kill(running);
        running = world.restart().await;
    }
    let app = world.launch(run).await;
    let inputs = world.inputs(&app).await.unwrap();
    assert_eq!(inputs.context, AppContext::Kept("state".into()));
    world.play(&app, "two", "more state").await;
    let reply = world.reply(run, &asked).await.message;
    assert!(matches!(reply.payload, Payload::Content(_)), "{reply:?}");
    assert_eq!(world.nodes().await, [node]);
    let joined = |call: &Request| matches!(call, Request::CreateNode(_));
    assert_eq!(world.calls.count(joined), 0);
}

#[tokio::test(start_paused = true)]
async fn an_instruction_that_ends_its_node_again_and_again_is_given_up() {
    let mut world = World::new().await;
    let (node, mut running) = world.join().await;
    let run = world.running().await;
    let asked = world.instruct(run, node, "a", "model").await;
    for _ in 0..4 {
        world.pull(&world.launch(run).await).await;
        world.kill(running);
        running = world.restart().await;
    }
    let Payload::Error(error) = world.reply(run, &asked).await.message.payload else {
        panic!("nobody has worked on it");
    };
    assert_eq!(error.code, AppError::APP_RAISED);
    assert!(error.reason.unwrap().contains("restarted"));
    assert_eq!(world.nodes().await, [node]);
}

#[tokio::test(start_paused = true)]
async fn an_instruction_whose_objects_are_gone_is_answered_for() {
    let mut world = World::new().await;
    let (node, running) = world.join().await;
    let run = world.running().await;
    let asked = world.instruct(run, node, "a", "model").await;
    world.pull(&world.launch(run).await).await;
    world.kill(running);
    world.lose_objects();
    let _running = world.restart().await;
    let Payload::Error(error) = world.reply(run, &asked).await.message.payload else {
        panic!("nobody has worked on it");
    };
    assert_eq!(error.code, AppError::MESSAGE_UNAVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn a_node_with_nothing_in_hand_is_the_same_after_a_restart() {
    let mut world = World::new().await;
    let (node, running) = world.join().await;
    let run = world.running().await;
    world.instruct(run, node, "first", "model").await;
    world.play(&world.launch(run).await, "one", "state").await;
    world.kill(running);
    let _running = world.restart().await;
    world.instruct(run, node, "second", "model").await;
    let inputs = world.inputs(&world.launch(run).await).await.unwrap();
    assert_eq!(inputs.context, AppContext::Kept("state".into()));
    assert_eq!(world.nodes().await, [node]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_the_superlink_has_forgotten_drops_what_it_had_in_hand() {
    let Killed {
        mut world, node, ..
    } = Killed::new().await;
    let call = DeleteNode { node };
    let left = world.fleet.delete_node(&world.by_key(), call).await;
    left.unwrap();
    let _running = world.restart().await;
    while world.nodes().await.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_ne!(world.nodes().await, [node]);
    assert_eq!(world.other_notes().await, 0);
    let pushed = |call: &Request| matches!(call, Request::PushMessages(_));
    assert_eq!(world.calls.count(pushed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_reply_whose_objects_are_gone_is_answered_for() {
    let Killed {
        mut world,
        run,
        asked,
        ..
    } = Killed::new().await;
    world.lose_objects();
    let _running = world.restart().await;
    let Payload::Error(error) = world.reply(run, &asked).await.message.payload else {
        panic!("its objects are gone");
    };
    assert_eq!(error.code, AppError::REPLY_MESSAGE_UNAVAILABLE);
    while world.other_notes().await > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn notes_that_nobody_understands_are_skipped() {
    let world = World::new().await;
    for garbage in [&b""[..], b"garbage", &[0xff; 100]] {
        let name = NoteName::of(garbage);
        world.journal().put(name, garbage.to_vec()).await.unwrap();
    }
    world.join().await;
    assert_eq!(world.other_notes().await, 0);
}
