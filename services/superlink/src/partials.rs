//! What has arrived of objects whose pushes broke off, so that their nodes can go on where they
//! stopped, also over another connection.
//!
//! The bytes are where the state puts those of whole objects, and it alone judges them when the last
//! has come. Here is who may write them: a node that was killed is back long before the connection
//! of its former self is known to be gone, so a push is over once its node asks what came of it.
//! What nobody writes is kept for a while, within bounds; the oldest goes first. Each beginning
//! belongs to one node and one run, so nobody can spoil another's.

use std::collections::HashSet;
use std::collections::hash_map::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flwr_api::{NodeId, ObjectId, RunId};
use flwr_state::Beginning;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Most bytes of one node; no object that is larger is begun here.
    pub(crate) node_bytes_max: u64,
    /// Most bytes of all nodes.
    pub(crate) bytes_max: u64,
    /// Most beginnings of one node.
    pub(crate) node_count_max: usize,
    /// Most beginnings of all nodes.
    pub(crate) count_max: usize,
    /// Less of an object than this is not worth a question.
    pub(crate) object_bytes_min: u64,
    /// How long a node may stay away.
    pub(crate) time_max: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            node_bytes_max: 1 << 30,
            bytes_max: 4 << 30,
            node_count_max: 64,
            count_max: 4096,
            object_bytes_min: 64 << 10,
            time_max: Duration::from_secs(600),
        }
    }
}

/// Whose beginning of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) node: NodeId,
    pub(crate) run: RunId,
    pub(crate) object: ObjectId,
}

/// Beginnings of objects.
#[derive(Debug, Default)]
pub(crate) struct Partials {
    bounds: Bounds,
    table: Mutex<Table>,
}

/// One push, under way or broken off.
#[derive(Debug, Default)]
struct Push {
    /// Ends it.
    over: CancellationToken,
    /// What came; locked while it is written.
    left: Arc<tokio::sync::Mutex<Option<Left>>>,
}

#[derive(Debug)]
struct Left {
    beginning: Beginning,
    at: Instant,
}

/// A push under way. Dropping it leaves nothing.
#[must_use]
pub(crate) struct Writing {
    partials: Arc<Partials>,
    key: Key,
    push: Arc<Push>,
    /// Nothing once it is dropped.
    left: Option<OwnedMutexGuard<Option<Left>>>,
}

impl Partials {
    #[cfg(test)]
    fn with(bounds: Bounds) -> Self {
        Self {
            bounds,
            table: Mutex::default(),
        }
    }

    /// Whether the beginning of an object of so many bytes is worth keeping, and can be.
    pub(crate) fn takes(&self, object_bytes: u64) -> bool {
        (self.bounds.object_bytes_min..=self.bounds.node_bytes_max).contains(&object_bytes)
    }

    /// Begins an object; what was here of it is forgotten.
    pub(crate) fn begin(self: &Arc<Self>, key: Key) -> Writing {
        let push = Arc::<Push>::default();
        let left = Arc::clone(&push.left).try_lock_owned();
        self.table().insert(key, Arc::clone(&push));
        Writing {
            partials: Arc::clone(self),
            key,
            push,
            // Nobody else has it yet.
            left: left.ok(),
        }
    }

    /// How many bytes are here of each. Whoever writes them is over: the node asks because it has
    /// lost them.
    pub(crate) async fn received(&self, keys: impl IntoIterator<Item = Key>) -> Vec<u64> {
        let pushes: Vec<_> = {
            let table = self.table();
            let found = keys.into_iter().map(|key| table.get(&key).cloned());
            found.collect()
        };
        let mut received = Vec::with_capacity(pushes.len());
        for push in pushes.iter().flatten() {
            push.over.cancel();
        }
        for push in pushes {
            received.push(match push {
                Some(push) => push.left.lock().await.as_ref().map_or(0, Left::bytes),
                None => 0,
            });
        }
        received
    }

