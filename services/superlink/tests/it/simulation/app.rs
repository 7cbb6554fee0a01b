//! The ServerApp.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use flwr_api::appio;
use flwr_api::{
    Delivery, MessageId, NodeId, ObjectId, ObjectTree, Payload, Phase, RunId, RunStatus, SubStatus,
    Token,
};
use tokio::time::sleep;

use super::answer_to;
use super::world::{World, soon, whole};

/// A ServerApp: sends rounds of instructions and waits for the reply to each.
pub(super) async fn play(world: &Arc<World>, run: RunId, nodes: &[NodeId], app: &Token) {
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

/// Keeps its lease.
pub(super) async fn beat(world: Arc<World>, run: RunId) {
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

const ROUNDS: usize = 4;
