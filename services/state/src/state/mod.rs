//! The state: tables in memory, and a storage that makes what they say last.
//!
//! A step changes the tables under one mutex, which is held for one step at a time and never across
//! an await, and hands what it changed to the storage in the same order. Its caller hears of it once
//! the storage has it for good, and so does whoever only reads: nobody is told what a crash could
//! take back.

mod links;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use flwr_api::{ObjectId, UnixTime};

use crate::error::{StoreError, StoreResult};
use crate::storage::{Position, Storage};
use crate::tables::Tables;
use crate::tables::rows::Rows;
use crate::wakeups::{Topic, Wakeups};

/// A state over a storage. Cheap to clone: all clones are the same state.
#[derive(Debug)]
pub struct State<S> {
    inner: Arc<Inner<S>>,
}

#[derive(Debug)]
struct Inner<S> {
    tables: Mutex<Tables>,
    wakeups: Wakeups,
    storage: S,
}

impl<S: Storage> State<S> {
    /// A state with nothing in it.
    #[must_use]
    pub fn empty(storage: S) -> Self {
        let mut tables = Tables::default();
        if S::KEEPS_ROWS {
            tables.keep_marks();
        }
        Self::new(storage, tables, Wakeups::new())
    }

    /// The state of a former process, as of `now`, which tells changes on `wakeups`. The time from
    /// then to `now` counts for nobody: leases and the promises of nodes are longer by it. What was
    /// lost of objects is answered with errors.
    ///
    /// # Errors
    /// The rows do not fit together.
    pub fn restore(storage: S, rows: Rows, wakeups: Wakeups, now: UnixTime) -> StoreResult<Self> {
        let tables = Tables::restore(rows, now)
            .map_err(|damaged| StoreError::Inconsistent { object: damaged.0 })?;
        Ok(Self::new(storage, tables, wakeups))
    }

    fn new(storage: S, tables: Tables, wakeups: Wakeups) -> Self {
        Self {
            inner: Arc::new(Inner {
                tables: Mutex::new(tables),
                wakeups,
                storage,
            }),
        }
    }

    /// Where its changes go.
    pub fn storage(&self) -> &S {
        &self.inner.storage
    }

    /// Does one atomic step, which outlives the process when this is done. Dropping the future does
    /// not undo it.
    async fn step<T>(&self, work: impl FnOnce(&mut Tables) -> T) -> StoreResult<T> {
        self.storage().admit().await?;
        let (result, position) = self.apply(work);
        self.storage().settle(position).await?;
        Ok(result)
    }

    /// Does one atomic step that a crash may take back, and wakes whom it concerns. Returns what has
    /// to be settled before anybody may rely on it.
    fn apply<T>(&self, work: impl FnOnce(&mut Tables) -> T) -> (T, Position) {
        let inner = &self.inner;
        let mut tables = inner.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut tables);
        let woken = tables.take_woken();
        let changes = tables.take_changes();
        let gone: Vec<ObjectId> = changes.removed.iter().map(|(object, _)| *object).collect();
        let (position, dropped) = inner.storage.record(changes);
        drop(tables);
        drop(dropped);
        for topic in woken {
            inner.wakeups.notify(topic);
        }
        for object in gone {
            inner.wakeups.notify(Topic::Object(object));
        }
        (result, position)
    }

    /// Looks at the tables, which nothing changes.
    fn look<T>(&self, work: impl FnOnce(&Tables) -> T) -> T {
        let tables = &self.inner.tables;
        work(&tables.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// An object's bytes turned out to be gone. Everything that needs them is answered with errors.
    fn lose(&self, object: ObjectId) {
        let (errors, _) = self.apply(|tables| tables.lose(&HashSet::from([object])));
        tracing::error!(%object, errors, "object is lost; messages that need it are answered with errors");
    }
}

impl<S> Clone for State<S> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}
