//! Work on files: away from the threads that serve, whole or not at all, with errors that say where.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::error::{Limit, StoreError, StoreResult};

/// Does work on a thread that may block. Dropping the future does not stop the work.
///
/// # Errors
/// What the work ends with, or that the thread is gone.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> StoreResult<T> + Send + 'static,
) -> StoreResult<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(StoreError::Stopped))
}

/// A new file that is removed again unless it is given its final name.
#[derive(Debug)]
pub(crate) struct Temporary {
    path: PathBuf,
    /// Open while it is written.
    file: Option<File>,
    is_kept: bool,
}

impl Temporary {
    /// Makes an empty file, in place of what a crash may have left there.
    pub(crate) fn create(path: PathBuf) -> StoreResult<Self> {
        let file = File::create(&path).map_err(failed("create", &path))?;
        Ok(Self {
            path,
            file: Some(file),
            is_kept: false,
        })
    }

    /// Writes at its end.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> StoreResult<()> {
        let written = self.open()?.write_all(bytes);
        written.map_err(failed("write", &self.path))
    }

    /// Makes sure that the bytes survive a crash.
    pub(crate) fn sync(&mut self) -> StoreResult<()> {
        let synced = self.open()?.sync_all();
        synced.map_err(failed("write", &self.path))
    }

    /// Gives its file descriptor back until it is written again.
    pub(crate) fn close(&mut self) {
        self.file = None;
    }

    fn open(&mut self) -> StoreResult<&mut File> {
        let opened = match self.file.take() {
            Some(open) => open,
            None => File::options()
                .append(true)
                .open(&self.path)
                .map_err(failed("open", &self.path))?,
        };
        Ok(self.file.insert(opened))
    }

    /// Gives the file its name, in place of whatever has that name.
    pub(crate) fn keep_as(mut self, path: &Path) -> StoreResult<()> {
        std::fs::rename(&self.path, path).map_err(failed("write", path))?;
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_kept
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "temporary file is left behind");
        }
    }
}

/// Makes sure that new names in a folder survive a crash.
pub(crate) fn sync_folder(folder: &Path) -> StoreResult<()> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed("write", folder))
}

/// Makes a folder, with those above it, if it is not there.
pub(crate) fn create_folder(folder: &Path) -> StoreResult<()> {
    std::fs::create_dir_all(folder).map_err(failed("create", folder))
}

/// Makes a folder, with those above it, that other users cannot look into.
///
/// # Errors
/// The disk said no.
pub fn create_private_folder(folder: &Path) -> StoreResult<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(failed("create", folder))
}

/// How many bytes may still be written to the disk that `folder` is on.
pub(crate) fn free_bytes(folder: &Path) -> StoreResult<u64> {
    let disk = rustix::fs::statvfs(folder)
        .map_err(|error| failed("measure the disk of", folder)(error.into()))?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Says what was being done where when a file failed.
pub fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_path_buf();
    move |source| match source.kind() {
        ErrorKind::QuotaExceeded | ErrorKind::StorageFull => StoreError::Full {
            folder: path.parent().unwrap_or(&path).to_path_buf(),
            limit: Limit::Disk,
        },
        _ => StoreError::Io {
            action,
            path,
            source,
        },
    }
}
