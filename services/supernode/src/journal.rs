//! What this node must not forget when it is killed, on disk: which node it is, what it has in hand,
//! and what its ClientApps left behind for the next ones of their runs.

use bytes::Bytes;
use flwr_api::{Delivery, Metadata, NodeId, RunId};
use flwr_state::Journal;
use flwr_state::journal::NoteName;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::fetch::describe;

/// An instruction that is this node's to answer, and how far that is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct InHand {
    /// The instruction.
    pub(crate) instruction: Delivery,
    /// Its reply, once all of it is here.
    pub(crate) reply: Option<Delivery>,
    /// How often this node was restarted before there was one.
    pub(crate) restarts: u32,
}

/// Everything that was written down.
#[derive(Debug, Default)]
pub(crate) struct Before {
    /// The node that it was.
    pub(crate) node: Option<NodeId>,
    /// What that had in hand.
    pub(crate) in_hand: Vec<InHand>,
    /// What the last ClientApp of each run left behind.
    pub(crate) contexts: Vec<(RunId, Bytes)>,
}

/// A note as it is written. What comes later is added at the end.
#[derive(Serialize, Deserialize)]
enum Note {
    Node(NodeId),
    InHand(Box<InHand>),
    Context(RunId, Bytes),
}

/// The notes. Work goes on where they cannot be written.
#[derive(Debug)]
pub(crate) struct Notes(Journal);

impl InHand {
    /// An instruction that was handed out just now.
    pub(crate) fn new(instruction: &Delivery) -> Self {
        Self {
            instruction: instruction.clone(),
            reply: None,
            restarts: 0,
        }
    }

    pub(crate) fn metadata(&self) -> &Metadata {
        &self.instruction.message.metadata
    }
}

impl Notes {
    pub(crate) fn new(journal: Journal) -> Self {
        Self(journal)
    }

    /// Writes down which node this is.
    pub(crate) async fn joined(&self, node: NodeId) {
        self.write(node_name(), Note::Node(node)).await;
    }

    /// This node has left, so nobody comes back as it.
    pub(crate) async fn left(&self) {
        self.remove(node_name()).await;
    }

    /// Writes down how far an instruction is.
    pub(crate) async fn keep(&self, in_hand: InHand) {
        let name = name(in_hand.metadata());
        self.write(name, Note::InHand(Box::new(in_hand))).await;
    }

    /// The instruction is answered, or nobody wants an answer any more.
    pub(crate) async fn strike(&self, instruction: &Metadata) {
        self.remove(name(instruction)).await;
    }

    /// Writes down what the next ClientApp of a run starts with.
    pub(crate) async fn keep_context(&self, run: RunId, context: Bytes) {
        self.write(context_name(run), Note::Context(run, context))
            .await;
    }

    /// The run is over.
    pub(crate) async fn forget(&self, run: RunId) {
        self.remove(context_name(run)).await;
    }

    /// What was written when this node was last at work.
    pub(crate) async fn read(&self) -> Before {
        let notes = self.0.notes().await.unwrap_or_else(|error| {
            warn!(
                "what was in hand before cannot be read: {}",
                describe(&error)
            );
            Vec::new()
        });
        let mut before = Before::default();
        for (name, note) in notes {
            match postcard::from_bytes(&note) {
                Ok(Note::Node(node)) => before.node = Some(node),
                Ok(Note::InHand(work)) => before.in_hand.push(*work),
                Ok(Note::Context(run, context)) => before.contexts.push((run, context)),
                Err(error) => {
                    warn!(note = %name, %error, "a note is not understood, and removed");
                    // Whoever cannot be removed is read, and not understood, once more.
                    let _ = self.0.remove(name).await;
                }
            }
        }
        before
    }

    async fn write(&self, name: NoteName, note: Note) {
        let written = match postcard::to_stdvec(&note) {
            Ok(note) => self.0.put(name, note).await,
            Err(error) => {
                warn!(%error, "a note has no written form");
                return;
            }
        };
        if let Err(error) = written {
            warn!(
                "a note cannot be written, and a restart would lose it: {}",
                describe(&error)
            );
        }
    }

    async fn remove(&self, name: NoteName) {
        if let Err(error) = self.0.remove(name).await {
            warn!("a note cannot be removed: {}", describe(&error));
        }
    }
}

/// Ids of messages are any text, and those of one run only differ.
fn name(instruction: &Metadata) -> NoteName {
    let Metadata { run, id, .. } = instruction;
    NoteName::of(format!("{run} {id}").as_bytes())
}

fn context_name(run: RunId) -> NoteName {
    NoteName::of(format!("context of {run}").as_bytes())
}

fn node_name() -> NoteName {
    NoteName::of(b"node")
}
