//! A state from a backup.

use std::fs;
use std::path::Path;

use rusqlite::Connection;

use super::check::check;
use super::copying::{
    copy, copy_database, create_private, create_private_folder, create_shard, is_empty,
    noted_files, sync_folders,
};
use super::{Place, Report, UpkeepError, bundles, object_path, open_beside, sound};
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
    create_private_folder(&place.objects.join(owner::OBJECTS))?;
    let source = open_beside(&from.database)?;
    let objects = noted_files(&source).map_err(failed("read", &from.database))?;
    for object in objects {
        let (here, there) = (from.object(object), object_path(&place.objects, object));
        create_shard(&there)?;
        copy(&here, &there).map_err(io("copy", &here))?;
    }
    for bundle in bundles(&from.objects)? {
        for name in [bundle.to_string(), format!("{bundle}.META")] {
            let here = from.objects.join(&name);
            if here.exists() {
                copy(&here, &place.objects.join(&name)).map_err(io("copy", &here))?;
            }
        }
    }
    let unfinished = Place {
        database: beside(&place.database, "-part"),
        objects: place.objects.clone(),
    };
    create_private(&unfinished.database)?;
    copy_database(&source, &unfinished.database).map_err(failed("copy", &from.database))?;
    owner::claim(&place.objects, &own_id(&unfinished.database)?)?;
    let report = sound(&unfinished, check(&unfinished)?)?;
    sync_folders(&place.objects)?;
    fs::rename(&unfinished.database, &place.database).map_err(io("write", &place.database))?;
    if let Some(folder) = place
        .database
        .parent()
        .filter(|f| !f.as_os_str().is_empty())
    {
        let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(io("write", folder))?;
    }
    Ok(report)
}

/// Gives the database an id of its own, which is returned.
fn own_id(path: &Path) -> Result<String, UpkeepError> {
    let database = Connection::open(path).map_err(failed("open", path))?;
    schema::renew_id(&database).map_err(failed("write", path))?;
    Ok(schema::id(&database, path)?)
}
