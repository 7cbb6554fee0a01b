//! The node: joins, stays online, asks for work, and leaves when it is told to.

use std::sync::Arc;
use std::time::Duration;

use flwr_api::fleet::{
    Attend, CreateNode, DeleteNode, FleetClient, Heartbeat, Parcel, PullMessages, PullParcel,
};
use flwr_api::{Launchers, NodeId, Reason, RunId};
use flwr_state::{Clock, DiskFabs, Entropy, Journal, ObjectFiles, fraction};
use flwr_transport::{Code, Drain, Standing, Status};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::ahead::Turns;
use crate::appio::AppIoApi;
use crate::config::{Config, HEARTBEAT_SECONDS};
use crate::desk::Desk;
use crate::fetch::is_unknown_call;
use crate::journal::Notes;
use crate::metrics;
use crate::patience::{Backoff, long};
use crate::runs::Runs;

/// How long a heartbeat may take (Flower 1.22, `common/constant.py`).
const HEARTBEAT_PATIENCE: Duration = Duration::from_secs(5);

/// How long the key of this node may be in use by another before this one gives up: longer than a
/// node that was killed counts as online.
const KEY_PATIENCE: Duration = Duration::from_secs(90);

/// How long leaving may take, with the replies that are on their way.
const LEAVE_PATIENCE: Duration = Duration::from_millis(1500);

/// How often runs are looked at that have not been used for as long.
const IDLE_RUN_PERIOD: Duration = Duration::from_secs(600);

/// A site of a federation. Cheap to clone: all clones are the same.
#[derive(Clone, Debug)]
pub struct SuperNode {
    pub(crate) core: Arc<Core>,
}

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) fleet: FleetClient,
    pub(crate) objects: ObjectFiles,
    pub(crate) notes: Notes,
    pub(crate) fabs: DiskFabs,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) desk: Desk,
    pub(crate) runs: Runs,
    pub(crate) turns: Turns,
    pub(crate) jobs: TaskTracker,
    /// Replies on their way.
    pub(crate) deliveries: TaskTracker,
    pub(crate) slots: Arc<Semaphore>,
    /// Whether the node is one of the SuperLink's.
    pub(crate) standing: Standing,
}

/// Why a SuperNode has ended though nobody asked it to.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Ended {
    /// Another SuperNode holds its key.
    #[error(
        "another SuperNode that is online uses the same key: give each SuperNode a key of its own"
    )]
    KeyInUse,
    /// The SuperLink will not have it.
    #[error("the SuperLink refuses this SuperNode: {0}")]
    Refused(Status),
    /// The SuperLink cannot be reached, for as long as was to be tried.
    #[error("the SuperLink cannot be reached: {0}")]
    Unreachable(Status),
}

/// Why a node is one no longer.
enum Parted {
    /// It was asked to leave.
    Asked,
    /// The SuperLink does not know it any more.
    Forgotten,
    /// There is no use in going on.
    For(Ended),
}

impl SuperNode {
    /// Puts the parts together. `fleet` may be a connection that is made again whenever it breaks;
    /// `journal` belongs to whoever holds `objects`.
    pub fn new(
        config: Config,
        fleet: FleetClient,
        objects: ObjectFiles,
        journal: Journal,
        fabs: DiskFabs,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        metrics::begin();
        Self {
            core: Arc::new(Core {
                slots: Arc::new(Semaphore::new(config.apps_max.max(1))),
                desk: Desk::new(config.apps_max),
                config,
                fleet,
                objects,
                notes: Notes::new(journal),
                fabs,
                clock,
                entropy,
                runs: Runs::default(),
                turns: Turns::default(),
                jobs: TaskTracker::new(),
                deliveries: TaskTracker::new(),
                standing: Standing::not_yet("the node has not joined the SuperLink yet"),
            }),
        }
    }

    /// The service for ClientApps and their launchers, those of `launchers`.
    #[must_use]
    pub fn appio(&self, launchers: Launchers) -> AppIoApi {
        AppIoApi::new(Arc::clone(&self.core), launchers)
    }

    /// Whether the node is one of the SuperLink's, as far as the last answer tells.
    #[must_use]
    pub fn standing(&self) -> &Standing {
        &self.core.standing
    }

