//! State in memory: the reference for every other back end.
//!
//! Each table is a plain struct in a file of its own that knows no clock and no locks. [`Inner`]
//! joins them and does what concerns several; [`MemoryState`] puts one mutex around it, held for
//! one step at a time and never across an await. Bytes are checked before, trees built, waiters
//! woken and memory given back after it is held.

mod links;
mod logs;
mod mailbox;
mod nodes;
mod objects;
mod replies;
mod runs;
mod shelves;
mod tokens;

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flwr_api::{
    Message, MessageId, NodeId, ObjectId, ObjectTree, Phase, RunId, RunStatus, Token, UnixTime,
};

use self::logs::Logs;
use self::mailbox::{Mailbox, Offer};
use self::nodes::Nodes;
use self::objects::{Objects, Stored};
use self::replies::Found;
use self::runs::Runs;
use self::tokens::Tokens;
use crate::link::{
    AppOutputs, LaunchQueue, NewNode, NewRun, NodeCreation, ReplyOutcome, StartedApp, Transition,
};
use crate::wakeups::{Topic, Wakeups};

/// State in memory. Cheap to clone: all clones are the same state.
#[derive(Clone, Debug, Default)]
pub struct MemoryState {
    inner: Arc<Mutex<Inner>>,
    wakeups: Wakeups,
}

#[derive(Debug, Default)]
struct Inner {
    nodes: Nodes,
    runs: Runs,
    tokens: Tokens,
    mailbox: Mailbox,
    objects: Objects,
    logs: Logs,
    /// What has changed in this step.
    changed: Vec<Topic>,
}

impl MemoryState {
    /// State with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Does one atomic step, and wakes whom it concerns.
    fn step<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut inner);
        let changed = std::mem::take(&mut inner.changed);
        let woken = std::mem::take(&mut inner.mailbox.woken);
        let removed = inner.objects.take_removed();
        drop(inner);
        for topic in changed.into_iter().chain(woken) {
            self.wakeups.notify(topic);
        }
        for (object, content) in removed {
            drop(content);
            self.wakeups.notify(Topic::Object(object));
        }
        result
    }
}

impl Inner {
    fn create_node(&mut self, node: NewNode, now: UnixTime) -> NodeCreation {
        let creation = self.nodes.create(node, now);
        if let NodeCreation::Replaced(former) = creation {
            self.node_is_gone(former);
        }
        creation
    }

    fn delete_node(&mut self, node: NodeId) -> bool {
        let deleted = self.nodes.delete(node);
        if deleted {
            self.node_is_gone(node);
        }
        deleted
    }

    fn sweep_nodes(&mut self, offline_since: UnixTime) -> Vec<NodeId> {
        let mut idle = self.nodes.offline_before(offline_since);
        idle.retain(|node| !self.mailbox.has_work(*node, offline_since));
        for node in &idle {
            self.delete_node(*node);
        }
        idle
    }

    fn node_is_gone(&mut self, node: NodeId) {
        self.mailbox.remove_node(node, &mut self.objects);
        self.changed.push(Topic::Node(node));
        let waiting = self.mailbox.runs_that_wait_for(node);
        self.changed.extend(waiting.into_iter().map(Topic::Run));
    }

    fn create_run(&mut self, run: NewRun, now: UnixTime) -> bool {
        let created = self.runs.create(run, now);
        if created {
            self.changed.push(Topic::Launch);
        }
        created
    }

    /// Finishes runs whose leases have passed. Every step that looks at a run's status does this
    /// first.
    fn expire_runs(&mut self, now: UnixTime) {
        while let Some(run) = self.runs.expire_one(now) {
            tracing::warn!(%run, "run failed: its app has stopped sending heartbeats");
            self.status_changed(run);
        }
    }

    fn move_run(&mut self, run: RunId, to: RunStatus, now: UnixTime) -> Transition {
        self.expire_runs(now);
        let transition = self.runs.shift(run, to, now);
        if transition == Transition::Applied {
            self.status_changed(run);
        }
        transition
    }

    fn status_changed(&mut self, run: RunId) {
        match self.runs.phase(run) {
            Some(Phase::Finished) => {
                self.mailbox.remove_run(run);
                self.objects.release_all(run);
            }
            Some(Phase::Running) => {
                let nodes = self.mailbox.nodes_with_work_of(run);
                self.changed.extend(nodes.into_iter().map(Topic::Node));
            }
            _ => {}
        }
        self.changed.extend([Topic::Run(run), Topic::Log(run)]);
    }

    fn launch_queue(&mut self, now: UnixTime) -> LaunchQueue {
        self.expire_runs(now);
        let mut queue = LaunchQueue::default();
        for run in self.runs.pending() {
            match self.tokens.launch_end(run).filter(|end| *end > now) {
                None => queue.ready.push(run),
                Some(end) => {
                    let sooner = queue.changes_at.map_or(end, |other| other.min(end));
                    queue.changes_at = Some(sooner);
                }
            }
        }
        queue
    }

