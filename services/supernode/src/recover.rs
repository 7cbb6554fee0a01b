//! Going on after this node was killed: it is the node that it was if the SuperLink still knows
//! that one by the same key, and answers for what it had in hand. No app works twice.

use std::sync::Arc;

use flwr_api::fleet::Heartbeat;
use flwr_api::{AppError, Metadata, NodeId};
use flwr_state::Pin;
use tracing::{info, warn};

use crate::config::HEARTBEAT_SECONDS;
use crate::deliver::Before;
use crate::journal::InHand;
use crate::node::{Core, Ended};
use crate::patience::{Insisting, long};

impl Core {
    /// Takes this node's place again if it had anything in hand, and delivers that; nothing if it
    /// has to join. A node that has nothing in hand joins, so that its place is free at once.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the SuperLink cannot be reached for as long as was to be tried.
    pub(crate) async fn take_place_again(self: &Arc<Self>) -> Result<Option<NodeId>, Ended> {
        let in_hand = self.notes.read().await;
        let Some(node) = in_hand.last().map(InHand::node) else {
            return Ok(None);
        };
        let (ours, others): (Vec<_>, Vec<_>) =
            in_hand.into_iter().partition(|work| work.node() == node);
        self.drop_work(&others).await;
        // From now on, so that nothing takes their room.
        let ours: Vec<_> = ours
            .into_iter()
            .map(|work| (self.pin(&work), work))
            .collect();
        if self.is_still(node).await? {
            info!(
                node_id = node.0,
                in_hand = ours.len(),
                "took its place again, with work in hand from before the restart"
            );
            for (pin, work) in ours {
                let core = Arc::clone(self);
                self.jobs
                    .spawn(async move { core.finish(node, work, pin).await });
            }
            return Ok(Some(node));
        }
        let ours: Vec<_> = ours.into_iter().map(|(_, work)| work).collect();
        self.drop_work(&ours).await;
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

    /// Answers for an instruction from before the restart.
    async fn finish(&self, node: NodeId, work: InHand, _pin: Pin) {
        let InHand { instruction, reply } = work;
        match reply {
            Some(reply) => {
                self.hand_in(node, &instruction, &reply, Before::Tried)
                    .await;
            }
            None => self.fail(node, &instruction, interrupted()).await,
        }
        self.notes.strike(&instruction).await;
    }

    fn pin(&self, work: &InHand) -> Pin {
        let tree = work.reply.as_ref().map(|reply| reply.tree.ids());
        self.objects.pin(tree.unwrap_or_default())
    }

    async fn drop_work(&self, dropped: &[InHand]) {
        for InHand { instruction, reply } in dropped {
            let Metadata { run, id, dst, .. } = instruction;
            warn!(
                run_id = run.0,
                message_id = %id,
                node_id = dst.0,
                was_answered = reply.is_some(),
                "work from before the restart is dropped: the SuperLink does not know its node any more"
            );
            self.notes.strike(instruction).await;
        }
    }
}

/// What an app kept in its context is gone with the process, so it does not work a second time.
fn interrupted() -> AppError {
    AppError {
        code: AppError::APP_RAISED,
        reason: Some("SuperNode: it was restarted while the ClientApp worked".to_owned()),
    }
}
