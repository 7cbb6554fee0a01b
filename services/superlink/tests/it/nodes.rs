//! Nodes that join, come back and pretend.

use flwr_api::fleet::{self, FleetService};
use flwr_api::{NodeId, Reason};
use flwr_transport::Code;
use std::time::Duration;
use tokio::time::advance;

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
