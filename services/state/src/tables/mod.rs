//! The SuperLink's state as tables in memory, whatever else is kept of them.
//!
//! Each table is a plain struct in a file of its own that knows no clock and no locks. [`Tables`]
//! joins them and does what concerns several: one method is one step. Bytes are checked before,
//! trees built, waiters woken and memory given back after a step.

mod census;
mod gone;
mod mailbox;
mod marks;
mod nodes;
mod objects;
mod replies;
pub mod rows;
mod runs;
mod shelves;
mod tokens;

use std::collections::HashSet;
use std::mem::take;
use std::sync::Arc;

use bytes::Bytes;
use flwr_api::{
    Message, MessageId, NodeId, ObjectId, ObjectTree, Phase, RunId, RunStatus, Token, UnixTime,
};

use self::mailbox::{Mailbox, Offer};
use self::nodes::Nodes;
use self::objects::Objects;
pub(crate) use self::objects::{Damaged, Shape, Stored};
use self::replies::Found;
use self::rows::{Change, Rows};
use self::runs::Runs;
use self::tokens::Tokens;
use crate::link::{
    AppOutputs, LaunchQueue, NewNode, NewRun, NodeCreation, ReplyOutcome, StartedApp, Transition,
};
use crate::storage::{Changes, Content};
use crate::wakeups::Topic;

/// All tables.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(crate) nodes: Nodes,
    pub(crate) runs: Runs,
    pub(crate) tokens: Tokens,
    mailbox: Mailbox,
    pub(crate) objects: Objects,
    /// Who may have to look again since this was last taken.
    pub(crate) changed: Vec<Topic>,
    /// The latest time that a step was given.
    seen: UnixTime,
    /// When all rows were last made complete, until that is copied too.
    as_of: Option<UnixTime>,
    /// Runs that are forgotten since this was last taken.
    forgotten: Vec<RunId>,
}

impl Tables {
    /// Tables from the rows of a former process, as of `now`. The time since the rows were written
    /// does not count: nobody could send heartbeats.
    ///
    /// # Errors
    /// The rows do not fit together.
    pub(crate) fn restore(mut rows: Rows, now: UnixTime) -> Result<Self, Damaged> {
        let away = rows
            .as_of
            .map_or(0.0, |as_of| as_of.until(now).as_secs_f64());
        let back = Return { now, away };
        let mut tables = Self::default();
        // These rows are other ones by that.
        tables.nodes.marks.turn_on();
        tables.runs.marks.turn_on();
        tables.tokens.marks.turn_on();
        tables.nodes.restore(take(&mut rows.nodes), back);
        tables.runs.restore(take(&mut rows.runs), back);
        tables.tokens.restore(take(&mut rows.tokens), back);
        tables.objects.restore(&mut rows)?;
        tables.mailbox.restore(&mut rows, &tables.objects);
        tables.keep_marks();
        tables.give_up(&rows.lost.into_iter().collect(), now);
        Ok(tables)
    }

    /// Notes from now on which rows change.
    pub(crate) fn keep_marks(&mut self) {
        self.nodes.marks.turn_on();
        self.runs.marks.turn_on();
        self.tokens.marks.turn_on();
        self.mailbox.marks.turn_on();
        self.objects.marks.turn_on();
    }

    /// What has changed since this was last taken.
    pub(crate) fn take_changes(&mut self) -> Changes {
        let (nodes, runs, tokens) = (&mut self.nodes, &mut self.runs, &mut self.tokens);
        let mut rows = Vec::new();
        for id in nodes.marks.take() {
            rows.push(Change::Node(id, nodes.row(id)));
        }
        for run in runs.marks.take() {
            rows.push(Change::Run(run, runs.row(run)));
        }
        for token in tokens.marks.take() {
            let row = tokens.row(&token);
            rows.push(Change::Token(token, row));
        }
        for key in self.mailbox.marks.take() {
            rows.push(self.mailbox.change(key));
        }
        for key in self.objects.marks.take() {
            rows.extend(self.objects.change(&key));
        }
        rows.extend(self.as_of.take().map(Change::AsOf));
        let removed = self.objects.take_removed();
        let forgotten = take(&mut self.forgotten);
        Changes {
            rows,
            removed,
            forgotten,
        }
    }

    /// Who may have to look again since this was last taken.
    pub(crate) fn take_woken(&mut self) -> Vec<Topic> {
        let mut woken = take(&mut self.changed);
        woken.append(&mut self.mailbox.woken);
        woken
    }

    /// Makes the copies of all rows complete with this step, the rows included that could have waited.
    pub(crate) fn catch_up(&mut self, now: UnixTime) {
        self.as_of = Some(now);
        self.nodes.marks.hurry();
        self.runs.marks.hurry();
    }

    /// The bytes of objects turned out to be lost. What cannot be handed out without them is
    /// answered with errors; returns how much that was.
    pub(crate) fn lose(&mut self, lost: &HashSet<ObjectId>) -> usize {
        self.objects.lose(lost);
        self.give_up(lost, self.seen)
    }

