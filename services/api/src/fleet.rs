//! The Fleet service: what SuperNodes ask the SuperLink.

use std::time::Duration;

use bytes::Bytes;
use flwr_transport::Body;

use crate::ids::{FabHash, MessageId, NodeId, ObjectId, RunId};
use crate::message::{Delivery, Message, ObjectTree};
use crate::run::{Fab, FabInfo, UserConfig};

/// What a node needs to know of a run.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct NodeRun {
    /// The run.
    pub id: RunId,
    /// The series it belongs to, which ClientApp state is kept by.
    pub series: u64,
    /// The app.
    pub fab: FabInfo,
    /// Values that replace the app's defaults.
    pub overrides: UserConfig,
}

/// What became of a pushed message.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Pushed {
    /// The id it is stored under, if it was stored.
    pub stored: Option<MessageId>,
    /// Objects the receiver has not got yet.
    pub missing: Vec<ObjectId>,
}

/// What is known of an object that was asked for; available ones come with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ObjectState {
    /// The bytes follow.
    Available,
    /// Announced, but its bytes have not arrived.
    Pending,
    /// Never announced, or deleted.
    Unknown,
}

/// A message and those of its objects that are small, so that they need no round trips of their own.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Parcel {
    /// The message and the tree of its objects.
    pub delivery: Delivery,
    /// Objects with their bytes: each has [`Parcel::OBJECT_BYTES_MAX`] at most, all together
    /// [`Parcel::BYTES_MAX`].
    pub objects: Vec<(ObjectId, Bytes)>,
}

impl Parcel {
    /// The largest object in a parcel: one that travels alone takes hardly longer than a round trip.
    pub const OBJECT_BYTES_MAX: u64 = 16 << 10;
    /// All objects of a parcel, which are held in memory at both ends.
    pub const BYTES_MAX: u64 = 256 << 10;

    /// The small ones of `ids`, as many as there is room for. `find` gives what is here; what cannot be read is left out,
    /// and what is wrong with it shows when it travels alone.
    pub async fn pack<F>(ids: Vec<ObjectId>, find: impl Fn(ObjectId) -> F) -> Vec<(ObjectId, Bytes)>
    where
        F: Future<Output = Option<Body>>,
    {
        let (mut small, mut room) = (Vec::new(), Self::BYTES_MAX);
        for id in ids {
            let body = find(id).await;
            let Some((body, bytes)) = body.and_then(|body| body.len().map(|bytes| (body, bytes)))
            else {
                continue;
            };
            if bytes > Self::OBJECT_BYTES_MAX {
                continue;
            }
            let Some(left) = room.checked_sub(bytes) else {
                break;
            };
            if let Ok(bytes) = body.collect(bytes).await {
                room = left;
                small.push((id, bytes));
            }
        }
        small
    }
}

