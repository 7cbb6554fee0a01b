//! Messages between a ServerApp and the ClientApps.

use std::collections::HashSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{MessageId, NodeId, ObjectId, RunId};
use crate::time::UnixTime;

/// One message, without the objects it is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Where it comes from and goes to.
    pub metadata: Metadata,
    /// Content or error.
    pub payload: Payload,
}

/// A message's envelope. An *instruction* goes from the SuperLink to a node, a *reply* back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// The run it belongs to.
    pub run: RunId,
    /// Its name, chosen by the sender.
    pub id: MessageId,
    /// The sender.
    pub src: NodeId,
    /// The receiver.
    pub dst: NodeId,
    /// The instruction a reply answers; empty on instructions.
    pub reply_to: MessageId,
    /// The app's own grouping, by custom the round.
    pub group_id: String,
    /// How long it is valid after `created_at`, in seconds.
    pub ttl: f64,
    /// Category and action, such as `train` or `query.stats`.
    pub message_type: String,
    /// When the sender made it, by the sender's clock.
    pub created_at: UnixTime,
}

impl Metadata {
    /// When the message stops being valid.
    #[must_use]
    pub fn expires_at(&self) -> UnixTime {
        self.created_at.plus(self.ttl)
    }

    /// The instruction this message answers, if it is a reply.
    #[must_use]
    pub fn replied(&self) -> Option<&MessageId> {
        Some(&self.reply_to).filter(|id| !id.as_str().is_empty())
    }
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Payload {
    /// The encoded records, opaque here. Empty where they travel as objects, which is always with
    /// stock peers.
    Content(Bytes),
    /// The app failed.
    Error(AppError),
}

/// Why an app, or somebody on its behalf, sent no content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppError {
    /// One of Flower's error codes.
    pub code: i64,
    /// A text for people.
    pub reason: Option<String>,
}

impl AppError {
    /// The app could not be loaded, or its process never got as far as its message.
    pub const APP_NOT_LOADED: i64 = 1;
    /// The app raised an exception, or its process ended while it worked on the message.
    pub const APP_RAISED: i64 = 2;
    /// The instruction is unknown or has expired.
    pub const MESSAGE_UNAVAILABLE: i64 = 3;
    /// The reply has expired.
    pub const REPLY_MESSAGE_UNAVAILABLE: i64 = 4;
    /// The node is offline or gone.
    pub const NODE_UNAVAILABLE: i64 = 5;
}

/// The shape of a message's objects: ids without contents.
///
/// Children stand in the order of the object's header; an object with several parents appears
/// under each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectTree {
    /// The object.
    pub id: ObjectId,
    /// What it is made of.
    pub children: Vec<Self>,
}

impl ObjectTree {
    /// An object without children.
    #[must_use]
    pub fn leaf(id: ObjectId) -> Self {
        Self {
            id,
            children: Vec::new(),
        }
    }

    /// Every object once, children before their parent.
    #[must_use]
    pub fn ids(&self) -> Vec<ObjectId> {
        let (mut seen, mut ids) = (HashSet::new(), Vec::new());
        self.post_order(&mut |tree| {
            if seen.insert(tree.id) {
                ids.push(tree.id);
            }
        });
        ids
    }

    /// Calls `visit` for every object, children before their parent.
    pub fn post_order(&self, visit: &mut impl FnMut(&Self)) {
        for child in &self.children {
            child.post_order(visit);
        }
        visit(self);
    }
}

/// A message as it is handed out: with the shape of its objects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// Its objects, rooted at the message's own.
    pub tree: ObjectTree,
}
