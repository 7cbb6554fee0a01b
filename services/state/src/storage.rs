//! What lasts of a state, and where the bytes of its objects are.
//!
//! [`State`](crate::State) keeps its tables in memory, whatever happens to them. A storage is told
//! what each step has changed, in rows, and says from when on that outlives the process.

use std::cmp::Ordering;
use std::fmt;
use std::future::Future;

use bytes::Bytes;
use flwr_api::{ObjectId, RunId, UnixTime};
use flwr_transport::{Body, BodyError};

use crate::error::StoreResult;
use crate::files::{Partial, Pin};
use crate::link::{LogSlice, Put};
use crate::memory::Begun;
use crate::tables::rows::Change;

/// A step's place in the order of all steps that changed something.
pub type Position = u64;

/// What one step changed.
#[derive(Debug, Default)]
pub struct Changes {
    /// Rows as they are after the step.
    pub rows: Vec<Change>,
    /// Objects that were removed, or were not wanted: to be dropped once the rows are written.
    pub removed: Vec<(ObjectId, Option<Content>)>,
    /// Runs that are forgotten, with their logs.
    pub forgotten: Vec<RunId>,
}

/// Where an object's bytes are.
#[derive(Debug)]
pub enum Content {
    /// In memory.
    Here(Bytes),
    /// In a row of the storage, of so many bytes.
    Row(u64),
    /// In a file of so many bytes, which stays for as long as it is pinned.
    File(u64, Pin),
}

/// Where to read an object's bytes.
#[derive(Clone, Debug)]
pub enum Source {
    /// In memory.
    Here(Bytes),
    /// In a row of the storage.
    Row,
    /// In a file.
    File,
}

/// What came of the bytes of an object.
#[derive(Debug)]
pub enum Accepted {
    /// They are right; nothing if they were not wanted.
    Taken(Option<Content>),
    /// They are wrong.
    Refused(Put),
    /// The body broke off before its end, and this is what came, where it was kept.
    BrokeOff(Option<Beginning>, BodyError),
}

/// The beginning of an object, where its storage has put it. Dropping it drops the bytes.
#[derive(Debug)]
pub enum Beginning {
    /// In memory, where there is no bound.
    Here(Begun),
    /// In a file.
    File(Partial),
}

/// Where changes go, and the bytes of objects.
pub trait Storage: fmt::Debug + Send + Sync + 'static {
    /// Whether it keeps a copy of the tables. One that does not is told of no rows.
    const KEEPS_ROWS: bool;

    /// Waits until there is room for the changes of one more step.
    ///
    /// # Errors
    /// Nothing can be stored at present.
    fn admit(&self) -> impl Future<Output = StoreResult<()>> + Send;

    /// Takes what a step changed, in the order of steps, and returns the position that has to be
    /// settled before anybody may hear of the step. Does not block. What it has no use for it gives
    /// back, to be dropped.
    fn record(&self, changes: Changes) -> (Position, Option<Changes>);

    /// Waits until everything up to `position` outlives the process.
    ///
    /// # Errors
    /// It does not, at present; it may later.
    fn settle(&self, position: Position) -> impl Future<Output = StoreResult<()>> + Send;

    /// Takes the bytes of an object, which are checked on the way: hash, then format. Those of an
    /// object that is not wanted are checked and dropped; nothing is returned for them. If some came
    /// before, which is only told of objects that are wanted, the body is the rest.
    ///
    /// # Errors
    /// There is no room.
    fn accept(
        &self,
        object: ObjectId,
        is_wanted: bool,
        begun: Option<Beginning>,
        body: Body,
    ) -> impl Future<Output = StoreResult<Accepted>> + Send;

    /// The bytes of an object; nothing if they are gone, or not as they were written.
    ///
    /// # Errors
    /// They cannot be read at present.
    fn read(
        &self,
        object: ObjectId,
        source: Source,
    ) -> impl Future<Output = StoreResult<Option<Body>>> + Send;

    /// Appends to a run's log as [`RunLogs`](crate::RunLogs) says.
    ///
    /// # Errors
    /// It cannot be stored at present.
    fn append_log(
        &self,
        run: RunId,
        text: String,
        now: UnixTime,
    ) -> impl Future<Output = StoreResult<()>> + Send;

    /// Reads a run's log as [`RunLogs`](crate::RunLogs) says.
    ///
    /// # Errors
    /// It cannot be read at present.
    fn log_after(
        &self,
        run: RunId,
        after: UnixTime,
    ) -> impl Future<Output = StoreResult<LogSlice>> + Send;
}

impl Beginning {
    /// The first bytes of an object that `announced` are expected of.
    #[must_use]
    pub fn here(announced: u64, bytes: Bytes) -> Self {
        Self::Here(Begun::of(announced, bytes))
    }

    /// Whether the whole will be as long as was said first, with this rest.
    ///
    /// # Errors
    /// It is longer or shorter.
    pub(crate) fn fits(&self, rest: &Body) -> Result<(), BodyError> {
        let announced = match self {
            Self::Here(begun) => begun.announced(),
            Self::File(partial) => partial.announced(),
        };
        let (Some(announced), Some(rest)) = (announced, rest.len()) else {
            return Ok(());
        };
        let received = self.len().saturating_add(rest);
        match received.cmp(&announced) {
            Ordering::Less => Err(BodyError::TooShort {
                announced,
                received,
            }),
            Ordering::Equal => Ok(()),
            Ordering::Greater => Err(BodyError::TooLong { max: announced }),
        }
    }

    /// Bytes that have come.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Here(begun) => begun.len(),
            Self::File(partial) => partial.len(),
        }
    }

    /// Whether none have.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Content {
    /// How many bytes these are.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Here(bytes) => bytes.len() as u64,
            Self::Row(len) | Self::File(len, _) => *len,
        }
    }

    /// Where to read them.
    pub(crate) fn source(&self) -> Source {
        match self {
            Self::Here(bytes) => Source::Here(bytes.clone()),
            Self::Row(_) => Source::Row,
            Self::File(..) => Source::File,
        }
    }
}
