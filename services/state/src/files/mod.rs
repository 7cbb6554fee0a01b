//! Objects as files: a content-addressed folder with a quota.
//!
//! An object is in `objects/ab/abcdef..`, named by its id in hexadecimal digits, or it is not there:
//! bytes go to `tmp/` first, are hashed on the way, and get their name when all of them are right.
//! They are checked again on the way out ([`check`]). At no time is more than a few megabytes of an
//! object in memory.
//!
//! Whoever needs objects pins them. What is not pinned stays as a cache, and goes when room is
//! needed, the least recently used first.

mod check;
mod folder;
mod index;
mod opening;
mod reading;
mod remover;
mod writing;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use flwr_api::ObjectId;
use flwr_api::object::Malformed;
use flwr_transport::{Body, BodyError};

use self::folder::Folder;
use self::index::Index;
pub use self::remover::{Removed, Remover};
use self::writing::{Batch, Incoming, Progress};
use crate::disk::blocking;
use crate::error::{StoreError, StoreResult};
use crate::link::Put;
use crate::storage::{Accepted, Beginning, Content};

/// How much a folder of objects may hold, and how safely.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Most bytes of objects, those under way included.
    pub quota_bytes: u64,
    /// Bytes of the disk that are left to others.
    pub free_bytes_min: u64,
    /// Whether an object that was stored is there after the machine crashed. A cache needs not be
    /// durable: what a crash damages is noticed when it is read. Only a cache is made smaller when
    /// it is opened and the quota is less than it was.
    pub durable: bool,
}

/// What became of an object's bytes. Only [`PutFile::Stored`] leaves any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutFile {
    /// The body broke off.
    Interrupted(BodyError),
    /// They do not follow the object format.
    Malformed(Malformed),
    /// They were there already.
    Present,
    /// They are stored.
    Stored,
    /// They do not hash to the id.
    WrongHash,
}

/// The beginning of an object whose body broke off, with all that is needed to go on: its bytes in a
/// file, the room for the rest, the hash so far. Dropping it removes the file.
pub struct Partial(Box<Incoming>);

/// How far an object has come.
#[derive(Debug)]
pub enum Arrival {
    /// The body broke off, and this is what came.
    BrokeOff(Partial, BodyError),
    /// It is decided; never [`PutFile::Interrupted`].
    Over(PutFile),
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Objects that are here.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
    /// The part of `bytes` that cannot go now.
    pub pinned_bytes: u64,
    /// Bytes that are kept free for objects under way.
    pub reserved_bytes: u64,
}

/// A folder of objects. Cheap to clone: all clones are the same folder.
///
/// The folder belongs to this process until the last clone, [`Pin`] and body of an object is
/// dropped.
#[derive(Clone, Debug)]
pub struct ObjectFiles {
    folder: Arc<Folder>,
}

impl ObjectFiles {
    /// Takes a folder into use, which is made if it is not there. Blocks for as long as it takes
    /// to list the objects in it.
    ///
    /// # Errors
    /// [`InUse`](crate::StoreError::InUse) if it belongs to another process.
    pub fn open(folder: &Path, config: Config) -> StoreResult<Self> {
        let folder = Arc::new(opening::open(folder, config)?);
        Ok(Self { folder })
    }

    /// Stores an object. Its announced length is reserved before anything is written.
    ///
    /// Dropping the future leaves nothing, or all of the object if that had arrived.
    ///
    /// # Errors
    /// [`Full`](crate::StoreError::Full) if there is no room for it.
    pub async fn put(&self, id: ObjectId, body: Body) -> StoreResult<PutFile> {
        if self.folder.index().touch(id).is_some() {
            return Ok(PutFile::Present);
        }
        let mut incoming = Incoming::new(Arc::clone(&self.folder), id, body.len());
        let mut body = body.checked();
        loop {
            let batch = Batch::next(&self.folder, &mut body).await;
            // What broke off takes no room, and nothing goes for it.
            if let Some(why) = batch.failure() {
                return blocking(move || {
                    incoming.discard();
                    Ok(PutFile::Interrupted(why))
                })
                .await;
            }
            match blocking(move || incoming.take(batch)).await? {
                Progress::Done(put) => return Ok(put),
                Progress::BrokeOff(_, why) => return Ok(PutFile::Interrupted(why)),
                Progress::More(more) => incoming = more,
            }
        }
    }

