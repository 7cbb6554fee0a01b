//! State that ends with its process, which is Flower's default, and the reference for every other
//! back end.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use flwr_api::{ObjectId, RunId, UnixTime};
use flwr_transport::Body;

use crate::error::{StoreError, StoreResult};
use crate::link::{LogSlice, Put};
use crate::logs::{self, Logs};
use crate::state::State;
use crate::storage::{Changes, Content, Position, Source, Storage};

/// State in memory. Cheap to clone: all clones are the same state.
pub type MemoryState = State<Memory>;

/// Keeps the bytes of objects and the logs of runs in memory, and nothing beyond that.
#[derive(Debug, Default)]
pub struct Memory {
    logs: Mutex<Logs>,
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

    fn record(&self, changes: Changes) -> (Position, Option<Changes>) {
        (0, Some(changes))
    }

    async fn settle(&self, _position: Position) -> StoreResult<()> {
        Ok(())
    }

    async fn accept(
        &self,
        object: ObjectId,
        _is_wanted: bool,
        body: Body,
    ) -> StoreResult<Result<Option<Content>, Put>> {
        let content = body.collect(OBJECT_BYTES_MAX).await?;
        let checked = if content.len() > BLOCKING_BYTES_MAX {
            let content = content.clone();
            tokio::task::spawn_blocking(move || check(object, &content))
                .await
                .map_err(|_| StoreError::Stopped)?
        } else {
            check(object, &content)
        };
        Ok(checked.map(|()| Some(Content::Here(unpinned(content)))))
    }

    async fn read(&self, _object: ObjectId, source: Source) -> StoreResult<Option<Body>> {
        Ok(match source {
            Source::Here(bytes) => Some(Body::from_bytes(bytes)),
            Source::Row | Source::File => None,
        })
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

/// Largest object that is taken, in bytes: what a gRPC message can carry.
const OBJECT_BYTES_MAX: u64 = 2 << 30;

/// More bytes than this are hashed on a thread of their own.
const BLOCKING_BYTES_MAX: usize = 1 << 20;
