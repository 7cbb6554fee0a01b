//! What has arrived of objects whose pushes broke off, so that their nodes can go on where they
//! stopped, also over another connection.
//!
//! A push is written here while it arrives, since a node that was killed is back long before the
//! connection of its former self is known to be gone. What nobody writes any more is kept for a
//! while, within bounds; the oldest goes first. Each beginning belongs to one node and one run, so
//! nobody can spoil another's. The whole object is hashed by the store when its last byte has come,
//! and nothing is left here then, right or wrong.

use std::collections::HashSet;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flwr_api::{NodeId, ObjectId, RunId};
use flwr_transport::{Body, BodyError, MemoryBudget, Room, Status};
use tokio::sync::watch;
use tokio::time::Instant;

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Most bytes of one node; no object that is larger is begun here.
    pub(crate) node_bytes_max: u64,
    /// Most bytes of all nodes.
    pub(crate) bytes_max: u64,
    /// Less of an object than this is not worth a question.
    pub(crate) object_bytes_min: u64,
    /// How long a node may stay away.
    pub(crate) time_max: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            node_bytes_max: 256 << 20,
            bytes_max: 1 << 30,
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
#[derive(Debug)]
pub(crate) struct Partials {
    bounds: Bounds,
    budget: MemoryBudget,
    table: Mutex<HashMap<Key, Arc<Mutex<Partial>>>>,
    /// How many pushes of a node have room or wait for it.
    pushing: Mutex<HashMap<NodeId, usize>>,
}

/// A push that has room, or waits for it.
#[must_use]
pub(crate) struct Pushing {
    partials: Arc<Partials>,
    node: NodeId,
    room: Room,
}

#[derive(Default)]
struct Partial {
    bytes: BytesMut,
    /// Who may write: the last one to ask.
    turn: watch::Sender<u64>,
    /// Since when nobody writes.
    left_at: Option<Instant>,
}

/// A push under way. Dropping it keeps what came.
pub(crate) struct Writing {
    partials: Arc<Partials>,
    key: Key,
    partial: Arc<Mutex<Partial>>,
    turn: watch::Receiver<u64>,
}

impl Partials {
    /// None yet. Pushes under way take their room from `budget`; what broke off has a quarter as much
    /// beside it.
    pub(crate) fn new(budget: MemoryBudget) -> Self {
        let mut bounds = Bounds::default();
        bounds.bytes_max = bounds.bytes_max.min(budget.bytes() / 4);
        Self::with(bounds, budget)
    }

    fn with(bounds: Bounds, budget: MemoryBudget) -> Self {
        Self {
            bounds,
            budget,
            table: Mutex::default(),
            pushing: Mutex::default(),
        }
    }

    /// Room for a push of so many bytes. The first push of a node waits for it; others are refused where there is none,
    /// because what they have sent unread would fill the window of their connection and leave none to the first.
    pub(crate) async fn room(
        self: &Arc<Self>,
        node: NodeId,
        object_bytes: u64,
    ) -> Result<Pushing, Status> {
        let others = {
            let mut pushing = locked(&self.pushing);
            let pushing = pushing.entry(node).or_default();
            *pushing += 1;
            *pushing - 1
        };
        let mut pushing = Pushing {
            partials: Arc::clone(self),
            node,
            room: Room::default(),
        };
        pushing.room = match others {
            0 => self.budget.take(object_bytes).await?,
            _ => self.budget.try_take(object_bytes)?,
        };
        Ok(pushing)
    }

    /// Whether the beginning of an object of so many bytes is worth keeping, and can be.
    pub(crate) fn takes(&self, object_bytes: u64) -> bool {
        (self.bounds.object_bytes_min..=self.bounds.node_bytes_max).contains(&object_bytes)
    }

    /// Begins an object of `object_bytes`; what was here of it is forgotten.
    pub(crate) fn begin(self: &Arc<Self>, key: Key, object_bytes: u64) -> Writing {
        let room = usize::try_from(object_bytes.min(BELIEVED_BYTES_MAX)).unwrap_or(0);
        let partial = Partial {
            bytes: BytesMut::with_capacity(room),
            ..Partial::default()
        };
        let turn = partial.turn.subscribe();
        let partial = Arc::new(Mutex::new(partial));
        self.table().insert(key, Arc::clone(&partial));
        Writing {
            partials: Arc::clone(self),
            key,
            partial,
            turn,
        }
    }

    /// How many bytes are here of each. Whoever writes them is over: the node asks because it has
    /// lost them.
    pub(crate) fn received(&self, keys: impl IntoIterator<Item = Key>) -> Vec<u64> {
        let mut table = self.table();
        let received = keys.into_iter().map(|key| {
            let Some(partial) = table.get(&key) else {
                return 0;
            };
            let mut partial = locked(partial);
            partial.end_turn();
            partial.left_at.get_or_insert_with(Instant::now);
            partial.bytes.len() as u64
        });
        let received: Vec<_> = received.collect();
        self.keep_bounds(&mut table);
        received
    }

    /// How many bytes are here of one, whoever writes them.
    pub(crate) fn len(&self, key: Key) -> u64 {
        let partial = self.table().get(&key).map(Arc::clone);
        partial.map_or(0, |partial| locked(&partial).bytes.len() as u64)
    }

