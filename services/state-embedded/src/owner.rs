//! Which database the objects in a folder belong to: a file beside them says so.

use std::fs::{File, read_dir};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use flwr_state::StoreResult;

use crate::opening::io as failed;

/// The id of the database that the folder was used with.
pub(crate) fn read(folder: &Path) -> StoreResult<Option<String>> {
    let path = folder.join(OWNER);
    match std::fs::read(&path) {
        Ok(id) => Ok(Some(String::from_utf8_lossy(&id).trim_end().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", &path)(error)),
    }
}

/// Whether the objects in the folder are those of this database, as they are if there are none.
pub(crate) fn fits(folder: &Path, id: &str) -> StoreResult<bool> {
    Ok(read(folder)?.is_some_and(|owner| owner == id) || !has_objects(folder)?)
}

/// Whether there are any objects in the folder.
pub(crate) fn has_objects(folder: &Path) -> StoreResult<bool> {
    let path = folder.join(OBJECTS);
    let look = || -> io::Result<bool> {
        for shard in read_dir(&path)? {
            let shard = shard?;
            if shard.file_type()?.is_dir() && read_dir(shard.path())?.next().is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    };
    match look() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        looked => looked.map_err(failed("read", &path)),
    }
}

/// Says that the folder belongs to this database.
pub(crate) fn claim(folder: &Path, id: &str) -> StoreResult<()> {
    if read(folder)?.is_some_and(|owner| owner == id) {
        return Ok(());
    }
    let path = folder.join(OWNER);
    let write = || -> io::Result<()> {
        let mut file = File::create(&path)?;
        writeln!(file, "{id}")?;
        file.sync_all()?;
        File::open(folder)?.sync_all()
    };
    write().map_err(failed("write", &path))
}

/// Where the object files are in the folder.
pub(crate) const OBJECTS: &str = "objects";

/// The file that says whose they are.
pub(crate) const OWNER: &str = "database-id";
