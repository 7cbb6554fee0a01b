//! Going on after this node was killed: it is the node that it was if the SuperLink still knows that
//! one by the same key. Replies that it had are delivered; instructions without one are worked on
//! again, with what the ClientApps before had left behind.

use std::sync::Arc;

use bytes::Bytes;
use flwr_api::fleet::{Heartbeat, Parcel};
use flwr_api::{AppError, Delivery, NodeId, RunId};
use flwr_state::Pin;
use tokio::sync::OwnedSemaphorePermit;
use tracing::{info, warn};

use crate::config::HEARTBEAT_SECONDS;
use crate::deliver::Before as Tried;
use crate::fetch::FetchError;
use crate::journal::InHand;
use crate::node::{Core, Ended};
use crate::patience::{Insisting, long};

/// How often an instruction is begun again: should it be what ends this node, it ends that too.
const RESTARTS_MAX: u32 = 3;

impl Core {
    /// Takes the place again that this node had when it was killed, with what it had in hand;
    /// nothing if it has to join.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the SuperLink cannot be reached for as long as was to be tried.
    pub(crate) async fn take_place_again(self: &Arc<Self>) -> Result<Option<NodeId>, Ended> {
        let before = self.notes.read().await;
        let of = |work: &InHand| before.node == Some(work.metadata().dst);
        let (ours, others): (Vec<_>, Vec<_>) = before.in_hand.into_iter().partition(of);
        self.drop_work(&others).await;
        // From now on, so that nothing takes their room.
        let ours: Vec<_> = ours
            .into_iter()
            .map(|work| (self.pin(&work), work))
            .collect();
        if let Some(node) = before.node
            && self.is_still(node).await?
        {
            info!(
                node_id = node.0,
                in_hand = ours.len(),
                "took its place again after a restart"
            );
            self.take_contexts(node, before.contexts);
            for (pin, work) in ours {
                // The SuperLink may offer it once more.
                self.desk.expect(&work.metadata().id);
                // Before others are asked for.
                let slot = Arc::clone(&self.slots).try_acquire_owned().ok();
                let core = Arc::clone(self);
                self.jobs
                    .spawn(async move { core.finish(node, work, pin, slot).await });
            }
            return Ok(Some(node));
        }
        let ours: Vec<_> = ours.into_iter().map(|(_, work)| work).collect();
        self.drop_work(&ours).await;
        for (run, _) in before.contexts {
            self.notes.forget(run).await;
        }
        Ok(None)
    }

    /// Whether the SuperLink knows the caller as this node: a sign of life tells.
    async fn is_still(&self, node: NodeId) -> Result<bool, Ended> {
        let mut insisting = Insisting::default();
        loop {
            let call = Heartbeat {
                node,
                heartbeat_interval: HEARTBEAT_SECONDS,
            };
            let status = match self.fleet.heartbeat(call, long()).await {
                Ok(known) => return Ok(known),
                Err(status) => status,
            };
            match insisting.bear(status, &*self.entropy).await {
                Ok(()) => {}
                Err(status) if status.code.is_retryable() && self.config.gives_up => {
                    return Err(Ended::Unreachable(status));
                }
                Err(status) => {
                    warn!(node_id = node.0, "cannot take its place again: {status}");
                    return Ok(false);
                }
            }
        }
    }

    /// Answers an instruction from before the restart.
    async fn finish(
        self: &Arc<Self>,
        node: NodeId,
        work: InHand,
        _pin: Pin,
        slot: Option<OwnedSemaphorePermit>,
    ) {
        let metadata = work.metadata().clone();
        match work.reply {
            Some(reply) => {
                drop(slot);
                self.hand_in(node, &metadata, &reply, Tried::Tried).await;
            }
            None if work.restarts >= RESTARTS_MAX => {
                self.fail(node, &metadata, interrupted()).await;
            }
            None => match self.begin_again(node, &work, slot).await {
                Ok(()) => {
                    let id = metadata.id.clone();
                    return self.see_through(node, work.instruction, id).await;
                }
                Err(FetchError::RunOver) => {}
                Err(error) => {
                    warn!(run_id = metadata.run.0, message_id = %metadata.id, "the message cannot be worked on again: {error}");
                    self.fail(node, &metadata, unavailable(&error)).await;
                }
            },
        }
        self.notes.strike(&metadata).await;
        self.desk.remove(&metadata.id);
    }

    /// Takes what ClientApps left behind, but of runs that have ended since.
    fn take_contexts(self: &Arc<Self>, node: NodeId, contexts: Vec<(RunId, Bytes)>) {
        let runs: Vec<RunId> = contexts.iter().map(|(run, _)| *run).collect();
        self.runs.take_contexts(contexts);
        let core = Arc::clone(self);
        self.jobs.spawn(async move {
            for run in runs {
                if core.is_over(node, run).await {
                    core.forget(run).await;
                }
            }
        });
    }

    /// Puts an instruction on the desk once more.
    async fn begin_again(
        &self,
        node: NodeId,
        work: &InHand,
        slot: Option<OwnedSemaphorePermit>,
    ) -> Result<(), FetchError> {
        let parcel = Parcel {
            delivery: work.instruction.clone(),
            objects: Vec::new(),
        };
        let pin = self.bring(node, &parcel).await?;
        let slot = match slot {
            Some(slot) => slot,
            // The semaphore is never closed.
            None => match Arc::clone(&self.slots).acquire_owned().await {
                Ok(slot) => slot,
                Err(_) => return Err(FetchError::RunOver),
            },
        };
        let again = InHand {
            restarts: work.restarts + 1,
            ..work.clone()
        };
        self.notes.keep(again).await;
        let metadata = work.metadata();
        info!(run_id = metadata.run.0, message_id = %metadata.id, "a message is worked on again after the restart");
        self.desk.put(parcel.delivery, pin, slot);
        Ok(())
    }

    /// What is there of the work stays there.
    fn pin(&self, work: &InHand) -> Pin {
        let tree = |delivery: &Delivery| delivery.tree.ids();
        let reply = work.reply.as_ref();
        self.objects
            .pin(reply.map_or_else(|| tree(&work.instruction), tree))
    }

    async fn drop_work(&self, dropped: &[InHand]) {
        for work in dropped {
            let metadata = work.metadata();
            warn!(
                run_id = metadata.run.0,
                message_id = %metadata.id,
                node_id = metadata.dst.0,
                was_answered = work.reply.is_some(),
                "work from before the restart is dropped: the SuperLink does not know its node any more"
            );
            self.notes.strike(metadata).await;
        }
    }
}

fn interrupted() -> AppError {
    AppError {
        code: AppError::APP_RAISED,
        reason: Some(format!(
            "SuperNode: it was restarted {RESTARTS_MAX} times while the ClientApp worked"
        )),
    }
}

/// What is said of a message that cannot be brought here, or not be kept.
pub(crate) fn unavailable(error: &FetchError) -> AppError {
    AppError {
        code: AppError::MESSAGE_UNAVAILABLE,
        reason: Some(format!("SuperNode: {error}")),
    }
}
