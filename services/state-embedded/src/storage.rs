//! The storage of a state.

use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use bytes::Bytes;
use flwr_api::{ObjectId, RunId, UnixTime};
use flwr_state::disk::blocking;
use flwr_state::files::{ObjectFiles, Remover};
use flwr_state::link::{LOG_SLICE_BYTES_MAX, LogSlice};
use flwr_state::rows::Change;
use flwr_state::storage::{Accepted, Beginning, Changes, Content, Position, Source};
use flwr_state::{LinkState, State, Storage, StoreError, StoreResult, Wakeups, logs, memory};
use flwr_transport::Body;
use rusqlite::OptionalExtension;

use crate::error::{OpenError, failed};
use crate::loading::{self, Loaded};
use crate::opening::{self, Config, Opened};
use crate::readers::Readers;
use crate::writer::Writer;

/// A state that outlives its process.
pub type EmbeddedState = State<Embedded>;

/// Rows in a database and large objects in files.
#[derive(Debug)]
pub struct Embedded {
    // In this order: what is left is written, then files are removed, then others may come.
    writer: Writer,
    _remover: Remover,
    readers: Arc<Readers>,
    files: ObjectFiles,
    _lock: File,
}

/// Takes a database into use, with all that it remembers, as of `now`. Changes are told on `wakeups`.
///
/// # Errors
/// It is not ours, in use, of a later release or damaged, or the disk said no.
pub async fn open(
    config: Config,
    wakeups: Wakeups,
    now: UnixTime,
) -> Result<EmbeddedState, OpenError> {
    let opened = tokio::task::spawn_blocking(move || open_now(&config, wakeups, now)).await;
    let (state, lost) = opened.map_err(|_| StoreError::Stopped)??;
    // From here on it counts how long nobody was there.
    state.checkpoint(now).await?;
    // Only now that the errors last which what was lost is answered with: before, the next start
    // has to notice it again.
    let rows = lost.into_iter().map(|object| Change::Content(object, None));
    state.storage().writer.record(Changes {
        rows: rows.collect(),
        ..Changes::default()
    });
    Ok(state)
}

/// Returns the objects whose bytes are lost as well, which the database still notes as stored.
fn open_now(
    config: &Config,
    wakeups: Wakeups,
    now: UnixTime,
) -> Result<(EmbeddedState, Vec<ObjectId>), OpenError> {
    let path = &config.database;
    let Opened {
        mut database,
        files,
        lock,
    } = opening::open(config)?;
    let mut loaded = loading::load(&database, path, &files)?;
    loading::correct(&mut database, &mut loaded).map_err(failed("write", path))?;
    let Loaded {
        rows,
        log_ends,
        log_bytes,
        adopted,
    } = loaded;
    opening::tidy(&database).map_err(failed("set up", path))?;
    let found = (rows.runs.len(), rows.nodes.len(), rows.instructions.len());
    let away = rows.as_of.map(|as_of| as_of.until(now).as_secs());
    let (objects, lost) = (rows.objects.len(), rows.lost.clone());
    let (removed, to_remove) = sync_channel(REMOVALS);
    let writer = Writer::start(database, log_ends, log_bytes, removed);
    let storage = Embedded {
        writer: writer.map_err(|source| StoreError::Io {
            action: "start a thread that writes",
            path: path.clone(),
            source,
        })?,
        _remover: Remover::start(files.clone(), to_remove),
        readers: Arc::new(Readers::new(path)),
        files: files.clone(),
        _lock: lock,
    };
    let state = State::restore(storage, rows, wakeups, now).map_err(|error| match error {
        StoreError::Inconsistent { .. } => OpenError::Damaged {
            database: path.clone(),
            what: error.to_string(),
        },
        error => error.into(),
    })?;
    // What nothing speaks of was removed, or came just before the end. Rows that do not fit together
    // may have forgotten some.
    files.clear_now()?;
    let (runs, nodes, instructions) = found;
    tracing::info!(
        database = %path.display(),
        runs,
        nodes,
        instructions,
        objects,
        adopted = adopted.len(),
        seconds_away = away,
        "state is open"
    );
    if !lost.is_empty() {
        tracing::error!(
            objects = lost.len(),
            "objects are missing in the folder; messages that need them are answered with errors"
        );
    }
    Ok((state, lost))
}

