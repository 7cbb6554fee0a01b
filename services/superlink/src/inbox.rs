//! All the waiting there is: read the store; if there is nothing, wait for a wakeup or the end of
//! the caller's patience; read again.
//!
//! A held call ends early, and empty, when the acceptor drains. Nothing is consumed while waiting,
//! so a caller that goes away loses nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flwr_api::{Delivery, MessageId, NodeId, ObjectId, Phase, RunId, SubStatus};
use flwr_state::{
    Clock, LaunchQueue, LinkState, Object, Replies, StoreResult, Subscription, Topic,
};
use flwr_transport::{Context, Drain, Status};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::gate::Gate;
use crate::metrics::{Awaited, Held};
use crate::superlink::unavailable;

/// Where calls wait.
#[derive(Debug)]
pub(crate) struct Inbox<S> {
    state: Arc<S>,
    clock: Arc<dyn Clock>,
    turns: Arc<Turns>,
}

/// How long an upload may take before its node is told of it: most are done by then.
const UPLOAD: Duration = Duration::from_millis(250);

/// How long replies are gathered after one came while others are awaited, so that many replies in
/// a row cost few looks at the store.
const GATHER: Duration = Duration::from_millis(10);

impl<S: LinkState> Inbox<S> {
    pub(crate) fn new(state: Arc<S>, clock: Arc<dyn Clock>) -> Self {
        Self {
            state,
            clock,
            turns: Arc::default(),
        }
    }

    /// The node's next instruction. A later call for the same node ends this one empty, as does
    /// the node's deletion.
    pub(crate) async fn instruction(
        &self,
        context: &Context,
        node: NodeId,
        wait: Duration,
    ) -> Result<Option<Delivery>, Status> {
        let turn = self.turns.take(node);
        let hold = Hold::new(context, wait, Awaited::Instruction);
        let mut changed = self.watch(&hold, Topic::Node(node));
        loop {
            if turn.over.is_cancelled() {
                return Ok(None);
            }
            let found = self.state.deliver(node, self.clock.now()).await;
            if let Some(found) = found.map_err(unavailable)? {
                if found.again {
                    tracing::info!(
                        node_id = node.0,
                        message_id = %found.delivery.message.metadata.id,
                        "instruction offered again: the node asked for work without confirming it"
                    );
                }
                return Ok(Some(found.delivery));
            }
            let more = tokio::select! {
                biased;
                () = turn.over.cancelled() => false,
                more = hold.wait(&mut changed, None) => more,
            };
            if !more || !self.state.has_node(node).await.map_err(unavailable)? {
                return Ok(None);
            }
        }
    }

    /// An instruction of the node that is still on its way here and none of `known`. Those that are whole within a moment
    /// are handed out instead.
    pub(crate) async fn announced(
        &self,
        context: &Context,
        node: NodeId,
        known: &[MessageId],
        wait: Duration,
    ) -> Result<Option<Delivery>, Status> {
        let hold = Hold::new(context, wait, Awaited::Announced);
        let mut changed = self.watch(&hold, Topic::Node(node));
        let mut seen = None;
        loop {
            let now = self.clock.now();
            let found = self.state.announced(node, known, now).await;
            if let Some(found) = found.map_err(unavailable)? {
                if seen.as_ref() == Some(&found.message.metadata.id) {
                    return Ok(Some(found));
                }
                seen = Some(found.message.metadata.id);
                hold.pause(UPLOAD).await;
                continue;
            }
            let more = hold.wait(&mut changed, None).await;
            if !more || !self.state.has_node(node).await.map_err(unavailable)? {
                return Ok(None);
            }
        }
    }

    /// Ends the wait of a node that left.
    pub(crate) fn release(&self, node: NodeId) {
        drop(self.turns.take(node));
    }

    /// Replies to `instructions`: as soon as all are there, or `linger` after the first, or none
    /// after `wait`. `gate` is checked before every look at the
    /// store.
    pub(crate) async fn replies(
        &self,
        context: &Context,
        run: RunId,
        instructions: &[MessageId],
        (wait, linger): (Duration, Duration),
        gate: &impl Gate,
    ) -> Result<Replies, Status> {
        let mut hold = Hold::new(context, wait, Awaited::Replies);
        let mut lingering = false;
        let mut changed = self.watch(&hold, Topic::Run(run));
        loop {
            gate.check().await?;
            let now = self.clock.now();
            let replies = self.state.replies(run, instructions, now).await;
            let replies = replies.map_err(unavailable)?;
            if replies.waiting == 0 {
                return Ok(replies);
            }
            if !replies.ready.is_empty() && !lingering {
                lingering = true;
                hold = Hold::new(context, linger.min(wait), Awaited::Replies);
            }
            let by_itself = replies.changes_at.map(|at| now.until(at));
            if !hold.wait(&mut changed, by_itself).await {
                return Ok(replies);
            }
            if lingering {
                hold.gather().await;
            }
        }
    }

