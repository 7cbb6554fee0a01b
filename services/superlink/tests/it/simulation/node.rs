//! The SuperNodes.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flwr_api::fleet;
use flwr_api::{Delivery, MessageId, NodeId, ObjectId, ObjectTree, RunId};
use flwr_transport::Status;
use tokio::time::sleep;

use super::answer_to;
use super::world::{Answer, Link, World, soon, whole};

/// A SuperNode: answers each instruction once, however often it is offered.
pub(super) async fn work(world: Arc<World>, key: u8, node: NodeId) {
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
        let (mut offset, mut asked) = (0, self.world.starts());
        loop {
            let pushed = async |link: &Link| self.push(link, offset).await;
            match self.world.once(&pushed).await {
                Answer::Came(true) if offset > 0 => return self.world.went_on(),
                Answer::Came(true) => return,
                Answer::Came(false) if offset > 0 => {
                    let is_new = self.world.starts() > asked;
                    assert!(is_new, "a SuperLink has what it says that it has");
                    offset = 0;
                }
                Answer::Came(false) => panic!("an announced object is wanted"),
                Answer::RunIsOver => std::future::pending().await,
                Answer::Lost => {
                    asked = self.world.starts();
                    offset = self.received().await;
                }
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
        assert!(received <= self.bytes.len(), "more than all of it");
        received
    }
}

/// Stays online.
pub(super) async fn beat(world: Arc<World>, key: u8, node: NodeId) {
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
