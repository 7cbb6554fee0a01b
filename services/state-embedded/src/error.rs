//! How the database fails.

use std::path::{Path, PathBuf};

use flwr_state::{Limit, StoreError};
use rusqlite::{Connection, ErrorCode};

/// A state could not be taken into use. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file belongs to another program.
    #[error("{database} is {what}; name another file, which is made if it is not there")]
    Foreign {
        /// The file.
        database: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A later release has written it.
    #[error(
        "{database} has the form {found} of a later release, and this one knows forms up to {known}; use that release"
    )]
    Newer {
        /// The file.
        database: PathBuf,
        /// The version of its schema.
        found: i64,
        /// The latest that is known here.
        known: i64,
    },
    /// There is none, where one is needed.
    #[error("there is no database at {database}; name the one that a SuperLink was started with")]
    Missing {
        /// The file.
        database: PathBuf,
    },
    /// A former release has written it, and it is not to be changed.
    #[error(
        "{database} has the form {found} of a former release, and this one reads form {known}; start a SuperLink of this release with it first"
    )]
    Older {
        /// The file.
        database: PathBuf,
        /// The version of its schema.
        found: i64,
        /// The one that is read here.
        known: i64,
    },
    /// Another process uses it.
    #[error("{database} is in use by another process; give each SuperLink a database of its own")]
    InUse {
        /// The file.
        database: PathBuf,
    },
    /// The objects in the folder are those of another database.
    #[error(
        "{folder} holds the objects of another database than {database}; name the folder that belongs to it, or an empty one"
    )]
    OtherObjects {
        /// The folder.
        folder: PathBuf,
        /// The database.
        database: PathBuf,
    },
    /// It is damaged in a way that nothing here can prove to be harmless.
    #[error("{database} is damaged: {what}; restore a backup, or move the file away to begin anew")]
    Damaged {
        /// The file.
        database: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// SQLite could not do something.
    #[error("cannot {action} {database}")]
    Database {
        /// What was being done.
        action: &'static str,
        /// The file.
        database: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The folder of objects, or another file.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the database cannot be written at present.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    Full(PathBuf),
    Other(PathBuf, String),
}

impl Failure {
    pub(crate) fn of(error: &rusqlite::Error, database: &Connection) -> Self {
        let path = database.path().map(PathBuf::from).unwrap_or_default();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full(path),
            _ => Self::Other(path, error.to_string()),
        }
    }

    /// What whoever wants to write is told.
    pub(crate) fn to_error(&self) -> StoreError {
        match self {
            Self::Full(path) => StoreError::Full {
                folder: path.parent().unwrap_or(path).to_path_buf(),
                limit: Limit::Disk,
            },
            Self::Other(path, what) => StoreError::Io {
                action: "write",
                path: path.clone(),
                source: std::io::Error::other(what.clone()),
            },
        }
    }
}

/// Says what was being done with the database when SQLite failed.
pub(crate) fn failed(
    action: &'static str,
    database: &Path,
) -> impl FnOnce(rusqlite::Error) -> OpenError {
    let database = database.to_path_buf();
    move |source| match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::Foreign {
            database,
            what: NO_DATABASE,
        },
        // Statements that were right when they were written do not fit what is there, or values
        // their columns.
        None
        | Some(
            ErrorCode::ConstraintViolation
            | ErrorCode::DatabaseCorrupt
            | ErrorCode::TypeMismatch
            | ErrorCode::Unknown,
        ) => OpenError::Damaged {
            database,
            what: source.to_string(),
        },
        _ if is_cut_short(&source) => OpenError::Damaged {
            database,
            what: "it is cut short".into(),
        },
        _ => OpenError::Database {
            action,
            database,
            source,
        },
    }
}

fn is_cut_short(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    code == Some(rusqlite::ffi::SQLITE_IOERR_SHORT_READ)
}

/// What a file is that does not begin as one of SQLite's.
pub(crate) const NO_DATABASE: &str = "no SQLite database, or damaged at its very beginning";
