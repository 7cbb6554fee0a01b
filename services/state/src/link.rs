//! The traits of the SuperLink's state.
//!
//! Every method is one atomic step. `now` is the caller's clock; run leases are applied before a
//! run's status is read.
//!
//! Section numbers, here and in the battery, count the parts of Flower 1.22's behaviour: 3.3 node
//! liveness, 3.4 storing instructions, 3.5 storing replies, 3.6 pulling replies, 3.7 what a valid
//! message is, 3.8 run statuses, 3.9 run leases, 4 objects.

use std::future::Future;

use bytes::Bytes;
use flwr_api::{
    Delivery, FabInfo, Message, MessageId, NodeId, ObjectId, ObjectTree, Run, RunId, RunStatus,
    Token, UnixTime, UserConfig,
};
use flwr_transport::{Body, PublicKey};

use crate::error::{StoreError, StoreResult};
use crate::storage::Beginning;
use crate::wakeups::Wakeups;

/// Everything the SuperLink remembers.
pub trait LinkState: Nodes + Runs + Tokens + Mailbox + Objects + RunLogs {
    /// Where this state says that something has changed.
    fn wakeups(&self) -> &Wakeups;

    /// Makes the signs of life of nodes and runs last that have come until `now`, which may be lost
    /// before. To be called every few seconds: what a process that is gone has missed is counted
    /// from the last time.
    fn checkpoint(&self, now: UnixTime) -> impl Future<Output = StoreResult<()>> + Send;

    /// Whether what is said now can be kept: waits for what is being written, and writes nothing, so anybody may ask.
    /// A disk that fails shows when something is written next, at the latest at the next checkpoint.
    fn check(&self) -> impl Future<Output = StoreResult<()>> + Send;

    /// How much there is of everything, for whoever watches. Leases that have passed meanwhile are
    /// not applied, and what a crash could take back is counted.
    fn census(&self, now: UnixTime) -> impl Future<Output = StoreResult<Census>> + Send;
}

/// How much there is of everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Census {
    /// Nodes whose heartbeats are not overdue.
    pub nodes_online: usize,
    /// Nodes that have joined and not left, and whose heartbeats are overdue.
    pub nodes_offline: usize,
    /// Runs that wait for their ServerApp.
    pub runs_pending: usize,
    /// Runs whose ServerApp has its inputs.
    pub runs_starting: usize,
    /// Runs whose ServerApp runs.
    pub running: Vec<RunId>,
    /// Runs that have ended, by how.
    pub runs_finished: FinishedRuns,
    /// Instructions whose objects are not all here.
    pub incomplete: Queue,
    /// Instructions that wait for their nodes to ask.
    pub ready: Queue,
    /// Instructions that were handed out and are not confirmed: their nodes fetch them.
    pub offered: Queue,
    /// Instructions that their nodes have, and have not answered.
    pub working: Queue,
    /// Instructions whose replies wait, whole, for the ServerApp.
    pub answered: Queue,
    /// Objects that are announced.
    pub objects: usize,
    /// Bytes of those that are here.
    pub object_bytes: u64,
}

/// How many runs have ended, by how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FinishedRuns {
    /// The ServerApp returned, or nobody said.
    pub completed: usize,
    /// The ServerApp raised, or was lost.
    pub failed: usize,
    /// A user stopped it.
    pub stopped: usize,
}

/// Messages that wait for the same thing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Queue {
    /// How many.
    pub len: usize,
    /// When the oldest of them was made, by the clock of its ServerApp.
    pub oldest: Option<UnixTime>,
}

/// A node that wants to join.
#[derive(Clone, Debug)]
pub struct NewNode {
    /// A random id, neither 0 nor 1.
    pub id: NodeId,
    /// The key it has proved to hold; nothing on transports without authentication.
    pub key: Option<PublicKey>,
    /// Seconds until its first heartbeat is overdue.
    pub heartbeat_interval: f64,
}

/// What came of a node's wish to join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeCreation {
    /// It joined under the id it asked for.
    Created,
    /// Somebody has this id already; ask again with another.
    IdTaken,
    /// The key belongs to a node that is online and has been used.
    KeyInUse,
    /// The key's former node was offline; it is gone and this one took its place.
    Replaced(NodeId),
    /// The key joined before and has not done anything since, so its request was repeated: it keeps
    /// this id.
    Repeated(NodeId),
}

