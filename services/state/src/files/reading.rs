//! An object on its way out of a file.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use flwr_api::ObjectId;
use flwr_transport::{Body, BodyError};
use futures_util::stream;
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use super::Pin;
use super::check::Check;
use super::folder::Folder;
use super::index::Moment;
use crate::disk::{blocking, failed};
use crate::error::StoreResult;

/// An object that is being read, which keeps it from being removed.
pub(super) struct Reading {
    folder: Arc<Folder>,
    id: ObjectId,
    arrived: Moment,
    path: PathBuf,
    file: File,
    check: Check,
    left: u64,
    _pin: Pin,
}

/// An object as its bytes cannot be handed out.
struct Broken;

/// Begins to read an object; nothing if it is not here as it was written. Blocks.
pub(super) fn read(folder: &Arc<Folder>, id: ObjectId) -> StoreResult<Option<Body>> {
    let Some(mut reading) = Reading::open(folder, id)? else {
        return Ok(None);
    };
    if reading.left > PIECE_BYTES {
        return Ok(Some(reading.into_body()));
    }
    let whole = reading.piece();
    Ok(whole.ok().map(Body::from_bytes))
}

impl Reading {
    fn open(folder: &Arc<Folder>, id: ObjectId) -> StoreResult<Option<Self>> {
        let (found, pin) = {
            let mut index = folder.index();
            let Some(found) = index.read(id) else {
                return Ok(None);
            };
            (found, Pin::new(folder, &mut index, vec![id]))
        };
        let path = folder.object_path(id);
        let opened = File::open(&path).and_then(|file| {
            note_use(&file);
            Ok((file.metadata()?.len(), file))
        });
        let (len, file) = match opened {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(failed("read", &path)(error));
            }
            Err(_) => (0, None),
            Ok((len, file)) => (len, Some(file)),
        };
        match file {
            Some(file) if len == found.len => Ok(Some(Self {
                folder: Arc::clone(folder),
                id,
                arrived: found.arrived,
                path,
                file,
                check: found
                    .checksum
                    .map_or_else(|| Check::id(id), Check::checksum),
                left: len,
                _pin: pin,
            })),
            _ => {
                tracing::error!(path = %path.display(), bytes = len, announced = found.len, "object is damaged and removed");
                folder.remove_damaged(id, found.arrived);
                Ok(None)
            }
        }
    }

    fn into_body(self) -> Body {
        let len = self.left;
        let pieces = stream::unfold(Some(self), |reading| async {
            let mut reading = reading.filter(|reading| reading.left > 0)?;
            let read = blocking(move || Ok((reading.piece(), reading))).await;
            Some(match read {
                Ok((Ok(piece), reading)) => (Ok(piece), Some(reading)),
                Ok((Err(Broken), _)) | Err(_) => (Err(BodyError::Interrupted), None),
            })
        });
        Body::from_stream(Some(len), pieces)
    }

    /// The next bytes; the last of them only if all of the object is as it was written. Blocks.
    fn piece(&mut self) -> Result<Bytes, Broken> {
        let wanted = self.left.min(PIECE_BYTES);
        let piece = read_exactly(&self.file, wanted).map_err(|error| {
            tracing::error!(path = %self.path.display(), %error, "object cannot be read");
            Broken
        })?;
        self.check.update(&piece);
        self.left -= wanted;
        let is_short = (piece.len() as u64) < wanted;
        if is_short {
            return Err(self.damaged());
        }
        if self.left == 0 {
            let checksum = self.check.finish().ok_or_else(|| self.damaged())?;
            self.folder.index().vouch(self.id, self.arrived, checksum);
        }
        Ok(piece.into())
    }

    fn damaged(&self) -> Broken {
        tracing::error!(path = %self.path.display(), "object is damaged and removed");
        self.folder.remove_damaged(self.id, self.arrived);
        Broken
    }
}

/// Fewer bytes come at the end of the file only.
fn read_exactly(file: &File, bytes: u64) -> io::Result<Vec<u8>> {
    let mut piece = Vec::with_capacity(usize::try_from(bytes).unwrap_or_default());
    file.take(bytes).read_to_end(&mut piece)?;
    Ok(piece)
}

/// Notes the use for whoever opens the folder next. If that fails, only the order in which objects
/// go after a restart is another one.
fn note_use(file: &File) {
    let unused = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_OMIT,
    };
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let times = Timestamps {
        last_access: unused,
        last_modification: now,
    };
    let _ = rustix::fs::futimens(file, &times);
}

/// Bytes that are read at once: below the 128 KiB from which on glibc maps a block of its own and gives it back.
const PIECE_BYTES: u64 = 96 << 10;
