//! The traits of state, each method one step.

use std::sync::Arc;

use bytes::Bytes;
use flwr_api::{
    Delivery, Message, MessageId, NodeId, ObjectId, ObjectTree, Phase, Run, RunId, RunStatus,
    Token, UnixTime,
};
use flwr_transport::{Body, PublicKey};

use super::State;
use crate::error::StoreResult;
use crate::link::{
    AppOutputs, Arrived, Beat, Census, Delivered, LaunchQueue, LinkState, LogSlice, Mailbox,
    NewNode, NewRun, NodeCreation, Nodes, Object, Objects, Put, Replies, ReplyOutcome, RunLogs,
    Runs, StartedApp, Tokens, Transition,
};
use crate::storage::{Accepted, Beginning, Source, Storage};
use crate::tables::{Shape, Stored, Tables};
use crate::wakeups::{Topic, Wakeups};

impl<S: Storage> LinkState for State<S> {
    fn wakeups(&self) -> &Wakeups {
        &self.inner.wakeups
    }

    async fn checkpoint(&self, now: UnixTime) -> StoreResult<()> {
        if !S::KEEPS_ROWS {
            return Ok(());
        }
        self.step(|tables| tables.catch_up(now)).await
    }

    async fn check(&self) -> StoreResult<()> {
        self.step(|_| ()).await
    }

    async fn census(&self, now: UnixTime) -> StoreResult<Census> {
        Ok(self.look(|tables| tables.census(now)))
    }
}

impl<S: Storage> Nodes for State<S> {
    async fn create_node(&self, node: NewNode, now: UnixTime) -> StoreResult<NodeCreation> {
        self.step(|tables| tables.create_node(node, now)).await
    }

    async fn delete_node(&self, node: NodeId) -> StoreResult<bool> {
        self.step(|tables| tables.delete_node(node)).await
    }

    async fn beat_node(
        &self,
        node: NodeId,
        heartbeat_interval: f64,
        now: UnixTime,
    ) -> StoreResult<bool> {
        Ok(self
            .apply(|tables| tables.nodes.beat(node, heartbeat_interval, now))
            .0)
    }

    async fn node_of_key(&self, key: &PublicKey) -> StoreResult<Option<NodeId>> {
        Ok(self.apply(|tables| tables.nodes.of_key(key)).0)
    }

    async fn has_node(&self, node: NodeId) -> StoreResult<bool> {
        Ok(self.apply(|tables| tables.nodes.has(node)).0)
    }

    async fn nodes_online(&self, now: UnixTime) -> StoreResult<Vec<NodeId>> {
        Ok(self.apply(|tables| tables.nodes.online(now)).0)
    }

    async fn sweep_nodes(&self, offline_since: UnixTime) -> StoreResult<Vec<NodeId>> {
        self.step(|tables| tables.sweep_nodes(offline_since)).await
    }
}

impl<S: Storage> Runs for State<S> {
    async fn create_run(&self, run: NewRun, now: UnixTime) -> StoreResult<bool> {
        self.step(|tables| tables.create_run(run, now)).await
    }

    async fn run(&self, run: RunId, now: UnixTime) -> StoreResult<Option<Run>> {
        self.step(|tables| {
            tables.expire_runs(now);
            tables.runs.get(run).cloned()
        })
        .await
    }

    async fn runs(&self, now: UnixTime) -> StoreResult<Vec<Run>> {
        self.step(|tables| {
            tables.expire_runs(now);
            tables.runs.all()
        })
        .await
    }

    async fn run_status(&self, run: RunId, now: UnixTime) -> StoreResult<Option<RunStatus>> {
        let (status, position) = self.apply(|tables| {
            tables.expire_runs(now);
            tables.runs.get(run).map(|run| run.status.clone())
        });
        // That it goes on is what whoever asks believes anyway.
        if status
            .as_ref()
            .is_some_and(|status| status.phase == Phase::Finished)
        {
            self.storage().settle(position).await?;
        }
        Ok(status)
    }