    /// Goes on at `offset`; nothing if it is not just so many bytes that are here.
    pub(crate) async fn resume(
        self: &Arc<Self>,
        key: Key,
        offset: u64,
    ) -> Option<(Writing, Beginning)> {
        let former = self.table().get(&key).cloned()?;
        former.over.cancel();
        let begun = {
            let mut left = former.left.lock().await;
            left.take_if(|left| left.bytes() == offset)?.beginning
        };
        Some((self.begin(key), begun))
    }

    /// Forgets what is too old.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        self.table().retain(|_, push| match push.left.try_lock() {
            Ok(left) => left
                .as_ref()
                .is_some_and(|left| now < left.at + self.bounds.time_max),
            Err(_under_way) => true,
        });
    }

    /// The runs that anything is kept for.
    pub(crate) fn runs(&self) -> HashSet<RunId> {
        self.table().keys().map(|key| key.run).collect()
    }

    /// Forgets all that nobody writes.
    pub(crate) fn forget_left(&self) {
        self.table().retain(|_, push| push.left.try_lock().is_err());
    }

    /// Forgets what belongs to a run that is over, and ends what is under way.
    pub(crate) fn forget_run(&self, run: RunId) {
        self.forget(|key| key.run == run);
    }

    /// Forgets what belongs to a node that has left, and ends what is under way.
    pub(crate) fn forget_node(&self, node: NodeId) {
        self.forget(|key| key.node == node);
    }

    fn forget(&self, is_over: impl Fn(&Key) -> bool) {
        for (_, push) in self.table().extract_if(|key, _| is_over(key)) {
            push.over.cancel();
        }
    }

    /// Lets the oldest go of what nobody writes, until the rest is within bounds.
    fn keep_bounds(&self, table: &mut Table) {
        let left = table.iter().filter_map(|(key, push)| {
            let left = push.left.try_lock().ok()?;
            let left = left.as_ref()?;
            Some((left.at, *key, left.bytes()))
        });
        let mut left: Vec<_> = left.collect();
        left.sort_unstable_by_key(|(at, ..)| std::cmp::Reverse(*at));
        let (mut all, mut of_nodes) = ((0, 0), HashMap::<NodeId, (usize, u64)>::new());
        for (_, key, bytes) in left {
            let of_node = of_nodes.entry(key.node).or_default();
            let is_within = bytes >= self.bounds.object_bytes_min
                && of_node.0 < self.bounds.node_count_max
                && all.0 < self.bounds.count_max
                && of_node.1 + bytes <= self.bounds.node_bytes_max
                && all.1 + bytes <= self.bounds.bytes_max;
            if is_within {
                *of_node = (of_node.0 + 1, of_node.1 + bytes);
                all = (all.0 + 1, all.1 + bytes);
            } else {
                table.remove(&key);
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // It is changed in single steps, so it holds also after a panic.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Left {
    fn bytes(&self) -> u64 {
        self.beginning.len()
    }
}

impl Writing {
    /// Whose push of what it is.
    pub(crate) fn key(&self) -> Key {
        self.key
    }

    /// Ends once the node has begun to go on elsewhere.
    pub(crate) fn over(&self) -> WaitForCancellationFutureOwned {
        self.push.over.clone().cancelled_owned()
    }

    /// Leaves what came for the node to go on with.
    pub(crate) fn leave(mut self, beginning: Option<Beginning>) {
        if let Some(left) = &mut self.left {
            let at = Instant::now();
            **left = beginning.map(|beginning| Left { beginning, at });
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let left = self.left.take();
        let is_left = left.is_some_and(|left| left.is_some());
        let mut table = self.partials.table();
        let is_latest = table
            .get(&self.key)
            .is_some_and(|push| Arc::ptr_eq(push, &self.push));
        if is_latest && is_left {
            self.partials.keep_bounds(&mut table);
        } else if is_latest {
            table.remove(&self.key);
        }
    }
}

type Table = HashMap<Key, Arc<Push>>;

#[cfg(test)]
#[path = "partials_tests.rs"]
mod tests;
