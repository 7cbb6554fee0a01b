//! The form of the database: its version, and the way from each version to the next.

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
    let found: i64 = database
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(failed("read", path))?;
    let known = steps.len();
    let Some(to_do) = usize::try_from(found).ok().and_then(|at| steps.get(at..)) else {
        return Err(OpenError::Newer {
            database: path.to_path_buf(),
            found,
            known: i64::try_from(known).unwrap_or(i64::MAX),
        });
    };
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
        let mut id = [0; 16];
        getrandom::fill(&mut id)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.to_string().into()))?;
        writing::set(&transaction, ID, hex(&id))?;
    }
    transaction.pragma_update(None, "user_version", version as u64)?;
    transaction.commit()
}

/// What tells this database from all others.
pub(crate) fn id(database: &Connection) -> rusqlite::Result<Option<String>> {
    let mut id = None;
    META.read(database, |values| {
        let mut values = values.reader();
        if values.text()? == ID {
            id = Some(values.text()?);
        }
        Ok(())
    })?;
    Ok(id)
}

const ID: &str = "id";
