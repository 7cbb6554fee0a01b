//! Random operations on a state in memory and on one in a database whose process is killed now and
//! then: both answer the same.

use std::fmt::Debug;

use bytes::Bytes;
use flwr_api::{
    Message, MessageId, Metadata, NodeId, ObjectId, Payload, Phase, RunId, RunStatus, SubStatus,
    Token, UnixTime, UserConfig,
};
use flwr_state::conformance::{Made, at, made, new_run};
use flwr_state::*;
use flwr_state_embedded::{EmbeddedState, open};
use flwr_transport::{Body, PublicKey};
use tempfile::TempDir;

use crate::damage::Dice;
use crate::world::{config, copy};

const SEEDS: u64 = 12;
const OPERATIONS: usize = 400;

const NODES: [NodeId; 3] = [NodeId(11), NodeId(12), NodeId(u64::MAX - 1)];
const RUNS: [RunId; 3] = [RunId(21), RunId(22), RunId(u64::MAX)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_in_a_database_answers_as_one_in_memory() {
    let seeds = std::env::var("COMPARED_SEEDS").map_or(SEEDS, |text| text.parse().unwrap());
    for seed in 0..seeds {
        let mut pair = Pair::new(seed).await;
        for number in 0..OPERATIONS {
            let context = format!("seed {seed}, operation {number}");
            if pair.dice.below(40) == 0 {
                pair.kill().await;
            }
            pair.operate(&context).await;
        }
        pair.agree(&format!("seed {seed}, at the end")).await;
    }
}

/// Does the same with both, and compares what they say.
macro_rules! both {
    ($pair:expr, $context:expr, $name:ident($($argument:expr),* $(,)?)) => {{
        let memory = $pair.memory.$name($($argument),*).await;
        let kept = $pair.kept.$name($($argument),*).await;
        same(&memory, &kept, $context, stringify!($name));
    }};
}

/// Two states that are told the same.
struct Pair {
    memory: MemoryState,
    kept: EmbeddedState,
    folder: TempDir,
    dice: Dice,
    now: f64,
    universe: Vec<Made>,
}

impl Pair {
    async fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let leaves = [
            made("a", &[]),
            made("b", &[]),
            made(&"c".repeat(100_000), &[]),
        ];
        let [a, b, c] = &leaves;
        let inner = [made("ab", &[a, b]), made("bc", &[b, c, b])];
        let roots: Vec<_> = (0..6)
            .map(|number| made(&format!("root {number}"), &[&inner[number % 2], a]))
            .collect();
        Self {
            memory: MemoryState::default(),
            kept: opened(&folder).await,
            folder,
            dice: Dice(seed),
            now: 0.0,
            universe: leaves.into_iter().chain(inner).chain(roots).collect(),
        }
    }

    /// Goes on with what a killed process has left.
    async fn kill(&mut self) {
        self.kept.checkpoint(at(self.now)).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        copy(self.folder.path(), folder.path());
        self.kept = opened(&folder).await;
        self.folder = folder;
    }

    async fn operate(&mut self, context: &str) {
        self.now += [0.0, 0.5, 5.0, 70.0][self.dice.below(4)] * self.dice.below(2) as f64;
        let now = at(self.now);
        let run = RUNS[self.dice.below(RUNS.len())];
        let node = NODES[self.dice.below(NODES.len())];
        let root = self.universe[self.dice.below(self.universe.len())].clone();
        match self.dice.below(20) {
            0 => self.create_run(run, now, context).await,
            1 | 2 => self.move_run(run, now, context).await,
            3 => {
                let interval = [1.0, 30.0, 1e6][self.dice.below(3)];
                let name = ["one", "two"][self.dice.below(2)];
                let key = PublicKey::from_spki_der(Bytes::from_static(name.as_bytes()));
                let node = NewNode {
                    id: node,
                    key: (self.dice.below(2) == 0).then_some(key),
                    heartbeat_interval: interval,
                };
                both!(self, context, create_node(node.clone(), now));
            }
            4 => both!(self, context, beat_node(node, 1e6, now)),
            5 => both!(self, context, beat_run(run, 1e6, now)),
            6 if self.dice.below(4) == 0 => both!(self, context, delete_node(node)),
            7..=9 => {
                let message = instruction(run, node, &root, now);
                let trees = vec![root.tree.clone()];
                both!(
                    self,
                    context,
                    store_instructions(run, vec![message.clone()], trees.clone(), now)
                );
            }
            10..=12 => self.put(&root, context).await,
            6 => {
                let (before, latest_max) = (now.plus(-100.0), self.dice.below(3));
                both!(self, context, sweep_runs(before, latest_max));
            }
            13 => {
                let known = [MessageId::from(root.tree.id)];
                both!(self, context, announced(node, &known, now));
            }
            14 => both!(self, context, deliver(node, now)),
            15 => self.reply(run, node, &root, now, context).await,
            16 => {
                let other = self.universe[self.dice.below(self.universe.len())].tree.id;
                let asked = [MessageId::from(root.tree.id), MessageId::from(other)];
                both!(self, context, replies(run, &asked, now));
            }
            17 => both!(self, context, confirm(run, root.tree.id)),
            18 => self.token(run, now, context).await,
            _ => {
                let text = format!("{context}\n");
                both!(self, context, append_log(run, text.clone(), now));
            }
        }
        self.agree(context).await;
    }

    async fn create_run(&mut self, run: RunId, now: UnixTime, context: &str) {
        let new = NewRun {
            federation: "here".into(),
            overrides: UserConfig::from([("lr".into(), flwr_api::Scalar::Double(0.1))]),
            options: (self.dice.below(2) == 0).then(|| Bytes::from_static(b"options")),
            ..new_run(run)
        };
        both!(self, context, create_run(new.clone(), now));
    }

    async fn move_run(&mut self, run: RunId, now: UnixTime, context: &str) {
        let to = match self.dice.below(12) {
            0 => RunStatus::finished(SubStatus::Completed, "done"),
            at if at % 2 == 0 => RunStatus::of(Phase::Starting),
            _ => RunStatus::of(Phase::Running),
        };
        both!(self, context, move_run(run, to.clone(), now));
    }

    async fn put(&mut self, root: &Made, context: &str) {
        let objects = if self.dice.below(2) == 0 {
            &root.objects[..]
        } else {
            &root.objects[root.objects.len() - 1..]
        };
        for (id, bytes) in objects {
            both!(
                self,
                context,
                put_object(*id, Body::from_bytes(bytes.clone()))
            );
        }
    }

    async fn reply(&mut self, run: RunId, node: NodeId, to: &Made, now: UnixTime, context: &str) {
        let root = self.universe[self.dice.below(self.universe.len())].clone();
        let mut reply = instruction(run, NodeId::SUPERLINK, &root, now);
        reply.metadata.src = node;
        reply.metadata.reply_to = to.tree.id.into();
        reply.metadata.ttl = 1.0;
        let trees = vec![root.tree];
        both!(
            self,
            context,
            store_reply(reply.clone(), trees.clone(), Ok(()), now)
        );
    }

    async fn token(&mut self, run: RunId, now: UnixTime, context: &str) {
        let token = Token::presented(format!("token {}", self.dice.below(4)));
        match self.dice.below(3) {
            0 => both!(self, context, issue_token(run, token.clone(), now)),
            1 => both!(self, context, start_app(&token, now)),
            _ => {
                let left = Bytes::from(context.to_owned());
                both!(self, context, finish_app(&token, run, left.clone(), now));
            }
        }
    }

    /// Both know the same.
    async fn agree(&self, context: &str) {
        let now = at(self.now);
        both!(self, context, nodes_online(now));
        both!(self, context, runs(now));
        both!(self, context, launch_queue(now));
        both!(self, context, object_totals());
        for run in RUNS {
            both!(self, context, log_after(run, at(-1.0)));
        }
        for made in &self.universe {
            let id = made.tree.id;
            let (memory, kept) = (read(&self.memory, id).await, read(&self.kept, id).await);
            assert_eq!(memory, kept, "{context}: {id}");
        }
    }
}

