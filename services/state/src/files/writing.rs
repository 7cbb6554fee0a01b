//! An object on its way into a file.

use std::sync::Arc;

use bytes::Bytes;
use flwr_api::ObjectId;
use flwr_api::object::HeadCheck;
use flwr_transport::{Body, BodyError};
use futures_util::FutureExt as _;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;

use super::PutFile;
use super::check::Check;
use super::folder::Folder;
use super::index::Index;
use crate::disk::{Temporary, create_folder, sync_folder};
use crate::error::StoreResult;

/// An object whose bytes are coming. Dropping it leaves nothing.
pub(super) struct Incoming {
    folder: Arc<Folder>,
    id: ObjectId,
    announced: Option<u64>,
    len: u64,
    check: Check,
    head: HeadCheck,
    on_disk: Option<OnDisk>,
}

/// How far an object is after some of its bytes.
pub(super) enum Progress {
    More(Box<Incoming>),
    BrokeOff(Box<Incoming>, BodyError),
    Done(PutFile),
}

/// The next bytes of a body.
pub(super) struct Batch {
    pieces: Vec<Bytes>,
    then: Then,
    _large: Option<OwnedSemaphorePermit>,
}

/// What follows a batch.
enum Then {
    More,
    Nothing,
    Failure(BodyError),
}

/// A file and the room for it. The file goes first.
struct OnDisk {
    file: Temporary,
    room: Reservation,
}

struct Reservation {
    folder: Arc<Folder>,
    bytes: u64,
    unwritten: u64,
}

impl Incoming {
    pub(super) fn new(folder: Arc<Folder>, id: ObjectId, announced: Option<u64>) -> Box<Self> {
        Box::new(Self {
            folder,
            id,
            announced,
            len: 0,
            check: Check::id(id),
            head: HeadCheck::new(),
            on_disk: None,
        })
    }

    /// Which object it is to become.
    pub(super) fn id(&self) -> ObjectId {
        self.id
    }

    /// Bytes that have come.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// How many are expected in all, where that is known.
    pub(super) fn announced(&self) -> Option<u64> {
        self.announced
    }

    /// Keeps no more than the bytes that have come: nothing is open, and no room is kept for the rest.
    pub(super) fn park(&mut self) {
        if let Some(on_disk) = &mut self.on_disk {
            on_disk.file.close();
            on_disk.room.shrink_to(self.len);
        }
    }

    /// Takes the next bytes, and judges the object after the last of them. Blocks.
    pub(super) fn take(mut self: Box<Self>, batch: Batch) -> StoreResult<Progress> {
        if batch.pieces.is_empty()
            && let Then::Failure(why) = batch.then
        {
            // For nothing there is no room to be taken.
            return Ok(Progress::BrokeOff(self, why));
        }
        if let Err(error) = self.write(&batch.pieces) {
            self.discard();
            return Err(error);
        }
        match batch.then {
            Then::More => Ok(Progress::More(self)),
            Then::Nothing => self.finish().map(Progress::Done),
            Then::Failure(why) => Ok(Progress::BrokeOff(self, why)),
        }
    }

    /// Removes what was written. Blocks.
    pub(super) fn discard(mut self: Box<Self>) {
        drop(self.on_disk.take());
    }

    fn write(&mut self, pieces: &[Bytes]) -> StoreResult<()> {
        let more: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        let goal = self.announced.unwrap_or(0).max(self.len + more);
        let on_disk = match &mut self.on_disk {
            Some(on_disk) => on_disk,
            empty => {
                let room = Reservation::new(&self.folder, goal)?;
                let file = Temporary::create(self.folder.temporary_path(self.id))?;
                empty.insert(OnDisk { file, room })
            }
        };
        on_disk.room.grow_to(goal)?;
        for piece in pieces {
            self.head.push(piece);
            // Small enough to be in the processor's cache from hashing when it is copied.
            for slice in piece.chunks(SLICE_BYTES) {
                self.check.update(slice);
                on_disk.file.write(slice)?;
            }
        }
        self.len += more;
        on_disk.room.written(more);
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> StoreResult<PutFile> {
        let Some(mut on_disk) = self.on_disk.take() else {
            return Ok(PutFile::WrongHash);
        };
        let Some(checksum) = self.check.finish() else {
            return Ok(PutFile::WrongHash);
        };
        if let Err(why) = self.head.finish(self.len) {
            return Ok(PutFile::Malformed(why));
        }
        if self.folder.is_durable() {
            on_disk.file.sync()?;
        }
        let _shard = self.folder.shard(self.id);
        if self.folder.index().touch(self.id).is_some() {
            return Ok(PutFile::Present);
        }
        let OnDisk { file, room } = on_disk;
        self.name(file)?;
        let mut index = self.folder.index();
        room.end(&mut index);
        index.insert(self.id, self.len, Some(checksum));
        Ok(PutFile::Stored)
    }

    fn name(&self, file: Temporary) -> StoreResult<()> {
        let shard = self.folder.shard_path(self.id);
        let is_new = !shard.exists();
        if is_new {
            create_folder(&shard)?;
        }
        let path = self.folder.object_path(self.id);
        file.keep_as(&path)?;
        if !self.folder.is_durable() {
            return Ok(());
        }
        let mut synced = sync_folder(&shard);
        if is_new {
            synced = synced.and_then(|()| sync_folder(&self.folder.objects_path()));
        }
        if synced.is_err() {
            // The error that matters is the first one.
            let _ = std::fs::remove_file(&path);
        }
        synced
    }
}

impl Drop for Incoming {
    /// What is given up half way is removed by a thread that may block.
    fn drop(&mut self) {
        let Some(on_disk) = self.on_disk.take() else {
            return;
        };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(on_disk))),
            Err(_) => drop(on_disk),
        }
    }
}