/// The nodes that have joined.
pub trait Nodes: Send + Sync + 'static {
    /// Adds a node, online until `now + heartbeat_interval`. A key has at most one node.
    fn create_node(
        &self,
        node: NewNode,
        now: UnixTime,
    ) -> impl Future<Output = StoreResult<NodeCreation>> + Send;

    /// Removes a node and frees its key; false if there was none. Its instructions stay, and wakes
    /// [`Topic::Node`](crate::Topic::Node) and the runs that wait for its replies.
    fn delete_node(&self, node: NodeId) -> impl Future<Output = StoreResult<bool>> + Send;

    /// Keeps a node online until `now + 2 * heartbeat_interval`; false for an unknown one.
    fn beat_node(
        &self,
        node: NodeId,
        heartbeat_interval: f64,
        now: UnixTime,
    ) -> impl Future<Output = StoreResult<bool>> + Send;

    /// The node that `key` belongs to, which counts as used from now on.
    fn node_of_key(
        &self,
        key: &PublicKey,
    ) -> impl Future<Output = StoreResult<Option<NodeId>>> + Send;

    /// Whether the node is known, online or not.
    fn has_node(&self, node: NodeId) -> impl Future<Output = StoreResult<bool>> + Send;

    /// The nodes with `online_until > now`, in ascending order of id.
    fn nodes_online(&self, now: UnixTime) -> impl Future<Output = StoreResult<Vec<NodeId>>> + Send;

    /// Removes nodes that have been offline since before `offline_since` and have no instruction
    /// waiting; returns them.
    fn sweep_nodes(
        &self,
        offline_since: UnixTime,
    ) -> impl Future<Output = StoreResult<Vec<NodeId>>> + Send;
}

/// A run that is submitted.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// A random id.
    pub id: RunId,
    /// A random series that is not 0.
    pub series: u64,
    /// The federation; empty is the default one.
    pub federation: String,
    /// The app.
    pub fab: FabInfo,
    /// Values that replace the app's defaults.
    pub overrides: UserConfig,
    /// The federation's encoded options, if any were given.
    pub options: Option<Bytes>,
}

/// What came of moving a run to another status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transition {
    /// It moved.
    Applied,
    /// The rules forbid the move; the run stays in this status.
    Refused(RunStatus),
    /// There is no such run.
    Unknown,
}

/// What a heartbeat of a run found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beat {
    /// The run is starting or running, and its lease is extended.
    Alive,
    /// The run is in this status, which has no lease.
    NotAlive(RunStatus),
    /// There is no such run.
    Unknown,
}

/// Runs that wait for a launch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LaunchQueue {
    /// Pending runs without a live token, in the order of their submission.
    pub ready: Vec<RunId>,
    /// When the token of another pending run expires, which makes that one ready.
    pub changes_at: Option<UnixTime>,
}

