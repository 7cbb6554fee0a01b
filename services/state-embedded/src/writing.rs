//! What a change of the state does to rows.

use flwr_api::{ObjectId, RunId, UnixTime};
use flwr_state::link::LOG_BYTES_MAX;
use flwr_state::logs;
use flwr_state::rows::Change;
use rusqlite::Connection;

use crate::row::{Table, Values};
use crate::tables::{
    self, ABANDONED, CONTENTS, GONE, HOLDS, INSTRUCTIONS, LOGS, META, NODES, OBJECTS, REPLIES,
    RUNS, TOKENS, UNWANTED, hash, number,
};

/// Writes one change.
pub(crate) fn write(database: &Connection, change: &Change) -> rusqlite::Result<()> {
    match change {
        Change::Node(id, None) => NODES.delete(database, &number(id.0)),
        Change::Node(_, Some(row)) => NODES.put(database, &tables::node(row)),
        Change::Run(run, None) => RUNS.delete(database, &number(run.0)),
        Change::Run(_, Some(row)) => {
            let encoded = tables::run(row);
            let encoded = encoded.map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
            RUNS.put(database, &encoded)
        }
        Change::Token(token, None) => {
            TOKENS.delete(database, &Values::default().text(token.expose()))
        }
        Change::Token(_, Some(row)) => TOKENS.put(database, &tables::token(row)),
        Change::Instruction(run, name, None) => {
            INSTRUCTIONS.delete(database, &number(run.0).text(name))
        }
        Change::Instruction(_, name, Some(row)) => {
            INSTRUCTIONS.put(database, &tables::instruction(name, row))
        }
        Change::Reply(run, name, of, None) => {
            REPLIES.delete(database, &tables::reply_key(*run, name, *of))
        }
        Change::Reply(_, name, _, Some(row)) => REPLIES.put(database, &tables::reply(name, row)),
        Change::Unwanted(run, root, there) => {
            fact(database, &UNWANTED, &number(run.0).bytes(&root.0), *there)
        }
        Change::Abandoned(node, run, root, there) => {
            let row = number(run.0).id(node.0).bytes(&root.0);
            fact(database, &ABANDONED, &row, *there)
        }
        Change::NoMessages(run) => {
            for table in [&INSTRUCTIONS, &REPLIES, &UNWANTED, &ABANDONED] {
                table.delete(database, &number(run.0))?;
            }
            Ok(())
        }
        Change::Object(id, children) => object(database, *id, children.as_deref()),
        Change::Content(id, None) => CONTENTS.delete(database, &hash(*id)),
        Change::Content(id, Some((bytes, content))) => {
            CONTENTS.put_with(database, &hash(*id).id(*bytes), Some(content.as_deref()))
        }
        Change::Hold(run, object, there) => {
            fact(database, &HOLDS, &number(run.0).bytes(&object.0), *there)
        }
        Change::Gone(number, None) => GONE.delete(database, &tables::number(*number)),
        Change::Gone(number, Some(object)) => {
            GONE.put(database, &tables::number(*number).bytes(&object.0))
        }
        Change::AsOf(now) => set(database, AS_OF, now.seconds()),
    }
}

/// Writes an entry of a log.
pub(crate) fn log(
    database: &Connection,
    run: RunId,
    time: UnixTime,
    text: &str,
) -> rusqlite::Result<()> {
    let row = number(run.0).real(time.seconds()).text(text);
    LOGS.put(database, &row)
}

/// Removes the log of a run.
pub(crate) fn forget_log(database: &Connection, run: RunId) -> rusqlite::Result<()> {
    LOGS.delete(database, &number(run.0))
}

/// Writes a value that there is once.
pub(crate) fn set(
    database: &Connection,
    name: &str,
    value: impl Into<rusqlite::types::Value>,
) -> rusqlite::Result<()> {
    META.put(database, &Values::default().text(name).with(value))
}

fn object(
    database: &Connection,
    id: ObjectId,
    children: Option<&[ObjectId]>,
) -> rusqlite::Result<()> {
    CONTENTS.delete(database, &hash(id))?;
    let Some(children) = children else {
        return OBJECTS.delete(database, &hash(id));
    };
    let children: Vec<u8> = children.iter().flat_map(|child| child.0).collect();
    OBJECTS.put(database, &hash(id).with(children))
}

/// A row that is all key.
fn fact(database: &Connection, table: &Table, row: &Values, there: bool) -> rusqlite::Result<()> {
    if there {
        table.put(database, row)
    } else {
        table.delete(database, row)
    }
}

/// Removes the oldest entries of a log that takes too many bytes, of which one is left in any case.
pub(crate) fn trim_log(
    database: &Connection,
    run: RunId,
    bytes: &mut usize,
) -> rusqlite::Result<()> {
    if *bytes <= LOG_BYTES_MAX {
        return Ok(());
    }
    let mut statement = database
        .prepare_cached("SELECT time, octet_length(text) FROM logs WHERE run = ?1 ORDER BY time")?;
    let mut rows = statement.query([run.0.cast_signed()])?;
    let mut last = None;
    while *bytes > LOG_BYTES_MAX
        && let Some(row) = rows.next()?
    {
        last = Some(row.get::<_, f64>(0)?);
        *bytes -= (row.get::<_, usize>(1)? + logs::ENTRY_BYTES).min(*bytes);
    }
    database
        .prepare_cached("DELETE FROM logs WHERE run = ?1 AND time <= ?2")?
        .execute((run.0.cast_signed(), last))?;
    Ok(())
}

/// The value that says when all rows were last complete.
pub(crate) const AS_OF: &str = "as of";
