//! Pushes that break off and go on.

use std::time::Duration;

use bytes::Bytes;
use flwr_api::appio::{self, AppIoService as _};
use flwr_api::fleet::{self, FleetService};
use flwr_api::{Delivery, NodeId, ObjectTree, RunId};
use flwr_transport::{Body, BodyError, Code, Status};
use futures_util::{Stream, StreamExt as _, stream};

use crate::world::{Letter, World};

const LARGE: usize = 200_000;
const BREAK: usize = 150_000;

/// A reply that is announced, and whose object has come in part.
struct Broken {
    world: World,
    node: NodeId,
    run: RunId,
    reply: Letter,
}

impl Broken {
    async fn new() -> Self {
        let world = World::new();
        let (node, run) = (world.join(1, 30.0).await, world.running().await);
        let letter = world.instruct(run, node, "m").await;
        let asked = letter.id();
        let name = "x".repeat(LARGE);
        let reply = world.letter(run, node, NodeId::SUPERLINK, asked.as_str(), &name);
        let call = fleet::PushMessages {
            node,
            message: Some(reply.message.clone()),
            trees: vec![ObjectTree::leaf(reply.root)],
        };
        let pushed = world.fleet.push_messages(&world.by_node(1), call).await;
        assert_eq!(pushed.unwrap().missing, [reply.root]);
        let broken = Self {
            world,
            node,
            run,
            reply,
        };
        broken.push_some(BREAK).await;
        broken
    }

    /// A push that breaks off after so many bytes.
    async fn push_some(&self, bytes: usize) {
        let object = &self.reply.object;
        let pieces = [Ok(object.slice(..bytes)), Err(BodyError::Interrupted)];
        let refused = self.push(stream::iter(pieces)).await;
        assert_eq!(refused.unwrap_err().code, Code::Unavailable);
    }

    /// A push of these pieces, as of the whole object.
    async fn push<P>(&self, pieces: P) -> Result<bool, Status>
    where
        P: Stream<Item = Result<Bytes, BodyError>> + Send + 'static,
    {
        let body = Body::from_stream(Some(self.reply.object.len() as u64), pieces);
        let call = fleet::PushObject {
            node: self.node,
            run: self.run,
            object: self.reply.root,
        };
        let context = self.world.by_node(1);
        self.world.fleet.push_object(&context, call, body).await
    }

    async fn received(&self) -> u64 {
        self.received_from(1, self.node).await
    }

    async fn received_from(&self, key: u8, node: NodeId) -> u64 {
        let call = fleet::GetReceived {
            node,
            run: self.run,
            objects: vec![self.reply.root],
        };
        let context = self.world.by_node(key);
        let received = self.world.fleet.received(&context, call).await.unwrap();
        assert_eq!(received.len(), 1);
        received[0]
    }

    async fn resume(&self, offset: usize, rest: Bytes) -> bool {
        self.try_resume(offset, rest).await.unwrap()
    }

    async fn try_resume(&self, offset: usize, rest: Bytes) -> Result<bool, Status> {
        let call = fleet::ResumePush {
            node: self.node,
            run: self.run,
            object: self.reply.root,
            offset: offset as u64,
        };
        let context = self.world.by_node(1);
        let rest = Body::from_bytes(rest);
        self.world.fleet.resume_push(&context, call, rest).await
    }

    fn rest(&self, offset: usize) -> Bytes {
        self.reply.object.slice(offset..)
    }
}

