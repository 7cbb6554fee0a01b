//! A federation in one process and virtual time, over the in-process transport. Its SuperLink is killed
//! again and again, its writes fail, connections break in the middle of bodies, and answers get lost or
//! overtake each other. What Flower promises has to hold: nothing that was acknowledged is lost, no
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

use bytes::Bytes;
use flwr_api::appio;
use flwr_api::fleet;
use flwr_api::{
    Delivery, MessageId, NodeId, ObjectId, ObjectTree, Payload, Phase, RunId, RunStatus, SubStatus,
    Token,
};
use flwr_transport::Status;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use self::world::{Answer, Link, World, soon, whole};

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
    tasks.spawn_local(world::kills(Arc::clone(&world)));
    tasks.spawn_local(world::losses(Arc::clone(&world)));
    let played = timeout(PATIENCE, play(&world, run, &nodes, &app));
    tokio::select! {
        biased;
        ended = tasks.join_next() => ended.expect("they go on for ever").unwrap(),
        played = played => played.expect("the run comes to its end"),
    }
}

/// A ServerApp: sends rounds of instructions and waits for the reply to each.
async fn play(world: &Arc<World>, run: RunId, nodes: &[NodeId], app: &Token) {
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
                link.appio(Some(app))
                    .await?
                    .push_messages(call, soon())
                    .await
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
                let body = world.slow(letter.object.clone());
                link.appio(Some(app))
                    .await?
                    .push_object(call, body, soon())
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
async fn gather(world: &World, run: RunId, app: &Token, waiting: &mut HashMap<MessageId, String>) {
    let replies = world
        .insist(async |link| {
            let call = appio::PullMessages {
                run,
                instructions: waiting.keys().cloned().collect(),
                wait: Duration::from_secs(5),
                linger: Duration::from_secs(1),
            };
            link.appio(Some(app))
                .await?
                .pull_messages(call, soon())
                .await
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
                whole(
                    link.appio(Some(app))
                        .await?
                        .pull_object(call, soon())
                        .await?,
                )
                .await
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
                link.appio(Some(app))
                    .await?
                    .confirm_message(call, soon())
                    .await
            })
            .await;
    }
}

async fn finish(world: &World, run: RunId, app: &Token) {
    world.ends();
    world
        .insist(async |link| {
            let call = appio::PushOutputs {
                run,
                context: "state".into(),
            };
            link.appio(Some(app))
                .await?
                .push_outputs(call, soon())
                .await
        })
        .await;
    // The first answer may have been lost.
    world
        .insist_till_the_end(async |link| {
            let call = appio::UpdateRunStatus {
                run,
                status: Some(RunStatus::finished(SubStatus::Completed, "")),
            };
            link.appio(Some(app))
                .await?
                .update_run_status(call, soon())
                .await
        })
        .await;
    let statuses = world.insist(async |link| {
        let call = appio::GetRunStatus { runs: vec![run] };
        link.appio(Some(app)).await?.run_status(call, soon()).await
    });
    let status = statuses.await.remove(&run).unwrap();
    assert_eq!(
        (status.phase, status.sub),
        (Phase::Finished, SubStatus::Completed)
    );
}

/// A SuperNode: answers each instruction once, however often it is offered.
async fn work(world: Arc<World>, key: u8, node: NodeId) {
    let (mut confirmed, mut answered) = (HashSet::new(), HashSet::new());
    loop {
        let offered = world.insist(async |link| {
            let wait = Duration::from_secs(5);
            let call = fleet::PullMessages { node, wait };
            link.fleet(key).await?.pull_messages(call, soon()).await
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
                whole(link.fleet(key).await?.pull_object(call, soon()).await?).await
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
                link.fleet(key).await?.confirm_message(call, soon()).await
            })
            .await;
        confirmed.insert(id.clone());
        sleep(world.up_to(Duration::from_secs(10))).await;
        assert!(answered.insert(id.clone()));
        reply(&world, key, node, run, &id).await;
    }
}

async fn reply(world: &Arc<World>, key: u8, node: NodeId, run: RunId, asked: &MessageId) {
    // Some are large enough that what came of them is kept.
    let padding = if world.chance(0.3) { 150_000 } else { 0 };
    let answer = format!("{}{}", "x".repeat(padding), answer_to(asked));
    let letter = world.letter(run, node, NodeId::SUPERLINK, asked.as_str(), &answer);
    let pushed = world.insist(async |link| {
        let call = fleet::PushMessages {
            node,
            message: Some(letter.message.clone()),
            trees: vec![ObjectTree::leaf(letter.root)],
        };
        link.fleet(key).await?.push_messages(call, soon()).await
    });
    let pushed = pushed.await;
    assert!(pushed.stored.is_some());
    for object in pushed.missing {
        let push = Push {
            world,
            key,
            node,
            run,
            object,
            bytes: letter.object.clone(),
        };
        push.finish().await;
    }
}

/// An object that a node pushes.
struct Push<'a> {
    world: &'a Arc<World>,
    key: u8,
    node: NodeId,
    run: RunId,
    object: ObjectId,
    bytes: Bytes,
}

impl Push<'_> {
    /// Pushes until it is stored: what came is not sent again.
    async fn finish(&self) {
        let mut offset = 0;
        loop {
            let pushed = async |link: &Link| self.push(link, offset).await;
            match self.world.once(&pushed).await {
                Answer::Came(true) => return,
                // It was forgotten meanwhile.
                Answer::Came(false) if offset > 0 => offset = 0,
                Answer::Came(false) => panic!("an announced object is wanted"),
                Answer::RunIsOver => std::future::pending().await,
                Answer::Lost => offset = self.received().await,
            }
        }
    }

    async fn push(&self, link: &Link, offset: usize) -> Result<bool, Status> {
        let (node, run, object) = (self.node, self.run, self.object);
        let fleet = link.fleet(self.key).await?;
        let rest = self.world.slow(self.bytes.slice(offset..));
        if offset == 0 {
            let call = fleet::PushObject { node, run, object };
            return fleet.push_object(call, rest, soon()).await;
        }
        let call = fleet::ResumePush {
            node,
            run,
            object,
            offset: offset as u64,
        };
        fleet.resume_push(call, rest, soon()).await
    }

    async fn received(&self) -> usize {
        let received = self.world.insist(async |link| {
            let call = fleet::GetReceived {
                node: self.node,
                run: self.run,
                objects: vec![self.object],
            };
            link.fleet(self.key).await?.received(call, soon()).await
        });
        let received = usize::try_from(received.await[0]).unwrap();
        assert!(received < self.bytes.len(), "more than half of it");
        received
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
            link.fleet(key).await?.heartbeat(call, soon()).await
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
                link.appio(None).await?.heartbeat(call, soon()).await
            })
            .await;
        sleep(Duration::from_secs(20)).await;
    }
}
