//! Nodes that join, come back and pretend.

use flwr_api::fleet::{self, FleetService};
use flwr_api::{NodeId, Reason};
use flwr_transport::{Code, Context, Presence};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, advance};

use crate::world::World;

#[tokio::test(start_paused = true)]
async fn a_key_is_one_node() {
    let world = World::new();
    let node = world.join(1, 30.0).await;
    // A repeated request, because its answer was lost, is the same node.
    assert_eq!(world.join(1, 30.0).await, node);
    let beat = fleet::Heartbeat {
        node,
        heartbeat_interval: 30.0,
    };
    assert!(
        world
            .fleet
            .heartbeat(&world.by_node(1), beat.clone())
            .await
            .unwrap()
    );
    let again = fleet::CreateNode {
        heartbeat_interval: 30.0,
    };
    let refused = world
        .fleet
        .create_node(&world.by_node(1), again)
        .await
        .unwrap_err();
    assert_eq!(Reason::of(&refused), Some(Reason::KeyInUse));

    // After a crash its owner is let in again, as another node.
    advance(Duration::from_secs(61)).await;
    let after = world.join(1, 30.0).await;
    assert_ne!(after, node);
    let refused = world
        .fleet
        .heartbeat(&world.by_node(1), beat)
        .await
        .unwrap_err();
    assert_eq!(Reason::of(&refused), Some(Reason::NodeMismatch));
}

#[tokio::test(start_paused = true)]
async fn nobody_speaks_for_another_node() {
    let world = World::new();
    let (one, _two) = (world.join(1, 30.0).await, world.join(2, 30.0).await);
    for (context, code) in [
        (world.by_node(2), Code::Unauthenticated),
        (world.by_node(3), Code::Unauthenticated),
        (world.by_app(), Code::Unauthenticated),
    ] {
        let call = fleet::PullMessages {
            node: one,
            wait: Duration::from_secs(25),
        };
        let refused = world.fleet.pull_messages(&context, call).await.unwrap_err();
        assert_eq!(refused.code, code);
        let call = fleet::DeleteNode { node: one };
        assert!(world.fleet.delete_node(&context, call).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_in_another_nodes_name_is_not_stored() {
    let world = World::new();
    let run = world.running().await;
    let (one, two) = (world.join(1, 30.0).await, world.join(2, 30.0).await);
    let letter = world.instruct(run, one, "m").await;
    let asked = letter.id();
    let forged = world.letter(run, one, NodeId::SUPERLINK, asked.as_str(), "forged");
    let call = fleet::PushMessages {
        node: two,
        message: Some(forged.message),
        trees: vec![],
    };
    let pushed = world
        .fleet
        .push_messages(&world.by_node(2), call)
        .await
        .unwrap();
    assert_eq!(pushed.stored, None);
}

/// A connection that is silent whenever it is told to be.
fn heard(context: &Context, silent: &Arc<AtomicU64>) -> Context {
    let silent = Arc::clone(silent);
    let seconds = move || Duration::from_secs(silent.load(Ordering::Relaxed));
    Context {
        presence: Some(Presence::new(seconds)),
        ..context.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_is_online_while_its_connection_shows_signs_of_life() {
    let world = World::new();
    let node = world.join(1, 30.0).await;
    let silent = Arc::new(AtomicU64::new(0));
    let context = heard(&world.by_node(1), &silent);
    let attend = fleet::Attend {
        node,
        heartbeat_interval: 30.0,
        wait: Duration::from_secs(3600),
    };
    let fleet = Arc::clone(&world.fleet);
    let call = attend.clone();
    let held = tokio::spawn(async move { fleet.attend(&context, call).await });
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert_eq!(world.nodes().await, [node]);

    // What was heard last counts, not when it was looked at.
    silent.store(40, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(16)).await;
    assert_eq!(world.nodes().await, [node]);
    silent.store(61, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(world.nodes().await, []);
    silent.store(1, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(world.nodes().await, [node]);

    // A connection that is gone ends the call, and then nothing counts any more.
    held.abort();
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(world.nodes().await, []);
}

#[tokio::test(start_paused = true)]
async fn attendance_ends_with_the_wait_and_with_the_node() {
    let world = World::new();
    let node = world.join(1, 30.0).await;
    let silent = Arc::new(AtomicU64::new(0));
    let context = heard(&world.by_node(1), &silent);
    let attend = |wait| fleet::Attend {
        node,
        heartbeat_interval: 30.0,
        wait: Duration::from_secs(wait),
    };
    let start = Instant::now();
    assert!(world.fleet.attend(&context, attend(40)).await.unwrap());
    assert_eq!(start.elapsed().as_secs(), 40);

    let stranger = heard(&world.by_node(2), &silent);
    let refused = world.fleet.attend(&stranger, attend(40)).await.unwrap_err();
    assert_eq!(Reason::of(&refused), Some(Reason::NodeMismatch));
    let unheard = world.fleet.attend(&world.by_node(1), attend(40)).await;
    assert_eq!(unheard.unwrap_err().code, Code::Unimplemented);

    let leaving = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        let leave = fleet::DeleteNode { node };
        world
            .fleet
            .delete_node(&world.by_node(1), leave)
            .await
            .unwrap();
    };
    let (attended, ()) = tokio::join!(world.fleet.attend(&context, attend(400)), leaving);
    // Its key belongs to nobody then.
    assert_eq!(
        Reason::of(&attended.unwrap_err()),
        Some(Reason::NodeMismatch)
    );
    assert_eq!(start.elapsed().as_secs(), 70);
}
