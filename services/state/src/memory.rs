//! State that ends with its process, which is Flower's default, and the reference for every other
//! back end.
//!
//! The bytes of objects are in memory too, up to a bound. Beyond that large ones go to files, which
//! nobody finds again when the process has ended.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flwr_api::{ObjectId, RunId, UnixTime};
use flwr_transport::{Body, BodyError, Gathered};
use futures_util::stream;

use crate::error::{StoreError, StoreResult};
use crate::files::{self, ObjectFiles, Removed, Remover};
use crate::link::{LogSlice, Put};
use crate::logs::{self, Logs};
use crate::state::State;
use crate::storage::{Accepted, Beginning, Changes, Content, Position, Source, Storage};

/// State in memory. Cheap to clone: all clones are the same state.
pub type MemoryState = State<Memory>;

/// Keeps the bytes of objects and the logs of runs in memory, and nothing beyond that.
#[derive(Debug, Default)]
pub struct Memory {
    logs: Mutex<Logs>,
    overflow: Option<Overflow>,
}

/// What is kept in memory of objects.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most bytes, those of objects under way included.
    pub bytes_max: u64,
    /// Smaller objects are in memory in any case, and do not count: they are not worth a file.
    pub object_bytes_min: u64,
}

impl Bounds {
    /// At most `bytes_max` bytes.
    #[must_use]
    pub const fn of(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            object_bytes_min: 64 << 10,
        }
    }
}

/// Where objects go that have no room in memory.
#[derive(Debug)]
struct Overflow {
    // Before the remover, which ends with it.
    removed: Sender<Removed>,
    _remover: Remover,
    files: ObjectFiles,
    bounds: Bounds,
    held: Arc<AtomicU64>,
}

/// Part of what may be held in memory, until it is dropped.
#[derive(Debug)]
struct Share {
    bytes: u64,
    held: Arc<AtomicU64>,
}

/// Where an object goes.
enum Place {
    Here(Option<Share>),
    File,
}

/// The beginning of an object, with the share of the whole.
#[derive(Debug)]
pub struct Begun {
    gathered: Gathered,
    share: Option<Share>,
}

/// Bytes that have their share for as long as anybody has them.
struct Held {
    bytes: Bytes,
    _share: Share,
}

impl Memory {
    /// Keeps objects in memory within `bounds`, and the others in a folder below `folder` that is this process' alone
    /// and is empty at first. Blocks.
    ///
    /// # Errors
    /// There can be no such folder.
    pub fn overflowing(bounds: Bounds, folder: &Path, config: files::Config) -> StoreResult<Self> {
        let files = own_folder(folder, config)?;
        let (removed, to_remove) = channel();
        Ok(Self {
            logs: Mutex::default(),
            overflow: Some(Overflow {
                removed,
                _remover: Remover::start(files.clone(), to_remove),
                files,
                bounds,
                held: Arc::default(),
            }),
        })
    }
}

/// The first folder that no other process has. It is empty then, and so are those that were left behind by processes
/// which were killed: nobody finds again what is in there.
fn own_folder(folder: &Path, config: files::Config) -> StoreResult<ObjectFiles> {
    let at = |number| folder.join(format!("overflow-{number}"));
    let mut number = 1;
    let own = loop {
        match ObjectFiles::open(&at(number), config) {
            Err(StoreError::InUse { .. }) if number < PROCESSES_MAX => number += 1,
            opened => break opened?,
        }
    };
    own.clear_now()?;
    for other in (number + 1..=PROCESSES_MAX)
        .map(at)
        .filter(|other| other.exists())
    {
        let cleared = match ObjectFiles::open(&other, config) {
            Err(StoreError::InUse { .. }) => continue,
            opened => opened.and_then(|left| left.clear_now()),
        };
        if let Err(error) = cleared {
            tracing::warn!(folder = %other.display(), %error, "objects of a process that was killed stay");
        }
    }
    Ok(own)
}

impl Default for MemoryState {
    fn default() -> Self {
        Self::empty(Memory::default())
    }
}

impl Storage for Memory {
    const KEEPS_ROWS: bool = false;

    async fn admit(&self) -> StoreResult<()> {
        Ok(())
    }

    fn record(&self, mut changes: Changes) -> (Position, Option<Changes>) {
        if let Some(overflow) = &self.overflow {
            let is_file = |(_, content): &mut (_, Option<Content>)| {
                matches!(content, Some(Content::File(..)))
            };
            let removed = changes.removed.extract_if(.., is_file);
            let removed: Removed = removed
                .filter_map(|(object, content)| Some((object, content?)))
                .collect();
            if !removed.is_empty() {
                // The remover lives as long as this.
                let _sent = overflow.removed.send(removed);
            }
        }
        if !changes.forgotten.is_empty() {
            let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
            for run in &changes.forgotten {
                logs.forget(*run);
            }
        }
        (0, Some(changes))
    }

    async fn settle(&self, _position: Position) -> StoreResult<()> {
        Ok(())
    }

    async fn accept(
        &self,
        object: ObjectId,
        is_wanted: bool,
        begun: Option<Beginning>,
        body: Body,
    ) -> StoreResult<Accepted> {
        if !is_wanted {
            return Ok(files::examine(object, body).await);
        }
        let Some(overflow) = &self.overflow else {
            let begun = match begun {
                Some(Beginning::Here(begun)) => begun,
                Some(Beginning::File(_)) | None => Begun::new(&body, None),
            };
            return begun.finish(object, body).await;
        };
        let place = match begun {
            None => overflow.place(&body),
            Some(_) => Place::File,
        };
        let Place::Here(share) = place else {
            return overflow.files.accept(object, true, begun, body).await;
        };
        match Begun::new(&body, share).finish(object, body).await? {
            Accepted::BrokeOff(Some(Beginning::Here(begun)), why) => {
                Ok(overflow.put_away(object, begun, why).await)
            }
            accepted => Ok(accepted),
        }
    }

