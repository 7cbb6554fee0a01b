//! Bringing a reply back: announced first, then the objects that the SuperLink has not got, in
//! parallel, until it has all of them.

use std::time::Duration;

use flwr_api::fleet::{PushMessages, PushObject};
use flwr_api::{Delivery, NodeId, ObjectId, RunId};
use flwr_transport::{Code, Status};
use futures_util::{StreamExt, stream};
use tracing::{info, warn};

use crate::fetch::describe;
use crate::node::Core;
use crate::patience::{Backoff, long};

/// How often a reply is offered to a SuperLink that answers and does not take it.
const TRIES_MAX: u32 = 10;

/// What became of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// The SuperLink has it, with all its objects.
    Whole,
    /// Nobody wants it any more, or the SuperLink will not take it.
    Dropped,
    /// Its objects are not here.
    Lost,
}

/// What became of an object.
enum Sent {
    Yes,
    /// It has to be offered again.
    NotYet,
    RunOver,
    Lost,
}

impl Core {
    /// Sees a reply to the SuperLink.
    pub(crate) async fn deliver(&self, node: NodeId, reply: &Delivery) -> Delivered {
        let _on_its_way = self.deliveries.token();
        let metadata = &reply.message.metadata;
        log_round(metadata.run, &metadata.group_id);
        info!("Sending: {} message", metadata.message_type);
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(20));
        let (mut tries, mut fewest) = (0, usize::MAX);
        while tries < TRIES_MAX {
            tries += 1;
            match self.offer(node, reply).await {
                Ok((Sent::Yes, _)) => {
                    info!("Sent successfully");
                    return Delivered::Whole;
                }
                Ok((Sent::RunOver, _)) => break,
                Ok((Sent::Lost, _)) => return Delivered::Lost,
                // A link that breaks again and again is borne as long as something gets through.
                Ok((Sent::NotYet, missing)) if missing < fewest => (tries, fewest) = (0, missing),
                Ok((Sent::NotYet, _)) => {}
                Err(status) if status.code == Code::PermissionDenied => break,
                Err(status) => warn!(
                    run_id = metadata.run.0,
                    message_id = %metadata.id,
                    "the reply could not be handed in: {status}"
                ),
            }
            backoff.pause(&*self.entropy).await;
        }
        info!(
            "Run ID {} is not in `RUNNING` status. Ignoring reply message {}.",
            metadata.run, metadata.id
        );
        Delivered::Dropped
    }

    /// One try: announces the reply and sends what is missing, and says how much that was. The
    /// announcement can be repeated, and tells each time what is missing still.
    async fn offer(&self, node: NodeId, reply: &Delivery) -> Result<(Sent, usize), Status> {
        let run = reply.message.metadata.run;
        let call = PushMessages {
            node,
            message: Some(reply.message.clone()),
            trees: vec![reply.tree.clone()],
        };
        let pushed = self.fleet.push_messages(call, long()).await?;
        if pushed.stored.is_none() {
            warn!(
                run_id = run.0,
                message_id = %reply.message.metadata.id,
                "the SuperLink rejects the reply; its log says why"
            );
            return Ok((Sent::RunOver, 0));
        }
        let missing = pushed.missing.len();
        let mut sending = stream::iter(pushed.missing)
            .map(|id| self.send(node, run, id))
            .buffer_unordered(self.config.transfers_max.max(1));
        let mut outcome = Sent::Yes;
        while let Some(sent) = sending.next().await {
            match sent {
                Sent::Yes => {}
                Sent::NotYet => outcome = Sent::NotYet,
                ended @ (Sent::RunOver | Sent::Lost) => return Ok((ended, missing)),
            }
        }
        Ok((outcome, missing))
    }

    async fn send(&self, node: NodeId, run: RunId, object: ObjectId) -> Sent {
        let body = match self.objects.get(object).await {
            Ok(Some(body)) => body,
            Ok(None) => {
                warn!(object_id = %object, "an object of a reply is not here any more");
                return Sent::Lost;
            }
            Err(error) => {
                warn!(object_id = %object, "an object of a reply cannot be read: {}", describe(&error));
                return Sent::Lost;
            }
        };
        let call = PushObject { node, run, object };
        match self.fleet.push_object(call, body, long()).await {
            Ok(true) => Sent::Yes,
            Ok(false) => Sent::NotYet,
            Err(status) if status.code == Code::PermissionDenied => Sent::RunOver,
            Err(status) => {
                warn!(object_id = %object, "an object of a reply could not be sent: {status}");
                Sent::NotYet
            }
        }
    }
}

/// Says which run and round the lines that follow are about, as Flower does.
pub(crate) fn log_round(run: RunId, group: &str) {
    if group.is_empty() {
        info!("[RUN {run}]");
    } else {
        info!("[RUN {run}, ROUND {group}]");
    }
}