    /// Stores an object as [`put`](Self::put) does, and keeps what has come if the body breaks off.
    /// `begun` is what came before of this object; the body is the rest then.
    ///
    /// Dropping the future leaves nothing, or all of the object if that had arrived.
    ///
    /// # Errors
    /// [`Full`](crate::StoreError::Full) if there is no room for it.
    pub async fn receive(
        &self,
        id: ObjectId,
        begun: Option<Partial>,
        body: Body,
    ) -> StoreResult<Arrival> {
        if self.folder.index().touch(id).is_some() {
            return Ok(Arrival::Over(PutFile::Present));
        }
        let mut incoming = match begun {
            Some(Partial(incoming)) if incoming.id() == id => incoming,
            _ => Incoming::new(Arc::clone(&self.folder), id, body.len()),
        };
        let mut body = body.checked();
        loop {
            let batch = Batch::next(&self.folder, &mut body).await;
            match blocking(move || incoming.take(batch)).await? {
                Progress::Done(put) => return Ok(Arrival::Over(put)),
                Progress::BrokeOff(incoming, why) => {
                    return Ok(Arrival::BrokeOff(Partial(incoming), why));
                }
                Progress::More(more) => incoming = more,
            }
        }
    }

    /// Takes the bytes of an object as [`Storage::accept`](crate::Storage::accept) says, into a file.
    ///
    /// # Errors
    /// [`Full`](crate::StoreError::Full) if there is no room for it.
    pub async fn accept(
        &self,
        id: ObjectId,
        is_wanted: bool,
        begun: Option<Beginning>,
        body: Body,
    ) -> StoreResult<Accepted> {
        if !is_wanted {
            return Ok(examine(id, body).await);
        }
        let pin = self.pin([id]);
        let begun = match begun {
            Some(Beginning::File(partial)) => Some(partial),
            Some(Beginning::Here(_)) | None => None,
        };
        Ok(match self.receive(id, begun, body).await? {
            Arrival::Over(PutFile::Stored | PutFile::Present) => {
                let len = self.len(id).ok_or(StoreError::Stopped)?;
                Accepted::Taken(Some(Content::File(len, pin)))
            }
            Arrival::Over(wrong) => refused(wrong),
            Arrival::BrokeOff(_, why @ BodyError::TooLong { .. }) => Accepted::BrokeOff(None, why),
            Arrival::BrokeOff(mut partial, why) => {
                let park = move || {
                    partial.0.park();
                    Ok(Beginning::File(partial))
                };
                Accepted::BrokeOff(Some(blocking(park).await?), why)
            }
        })
    }

    /// An object's bytes; nothing if they are not here, or not as they were written.
    ///
    /// They are read while the body is, and pinned until then. Damage that shows only late ends the
    /// body with [`BodyError::Interrupted`] before its last piece, and removes the object. Dropping
    /// the future loses nothing.
    ///
    /// # Errors
    /// The disk said no.
    pub async fn get(&self, id: ObjectId) -> StoreResult<Option<Body>> {
        if !self.has(id) {
            return Ok(None);
        }
        let folder = Arc::clone(&self.folder);
        blocking(move || reading::read(&folder, id)).await
    }

    /// Whether an object is here.
    #[must_use]
    pub fn has(&self, id: ObjectId) -> bool {
        self.len(id).is_some()
    }

    /// How many bytes an object has, if it is here.
    #[must_use]
    pub fn len(&self, id: ObjectId) -> Option<u64> {
        self.folder.index().len(id)
    }

    /// Those that are not here, each once, in the order given.
    #[must_use]
    pub fn missing(&self, ids: &[ObjectId]) -> Vec<ObjectId> {
        let index = self.folder.index();
        let mut seen = std::collections::HashSet::new();
        let is_missing = |id: &&ObjectId| index.len(**id).is_none() && seen.insert(**id);
        ids.iter().filter(is_missing).copied().collect()
    }