/// The runs.
///
/// A run is leased: entering starting or running gives it [`FIRST_LEASE_SECONDS`], each heartbeat
/// twice its interval. Before any method here (and [`Tokens`], [`Mailbox`]) looks at a run's status,
/// a lease that has passed makes the run finished, failed, with [`LEASE_EXPIRED`] as details.
///
/// Whenever a run enters finished, its instructions, replies and objects are removed (objects other
/// runs use stay), and [`Topic::Run`](crate::Topic::Run) and [`Topic::Log`](crate::Topic::Log) are
/// notified; entering pending notifies [`Topic::Launch`](crate::Topic::Launch).
pub trait Runs: Send + Sync + 'static {
    /// Adds a pending run; false if the id is taken.
    fn create_run(
        &self,
        run: NewRun,
        now: UnixTime,
    ) -> impl Future<Output = StoreResult<bool>> + Send;

    /// One run.
    fn run(
        &self,
        run: RunId,
        now: UnixTime,
    ) -> impl Future<Output = StoreResult<Option<Run>>> + Send;

    /// All runs in the order of their submission.
    fn runs(&self, now: UnixTime) -> impl Future<Output = StoreResult<Vec<Run>>> + Send;

    /// One run's status.
    fn run_status(
        &self,
        run: RunId,
        now: UnixTime,
    ) -> impl Future<Output = StoreResult<Option<RunStatus>>> + Send;

    /// Moves a run, if [`RunStatus::may_become`] allows it.
    fn move_run(
        &self,
        run: RunId,
        to: RunStatus,
        now: UnixTime,
    ) -> impl Future<Output = StoreResult<Transition>> + Send;

    /// Extends a starting or running run's lease to `now + 2 * heartbeat_interval`.
    fn beat_run(
        &self,
        run: RunId,
        heartbeat_interval: f64,
        now: UnixTime,
    ) -> impl Future<Output = StoreResult<Beat>> + Send;

    /// Forgets runs that finished before `finished_before`, and of the others that have finished all but
    /// the latest `latest_max`, with their tokens and logs. Returns them.
    fn sweep_runs(
        &self,
        finished_before: UnixTime,
        latest_max: usize,
    ) -> impl Future<Output = StoreResult<Vec<RunId>>> + Send;

    /// The runs that wait for a launch.
    fn launch_queue(&self, now: UnixTime) -> impl Future<Output = StoreResult<LaunchQueue>> + Send;

    /// When the next lease passes, for whoever applies leases in time: the first moment at which
    /// another method finishes one of the starting and running runs.
    fn next_lease_end(&self) -> impl Future<Output = StoreResult<Option<UnixTime>>> + Send;

    /// The federation options a run was submitted with.
    fn federation_options(
        &self,
        run: RunId,
    ) -> impl Future<Output = StoreResult<Option<Bytes>>> + Send;
}

/// What an app starts with, and what it does to its run.
#[derive(Clone, Debug, PartialEq)]
pub enum StartedApp {
    /// The run is starting now (or was already, by this same token). The context is what the app
    /// left behind earlier, if anything.
    Started(Box<Run>, Option<Bytes>),
    /// The token is none, or was given back.
    InvalidToken,
    /// The run is in this status and cannot start.
    NotPending(RunStatus),
}

/// What came of an app's outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppOutputs {
    /// They are stored, now or by an earlier call with the same token, which is given back.
    Stored,
    /// The token is none.
    InvalidToken,
    /// The run is in this status and takes no outputs.
    NotRunning(RunStatus),
    /// There is no such run, or it is not the token's.
    UnknownRun,
}

/// Who may launch and speak for a run.
///
/// A run has at most one live token. A token whose run is still pending
/// [`LAUNCH_LEASE_SECONDS`] after it was issued is dead, and the run can be claimed again.
pub trait Tokens: Send + Sync + 'static {
    /// Binds `token` to `run`; false if the run is unknown, not pending, or has a live token.
    fn issue_token(
        &self,
        run: RunId,
        token: Token,
        now: UnixTime,
    ) -> impl Future<Output = StoreResult<bool>> + Send;

    /// Moves the token's run from pending to starting and returns what its app starts with.
    fn start_app(
        &self,
        token: &Token,
        now: UnixTime,
    ) -> impl Future<Output = StoreResult<StartedApp>> + Send;

    /// The run a token was issued for, also after it was given back.
    fn run_of_token(
        &self,
        token: &Token,
    ) -> impl Future<Output = StoreResult<Option<RunId>>> + Send;

    /// Stores the context an app leaves behind and gives its token back. The token is looked at
    /// first, then the run's status.
    fn finish_app(
        &self,
        token: &Token,
        run: RunId,
        context: Bytes,
        now: UnixTime,
    ) -> impl Future<Output = StoreResult<AppOutputs>> + Send;
}

/// What a node gets when it asks for work.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivered {
    /// The instruction, with its whole tree available.
    pub delivery: Delivery,
    /// Whether the node was offered it before and has not confirmed it.
    pub again: bool,
}

