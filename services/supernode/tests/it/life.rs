//! Joining, staying online, and leaving.

use std::time::Duration;

use flwr_api::fleet::{CreateNode, DeleteNode, FleetService, Request};
use flwr_supernode::{Config, Ended};
use tokio::time::Instant;

use crate::world::World;

#[tokio::test(start_paused = true)]
async fn test_119_the_first_heartbeat_comes_at_once_and_the_others_in_flowers_rhythm() {
    let world = World::new().await;
    let (_node, _running) = world.join().await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let calls = world.calls.all();
    let joined = calls.iter().find_map(|(at, call)| match call {
        Request::CreateNode(call) => Some((*at, call.heartbeat_interval)),
        _ => None,
    });
    let (joined, interval) = joined.unwrap();
    let beats: Vec<Instant> = calls
        .iter()
        .filter_map(|(at, call)| match call {
            Request::Heartbeat(call) => {
                assert_eq!(call.heartbeat_interval.to_bits(), interval.to_bits());
                Some(*at)
            }
            _ => None,
        })
        .collect();
    assert!(beats[0] - joined < Duration::from_secs(1));
    assert!(beats.len() > 25);
    for pair in beats.windows(2) {
        let gap = (pair[1] - pair[0]).as_secs_f64();
        assert!((17.4..22.6).contains(&gap), "{gap}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_heard_between_its_calls_sends_no_heartbeats() {
    let world = World::new().await;
    world.calls.hear();
    let (node, running) = world.join().await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.nodes().await, [node]);
    let beat = |call: &Request| matches!(call, Request::Heartbeat(_));
    assert_eq!(world.calls.count(beat), 0);
    // It is asked again when a call has been held for so long, and not in between.
    let attend = |call: &Request| matches!(call, Request::Attend(_));
    let held = Config::default().hold.as_secs();
    assert!(world.calls.count(attend) as u64 <= 600 / held + 1);
    world.ask_to_leave();
    running.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn test_120_a_node_leaves_at_once_though_its_call_is_held() {
    let world = World::new().await;
    let (_node, running) = world.join().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let asked = Instant::now();
    world.ask_to_leave();
    running.await.unwrap().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(2));
    let left = |call: &Request| matches!(call, Request::DeleteNode(_));
    assert_eq!(world.calls.count(left), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_forgotten_joins_again_and_works() {
    let world = World::new().await;
    let (node, _running) = world.join().await;
    let call = DeleteNode { node };
    world
        .fleet
        .delete_node(&world.by_key(), call)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let nodes = world.nodes().await;
    assert_eq!(nodes.len(), 1);
    assert_ne!(nodes[0], node);
    let run = world.running().await;
    let asked = world.instruct(run, nodes[0], "a", "model").await;
    world.play(&world.launch(run).await, "answer", "").await;
    assert_eq!(
        world.reply(run, &asked).await.message.metadata.reply_to,
        asked
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_that_stays_in_use_ends_the_node_with_the_reason() {
    let world = World::new().await;
    let heartbeat_interval = 1e6;
    let call = CreateNode { heartbeat_interval };
    let other = world
        .fleet
        .create_node(&world.by_key(), call)
        .await
        .unwrap();
    // A node that has done nothing yet is taken for the same request.
    let beat = flwr_api::fleet::Heartbeat {
        node: other,
        heartbeat_interval,
    };
    assert!(world.fleet.heartbeat(&world.by_key(), beat).await.unwrap());
    let begun = Instant::now();
    let ended = world.start().await.unwrap();
    assert!(matches!(ended, Err(Ended::KeyInUse)), "{ended:?}");
    assert!((90..130).contains(&begun.elapsed().as_secs()));
    assert_eq!(world.nodes().await, [other]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_killed_and_has_lost_its_data_joins_once_it_counts_as_offline() {
    let world = World::new().await;
    let (killed, running) = world.join().await;
    tokio::time::sleep(Duration::from_secs(50)).await;
    running.abort();
    std::fs::remove_dir_all(world.journal().folder()).unwrap();
    let (node, _running) = world.join().await;
    assert_ne!(node, killed);
    assert_eq!(world.nodes().await, [node]);
}
