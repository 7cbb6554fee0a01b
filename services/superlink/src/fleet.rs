//! The Fleet service: SuperNodes join, fetch instructions and bring replies.

use std::time::Duration;

use flwr_api::fleet::{
    Attend, ConfirmMessage, CreateNode, DeleteNode, FleetService, GetAnnounced, GetFab,
    GetReceived, GetRun, Heartbeat, NodeRun, ObjectState, Parcel, PullMessages, PullObject,
    PullParcel, PushMessages, PushObject, PushParcel, Pushed, ResumePull, ResumePush, WatchRun,
};
use flwr_api::{Delivery, Fab, FabHash, NodeId, Reason, RunId};
use flwr_state::{Fabs, LinkState, NewNode, NodeCreation, Object, ReplyOutcome};
use flwr_transport::{Body, Code, Context, Identity, PublicKey, Status};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use crate::entropy;
use crate::gate::Gate;
use crate::metrics::Way::Sent;
use crate::metrics::{Awaited, Held};
use crate::partials::Key;
use crate::superlink::{SuperLink, unavailable};
use crate::validate::{Direction, broken_rules};

/// Serves SuperNodes.
#[derive(Debug)]
pub struct FleetApi<S, F> {
    link: SuperLink<S, F>,
    anonymous_nodes: bool,
}

impl<S: LinkState, F: Fabs> FleetApi<S, F> {
    pub(crate) fn new(link: SuperLink<S, F>, anonymous_nodes: bool) -> Self {
        Self {
            link,
            anonymous_nodes,
        }
    }

    /// The key the caller has proved to hold; nothing where nodes need not prove anything.
    fn key<'a>(&self, context: &'a Context) -> Result<Option<&'a PublicKey>, Status> {
        match &context.peer.identity {
            Identity::NodeKey(key) => Ok(Some(key)),
            _ if self.anonymous_nodes => Ok(None),
            _ => Err(Status::new(
                Code::Unauthenticated,
                "the node has not proved its key",
            )),
        }
    }

    /// Passes if the caller is `node`.
    async fn authorize(&self, context: &Context, node: NodeId) -> Result<(), Status> {
        let Some(key) = self.key(context)? else {
            return Ok(());
        };
        let bound = self.link.state().node_of_key(key).await;
        if bound.map_err(unavailable)? == Some(node) {
            return Ok(());
        }
        Err(Reason::NodeMismatch.refuse("the key belongs to another node or to none"))
    }

    async fn authorize_for_run(
        &self,
        context: &Context,
        node: NodeId,
        run: RunId,
    ) -> Result<(), Status> {
        self.authorize(context, node).await?;
        self.link.require_running(run).await
    }

    async fn find_object(
        &self,
        context: &Context,
        call: PullObject,
    ) -> Result<(ObjectState, Option<Body>), Status> {
        let gate = NodeGate {
            api: self,
            context,
            node: call.node,
            run: call.run,
        };
        let inbox = &self.link.core.inbox;
        let object = inbox.object(context, call.object, call.wait, &gate).await?;
        Ok(answer(object))
    }
}

impl<S: LinkState, F: Fabs> FleetService for FleetApi<S, F> {
    async fn create_node(&self, context: &Context, call: CreateNode) -> Result<NodeId, Status> {
        let key = self.key(context)?;
        loop {
            let id = entropy::node_id(&*self.link.core.entropy);
            let node = NewNode {
                id,
                key: key.cloned(),
                heartbeat_interval: call.heartbeat_interval,
            };
            let created = self.link.state().create_node(node, self.link.now()).await;
            let addr = context.peer.addr;
            match created.map_err(unavailable)? {
                NodeCreation::Created => {
                    info!(node_id = id.0, peer = %addr, "node joined");
                    return Ok(id);
                }
                NodeCreation::Repeated(id) => {
                    debug!(node_id = id.0, peer = %addr, "node repeated its request to join");
                    return Ok(id);
                }
                NodeCreation::Replaced(former) => {
                    self.link.core.inbox.release(former);
                    self.link.core.partials.forget_node(former);
                    info!(
                        node_id = id.0,
                        former_node_id = former.0,
                        peer = %addr,
                        "node joined again with the key of a node that was offline"
                    );
                    return Ok(id);
                }
                NodeCreation::KeyInUse => {
                    return Err(Reason::KeyInUse
                        .refuse("another node that is online uses the same key; give each SuperNode a key of its own"));
                }
                NodeCreation::IdTaken => {}
            }
        }
    }

    async fn delete_node(&self, context: &Context, call: DeleteNode) -> Result<(), Status> {
        if call.node == NodeId::NONE && self.anonymous_nodes {
            return Ok(());
        }
        self.authorize(context, call.node).await?;
        let deleted = self.link.state().delete_node(call.node).await;
        if deleted.map_err(unavailable)? {
            info!(node_id = call.node.0, "node left");
        }
        self.link.core.inbox.release(call.node);
        self.link.core.partials.forget_node(call.node);
        Ok(())
    }