/// What became of a reply.
#[derive(Clone, Debug, PartialEq)]
pub enum ReplyOutcome {
    /// It is stored.
    Stored,
    /// An earlier reply to the same instruction stands; this one is dropped. Repeating the same
    /// reply is [`ReplyOutcome::Stored`].
    Answered,
    /// It answers nothing that can be answered: why, for the log.
    Rejected(&'static str),
}

/// Replies to a set of instructions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replies {
    /// Replies that are complete, and errors in place of those that will not come, in the order
    /// asked.
    pub ready: Vec<Delivery>,
    /// How many asked ids have no result yet.
    pub waiting: usize,
    /// The earliest time at which one of those gets a result though nobody does anything: its
    /// expiry or its node's.
    pub changes_at: Option<UnixTime>,
}

/// Messages under way.
pub trait Mailbox: Send + Sync + 'static {
    /// Stores instructions and announces their objects for `run`, in one step. Returns for each
    /// message its id, or nothing where the destination is no known node, and the announced
    /// objects that have no bytes yet, each once, children first.
    ///
    /// The messages are valid (section 3.7) and all belong to `run`. A message id that is stored
    /// already is left as it is, delivered or not, and reported as stored. Trees are announced even
    /// for messages that were not stored; such a tree is freed once all its objects have arrived.
    /// For a run that is unknown or finished nothing is stored or announced.
    fn store_instructions(
        &self,
        run: RunId,
        messages: Vec<Message>,
        trees: Vec<ObjectTree>,
        now: UnixTime,
    ) -> impl Future<Output = StoreResult<(Vec<Option<MessageId>>, Vec<ObjectId>)>> + Send;

    /// Offers the node its oldest instruction that is not expired, not answered, not confirmed,
    /// whose run is running and whose whole tree is available. One that was offered before comes
    /// first. An instruction whose tree was never announced is dropped.
    fn deliver(
        &self,
        node: NodeId,
        now: UnixTime,
    ) -> impl Future<Output = StoreResult<Option<Delivered>>> + Send;

    /// Tells of an instruction of the node that is not handed out yet because objects are missing of
    /// its tree: the oldest whose run is running, not expired, and other than `known`. Changes nothing.
    fn announced(
        &self,
        node: NodeId,
        known: &[MessageId],
        now: UnixTime,
    ) -> impl Future<Output = StoreResult<Option<Delivery>>> + Send;

    /// Stores a reply and announces its objects, in one step; the objects are announced even if
    /// the reply is refused, and freed then once all of them have arrived. Checks the rules of
    /// section 3.5 that need state (the generic ones of 3.7 were checked before; `valid` says with
    /// what result). The first complete reply stands.
    fn store_reply(
        &self,
        reply: Message,
        trees: Vec<ObjectTree>,
        valid: Result<(), &'static str>,
        now: UnixTime,
    ) -> impl Future<Output = StoreResult<(ReplyOutcome, Vec<ObjectId>)>> + Send;

    /// Looks for replies to `instructions` of `run` (section 3.6, with complete stored replies
    /// first). Errors that stand for replies are made here, stored as objects, and from then on are
    /// the reply. Repeating it gives the same replies until they are confirmed. For a run that is
    /// unknown or finished everything asked for is waiting.
    fn replies(
        &self,
        run: RunId,
        instructions: &[MessageId],
        now: UnixTime,
    ) -> impl Future<Output = StoreResult<Replies>> + Send;

    /// The receiver has the message and its objects: frees objects nobody else needs. An
    /// instruction stays so that it can be answered, but is not offered again; a confirmed reply
    /// is removed with its instruction. Unknown messages are fine.
    fn confirm(
        &self,
        run: RunId,
        message: ObjectId,
    ) -> impl Future<Output = StoreResult<()>> + Send;
}

/// What became of an object's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// They are stored.
    Stored,
    /// They are there already, or were until they were confirmed; these are dropped.
    Present,
    /// They do not hash to the id.
    WrongHash,
    /// They do not follow the object format.
    Malformed(flwr_api::object::Malformed),
    /// Nobody announced the object.
    Unannounced,
}

/// How far an object has come.
#[derive(Debug)]
pub enum Arrived {
    /// It is decided.
    Over(Put),
    /// It did not arrive whole, or could not be taken at present, and this is what came, where that is kept.
    BrokeOff(Option<Beginning>, StoreError),
}

