//! What the rules are told with.

use bytes::Bytes;
use flwr_api::{
    AppError, Delivery, FabHash, FabInfo, Message, MessageId, Metadata, NodeId, ObjectId,
    ObjectTree, Payload, Phase, RunId, RunStatus, SubStatus, UnixTime, UserConfig,
};
use flwr_transport::{Body, PublicKey};

use crate::link::{LinkState, NewNode, NewRun, NodeCreation, Object, Put, Replies, Transition};

/// The run most rules are about.
pub(super) const RUN: RunId = RunId(u64::MAX - 7);

/// The node most rules are about.
pub(super) const NODE: NodeId = NodeId(u64::MAX - 3);

/// Seconds between the heartbeats of nodes.
pub(super) const INTERVAL: f64 = 30.0;

/// Seconds that messages are valid.
pub(super) const TTL: f64 = 1000.0;

/// A time, in seconds from the one where every rule begins.
#[must_use]
pub fn at(seconds: f64) -> UnixTime {
    UnixTime::new(1_760_000_000.0 + seconds)
}

/// Objects that hang together.
#[derive(Clone, Debug)]
pub struct Made {
    /// The shape.
    pub tree: ObjectTree,
    /// The bytes of the objects below, then those of the root.
    pub objects: Vec<(ObjectId, Bytes)>,
}

/// An object with these children, in this order, and this body.
#[must_use]
pub fn made(body: &str, children: &[&Made]) -> Made {
    let ids: Vec<String> = children.iter().map(|c| c.tree.id.to_string()).collect();
    let bytes = Bytes::from(format!(
        "RecordDict {} {}\0{body}",
        ids.join(","),
        body.len()
    ));
    let id = ObjectId::of(&bytes);
    let mut objects: Vec<_> = children.iter().flat_map(|c| c.objects.clone()).collect();
    objects.push((id, bytes));
    let children = children.iter().map(|c| c.tree.clone()).collect();
    Made {
        tree: ObjectTree { id, children },
        objects,
    }
}

impl Made {
    pub(super) fn id(&self) -> ObjectId {
        self.tree.id
    }

    /// The ids of all objects, each once, children first.
    pub(super) fn ids(&self) -> Vec<ObjectId> {
        let mut ids = Vec::new();
        for (id, _) in &self.objects {
            if !ids.contains(id) {
                ids.push(*id);
            }
        }
        ids
    }
}

/// A message's objects: the root and a record below, both made from `name`.
pub(super) fn content(name: &str) -> Made {
    made(name, &[&made(&format!("record of {name}"), &[])])
}

/// A run that is submitted with nothing special.
#[must_use]
pub fn new_run(id: RunId) -> NewRun {
    NewRun {
        id,
        series: id.0 | 1,
        federation: String::new(),
        fab: FabInfo {
            id: "someone/something".into(),
            version: "1.0.0".into(),
            hash: FabHash::of(b"fab"),
        },
        overrides: UserConfig::new(),
        options: None,
    }
}

/// A node without a key that promises a heartbeat every 30 s.
#[must_use]
pub fn new_node(id: NodeId) -> NewNode {
    NewNode {
        id,
        key: None,
        heartbeat_interval: INTERVAL,
    }
}

pub(super) fn key(name: &str) -> PublicKey {
    PublicKey::from_spki_der(Bytes::copy_from_slice(name.as_bytes()))
}

/// An instruction of `run` to `node`, made at the beginning.
pub(super) fn instruction(run: RunId, node: NodeId, root: &Made) -> Message {
    Message {
        metadata: Metadata {
            run,
            id: root.id().into(),
            src: NodeId::SUPERLINK,
            dst: node,
            reply_to: MessageId::new(""),
            group_id: "3".into(),
            ttl: TTL,
            message_type: "train".into(),
            created_at: at(0.0),
        },
        payload: Payload::Content(Bytes::new()),
    }
}

/// A reply to an instruction, made at the beginning and valid as long.
pub(super) fn reply(to: &Message, root: &Made) -> Message {
    let mut reply = to.clone();
    reply.metadata.id = root.id().into();
    reply.metadata.src = to.metadata.dst;
    reply.metadata.dst = to.metadata.src;
    reply.metadata.reply_to = to.metadata.id.clone();
    reply
}

/// The error a message carries.
pub(super) fn error_of(delivery: &Delivery) -> &AppError {
    match &delivery.message.payload {
        Payload::Error(error) => error,
        Payload::Content(_) => panic!("{delivery:?} carries no error"),
    }
}

/// The codes of the errors in `replies`; 0 for content.
pub(super) fn codes(replies: &Replies) -> Vec<i64> {
    let code = |delivery: &Delivery| match &delivery.message.payload {
        Payload::Error(error) => error.code,
        Payload::Content(_) => 0,
    };
    replies.ready.iter().map(code).collect()
}

pub(super) fn stopped() -> RunStatus {
    RunStatus::finished(SubStatus::Stopped, "by a user")
}