    /// Joins, works, and leaves once the drain is asked. Dropping the future leaves without a word.
    ///
    /// # Errors
    /// When the SuperLink refuses the node, or cannot be reached for as long as the transport
    /// tries.
    pub async fn run(&self, drain: &Drain) -> Result<(), Ended> {
        let core = &self.core;
        let mut former = tokio::select! {
            biased;
            () = drain.requested() => return Ok(()),
            former = core.take_place_again() => former?,
        };
        loop {
            let node = tokio::select! {
                biased;
                () = drain.requested() => return Ok(()),
                joined = async {
                    match former.take() {
                        Some(node) => Ok(node),
                        None => core.join().await,
                    }
                } => joined?,
            };
            core.standing.good();
            let parted = tokio::select! {
                biased;
                () = drain.requested() => Parted::Asked,
                parted = core.stay_online(node) => parted,
                parted = core.work(node) => parted,
                () = core.forget_idle_runs(node) => Parted::Asked,
                () = core.fetch_ahead(node) => Parted::Asked,
            };
            core.standing
                .bad("the node is none of the SuperLink's any more");
            match parted {
                Parted::Asked => {
                    core.leave(node).await;
                    return Ok(());
                }
                Parted::Forgotten => {
                    warn!(
                        node_id = node.0,
                        "the SuperLink does not know this node any more; joining again"
                    );
                }
                Parted::For(ended) => {
                    core.leave(node).await;
                    return Err(ended);
                }
            }
        }
    }
}

