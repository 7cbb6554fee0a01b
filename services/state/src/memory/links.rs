//! The traits of state, each method one step.

use bytes::Bytes;
use flwr_api::{
    Delivery, Message, MessageId, NodeId, ObjectId, ObjectTree, Phase, Run, RunId, RunStatus,
    Token, UnixTime,
};
use flwr_transport::{Body, PublicKey};

use super::objects::Stored;
use super::{MemoryState, logs};
use crate::error::{StoreError, StoreResult};
use crate::link::{
    AppOutputs, Beat, Delivered, LaunchQueue, LinkState, LogSlice, Mailbox, NewNode, NewRun,
    NodeCreation, Nodes, Object, Objects, Put, Replies, ReplyOutcome, RunLogs, Runs, StartedApp,
    Tokens, Transition,
};
use crate::wakeups::{Topic, Wakeups};

impl LinkState for MemoryState {
    fn wakeups(&self) -> &Wakeups {
        &self.wakeups
    }
}

impl Nodes for MemoryState {
    async fn create_node(&self, node: NewNode, now: UnixTime) -> StoreResult<NodeCreation> {
        Ok(self.step(|inner| inner.create_node(node, now)))
    }

    async fn delete_node(&self, node: NodeId) -> StoreResult<bool> {
        Ok(self.step(|inner| inner.delete_node(node)))
    }

    async fn beat_node(
        &self,
        node: NodeId,
        heartbeat_interval: f64,
        now: UnixTime,
    ) -> StoreResult<bool> {
        Ok(self.step(|inner| inner.nodes.beat(node, heartbeat_interval, now)))
    }

    async fn node_of_key(&self, key: &PublicKey) -> StoreResult<Option<NodeId>> {
        Ok(self.step(|inner| inner.nodes.of_key(key)))
    }

    async fn has_node(&self, node: NodeId) -> StoreResult<bool> {
        Ok(self.step(|inner| inner.nodes.has(node)))
    }

    async fn nodes_online(&self, now: UnixTime) -> StoreResult<Vec<NodeId>> {
        Ok(self.step(|inner| inner.nodes.online(now)))
    }

    async fn sweep_nodes(&self, offline_since: UnixTime) -> StoreResult<Vec<NodeId>> {
        Ok(self.step(|inner| inner.sweep_nodes(offline_since)))
    }
}

impl Runs for MemoryState {
    async fn create_run(&self, run: NewRun, now: UnixTime) -> StoreResult<bool> {
        Ok(self.step(|inner| inner.create_run(run, now)))
    }

    async fn run(&self, run: RunId, now: UnixTime) -> StoreResult<Option<Run>> {
        Ok(self.step(|inner| {
            inner.expire_runs(now);
            inner.runs.get(run).cloned()
        }))
    }

    async fn runs(&self, now: UnixTime) -> StoreResult<Vec<Run>> {
        Ok(self.step(|inner| {
            inner.expire_runs(now);
            inner.runs.all()
        }))
    }

    async fn run_status(&self, run: RunId, now: UnixTime) -> StoreResult<Option<RunStatus>> {
        Ok(self.step(|inner| {
            inner.expire_runs(now);
            inner.runs.get(run).map(|run| run.status.clone())
        }))
    }

    async fn move_run(&self, run: RunId, to: RunStatus, now: UnixTime) -> StoreResult<Transition> {
        Ok(self.step(|inner| inner.move_run(run, to, now)))
    }

    async fn beat_run(
        &self,
        run: RunId,
        heartbeat_interval: f64,
        now: UnixTime,
    ) -> StoreResult<Beat> {
        Ok(self.step(|inner| {
            inner.expire_runs(now);
            inner.runs.beat(run, heartbeat_interval, now)
        }))
    }

    async fn launch_queue(&self, now: UnixTime) -> StoreResult<LaunchQueue> {
        Ok(self.step(|inner| inner.launch_queue(now)))
    }

    async fn next_lease_end(&self) -> StoreResult<Option<UnixTime>> {
        Ok(self.step(|inner| inner.runs.next_lease_end()))
    }

    async fn federation_options(&self, run: RunId) -> StoreResult<Option<Bytes>> {
        Ok(self.step(|inner| inner.runs.options(run)))
    }
}

impl Tokens for MemoryState {
    async fn issue_token(&self, run: RunId, token: Token, now: UnixTime) -> StoreResult<bool> {
        Ok(self.step(|inner| {
            inner.expire_runs(now);
            inner.runs.phase(run) == Some(Phase::Pending) && inner.tokens.issue(run, token, now)
        }))
    }

    async fn start_app(&self, token: &Token, now: UnixTime) -> StoreResult<StartedApp> {
        Ok(self.step(|inner| inner.start_app(token, now)))
    }

    async fn run_of_token(&self, token: &Token) -> StoreResult<Option<RunId>> {
        Ok(self.step(|inner| inner.tokens.get(token).map(|claim| claim.run)))
    }

