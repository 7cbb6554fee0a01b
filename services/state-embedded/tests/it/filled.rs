//! A state with something of everything in it, and all that was ever true of it.

use std::collections::HashMap;

use bytes::Bytes;
use flwr_api::{
    FabHash, Message, MessageId, Metadata, NodeId, ObjectId, Payload, Phase, Run, RunId, RunStatus,
    SubStatus, Token,
};
use flwr_state::conformance::{self, Made, at, made};
use flwr_state::*;
use flwr_state_embedded::{EmbeddedState, open};
use flwr_transport::{Body, PublicKey};
use tempfile::TempDir;

use crate::world::{config, copy};

/// What was written.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) nodes: Vec<NodeId>,
    /// Each run as it was after each step.
    pub(crate) runs: Vec<Run>,
    pub(crate) messages: Vec<Message>,
    /// The instructions whose objects have come and that nobody has taken yet, with their objects.
    pub(crate) waiting: Vec<(MessageId, Vec<ObjectId>)>,
    pub(crate) objects: HashMap<ObjectId, Bytes>,
    pub(crate) logs: HashMap<RunId, Vec<String>>,
}

/// The folders that two processes left, and what they wrote.
pub(crate) struct Filled {
    /// Of one that ended.
    pub(crate) ended: TempDir,
    /// Of one that went on from there and was killed.
    pub(crate) killed: TempDir,
    pub(crate) facts: Facts,
}