    fn give_up(&mut self, lost: &HashSet<ObjectId>, now: UnixTime) -> usize {
        if lost.is_empty() {
            return 0;
        }
        replies::give_up(&mut self.mailbox, &mut self.objects, lost, now)
    }
}

impl Tables {
    pub(crate) fn create_node(&mut self, node: NewNode, now: UnixTime) -> NodeCreation {
        let creation = self.nodes.create(node, now);
        if let NodeCreation::Replaced(former) = creation {
            self.node_is_gone(former);
        }
        creation
    }

    pub(crate) fn delete_node(&mut self, node: NodeId) -> bool {
        let deleted = self.nodes.delete(node);
        if deleted {
            self.node_is_gone(node);
        }
        deleted
    }

    pub(crate) fn sweep_nodes(&mut self, offline_since: UnixTime) -> Vec<NodeId> {
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

    pub(crate) fn create_run(&mut self, run: NewRun, now: UnixTime) -> bool {
        let created = self.runs.create(run, now);
        if created {
            self.changed.push(Topic::Launch);
        }
        created
    }

    /// Finishes runs whose leases have passed. Every step that looks at a run's status does this
    /// first.
    pub(crate) fn expire_runs(&mut self, now: UnixTime) {
        self.seen = self.seen.max(now);
        while let Some(run) = self.runs.expire_one(now) {
            tracing::warn!(%run, "run failed: its app has stopped sending heartbeats");
            self.status_changed(run);
        }
    }

    pub(crate) fn move_run(&mut self, run: RunId, to: RunStatus, now: UnixTime) -> Transition {
        self.expire_runs(now);
        let transition = self.runs.shift(run, to, now);
        if transition == Transition::Applied {
            self.status_changed(run);
        }
        transition
    }

    pub(crate) fn sweep_runs(
        &mut self,
        finished_before: UnixTime,
        latest_max: usize,
    ) -> Vec<RunId> {
        let gone = self.runs.forget_finished(finished_before, latest_max);
        for run in &gone {
            self.tokens.forget(*run);
            self.changed.extend([Topic::Run(*run), Topic::Log(*run)]);
        }
        self.forgotten.extend(&gone);
        gone
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

    pub(crate) fn launch_queue(&mut self, now: UnixTime) -> LaunchQueue {
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

    pub(crate) fn start_app(&mut self, token: &Token, now: UnixTime) -> StartedApp {
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

    pub(crate) fn finish_app(
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

    pub(crate) fn announce(&mut self, run: RunId, trees: &[ObjectTree]) -> Vec<ObjectId> {
        if !self.runs.is_open(run) {
            // Nothing would ever free them.
            return Vec::new();
        }
        self.objects.announce(run, trees)
    }

    pub(crate) fn store_instructions(
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

    pub(crate) fn deliver(&mut self, node: NodeId, now: UnixTime) -> Option<Offer> {
        self.expire_runs(now);
        let runs = &self.runs;
        let running = |run| runs.phase(run) == Some(Phase::Running);
        self.mailbox.deliver(node, now, running, &mut self.objects)
    }

    pub(crate) fn announced(
        &mut self,
        node: NodeId,
        known: &[MessageId],
        now: UnixTime,
    ) -> Option<(Message, Arc<Shape>)> {
        self.expire_runs(now);
        let running = |run| self.runs.phase(run) == Some(Phase::Running);
        self.mailbox
            .announced(node, known, now, running, &self.objects)
    }

    pub(crate) fn store_reply(
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

    pub(crate) fn replies(
        &mut self,
        run: RunId,
        instructions: &[MessageId],
        now: UnixTime,
    ) -> Found {
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

    pub(crate) fn confirm(&mut self, run: RunId, message: ObjectId) {
        self.mailbox.confirm(run, message, &mut self.objects);
    }

    pub(crate) fn put_object(&mut self, object: ObjectId, content: Content) -> Stored {
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

/// A process that begins where another one ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Return {
    now: UnixTime,
    /// For how long nobody was there, in seconds.
    away: f64,
}

impl Return {
    /// A moment before which a peer had to be heard. Who was expected is so for as long as peers
    /// take to notice that somebody is there again.
    pub(crate) fn put_off(self, end: UnixTime) -> UnixTime {
        let end = end.plus(self.away);
        if end < self.now {
            return end;
        }
        end.max(self.now.plus(RETURN_SECONDS))
    }

    /// A moment in the past that something is counted from.
    pub(crate) fn put_off_start(self, start: UnixTime) -> UnixTime {
        start.plus(self.away)
    }
}

/// Flower's programs try again every 20 s at least.
const RETURN_SECONDS: f64 = 30.0;

/// A peer's promise, where everything that is no length of time counts as 0 seconds.
fn interval_seconds(interval: f64) -> f64 {
    // The maximum of NaN and a number is the number.
    interval.max(0.0)
}
