//! A federation in virtual time whose SuperLink is killed again and again, whose writes fail and
//! whose answers get lost, against what Flower promises: nothing that was acknowledged is lost, no
//! confirmed message comes again, every instruction gets its own reply, and it ends.
//!
//! `SIMULATION_SEEDS=0..5000` runs these seeds instead of a few; one that fails is printed, and runs
//! the same again.

#![expect(clippy::print_stdout, reason = "says which seed has failed")]

mod disk;
mod random;
mod world;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use flwr_api::appio::{self, AppIoService as _};
use flwr_api::fleet::{self, FleetService as _};
use flwr_api::{
    Delivery, MessageId, NodeId, ObjectId, ObjectTree, Payload, Phase, RunId, RunStatus, SubStatus,
};
use flwr_transport::Body;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use self::world::{Sender, World};

const NODES: u8 = 3;
const ROUNDS: usize = 4;

/// Virtual time: hundreds of times what a round takes that nobody disturbs.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

#[test]
fn nothing_is_lost_and_nothing_comes_twice() {
    let range = std::env::var("SIMULATION_SEEDS").map_or(0..100, |text| seeds(&text));
    for seed in range {
        // What a test prints is shown if it fails.
        println!("seed {seed}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(LocalSet::new().run_until(simulate(seed)));
    }
}

fn seeds(text: &str) -> Range<u64> {
    let (first, last) = text.split_once("..").expect("as in 0..5000");
    first.parse().unwrap()..last.parse().unwrap()
}

async fn simulate(seed: u64) {
    let world = World::new(seed);
    let (run, app) = world.begin_run().await;
    let mut nodes = Vec::new();
    let mut tasks = tokio::task::JoinSet::new();
    for key in 1..=NODES {
        let node = world.join(key).await;
        nodes.push(node);
        tasks.spawn_local(beat(Arc::clone(&world), key, node));
        tasks.spawn_local(work(Arc::clone(&world), key, node));
    }
    tasks.spawn_local(beat_run(Arc::clone(&world), run));
    tasks.spawn_local(world::chaos(Arc::clone(&world)));
    let played = timeout(PATIENCE, play(&world, run, &nodes, &app));
    tokio::select! {
        biased;
        ended = tasks.join_next() => ended.expect("they go on for ever").unwrap(),
        played = played => played.expect("the run comes to its end"),
    }
}

/// A ServerApp: sends rounds of instructions and waits for the reply to each.
async fn play(world: &World, run: RunId, nodes: &[NodeId], app: &Sender) {
    for round in 0..ROUNDS {
        // Two to each node, so that one waits while the other is worked on.
        let names = (0..2).flat_map(|number| nodes.iter().map(move |node| (number, *node)));
        let letters: Vec<_> = names
            .map(|(number, node)| {
                let name = format!("{round} {node} {number}");
                world.letter(run, NodeId::SUPERLINK, node, "", &name)
            })
            .collect();
        let pushed = world
            .insist(async |link| {
                let call = appio::PushMessages {
                    run,
                    messages: letters.iter().map(|l| l.message.clone()).collect(),
                    trees: letters.iter().map(|l| ObjectTree::leaf(l.root)).collect(),
                };
                link.appio.push_messages(&world.context(app), call).await
            })
            .await;
        assert!(pushed.stored.iter().all(Option::is_some), "{pushed:?}");
        for letter in letters.iter().filter(|l| pushed.missing.contains(&l.root)) {
            let stored = world.insist(async |link| {
                let call = appio::PushObject {
                    node: NodeId::SUPERLINK,
                    run,
                    object: letter.root,
                };
                let body = Body::from_bytes(letter.object.clone());
                link.appio
                    .push_object(&world.context(app), call, body)
                    .await
            });
            assert!(stored.await, "an announced object is wanted");
        }
        let mut waiting: HashMap<MessageId, String> = letters
            .iter()
            .map(|letter| (letter.id(), answer_to(&letter.id())))
            .collect();
        while !waiting.is_empty() {
            gather(world, run, app, &mut waiting).await;
        }
    }
    finish(world, run, app).await;
}

/// Asks for replies once, and takes those that are there.
async fn gather(world: &World, run: RunId, app: &Sender, waiting: &mut HashMap<MessageId, String>) {
    let replies = world
        .insist(async |link| {
            let call = appio::PullMessages {
                run,
                instructions: waiting.keys().cloned().collect(),
                wait: Duration::from_secs(5),
                linger: Duration::from_secs(1),
            };
            link.appio.pull_messages(&world.context(app), call).await
        })
        .await;
    for Delivery { message, tree } in replies {
        let Payload::Content(_) = message.payload else {
            panic!("an error in place of a reply: {message:?}");
        };
        let expected = waiting.remove(&message.metadata.reply_to);
        let expected = expected.expect("a reply comes once, to something that was asked");
        let (_, body) = world
            .insist(async |link| {
                let call = appio::PullObject {
                    node: NodeId::SUPERLINK,
                    run,
                    object: tree.id,
                    wait: Duration::ZERO,
                };
                world::whole(link.appio.pull_object(&world.context(app), call).await?).await
            })
            .await;
        let body = body.expect("a reply is complete");
        assert_eq!(ObjectId::of(&body), tree.id);
        assert!(
            body.ends_with(expected.as_bytes()),
            "the reply to another instruction"
        );
        let message = tree.id;
        world
            .insist(async |link| {
                let call = appio::ConfirmMessage { run, message };
                link.appio.confirm_message(&world.context(app), call).await
            })
            .await;
    }
}

async fn finish(world: &World, run: RunId, app: &Sender) {
    world.ends();
    world
        .insist(async |link| {
            let call = appio::PushOutputs {
                run,
                context: "state".into(),
            };
            link.appio.push_outputs(&world.context(app), call).await
        })
        .await;
    // The first answer may have been lost.
    world
        .insist_till_the_end(async |link| {
            let call = appio::UpdateRunStatus {
                run,
                status: Some(RunStatus::finished(SubStatus::Completed, "")),
            };
            link.appio
                .update_run_status(&world.context(app), call)
                .await
        })
        .await;
    let statuses = world.insist(async |link| {
        let call = appio::GetRunStatus { runs: vec![run] };
        link.appio.run_status(&world.context(app), call).await
    });
    let status = statuses.await.remove(&run).unwrap();
    assert_eq!(
        (status.phase, status.sub),
        (Phase::Finished, SubStatus::Completed)
    );
}

/// A SuperNode: answers each instruction once, however often it is offered.
async fn work(world: Arc<World>, key: u8, node: NodeId) {
    let by = Sender::Node(key);
    let (mut confirmed, mut answered) = (HashSet::new(), HashSet::new());
    loop {
        let offered = world.insist(async |link| {
            let wait = Duration::from_secs(5);
            let call = fleet::PullMessages { node, wait };
            link.fleet.pull_messages(&world.context(&by), call).await
        });
        let Some(Delivery { message, tree }) = offered.await else {
            continue;
        };
        let (run, id) = (message.metadata.run, message.metadata.id.clone());
        assert!(
            !confirmed.contains(&id),
            "a confirmed instruction is not offered again"
        );
        let (_, body) = world
            .insist(async |link| {
                let call = fleet::PullObject {
                    node,
                    run,
                    object: tree.id,
                    wait: Duration::ZERO,
                };
                world::whole(link.fleet.pull_object(&world.context(&by), call).await?).await
            })
            .await;
        assert_eq!(
            ObjectId::of(&body.expect("an instruction is complete")),
            tree.id
        );
        if world.chance(0.1) {
            // It is killed before it has said that it has the instruction.
            continue;
        }
        world
            .insist(async |link| {
                let message = tree.id;
                let call = fleet::ConfirmMessage { node, run, message };
                link.fleet.confirm_message(&world.context(&by), call).await
            })
            .await;
        confirmed.insert(id.clone());
        sleep(world.up_to(Duration::from_secs(10))).await;
        assert!(answered.insert(id.clone()));
        reply(&world, &by, node, run, &id).await;
    }
}

async fn reply(world: &World, by: &Sender, node: NodeId, run: RunId, asked: &MessageId) {
    let answer = answer_to(asked);
    let letter = world.letter(run, node, NodeId::SUPERLINK, asked.as_str(), &answer);
    let pushed = world.insist(async |link| {
        let call = fleet::PushMessages {
            node,
            message: Some(letter.message.clone()),
            trees: vec![ObjectTree::leaf(letter.root)],
        };
        link.fleet.push_messages(&world.context(by), call).await
    });
    let pushed = pushed.await;
    assert!(pushed.stored.is_some());
    for object in pushed.missing {
        let stored = world.insist(async |link| {
            let call = fleet::PushObject { node, run, object };
            let body = Body::from_bytes(letter.object.clone());
            link.fleet.push_object(&world.context(by), call, body).await
        });
        assert!(stored.await, "an announced object is wanted");
    }
}

/// What the right reply to an instruction ends with.
fn answer_to(asked: &MessageId) -> String {
    format!("answer to {asked}")
}

/// Stays online.
async fn beat(world: Arc<World>, key: u8, node: NodeId) {
    loop {
        let known = world.insist(async |link| {
            let call = fleet::Heartbeat {
                node,
                heartbeat_interval: 30.0,
            };
            link.fleet
                .heartbeat(&world.context(&Sender::Node(key)), call)
                .await
        });
        assert!(known.await, "a node is not forgotten");
        sleep(Duration::from_secs(20)).await;
    }
}

async fn beat_run(world: Arc<World>, run: RunId) {
    loop {
        world
            .insist(async |link| {
                let call = appio::Heartbeat {
                    run,
                    heartbeat_interval: 30.0,
                };
                link.appio
                    .heartbeat(&world.context(&Sender::App(None)), call)
                    .await
            })
            .await;
        sleep(Duration::from_secs(20)).await;
    }
}
