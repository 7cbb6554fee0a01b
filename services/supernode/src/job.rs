//! One instruction from the moment it is handed out until its reply is delivered.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use flwr_api::fleet::{GetRun, Parcel, WatchRun};
use flwr_api::{
    AppError, Delivery, Message, MessageId, Metadata, NodeId, ObjectTree, Payload, RunId, object,
};
use flwr_state::Pin;
use flwr_transport::{Body, Code, Status};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::deliver::{Before, Delivered, log_round};
use crate::desk::{Line, Look};
use crate::fetch::{FetchError, describe};
use crate::journal::InHand;
use crate::metrics::Fetching;
use crate::node::{Core, is_forgotten};
use crate::patience::{Insisting, is_final};
use crate::recover::unavailable;

/// How often the SuperLink is asked whether the run of an app at work goes on, where it does not tell.
const RUN_CHECK_PERIOD: Duration = Duration::from_secs(5);

/// How long an app whose connection is gone may take to call over another one.
const CALL_AGAIN: Duration = Duration::from_secs(2);

/// After this much silence, the end of a connection does not mean the end of the app (gRPC core
/// closes connections that were idle for 30 minutes).
const SILENCE: Duration = Duration::from_secs(25 * 60);

impl Core {
    /// Brings an instruction here and takes responsibility for it; the rest goes on in the
    /// background. A second offer of an instruction that is here is confirmed again and dropped.
    ///
    /// # Errors
    /// What the SuperLink refuses to confirm with: the instruction is not ours then.
    pub(crate) async fn accept(
        self: &Arc<Self>,
        node: NodeId,
        parcel: Parcel,
        slot: OwnedSemaphorePermit,
    ) -> Result<(), Status> {
        let delivery = &parcel.delivery;
        let metadata = &delivery.message.metadata;
        if self.desk.has(&metadata.id) {
            return self.confirm(node, delivery).await;
        }
        log_round(metadata.run, &metadata.group_id);
        info!(
            "Received: {} message {}",
            metadata.message_type, metadata.id
        );
        let brought = {
            let _fetching = Fetching::begin();
            self.bring(node, &parcel).await
        };
        match brought {
            Ok(pin) => {
                self.notes.keep(InHand::new(delivery)).await;
                if let Err(refused) = self.confirm(node, delivery).await {
                    self.notes.strike(metadata).await;
                    return Err(refused);
                }
                let (id, delivery) = (metadata.id.clone(), parcel.delivery);
                self.desk.put(delivery.clone(), pin, slot);
                let core = Arc::clone(self);
                self.jobs
                    .spawn(async move { core.see_through(node, delivery, id).await });
                Ok(())
            }
            Err(FetchError::RunOver) => {
                self.ignore(metadata);
                self.forget(metadata.run).await;
                Ok(())
            }
            Err(FetchError::Refused(status)) if is_final(&status) => Err(status),
            Err(error) => {
                warn!(run_id = metadata.run.0, message_id = %metadata.id, "the message cannot be worked on: {error}");
                self.confirm(node, delivery).await?;
                let failure = unavailable(&error);
                let (core, delivery) = (Arc::clone(self), parcel.delivery);
                self.jobs.spawn(async move {
                    core.fail(node, &delivery.message.metadata, failure).await;
                });
                Ok(())
            }
        }
    }

    /// Fetches the instruction. What is here by the time a call fails is not fetched again.
    pub(crate) async fn bring(&self, node: NodeId, parcel: &Parcel) -> Result<Pin, FetchError> {
        let _turn = self.turns.wait(&parcel.delivery.message.metadata.id).await;
        let mut insisting = Insisting::default();
        loop {
            let fetched = async {
                self.run(node, parcel.delivery.message.metadata.run).await?;
                self.objects(node, parcel).await
            };
            match fetched.await {
                Err(FetchError::Refused(status)) => insisting.bear(status, &*self.entropy).await?,
                fetched => return fetched,
            }
        }
    }

    fn ignore(&self, metadata: &Metadata) {
        info!(
            "Run ID {} is not in `RUNNING` status. Ignoring message {}.",
            metadata.run, metadata.id
        );
    }

    pub(crate) async fn see_through(&self, node: NodeId, instruction: Delivery, id: MessageId) {
        let metadata = &instruction.message.metadata;
        let place = (metadata.run, &id);
        let is_decided = |found: &Look| !matches!(found, Look::Waiting(_));
        match self.wait(node, place, is_decided).await {
            Look::Answered(reply, _) => {
                self.notes
                    .keep(InHand {
                        reply: Some((*reply).clone()),
                        ..InHand::new(&instruction)
                    })
                    .await;
                self.hand_in(node, metadata, &reply, Before::Fresh).await;
                self.notes.strike(metadata).await;
                // What the app leaves behind belongs to the run.
                let is_over = |found: &Look| !matches!(found, Look::Answered(_, false));
                self.wait(node, place, is_over).await;
            }
            Look::Failed(failure) => {
                warn!(
                    run_id = metadata.run.0,
                    message_id = %id,
                    code = failure.code,
                    why = failure.reason,
                    "the ClientApp has failed"
                );
                self.fail(node, metadata, failure).await;
            }
            Look::Gone | Look::Waiting(_) => self.ignore(metadata),
        }
        self.notes.strike(metadata).await;
        self.desk.remove(&id);
    }

