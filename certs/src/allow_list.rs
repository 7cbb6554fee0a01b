//! The keys that may join, as a file that can change while the SuperLink runs.
//!
//! A change that cannot be read keeps the set that was read last. Lookups never wait for a reload.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::{
    csv_list::{self, ListError},
    node_key::NodePublicKey,
};

/// The set of keys of a list file. Keys are compared by their canonical form, whatever PEM a node sends.
#[derive(Debug)]
pub struct AllowList {
    path: PathBuf,
    keys: ArcSwap<HashSet<Bytes>>,
    seen: Mutex<Seen>,
}

/// What the last check saw, so that one broken version of the file is reported once.
#[derive(Debug, Default)]
struct Seen {
    stamp: Option<Stamp>,
    io_error: Option<io::ErrorKind>,
    /// The file turned empty at this stamp, and the keys before are still in force.
    emptied: bool,
}

/// Changes whenever the file does, also when a link is switched or only its permissions change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What a check of the file found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reload {
    /// A new version was read.
    Reloaded {
        /// Keys before.
        before: usize,
        /// Keys now; 0 means that nobody can join.
        after: usize,
    },
    /// Nothing new, or nothing that was not reported before.
    Unchanged,
}

impl AllowList {
    /// Reads a list. An empty file is a valid one: nobody can join.
    ///
    /// # Errors
    /// When the file is missing, unreadable, or holds anything but keys of nodes.
    pub fn load(path: &Path) -> Result<Self, ListError> {
        let mut file = File::open(path).map_err(|source| read_error(path, source))?;
        let stamp = Stamp::of(&file).map_err(|source| read_error(path, source))?;
        let keys = read(path, &mut file)?;
        Ok(Self {
            path: path.to_owned(),
            keys: ArcSwap::from_pointee(keys),
            seen: Mutex::new(Seen {
                stamp: Some(stamp),
                ..Seen::default()
            }),
        })
    }

    /// Whether this key may join. Takes no lock and allocates nothing.
    #[must_use]
    pub fn contains(&self, key: &NodePublicKey) -> bool {
        self.contains_spki(key.spki_der())
    }

    /// Whether the key with this SubjectPublicKeyInfo, in the form of [`NodePublicKey::spki_der`], may join.
    #[must_use]
    pub fn contains_spki(&self, spki_der: &[u8]) -> bool {
        self.keys.load().contains(spki_der)
    }

    /// How many keys may join.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.load().len()
    }

    /// Whether nobody can join.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file again if it is not the one read last. Costs one `open` and `fstat` if it is. Blocks on the disk.
    ///
    /// A list that turned empty is taken at the second check that finds it so: an editor that saves in place empties
    /// a file for a moment.
    ///
    /// # Errors
    /// When the new version cannot be read; the keys read before stay valid. The same version is reported once.
    pub fn reload_if_changed(&self) -> Result<Reload, ListError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = File::open(&self.path).and_then(|file| Ok((Stamp::of(&file)?, file)));
        let (stamp, mut file) = match opened {
            Ok(opened) => opened,
            Err(source) => return seen.report_io(read_error(&self.path, source)),
        };
        if seen.stamp == Some(stamp) && !seen.emptied {
            seen.io_error = None;
            return Ok(Reload::Unchanged);
        }
        let keys = match read(&self.path, &mut file) {
            Err(error @ (ListError::Unreadable { .. } | ListError::Missing { .. })) => {
                return seen.report_io(error);
            }
            other => other,
        };
        let same_as_before = seen.stamp == Some(stamp);
        *seen = Seen {
            stamp: Some(stamp),
            ..Seen::default()
        };
        let keys = keys?;
        let (before, after) = (self.len(), keys.len());
        if after == 0 && before > 0 && !same_as_before {
            seen.emptied = true;
            return Err(ListError::Emptied {
                path: self.path.clone(),
                kept: before,
            });
        }
        self.keys.store(keys.into());
        Ok(Reload::Reloaded { before, after })
    }
}

impl Seen {
    /// Trouble with the file itself may pass without a trace on its stamp, so it is looked at again each time and
    /// reported when it turns up.
    fn report_io(&mut self, error: ListError) -> Result<Reload, ListError> {
        let kind = match &error {
            ListError::Unreadable { source, .. } => source.kind(),
            _missing => io::ErrorKind::NotFound,
        };
        self.stamp = None;
        self.emptied = false;
        if self.io_error.replace(kind) == Some(kind) {
            Ok(Reload::Unchanged)
        } else {
            Err(error)
        }
    }
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            len: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

fn read(path: &Path, file: &mut File) -> Result<HashSet<Bytes>, ListError> {
    let mut text = Vec::new();
    file.read_to_end(&mut text)
        .map_err(|source| read_error(path, source))?;
    csv_list::parse(path, &text)
}

fn read_error(path: &Path, source: io::Error) -> ListError {
    let path = path.to_owned();
    if source.kind() == io::ErrorKind::NotFound {
        ListError::Missing { path }
    } else {
        ListError::Unreadable { path, source }
    }
}
