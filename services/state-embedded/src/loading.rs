//! What a database says, with the files of its objects and the ends of its logs.

use std::collections::HashMap;
use std::path::Path;

use flwr_api::{ObjectId, RunId, UnixTime};
use flwr_state::files::ObjectFiles;
use flwr_state::logs;
use flwr_state::rows::{Change, Rows};
use flwr_state::storage::Content;
use rusqlite::{Connection, OptionalExtension};

use crate::error::{OpenError, failed};
use crate::reading::{self, Noted};
use crate::tables::number;
use crate::writing;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) rows: Rows,
    /// The time of the last entry of each log.
    pub(crate) log_ends: HashMap<RunId, UnixTime>,
    /// What each log takes.
    pub(crate) log_bytes: HashMap<RunId, usize>,
    /// Objects whose files had come, and were not noted yet.
    pub(crate) adopted: Vec<(ObjectId, u64)>,
}

/// Reads all rows, and pins the files that they speak of. Changes nothing. Blocks.
pub(crate) fn load(
    database: &Connection,
    path: &Path,
    files: &ObjectFiles,
) -> Result<Loaded, OpenError> {
    let (mut adopted, mut lost) = (Vec::new(), Vec::new());
    let file = |id, len| Some(Content::File(len, files.pin([id])));
    let read = reading::read(database, |id, noted| match (noted, files.len(id)) {
        (Noted::Row(bytes), _) => Some(Content::Row(bytes)),
        (Noted::File(bytes), Some(len)) if bytes == len => file(id, len),
        (Noted::File(_), _) => {
            lost.push(id);
            None
        }
        (Noted::Nothing, Some(len)) => {
            adopted.push((id, len));
            file(id, len)
        }
        (Noted::Nothing, None) => None,
    });
    let (mut rows, damaged) = read.map_err(failed("read", path))?;
    if let Some(damaged) = damaged.first() {
        return Err(OpenError::Damaged {
            database: path.to_path_buf(),
            what: damaged.to_string(),
        });
    }
    rows.lost = lost;
    let mut loaded = Loaded {
        rows,
        adopted,
        ..Loaded::default()
    };
    read_logs(database, &mut loaded).map_err(failed("read", path))?;
    Ok(loaded)
}

/// Writes what loading has found out: files that have come without being noted, and ends of logs
/// that nothing can be appended to. Blocks.
pub(crate) fn correct(database: &mut Connection, loaded: &mut Loaded) -> rusqlite::Result<()> {
    let transaction = database.transaction()?;
    for (id, len) in &loaded.adopted {
        writing::write(&transaction, &Change::Content(*id, Some((*len, None))))?;
    }
    for (run, end) in &mut loaded.log_ends {
        *end = last_entry(&transaction, *run)?;
    }
    transaction.commit()
}

fn read_logs(database: &Connection, loaded: &mut Loaded) -> rusqlite::Result<()> {
    let mut statement = database.prepare(
        "SELECT run, max(time), sum(octet_length(text)), count(*) FROM logs GROUP BY run",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let run = RunId(row.get::<_, i64>(0)?.cast_unsigned());
        let (texts, entries): (usize, usize) = (row.get(2)?, row.get(3)?);
        let bytes = texts + entries * logs::ENTRY_BYTES;
        loaded.log_ends.insert(run, UnixTime::new(row.get(1)?));
        loaded.log_bytes.insert(run, bytes);
    }
    Ok(())
}

/// When the last entry of a log was made. Damaged ones are removed: what they say of the time would
/// hold for all that follow.
fn last_entry(database: &Connection, run: RunId) -> rusqlite::Result<UnixTime> {
    loop {
        let last = database
            .prepare_cached(
                "SELECT time, CAST(text AS BLOB), sum FROM logs WHERE run = ?1 ORDER BY time DESC LIMIT 1",
            )?
            .query_row([run.0.cast_signed()], |row| {
                Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?, row.get(2)?))
            })
            .optional()?;
        let Some((time, text, sum)) = last else {
            return Ok(UnixTime::default());
        };
        if is_entry(run, time, &text, sum) {
            return Ok(UnixTime::new(time));
        }
        tracing::error!(%run, time, "the last entry of the log is damaged, and removed");
        database
            .prepare_cached("DELETE FROM logs WHERE run = ?1 AND time = ?2")?
            .execute((run.0.cast_signed(), time))?;
    }
}

/// Whether an entry of a log is as it was written.
pub(crate) fn is_entry(run: RunId, time: f64, text: &[u8], sum: i64) -> bool {
    str::from_utf8(text).is_ok_and(|text| number(run.0).real(time).text(text).sum() == sum)
}
