//! The AppIo service: what apps, and the SuperExecs that launch them, ask a daemon. ServerApps and
//! simulations ask the SuperLink, ClientApps the SuperNode.
//!
//! One table serves all of them. A ClientApp's token stands for one run at one node, so a SuperNode
//! reads who asks from the bearer and ignores what only a ServerApp says; it answers the calls that
//! only concern a SuperLink with [`Code::Unimplemented`](flwr_transport::Code::Unimplemented).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::fleet::{ObjectState, Pushed};
use crate::ids::{FabHash, MessageId, NodeId, ObjectId, RunId, Token};
use crate::message::{Delivery, Message, ObjectTree};
use crate::run::{Fab, Run, RunStatus, UserConfig};

/// The context an app starts with.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum AppContext {
    /// What it left behind when it ran before, encoded and opaque here.
    Kept(Bytes),
    /// It has not run yet: a context without state.
    Fresh {
        /// The node it runs on; 0 for a ServerApp.
        node: NodeId,
        /// How the node is configured.
        node_config: UserConfig,
        /// The app's configuration with the run's overrides; empty for a ServerApp, which works it
        /// out by itself.
        run_config: UserConfig,
    },
}

impl AppContext {
    /// The context of a ServerApp that has left nothing behind.
    #[must_use]
    pub fn empty() -> Self {
        Self::Fresh {
            node: NodeId::NONE,
            node_config: UserConfig::new(),
            run_config: UserConfig::new(),
        }
    }
}

/// What a daemon has to say to whoever launched an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum AppStanding {
    /// It has something to do.
    Wanted,
    /// It has handed in what it had to do.
    Done,
    /// Nobody waits for it any more: its run was stopped, or its claim was taken back.
    Unwanted,
}

/// What an app starts with.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct AppInputs {
    /// Its context.
    pub context: AppContext,
    /// The run.
    pub run: Run,
    /// The app.
    pub fab: Fab,
}

/// What became of pushed messages.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PushedAll {
    /// The id each message is stored under, in the order of the request; nothing where it was not
    /// stored because its destination is unknown.
    pub stored: Vec<Option<MessageId>>,
    /// Objects the receiver has not got yet.
    pub missing: Vec<ObjectId>,
}

impl From<PushedAll> for Pushed {
    fn from(pushed: PushedAll) -> Self {
        Self {
            stored: pushed.stored.into_iter().flatten().next(),
            missing: pushed.missing,
        }
    }
}

service! {
    /// Calls of apps and their launchers.
    protocol AppIo = "flwr.appio", event ();
    service AppIoService;
    client AppIoClient;

    /// Lists runs that wait for a launch, oldest first, waiting up to `wait` for one.
    unary list_apps_to_launch: ListAppsToLaunch {
        /// The longest wait.
        wait: Duration,
    } -> Vec<RunId>, repeatable;

    /// Claims the launch of a run; nothing if somebody else has claimed it.
    unary request_token: RequestToken {
        /// The run.
        run: RunId,
    } -> Option<Token>, once;

    /// Fetches what the app starts with and moves its run to starting. Needs the token as bearer.
    unary pull_inputs: PullInputs {
        /// The longest wait for the token to be bound to a run.
        wait: Duration,
    } -> AppInputs, repeatable;

    /// Hands in what the app leaves behind and gives the token back. Needs the token as bearer.
    unary push_outputs: PushOutputs {
        /// The run.
        run: RunId,
        /// The app's encoded context.
        context: Bytes,
    } -> (), repeatable;

    /// Lists the nodes that are online.
    unary nodes: GetNodes {
        /// The run that asks.
        run: RunId,
    } -> Vec<NodeId>, repeatable;

    /// Stores instructions, or a ClientApp's reply (which needs the token as bearer), and says which
    /// of their objects to send.
    unary push_messages: PushMessages {
        /// The run that sends.
        run: RunId,
        /// The instructions.
        messages: Vec<Message>,
        /// Their objects.
        trees: Vec<ObjectTree>,
    } -> PushedAll, repeatable;

    /// Fetches replies to instructions, waiting up to `wait` for the first and then up to
    /// `linger` for the rest. A reply is handed out again until it is confirmed.
    ///
    /// A ClientApp fetches the one instruction its token was issued for.
    unary pull_messages: PullMessages {
        /// The run that asks.
        run: RunId,
        /// The instructions.
        instructions: Vec<MessageId>,
        /// The longest wait for the first reply.
        wait: Duration,
        /// The longest wait for the others after that.
        linger: Duration,
    } -> Vec<Delivery>, repeatable;

    /// Describes a run; nothing for an unknown one.
    unary run: GetRun {
        /// The run.
        run: RunId,
    } -> Option<Run>, repeatable;

    /// The status of each known run.
    unary run_status: GetRunStatus {
        /// The runs.
        runs: Vec<RunId>,
    } -> BTreeMap<RunId, RunStatus>, repeatable;

    /// Moves a run to another status; a move the rules forbid is ignored.
    unary update_run_status: UpdateRunStatus {
        /// The run.
        run: RunId,
        /// Where it goes; nothing if the caller used a name that is no status.
        status: Option<RunStatus>,
    } -> (), repeatable;

    /// Fetches an app bundle.
    unary fab: GetFab {
        /// The bundle.
        hash: FabHash,
    } -> Fab, repeatable;

    /// Appends to a run's log.
    unary push_logs: PushLogs {
        /// The run.
        run: RunId,
        /// What the app wrote.
        text: String,
    } -> (), once;

    /// Extends a run's lease to twice `heartbeat_interval` from now; false if it has not started or
    /// is unknown.
    unary heartbeat: Heartbeat {
        /// The run.
        run: RunId,
        /// Seconds between heartbeats.
        heartbeat_interval: f64,
    } -> bool, repeatable;

    /// Stores an announced object; see the Fleet call of the same name.
    upload push_object: PushObject {
        /// The caller, which must be the SuperLink's own node.
        node: NodeId,
        /// The run it belongs to.
        run: RunId,
        /// The object.
        object: ObjectId,
    } -> bool, repeatable;

    /// Fetches an object; see the Fleet call of the same name.
    download pull_object: PullObject {
        /// The caller, which must be the SuperLink's own node.
        node: NodeId,
        /// The run it belongs to.
        run: RunId,
        /// The object.
        object: ObjectId,
        /// The longest wait.
        wait: Duration,
    } -> ObjectState, repeatable;

    /// Says that a reply and all its objects have arrived, so that they need not be kept.
    unary confirm_message: ConfirmMessage {
        /// The run it belongs to.
        run: RunId,
        /// The reply.
        message: ObjectId,
    } -> (), repeatable;

    /// The encoded options of the federation that a simulated run was submitted with.
    unary federation_options: GetFederationOptions {
        /// The run.
        run: RunId,
    } -> Bytes, repeatable;

    /// Waits up to `wait` for the app to be wanted no longer. Needs the token as bearer. For
    /// launchers: an app that is not wanted is ended, one that is done ends by itself.
    unary watch_app: WatchApp {
        /// The longest wait.
        wait: Duration,
    } -> AppStanding, repeatable;

    /// Reports that the process of an app has ended, however it ended. Needs the token as bearer.
    /// If the app has not handed in its outputs it has failed, and whoever waits for them is told.
    unary report_app_exit: ReportAppExit {
        /// How it ended, for people: an exit status, a signal, or why it could not be started.
        how: String,
    } -> (), repeatable;
}
