//! Work on a state that no SuperLink does: whether it is whole, a copy of it, less room for it.
//!
//! [`check`] and [`backup`] only read, and go on beside the SuperLink that uses the state; [`compact`]
//! and [`restore`] need it for themselves. All of them block.

mod backup;
mod check;
mod compact;
mod copying;
mod restore;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use flwr_api::{FabHash, ObjectId};
use flwr_state::rows::Rows;
use flwr_state::{Memory, MemoryState, StoreError, StoreResult, Wakeups};
use rusqlite::Connection;

pub use backup::backup;
pub use check::{Report, Totals, check};
pub use compact::{Compacted, compact};
pub use restore::restore;

use crate::error::{OpenError, failed};
use crate::opening::{self, Head, io as io_failed};
use crate::owner::OBJECTS;
use crate::schema;

/// Where a state is.
#[derive(Clone, Debug)]
pub struct Place {
    /// The SQLite file.
    pub database: PathBuf,
    /// The folder of the objects and app bundles.
    pub objects: PathBuf,
}

/// What was asked was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpkeepError {
    /// The state cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Somebody uses what is to be changed.
    #[error("{database} is in use; end the SuperLink that uses it first")]
    InUse {
        /// The file.
        database: PathBuf,
    },
    /// Something is in the way.
    #[error("{path} is not empty; name one that is, or that is not there yet")]
    NotEmpty {
        /// The file or folder.
        path: PathBuf,
    },
    /// What was to be copied, or was copied, is not as it was written.
    #[error("{database} is damaged: {first}; a check lists all {findings} findings")]
    Unsound {
        /// The file.
        database: PathBuf,
        /// How many findings [`check`] has.
        findings: usize,
        /// One of them.
        first: String,
    },
    /// An object is not in the folder, though the database speaks of it.
    #[error(
        "object {object} is missing in {folder}; start the SuperLink again, which answers for what is lost"
    )]
    Lost {
        /// The object.
        object: ObjectId,
        /// The folder.
        folder: PathBuf,
    },
    /// Objects come and go faster than they can be taken hold of.
    #[error("objects come and go too fast; try again when less goes on")]
    Busy,
    /// Somebody has opened the folder meanwhile and tidied up.
    #[error("a SuperLink has started with {folder} meanwhile; try again")]
    Disturbed {
        /// The folder.
        folder: PathBuf,
    },
    /// The disk said no.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Place {
    /// Where the two are in a backup.
    #[must_use]
    pub fn of_backup(folder: &Path) -> Self {
        Self {
            database: folder.join("state.db"),
            objects: folder.join("storage"),
        }
    }

    fn object(&self, id: ObjectId) -> PathBuf {
        object_path(&self.objects, id)
    }
}

/// Opens a database for reading, whether somebody uses it or not.
fn open_beside(path: &Path) -> Result<Connection, OpenError> {
    match opening::read_head(path)? {
        Head::Ours => {}
        Head::Missing | Head::Empty => {
            return Err(OpenError::Missing {
                database: path.to_path_buf(),
            });
        }
        Head::Foreign(what) => {
            return Err(OpenError::Foreign {
                database: path.to_path_buf(),
                what,
            });
        }
    }
    let database = opening::open_reader(path).map_err(failed("open", path))?;
    let patient = database.busy_timeout(PATIENCE);
    patient.map_err(failed("set up", path))?;
    schema::check_version(&database, path)?;
    Ok(database)
}

/// Whether a state can be made of the rows.
fn fit_together(rows: Rows, path: &Path) -> Result<(), OpenError> {
    let as_of = rows.as_of.unwrap_or_default();
    let made = MemoryState::restore(Memory::default(), rows, Wakeups::new(), as_of);
    made.map(drop).map_err(|error| OpenError::Damaged {
        database: path.to_path_buf(),
        what: error.to_string(),
    })
}

/// Makes sure that a check has found nothing.
fn sound(place: &Place, report: Report) -> Result<Report, UpkeepError> {
    let Some(first) = report.findings.first() else {
        return Ok(report);
    };
    Err(UpkeepError::Unsound {
        database: place.database.clone(),
        findings: report.findings.len(),
        first: first.clone(),
    })
}

/// The app bundles in a folder, if it is there.
fn bundles(folder: &Path) -> StoreResult<Vec<FabHash>> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries.map_err(io_failed("read", folder))?,
    };
    for entry in entries {
        let name = entry.map_err(io_failed("read", folder))?.file_name();
        let hash = name.to_str().and_then(|name| name.parse::<FabHash>().ok());
        found.extend(hash.filter(|hash| hash.to_string().as_str() == name));
    }
    found.sort_unstable();
    Ok(found)
}

fn object_path(folder: &Path, id: ObjectId) -> PathBuf {
    let name = id.to_string();
    folder.join(OBJECTS).join(&name[..2]).join(name)
}

/// The SHA-256 of a file, and its length.
fn digest(path: &Path) -> io::Result<([u8; 32], u64)> {
    let (mut file, mut digest, mut len) = (File::open(path)?, Context::new(&SHA256), 0);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            let mut hash = [0; 32];
            hash.copy_from_slice(digest.finish().as_ref());
            return Ok((hash, len));
        }
        digest.update(&piece[..read]);
        len += read as u64;
    }
}

const PIECE_BYTES: usize = 128 << 10;

/// For whoever holds the database for a moment.
const PATIENCE: Duration = Duration::from_secs(5);
