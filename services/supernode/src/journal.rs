//! What this node has in hand, on disk: should it be killed, it knows after its restart which
//! replies are still to be delivered, and which instructions it owes an answer.

use flwr_api::{Delivery, Metadata, NodeId};
use flwr_state::Journal;
use flwr_state::journal::NoteName;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::fetch::describe;

/// An instruction that is this node's to answer, and how far that is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct InHand {
    /// The instruction.
    pub(crate) instruction: Metadata,
    /// Its reply, once all of it is here.
    pub(crate) reply: Option<Delivery>,
}

/// The instructions in hand. Work goes on where they cannot be written down.
#[derive(Debug)]
pub(crate) struct Notes(Journal);

impl InHand {
    /// The node that has it in hand.
    pub(crate) fn node(&self) -> NodeId {
        self.instruction.dst
    }
}

impl Notes {
    pub(crate) fn new(journal: Journal) -> Self {
        Self(journal)
    }

    /// Writes down how far an instruction is.
    pub(crate) async fn keep(&self, instruction: &Metadata, reply: Option<&Delivery>) {
        let in_hand = InHand {
            instruction: instruction.clone(),
            reply: reply.cloned(),
        };
        let written = match postcard::to_stdvec(&in_hand) {
            Ok(note) => self.0.put(name(instruction), note).await,
            Err(error) => {
                warn!(%error, "what is in hand has no written form");
                return;
            }
        };
        if let Err(error) = written {
            warn!(
                "what is in hand cannot be written down, and a restart would lose it: {}",
                describe(&error)
            );
        }
    }

    /// The instruction is answered, or nobody wants an answer any more.
    pub(crate) async fn strike(&self, instruction: &Metadata) {
        if let Err(error) = self.0.remove(name(instruction)).await {
            warn!("a note cannot be removed: {}", describe(&error));
        }
    }

    /// What was in hand when this node was last at work.
    pub(crate) async fn read(&self) -> Vec<InHand> {
        let notes = self.0.notes().await.unwrap_or_else(|error| {
            warn!(
                "what was in hand before cannot be read: {}",
                describe(&error)
            );
            Vec::new()
        });
        let mut in_hand = Vec::new();
        for (name, note) in notes {
            match postcard::from_bytes(&note) {
                Ok(read) => in_hand.push(read),
                Err(error) => {
                    warn!(note = %name, %error, "a note is not understood, and removed");
                    // Whoever cannot be removed is read, and not understood, once more.
                    let _ = self.0.remove(name).await;
                }
            }
        }
        in_hand
    }
}

/// Ids of messages are any text, and those of one run only differ.
fn name(instruction: &Metadata) -> NoteName {
    let Metadata { run, id, .. } = instruction;
    NoteName::of(format!("{run} {id}").as_bytes())
}