service! {
    /// Calls of SuperNodes to the SuperLink.
    protocol Fleet = "flwr.fleet", event ();
    service FleetService;
    client FleetClient;

    /// Registers the calling key as a node that counts as online for the next
    /// `heartbeat_interval` seconds. A repeated call of the same caller gets the same node; a
    /// SuperLink of Flower 1.22 says that the key is in use, which a node has to bear anyway.
    unary create_node: CreateNode {
        /// Seconds between the heartbeats the node promises.
        heartbeat_interval: f64,
    } -> NodeId, repeatable;

    /// Takes a node off the list. Node 0 is a no-op.
    unary delete_node: DeleteNode {
        /// The caller.
        node: NodeId,
    } -> (), repeatable;

    /// Extends a node's life to twice `heartbeat_interval` from now; false for an unknown node.
    unary heartbeat: Heartbeat {
        /// The caller.
        node: NodeId,
        /// Seconds between heartbeats.
        heartbeat_interval: f64,
    } -> bool, repeatable;

    /// Hands out the node's next instruction, waiting up to `wait` for one. An instruction is
    /// offered again until the node confirms it.
    unary pull_messages: PullMessages {
        /// The caller.
        node: NodeId,
        /// The longest wait.
        wait: Duration,
    } -> Option<Delivery>, repeatable;

    /// Stores a reply and says which of its objects to send.
    unary push_messages: PushMessages {
        /// The caller.
        node: NodeId,
        /// The reply; nothing if the caller sent none, which is refused once it is known who it is.
        message: Option<Message>,
        /// Its objects.
        trees: Vec<ObjectTree>,
    } -> Pushed, repeatable;

    /// Describes a running run; nothing for an unknown one.
    unary run: GetRun {
        /// The caller.
        node: NodeId,
        /// The run.
        run: RunId,
    } -> Option<NodeRun>, repeatable;

    /// Fetches an app bundle.
    unary fab: GetFab {
        /// The caller.
        node: NodeId,
        /// The run it is wanted for.
        run: RunId,
        /// The bundle.
        hash: FabHash,
    } -> Fab, repeatable;

    /// Stores an announced object; false if the bytes do not fit the id or nobody announced it.
    upload push_object: PushObject {
        /// The caller.
        node: NodeId,
        /// The run it belongs to.
        run: RunId,
        /// The object.
        object: ObjectId,
    } -> bool, repeatable;

    /// Fetches an object, waiting up to `wait` if it is announced but has not arrived.
    download pull_object: PullObject {
        /// The caller.
        node: NodeId,
        /// The run it belongs to.
        run: RunId,
        /// The object.
        object: ObjectId,
        /// The longest wait.
        wait: Duration,
    } -> ObjectState, repeatable;

    /// Says that a message and all its objects have arrived, so that they need not be kept.
    unary confirm_message: ConfirmMessage {
        /// The caller.
        node: NodeId,
        /// The run it belongs to.
        run: RunId,
        /// The message.
        message: ObjectId,
    } -> (), repeatable;

    /// Whether a run is over for the node, told as soon as it is; false after `wait`. Flower has no
    /// such call, so it is unimplemented over gRPC.
    unary watch_run: WatchRun {
        /// The caller.
        node: NodeId,
        /// The run.
        run: RunId,
        /// The longest wait.
        wait: Duration,
    } -> bool, repeatable;

    /// How many bytes are here of each object that the caller began to push and that broke off, in
    /// the order asked; 0 where there is nothing to go on with. What is still under way of these
    /// objects is over with this call. Flower has no such call, so it is unimplemented over gRPC, as
    /// are the two that follow.
    unary received: GetReceived {
        /// The caller.
        node: NodeId,
        /// The run they belong to.
        run: RunId,
        /// The objects.
        objects: Vec<ObjectId>,
    } -> Vec<u64>, repeatable;

    /// Goes on with a push at a byte that `received` has told: the body is the rest of the object.
    /// False also if what came before is not here any more.
    upload resume_push: ResumePush {
        /// The caller.
        node: NodeId,
        /// The run it belongs to.
        run: RunId,
        /// The object.
        object: ObjectId,
        /// How many bytes of it are not sent again.
        offset: u64,
    } -> bool, repeatable;

    /// Fetches the rest of an object of which the caller has `offset` bytes.
    download resume_pull: ResumePull {
        /// The caller.
        node: NodeId,
        /// The run it belongs to.
        run: RunId,
        /// The object.
        object: ObjectId,
        /// How many bytes of it are not wanted again.
        offset: u64,
        /// The longest wait, where it has not arrived.
        wait: Duration,
    } -> ObjectState, repeatable;

    /// Keeps the caller online for as long as its connection shows signs of life, up to `wait`: each counts as a
    /// heartbeat. False for an unknown node. Flower has no such call, and a transport that hears nothing between calls
    /// cannot have it, so it is unimplemented over gRPC.
    unary attend: Attend {
        /// The caller.
        node: NodeId,
        /// Seconds within which there is a sign of life.
        heartbeat_interval: f64,
        /// The longest wait.
        wait: Duration,
    } -> bool, repeatable;

    /// As `pull_messages`, with small objects of the instruction. Flower has no such call, so it is unimplemented over
    /// gRPC, as is the one that follows.
    unary pull_parcel: PullParcel {
        /// The caller.
        node: NodeId,
        /// The longest wait.
        wait: Duration,
    } -> Option<Parcel>, repeatable;

    /// As `push_messages`, with small objects of the reply, which are not missing afterwards.
    unary push_parcel: PushParcel {
        /// The caller.
        node: NodeId,
        /// The reply.
        parcel: Parcel,
    } -> Pushed, repeatable;

    /// Tells of an instruction of the caller's that cannot be handed out yet, because objects of it are still on their
    /// way to the SuperLink: those that are there can be pulled. Waits up to `wait` for one that is none of `known`.
    /// Flower has no such call, so it is unimplemented over gRPC.
    unary announced: GetAnnounced {
        /// The caller.
        node: NodeId,
        /// Instructions that it was told of.
        known: Vec<MessageId>,
        /// The longest wait.
        wait: Duration,
    } -> Option<Delivery>, repeatable;
}
