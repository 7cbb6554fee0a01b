//! How a store fails.

use std::path::PathBuf;

use flwr_transport::Code;

/// A store could not do its work. What was asked is not done, or not safe yet, and can be asked again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk said no.
    #[error("cannot {action} {path}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// There is no room for what was to be stored, and none can be made.
    #[error("there is no room in {folder}")]
    Full {
        /// The folder of the store.
        folder: PathBuf,
        /// What bounds it, and what to do.
        #[source]
        limit: Limit,
    },
    /// Another process, or this one, uses the folder already.
    #[error("{folder} is in use by another process; give each process a folder of its own")]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// What is stored of an object does not fit what is stored of others.
    #[error("the rows of object {object} do not fit together")]
    Inconsistent {
        /// The object.
        object: flwr_api::ObjectId,
    },
    /// A body did not arrive whole.
    #[error("the object did not arrive whole")]
    Body(#[from] flwr_transport::BodyError),
    /// A worker thread is gone.
    #[error("the store is shutting down")]
    Stopped,
}

/// What leaves no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// The quota that was configured.
    #[error(
        "{wanted} bytes are wanted, and work under way holds {held} of a quota of {quota}; raise the quota"
    )]
    Quota {
        /// Bytes that were to be added.
        wanted: u64,
        /// Bytes that cannot go now.
        held: u64,
        /// The quota.
        quota: u64,
    },
    /// The part of the disk that is to stay free.
    #[error(
        "{wanted} bytes are wanted, and {free} are left that may be used; free some of the disk, or use a larger one"
    )]
    FreeSpace {
        /// Bytes that were to be added.
        wanted: u64,
        /// Free bytes beyond those that are to stay free.
        free: u64,
    },
    /// The disk itself, or what the system allows this user on it.
    #[error("the disk is full; free some of it, or use a larger one")]
    Disk,
}

impl StoreError {
    /// What kind of failure this is for whoever made a call.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Full { .. } => Code::ResourceExhausted,
            Self::Body(_)
            | Self::Inconsistent { .. }
            | Self::InUse { .. }
            | Self::Io { .. }
            | Self::Stopped => Code::Unavailable,
        }
    }
}

/// What a store answers.
pub type StoreResult<T> = Result<T, StoreError>;
