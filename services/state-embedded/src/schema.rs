//! The form of the database: its version, and the way from each version to the next.

use std::collections::HashSet;
use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::error::{OpenError, failed};
use crate::tables::{META, hex};
use crate::writing;

/// Says that a database is one of ours: `flwq`.
pub(crate) const APPLICATION_ID: u32 = 0x666c_7771;

/// One step from each version to the next, beginning with an empty file. What was released is never
/// changed; what comes later is added.
const STEPS: &[&str] = &[include_str!("schema_1.sql")];

/// Makes the tables, or brings those of a former release to the form of this one.
pub(crate) fn bring_up_to_date(database: &mut Connection, path: &Path) -> Result<(), OpenError> {
    bring_up(database, path, STEPS)
}

fn bring_up(database: &mut Connection, path: &Path, steps: &[&str]) -> Result<(), OpenError> {
    let found = version(database, path)?;
    let known = steps.len();
    let Some(to_do) = usize::try_from(found).ok().and_then(|at| steps.get(at..)) else {
        return Err(OpenError::Newer {
            database: path.to_path_buf(),
            found,
            known: i64::try_from(known).unwrap_or(i64::MAX),
        });
    };
    if found == 0 && !is_empty(database).map_err(failed("read", path))? {
        return Err(OpenError::Damaged {
            database: path.to_path_buf(),
            what: "it has tables, and does not say of which form".into(),
        });
    }
    if to_do.is_empty() {
        return Ok(());
    }
    if found > 0 {
        tracing::info!(database = %path.display(), from = found, to = known, "bringing the database to the form of this release");
    }
    upgrade(database, found == 0, to_do, known).map_err(failed("set up", path))
}

/// All or nothing.
fn upgrade(
    database: &mut Connection,
    is_new: bool,
    steps: &[&str],
    version: usize,
) -> rusqlite::Result<()> {
    let transaction = database.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    for step in steps {
        transaction.execute_batch(step)?;
    }
    if is_new {
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        renew_id(&transaction)?;
    }
    transaction.pragma_update(None, "user_version", version as u64)?;
    transaction.commit()
}

/// Makes sure that all tables are there as this release makes them.
pub(crate) fn check(database: &Connection, path: &Path) -> Result<(), OpenError> {
    let found = parts(database).map_err(failed("read", path))?;
    let mut made = Connection::open_in_memory().map_err(failed("check", path))?;
    upgrade(&mut made, true, STEPS, STEPS.len()).map_err(failed("check", path))?;
    let made = parts(&made).map_err(failed("check", path))?;
    if made.is_subset(&found) {
        return Ok(());
    }
    Err(OpenError::Damaged {
        database: path.to_path_buf(),
        what: "its tables are not as they were made".into(),
    })
}

/// Makes sure that a database that is not to be changed is of this release.
pub(crate) fn check_version(database: &Connection, path: &Path) -> Result<(), OpenError> {
    let (database, found) = (path.to_path_buf(), version(database, path)?);
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    match found {
        _ if found == known => Ok(()),
        0 => Err(OpenError::Damaged {
            database,
            what: "it does not say of which form it is".into(),
        }),
        _ if (1..known).contains(&found) => Err(OpenError::Older {
            database,
            found,
            known,
        }),
        _ => Err(OpenError::Newer {
            database,
            found,
            known,
        }),
    }
}

fn version(database: &Connection, path: &Path) -> Result<i64, OpenError> {
    database
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(failed("read", path))
}

fn is_empty(database: &Connection) -> rusqlite::Result<bool> {
    Ok(parts(database)?.is_empty())
}

/// The statements that have made what there is, with the name of each.
fn parts(database: &Connection) -> rusqlite::Result<HashSet<(Vec<u8>, Vec<u8>)>> {
    let mut statement = database
        .prepare("SELECT CAST(name AS BLOB), CAST(coalesce(sql, '') AS BLOB) FROM sqlite_schema")?;
    let parts = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    parts.collect()
}

