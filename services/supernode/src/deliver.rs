//! Bringing a reply back: announced first, then the objects that the SuperLink has not got, in
//! parallel, until it has all of them. One that breaks off goes on at the byte where it stopped.

use std::collections::VecDeque;
use std::time::Duration;

use flwr_api::fleet::{
    GetReceived, Parcel, PushMessages, PushObject, PushParcel, Pushed, ResumePush,
};
use flwr_api::{Delivery, NodeId, ObjectId, Reason, RunId};
use flwr_transport::{Code, Status};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tracing::{debug, info, warn};

use crate::fetch::{describe, is_unknown_call};
use crate::metrics::{count_reply, count_sent};
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

/// How far a reply got before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// Nothing of it was ever sent.
    Fresh,
    /// Some of it may have arrived.
    Tried,
}

/// What became of an object.
enum Sent {
    Yes,
    /// The SuperLink did not take it, and it has to be offered again.
    NotYet,
    /// The SuperLink has no memory for it now. Its turn comes, and when the run is over, the SuperLink says so.
    Later,
    RunOver,
    Lost,
}

impl Core {
    /// Sees a reply to the SuperLink.
    pub(crate) async fn deliver(
        &self,
        node: NodeId,
        reply: &Delivery,
        mut before: Before,
    ) -> Delivered {
        let _on_its_way = self.deliveries.token();
        let metadata = &reply.message.metadata;
        log_round(metadata.run, &metadata.group_id);
        info!("Sending: {} message", metadata.message_type);
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(20));
        let (mut tries, mut least) = (0, u64::MAX);
        while tries < TRIES_MAX {
            tries += 1;
            let offered = self.offer(node, reply, before).await;
            before = Before::Tried;
            match offered {
                Ok((Sent::Yes, _)) => {
                    info!("Sent successfully");
                    count_reply(&reply.message.payload);
                    return Delivered::Whole;
                }
                Ok((Sent::RunOver, _)) => break,
                Ok((Sent::Lost, _)) => return Delivered::Lost,
                // A link that breaks again and again is borne as long as something gets through.
                Ok((Sent::NotYet, left)) if left < least => (tries, least) = (0, left),
                Ok((Sent::NotYet, _)) => {}
                Ok((Sent::Later, _)) => tries = 0,
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

    /// One try: announces the reply and sends what is missing, and says how many bytes that was. The
    /// announcement can be repeated, and tells each time what is missing still.
    async fn offer(
        &self,
        node: NodeId,
        reply: &Delivery,
        before: Before,
    ) -> Result<(Sent, u64), Status> {
        let run = reply.message.metadata.run;
        let pushed = self.announce(node, reply, before).await?;
        if pushed.stored.is_none() {
            warn!(
                run_id = run.0,
                message_id = %reply.message.metadata.id,
                "the SuperLink rejects the reply; its log says why"
            );
            return Ok((Sent::RunOver, 0));
        }
        let missing = pushed.missing;
        let offsets = match before {
            Before::Fresh => vec![0; missing.len()],
            Before::Tried => self.received(node, run, &missing).await,
        };
        let bytes = |(id, offset): (&ObjectId, &u64)| {
            let len = self.objects.len(*id).unwrap_or_default();
            len.saturating_sub(*offset)
        };
        let left = missing.iter().zip(&offsets).map(bytes).sum();
        let mut waiting: VecDeque<_> = missing.into_iter().zip(offsets).collect();
        let (mut sending, mut at_once) =
            (FuturesUnordered::new(), self.config.transfers_max.max(1));
        let mut outcome = Sent::Yes;
        loop {
            while sending.len() < at_once
                && let Some((id, offset)) = waiting.pop_front()
            {
                sending.push(async move { (id, offset, self.send(node, run, id, offset).await) });
            }
            let Some((id, offset, sent)) = sending.next().await else {
                return Ok((outcome, left));
            };
            match sent {
                Sent::Yes => {}
                // As many as there is memory for go on, and it comes after them.
                Sent::Later if !sending.is_empty() => {
                    at_once = sending.len();
                    waiting.push_back((id, offset));
                }
                Sent::Later if matches!(outcome, Sent::NotYet) => {}
                Sent::NotYet | Sent::Later => outcome = sent,
                Sent::RunOver | Sent::Lost => return Ok((sent, left)),
            }
        }
    }

    /// Announces a reply: the first time with its small objects, where there are parcels.
    async fn announce(
        &self,
        node: NodeId,
        reply: &Delivery,
        before: Before,
    ) -> Result<Pushed, Status> {
        if before == Before::Fresh {
            let find = async |id| match self.objects.len(id) {
                Some(..=Parcel::OBJECT_BYTES_MAX) => self.objects.get(id).await.ok()?,
                _ => None,
            };
            let parcel = Parcel {
                delivery: reply.clone(),
                objects: Parcel::pack(reply.tree.ids(), find).await,
            };
            let packed: Vec<ObjectId> = parcel.objects.iter().map(|(id, _)| *id).collect();
            let call = PushParcel { node, parcel };
            match self.fleet.push_parcel(call, long()).await {
                Err(status) if is_unknown_call(&status) => {}
                Err(status) => return Err(status),
                Ok(pushed) => {
                    let taken = packed.iter().filter(|id| !pushed.missing.contains(id));
                    count_sent(taken.count() as u64);
                    return Ok(pushed);
                }
            }
        }
        let call = PushMessages {
            node,
            message: Some(reply.message.clone()),
            trees: vec![reply.tree.clone()],
        };
        self.fleet.push_messages(call, long()).await
    }

    /// How many bytes of each object the SuperLink has of a try before; none where it cannot tell.
    async fn received(&self, node: NodeId, run: RunId, objects: &[ObjectId]) -> Vec<u64> {
        let mut received = Vec::new();
        if !objects.is_empty() {
            let objects = objects.to_vec();
            let call = GetReceived { node, run, objects };
            match self.fleet.received(call, long()).await {
                Ok(told) => received = told,
                Err(status) => debug!("the SuperLink does not tell what has arrived: {status}"),
            }
        }
        received.resize(objects.len(), 0);
        received
    }

    async fn send(&self, node: NodeId, run: RunId, object: ObjectId, offset: u64) -> Sent {
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
        let pushed = if offset == 0 {
            let call = PushObject { node, run, object };
            self.fleet.push_object(call, body, long()).await
        } else {
            debug!(object_id = %object, offset, "an object goes on where it stopped");
            let call = ResumePush {
                node,
                run,
                object,
                offset,
            };
            let rest = body.skip(offset);
            self.fleet.resume_push(call, rest, long()).await
        };
        match pushed {
            Ok(true) => {
                count_sent(1);
                Sent::Yes
            }
            Ok(false) => Sent::NotYet,
            Err(status) if status.code == Code::PermissionDenied => Sent::RunOver,
            Err(status) if Reason::of(&status) == Some(Reason::NoRoom) => {
                debug!(object_id = %object, "the SuperLink has no memory for an object now");
                Sent::Later
            }
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