impl Storage for Embedded {
    const KEEPS_ROWS: bool = true;

    async fn admit(&self) -> StoreResult<()> {
        self.writer.admit().await
    }

    fn record(&self, changes: Changes) -> (Position, Option<Changes>) {
        (self.writer.record(changes), None)
    }

    async fn settle(&self, position: Position) -> StoreResult<()> {
        self.writer.settle(position).await
    }

    async fn accept(
        &self,
        object: ObjectId,
        is_wanted: bool,
        begun: Option<Beginning>,
        body: Body,
    ) -> StoreResult<Accepted> {
        if begun.is_some() || body.len().is_none_or(|len| len > ROW_BYTES_MAX) {
            return self.files.accept(object, is_wanted, begun, body).await;
        }
        let content = match body.collect(ROW_BYTES_MAX).await {
            Ok(content) => content,
            // So little is sent again.
            Err(why) => return Ok(Accepted::BrokeOff(None, why)),
        };
        // It may be a slice of a receive buffer that is much larger.
        let content = Bytes::copy_from_slice(&content);
        Ok(match memory::check(object, &content) {
            Ok(()) => Accepted::Taken(Some(Content::Here(content))),
            Err(wrong) => Accepted::Refused(wrong),
        })
    }

    async fn read(&self, object: ObjectId, source: Source) -> StoreResult<Option<Body>> {
        match source {
            Source::Here(bytes) => Ok(Some(Body::from_bytes(bytes))),
            Source::File => self.files.get(object).await,
            Source::Row => {
                let readers = Arc::clone(&self.readers);
                let read = blocking(move || read_row(&readers, object)).await?;
                Ok(read.map(Body::from_bytes))
            }
        }
    }

    async fn append_log(&self, run: RunId, text: String, now: UnixTime) -> StoreResult<()> {
        self.writer.admit().await?;
        let position = self.writer.log(run, logs::entry(&text), now);
        self.writer.settle(position).await
    }

    async fn log_after(&self, run: RunId, after: UnixTime) -> StoreResult<LogSlice> {
        self.writer.settle(self.writer.position()).await?;
        let readers = Arc::clone(&self.readers);
        blocking(move || read_log(&readers, run, after)).await
    }
}

/// The bytes of an object; nothing if they are gone, or not as they were written. Blocks.
fn read_row(readers: &Readers, object: ObjectId) -> StoreResult<Option<Bytes>> {
    let content: Option<Vec<u8>> = readers.read(|database| {
        let found = database
            .prepare_cached("SELECT content FROM contents WHERE object = ?1")?
            .query_row([object.0], |row| row.get(0));
        Ok(found.optional()?.flatten())
    })?;
    let content = content.filter(|content| ObjectId::of(content) == object);
    Ok(content.map(Bytes::from))
}

/// Blocks.
fn read_log(readers: &Readers, run: RunId, after: UnixTime) -> StoreResult<LogSlice> {
    readers.read(|database| {
        let mut statement = database.prepare_cached(
            "SELECT time, CAST(text AS BLOB), sum FROM logs WHERE run = ?1 AND time > ?2 ORDER BY time",
        )?;
        let mut rows = statement.query((run.0.cast_signed(), after.seconds()))?;
        let mut slice = LogSlice::default();
        while let Some(row) = rows.next()? {
            let (time, text, sum): (f64, Vec<u8>, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let is_first = slice.latest.is_none();
            if slice.text.len() + text.len() > LOG_SLICE_BYTES_MAX && !is_first {
                break;
            }
            if loading::is_entry(run, time, &text, sum) {
                slice.text.push_str(&String::from_utf8_lossy(&text));
            } else {
                tracing::error!(%run, time, "an entry of the log is damaged, and left out");
            }
            slice.latest = Some(UnixTime::new(time));
        }
        Ok(slice)
    })
}

/// Objects up to this size are rows: a file of its own costs more syncs than it saves.
const ROW_BYTES_MAX: u64 = 64 << 10;

/// Commits whose removals may wait.
const REMOVALS: usize = 256;
