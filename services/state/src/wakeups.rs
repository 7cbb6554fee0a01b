//! Hints that something has changed.
//!
//! A wakeup says "look again", nothing more: it may come without a change, and correctness never
//! rests on one because every wait has a deadline. Subscribe *before* reading the store, so that a
//! change between reading and waiting is not missed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use flwr_api::{NodeId, ObjectId, RunId};
use tokio::sync::watch;

/// What can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// There may be something to launch.
    Launch,
    /// The run's log has grown, or the run has changed status.
    Log(RunId),
    /// The node may have an instruction, or one that is on its way, or is gone.
    Node(NodeId),
    /// The object has arrived, or is gone.
    Object(ObjectId),
    /// A reply to the run may be complete, or the run has changed status.
    Run(RunId),
}

/// The board where waiters leave their names. Cheap to clone: all clones are the same board.
#[derive(Clone, Debug, Default)]
pub struct Wakeups {
    topics: Arc<Mutex<HashMap<Topic, watch::Sender<()>>>>,
}

impl Wakeups {
    /// A board with nobody on it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits for changes of `topic` from now on. Memory is given back when the subscription drops.
    #[must_use]
    pub fn subscribe(&self, topic: Topic) -> Subscription {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = topics
            .entry(topic)
            .or_insert_with(|| watch::Sender::new(()))
            .subscribe();
        Subscription {
            board: self.clone(),
            topic,
            receiver,
        }
    }

    /// Wakes everybody who waits for `topic`.
    pub fn notify(&self, topic: Topic) {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = topics.get(&topic) {
            sender.send_replace(());
        }
    }

    /// How many topics have waiters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.topics
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One waiter's place on the board.
#[derive(Debug)]
pub struct Subscription {
    board: Wakeups,
    topic: Topic,
    receiver: watch::Receiver<()>,
}

impl Subscription {
    /// Completes when the topic changed since the last time this completed, or since subscribing.
    /// Cancel safe.
    pub async fn changed(&mut self) {
        // The sender lives on the board for as long as this subscription does.
        if self.receiver.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut topics = self
            .board
            .topics
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if topics
            .get(&self.topic)
            .is_some_and(|sender| sender.receiver_count() <= 1)
        {
            topics.remove(&self.topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_between_subscribing_and_waiting_is_seen() {
        let board = Wakeups::new();
        let mut waiter = board.subscribe(Topic::Launch);
        board.notify(Topic::Launch);
        waiter.changed().await;
    }

    #[tokio::test]
    async fn every_waiter_wakes_and_the_board_is_swept() {
        let board = Wakeups::new();
        let mut first = board.subscribe(Topic::Run(RunId(1)));
        let mut second = board.subscribe(Topic::Run(RunId(1)));
        let other = board.subscribe(Topic::Run(RunId(2)));
        board.notify(Topic::Run(RunId(1)));
        first.changed().await;
        second.changed().await;
        drop((first, other));
        assert_eq!(board.len(), 1);
        drop(second);
        assert!(board.is_empty());
    }
}
