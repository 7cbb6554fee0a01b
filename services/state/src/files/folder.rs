//! The folder, its index, and the locks that keep them in step.
//!
//! Locks are taken in this order: `room` (making room and removing, one at a time), a shard's
//! (what has which name), the index's. Only the last is ever waited for by a thread that serves.

use std::fmt;
use std::fs::File;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flwr_api::ObjectId;
use rustix::fs::{Advice, fadvise};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Config;
use super::index::{Index, Moment, Room, Which};
use crate::disk::{failed, free_bytes};
use crate::error::{StoreError, StoreResult};

pub(super) struct Folder {
    path: PathBuf,
    config: Config,
    index: Mutex<Index>,
    /// One for each first byte of an id.
    shards: Box<[Mutex<()>]>,
    room: Mutex<()>,
    temporaries: AtomicU64,
    large_batches: Arc<Semaphore>,
    /// Locked for as long as this is used.
    _lock: File,
}

impl Folder {
    pub(super) fn new(path: PathBuf, config: Config, index: Index, lock: File) -> Self {
        Self {
            path,
            config,
            index: Mutex::new(index),
            shards: (0..SHARDS).map(|_| Mutex::new(())).collect(),
            room: Mutex::new(()),
            temporaries: AtomicU64::new(0),
            large_batches: Arc::new(Semaphore::new(LARGE_BATCHES_MAX)),
            _lock: lock,
        }
    }

    pub(super) fn is_durable(&self) -> bool {
        self.config.durable
    }

    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        locked(&self.index)
    }

    /// Keeps others from changing what files have names in this object's shard.
    pub(super) fn shard(&self, id: ObjectId) -> MutexGuard<'_, ()> {
        locked(&self.shards[usize::from(id.0[0])])
    }

    /// Where the objects are.
    pub(super) fn objects_path(&self) -> PathBuf {
        self.path.join(OBJECTS)
    }

    /// Where the objects are whose ids begin like this one.
    pub(super) fn shard_path(&self, id: ObjectId) -> PathBuf {
        self.objects_path().join(&id.to_string()[..SHARD_DIGITS])
    }

    /// Where the object's file is, if it is here.
    pub(super) fn object_path(&self, id: ObjectId) -> PathBuf {
        self.shard_path(id).join(id.to_string())
    }

    /// Leave to gather many bytes before they are written, where few others do.
    pub(super) fn large_batch(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.large_batches).try_acquire_owned().ok()
    }

    /// A path for a file that may become this object.
    pub(super) fn temporary_path(&self, id: ObjectId) -> PathBuf {
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        self.path.join(TEMPORARY).join(format!("{id}.{number}"))
    }

    /// Reserves room, for which the objects that were not used for the longest time go if need be.
    /// Blocks.
    pub(super) fn reserve(&self, bytes: u64) -> StoreResult<()> {
        if self.index().reserve(bytes) {
            return Ok(());
        }
        let one_at_a_time = locked(&self.room);
        let free = free_bytes(&self.path)?;
        let usable = free.saturating_sub(self.config.free_bytes_min);
        self.index().measured(usable);
        loop {
            let room = self.index().make_room(bytes);
            match room {
                Room::Reserved => break,
                Room::Remove(id) => {
                    if let Some(len) = self.discard(id, Which::Idle, &one_at_a_time)? {
                        tracing::debug!(object = %id, len, "object made room");
                        self.index().credit(len);
                    }
                }
                Room::None(limit) => {
                    let folder = self.path.clone();
                    return Err(StoreError::Full { folder, limit });
                }
            }
        }
        self.index().measure_after(MEASURED_BYTES);
        Ok(())
    }

    /// Begins to write the pages of an object, and forgets those that are written. It is advice: what fails changes
    /// nothing. Blocks.
    pub(super) fn leave_memory(&self, id: ObjectId) {
        if let Ok(file) = File::open(self.object_path(id)) {
            let _ = fadvise(&file, 0, None, Advice::DontNeed);
        }
    }

    /// Removes an object unless it is pinned; whether it did. Blocks.
    pub(super) fn remove(&self, id: ObjectId) -> StoreResult<bool> {
        let one_at_a_time = locked(&self.room);
        let removed = self.discard(id, Which::Idle, &one_at_a_time)?;
        Ok(removed.is_some())
    }

    /// Removes all that is not pinned. Blocks.
    pub(super) fn clear(&self) -> StoreResult<()> {
        let one_at_a_time = locked(&self.room);
        loop {
            let oldest = self.index().oldest();
            let Some(id) = oldest else { return Ok(()) };
            self.discard(id, Which::Idle, &one_at_a_time)?;
        }
    }

    /// Removes an object that turned out to be damaged. Blocks.
    pub(super) fn remove_damaged(&self, id: ObjectId, arrived: Moment) {
        let one_at_a_time = locked(&self.room);
        if let Err(error) = self.discard(id, Which::Arrived(arrived), &one_at_a_time) {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(%error, cause, "damaged object stays");
        }
    }

    fn discard(
        &self,
        id: ObjectId,
        which: Which,
        _one_at_a_time: &MutexGuard<'_, ()>,
    ) -> StoreResult<Option<u64>> {
        let _shard = self.shard(id);
        let Some(len) = self.index().take(id, which) else {
            return Ok(None);
        };
        let path = self.object_path(id);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                self.index().back(id, len);
                Err(failed("remove", &path)(error))
            }
            _ => {
                self.index().left(len);
                Ok(Some(len))
            }
        }
    }
}

impl fmt::Debug for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Folder")
            .field("path", &self.path)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// What these locks guard is changed in single steps, so it holds also after a panic.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the objects are, in folders named by the first digits of their ids.
pub(super) const OBJECTS: &str = "objects";

/// Where files are until they are complete.
pub(super) const TEMPORARY: &str = "tmp";

/// The file that says whose the folder is.
pub(super) const LOCK: &str = "lock";

/// How many digits of an id name its folder.
pub(super) const SHARD_DIGITS: usize = 2;

/// Large batches of bytes that are gathered or written at once: of a mebibyte each.
const LARGE_BATCHES_MAX: usize = 32;

/// How many folders that makes.
const SHARDS: usize = 1 << (4 * SHARD_DIGITS);

/// The disk's free space is asked for once in so many bytes.
const MEASURED_BYTES: u64 = 64 << 20;