pub(crate) async fn fill() -> Filled {
    let (ended, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut facts = Facts::default();
    let fabs = DiskFabs::new(ended.path().join("objects"));
    let fab = Bytes::from_static(b"fab");
    fabs.put_fab(FabHash::of(&fab), fab).await.unwrap();
    let state = open_in(&ended).await;
    first_life(&state, &mut facts).await;
    drop(state);

    let between = tempfile::tempdir().unwrap();
    copy(ended.path(), between.path());
    let state = open_in(&between).await;
    second_life(&state, &mut facts).await;
    state.checkpoint(at(2.0)).await.unwrap();
    copy(between.path(), killed.path());
    Filled {
        ended,
        killed,
        facts,
    }
}

pub(crate) async fn open_in(folder: &TempDir) -> EmbeddedState {
    let opened = open(config(folder.path()), Wakeups::new(), at(1.0)).await;
    opened.unwrap()
}

async fn first_life(state: &EmbeddedState, facts: &mut Facts) {
    for node in NODES {
        let new = NewNode {
            id: node,
            key: Some(PublicKey::from_spki_der(node.0.to_string().into())),
            heartbeat_interval: 1e6,
        };
        state.create_node(new, at(0.0)).await.unwrap();
        facts.nodes.push(node);
    }
    for run in [RUN, OVER, PENDING] {
        state.create_run(new_run(run), at(0.0)).await.unwrap();
        facts.note_runs(state).await;
    }
    for run in [RUN, OVER] {
        for phase in [Phase::Starting, Phase::Running] {
            let moved = state.move_run(run, RunStatus::of(phase), at(0.0)).await;
            assert_eq!(moved.unwrap(), Transition::Applied);
            facts.note_runs(state).await;
        }
        state.beat_run(run, 1e6, at(0.0)).await.unwrap();
    }
    let token = Token::presented("0123456789abcdef");
    assert!(state.issue_token(PENDING, token, at(0.0)).await.unwrap());
    for node in NODES {
        // Objects of every size, some of them shared between nodes.
        let large = format!("large {node} ").repeat(9000);
        for body in ["small", &"middle ".repeat(4000), &large] {
            let root = message_of(&format!("{node} {}", body.len()), body);
            facts.instruct(state, RUN, node, &root).await;
        }
    }
    facts
        .instruct(state, OVER, NODES[0], &message_of("over", "x"))
        .await;
    facts.log(state, RUN, 40).await;
    facts.log(state, OVER, 5).await;
    state.checkpoint(at(1.0)).await.unwrap();
}

async fn second_life(state: &EmbeddedState, facts: &mut Facts) {
    // The first instruction is taken, the second answered.
    let node = NODES[0];
    for answers in [false, true] {
        let taken = state.deliver(node, at(1.0)).await.unwrap().unwrap();
        let message = taken.delivery.message;
        facts.waiting.retain(|(id, _)| *id != message.metadata.id);
        let root = message.metadata.id.root().unwrap();
        state.confirm(RUN, root).await.unwrap();
        if answers {
            let root = message_of("answer", &"answer ".repeat(20_000));
            facts.answer(state, &message, &root).await;
        }
    }
    let over = RunStatus::finished(SubStatus::Completed, "");
    state.move_run(OVER, over, at(1.0)).await.unwrap();
    facts.note_runs(state).await;
    facts
        .instruct(state, RUN, NODES[1], &message_of("late", "late"))
        .await;
    facts.log(state, RUN, 10).await;
}

impl Facts {
    async fn note_runs(&mut self, state: &EmbeddedState) {
        self.runs.extend(state.runs(at(1.0)).await.unwrap());
    }

    pub(crate) async fn instruct(
        &mut self,
        state: &EmbeddedState,
        run: RunId,
        node: NodeId,
        root: &Made,
    ) {
        let message = message(run, NodeId::SUPERLINK, node, "", root);
        let stored =
            state.store_instructions(run, vec![message.clone()], vec![root.tree.clone()], at(1.0));
        stored.await.unwrap();
        self.put(state, root).await;
        if run == RUN {
            let ids = root.objects.iter().map(|(id, _)| *id).collect();
            self.waiting.push((message.metadata.id.clone(), ids));
        }
        self.messages.push(message);
    }

    async fn answer(&mut self, state: &EmbeddedState, to: &Message, root: &Made) {
        let Metadata {
            run, src, dst, id, ..
        } = &to.metadata;
        let reply = message(*run, *dst, *src, id.as_str(), root);
        let stored = state.store_reply(reply.clone(), vec![root.tree.clone()], Ok(()), at(1.0));
        assert_eq!(stored.await.unwrap().0, ReplyOutcome::Stored);
        self.put(state, root).await;
        self.messages.push(reply);
    }

    async fn put(&mut self, state: &EmbeddedState, root: &Made) {
        for (id, bytes) in &root.objects {
            let body = Body::from_bytes(bytes.clone());
            state.put_object(*id, body).await.unwrap();
            self.objects.insert(*id, bytes.clone());
        }
    }

    async fn log(&mut self, state: &EmbeddedState, run: RunId, entries: usize) {
        let log = self.logs.entry(run).or_default();
        for _ in 0..entries {
            let entry = format!("entry {} of {run}\n", log.len());
            state.append_log(run, entry.clone(), at(1.0)).await.unwrap();
            log.push(entry);
        }
    }
}

/// A message's objects: the root, and below it one with this body.
pub(crate) fn message_of(name: &str, body: &str) -> Made {
    made(name, &[&made(body, &[]), &made("shared by all", &[])])
}

fn message(run: RunId, src: NodeId, dst: NodeId, reply_to: &str, root: &Made) -> Message {
    Message {
        metadata: Metadata {
            run,
            id: root.tree.id.into(),
            src,
            dst,
            reply_to: MessageId::new(reply_to),
            group_id: "1".into(),
            ttl: 1e6,
            message_type: "train".into(),
            created_at: at(0.0),
        },
        payload: Payload::Content(Bytes::new()),
    }
}

pub(crate) fn new_run(id: RunId) -> NewRun {
    NewRun {
        series: 7,
        federation: "somewhere".into(),
        options: Some(Bytes::from_static(b"options")),
        ..conformance::new_run(id)
    }
}

/// A run that is running, one that ends, one that waits.
pub(crate) const RUN: RunId = RunId(u64::MAX - 7);
pub(crate) const OVER: RunId = RunId(11);
pub(crate) const PENDING: RunId = RunId(12);

pub(crate) const NODES: [NodeId; 2] = [NodeId(u64::MAX - 3), NodeId(5)];