    /// Sees a reply to the SuperLink, or what there is to say in its place.
    pub(crate) async fn hand_in(
        &self,
        node: NodeId,
        instruction: &Metadata,
        reply: &Delivery,
        before: Before,
    ) {
        if self.deliver(node, reply, before).await == Delivered::Lost {
            let failure = AppError {
                code: AppError::REPLY_MESSAGE_UNAVAILABLE,
                reason: Some("SuperNode: the reply's objects are damaged".to_owned()),
            };
            self.fail(node, instruction, failure).await;
        }
    }

    /// Waits until the instruction has come to something that is enough; [`Look::Gone`] if its run
    /// ends first.
    async fn wait(
        &self,
        node: NodeId,
        (run, id): (RunId, &MessageId),
        is_enough: impl Fn(&Look) -> bool,
    ) -> Look {
        let mut changed = self.desk.watch();
        let mut over = pin!(self.over(node, run));
        loop {
            changed.mark_unchanged();
            let found = self.desk.look(id, Instant::now());
            let until = match &found {
                found if is_enough(found) => return found.clone(),
                Look::Waiting(until) => *until,
                _ => None,
            };
            let line = self.desk.line(id);
            tokio::select! {
                biased;
                _ = changed.changed() => {}
                () = hung_up(line.as_ref()) => self.hear_again(id, line.as_ref()).await,
                () = over.as_mut() => return Look::Gone,
                () = wait_until(until) => {}
            }
        }
    }

    /// Completes once the run is over, or the SuperLink has forgotten the node that was to answer.
    async fn over(&self, node: NodeId, run: RunId) {
        loop {
            let asked = Instant::now();
            let wait = self.config.hold;
            let call = WatchRun { node, run, wait };
            match self
                .fleet
                .watch_run(call, asked + wait + RUN_CHECK_PERIOD)
                .await
            {
                Ok(true) => return,
                // Those that do not tell are asked from time to time.
                Ok(false) | Err(_) => {
                    tokio::time::sleep_until(asked + RUN_CHECK_PERIOD).await;
                    if self.is_over(node, run).await {
                        return;
                    }
                }
            }
        }
    }

    /// Gives an app whose connection is gone the time to call over another one. If it does not, it
    /// is gone as well.
    async fn hear_again(&self, id: &MessageId, line: Option<&Line>) {
        tokio::time::sleep(CALL_AGAIN).await;
        let heard = |line: Option<&Line>| line.map(|line| line.heard);
        if heard(self.desk.line(id).as_ref()) == heard(line) {
            self.desk.lost(id, "its connection is gone");
        }
    }

    /// Whether the SuperLink says that a run is over, or does not know the node any more that was
    /// to answer; not if it cannot be asked.
    pub(crate) async fn is_over(&self, node: NodeId, run: RunId) -> bool {
        let patience = Instant::now() + RUN_CHECK_PERIOD;
        match self.fleet.run(GetRun { node, run }, patience).await {
            Ok(described) => described.is_none(),
            Err(status) => status.code == Code::PermissionDenied || is_forgotten(&status),
        }
    }

    /// Answers an instruction with an error.
    pub(crate) async fn fail(&self, node: NodeId, instruction: &Metadata, failure: AppError) {
        let now = self.clock.now();
        let expires = instruction.expires_at().seconds();
        let (message, bytes) = object::seal_error(Message {
            metadata: Metadata {
                run: instruction.run,
                id: MessageId::new(""),
                src: instruction.dst,
                dst: instruction.src,
                reply_to: instruction.id.clone(),
                group_id: instruction.group_id.clone(),
                ttl: expires - now.seconds(),
                message_type: instruction.message_type.clone(),
                created_at: now,
            },
            payload: Payload::Error(failure),
        });
        let Some(root) = message.metadata.id.root() else {
            return;
        };
        let _pin = self.objects.pin([root]);
        if let Err(error) = self.objects.put(root, Body::from_bytes(bytes)).await {
            warn!(
                run_id = instruction.run.0,
                "an error reply cannot be kept: {}",
                describe(&error)
            );
            return;
        }
        let tree = ObjectTree::leaf(root);
        let reply = Delivery { message, tree };
        self.deliver(node, &reply, Before::Fresh).await;
    }
}

async fn wait_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Completes when an app's connection is gone, other than for long silence: stock apps close a
/// connection that they have not used for half an hour, and open it again when they are done.
async fn hung_up(line: Option<&Line>) {
    if let Some(line) = line {
        line.gone.cancelled().await;
        if line.heard.elapsed() < SILENCE {
            return;
        }
    }
    std::future::pending().await
}