    async fn heartbeat(&self, context: &Context, call: Heartbeat) -> Result<bool, Status> {
        self.authorize(context, call.node).await?;
        let state = self.link.state();
        let now = self.link.now();
        let known = state
            .beat_node(call.node, call.heartbeat_interval, now)
            .await;
        known.map_err(unavailable)
    }

    async fn pull_messages(
        &self,
        context: &Context,
        call: PullMessages,
    ) -> Result<Option<Delivery>, Status> {
        self.authorize(context, call.node).await?;
        let found = self
            .link
            .core
            .inbox
            .instruction(context, call.node, call.wait)
            .await?;
        if let Some(delivery) = &found {
            let metadata = &delivery.message.metadata;
            self.link.core.progress.moved(metadata.run);
            debug!(
                run_id = metadata.run.0,
                node_id = call.node.0,
                message_id = %metadata.id,
                "instruction handed out"
            );
        }
        Ok(found)
    }

    async fn push_messages(&self, context: &Context, call: PushMessages) -> Result<Pushed, Status> {
        self.authorize(context, call.node).await?;
        let reply = call
            .message
            .ok_or_else(|| Reason::MessageMalformed.refuse("there is no message"))?;
        let metadata = &reply.metadata;
        let (run, id) = (metadata.run, metadata.id.clone());
        self.link.require_running(run).await?;
        let now = self.link.now();
        let mut valid = match broken_rules(&reply, Direction::Reply, now).first() {
            Some(rule) => Err(*rule),
            None => Ok(()),
        };
        if metadata.src != call.node && self.key(context)?.is_some() {
            valid = Err("`src_node_id` is not the sender's");
        }
        let state = self.link.state();
        let pushed = state.store_reply(reply, call.trees, valid, now).await;
        let (outcome, missing) = pushed.map_err(unavailable)?;
        let stored = match outcome {
            ReplyOutcome::Stored => {
                self.link.core.progress.moved(run);
                debug!(run_id = run.0, node_id = call.node.0, message_id = %id, objects = missing.len(), "reply announced");
                Some(id)
            }
            ReplyOutcome::Answered => {
                debug!(run_id = run.0, node_id = call.node.0, message_id = %id, "reply dropped: the instruction is answered");
                Some(id)
            }
            ReplyOutcome::Rejected(rule) => {
                warn!(run_id = run.0, node_id = call.node.0, message_id = %id, rule, "reply rejected");
                None
            }
        };
        Ok(Pushed { stored, missing })
    }

    async fn run(&self, context: &Context, call: GetRun) -> Result<Option<NodeRun>, Status> {
        self.authorize(context, call.node).await?;
        let run = self.link.state().run(call.run, self.link.now()).await;
        let Some(run) = run.map_err(unavailable)? else {
            return Ok(None);
        };
        self.link.require_running(call.run).await?;
        Ok(Some(NodeRun {
            id: run.id,
            series: run.series,
            fab: run.fab,
            overrides: run.overrides,
        }))
    }

    async fn fab(&self, context: &Context, call: GetFab) -> Result<Fab, Status> {
        self.authorize_for_run(context, call.node, call.run).await?;
        self.link.app_bundle(call.hash).await
    }

    async fn push_object(
        &self,
        context: &Context,
        call: PushObject,
        body: Body,
    ) -> Result<bool, Status> {
        let PushObject { node, run, object } = call;
        self.authorize_for_run(context, node, run).await?;
        let key = Key { node, run, object };
        self.link.push(context, key, body).await
    }

    async fn pull_object(
        &self,
        context: &Context,
        call: PullObject,
    ) -> Result<(ObjectState, Option<Body>), Status> {
        let run = call.run;
        let found = self.find_object(context, call).await?;
        Ok(self.link.hand_out(context, run, found))
    }

    async fn confirm_message(&self, context: &Context, call: ConfirmMessage) -> Result<(), Status> {
        self.authorize_for_run(context, call.node, call.run).await?;
        let confirmed = self.link.state().confirm(call.run, call.message).await;
        confirmed.map_err(unavailable)
    }

    async fn watch_run(&self, context: &Context, call: WatchRun) -> Result<bool, Status> {
        self.authorize(context, call.node).await?;
        let inbox = &self.link.core.inbox;
        let ended = inbox.end_of_run(context, call.run, call.wait).await?;
        Ok(ended.is_some())
    }

    async fn attend(&self, context: &Context, call: Attend) -> Result<bool, Status> {
        let Some(presence) = &context.presence else {
            return Err(Status::unimplemented("Attend"));
        };
        let Attend {
            node,
            heartbeat_interval,
            wait,
        } = call;
        let enough = Instant::now() + wait;
        loop {
            self.authorize(context, node).await?;
            let heard = self.link.now().plus(-presence.silence().as_secs_f64());
            let state = self.link.state();
            let known = state.beat_node(node, heartbeat_interval, heard).await;
            if !known.map_err(unavailable)? {
                return Ok(false);
            }
            let next = Instant::now() + attention(heartbeat_interval);
            let _held = Held::for_(Awaited::NextHeartbeat);
            tokio::select! {
                biased;
                () = context.drain.requested() => return Ok(true),
                () = sleep_until(next.min(enough)) => {}
            }
            if Instant::now() >= enough {
                return Ok(true);
            }
        }
    }

