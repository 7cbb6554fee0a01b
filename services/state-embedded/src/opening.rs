//! Taking a database into use: whether it is one of ours, of which form, whole, and with its objects.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use flwr_state::StoreError;
use flwr_state::files::{self, ObjectFiles};
use rusqlite::{Connection, OpenFlags};

use crate::error::{OpenError, failed};
use crate::schema;

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
pub(crate) fn open(config: &Config) -> Result<Opened, OpenError> {
    let path = &config.database;
    let lock = lock(path)?;
    check_owner(path)?;
    let mut database = connect(path)?;
    check_structure(&database, path)?;
    schema::bring_up_to_date(&mut database, path)?;
    tune(&database).map_err(failed("set up", path))?;
    let id = schema::id(&database).map_err(failed("read", path))?;
    let id = id.ok_or_else(|| OpenError::Damaged {
        database: path.clone(),
        what: "its id is lost".into(),
    })?;
    let files = ObjectFiles::open(
        &config.objects,
        files::Config {
            quota_bytes: config.objects_quota_bytes,
            free_bytes_min: config.free_bytes_min,
            durable: true,
        },
    )?;
    claim_objects(&files, config, &id)?;
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
fn lock(database: &Path) -> Result<File, OpenError> {
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

/// Refuses a file that another program has made, without touching it; makes one that is not there.
fn check_owner(path: &Path) -> Result<(), OpenError> {
    let opened = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(PRIVATE)
        .open(path);
    let mut file = opened.map_err(io("open", path))?;
    let mut head = Vec::new();
    file.seek(SeekFrom::Start(0))
        .and_then(|_| file.take(HEAD_BYTES).read_to_end(&mut head))
        .map_err(io("read", path))?;
    let foreign = |what| {
        Err(OpenError::Foreign {
            database: path.to_path_buf(),
            what,
        })
    };
    match (
        head.len(),
        head.get(..MAGIC.len()),
        head.get(APPLICATION_ID),
    ) {
        (0, ..) => Ok(()),
        (_, Some(magic), Some(id)) if magic == MAGIC => {
            if id == schema::APPLICATION_ID.to_be_bytes() {
                Ok(())
            } else if is_of_flower(path) {
                foreign(
                    "the database of Flower's own SuperLink, whose runs cannot be continued here",
                )
            } else {
                foreign("the database of another program")
            }
        }
        _ => foreign("no database"),
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
    // A program that reads it may hold it for a moment.
    database
        .busy_timeout(std::time::Duration::from_secs(5))
        .map_err(failed("set up", path))?;
    Ok(database)
}

fn check_structure(database: &Connection, path: &Path) -> Result<(), OpenError> {
    let found: String = database
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(failed("check", path))?;
    if found == "ok" {
        return Ok(());
    }
    Err(OpenError::Damaged {
        database: path.to_path_buf(),
        what: found,
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

/// Makes sure that the folder holds this database's objects, and says so in it.
fn claim_objects(files: &ObjectFiles, config: &Config, id: &str) -> Result<(), OpenError> {
    let path = config.objects.join(OWNER);
    let owner = match std::fs::read_to_string(&path) {
        Ok(owner) => Some(owner),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(io("read", &path)(error).into()),
    };
    if owner.is_some_and(|owner| owner.trim_end() == id) {
        return Ok(());
    }
    if files.totals().objects > 0 {
        return Err(OpenError::OtherObjects {
            folder: config.objects.clone(),
            database: config.database.clone(),
        });
    }
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&path)?;
        writeln!(file, "{id}")?;
        file.sync_all()?;
        File::open(&config.objects)?.sync_all()
    };
    Ok(write().map_err(io("write", &path))?)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_path_buf();
    move |source| StoreError::Io {
        action,
        path,
        source,
    }
}

/// What is stored is learnt from data, and tokens are secrets: nobody else reads them.
const PRIVATE: u32 = 0o600;

/// The file beside the objects that says which database they belong to.
const OWNER: &str = "database-id";

/// How every SQLite file begins (SQLite's file format, section 1.3).
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Where a file says whose it is.
const APPLICATION_ID: std::ops::Range<usize> = 68..72;

/// The length of the head of a file.
const HEAD_BYTES: u64 = 100;

/// What is left of the write-ahead log once it is in the database.
const JOURNAL_BYTES_KEPT: i64 = 64 << 20;

/// Statements that are kept prepared; there are fewer.
const STATEMENTS: usize = 64;