    /// The runs that wait for a launch.
    pub(crate) async fn launches(
        &self,
        context: &Context,
        wait: Duration,
    ) -> Result<Vec<RunId>, Status> {
        let hold = Hold::new(context, wait, Awaited::Launch);
        let mut changed = self.watch(&hold, Topic::Launch);
        loop {
            let now = self.clock.now();
            let queue: StoreResult<LaunchQueue> = self.state.launch_queue(now).await;
            let queue = queue.map_err(unavailable)?;
            let by_itself = queue.changes_at.map(|at| now.until(at));
            if !queue.ready.is_empty() || !hold.wait(&mut changed, by_itself).await {
                return Ok(queue.ready);
            }
        }
    }

    /// An object; one that is announced is waited for. `gate` is checked before every look at the
    /// store.
    pub(crate) async fn object(
        &self,
        context: &Context,
        object: ObjectId,
        wait: Duration,
        gate: &impl Gate,
    ) -> Result<Object, Status> {
        let hold = Hold::new(context, wait, Awaited::Object);
        let mut changed = None;
        loop {
            gate.check().await?;
            let found = self.state.object(object).await.map_err(unavailable)?;
            if !matches!(found, Object::Pending) || !hold.is_open() {
                return Ok(found);
            }
            // Most objects are there at once: only then is it worth subscribing.
            let Some(changed) = &mut changed else {
                changed = self.watch(&hold, Topic::Object(object));
                continue;
            };
            if !hold.wait_on(changed, None).await {
                return Ok(found);
            }
        }
    }

    /// How the run has ended, as soon as it has; nothing if it has not after `wait`.
    pub(crate) async fn end_of_run(
        &self,
        context: &Context,
        run: RunId,
        wait: Duration,
    ) -> Result<Option<SubStatus>, Status> {
        let hold = Hold::new(context, wait, Awaited::EndOfRun);
        let mut changed = self.watch(&hold, Topic::Run(run));
        loop {
            let status = self.state.run_status(run, self.clock.now()).await;
            match status.map_err(unavailable)? {
                Some(status) if status.phase != Phase::Finished => {}
                Some(status) => return Ok(Some(status.sub)),
                None => return Ok(Some(SubStatus::Stopped)),
            }
            if !hold.wait(&mut changed, None).await {
                return Ok(None);
            }
        }
    }

    /// A subscription to wait with, or nothing where the caller will not wait.
    fn watch(&self, hold: &Hold, topic: Topic) -> Option<Subscription> {
        hold.is_open()
            .then(|| self.state.wakeups().subscribe(topic))
    }
}

/// One call's patience.
struct Hold {
    end: Instant,
    drain: Drain,
    awaited: Awaited,
}

impl Hold {
    fn new(context: &Context, wait: Duration, awaited: Awaited) -> Self {
        // An answer takes a moment to reach the caller.
        const MARGIN: Duration = Duration::from_millis(200);
        let deadline = context.deadline.checked_sub(MARGIN);
        let end = Instant::now() + wait;
        Self {
            end: deadline.map_or(end, |deadline| end.min(deadline)),
            drain: context.drain.clone(),
            awaited,
        }
    }

    /// Whether waiting is still allowed.
    fn is_open(&self) -> bool {
        !self.drain.is_requested() && Instant::now() < self.end
    }

    /// Waits for a change, or for `by_itself` to pass; false if there is nothing more to wait for.
    async fn wait(&self, changed: &mut Option<Subscription>, by_itself: Option<Duration>) -> bool {
        match changed {
            Some(changed) if self.is_open() => self.wait_on(changed, by_itself).await,
            _ => false,
        }
    }

    async fn wait_on(&self, changed: &mut Subscription, by_itself: Option<Duration>) -> bool {
        // Strict comparisons of times need the clock to have moved on.
        const TICK: Duration = Duration::from_millis(1);
        let _held = Held::for_(self.awaited);
        let look_again = by_itself.map_or(self.end, |after| Instant::now() + after + TICK);
        tokio::select! {
            biased;
            () = self.drain.requested() => false,
            () = changed.changed() => true,
            () = tokio::time::sleep_until(look_again.min(self.end)) => look_again < self.end,
        }
    }

    /// Lets more come in before the next look.
    async fn gather(&self) {
        self.pause(GATHER).await;
    }

    async fn pause(&self, pause: Duration) {
        tokio::time::sleep_until((Instant::now() + pause).min(self.end)).await;
    }
}

/// Which of a node's calls is the one that waits: the newest.
#[derive(Debug, Default)]
struct Turns {
    current: Mutex<HashMap<NodeId, (u64, CancellationToken)>>,
}

/// A call's place; `over` is cancelled when a newer one took it.
struct Turn {
    turns: Arc<Turns>,
    node: NodeId,
    number: u64,
    over: CancellationToken,
}

impl Turns {
    fn take(self: &Arc<Self>, node: NodeId) -> Turn {
        let over = CancellationToken::new();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let number = match current.get(&node) {
            Some((number, former)) => {
                former.cancel();
                number + 1
            }
            None => 0,
        };
        current.insert(node, (number, over.clone()));
        Turn {
            turns: Arc::clone(self),
            node,
            number,
            over,
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut current = self
            .turns
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if current
            .get(&self.node)
            .is_some_and(|(number, _)| *number == self.number)
        {
            current.remove(&self.node);
        }
    }
}
