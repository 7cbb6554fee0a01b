//! Everything that a database says, with where the bytes of its objects are.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use flwr_api::{NodeId, ObjectId, RunId, UnixTime};
use flwr_state::files::ObjectFiles;
use flwr_state::logs;
use flwr_state::rows::{ObjectRow, Rows};
use flwr_state::storage::Content;
use rusqlite::Connection;

use crate::error::{OpenError, failed};
use crate::row::{Table, Unfit, Values};
use crate::tables::{
    self, ABANDONED, CONTENTS, HOLDS, INSTRUCTIONS, META, NODES, OBJECTS, REPLIES, RUNS, TOKENS,
    UNWANTED,
};
use crate::writing::{self, AS_OF};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) rows: Rows,
    /// The time of the last entry of each log.
    pub(crate) log_ends: HashMap<RunId, UnixTime>,
    /// What each log takes.
    pub(crate) log_bytes: HashMap<RunId, usize>,
    /// Objects whose files had come, and were not noted yet.
    pub(crate) adopted: usize,
}

/// Reads all rows, and notes files that have come without being noted. Blocks.
pub(crate) fn load(
    database: &Connection,
    path: &Path,
    files: &ObjectFiles,
) -> Result<Loaded, OpenError> {
    let loader = Loader { database, path };
    let mut loaded = Loaded::default();
    let rows = &mut loaded.rows;
    loader.rows(&META, |values| {
        let mut values = values.reader();
        if values.text()? == AS_OF {
            rows.as_of = Some(UnixTime::new(values.real()?));
        }
        Ok(())
    })?;
    loader.rows(&NODES, |values| {
        keep(&mut rows.nodes, tables::read_node(values))
    })?;
    loader.rows(&RUNS, |values| {
        keep(&mut rows.runs, tables::read_run(values))
    })?;
    loader.rows(&TOKENS, |values| {
        keep(&mut rows.tokens, tables::read_token(values))
    })?;
    loader.rows(&INSTRUCTIONS, |values| {
        keep(&mut rows.instructions, tables::read_instruction(values))
    })?;
    loader.rows(&REPLIES, |values| {
        keep(&mut rows.replies, tables::read_reply(values))
    })?;
    loader.rows(&UNWANTED, |values| {
        let mut values = values.reader();
        let row = (RunId(values.id()?), ObjectId(values.hash()?));
        keep(&mut rows.unwanted, Ok(row))
    })?;
    loader.rows(&ABANDONED, |values| {
        let mut values = values.reader();
        let (run, node) = (RunId(values.id()?), NodeId(values.id()?));
        keep(
            &mut rows.abandoned,
            Ok((node, run, ObjectId(values.hash()?))),
        )
    })?;
    loader.rows(&HOLDS, |values| {
        let mut values = values.reader();
        let row = (RunId(values.id()?), ObjectId(values.hash()?));
        keep(&mut rows.holds, Ok(row))
    })?;
    loaded.adopted = loader.objects(rows, files)?;
    loader.logs(&mut loaded)?;
    Ok(loaded)
}

struct Loader<'a> {
    database: &'a Connection,
    path: &'a Path,
}

impl Loader<'_> {
    fn rows(
        &self,
        table: &Table,
        take: impl FnMut(Values) -> Result<(), Unfit>,
    ) -> Result<(), OpenError> {
        let damaged = table.read(self.database, take);
        match damaged.map_err(failed("read", self.path))? {
            0 => Ok(()),
            rows => Err(OpenError::Damaged {
                database: self.path.to_path_buf(),
                what: format!(
                    "{rows} rows of its table {} are not as they were written",
                    table.name
                ),
            }),
        }
    }

    /// Reads the objects; returns how many files were not noted.
    fn objects(&self, rows: &mut Rows, files: &ObjectFiles) -> Result<usize, OpenError> {
        let mut noted = HashMap::new();
        self.rows(&CONTENTS, |values| {
            let mut values = values.reader();
            noted.insert(ObjectId(values.hash()?), values.id()?);
            Ok(())
        })?;
        let inline = self.inline().map_err(failed("read", self.path))?;
        let mut adopted = Vec::new();
        let mut lost = Vec::new();
        let objects = &mut rows.objects;
        self.rows(&OBJECTS, |values| {
            let mut values = values.reader();
            let id = ObjectId(values.hash()?);
            let children = read_children(&values.bytes()?)?;
            let file = || {
                let len = files.len(id)?;
                Some(Content::File(len, files.pin([id])))
            };
            let content = match noted.get(&id) {
                Some(bytes) if inline.contains(&id) => Some(Content::Row(*bytes)),
                Some(bytes) => {
                    let here = file().filter(|_| files.len(id) == Some(*bytes));
                    if here.is_none() {
                        lost.push(id);
                    }
                    here
                }
                None => {
                    let here = file();
                    adopted.extend(here.as_ref().and(files.len(id)).map(|len| (id, len)));
                    here
                }
            };
            objects.push(ObjectRow {
                id,
                children,
                content,
            });
            Ok(())
        })?;
        for (id, len) in &adopted {
            let change = flwr_state::rows::Change::Content(*id, Some((*len, None)));
            writing::write(self.database, &change).map_err(failed("write", self.path))?;
        }
        for id in &lost {
            let change = flwr_state::rows::Change::Content(*id, None);
            writing::write(self.database, &change).map_err(failed("write", self.path))?;
        }
        rows.lost = lost;
        Ok(adopted.len())
    }

    /// The objects whose bytes are in the database.
    fn inline(&self) -> rusqlite::Result<HashSet<ObjectId>> {
        let mut statement = self
            .database
            .prepare("SELECT object FROM contents WHERE content IS NOT NULL")?;
        let ids = statement.query_map([], |row| row.get(0).map(ObjectId))?;
        ids.collect()
    }

    fn logs(&self, loaded: &mut Loaded) -> Result<(), OpenError> {
        let mut read = || -> rusqlite::Result<()> {
            let mut statement = self.database.prepare(
                "SELECT run, max(time), sum(octet_length(text)), count(*) FROM logs GROUP BY run",
            )?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let run = RunId(row.get::<_, i64>(0)?.cast_unsigned());
                let (texts, entries): (usize, usize) = (row.get(2)?, row.get(3)?);
                loaded.log_ends.insert(run, UnixTime::new(row.get(1)?));
                loaded
                    .log_bytes
                    .insert(run, texts + entries * logs::ENTRY_BYTES);
            }
            Ok(())
        };
        read().map_err(failed("read", self.path))
    }
}

fn keep<T>(rows: &mut Vec<T>, row: Result<T, Unfit>) -> Result<(), Unfit> {
    rows.push(row?);
    Ok(())
}

fn read_children(bytes: &[u8]) -> Result<Vec<ObjectId>, Unfit> {
    let (children, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(Unfit);
    }
    Ok(children.iter().map(|child| ObjectId(*child)).collect())
}