    async fn move_run(&self, run: RunId, to: RunStatus, now: UnixTime) -> StoreResult<Transition> {
        self.step(|tables| tables.move_run(run, to, now)).await
    }

    async fn beat_run(
        &self,
        run: RunId,
        heartbeat_interval: f64,
        now: UnixTime,
    ) -> StoreResult<Beat> {
        let beat = self.apply(|tables| {
            tables.expire_runs(now);
            tables.runs.beat(run, heartbeat_interval, now)
        });
        Ok(beat.0)
    }

    async fn sweep_runs(
        &self,
        finished_before: UnixTime,
        latest_max: usize,
    ) -> StoreResult<Vec<RunId>> {
        self.step(|tables| tables.sweep_runs(finished_before, latest_max))
            .await
    }

    async fn launch_queue(&self, now: UnixTime) -> StoreResult<LaunchQueue> {
        self.step(|tables| tables.launch_queue(now)).await
    }

    async fn next_lease_end(&self) -> StoreResult<Option<UnixTime>> {
        Ok(self.apply(|tables| tables.runs.next_lease_end()).0)
    }

    async fn federation_options(&self, run: RunId) -> StoreResult<Option<Bytes>> {
        self.step(|tables| tables.runs.options(run)).await
    }
}

impl<S: Storage> Tokens for State<S> {
    async fn issue_token(&self, run: RunId, token: Token, now: UnixTime) -> StoreResult<bool> {
        self.step(|tables| {
            tables.expire_runs(now);
            tables.runs.phase(run) == Some(Phase::Pending) && tables.tokens.issue(run, token, now)
        })
        .await
    }

    async fn start_app(&self, token: &Token, now: UnixTime) -> StoreResult<StartedApp> {
        self.step(|tables| tables.start_app(token, now)).await
    }

    async fn run_of_token(&self, token: &Token) -> StoreResult<Option<RunId>> {
        let run = |tables: &mut Tables| tables.tokens.get(token).map(|claim| claim.run);
        Ok(self.apply(run).0)
    }

    async fn finish_app(
        &self,
        token: &Token,
        run: RunId,
        context: Bytes,
        now: UnixTime,
    ) -> StoreResult<AppOutputs> {
        self.step(|tables| tables.finish_app(token, run, context, now))
            .await
    }
}

impl<S: Storage> Mailbox for State<S> {
    async fn store_instructions(
        &self,
        run: RunId,
        messages: Vec<Message>,
        trees: Vec<ObjectTree>,
        now: UnixTime,
    ) -> StoreResult<(Vec<Option<MessageId>>, Vec<ObjectId>)> {
        self.step(|tables| tables.store_instructions(run, messages, &trees, now))
            .await
    }

    async fn deliver(&self, node: NodeId, now: UnixTime) -> StoreResult<Option<Delivered>> {
        self.storage().admit().await?;
        let (offer, position) = self.apply(|tables| tables.deliver(node, now));
        let Some(offer) = offer else {
            return Ok(None);
        };
        self.storage().settle(position).await?;
        Ok(Some(Delivered {
            delivery: delivery((offer.message, offer.shape)),
            again: offer.again,
        }))
    }

    async fn announced(
        &self,
        node: NodeId,
        known: &[MessageId],
        now: UnixTime,
    ) -> StoreResult<Option<Delivery>> {
        let (found, _) = self.apply(|tables| tables.announced(node, known, now));
        Ok(found.map(delivery))
    }

    async fn store_reply(
        &self,
        reply: Message,
        trees: Vec<ObjectTree>,
        valid: Result<(), &'static str>,
        now: UnixTime,
    ) -> StoreResult<(ReplyOutcome, Vec<ObjectId>)> {
        self.step(|tables| tables.store_reply(reply, &trees, valid, now))
            .await
    }

    async fn replies(
        &self,
        run: RunId,
        instructions: &[MessageId],
        now: UnixTime,
    ) -> StoreResult<Replies> {
        self.storage().admit().await?;
        let (found, position) = self.apply(|tables| tables.replies(run, instructions, now));
        if !found.ready.is_empty() {
            self.storage().settle(position).await?;
        }
        Ok(Replies {
            ready: found.ready.into_iter().map(delivery).collect(),
            waiting: found.waiting,
            changes_at: found.changes_at,
        })
    }

