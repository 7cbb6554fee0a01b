//! Taking a folder into use: whose it is, what a crash left in it, and what is in it.

use std::fs::{DirEntry, File, TryLockError};
use std::io;
use std::path::Path;
use std::time::SystemTime;

use flwr_api::ObjectId;

use super::Config;
use super::folder::{Folder, LOCK, OBJECTS, SHARD_DIGITS, TEMPORARY};
use super::index::Index;
use crate::disk::{create_folder, create_private_folder, failed};
use crate::error::{StoreError, StoreResult};

/// Opens a folder, which is made if it is not there. Blocks.
pub(super) fn open(path: &Path, config: Config) -> StoreResult<Folder> {
    create_folder(path)?;
    // Objects hold what was learnt from data.
    for folder in [OBJECTS, TEMPORARY] {
        create_private_folder(&path.join(folder))?;
    }
    let lock = lock(path)?;
    let leftovers = remove_leftovers(&path.join(TEMPORARY))?;
    let contents = scan(&path.join(OBJECTS))?;
    let mut index = Index::new(config.quota_bytes);
    for object in contents.objects {
        index.insert(object.id, object.len, None);
    }
    let folder = Folder::new(path.to_path_buf(), config, index, lock);
    // The quota may be smaller than it was. What is no cache may be needed, for all that is known here.
    if !config.durable {
        folder.reserve(0)?;
    }
    let totals = folder.index().totals();
    tracing::info!(
        folder = %path.display(),
        objects = totals.objects,
        bytes = totals.bytes,
        leftovers,
        "object folder is open"
    );
    if contents.foreign > 0 {
        tracing::warn!(
            folder = %path.display(),
            files = contents.foreign,
            "object folder has files that are no objects; they are left alone"
        );
    }
    Ok(folder)
}

fn lock(folder: &Path) -> StoreResult<File> {
    let path = folder.join(LOCK);
    let mut options = File::options();
    let lock = options.append(true).create(true).open(&path);
    let lock = lock.map_err(failed("create", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse {
            folder: folder.to_path_buf(),
        }),
        Err(TryLockError::Error(error)) => Err(failed("lock", &path)(error)),
    }
}

/// Removes what puts left behind; how many files that were.
fn remove_leftovers(folder: &Path) -> StoreResult<usize> {
    let mut removed = 0;
    for entry in entries(folder)? {
        let name = entry.file_name();
        let is_ours = name
            .to_str()
            .and_then(|name| name.split_once('.'))
            .is_some_and(|(id, number)| object_id(id).is_some() && number.parse::<u64>().is_ok());
        let path = entry.path();
        if is_ours && entry.file_type().map_err(failed("read", &path))?.is_file() {
            std::fs::remove_file(&path).map_err(failed("remove", &path))?;
            removed += 1;
        }
    }
    Ok(removed)
}

#[derive(Default)]
struct Contents {
    /// Least recently used first.
    objects: Vec<Object>,
    foreign: usize,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Object {
    used: SystemTime,
    id: ObjectId,
    len: u64,
}

fn scan(objects: &Path) -> StoreResult<Contents> {
    let mut contents = Contents::default();
    for shard in entries(objects)? {
        let path = shard.path();
        if !shard.file_type().map_err(failed("read", &path))?.is_dir() {
            contents.foreign += 1;
            continue;
        }
        for entry in entries(&path)? {
            match object(&shard, &entry).map_err(failed("read", &entry.path()))? {
                // No object is empty, but a crash of the machine can leave such a file.
                Some(Object { len: 0, .. }) => {
                    let path = entry.path();
                    std::fs::remove_file(&path).map_err(failed("remove", &path))?;
                }
                Some(object) => contents.objects.push(object),
                None => contents.foreign += 1,
            }
        }
    }
    contents.objects.sort_unstable();
    Ok(contents)
}

/// What a file holds; nothing if no put made it.
fn object(shard: &DirEntry, file: &DirEntry) -> io::Result<Option<Object>> {
    let (name, shard) = (file.file_name(), shard.file_name());
    let id = name.to_str().and_then(object_id);
    let (Some(id), Some(shard)) = (id, shard.to_str()) else {
        return Ok(None);
    };
    let found = file.metadata()?;
    if !found.is_file() || id.to_string()[..SHARD_DIGITS] != *shard {
        return Ok(None);
    }
    Ok(Some(Object {
        used: found.modified()?,
        id,
        len: found.len(),
    }))
}

/// An id as we write it.
fn object_id(name: &str) -> Option<ObjectId> {
    let id = name.parse::<ObjectId>().ok()?;
    (id.to_string() == name).then_some(id)
}

fn entries(folder: &Path) -> StoreResult<Vec<DirEntry>> {
    std::fs::read_dir(folder)
        .and_then(Iterator::collect)
        .map_err(failed("read", folder))
}
