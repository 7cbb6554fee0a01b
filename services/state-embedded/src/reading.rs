//! All that a database says, as rows whose checksums fit.

use std::collections::{HashMap, HashSet};
use std::fmt;

use flwr_api::{NodeId, ObjectId, RunId, UnixTime};
use flwr_state::rows::{ObjectRow, Rows};
use flwr_state::storage::Content;
use rusqlite::Connection;

use crate::row::{Table, Unfit, Values};
use crate::tables::{
    self, ABANDONED, CONTENTS, GONE, HOLDS, INSTRUCTIONS, META, NODES, OBJECTS, REPLIES, RUNS,
    TOKENS, UNWANTED,
};
use crate::writing::AS_OF;

/// What the database notes of an object's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noted {
    /// That they have not come.
    Nothing,
    /// That there are so many, and the bytes themselves.
    Row(u64),
    /// That there are so many, in a file.
    File(u64),
}

/// How many rows of a table are not as they were written.
#[derive(Debug)]
pub(crate) struct DamagedRows {
    pub(crate) table: &'static str,
    pub(crate) rows: usize,
}

impl fmt::Display for DamagedRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, rows } = self;
        write!(
            f,
            "{rows} rows of its table {table} are not as they were written"
        )
    }
}

/// The rows that can be read, and those that cannot. `place` says where the bytes of each object are.
pub(crate) fn read(
    database: &Connection,
    place: impl FnMut(ObjectId, Noted) -> Option<Content>,
) -> rusqlite::Result<(Rows, Vec<DamagedRows>)> {
    let mut rows = Rows::default();
    let mut reader = Reader {
        database,
        damaged: Vec::new(),
    };
    reader.rows(&META, |values| {
        let mut values = values.reader();
        if values.text()? == AS_OF {
            rows.as_of = Some(UnixTime::new(values.real()?));
        }
        Ok(())
    })?;
    reader.keep(&NODES, &mut rows.nodes, tables::read_node)?;
    reader.keep(&RUNS, &mut rows.runs, tables::read_run)?;
    reader.keep(&TOKENS, &mut rows.tokens, tables::read_token)?;
    let instructions = &mut rows.instructions;
    reader.keep(&INSTRUCTIONS, instructions, tables::read_instruction)?;
    reader.keep(&REPLIES, &mut rows.replies, tables::read_reply)?;
    reader.keep(&UNWANTED, &mut rows.unwanted, read_run_and_object)?;
    reader.keep(&ABANDONED, &mut rows.abandoned, |values| {
        let mut values = values.reader();
        let (run, node) = (RunId(values.id()?), NodeId(values.id()?));
        Ok((node, run, ObjectId(values.hash()?)))
    })?;
    reader.keep(&HOLDS, &mut rows.holds, read_run_and_object)?;
    reader.keep(&GONE, &mut rows.gone, |values| {
        let mut values = values.reader();
        Ok((values.id()?, ObjectId(values.hash()?)))
    })?;
    reader.objects(&mut rows, place)?;
    Ok((rows, reader.damaged))
}

struct Reader<'a> {
    database: &'a Connection,
    damaged: Vec<DamagedRows>,
}

impl Reader<'_> {
    fn rows(
        &mut self,
        table: &Table,
        take: impl FnMut(Values) -> Result<(), Unfit>,
    ) -> rusqlite::Result<()> {
        let rows = table.read(self.database, take)?;
        if rows > 0 {
            let table = table.name;
            self.damaged.push(DamagedRows { table, rows });
        }
        Ok(())
    }

    fn keep<T>(
        &mut self,
        table: &Table,
        rows: &mut Vec<T>,
        read: impl Fn(Values) -> Result<T, Unfit>,
    ) -> rusqlite::Result<()> {
        self.rows(table, |values| {
            rows.push(read(values)?);
            Ok(())
        })
    }

    fn objects(
        &mut self,
        rows: &mut Rows,
        mut place: impl FnMut(ObjectId, Noted) -> Option<Content>,
    ) -> rusqlite::Result<()> {
        let mut noted = HashMap::new();
        let inline = inline(self.database)?;
        self.rows(&CONTENTS, |values| {
            let mut values = values.reader();
            let (id, bytes) = (ObjectId(values.hash()?), values.id()?);
            let is_row = inline.contains(id.0.as_slice());
            let kind = if is_row { Noted::Row } else { Noted::File };
            noted.insert(id, kind(bytes));
            Ok(())
        })?;
        self.keep(&OBJECTS, &mut rows.objects, |values| {
            let mut values = values.reader();
            let id = ObjectId(values.hash()?);
            Ok(ObjectRow {
                id,
                children: read_children(&values.bytes()?)?,
                content: None,
            })
        })?;
        for row in &mut rows.objects {
            row.content = place(
                row.id,
                noted.get(&row.id).copied().unwrap_or(Noted::Nothing),
            );
        }
        Ok(())
    }
}

/// The objects whose bytes are in the database.
fn inline(database: &Connection) -> rusqlite::Result<HashSet<Vec<u8>>> {
    let mut statement =
        database.prepare("SELECT object FROM contents WHERE content IS NOT NULL")?;
    let ids = statement.query_map([], |row| row.get(0))?;
    ids.collect()
}

fn read_run_and_object(values: Values) -> Result<(RunId, ObjectId), Unfit> {
    let mut values = values.reader();
    Ok((RunId(values.id()?), ObjectId(values.hash()?)))
}

fn read_children(bytes: &[u8]) -> Result<Vec<ObjectId>, Unfit> {
    let (children, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(Unfit);
    }
    Ok(children.iter().map(|child| ObjectId(*child)).collect())
}