impl Batch {
    /// Why nothing follows it, if it is not the end of the object.
    pub(super) fn failure(&self) -> Option<BodyError> {
        match &self.then {
            Then::Failure(why) => Some(why.clone()),
            Then::More | Then::Nothing => None,
        }
    }

    /// Gathers bytes until they are worth a visit to another thread, or, if there are some, until the next have to be
    /// waited for. Dropping the future loses what was gathered.
    pub(super) async fn next(folder: &Folder, body: &mut Body) -> Self {
        let mut pieces = Vec::new();
        let mut bytes = 0;
        let mut large = None;
        while bytes < BATCH_BYTES && pieces.len() < BATCH_PIECES_MAX {
            // Of many that come at once, most are handed over in small batches.
            if bytes >= SMALL_BATCH_BYTES && large.is_none() {
                large = folder.large_batch();
                if large.is_none() {
                    break;
                }
            }
            let next = match body.next().now_or_never() {
                Some(next) => next,
                // Slow senders, of which there may be many, have little in memory.
                None if bytes >= SMALL_BATCH_BYTES => break,
                None => body.next().await,
            };
            let then = match next {
                Some(Ok(piece)) => {
                    bytes += piece.len();
                    pieces.push(piece);
                    continue;
                }
                Some(Err(why)) => Then::Failure(why),
                None => Then::Nothing,
            };
            return Self {
                pieces,
                then,
                _large: large,
            };
        }
        Self {
            pieces,
            then: Then::More,
            _large: large,
        }
    }
}

impl Reservation {
    fn new(folder: &Arc<Folder>, bytes: u64) -> StoreResult<Self> {
        folder.reserve(bytes)?;
        Ok(Self {
            folder: Arc::clone(folder),
            bytes,
            unwritten: bytes,
        })
    }

    /// Reserves what is missing to `bytes`: for bodies of unknown length, and those that go on.
    fn grow_to(&mut self, bytes: u64) -> StoreResult<()> {
        let missing = bytes.saturating_sub(self.bytes);
        if missing > 0 {
            self.folder.reserve(missing)?;
            self.bytes += missing;
            self.unwritten += missing;
        }
        Ok(())
    }

    /// Gives back what is beyond `bytes`, which are written.
    fn shrink_to(&mut self, bytes: u64) {
        let mut index = self.folder.index();
        index.release(self.bytes - bytes, self.unwritten);
        self.bytes = bytes;
        self.unwritten = 0;
    }

    fn written(&mut self, bytes: u64) {
        self.unwritten -= bytes;
        self.folder.index().written(bytes);
    }

    /// Ends the reservation in a step with something else.
    fn end(mut self, index: &mut Index) {
        index.release(self.bytes, self.unwritten);
        self.bytes = 0;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.folder.index().release(self.bytes, self.unwritten);
        }
    }
}

/// What is wrong with the bytes of an object, which are dropped; nothing if they are right.
pub(super) async fn inspect(id: ObjectId, body: Body) -> Result<Option<PutFile>, BodyError> {
    let (mut body, mut len) = (body.checked(), 0);
    let mut judged = (Check::id(id), HeadCheck::new());
    while let Some(piece) = body.next().await.transpose()? {
        len += piece.len() as u64;
        let hash = move || {
            judged.0.update(&piece);
            judged.1.push(&piece);
            judged
        };
        judged = match tokio::task::spawn_blocking(hash).await {
            Ok(judged) => judged,
            Err(_) => return Err(BodyError::Interrupted),
        };
    }
    let (check, head) = judged;
    if check.finish().is_none() {
        return Ok(Some(PutFile::WrongHash));
    }
    Ok(head.finish(len).err().map(PutFile::Malformed))
}

/// Bytes that are handed to another thread at once, at least: about a millisecond of work.
const BATCH_BYTES: usize = 1 << 20;

/// So many bytes do not wait for others.
const SMALL_BATCH_BYTES: usize = 128 << 10;

/// Most pieces that are waited for, since a small one can keep a large receive buffer alive.
const BATCH_PIECES_MAX: usize = 128;

/// Bytes that are hashed and then written.
const SLICE_BYTES: usize = 128 << 10;