    async fn pull_parcel(
        &self,
        context: &Context,
        call: PullParcel,
    ) -> Result<Option<Parcel>, Status> {
        let PullParcel { node, wait } = call;
        let call = PullMessages { node, wait };
        let Some(delivery) = self.pull_messages(context, call).await? else {
            return Ok(None);
        };
        let find = async |id| match self.link.state().object(id).await {
            Ok(Object::Available(body)) => Some(body),
            Ok(Object::Pending | Object::Unknown) | Err(_) => None,
        };
        let objects = Parcel::pack(delivery.tree.ids(), find).await;
        let transport = context.peer.transport;
        Sent.count_parcel(transport, &objects);
        Ok(Some(Parcel { delivery, objects }))
    }

    async fn push_parcel(&self, context: &Context, call: PushParcel) -> Result<Pushed, Status> {
        let PushParcel { node, parcel } = call;
        let Delivery { message, tree } = parcel.delivery;
        let run = message.metadata.run;
        let call = PushMessages {
            node,
            message: Some(message),
            trees: vec![tree],
        };
        let mut pushed = self.push_messages(context, call).await?;
        for (object, bytes) in parcel.objects {
            if let Some(at) = pushed.missing.iter().position(|missing| *missing == object)
                && self
                    .link
                    .store_object(context, (run, object), Body::from_bytes(bytes))
                    .await?
            {
                pushed.missing.remove(at);
            }
        }
        Ok(pushed)
    }

    async fn announced(
        &self,
        context: &Context,
        call: GetAnnounced,
    ) -> Result<Option<Delivery>, Status> {
        let GetAnnounced { node, known, wait } = call;
        self.authorize(context, node).await?;
        let inbox = &self.link.core.inbox;
        inbox.announced(context, node, &known, wait).await
    }

    async fn received(&self, context: &Context, call: GetReceived) -> Result<Vec<u64>, Status> {
        let GetReceived { node, run, objects } = call;
        self.authorize_for_run(context, node, run).await?;
        let keys = objects.into_iter().map(|object| Key { node, run, object });
        Ok(self.link.core.partials.received(keys).await)
    }

    async fn resume_push(
        &self,
        context: &Context,
        call: ResumePush,
        body: Body,
    ) -> Result<bool, Status> {
        let ResumePush {
            node,
            run,
            object,
            offset,
        } = call;
        self.authorize_for_run(context, node, run).await?;
        let key = Key { node, run, object };
        self.link.push_rest(context, key, offset, body).await
    }

    async fn resume_pull(
        &self,
        context: &Context,
        call: ResumePull,
    ) -> Result<(ObjectState, Option<Body>), Status> {
        let whole = PullObject {
            node: call.node,
            run: call.run,
            object: call.object,
            wait: call.wait,
        };
        let (state, body) = self.find_object(context, whole).await?;
        let rest = body.map(|body| body.skip(call.offset));
        Ok(self.link.hand_out(context, call.run, (state, rest)))
    }
}

struct NodeGate<'a, S, F> {
    api: &'a FleetApi<S, F>,
    context: &'a Context,
    node: NodeId,
    run: RunId,
}

impl<S: LinkState, F: Fabs> Gate for NodeGate<'_, S, F> {
    async fn check(&self) -> Result<(), Status> {
        self.api
            .authorize_for_run(self.context, self.node, self.run)
            .await
    }
}

/// What both object calls answer.
pub(crate) fn answer(object: Object) -> (ObjectState, Option<Body>) {
    match object {
        Object::Available(body) => (ObjectState::Available, Some(body)),
        Object::Pending => (ObjectState::Pending, None),
        Object::Unknown => (ObjectState::Unknown, None),
    }
}

impl<S: LinkState, F: Fabs> SuperLink<S, F> {
    /// What is handed out of an object of the run is counted.
    pub(crate) fn hand_out(
        &self,
        context: &Context,
        run: RunId,
        (state, body): (ObjectState, Option<Body>),
    ) -> (ObjectState, Option<Body>) {
        let transport = context.peer.transport;
        let body = body.map(|body| {
            self.core.progress.moved(run);
            Sent.count_objects(transport, 1);
            Sent.count_bytes(transport, body)
        });
        (state, body)
    }

    /// Fetches an app bundle for a caller that may.
    pub(crate) async fn app_bundle(&self, hash: FabHash) -> Result<Fab, Status> {
        let content = self.core.fabs.fab(hash).await.map_err(unavailable)?;
        let content = content
            .ok_or_else(|| Reason::FabUnknown.refuse(format!("no app bundle with hash {hash}")))?;
        Ok(Fab { hash, content })
    }
}

/// How long until the next look at a node that promises a sign of life in each interval: half of one.
fn attention(heartbeat_interval: f64) -> Duration {
    let half = Duration::try_from_secs_f64(heartbeat_interval / 2.0).unwrap_or(ATTENTION_MAX);
    half.clamp(ATTENTION_MIN, ATTENTION_MAX)
}

const ATTENTION_MIN: Duration = Duration::from_secs(1);
const ATTENTION_MAX: Duration = Duration::from_secs(60);
