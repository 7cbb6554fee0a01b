//! Notes of what must not be forgotten when a process is killed: one small file each.
//!
//! A note is a version, a checksum and bytes that only its writer understands. It is there whole or
//! not at all, and what is damaged is told from what was written. Notes outlive the process. A
//! crash of the machine may take the last of them, as it may take objects that are not durable.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use flwr_api::ObjectId;

use crate::disk::{Temporary, blocking, create_private_folder, failed};
use crate::error::StoreResult;

/// A folder of notes. It belongs to one process at a time, which its owner sees to. Cheap to clone:
/// all clones are the same folder.
#[derive(Clone, Debug)]
pub struct Journal {
    folder: PathBuf,
}

/// What a note is called by: the hash of whatever it is about.
pub type NoteName = ObjectId;

impl Journal {
    /// Uses `folder`, which is made with the first note.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        Self { folder }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a note, in place of the one before. Dropping the future does not stop it.
    ///
    /// # Errors
    /// The disk said no.
    pub async fn put(&self, name: NoteName, note: Vec<u8>) -> StoreResult<()> {
        let folder = self.folder.clone();
        blocking(move || {
            create_private_folder(&folder)?;
            let mut file = Temporary::create(folder.join(format!("{name}{UNFINISHED}")))?;
            file.write(&[VERSION])?;
            file.write(&ObjectId::of(&note).0)?;
            file.write(&note)?;
            file.keep_as(&folder.join(name.to_string()))
        })
        .await
    }

    /// Removes a note; one that is not there is fine. Dropping the future does not stop it.
    ///
    /// # Errors
    /// The disk said no.
    pub async fn remove(&self, name: NoteName) -> StoreResult<()> {
        let path = self.folder.join(name.to_string());
        blocking(move || remove_file(&path)).await
    }

    /// Every note, at most [`NOTES_MAX`]. What is damaged is removed and what is not ours is left
    /// alone, both with a warning. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub async fn notes(&self) -> StoreResult<Vec<(NoteName, Vec<u8>)>> {
        let folder = self.folder.clone();
        blocking(move || notes(&folder)).await
    }
}

fn notes(folder: &Path) -> StoreResult<Vec<(NoteName, Vec<u8>)>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed("read", folder))?,
    };
    let mut notes = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed("read", folder))?.path();
        let file_name = path.file_name().and_then(|name| name.to_str());
        let file_name = file_name.unwrap_or_default();
        if file_name.ends_with(UNFINISHED) {
            remove_file(&path)?;
            continue;
        }
        match (file_name.parse(), read(&path)) {
            (Ok(name), Found::Note(note)) if notes.len() < NOTES_MAX => notes.push((name, note)),
            (Ok(_), Found::Damaged) => {
                tracing::warn!(path = %path.display(), "a note is damaged, and removed");
                remove_file(&path)?;
            }
            _ => {
                tracing::warn!(path = %path.display(), "a file is no note of this version, and left alone");
            }
        }
    }
    Ok(notes)
}

/// What a file holds.
enum Found {
    Note(Vec<u8>),
    /// It was a note of this version, or is empty.
    Damaged,
    /// Another version, or no note.
    Foreign,
}

fn read(path: &Path) -> Found {
    let mut bytes = Vec::new();
    let is_read = path.is_file()
        && std::fs::File::open(path)
            .and_then(|file| file.take(NOTE_BYTES_MAX + 1).read_to_end(&mut bytes))
            .is_ok();
    match bytes.first() {
        _ if !is_read => return Found::Foreign,
        None => return Found::Damaged,
        Some(&VERSION) => {}
        Some(_) => return Found::Foreign,
    }
    match bytes.split_at_checked(HEAD_BYTES) {
        Some((head, note)) if head[1..] == ObjectId::of(note).0 => Found::Note(note.to_vec()),
        _ => Found::Damaged,
    }
}

fn remove_file(path: &Path) -> StoreResult<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// The form of notes, in their first byte: the SHA-256 of the rest follows, then the rest.
const VERSION: u8 = 1;

/// Version and checksum.
const HEAD_BYTES: usize = 33;

/// How the names of files end that are being written.
const UNFINISHED: &str = ".new";

/// No note is longer, in bytes: the shape of the largest message fits.
const NOTE_BYTES_MAX: u64 = 256 << 20;

/// More notes than that are never read at once.
pub const NOTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NoteName {
        NoteName::of(text.as_bytes())
    }

    async fn read_all(journal: &Journal) -> Vec<(NoteName, Vec<u8>)> {
        let mut notes = journal.notes().await.unwrap();
        notes.sort();
        notes
    }

    #[tokio::test]
    async fn notes_are_there_until_they_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let journal = Journal::new(root.path().join("journal"));
        assert_eq!(read_all(&journal).await, []);
        journal.remove(name("a")).await.unwrap();
        journal.put(name("a"), b"first".to_vec()).await.unwrap();
        journal.put(name("a"), b"second".to_vec()).await.unwrap();
        journal.put(name("b"), Vec::new()).await.unwrap();
        let again = Journal::new(root.path().join("journal"));
        let mut expected = vec![(name("a"), b"second".to_vec()), (name("b"), Vec::new())];
        expected.sort();
        assert_eq!(read_all(&again).await, expected);
        again.remove(name("a")).await.unwrap();
        assert_eq!(read_all(&journal).await, [(name("b"), Vec::new())]);
    }

    #[tokio::test]
    async fn garbage_is_skipped_and_what_was_ours_of_it_goes() {
        let root = tempfile::tempdir().unwrap();
        let journal = Journal::new(root.path());
        journal.put(name("good"), b"note".to_vec()).await.unwrap();
        let good = std::fs::read(root.path().join(name("good").to_string())).unwrap();
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let mut newer = good.clone();
        newer[0] = VERSION + 1;
        for (file, bytes, stays) in [
            (name("empty").to_string(), &b""[..], false),
            (name("short").to_string(), &good[..20], false),
            (name("cut").to_string(), &good[..good.len() - 1], false),
            (name("flipped").to_string(), &flipped, false),
            (format!("{}.new", name("unfinished")), &good, false),
            (name("newer").to_string(), &newer, true),
            ("notes.txt".to_owned(), b"not ours", true),
        ] {
            let path = root.path().join(&file);
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(read_all(&journal).await, [(name("good"), b"note".to_vec())]);
            assert_eq!(path.exists(), stays, "{file}");
        }
        std::fs::create_dir(root.path().join(name("folder").to_string())).unwrap();
        assert_eq!(read_all(&journal).await.len(), 1);
    }
}
