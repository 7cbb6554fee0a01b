//! The tables as rows, for whoever keeps a copy of them.
//!
//! What can be derived from other rows is in none.

use bytes::Bytes;
use flwr_api::{Message, NodeId, ObjectId, Run, RunId, Token, UnixTime};
use flwr_transport::PublicKey;

use crate::storage::Content;

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeRow {
    /// Its id.
    pub id: NodeId,
    /// The key that it has proved to hold.
    pub key: Option<PublicKey>,
    /// Until when it counts as online.
    pub online_until: UnixTime,
    /// Whether it has done anything since it joined.
    pub used: bool,
}

/// A run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRow {
    /// The run itself.
    pub run: Run,
    /// Its place in the order of submission.
    pub place: usize,
    /// The options of its federation, encoded.
    pub options: Option<Bytes>,
    /// What its app has left behind, encoded.
    pub context: Option<Bytes>,
    /// When it is given up.
    pub lease_end: Option<UnixTime>,
}

/// A run's token.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenRow {
    /// The token.
    pub token: Token,
    /// The run that it speaks for.
    pub run: RunId,
    /// When it was issued.
    pub issued_at: UnixTime,
    /// Whether it was given back.
    pub spent: bool,
}

/// An instruction. Within its run it is found by its id, in which upper and lower case are the same
/// if it is a hash.
#[derive(Clone, Debug, PartialEq)]
pub struct InstructionRow {
    /// The run that it is kept for, which its metadata may belie.
    pub run: RunId,
    /// The message.
    pub message: Message,
    /// Its place in the order of arrival.
    pub arrival: u64,
    /// Whether its node has been handed it.
    pub offered: bool,
    /// Whether its node has got it.
    pub confirmed: bool,
    /// Whether it is not handed out any more.
    pub retired: bool,
}

/// What a reply is the reply of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Of {
    /// An instruction of its run.
    Instruction,
    /// An id that was asked for and that no instruction has.
    Nothing,
}

/// A reply. Within its run it is found by the id it replies to, and by what that is.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplyRow {
    /// The run that it is kept for, which its metadata may belie.
    pub run: RunId,
    /// What it is the reply of.
    pub of: Of,
    /// The message.
    pub message: Message,
    /// Whether it stands from now on.
    pub settled: bool,
    /// Whether it is an error that was made here.
    pub synthetic: bool,
}

/// A registered object.
#[derive(Debug)]
pub struct ObjectRow {
    /// Its id.
    pub id: ObjectId,
    /// The ids of its children, in their order.
    pub children: Vec<ObjectId>,
    /// Its bytes, if they have come.
    pub content: Option<Content>,
}

/// One row that a step has changed: as it is after the step, or that it is gone.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A node.
    Node(NodeId, Option<NodeRow>),
    /// A run.
    Run(RunId, Option<RunRow>),
    /// A token.
    Token(Token, Option<TokenRow>),
    /// An instruction, by its run and name.
    Instruction(RunId, String, Option<InstructionRow>),
    /// A reply, by its run and the name of what it is the reply of.
    Reply(RunId, String, Of, Option<ReplyRow>),
    /// Whether the tree with this root is kept for the run only until it is complete.
    Unwanted(RunId, ObjectId, bool),
    /// Whether the tree is kept for the run only until the node asks for other work.
    Abandoned(NodeId, RunId, ObjectId, bool),
    /// The run has no instructions, no replies and none of the two above.
    NoMessages(RunId),
    /// An object is registered with these children and has no bytes, or it is gone.
    Object(ObjectId, Option<Vec<ObjectId>>),
    /// An object has so many bytes: these, or those of its file. Nothing if they were lost.
    Content(ObjectId, Option<(u64, Option<Bytes>)>),
    /// Whether the run holds the object.
    Hold(RunId, ObjectId, bool),
    /// The object that went as the one with this number, if that is remembered.
    Gone(u64, Option<ObjectId>),
    /// All rows are as of this moment.
    AsOf(UnixTime),
}

/// All rows.
#[derive(Debug, Default)]
pub struct Rows {
    /// When they were last written as a whole.
    pub as_of: Option<UnixTime>,
    /// The nodes.
    pub nodes: Vec<NodeRow>,
    /// The runs.
    pub runs: Vec<RunRow>,
    /// The last token of each run.
    pub tokens: Vec<TokenRow>,
    /// The instructions.
    pub instructions: Vec<InstructionRow>,
    /// The replies.
    pub replies: Vec<ReplyRow>,
    /// Trees that are kept only until they are complete.
    pub unwanted: Vec<(RunId, ObjectId)>,
    /// Trees that are kept only until a node asks for other work.
    pub abandoned: Vec<(NodeId, RunId, ObjectId)>,
    /// The objects.
    pub objects: Vec<ObjectRow>,
    /// The objects whose bytes have come once and cannot be read any more.
    pub lost: Vec<ObjectId>,
    /// Which run holds which object.
    pub holds: Vec<(RunId, ObjectId)>,
    /// The objects that went last, with their numbers in the order of going.
    pub gone: Vec<(u64, ObjectId)>,
}
