//! A federation in one process and virtual time, over the in-process transport. Its SuperLink is killed
//! again and again, its writes fail, connections break in the middle of bodies, and answers get lost or
//! overtake each other. What Flower promises has to hold: nothing that was acknowledged is lost, no
//! confirmed message comes again, every instruction gets its own reply, and it ends.
//!
//! `SIMULATION_SEEDS=0..5000` runs these seeds instead of a few; one that fails is printed, and runs
//! the same again.

#![expect(clippy::print_stdout, reason = "says which seed has failed")]

mod app;
mod disk;
mod node;
mod random;
mod world;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use flwr_api::MessageId;
use tokio::task::LocalSet;
use tokio::time::timeout;

use self::world::World;

const NODES: u8 = 3;

/// Virtual time: hundreds of times what a round takes that nobody disturbs.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

#[test]
fn nothing_is_lost_and_nothing_comes_twice() {
    let range = std::env::var("SIMULATION_SEEDS").map_or(0..100, |text| seeds(&text));
    let (count, mut resumed) = (range.end - range.start, 0);
    for seed in range {
        // What a test prints is shown if it fails.
        println!("seed {seed}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        resumed += runtime.block_on(LocalSet::new().run_until(simulate(seed)));
    }
    // One in three seeds, about.
    assert!(resumed > 0 || count < 50, "no upload has gone on");
}

fn seeds(text: &str) -> Range<u64> {
    let (first, last) = text.split_once("..").expect("as in 0..5000");
    first.parse().unwrap()..last.parse().unwrap()
}

/// Returns how many uploads went on where they broke off.
async fn simulate(seed: u64) -> u32 {
    let world = World::new(seed);
    let (run, app) = world.begin_run().await;
    let mut nodes = Vec::new();
    let mut tasks = tokio::task::JoinSet::new();
    for key in 1..=NODES {
        let node = world.join(key).await;
        nodes.push(node);
        tasks.spawn_local(node::beat(Arc::clone(&world), key, node));
        tasks.spawn_local(node::work(Arc::clone(&world), key, node));
    }
    tasks.spawn_local(app::beat(Arc::clone(&world), run));
    tasks.spawn_local(world::kills(Arc::clone(&world)));
    tasks.spawn_local(world::losses(Arc::clone(&world)));
    let played = timeout(PATIENCE, app::play(&world, run, &nodes, &app));
    tokio::select! {
        biased;
        ended = tasks.join_next() => ended.expect("they go on for ever").unwrap(),
        played = played => played.expect("the run comes to its end"),
    }
    world.resumed()
}

/// What the right reply to an instruction ends with.
fn answer_to(asked: &MessageId) -> String {
    format!("answer to {asked}")
}
