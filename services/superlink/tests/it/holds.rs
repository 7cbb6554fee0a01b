//! Calls that wait, and what ends their wait.

use std::sync::Arc;
use std::time::Duration;

use flwr_api::appio::{self, AppIoService};
use flwr_api::fleet::{self, FleetService, ObjectState};
use flwr_api::{Delivery, MessageId, NodeId, Payload, Reason, RunId};
use flwr_transport::Status;
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance};

use crate::world::World;

const WAIT: Duration = Duration::from_secs(25);

fn pull(world: &World, key: u8, node: NodeId) -> JoinHandle<Result<Option<Delivery>, Status>> {
    let (fleet, context) = (Arc::clone(&world.fleet), world.by_node(key));
    tokio::spawn(async move {
        fleet
            .pull_messages(&context, fleet::PullMessages { node, wait: WAIT })
            .await
    })
}

fn gather(
    world: &World,
    run: RunId,
    instructions: Vec<MessageId>,
) -> JoinHandle<Result<Vec<Delivery>, Status>> {
    let (appio, context) = (Arc::clone(&world.appio), world.by_app());
    let call = appio::PullMessages {
        run,
        instructions,
        wait: Duration::from_secs(10),
        linger: Duration::from_secs(1),
    };
    tokio::spawn(async move { appio.pull_messages(&context, call).await })
}

/// Lets spawned calls reach their wait.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_instruction_ends_the_wait_when_it_is_complete_and_not_before() {
    let world = World::new();
    let (node, run) = (world.join(1, 30.0).await, world.running().await);
    let held = pull(&world, 1, node);
    settle().await;
    let start = Instant::now();
    let letter = world.letter(run, NodeId::SUPERLINK, node, "", "m");
    world.announce_instruction(&letter).await;
    advance(Duration::from_secs(3)).await;
    settle().await;
    assert!(!held.is_finished());
    world.push_instruction_object(&letter).await;
    let delivery = held.await.unwrap().unwrap().unwrap();
    assert_eq!(delivery.message.metadata.id, letter.id());
    assert!(start.elapsed() < Duration::from_millis(3_050));
}

#[tokio::test(start_paused = true)]
async fn an_empty_wait_ends_in_time() {
    let world = World::new();
    let node = world.join(1, 30.0).await;
    let start = Instant::now();
    assert_eq!(pull(&world, 1, node).await.unwrap().unwrap(), None);
    assert!((WAIT..WAIT + Duration::from_millis(50)).contains(&start.elapsed()));
}

