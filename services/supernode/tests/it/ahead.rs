//! Objects that come here while others of their instruction are still being uploaded.

use std::time::Duration;

use flwr_api::fleet::Request;
use flwr_api::{NodeId, ObjectId, RunId};
use tokio::time::sleep;

use crate::world::{World, parts};

/// Longer than a node waits before it fetches ahead, shorter than the wait for an object.
const MOMENT: Duration = Duration::from_secs(1);

async fn world() -> (World, NodeId, RunId) {
    let world = World::new().await;
    let (node, running) = world.join().await;
    // It is aborted with the runtime.
    drop(running);
    let run = world.running().await;
    (world, node, run)
}

fn pulls(world: &World, object: ObjectId) -> usize {
    world
        .calls
        .count(|call| matches!(call, Request::PullObject(pull) if pull.object == object))
}

/// The bytes that came to the node, so far.
async fn came(world: &World) -> u64 {
    sleep(MOMENT).await;
    world.calls.moved()
}

#[tokio::test(start_paused = true)]
async fn what_is_uploaded_comes_while_the_rest_is_on_its_way() {
    let (world, node, run) = world().await;
    let [leaf, root] = parts("a", "model");
    let (leaf_bytes, root_bytes) = (leaf.1.len() as u64, root.1.len() as u64);
    let asked = world.say(run, node, "a", "model").await;
    assert_eq!(came(&world).await, 0);
    world.upload(run, leaf).await;
    assert_eq!(came(&world).await, leaf_bytes);
    assert_eq!(world.launchable().await, [], "it is not whole");
    world.upload(run, root).await;
    world.play(&world.launch(run).await, "answer", "").await;
    assert_eq!(
        world.reply(run, &asked).await.message.metadata.reply_to,
        asked
    );
    let answer: u64 = parts("answer", "answer")
        .iter()
        .map(|(_, bytes)| bytes.len() as u64)
        .sum();
    assert_eq!(
        world.calls.moved(),
        leaf_bytes + root_bytes + answer,
        "all came once"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_whole_soon_is_left_to_be_handed_out() {
    let (world, node, run) = world().await;
    let [leaf, root] = parts("a", "model");
    world.say(run, node, "a", "model").await;
    let id = leaf.0;
    world.upload(run, leaf).await;
    sleep(Duration::from_millis(200)).await;
    assert_eq!(pulls(&world, id), 0, "it is not told of yet");
    world.upload(run, root).await;
    world.play(&world.launch(run).await, "answer", "").await;
    sleep(MOMENT).await;
    assert_eq!(pulls(&world, id), 1);
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_has_stalled_holds_nothing_up() {
    let (world, node, run) = world().await;
    for name in ["a", "b", "c", "d", "e", "f"] {
        world.say(run, node, name, name).await;
    }
    sleep(MOMENT).await;
    let other = world.running().await;
    let asked = world.instruct(other, node, "g", "g").await;
    world.play(&world.launch(other).await, "answer", "").await;
    assert_eq!(
        world.reply(other, &asked).await.message.metadata.reply_to,
        asked
    );
}

#[tokio::test(start_paused = true)]
async fn uploads_that_have_stalled_leave_room_to_others_in_the_end() {
    let (world, node, run) = world().await;
    for name in ["a", "b", "c", "d"] {
        world.say(run, node, name, name).await;
        sleep(MOMENT).await;
    }
    let [leaf, _] = parts("e", "model");
    let bytes = leaf.1.len() as u64;
    world.say(run, node, "e", "model").await;
    world.upload(run, leaf).await;
    assert_eq!(came(&world).await, 0);
    for _ in 0..=120 {
        world.beat(run).await;
        sleep(Duration::from_secs(30)).await;
    }
    assert_eq!(came(&world).await, bytes);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ends_is_fetched_no_longer() {
    let (world, node, run) = world().await;
    world.say(run, node, "a", "model").await;
    sleep(MOMENT).await;
    world.stop(run).await;
    sleep(Duration::from_secs(60)).await;
    let before = world
        .calls
        .count(|call| matches!(call, Request::PullObject(_)));
    sleep(Duration::from_secs(3600)).await;
    let after = world
        .calls
        .count(|call| matches!(call, Request::PullObject(_)));
    assert_eq!(after, before);
}

#[tokio::test(start_paused = true)]
async fn a_superlink_that_does_not_tell_is_asked_seldom() {
    let world = World::new().await;
    world.calls.forget_own_calls();
    let (node, _running) = world.join().await;
    let run = world.running().await;
    sleep(Duration::from_secs(600)).await;
    let asked = world
        .calls
        .count(|call| matches!(call, Request::GetAnnounced(_)));
    assert!((1..=11).contains(&asked), "{asked}");
    let asked = world.instruct(run, node, "a", "model").await;
    world.play(&world.launch(run).await, "answer", "").await;
    world.reply(run, &asked).await;
}