    async fn finish_app(
        &self,
        token: &Token,
        run: RunId,
        context: Bytes,
        now: UnixTime,
    ) -> StoreResult<AppOutputs> {
        Ok(self.step(|inner| inner.finish_app(token, run, context, now)))
    }
}

impl Mailbox for MemoryState {
    async fn store_instructions(
        &self,
        run: RunId,
        messages: Vec<Message>,
        trees: Vec<ObjectTree>,
        now: UnixTime,
    ) -> StoreResult<(Vec<Option<MessageId>>, Vec<ObjectId>)> {
        Ok(self.step(|inner| inner.store_instructions(run, messages, &trees, now)))
    }

    async fn deliver(&self, node: NodeId, now: UnixTime) -> StoreResult<Option<Delivered>> {
        let offer = self.step(|inner| inner.deliver(node, now));
        Ok(offer.map(|offer| Delivered {
            delivery: Delivery {
                message: offer.message,
                tree: offer.shape.tree(),
            },
            again: offer.again,
        }))
    }

    async fn store_reply(
        &self,
        reply: Message,
        trees: Vec<ObjectTree>,
        valid: Result<(), &'static str>,
        now: UnixTime,
    ) -> StoreResult<(ReplyOutcome, Vec<ObjectId>)> {
        Ok(self.step(|inner| inner.store_reply(reply, &trees, valid, now)))
    }

    async fn replies(
        &self,
        run: RunId,
        instructions: &[MessageId],
        now: UnixTime,
    ) -> StoreResult<Replies> {
        let found = self.step(|inner| inner.replies(run, instructions, now));
        let delivery = |(message, shape): (Message, std::sync::Arc<super::objects::Shape>)| {
            let tree = shape.tree();
            Delivery { message, tree }
        };
        Ok(Replies {
            ready: found.ready.into_iter().map(delivery).collect(),
            waiting: found.waiting,
            changes_at: found.changes_at,
        })
    }

    async fn confirm(&self, run: RunId, message: ObjectId) -> StoreResult<()> {
        self.step(|inner| inner.mailbox.confirm(run, message, &mut inner.objects));
        Ok(())
    }
}

impl Objects for MemoryState {
    async fn announce(&self, run: RunId, trees: &[ObjectTree]) -> StoreResult<Vec<ObjectId>> {
        Ok(self.step(|inner| inner.announce(run, trees)))
    }

    async fn put_object(&self, object: ObjectId, body: Body) -> StoreResult<Put> {
        let content = body.collect(OBJECT_BYTES_MAX).await?;
        let checked = if content.len() > BLOCKING_BYTES_MAX {
            let content = content.clone();
            tokio::task::spawn_blocking(move || check(object, &content))
                .await
                .map_err(|_| StoreError::Stopped)?
        } else {
            check(object, &content)
        };
        if let Err(refused) = checked {
            return Ok(refused);
        }
        let content = unpinned(content);
        Ok(match self.step(|inner| inner.put_object(object, content)) {
            Stored::Kept(_) => Put::Stored,
            Stored::Present => Put::Present,
            Stored::Unannounced => Put::Unannounced,
        })
    }

    async fn object(&self, object: ObjectId) -> StoreResult<Object> {
        Ok(match self.step(|inner| inner.objects.get(object)) {
            Some(Some(content)) => Object::Available(Body::from_bytes(content)),
            Some(None) => Object::Pending,
            None => Object::Unknown,
        })
    }

    async fn object_totals(&self) -> StoreResult<(usize, u64)> {
        Ok(self.step(|inner| inner.objects.totals()))
    }
}

impl RunLogs for MemoryState {
    async fn append_log(&self, run: RunId, text: String, now: UnixTime) -> StoreResult<bool> {
        let entry = logs::entry(&text);
        Ok(self.step(|inner| {
            let known = inner.runs.get(run).is_some();
            if known {
                inner.logs.append(run, entry, now);
                inner.changed.push(Topic::Log(run));
            }
            known
        }))
    }

    async fn log_after(&self, run: RunId, after: UnixTime) -> StoreResult<LogSlice> {
        Ok(self.step(|inner| inner.logs.after(run, after)).join())
    }
}

/// Checks an object's bytes: hash, then format.
fn check(object: ObjectId, content: &Bytes) -> Result<(), Put> {
    if ObjectId::of(content) != object {
        return Err(Put::WrongHash);
    }
    flwr_api::object::check(content).map_err(Put::Malformed)?;
    Ok(())
}

/// Moves few bytes out of what may be a large receive buffer that they would keep alive.
fn unpinned(content: Bytes) -> Bytes {
    if content.len() <= COPIED_BYTES_MAX {
        return Bytes::copy_from_slice(&content);
    }
    content
}

/// Objects up to this size get memory of their own; larger ones are kept as they came.
const COPIED_BYTES_MAX: usize = 16 << 10;

/// Largest object that is taken, in bytes: what a gRPC message can carry.
const OBJECT_BYTES_MAX: u64 = 2 << 30;

/// More bytes than this are hashed on a thread of their own.
const BLOCKING_BYTES_MAX: usize = 1 << 20;
