//! Taking a database into use: whether it is one of ours, of which form, whole, and with its objects.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub(crate) use flwr_state::disk::failed as io;
use flwr_state::files::{self, ObjectFiles};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::error::{NO_DATABASE, OpenError, failed};
use crate::{owner, schema};

/// Where a state is kept.
#[derive(Clone, Debug)]
pub struct Config {
    /// The SQLite file, which is made if it is not there.
    pub database: PathBuf,
    /// The folder of the objects, which is made if it is not there.
    pub objects: PathBuf,
    /// How much the folder may hold; always as safe as the database.
    pub objects_quota_bytes: u64,
    /// Bytes of the folder's disk that are left to others.
    pub free_bytes_min: u64,
}

/// A database that belongs to this process, with its objects.
pub(crate) struct Opened {
    pub(crate) database: Connection,
    pub(crate) files: ObjectFiles,
    pub(crate) lock: File,
}

/// Opens a database, which is made if it is not there. Blocks.
///
/// What is refused is left as it is, for whoever mends it. [`tidy`] ends that.
pub(crate) fn open(config: &Config) -> Result<Opened, OpenError> {
    let path = &config.database;
    let lock = lock(path)?;
    match read_head(path)? {
        Head::Ours => {}
        Head::Foreign(what) => {
            return Err(OpenError::Foreign {
                database: path.clone(),
                what,
            });
        }
        empty => {
            check_unused(config, empty == Head::Empty)?;
            create(path)?;
        }
    }
    let mut database = connect(path)?;
    check_structure(&database, path)?;
    schema::bring_up_to_date(&mut database, path)?;
    schema::check(&database, path)?;
    let id = schema::id(&database, path)?;
    if !owner::fits(&config.objects, &id)? {
        return Err(other_objects(config));
    }
    let files = ObjectFiles::open(
        &config.objects,
        files::Config {
            quota_bytes: config.objects_quota_bytes,
            free_bytes_min: config.free_bytes_min,
            durable: true,
        },
    )?;
    owner::claim(&config.objects, &id)?;
    tune(&database).map_err(failed("set up", path))?;
    Ok(Opened {
        database,
        files,
        lock,
    })
}

/// Opens a database for reading only, which this process has opened for writing.
pub(crate) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
}

/// SQLite's own locks would let several processes write by turns.
pub(crate) fn lock(database: &Path) -> Result<File, OpenError> {
    let path = beside(database, "-lock");
    let opened = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(PRIVATE)
        .open(&path);
    let lock = opened.map_err(io("create", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            database: database.to_path_buf(),
        }),
        Err(TryLockError::Error(error)) => Err(io("lock", &path)(error).into()),
    }
}

/// What a file is by its first bytes, of which nothing else is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    Missing,
    Empty,
    Ours,
    Foreign(&'static str),
}

pub(crate) fn read_head(path: &Path) -> Result<Head, OpenError> {
    let mut head = Vec::new();
    match std::fs::metadata(path) {
        // Whoever opens a pipe waits for its other end.
        Ok(found) if !found.is_file() => return Ok(Head::Foreign("no file")),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Head::Missing),
        _ => {}
    }
    let file = File::open(path).map_err(io("open", path))?;
    file.take(HEAD_BYTES)
        .read_to_end(&mut head)
        .map_err(io("read", path))?;
    Ok(match (head.get(..MAGIC.len()), head.get(APPLICATION_ID)) {
        _ if head.is_empty() => Head::Empty,
        (Some(magic), Some(id)) if magic == MAGIC => {
            if id == schema::APPLICATION_ID.to_be_bytes() {
                Head::Ours
            } else if head.get(WRITE_VERSION) == Some(&PLAIN) && is_of_flower(path) {
                Head::Foreign(
                    "the database of Flower's own SuperLink, whose runs cannot be continued here",
                )
            } else {
                Head::Foreign("the database of another program, or damaged at its very beginning")
            }
        }
        _ => Head::Foreign(NO_DATABASE),
    })
}

/// Makes sure that a database with nothing in it never had anything in it.
fn check_unused(config: &Config, is_there: bool) -> Result<(), OpenError> {
    let path = &config.database;
    let journal = beside(path, "-wal");
    let damaged = |what| {
        Err(OpenError::Damaged {
            database: path.clone(),
            what,
        })
    };
    // SQLite would remove it.
    if std::fs::metadata(&journal).is_ok_and(|journal| journal.len() > 0) {
        let journal = journal.display();
        return damaged(format!(
            "it is empty or gone, and {journal}, which belongs to it, is not"
        ));
    }
    if owner::has_objects(&config.objects)? {
        return Err(other_objects(config));
    }
    if is_there && owner::read(&config.objects)?.is_some() {
        let folder = config.objects.display();
        return damaged(format!("it is empty, and {folder} belongs to a database"));
    }
    Ok(())
}

fn create(path: &Path) -> Result<(), OpenError> {
    let mut options = OpenOptions::new();
    let created = options.append(true).create(true).mode(PRIVATE).open(path);
    created.map(drop).map_err(io("create", path))?;
    Ok(())
}

fn other_objects(config: &Config) -> OpenError {
    OpenError::OtherObjects {
        folder: config.objects.clone(),
        database: config.database.clone(),
    }
}

/// Whether Flower's own SuperLink has made the database, which is not touched.
fn is_of_flower(path: &Path) -> bool {
    let found = open_reader(path).and_then(|database| {
        database.query_row(
            "SELECT count(*) FROM sqlite_schema WHERE name IN ('message_ins', 'message_res')",
            [],
            |row| row.get::<_, i64>(0),
        )
    });
    found.is_ok_and(|tables| tables == 2)
}

fn connect(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(path, flags).map_err(failed("open", path))?;
    database
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(failed("set up", path))?;
    // A program that reads it may hold it for a moment.
    database
        .busy_timeout(std::time::Duration::from_secs(5))
        .map_err(failed("set up", path))?;
    Ok(database)
}

/// From now on the write-ahead log is put into the database when that is closed.
pub(crate) fn tidy(database: &Connection) -> rusqlite::Result<()> {
    database.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(())
}

/// Indices are looked at as well: what is not found by them would not be removed, and come back.
fn check_structure(database: &Connection, path: &Path) -> Result<(), OpenError> {
    let found: String = database
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(failed("check", path))?;
    if found == "ok" {
        return Ok(());
    }
    Err(OpenError::Damaged {
        database: path.to_path_buf(),
        what: found.lines().last().unwrap_or_default().to_owned(),
    })
}

fn tune(database: &Connection) -> rusqlite::Result<()> {
    database.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    database.pragma_update(None, "synchronous", "FULL")?;
    database.pragma_update(None, "trusted_schema", false)?;
    database.pragma_update(None, "cell_size_check", true)?;
    database.pragma_update(None, "journal_size_limit", JOURNAL_BYTES_KEPT)?;
    database.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(())
}

pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// What is stored is learnt from data, and tokens are secrets: nobody else reads them.
pub(crate) const PRIVATE: u32 = 0o600;

/// How every SQLite file begins (SQLite's file format, section 1.3).
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Where a file says whose it is.
const APPLICATION_ID: std::ops::Range<usize> = 68..72;

/// Where a file says how it is written, and what it says there if that is without a write-ahead log.
const WRITE_VERSION: usize = 18;
const PLAIN: u8 = 1;

/// The length of the head of a file.
const HEAD_BYTES: u64 = 100;

/// What is left of the write-ahead log once it is in the database.
const JOURNAL_BYTES_KEPT: i64 = 64 << 20;

/// Statements that are kept prepared; there are fewer.
const STATEMENTS: usize = 64;