/// What tells this database from all others.
pub(crate) fn id(database: &Connection, path: &Path) -> Result<String, OpenError> {
    let mut id = None;
    let read = META.read(database, |values| {
        let mut values = values.reader();
        if values.text()? == ID {
            id = Some(values.text()?);
        }
        Ok(())
    });
    read.map_err(failed("read", path))?;
    id.ok_or_else(|| OpenError::Damaged {
        database: path.to_path_buf(),
        what: "its id is lost".into(),
    })
}

/// Makes it another database than the one that it is a copy of.
pub(crate) fn renew_id(database: &Connection) -> rusqlite::Result<()> {
    let mut id = [0; 16];
    getrandom::fill(&mut id)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.to_string().into()))?;
    writing::set(database, ID, hex(&id))
}

const ID: &str = "id";

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "CREATE TABLE meta (name TEXT PRIMARY KEY, value ANY, sum INTEGER) STRICT;
                         CREATE TABLE things (name TEXT) STRICT;";
    const SECOND: &str = "ALTER TABLE things ADD COLUMN size INTEGER NOT NULL DEFAULT 7;";
    const THIRD: &str = "CREATE TABLE others (name TEXT) STRICT;";

    fn made(folder: &Path) -> (Connection, std::path::PathBuf) {
        let path = folder.join("state.db");
        let mut database = Connection::open(&path).unwrap();
        bring_up(&mut database, &path, &[FIRST]).unwrap();
        database
            .execute_batch("INSERT INTO things VALUES ('one'), ('two')")
            .unwrap();
        (database, path)
    }

    fn things(database: &Connection, columns: &str) -> Vec<String> {
        let mut statement = database
            .prepare(&format!("SELECT {columns} FROM things ORDER BY rowid"))
            .unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    #[test]
    fn a_former_form_is_brought_to_this_one_with_its_rows() {
        let folder = tempfile::tempdir().unwrap();
        let (mut database, path) = made(folder.path());
        let before = id(&database, &path).unwrap();
        bring_up(&mut database, &path, &[FIRST, SECOND]).unwrap();
        assert_eq!(things(&database, "name || size"), ["one7", "two7"]);
        assert_eq!(version(&database, &path).unwrap(), 2);
        assert_eq!(id(&database, &path).unwrap(), before);
        // Several at once, and none.
        bring_up(&mut database, &path, &[FIRST, SECOND, THIRD, ""]).unwrap();
        bring_up(&mut database, &path, &[FIRST, SECOND, THIRD, ""]).unwrap();
        assert_eq!(version(&database, &path).unwrap(), 4);
        let error = bring_up(&mut database, &path, &[FIRST, SECOND]).unwrap_err();
        assert!(
            matches!(
                error,
                OpenError::Newer {
                    found: 4,
                    known: 2,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn a_step_that_fails_leaves_the_database_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (mut database, path) = made(folder.path());
        let before = std::fs::read(&path).unwrap();
        let bad = format!("{THIRD} INSERT INTO nothing VALUES (1);");
        let error = bring_up(&mut database, &path, &[FIRST, SECOND, &bad]).unwrap_err();
        assert!(error.to_string().contains("nothing"), "{error}");
        assert_eq!(version(&database, &path).unwrap(), 1);
        assert_eq!(things(&database, "name"), ["one", "two"]);
        drop(database);
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn tables_that_were_changed_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let mut database = Connection::open(&path).unwrap();
        bring_up_to_date(&mut database, &path).unwrap();
        check(&database, &path).unwrap();
        check_version(&database, &path).unwrap();
        database
            .execute_batch("ANALYZE; CREATE VIEW mine AS SELECT * FROM runs")
            .unwrap();
        check(&database, &path).unwrap();
        database.execute_batch("DROP INDEX run").unwrap();
        let error = check(&database, &path).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    }
}