/// A run that is running since the beginning.
pub(super) async fn start_run(state: &impl LinkState, run: RunId) {
    assert!(state.create_run(new_run(run), at(0.0)).await.unwrap());
    for phase in [Phase::Starting, Phase::Running] {
        shift(state, run, RunStatus::of(phase), 0.0).await;
    }
}

/// Moves a run, which must be allowed.
pub(super) async fn shift(state: &impl LinkState, run: RunId, to: RunStatus, seconds: f64) {
    let moved = state.move_run(run, to, at(seconds)).await.unwrap();
    assert_eq!(moved, Transition::Applied);
}

/// A node that joins at the beginning.
pub(super) async fn join(state: &impl LinkState, node: NodeId) {
    let joined = state.create_node(new_node(node), at(0.0)).await.unwrap();
    assert_eq!(joined, NodeCreation::Created);
}

/// A node that is online until `seconds`.
pub(super) async fn keep_online(state: &impl LinkState, node: NodeId, seconds: f64) {
    assert!(state.beat_node(node, seconds / 2.0, at(0.0)).await.unwrap());
}

/// A running run with a long lease and a node that stays online.
pub(super) async fn federation(state: &impl LinkState) {
    start_run(state, RUN).await;
    state.beat_run(RUN, 10.0 * TTL, at(0.0)).await.unwrap();
    join(state, NODE).await;
    keep_online(state, NODE, 10.0 * TTL).await;
}

pub(super) async fn announce(state: &impl LinkState, run: RunId, roots: &[&Made]) -> Vec<ObjectId> {
    let trees: Vec<_> = roots.iter().map(|root| root.tree.clone()).collect();
    state.announce(run, &trees).await.unwrap()
}

pub(super) async fn put(state: &impl LinkState, object: &(ObjectId, Bytes)) -> Put {
    let body = Body::from_bytes(object.1.clone());
    state.put_object(object.0, body).await.unwrap()
}

pub(super) async fn put_all(state: &impl LinkState, objects: &Made) {
    for object in &objects.objects {
        let put = put(state, object).await;
        assert!(matches!(put, Put::Stored | Put::Present), "{put:?}");
    }
}

/// Stores an instruction without the bytes of its objects.
pub(super) async fn announce_instruction(
    state: &impl LinkState,
    message: &Message,
    root: &Made,
) -> Vec<ObjectId> {
    let (messages, trees) = (vec![message.clone()], vec![root.tree.clone()]);
    let run = message.metadata.run;
    let stored = state.store_instructions(run, messages, trees, at(0.0));
    let (stored, missing) = stored.await.unwrap();
    assert_eq!(stored, [Some(message.metadata.id.clone())]);
    missing
}

/// Stores an instruction of [`RUN`] to [`NODE`] with all its objects.
pub(super) async fn instruct(state: &impl LinkState, root: &Made) -> Message {
    let message = instruction(RUN, NODE, root);
    announce_instruction(state, &message, root).await;
    put_all(state, root).await;
    message
}

/// Stores a reply with all its objects.
pub(super) async fn answer(state: &impl LinkState, to: &Message, root: &Made) -> Message {
    let message = reply(to, root);
    let trees = vec![root.tree.clone()];
    let stored = state.store_reply(message.clone(), trees, Ok(()), at(0.0));
    assert_eq!(stored.await.unwrap().0, crate::ReplyOutcome::Stored);
    put_all(state, root).await;
    message
}

/// The id of the instruction a node is handed.
pub(super) async fn next_id(
    state: &impl LinkState,
    node: NodeId,
    seconds: f64,
) -> Option<MessageId> {
    let delivered = state.deliver(node, at(seconds)).await.unwrap();
    delivered.map(|delivered| delivered.delivery.message.metadata.id)
}

/// Asks [`RUN`]'s replies to one instruction.
pub(super) async fn ask(state: &impl LinkState, id: &MessageId, seconds: f64) -> Replies {
    let asked = std::slice::from_ref(id);
    state.replies(RUN, asked, at(seconds)).await.unwrap()
}

/// The bytes of an object that is available.
pub(super) async fn fetch(state: &impl LinkState, object: ObjectId) -> Bytes {
    match state.object(object).await.unwrap() {
        Object::Available(body) => body.collect(u64::MAX).await.unwrap(),
        other => panic!("{object} is {other:?}"),
    }
}

pub(super) async fn is_pending(state: &impl LinkState, object: ObjectId) -> bool {
    matches!(state.object(object).await.unwrap(), Object::Pending)
}

pub(super) async fn is_unknown(state: &impl LinkState, object: ObjectId) -> bool {
    matches!(state.object(object).await.unwrap(), Object::Unknown)
}

/// How many objects there are.
pub(super) async fn count(state: &impl LinkState) -> usize {
    state.object_totals().await.unwrap().0
}

pub(super) async fn assert_no_objects(state: &impl LinkState) {
    assert_eq!(state.object_totals().await.unwrap(), (0, 0));
}

pub(super) async fn confirm(state: &impl LinkState, root: &Made) {
    state.confirm(RUN, root.id()).await.unwrap();
}