    async fn confirm(&self, run: RunId, message: ObjectId) -> StoreResult<()> {
        self.step(|tables| tables.confirm(run, message)).await
    }
}

impl<S: Storage> Objects for State<S> {
    async fn announce(&self, run: RunId, trees: &[ObjectTree]) -> StoreResult<Vec<ObjectId>> {
        self.step(|tables| tables.announce(run, trees)).await
    }

    async fn receive_object(
        &self,
        object: ObjectId,
        begun: Option<Beginning>,
        body: Body,
    ) -> StoreResult<Arrived> {
        let (source, _) = self.apply(|tables| tables.objects.source(object));
        let is_wanted = matches!(source, Some(None));
        if let Some(Err(why)) = begun.as_ref().map(|begun| begun.fits(&body)) {
            return Ok(Arrived::BrokeOff(None, why.into()));
        }
        // A database that is busy costs nothing of what came before.
        if let Err(error) = self.storage().admit().await {
            return Ok(Arrived::BrokeOff(begun, error));
        }
        let accepted = if begun.is_some() && !is_wanted {
            // The rest alone says nothing, and nobody needs it.
            Accepted::Taken(None)
        } else {
            let storage = self.storage();
            storage.accept(object, is_wanted, begun, body).await?
        };
        let content = match accepted {
            Accepted::Taken(Some(content)) => content,
            // Another call may have stored it and not know yet whether that lasts.
            Accepted::Taken(None) => {
                let was_here = self.step(|tables| tables.objects.was_here(object)).await?;
                return Ok(Arrived::Over(if source.is_some() || was_here {
                    Put::Present
                } else {
                    Put::Unannounced
                }));
            }
            Accepted::Refused(wrong) => return Ok(Arrived::Over(wrong)),
            Accepted::BrokeOff(beginning, why) => {
                return Ok(Arrived::BrokeOff(beginning, why.into()));
            }
        };
        let stored = self
            .step(|tables| tables.put_object(object, content))
            .await?;
        Ok(Arrived::Over(match stored {
            Stored::Kept(_) => Put::Stored,
            Stored::Present => Put::Present,
            Stored::Unannounced => Put::Unannounced,
        }))
    }

    async fn object(&self, object: ObjectId) -> StoreResult<Object> {
        let look = || self.apply(|tables| tables.objects.source(object));
        let (source, position) = look();
        let source = match source {
            None => return Ok(Object::Unknown),
            Some(None) => return Ok(Object::Pending),
            Some(Some(source)) => source,
        };
        if matches!(source, Source::Row) {
            self.storage().settle(position).await?;
        }
        if let Some(body) = self.storage().read(object, source).await? {
            return Ok(Object::Available(body));
        }
        // It may have been removed meanwhile, or else it is lost.
        let (source, position) = look();
        if matches!(source, Some(Some(_))) {
            self.lose(object);
            self.storage().settle(position).await?;
        }
        Ok(Object::Unknown)
    }

    async fn object_totals(&self) -> StoreResult<(usize, u64)> {
        Ok(self.apply(|tables| tables.objects.totals()).0)
    }
}

impl<S: Storage> RunLogs for State<S> {
    async fn append_log(&self, run: RunId, text: String, now: UnixTime) -> StoreResult<bool> {
        let (is_known, _) = self.apply(|tables| tables.runs.get(run).is_some());
        if is_known {
            self.storage().append_log(run, text, now).await?;
            self.wakeups().notify(Topic::Log(run));
        }
        Ok(is_known)
    }

    async fn log_after(&self, run: RunId, after: UnixTime) -> StoreResult<LogSlice> {
        self.storage().log_after(run, after).await
    }
}

/// A message and its tree, which is made outside of the step.
fn delivery((message, shape): (Message, Arc<Shape>)) -> Delivery {
    let tree = shape.tree();
    Delivery { message, tree }
}