#[tokio::test(start_paused = true)]
async fn a_second_pull_releases_the_first() {
    let world = World::new();
    let (node, run) = (world.join(1, 30.0).await, world.running().await);
    let first = pull(&world, 1, node);
    settle().await;
    let second = pull(&world, 1, node);
    let start = Instant::now();
    assert_eq!(first.await.unwrap().unwrap(), None);
    assert!(start.elapsed() < Duration::from_millis(50));
    let letter = world.instruct(run, node, "m").await;
    let delivery = second.await.unwrap().unwrap().unwrap();
    assert_eq!(delivery.message.metadata.id, letter.id());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_takes_nothing_with_it() {
    let world = World::new();
    let (node, run) = (world.join(1, 30.0).await, world.running().await);
    let held = pull(&world, 1, node);
    settle().await;
    held.abort();
    let letter = world.instruct(run, node, "m").await;
    for _ in 0..2 {
        // Not confirmed, so it is offered again.
        let delivery = pull(&world, 1, node).await.unwrap().unwrap().unwrap();
        assert_eq!(delivery.message.metadata.id, letter.id());
    }
    let confirm = fleet::ConfirmMessage {
        node,
        run,
        message: letter.root,
    };
    world
        .fleet
        .confirm_message(&world.by_node(1), confirm)
        .await
        .unwrap();
    assert_eq!(pull(&world, 1, node).await.unwrap().unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn leaving_and_draining_release_what_is_held() {
    let world = World::new();
    let (one, two) = (world.join(1, 30.0).await, world.join(2, 30.0).await);
    let (first, second) = (pull(&world, 1, one), pull(&world, 2, two));
    settle().await;
    let start = Instant::now();
    let call = fleet::DeleteNode { node: one };
    world
        .fleet
        .delete_node(&world.by_node(1), call)
        .await
        .unwrap();
    assert_eq!(first.await.unwrap().unwrap(), None);
    world.drain.begin();
    assert_eq!(second.await.unwrap().unwrap(), None);
    assert!(start.elapsed() < Duration::from_millis(50));
}

#[tokio::test(start_paused = true)]
async fn replies_come_at_once_when_all_are_there() {
    let world = World::new();
    let run = world.running().await;
    let (one, two) = (world.join(1, 30.0).await, world.join(2, 30.0).await);
    let (a, b) = (
        world.instruct(run, one, "a").await,
        world.instruct(run, two, "b").await,
    );
    let held = gather(&world, run, vec![a.id(), b.id()]);
    settle().await;
    let start = Instant::now();
    let to_a = world.reply(1, &a, "to a").await;
    advance(Duration::from_millis(300)).await;
    let to_b = world.reply(2, &b, "to b").await;
    let replies = held.await.unwrap().unwrap();
    let ids: Vec<_> = replies
        .iter()
        .map(|r| r.message.metadata.id.clone())
        .collect();
    assert_eq!(ids, [to_a.id(), to_b.id()]);
    assert!(start.elapsed() < Duration::from_millis(350));
}

#[tokio::test(start_paused = true)]
async fn some_replies_are_not_kept_long() {
    let world = World::new();
    let run = world.running().await;
    let node = world.join(1, 60.0).await;
    let (a, b) = (
        world.instruct(run, node, "a").await,
        world.instruct(run, node, "b").await,
    );
    let held = gather(&world, run, vec![a.id(), b.id()]);
    settle().await;
    world.reply(1, &a, "to a").await;
    let start = Instant::now();
    assert_eq!(held.await.unwrap().unwrap().len(), 1);
    assert!(
        (900..1_100).contains(&start.elapsed().as_millis()),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_stopped_run_ends_the_wait_with_its_reason() {
    let world = World::new();
    let (node, run) = (world.join(1, 30.0).await, world.running().await);
    let letter = world.instruct(run, node, "m").await;
    let held = gather(&world, run, vec![letter.id()]);
    settle().await;
    world.stop(run).await;
    let refused = held.await.unwrap().unwrap_err();
    assert_eq!(Reason::of(&refused), Some(Reason::RunStopped));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_goes_offline_ends_the_wait_with_an_error_reply() {
    let world = World::new();
    let (node, run) = (world.join(1, 3.0).await, world.running().await);
    let letter = world.instruct(run, node, "m").await;
    let start = Instant::now();
    let replies = gather(&world, run, vec![letter.id()])
        .await
        .unwrap()
        .unwrap();
    let Payload::Error(error) = &replies[0].message.payload else {
        panic!("{replies:?}");
    };
    assert_eq!(error.code, 5);
    assert!(
        (2_900..3_100).contains(&start.elapsed().as_millis()),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn an_announced_object_is_waited_for() {
    let world = World::new();
    let (node, run) = (world.join(1, 30.0).await, world.running().await);
    let letter = world.letter(run, NodeId::SUPERLINK, node, "", "m");
    world.announce_instruction(&letter).await;
    let (fleet, context) = (Arc::clone(&world.fleet), world.by_node(1));
    let call = fleet::PullObject {
        node,
        run,
        object: letter.root,
        wait: Duration::from_secs(10),
    };
    let again = call.clone();
    let held = tokio::spawn(async move { fleet.pull_object(&context, call).await });
    settle().await;
    assert!(!held.is_finished());
    world.push_instruction_object(&letter).await;
    let (state, body) = held.await.unwrap().unwrap();
    assert_eq!(state, ObjectState::Available);
    assert_eq!(body.unwrap().collect(1_000).await.unwrap(), letter.object);

    world.stop(run).await;
    let refused = world
        .fleet
        .pull_object(&world.by_node(1), again)
        .await
        .unwrap_err();
    assert_eq!(Reason::of(&refused), Some(Reason::RunStopped));
}