    fn start_app(&mut self, token: &Token, now: UnixTime) -> StartedApp {
        self.expire_runs(now);
        let Some(claim) = self.tokens.get(token).filter(|claim| !claim.spent) else {
            return StartedApp::InvalidToken;
        };
        let Some(run) = self.runs.get(claim.run) else {
            return StartedApp::InvalidToken;
        };
        match run.status.phase {
            Phase::Pending if claim.launch_end() <= now => return StartedApp::InvalidToken,
            Phase::Pending => {
                self.move_run(claim.run, RunStatus::of(Phase::Starting), now);
            }
            // The answer before this one may have been lost.
            Phase::Starting => {}
            Phase::Running | Phase::Finished => {
                return StartedApp::NotPending(run.status.clone());
            }
        }
        let context = self.runs.context(claim.run);
        self.runs
            .get(claim.run)
            .map_or(StartedApp::InvalidToken, |run| {
                StartedApp::Started(Box::new(run.clone()), context)
            })
    }

    fn finish_app(
        &mut self,
        token: &Token,
        run: RunId,
        context: Bytes,
        now: UnixTime,
    ) -> AppOutputs {
        self.expire_runs(now);
        let Some(claim) = self.tokens.get(token) else {
            return AppOutputs::InvalidToken;
        };
        let known = self.runs.get(run).filter(|_| claim.run == run);
        let Some(status) = known.map(|run| &run.status) else {
            return AppOutputs::UnknownRun;
        };
        if claim.spent {
            return AppOutputs::Stored;
        }
        if status.phase != Phase::Running {
            return AppOutputs::NotRunning(status.clone());
        }
        self.runs.set_context(run, context);
        self.tokens.spend(token);
        AppOutputs::Stored
    }

    fn announce(&mut self, run: RunId, trees: &[ObjectTree]) -> Vec<ObjectId> {
        if !self.runs.is_open(run) {
            // Nothing would ever free them.
            return Vec::new();
        }
        self.objects.announce(run, trees)
    }

    fn store_instructions(
        &mut self,
        run: RunId,
        messages: Vec<Message>,
        trees: &[ObjectTree],
        now: UnixTime,
    ) -> (Vec<Option<MessageId>>, Vec<ObjectId>) {
        self.expire_runs(now);
        if !self.runs.is_open(run) {
            return (vec![None; messages.len()], Vec::new());
        }
        let missing = self.objects.announce(run, trees);
        let mut stored = Vec::with_capacity(messages.len());
        for message in messages {
            let id = message.metadata.id.clone();
            if self.mailbox.knows(run, &id) {
                stored.push(Some(id));
            } else if self.nodes.has(message.metadata.dst) {
                self.mailbox.store(run, message, &mut self.objects);
                stored.push(Some(id));
            } else {
                stored.push(None);
            }
        }
        for tree in trees {
            self.mailbox.discard(run, tree.id, &mut self.objects);
        }
        (stored, missing)
    }

    fn deliver(&mut self, node: NodeId, now: UnixTime) -> Option<Offer> {
        self.expire_runs(now);
        let runs = &self.runs;
        let running = |run| runs.phase(run) == Some(Phase::Running);
        self.mailbox.deliver(node, now, running, &mut self.objects)
    }

    fn store_reply(
        &mut self,
        reply: Message,
        trees: &[ObjectTree],
        valid: Result<(), &'static str>,
        now: UnixTime,
    ) -> (ReplyOutcome, Vec<ObjectId>) {
        self.expire_runs(now);
        let run = reply.metadata.run;
        if !self.runs.is_open(run) {
            return (ReplyOutcome::Rejected("the run is not open"), Vec::new());
        }
        let missing = self.objects.announce(run, trees);
        let outcome = match valid {
            Ok(()) => self.mailbox.store_reply(reply, now, &mut self.objects),
            Err(reason) => ReplyOutcome::Rejected(reason),
        };
        for tree in trees {
            self.mailbox.discard(run, tree.id, &mut self.objects);
        }
        (outcome, missing)
    }

    fn replies(&mut self, run: RunId, instructions: &[MessageId], now: UnixTime) -> Found {
        self.expire_runs(now);
        if !self.runs.is_open(run) {
            // Errors made now would never be freed; whoever asks learns of the status first.
            return Found {
                waiting: instructions.len(),
                ..Found::default()
            };
        }
        let (nodes, objects) = (&self.nodes, &mut self.objects);
        replies::find(&mut self.mailbox, nodes, objects, run, instructions, now)
    }

    fn put_object(&mut self, object: ObjectId, content: Bytes) -> Stored {
        let stored = self.objects.put(object, content);
        if let Stored::Kept(roots) = &stored {
            self.changed.push(Topic::Object(object));
            for (run, root) in roots {
                self.mailbox.completed(*run, *root, &mut self.objects);
            }
        }
        stored
    }
}

/// A peer's promise, where everything that is no length of time counts as 0 seconds.
fn interval_seconds(interval: f64) -> f64 {
    // The maximum of NaN and a number is the number.
    interval.max(0.0)
}
