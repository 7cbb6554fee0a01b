//! A copy of a state, of one moment.

use std::fs;
use std::path::Path;

use flwr_api::ObjectId;
use flwr_state::disk::create_private_folder;
use rusqlite::Connection;

use super::check::check;
use super::copying::{
    Holder, copy_database, create_private, is_empty, link_or_copy, noted_files, remove,
    sync_folders,
};
use super::{Place, Report, UpkeepError, bundles, open_beside, sound};
use crate::error::failed;
use crate::opening::io as io_failed;
use crate::{owner, schema};

/// Copies a state into a folder that is empty or not there. A SuperLink may be using it meanwhile.
///
/// The database is copied as of one moment. At that moment all files are there that it speaks of, but
/// as soon as a run ends, its objects go. So they are taken hold of right then, before anything takes
/// time, and if one was faster, there is another moment. The database gets its name last, when all
/// else was checked: what has none is no backup.
///
/// # Errors
/// The folder is not empty, or the state is not whole.
pub fn backup(place: &Place, target: &Path) -> Result<Report, UpkeepError> {
    let source = open_beside(&place.database)?;
    if !is_empty(target)? {
        return Err(UpkeepError::NotEmpty {
            path: target.to_path_buf(),
        });
    }
    let copy = Place::of_backup(target);
    let unfinished = Place {
        database: copy.database.with_extension("part"),
        objects: copy.objects.clone(),
    };
    let copied = copy_all(&source, place, &unfinished).and_then(|report| {
        fs::rename(&unfinished.database, &copy.database)
            .map_err(io_failed("write", &copy.database))?;
        sync_folders(target)?;
        Ok(report)
    });
    if copied.is_err() {
        remove(&unfinished);
    }
    copied
}

fn copy_all(source: &Connection, from: &Place, to: &Place) -> Result<Report, UpkeepError> {
    create_private_folder(&to.objects.join(owner::OBJECTS))?;
    create_private(&to.database)?;
    let mut holder = Holder::new(&from.objects, &to.objects);
    let objects = copy_rows(source, from, to, &mut holder)?;
    holder.finish(&objects)?;
    // They come before the runs that need them, and never go.
    for bundle in bundles(&from.objects)? {
        for name in [bundle.to_string(), format!("{bundle}.META")] {
            let bundle = from.objects.join(&name);
            if bundle.exists() {
                link_or_copy(&bundle, &to.objects.join(&name))?;
            }
        }
    }
    let id = schema::id(&open_beside(&to.database)?, &to.database)?;
    owner::claim(&to.objects, &id)?;
    sound(from, check(to)?)
}

/// Copies the database and takes hold of the files that the copy speaks of, which are returned.
fn copy_rows(
    source: &Connection,
    place: &Place,
    copy: &Place,
    holder: &mut Holder<'_>,
) -> Result<Vec<ObjectId>, UpkeepError> {
    let path = &place.database;
    let mut missed = Vec::new();
    for _ in 0..MOMENTS {
        let moment = source.unchecked_transaction();
        let moment = moment.map_err(failed("read", path))?;
        let objects = noted_files(&moment).map_err(failed("read", path))?;
        let mut gone = None;
        for object in &objects {
            if !holder.hold(*object)? {
                gone = Some(*object);
                break;
            }
        }
        let Some(gone) = gone else {
            copy_database(&moment, &copy.database).map_err(failed("copy", path))?;
            return Ok(objects);
        };
        missed.push(gone);
        if missed.ends_with(&[gone; MISSES]) {
            return Err(UpkeepError::Lost {
                object: gone,
                folder: place.objects.clone(),
            });
        }
    }
    Err(UpkeepError::Busy)
}

/// Moments that are tried. What was taken hold of stays, so that each has less to do.
const MOMENTS: usize = 100;

/// An object that is missing at so many moments in a row is not one whose run has just ended.
const MISSES: usize = 3;