fn same<T: Debug>(memory: &StoreResult<T>, kept: &StoreResult<T>, context: &str, what: &str) {
    let (memory, kept) = (format!("{memory:?}"), format!("{kept:?}"));
    assert_eq!(
        memory, kept,
        "{context}: {what}, in memory and in a database"
    );
}

async fn read(state: &impl LinkState, id: ObjectId) -> Option<Option<Bytes>> {
    match state.object(id).await.unwrap() {
        Object::Available(body) => Some(Some(body.collect(u64::MAX).await.unwrap())),
        Object::Pending => Some(None),
        Object::Unknown => None,
    }
}

fn instruction(run: RunId, node: NodeId, root: &Made, now: UnixTime) -> Message {
    Message {
        metadata: Metadata {
            run,
            id: root.tree.id.into(),
            src: NodeId::SUPERLINK,
            dst: node,
            reply_to: MessageId::new(""),
            group_id: "3".into(),
            ttl: 1000.0,
            message_type: "train".into(),
            created_at: now,
        },
        payload: Payload::Content(Bytes::from_static(b"content")),
    }
}

async fn opened(folder: &TempDir) -> EmbeddedState {
    // Long ago, so that nothing is put off for having been away.
    let opened = open(config(folder.path()), Wakeups::new(), at(-1000.0)).await;
    opened.unwrap()
}