impl Core {
    /// Registers with the SuperLink.
    async fn join(&self) -> Result<NodeId, Ended> {
        let begun = Instant::now();
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(20));
        loop {
            let call = CreateNode {
                heartbeat_interval: HEARTBEAT_SECONDS,
            };
            let status = match self.fleet.create_node(call, long()).await {
                Ok(node) => {
                    info!(node_id = node.0, "joined the SuperLink");
                    self.notes.joined(node).await;
                    return Ok(node);
                }
                Err(status) => status,
            };
            match status.code {
                Code::Unauthenticated if Reason::of(&status) == Some(Reason::KeyInUse) => {
                    // A node that was killed blocks its key for up to a minute.
                    if begun.elapsed() > KEY_PATIENCE {
                        return Err(Ended::KeyInUse);
                    }
                    info!(
                        "the key of this SuperNode is in use: waiting for the node that has it to go offline"
                    );
                }
                Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented => {
                    return Err(Ended::Refused(status));
                }
                code if code.is_retryable() && self.config.gives_up => {
                    return Err(Ended::Unreachable(status));
                }
                _ => {
                    warn!("the SuperLink did not let this node join: {status}");
                    self.standing.bad(format_args!(
                        "the SuperLink did not let this node join: {status}"
                    ));
                }
            }
            backoff.pause(&*self.entropy).await;
        }
    }

    /// Stays online; ends if the SuperLink does not know the node.
    async fn stay_online(&self, node: NodeId) -> Parted {
        let mut failed = None;
        loop {
            let known = match &failed {
                // Answered at once, which tells that the SuperLink is there again.
                Some(_) => self.beat(node).await,
                None => self.attend_or_beat(node).await,
            };
            match known {
                Ok(true) => {
                    failed = None;
                    self.standing.good();
                }
                Ok(false) => return Parted::Forgotten,
                Err(status) if is_forgotten(&status) => return Parted::Forgotten,
                Err(status) => {
                    debug!(node_id = node.0, "heartbeat failed: {status}");
                    self.standing
                        .bad(format_args!("the last heartbeat failed: {status}"));
                    let first = Duration::from_secs(1);
                    let backoff = failed.get_or_insert_with(|| Backoff::new(first, first * 20));
                    backoff.pause(&*self.entropy).await;
                }
            }
        }
    }

    /// Stays online until the next sign of life is due.
    async fn attend_or_beat(&self, node: NodeId) -> Result<bool, Status> {
        if let Ok(known) = self.attend(node).await {
            return Ok(known);
        }
        // Whoever hears nothing between calls gets heartbeats.
        let known = self.beat(node).await?;
        if known {
            // As Flower paces them: early enough to miss one.
            let part = 0.7 + 0.2 * fraction(&*self.entropy);
            let pause = (HEARTBEAT_SECONDS - 5.0) * part;
            self.standing.good();
            tokio::time::sleep(Duration::from_secs_f64(pause)).await;
        }
        Ok(known)
    }

    /// Has the SuperLink take the connection's own signs of life for heartbeats, for as long as it may.
    async fn attend(&self, node: NodeId) -> Result<bool, Status> {
        let (asked, wait) = (Instant::now(), self.config.hold);
        let call = Attend {
            node,
            heartbeat_interval: HEARTBEAT_SECONDS,
            wait,
        };
        let known = self
            .fleet
            .attend(call, asked + wait + HEARTBEAT_PATIENCE)
            .await?;
        if known && asked.elapsed() < HELD {
            // It shuts down.
            tokio::time::sleep(HELD).await;
        }
        Ok(known)
    }

    /// Sends a heartbeat.
    async fn beat(&self, node: NodeId) -> Result<bool, Status> {
        let call = Heartbeat {
            node,
            heartbeat_interval: HEARTBEAT_SECONDS,
        };
        let deadline = Instant::now() + HEARTBEAT_PATIENCE;
        self.fleet.heartbeat(call, deadline).await
    }

    /// Asks for work and does it.
    async fn work(self: &Arc<Self>, node: NodeId) -> Parted {
        let mut failed = None;
        loop {
            // The semaphore is never closed.
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else {
                return Parted::Asked;
            };
            let asked = Instant::now();
            let worked = match self.ask(node).await {
                Ok(Some(parcel)) => self.accept(node, parcel, slot).await,
                Ok(None) => {
                    if asked.elapsed() < HELD {
                        tokio::time::sleep(self.config.empty_pause).await;
                    }
                    Ok(())
                }
                Err(status) => Err(status),
            };
            let Err(status) = worked else {
                failed = None;
                continue;
            };
            if is_forgotten(&status) {
                return Parted::Forgotten;
            }
            if status.code.is_retryable() && self.config.gives_up {
                return Parted::For(Ended::Unreachable(status));
            }
            if status.code == Code::PermissionDenied {
                debug!("a run ended while its message was on the way");
            } else {
                warn!("the SuperLink could not be asked for work: {status}");
            }
            let first = Duration::from_secs(1);
            let backoff = failed.get_or_insert_with(|| Backoff::new(first, first * 20));
            backoff.pause(&*self.entropy).await;
        }
    }

    /// Asks for an instruction, with its small objects where there are parcels.
    async fn ask(&self, node: NodeId) -> Result<Option<Parcel>, Status> {
        let wait = self.config.hold;
        match self
            .fleet
            .pull_parcel(PullParcel { node, wait }, long())
            .await
        {
            Err(status) if is_unknown_call(&status) => {}
            answered => return answered,
        }
        let call = PullMessages { node, wait };
        let found = self.fleet.pull_messages(call, long()).await?;
        Ok(found.map(|delivery| Parcel {
            delivery,
            objects: Vec::new(),
        }))
    }

    /// Forgets runs that are over; never ends.
    async fn forget_idle_runs(&self, node: NodeId) {
        loop {
            tokio::time::sleep(IDLE_RUN_PERIOD).await;
            let Some(then) = Instant::now().checked_sub(IDLE_RUN_PERIOD) else {
                continue;
            };
            for run in self.runs.unused_since(then) {
                if !self.desk.has_run(run) && self.is_over(node, run).await {
                    debug!(run_id = run.0, "run is over; its state is forgotten");
                    self.forget(run).await;
                }
            }
        }
    }

    /// Forgets a run that is over, and what its ClientApps left behind.
    pub(crate) async fn forget(&self, run: RunId) {
        self.runs.forget(run);
        self.notes.forget(run).await;
    }

    /// Lets replies on their way arrive, and takes the node off the SuperLink's list.
    async fn leave(&self, node: NodeId) {
        let deadline = Instant::now() + LEAVE_PATIENCE;
        self.deliveries.close();
        // A reply that takes longer is lost with its node.
        let _late = tokio::time::timeout(LEAVE_PATIENCE / 2, self.deliveries.wait()).await;
        match self.fleet.delete_node(DeleteNode { node }, deadline).await {
            Ok(()) => {
                self.notes.left().await;
                debug!(node_id = node.0, "left the SuperLink");
            }
            Err(status) => debug!(node_id = node.0, "left without a word: {status}"),
        }
    }
}

/// An empty answer that took this long was held.
pub(crate) const HELD: Duration = Duration::from_secs(1);

/// Whether a refusal means that the SuperLink has forgotten the node: it was restarted, mostly.
pub(crate) fn is_forgotten(status: &Status) -> bool {
    Reason::of(status) == Some(Reason::NodeMismatch)
}
