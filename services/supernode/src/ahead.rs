//! Fetching ahead: while a large instruction is still being uploaded to the SuperLink, its objects come here one after
//! the other, so that a broadcast is a pipeline and not a relay race.
//!
//! It changes nothing but what is here already when the instruction is handed out: nothing is promised, confirmed or
//! kept from being cleared away, and whatever goes wrong is left to be found out then.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use flwr_api::fleet::GetAnnounced;
use flwr_api::{Delivery, MessageId, NodeId};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use crate::fetch::is_unknown_call;
use crate::node::{Core, HELD};
use crate::patience::{Backoff, long};

/// How many instructions are fetched ahead at once.
const AT_ONCE: usize = 4;

/// How long one is fetched ahead, so that uploads that have stalled do not hold up the others for ever.
const TIME_MAX: Duration = Duration::from_secs(3600);

/// How many objects of one are asked for at once. Most of these calls wait for the SuperLink to get the object.
const OBJECTS_AT_ONCE: usize = 16;

/// How many are remembered, and not asked for again.
const KNOWN_MAX: usize = 16;

/// How long a SuperLink that does not tell is not asked again: it may be another one by then.
const ASK_AGAIN: Duration = Duration::from_secs(60);

impl Core {
    /// Fetches ahead; never ends.
    pub(crate) async fn fetch_ahead(self: &Arc<Self>, node: NodeId) {
        let mut under_way = JoinSet::new();
        let mut known: VecDeque<MessageId> = VecDeque::new();
        let unfailing = || Backoff::new(Duration::from_secs(1), Duration::from_secs(20));
        let mut backoff = unfailing();
        loop {
            let asked = Instant::now();
            let call = GetAnnounced {
                node,
                known: known.iter().cloned().collect(),
                wait: self.config.hold,
            };
            tokio::select! {
                biased;
                Some(_) = under_way.join_next() => {}
                told = self.fleet.announced(call, long()), if under_way.len() < AT_ONCE => match told {
                    Ok(Some(delivery)) => {
                        backoff = unfailing();
                        if known.len() == KNOWN_MAX {
                            known.pop_front();
                        }
                        known.push_back(delivery.message.metadata.id.clone());
                        let core = Arc::clone(self);
                        under_way.spawn(async move {
                            let _late = timeout(TIME_MAX, core.fetch_early(node, &delivery)).await;
                        });
                    }
                    Ok(None) if asked.elapsed() < HELD => backoff.pause(&*self.entropy).await,
                    Ok(None) => backoff = unfailing(),
                    Err(status) if is_unknown_call(&status) => sleep(ASK_AGAIN).await,
                    Err(_) => backoff.pause(&*self.entropy).await,
                },
            }
        }
    }

    /// Fetches what there is of an instruction, and what comes.
    async fn fetch_early(&self, node: NodeId, delivery: &Delivery) {
        let metadata = &delivery.message.metadata;
        let Some(_turn) = self.turns.take(&metadata.id) else {
            return;
        };
        if self.desk.has(&metadata.id) {
            return;
        }
        let ids = delivery.tree.ids();
        let fetched = async {
            self.run(node, metadata.run).await?;
            self.fetch(
                node,
                metadata.run,
                self.objects.missing(&ids),
                OBJECTS_AT_ONCE,
            )
            .await
        };
        if let Err(error) = fetched.await {
            debug!(message_id = %metadata.id, "the message is not fetched ahead: {error}");
        }
    }
}

/// Who fetches which instruction: one at a time, so that nothing travels twice.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    taken: watch::Sender<HashSet<MessageId>>,
}

/// The turn of who fetches an instruction.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    id: MessageId,
}

impl Turns {
    /// The turn, if nobody has it.
    fn take(&self, id: &MessageId) -> Option<Turn<'_>> {
        let is_free = self
            .taken
            .send_if_modified(|taken| taken.insert(id.clone()));
        is_free.then(|| Turn {
            turns: self,
            id: id.clone(),
        })
    }

    /// The turn, once nobody else has it.
    pub(crate) async fn wait(&self, id: &MessageId) -> Turn<'_> {
        let mut taken = self.taken.subscribe();
        loop {
            taken.mark_unchanged();
            if let Some(turn) = self.take(id) {
                return turn;
            }
            // The sender outlives the borrow of it.
            let _closed = taken.changed().await;
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.taken.send_modify(|taken| {
            taken.remove(&self.id);
        });
    }
}