    /// Goes on at `offset`; nothing if fewer bytes than that are here.
    pub(crate) fn resume(self: &Arc<Self>, key: Key, offset: u64) -> Option<Writing> {
        let partial = Arc::clone(self.table().get(&key)?);
        let turn = {
            let mut partial = locked(&partial);
            let offset = usize::try_from(offset).ok()?;
            if partial.bytes.len() < offset {
                return None;
            }
            partial.bytes.truncate(offset);
            partial.left_at = None;
            partial.end_turn();
            partial.turn.subscribe()
        };
        Some(Writing {
            partials: Arc::clone(self),
            key,
            partial,
            turn,
        })
    }

    /// Forgets what is too old.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        self.table().retain(|_, partial| {
            let left_at = locked(partial).left_at;
            left_at.is_none_or(|left_at| now < left_at + self.bounds.time_max)
        });
    }

    /// The runs that anything is kept for.
    pub(crate) fn runs(&self) -> HashSet<RunId> {
        self.table().keys().map(|key| key.run).collect()
    }

    /// Forgets what belongs to a run that is over.
    pub(crate) fn forget_run(&self, run: RunId) {
        self.table().retain(|key, _| key.run != run);
    }

    /// Forgets what belongs to a node that has left.
    pub(crate) fn forget_node(&self, node: NodeId) {
        self.table().retain(|key, _| key.node != node);
    }

    /// Lets the oldest go of what nobody writes, until the rest is within bounds.
    fn keep_bounds(&self, table: &mut Table) {
        let left = table.iter().filter_map(|(key, partial)| {
            let partial = locked(partial);
            let left_at = partial.left_at?;
            Some((left_at, *key, partial.bytes.len() as u64))
        });
        let mut left: Vec<_> = left.collect();
        left.sort_unstable_by_key(|(left_at, ..)| std::cmp::Reverse(*left_at));
        let (mut all, mut of_nodes) = (0, HashMap::<NodeId, u64>::new());
        for (_, key, bytes) in left {
            let of_node = of_nodes.entry(key.node).or_default();
            let is_within = bytes >= self.bounds.object_bytes_min
                && *of_node + bytes <= self.bounds.node_bytes_max
                && all + bytes <= self.bounds.bytes_max;
            if is_within {
                *of_node += bytes;
                all += bytes;
            } else {
                table.remove(&key);
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        locked(&self.table)
    }
}

impl Partial {
    /// Whoever writes is over.
    fn end_turn(&mut self) {
        self.turn.send_modify(|turn| *turn += 1);
    }
}

impl Writing {
    /// Takes a checked body to its end and returns the whole object.
    ///
    /// # Errors
    /// When the body breaks off or is too long, or the node has begun to go on elsewhere.
    pub(crate) async fn fill(self, mut body: Body) -> Result<Bytes, BodyError> {
        // A copy, since the end of a turn is seen once.
        let mut over = self.turn.clone();
        loop {
            let piece = tokio::select! {
                biased;
                // What is written in vain gives its room back at once.
                _ = over.changed() => return Err(BodyError::Interrupted),
                piece = body.next() => piece,
            };
            match piece {
                Some(piece) => self.append(&piece?)?,
                None => return self.finish(),
            }
        }
    }

    /// Takes the next bytes.
    pub(crate) fn append(&self, piece: &[u8]) -> Result<(), BodyError> {
        let mut partial = self.mine()?;
        let max = self.partials.bounds.node_bytes_max;
        if partial.bytes.len() as u64 + piece.len() as u64 > max {
            return Err(BodyError::TooLong { max });
        }
        partial.bytes.extend_from_slice(piece);
        Ok(())
    }

    fn finish(self) -> Result<Bytes, BodyError> {
        let mut table = self.partials.table();
        let whole = {
            let mut partial = self.mine()?;
            partial.end_turn();
            std::mem::take(&mut partial.bytes)
        };
        if self.is_in(&table) {
            table.remove(&self.key);
        }
        drop(table);
        Ok(whole.freeze())
    }

    /// What is written, as long as nobody else writes it.
    fn mine(&self) -> Result<MutexGuard<'_, Partial>, BodyError> {
        let partial = locked(&self.partial);
        match self.turn.has_changed() {
            Ok(false) => Ok(partial),
            Ok(true) | Err(_) => Err(BodyError::Interrupted),
        }
    }

    fn is_in(&self, table: &Table) -> bool {
        table
            .get(&self.key)
            .is_some_and(|partial| Arc::ptr_eq(partial, &self.partial))
    }
}

impl Drop for Pushing {
    fn drop(&mut self) {
        let mut pushing = locked(&self.partials.pushing);
        if let Entry::Occupied(mut of_node) = pushing.entry(self.node) {
            *of_node.get_mut() -= 1;
            if *of_node.get() == 0 {
                of_node.remove();
            }
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut table = self.partials.table();
        let Ok(mut partial) = self.mine() else {
            return;
        };
        partial.left_at = Some(Instant::now());
        drop(partial);
        if self.is_in(&table) {
            self.partials.keep_bounds(&mut table);
        }
    }
}

impl std::fmt::Debug for Partial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partial")
            .field("bytes", &self.bytes.len())
            .field("left_at", &self.left_at)
            .finish_non_exhaustive()
    }
}

type Table = HashMap<Key, Arc<Mutex<Partial>>>;

/// What these locks guard is changed in single steps, so it holds also after a panic.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A peer's announcement is believed so far; beyond that the buffer grows as bytes arrive.
const BELIEVED_BYTES_MAX: u64 = 64 << 20;

#[cfg(test)]
#[path = "partials_tests.rs"]
mod tests;
