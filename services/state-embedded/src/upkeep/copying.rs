//! Files that go from one folder to another: by a second name where that is possible, which keeps
//! them however long the rest takes, or as copies.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use flwr_api::ObjectId;
use flwr_state::StoreResult;
use flwr_state::disk::create_private_folder;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::{Place, UpkeepError, object_path};
use crate::opening::{PRIVATE, io as failed};

/// Objects on their way out of a folder that may be in use.
pub(super) struct Holder<'a> {
    from: &'a Path,
    to: &'a Path,
    /// Those that are on another disk than their copies will be: their second names.
    staged: HashMap<ObjectId, PathBuf>,
    held: HashSet<ObjectId>,
}

impl<'a> Holder<'a> {
    pub(super) fn new(from: &'a Path, to: &'a Path) -> Self {
        Self {
            from,
            to,
            staged: HashMap::new(),
            held: HashSet::new(),
        }
    }

    /// Keeps an object from being lost; false if it is not there.
    pub(super) fn hold(&mut self, id: ObjectId) -> StoreResult<bool> {
        if self.held.contains(&id) {
            return Ok(true);
        }
        let (from, to) = (object_path(self.from, id), object_path(self.to, id));
        create_shard(&to)?;
        let held = match fs::hard_link(&from, &to) {
            Err(error) if error.kind() != ErrorKind::NotFound => self.stage(id, &from, &to),
            linked => linked,
        };
        match held {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("copy", &from)(error)),
            Ok(()) => {
                self.held.insert(id);
                Ok(true)
            }
        }
    }

    /// Gives the file a second name on its own disk, or else copies it at once.
    fn stage(&mut self, id: ObjectId, from: &Path, to: &Path) -> io::Result<()> {
        // If this process is killed, whoever opens the folder next takes the name for that of an
        // object that has not come, and removes it. Nobody counts so far.
        let number = u64::MAX - u64::from(std::process::id());
        let staged = self.from.join("tmp").join(format!("{id}.{number}"));
        match fs::hard_link(from, &staged) {
            Ok(()) => {
                self.staged.insert(id, staged);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Err(error),
            Err(_) => copy(from, to),
        }
    }

    /// Copies what is held only, and lets go of what is not wanted any more.
    pub(super) fn finish(mut self, wanted: &[ObjectId]) -> Result<(), UpkeepError> {
        let wanted: HashSet<_> = wanted.iter().copied().collect();
        for id in &self.held - &wanted {
            if !self.staged.contains_key(&id) {
                let path = object_path(self.to, id);
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
        }
        for id in wanted {
            if let Some(staged) = self.staged.remove(&id) {
                let copied = copy(&staged, &object_path(self.to, id));
                let _ = fs::remove_file(&staged);
                match copied {
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        let folder = self.from.to_path_buf();
                        return Err(UpkeepError::Disturbed { folder });
                    }
                    copied => copied.map_err(failed("copy", &staged))?,
                }
            }
        }
        Ok(())
    }
}

impl Drop for Holder<'_> {
    fn drop(&mut self) {
        for staged in self.staged.values() {
            let _ = fs::remove_file(staged);
        }
    }
}

/// Gives a file that nobody changes a second name, or copies it.
pub(super) fn link_or_copy(from: &Path, to: &Path) -> StoreResult<()> {
    let done = fs::hard_link(from, to).or_else(|_| copy(from, to));
    done.map_err(failed("copy", from))
}

/// Copies a file, for good.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    File::open(to)?.sync_all()
}

/// Copies a database, as the transaction sees it that `from` is in. The copy is one file.
pub(super) fn copy_database(from: &Connection, to: &Path) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut copy = Connection::open_with_flags(to, flags)?;
    match Backup::new(from, &mut copy)?.step(-1)? {
        StepResult::Done => {}
        _ => {
            let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
            return Err(rusqlite::Error::SqliteFailure(busy, None));
        }
    }
    copy.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))?;
    copy.close().map_err(|(_, error)| error)
}

/// The objects in files that the database speaks of.
pub(super) fn noted_files(database: &Connection) -> rusqlite::Result<Vec<ObjectId>> {
    let mut statement = database.prepare("SELECT object FROM contents WHERE content IS NULL")?;
    let ids = statement.query_map([], |row| row.get(0).map(ObjectId))?;
    ids.collect()
}

/// Makes an empty file that is nobody else's.
pub(super) fn create_private(path: &Path) -> StoreResult<()> {
    let mut options = OpenOptions::new();
    let created = options.write(true).create(true).truncate(true);
    let created = created.mode(PRIVATE).open(path);
    created.map(drop).map_err(failed("create", path))
}

pub(super) fn create_shard(object: &Path) -> StoreResult<()> {
    object.parent().map_or(Ok(()), create_private_folder)
}

/// Makes the names in a folder last, and in those below.
pub(super) fn sync_folders(folder: &Path) -> StoreResult<()> {
    let sync = || -> io::Result<Vec<PathBuf>> {
        File::open(folder)?.sync_all()?;
        let mut below = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                below.push(entry.path());
            }
        }
        Ok(below)
    };
    let below = sync().map_err(failed("write", folder))?;
    below.iter().try_for_each(|folder| sync_folders(folder))
}

/// Removes what was made in vain in places where nothing was.
pub(super) fn remove(place: &Place) {
    // Whatever stays is in the way of the next attempt, which says so.
    let _ = fs::remove_file(&place.database);
    let _ = fs::remove_dir_all(&place.objects);
}

/// Whether there is nothing at a path, or nothing in it.
pub(super) fn is_empty(path: &Path) -> StoreResult<bool> {
    let look = || -> io::Result<bool> {
        let found = fs::metadata(path)?;
        Ok(if found.is_dir() {
            fs::read_dir(path)?.next().is_none()
        } else {
            found.len() == 0
        })
    };
    match look() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        looked => looked.map_err(failed("read", path)),
    }
}