/// What is known of an object.
#[derive(Debug)]
pub enum Object {
    /// Its bytes.
    Available(Body),
    /// It is announced and has no bytes.
    Pending,
    /// Nobody announced it, or it was deleted.
    Unknown,
}

/// The objects messages are made of (section 4): content-addressed, reference-counted, shared
/// between messages and runs.
///
/// An object is *complete* when it and all below it have bytes.
pub trait Objects: Send + Sync + 'static {
    /// Announces the objects of `trees` for `run` and returns those without bytes, each once,
    /// children first. Nothing is announced for a run that is unknown or finished, nor a tree that
    /// is cyclic, deeper than 64 levels or larger than 2^22 objects: they would never be freed, or
    /// never fit.
    fn announce(
        &self,
        run: RunId,
        trees: &[ObjectTree],
    ) -> impl Future<Output = StoreResult<Vec<ObjectId>>> + Send;

    /// Stores an object's bytes, which are checked on the way: hash, then format, then whether the
    /// object is announced. Notifies [`Topic::Object`](crate::Topic::Object), and for every message
    /// that became complete its node or run.
    ///
    /// # Errors
    /// There is no room, or the body broke off.
    fn put_object(
        &self,
        object: ObjectId,
        body: Body,
    ) -> impl Future<Output = StoreResult<Put>> + Send {
        async move {
            match self.receive_object(object, None, body).await? {
                Arrived::Over(put) => Ok(put),
                Arrived::BrokeOff(_, why) => Err(why),
            }
        }
    }

    /// Stores an object's bytes as [`put_object`](Self::put_object) does, and hands out what came if
    /// the body breaks off. `begun` is what came before of this object; the body is the rest then.
    ///
    /// Dropping the future leaves nothing, or all of the object if that had arrived.
    ///
    /// # Errors
    /// There is no room.
    fn receive_object(
        &self,
        object: ObjectId,
        begun: Option<Beginning>,
        body: Body,
    ) -> impl Future<Output = StoreResult<Arrived>> + Send;

    /// Fetches an object.
    fn object(&self, object: ObjectId) -> impl Future<Output = StoreResult<Object>> + Send;

    /// How many objects are announced, and how many bytes they hold.
    fn object_totals(&self) -> impl Future<Output = StoreResult<(usize, u64)>> + Send;
}

/// A piece of a run's log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogSlice {
    /// The entries, joined.
    pub text: String,
    /// The time of the newest one; nothing if there are none.
    pub latest: Option<UnixTime>,
}

/// The runs' logs.
pub trait RunLogs: Send + Sync + 'static {
    /// Appends an entry under a time that is `now`, or 2 microseconds after the entry before if
    /// that is later; false for an unknown run. Notifies [`Topic::Log`](crate::Topic::Log).
    ///
    /// A run keeps at most [`LOG_BYTES_MAX`] of text; beyond that the oldest entries go.
    fn append_log(
        &self,
        run: RunId,
        text: String,
        now: UnixTime,
    ) -> impl Future<Output = StoreResult<bool>> + Send;

    /// The entries of a run with times greater than `after`, at most about
    /// [`LOG_SLICE_BYTES_MAX`] of them (at least one).
    fn log_after(
        &self,
        run: RunId,
        after: UnixTime,
    ) -> impl Future<Output = StoreResult<LogSlice>> + Send;
}

/// Seconds that a run stays starting, or running, without any heartbeat.
pub const FIRST_LEASE_SECONDS: f64 = 600.0;

/// Seconds that a launch has to fetch its inputs before its run can be claimed again.
pub const LAUNCH_LEASE_SECONDS: f64 = 60.0;

/// Details of a run whose lease has passed; peers show it (Flower 1.22,
/// `server/superlink/linkstate`).
pub const LEASE_EXPIRED: &str = "No heartbeat received from the run.";

/// Most text a run's log keeps, in bytes.
pub const LOG_BYTES_MAX: usize = 64 << 20;

/// Most text one read of a log returns, in bytes: all of it, because `flwr log --show` prints the
/// first answer only.
pub const LOG_SLICE_BYTES_MAX: usize = LOG_BYTES_MAX;
