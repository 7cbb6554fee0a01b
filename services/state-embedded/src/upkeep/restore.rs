//! A state from a backup.

use std::fs::{self, File};
use std::path::Path;

use flwr_state::disk::create_private_folder;
use rusqlite::Connection;

use super::check::check;
use super::copying::{
    copy, copy_database, create_private, create_shard, is_empty, noted_files, remove, sync_folders,
};
use super::{Place, Report, UpkeepError, bundles, open_beside, sound};
use crate::error::failed;
use crate::opening::{beside, io, lock};
use crate::{owner, schema};

/// Makes the state anew that a backup is of, where there is none. The backup stays as it is.
///
/// It is another state than the one that was copied, with objects of its own: neither database is
/// taken for the other. The database gets its name last, when all else was checked.
///
/// # Errors
/// Something is in the way, or the backup is not whole.
pub fn restore(backup: &Path, place: &Place) -> Result<Report, UpkeepError> {
    let journals = ["-wal", "-journal"].map(|suffix| beside(&place.database, suffix));
    for path in [&place.database, &place.objects]
        .into_iter()
        .chain(&journals)
    {
        if !is_empty(path)? {
            return Err(UpkeepError::NotEmpty { path: path.clone() });
        }
    }
    let from = Place::of_backup(backup);
    sound(&from, check(&from)?)?;
    let _lock = lock(&place.database)?;
    let unfinished = Place {
        database: beside(&place.database, "-part"),
        objects: place.objects.clone(),
    };
    let copied = copy_all(&from, &unfinished).and_then(|report| {
        fs::rename(&unfinished.database, &place.database).map_err(io("write", &place.database))?;
        Ok(report)
    });
    if copied.is_err() {
        remove(&unfinished);
    } else if let Some(folder) = folder_of(&place.database) {
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(io("write", folder))?;
    }
    copied
}

fn copy_all(from: &Place, to: &Place) -> Result<Report, UpkeepError> {
    create_private_folder(&to.objects.join(owner::OBJECTS))?;
    let source = open_beside(&from.database)?;
    for object in noted_files(&source).map_err(failed("read", &from.database))? {
        let (here, there) = (from.object(object), to.object(object));
        create_shard(&there)?;
        copy(&here, &there).map_err(io("copy", &here))?;
    }
    for bundle in bundles(&from.objects)? {
        for name in [bundle.to_string(), format!("{bundle}.META")] {
            let here = from.objects.join(&name);
            if here.exists() {
                copy(&here, &to.objects.join(&name)).map_err(io("copy", &here))?;
            }
        }
    }
    create_private(&to.database)?;
    copy_database(&source, &to.database).map_err(failed("copy", &from.database))?;
    owner::claim(&to.objects, &own_id(&to.database)?)?;
    let report = sound(to, check(to)?)?;
    sync_folders(&to.objects)?;
    Ok(report)
}

/// Gives the database an id of its own, which is returned.
fn own_id(path: &Path) -> Result<String, UpkeepError> {
    let database = Connection::open(path).map_err(failed("open", path))?;
    schema::renew_id(&database).map_err(failed("write", path))?;
    Ok(schema::id(&database, path)?)
}

fn folder_of(path: &Path) -> Option<&Path> {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
}