    async fn read(&self, object: ObjectId, source: Source) -> StoreResult<Option<Body>> {
        match (source, &self.overflow) {
            (Source::Here(bytes), _) => Ok(Some(Body::from_bytes(bytes))),
            (Source::File, Some(overflow)) => overflow.files.get(object).await,
            (Source::Row | Source::File, _) => Ok(None),
        }
    }

    async fn append_log(&self, run: RunId, text: String, now: UnixTime) -> StoreResult<()> {
        let entry = logs::entry(&text);
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.append(run, entry, now);
        Ok(())
    }

    async fn log_after(&self, run: RunId, after: UnixTime) -> StoreResult<LogSlice> {
        let read = {
            let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
            logs.after(run, after)
        };
        Ok(read.join())
    }
}

impl Begun {
    fn new(body: &Body, share: Option<Share>) -> Self {
        Self {
            gathered: Gathered::new(body.len()),
            share,
        }
    }

    /// The first bytes, which have no share.
    pub(crate) fn of(announced: u64, bytes: Bytes) -> Self {
        let mut gathered = Gathered::new(Some(announced));
        gathered.push(bytes);
        Self {
            gathered,
            share: None,
        }
    }

    /// How many are expected in all, where that is known.
    pub(crate) fn announced(&self) -> Option<u64> {
        self.gathered.announced()
    }

    /// Bytes that have come.
    pub(crate) fn len(&self) -> u64 {
        self.gathered.len()
    }

    /// Takes the rest, and judges the whole.
    async fn finish(mut self, object: ObjectId, rest: Body) -> StoreResult<Accepted> {
        // Its share is for what was announced first.
        let max = self.gathered.announced().unwrap_or(OBJECT_BYTES_MAX);
        let max = max.min(OBJECT_BYTES_MAX);
        let mut rest = rest.checked();
        match self.gathered.fill(&mut rest, max).await {
            Ok(()) => {}
            Err(why @ BodyError::TooLong { .. }) => return Ok(Accepted::BrokeOff(None, why)),
            Err(why) => return Ok(Accepted::BrokeOff(Some(Beginning::Here(self)), why)),
        }
        let content = self.gathered.into_bytes();
        let checked = if content.len() > BLOCKING_BYTES_MAX {
            let content = content.clone();
            tokio::task::spawn_blocking(move || check(object, &content))
                .await
                .map_err(|_| StoreError::Stopped)?
        } else {
            check(object, &content)
        };
        if let Err(wrong) = checked {
            return Ok(Accepted::Refused(wrong));
        }
        let content = match self.share {
            Some(share) => Bytes::from_owner(Held {
                bytes: content,
                _share: share,
            }),
            None => unpinned(content),
        };
        Ok(Accepted::Taken(Some(Content::Here(content))))
    }
}

impl Overflow {
    /// Moves what came of an object to a file, where it may stay for long.
    async fn put_away(&self, object: ObjectId, begun: Begun, why: BodyError) -> Accepted {
        if begun.len() < self.bounds.object_bytes_min {
            return Accepted::BrokeOff(None, why);
        }
        let announced = begun.gathered.announced();
        let pieces = [Ok(begun.gathered.into_bytes()), Err(why.clone())];
        let body = Body::from_stream(announced, stream::iter(pieces));
        match self.files.accept(object, true, None, body).await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%object, %error, "what came of an object is not kept");
                Accepted::BrokeOff(None, why)
            }
        }
    }

    /// Where an object goes: small ones are in memory in any case.
    fn place(&self, body: &Body) -> Place {
        match body.len() {
            Some(bytes) if bytes < self.bounds.object_bytes_min => Place::Here(None),
            Some(bytes) => match self.share(bytes) {
                Some(share) => Place::Here(Some(share)),
                None => Place::File,
            },
            None => Place::File,
        }
    }

    /// Room in memory for an object, if there is any.
    fn share(&self, bytes: u64) -> Option<Share> {
        let more = |held: u64| {
            held.checked_add(bytes)
                .filter(|held| *held <= self.bounds.bytes_max)
        };
        let taken = self
            .held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok().then(|| Share {
            bytes,
            held: Arc::clone(&self.held),
        })
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Held({} bytes)", self.bytes.len())
    }
}

/// Checks an object's bytes: hash, then format.
pub fn check(object: ObjectId, content: &Bytes) -> Result<(), Put> {
    if ObjectId::of(content) != object {
        return Err(Put::WrongHash);
    }
    flwr_api::object::check(content).map_err(Put::Malformed)?;
    Ok(())
}

/// Moves few bytes out of what may be a large receive buffer that they would keep alive.
fn unpinned(content: Bytes) -> Bytes {
    if content.len() <= COPIED_BYTES_MAX {
        return Bytes::copy_from_slice(&content);
    }
    content
}

/// Objects up to this size get memory of their own; larger ones are kept as they came.
const COPIED_BYTES_MAX: usize = 16 << 10;

/// How many processes may overflow below one folder.
const PROCESSES_MAX: u32 = 64;

/// Largest object that is taken, in bytes: what a gRPC message can carry.
const OBJECT_BYTES_MAX: u64 = 2 << 30;

/// More bytes than this are hashed on a thread of their own.
const BLOCKING_BYTES_MAX: usize = 1 << 20;