#[tokio::test(start_paused = true)]
async fn a_push_that_broke_off_goes_on() {
    let broken = Broken::new().await;
    assert_eq!(broken.received().await, BREAK as u64);
    assert!(!broken.resume(BREAK + 1, broken.rest(BREAK + 1)).await);
    assert!(broken.resume(BREAK, broken.rest(BREAK)).await);
    assert_eq!(broken.received().await, 0);
    let call = fleet::PullObject {
        node: broken.node,
        run: broken.run,
        object: broken.reply.root,
        wait: Duration::ZERO,
    };
    let world = &broken.world;
    let pulled = world.fleet.pull_object(&world.by_node(1), call).await;
    let body = pulled.unwrap().1.unwrap();
    assert_eq!(body.collect(1 << 20).await.unwrap(), broken.reply.object);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_forgotten() {
    let broken = Broken::new().await;
    let rest = Bytes::from(vec![b'y'; broken.rest(BREAK).len()]);
    assert!(!broken.resume(BREAK, rest).await);
    assert_eq!(broken.received().await, 0);
    assert!(!broken.resume(BREAK, broken.rest(BREAK)).await);
    broken.push_some(100_000).await;
    assert_eq!(broken.received().await, 100_000);
    assert!(broken.resume(100_000, broken.rest(100_000)).await);
}

#[tokio::test(start_paused = true)]
async fn nobody_sees_or_spoils_what_another_node_sent() {
    let broken = Broken::new().await;
    let other = broken.world.join(2, 30.0).await;
    assert_eq!(broken.received_from(2, other).await, 0);
    let call = fleet::ResumePush {
        node: broken.node,
        run: broken.run,
        object: broken.reply.root,
        offset: 0,
    };
    let world = &broken.world;
    let body = Body::from_bytes(Bytes::from_static(b"spoilt"));
    let refused = world.fleet.resume_push(&world.by_node(2), call, body).await;
    assert_eq!(refused.unwrap_err().code, Code::Unauthenticated);
    assert!(broken.resume(BREAK, broken.rest(BREAK)).await);
}

#[tokio::test(start_paused = true)]
async fn what_broke_off_is_not_kept_for_ever() {
    let broken = Broken::new().await;
    let (link, drain) = (broken.world.link.clone(), broken.world.drain.clone());
    tokio::spawn(async move { link.sweep(&drain).await });
    for minute in 0..=11 {
        let expected = if minute < 10 { BREAK as u64 } else { 0 };
        // It is looked for every few seconds.
        if minute != 10 {
            assert_eq!(broken.received().await, expected, "after {minute} minutes");
        }
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(20)).await;
            let beat = appio::Heartbeat {
                run: broken.run,
                heartbeat_interval: 60.0,
            };
            let app = broken.world.by_app();
            assert!(broken.world.appio.heartbeat(&app, beat).await.unwrap());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_parcel_brings_small_objects_and_no_others() {
    let world = World::new();
    let (node, run) = (world.join(1, 30.0).await, world.running().await);
    let context = world.by_node(1);
    let letter = world.instruct(run, node, "m").await;
    let call = fleet::PullParcel {
        node,
        wait: Duration::ZERO,
    };
    let parcel = world
        .fleet
        .pull_parcel(&context, call)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(parcel.delivery.message.metadata.id, letter.id());
    assert_eq!(parcel.objects, [(letter.root, letter.object.clone())]);

    let asked = letter.id();
    let reply = world.letter(run, node, NodeId::SUPERLINK, asked.as_str(), "answer");
    let delivery = Delivery {
        message: reply.message.clone(),
        tree: ObjectTree::leaf(reply.root),
    };
    let push = |objects| {
        let parcel = fleet::Parcel {
            delivery: delivery.clone(),
            objects,
        };
        world
            .fleet
            .push_parcel(&context, fleet::PushParcel { node, parcel })
    };
    // Bytes of another object, and an object of nobody, are as good as none.
    let wrong = vec![(reply.root, letter.object.clone())];
    assert_eq!(push(wrong).await.unwrap().missing, [reply.root]);
    let foreign = vec![(letter.root, letter.object.clone())];
    assert_eq!(push(foreign).await.unwrap().missing, [reply.root]);
    let whole = vec![(reply.root, reply.object.clone())];
    assert_eq!(push(whole).await.unwrap().missing, []);

    let stranger = world.by_node(2);
    let parcel = fleet::Parcel {
        delivery: delivery.clone(),
        objects: Vec::new(),
    };
    let call = fleet::PushParcel { node, parcel };
    assert!(world.fleet.push_parcel(&stranger, call).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_came_is_kept_also_where_the_call_ends_first() {
    let broken = Broken::new().await;
    let (breaks, broke) = tokio::sync::oneshot::channel::<()>();
    let first = broken.reply.object.slice(..100_000);
    let hanging = async move {
        let _ = broke.await;
        Err(BodyError::Interrupted)
    };
    let push = broken.push(stream::iter([Ok(first)]).chain(stream::once(hanging)));
    let ended = tokio::time::timeout(Duration::from_secs(1), push).await;
    assert!(ended.is_err(), "the call ended by itself");
    drop(breaks);
    assert_eq!(broken.received().await, 100_000);
    assert!(broken.resume(100_000, broken.rest(100_000)).await);
}

#[tokio::test(start_paused = true)]
async fn a_push_that_hangs_is_over_once_its_node_asks() {
    let broken = Broken::new().await;
    let first = stream::iter([Ok(broken.reply.object.slice(..100_000))]);
    let hanging = broken.push(first.chain(stream::pending()));
    let asked = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        broken.received().await
    };
    let (refused, received) = tokio::join!(hanging, asked);
    assert_eq!(refused.unwrap_err().code, Code::Unavailable);
    assert_eq!(received, 100_000);
    assert!(broken.resume(100_000, broken.rest(100_000)).await);
}

#[tokio::test(start_paused = true)]
async fn no_object_is_longer_than_its_node_said_at_first() {
    let broken = Broken::new().await;
    let longer = [&broken.rest(BREAK)[..], b"and more"].concat();
    let refused = broken.try_resume(BREAK, longer.into()).await;
    assert_eq!(refused.unwrap_err().code, Code::Unavailable);
    assert_eq!(broken.received().await, 0);
}
