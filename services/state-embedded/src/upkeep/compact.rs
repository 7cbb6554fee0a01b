//! Less room for a state.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use flwr_state::StoreResult;
use flwr_state::storage::Content;

use super::{Place, UpkeepError, fit_together, open_beside};
use crate::error::{OpenError, failed};
use crate::loading;
use crate::opening::{self, Config, Opened, beside, io};
use crate::owner::OBJECTS;
use crate::reading::{self, Noted};

/// What became of the room that a state takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Bytes of the database and the objects before.
    pub before: u64,
    /// The same after.
    pub after: u64,
    /// Files of objects that were removed, because nothing speaks of them.
    pub removed: usize,
}

/// Gives the disk back what a state does not need. No SuperLink may use it meanwhile.
///
/// # Errors
/// It is in use, or not whole.
pub fn compact(place: &Place) -> Result<Compacted, UpkeepError> {
    let path = &place.database;
    // One that is not there is not made.
    drop(open_beside(path)?);
    let before = bytes(place)?;
    let Opened {
        database,
        files,
        lock: _lock,
    } = open_alone(place)?;
    // Rows that do not fit together may have forgotten some files.
    let read = reading::read(&database, |_, noted| match noted {
        Noted::Nothing => None,
        Noted::Row(bytes) | Noted::File(bytes) => Some(Content::Row(bytes)),
    });
    fit_together(read.map_err(failed("read", path))?.0, path)?;
    let loaded = loading::load(&database, path, &files)?;
    let held = files.totals().objects;
    files.clear_now()?;
    let removed = held - files.totals().objects;
    drop(loaded);
    opening::tidy(&database).map_err(failed("set up", path))?;
    database
        .execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")
        .map_err(failed("compact", path))?;
    let closed = database.close().map_err(|(_, error)| error);
    closed.map_err(failed("close", path))?;
    Ok(Compacted {
        before,
        after: bytes(place)?,
        removed,
    })
}

fn open_alone(place: &Place) -> Result<Opened, UpkeepError> {
    let opened = opening::open(&Config {
        database: place.database.clone(),
        objects: place.objects.clone(),
        objects_quota_bytes: u64::MAX,
        free_bytes_min: 0,
    });
    opened.map_err(|error| match error {
        OpenError::InUse { database } => UpkeepError::InUse { database },
        error => error.into(),
    })
}

fn bytes(place: &Place) -> StoreResult<u64> {
    let journal = beside(&place.database, "-wal");
    Ok(bytes_below(&place.database)?
        + bytes_below(&journal)?
        + bytes_below(&place.objects.join(OBJECTS))?)
}

/// The bytes of a file, or of all files in a folder.
fn bytes_below(path: &Path) -> StoreResult<u64> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(io("read", path)(error)),
    };
    if !found.is_dir() {
        return Ok(found.len());
    }
    let mut sum = 0;
    for entry in fs::read_dir(path).map_err(io("read", path))? {
        sum += bytes_below(&entry.map_err(io("read", path))?.path())?;
    }
    Ok(sum)
}