    /// Keeps objects, those here and those that come, from being removed until the pin is dropped.
    #[must_use]
    pub fn pin(&self, ids: impl IntoIterator<Item = ObjectId>) -> Pin {
        let ids = ids.into_iter().collect();
        Pin::new(&self.folder, &mut self.folder.index(), ids)
    }

    /// Lets the system write large objects to the disk now, and forget the pages of what is there already. The objects
    /// stay; who reads one of them reads the disk. Those that were read more than once are left alone: layers that do not
    /// change are read again every round. Dropping the future does not stop it.
    pub async fn leave_memory(&self, mut ids: Vec<ObjectId>) {
        self.folder.index().retain_large_and_new(&mut ids);
        if ids.is_empty() {
            return;
        }
        let folder = Arc::clone(&self.folder);
        let leave = move || {
            ids.into_iter().for_each(|id| folder.leave_memory(id));
            Ok(())
        };
        let _ = blocking(leave).await;
    }

    /// Removes an object unless it is pinned; false if it is, or is not here. Dropping the future
    /// does not stop it.
    ///
    /// # Errors
    /// The disk said no.
    pub async fn remove(&self, id: ObjectId) -> StoreResult<bool> {
        let folder = Arc::clone(&self.folder);
        blocking(move || folder.remove(id)).await
    }

    /// Removes an object unless it is pinned; false if it is, or is not here. Blocks.
    ///
    /// # Errors
    /// The disk said no.
    pub fn remove_now(&self, id: ObjectId) -> StoreResult<bool> {
        self.folder.remove(id)
    }

    /// Removes all objects that are not pinned. Blocks.
    ///
    /// # Errors
    /// The disk said no.
    pub fn clear_now(&self) -> StoreResult<()> {
        self.folder.clear()
    }

    /// Removes all objects that are not pinned. Dropping the future does not stop it.
    ///
    /// # Errors
    /// The disk said no.
    pub async fn clear(&self) -> StoreResult<()> {
        let folder = Arc::clone(&self.folder);
        blocking(move || folder.clear()).await
    }

    /// How much there is.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.folder.index().totals()
    }
}

impl Partial {
    /// How many are expected in all, where that is known.
    pub(crate) fn announced(&self) -> Option<u64> {
        self.0.announced()
    }

    /// Bytes that have come.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether none have.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Partial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partial")
            .field("id", &self.0.id())
            .field("len", &self.len())
            .finish()
    }
}

/// Checks the bytes of an object and drops them: their hash, then their format.
///
/// # Errors
/// The body broke off.
pub async fn inspect(id: ObjectId, body: Body) -> Result<Option<PutFile>, BodyError> {
    writing::inspect(id, body).await
}

/// Takes the bytes of an object that is not wanted: they are checked all the same, so that whoever sent wrong ones is told.
pub(crate) async fn examine(id: ObjectId, body: Body) -> Accepted {
    match inspect(id, body).await {
        Ok(None) => Accepted::Taken(None),
        Ok(Some(wrong)) => refused(wrong),
        Err(why) => Accepted::BrokeOff(None, why),
    }
}

/// What a caller is told of bytes that were not stored.
fn refused(put: PutFile) -> Accepted {
    match put {
        PutFile::WrongHash => Accepted::Refused(Put::WrongHash),
        PutFile::Malformed(why) => Accepted::Refused(Put::Malformed(why)),
        PutFile::Interrupted(why) => Accepted::BrokeOff(None, why),
        PutFile::Present | PutFile::Stored => Accepted::Refused(Put::Present),
    }
}

/// Objects that are not removed while this lives. Pins of one object add up.
pub struct Pin {
    folder: Arc<Folder>,
    ids: Vec<ObjectId>,
}

impl Pin {
    fn new(folder: &Arc<Folder>, index: &mut Index, ids: Vec<ObjectId>) -> Self {
        for id in &ids {
            index.pin(*id);
        }
        Self {
            folder: Arc::clone(folder),
            ids,
        }
    }

    /// What is pinned.
    #[must_use]
    pub fn ids(&self) -> &[ObjectId] {
        &self.ids
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut index = self.folder.index();
        for id in &self.ids {
            index.unpin(*id);
        }
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pin").field(&self.ids).finish()
    }
}
