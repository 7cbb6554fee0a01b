//! New files on disk: all of them or, if a target is in the way or may not be written, none; whole or absent; secrets never
//! readable by others.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use aws_lc_rs::rand;

/// A file to write.
#[derive(Debug)]
pub(crate) struct NewFile {
    pub(crate) path: PathBuf,
    pub(crate) contents: Vec<u8>,
    pub(crate) mode: Mode,
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    /// Readable by all, as far as the umask allows.
    Public,
    /// Exactly these permission bits, never wider while it is written.
    Secret(u32),
}

/// Writes all files, or none if one exists and `overwrite` is off. Parent directories are made.
pub(crate) fn write_all(files: &[NewFile], overwrite: bool) -> Result<Vec<PathBuf>, WriteError> {
    if !overwrite && let Some(taken) = files.iter().find(|file| is_taken(&file.path)) {
        return Err(WriteError::Exists {
            path: taken.path.clone(),
        });
    }
    let mut staged = Vec::with_capacity(files.len());
    for file in files {
        staged.push((Staged::write(file)?, file.path.as_path()));
    }
    for (temp, target) in &staged {
        temp.publish(target, overwrite)?;
    }
    Ok(files.iter().map(|file| file.path.clone()).collect())
}

/// A file that exists, and what is to be in it.
pub(crate) type NewContents = (PathBuf, Vec<u8>);

/// Gives files that exist other contents; who may read them stays. In place, they also stay the same files, as those
/// need to be that are mounted one by one into containers; a reader may then see half of a change. Nothing is written
/// unless all of them may be; a disk that fails after that can leave some as they were.
pub(crate) fn replace_all(files: &[NewContents], in_place: bool) -> Result<(), WriteError> {
    if in_place {
        let opened = files
            .iter()
            .map(|(path, _)| open(path).map_err(|source| WriteError::io(path, source)));
        let opened: Vec<File> = opened.collect::<Result<_, _>>()?;
        return opened
            .into_iter()
            .zip(files)
            .try_for_each(|(file, (path, contents))| {
                overwrite(file, contents).map_err(|source| WriteError::io(path, source))
            });
    }
    let mut staged = Vec::with_capacity(files.len());
    for (path, contents) in files {
        let there = path
            .metadata()
            .map_err(|source| WriteError::io(path, source))?;
        let file = NewFile {
            path: path.clone(),
            contents: contents.clone(),
            mode: Mode::Secret(there.permissions().mode() & 0o777),
        };
        let one = Staged::write(&file)?;
        let made = one
            .0
            .metadata()
            .map_err(|source| WriteError::io(path, source))?;
        let owner = [there.uid(), there.gid()];
        if [made.uid(), made.gid()] != owner {
            let [uid, gid] = owner;
            chown(&one.0, Some(uid), Some(gid)).map_err(|source| WriteError::Owner {
                path: path.clone(),
                uid,
                gid,
                source,
            })?;
        }
        staged.push((one, path));
    }
    for (temp, target) in &staged {
        // What is behind a link is replaced, not the link.
        let target = target
            .canonicalize()
            .unwrap_or_else(|_| target.to_path_buf());
        temp.publish(&target, true)?;
    }
    Ok(())
}

/// Opens a file for writing, also one that its owner has made read-only.
fn open(path: &Path) -> io::Result<File> {
    let open = || OpenOptions::new().write(true).open(path);
    let refused = match open() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => error,
        outcome => return outcome,
    };
    let mode = path.metadata()?.permissions();
    let writable = Permissions::from_mode(mode.mode() | 0o200);
    if fs::set_permissions(path, writable).is_err() {
        return Err(refused);
    }
    let opened = open();
    fs::set_permissions(path, mode)?;
    opened
}

/// Never empty in between: what is longer goes last.
fn overwrite(mut file: File, contents: &[u8]) -> io::Result<()> {
    file.write_all(contents)?;
    file.set_len(contents.len() as u64)?;
    file.sync_all()
}

/// Why files were not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The target is there already; nothing was written.
    #[error("{} exists already: give --force to overwrite it, or another place", path.display())]
    Exists {
        /// The target.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot write {}: check that the directory exists and may be written to", path.display())]
    Io {
        /// The target or its directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The new file would be another user's or group's, and who reads the present one could not read it.
    #[error(
        "cannot give a new {} to user {uid} and group {gid}, whose the present one is: run this as root, as with sudo",
        path.display()
    )]
    Owner {
        /// The target.
        path: PathBuf,
        /// The owner of the target.
        uid: u32,
        /// The group of the target.
        gid: u32,
        /// What the system said.
        source: io::Error,
    },
}

impl WriteError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            source,
        }
    }
}

/// A complete file under a temporary name beside its target; removed unless published.
struct Staged(PathBuf);

impl Staged {
    fn write(file: &NewFile) -> Result<Self, WriteError> {
        let fail = |source| WriteError::io(&file.path, source);
        let parent = parent_of(&file.path);
        fs::create_dir_all(parent).map_err(|source| WriteError::io(parent, source))?;
        let mut random = [0; 8];
        rand::fill(&mut random).map_err(|_error| fail(io::Error::other("no randomness")))?;
        let name = file.path.file_name().unwrap_or_default().to_string_lossy();
        let temp = parent.join(format!(".{name}.{:016x}.tmp", u64::from_ne_bytes(random)));
        let (create_mode, final_mode) = match file.mode {
            Mode::Public => (0o644, None),
            Mode::Secret(bits) => (bits & 0o600, Some(bits)),
        };
        let mut out = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(create_mode)
            .open(&temp)
            .map_err(fail)?;
        let staged = Self(temp);
        out.write_all(&file.contents).map_err(fail)?;
        if let Some(bits) = final_mode {
            out.set_permissions(Permissions::from_mode(bits))
                .map_err(fail)?;
        }
        out.sync_all().map_err(fail)?;
        Ok(staged)
    }

    fn publish(&self, target: &Path, overwrite: bool) -> Result<(), WriteError> {
        let fail = |source| WriteError::io(target, source);
        // A link, unlike a rename, cannot replace a file that appeared in the meantime.
        let linked = !overwrite
            && match fs::hard_link(&self.0, target) {
                Ok(()) => true,
                Err(_) if is_taken(target) => {
                    return Err(WriteError::Exists {
                        path: target.to_owned(),
                    });
                }
                Err(_no_links_here) => false,
            };
        if !linked {
            fs::rename(&self.0, target).map_err(fail)?;
        }
        File::open(parent_of(target))
            .and_then(|directory| directory.sync_all())
            .map_err(fail)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Gone already after a rename.
        let _gone = fs::remove_file(&self.0);
    }
}

fn is_taken(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _here => Path::new("."),
    }
}
