//! A log file that starts anew when it is large: `FILE`, and its former selves `FILE.1` (the latest), `FILE.2` and so on.
//!
//! A file that cannot be written stops nobody: it is said once, lines are counted instead, and it is tried again every
//! few seconds. (Crates that rotate files lose lines in silence then, or panic.) One process writes a file; another one
//! that is told to is refused it.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions, TryLockError, remove_file, rename},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{error, info};

/// How large a log file may become, and how many former ones are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// A line that does not fit begins a new file.
    pub(crate) bytes_max: u64,
    pub(crate) keep: u32,
}

/// A log file. What is written at once stays together.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    bounds: Bounds,
    at_work: Result<Open, Closed>,
    news: SyncSender<News>,
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
}

/// It cannot be written.
#[derive(Debug)]
struct Closed {
    try_again: Instant,
    /// Lines that are missing since.
    missing: u64,
    left: Left,
}

/// What is to be done before a file that could not be written can be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Left {
    Nothing,
    /// The last line that is there may have no end.
    LineEnd,
    /// It is as large as it may become.
    Rotation,
}

/// What there is to say of a log file.
#[derive(Debug)]
pub(crate) enum News {
    Failed(io::Error),
    /// So many lines are missing.
    Back(u64),
}

impl LogFile {
    /// Opens the file, or begins to try to. What there is to say of it, who gets the other end says to everybody.
    pub(crate) fn open(path: PathBuf, bounds: Bounds) -> (Self, Receiver<News>) {
        let (news, told) = sync_channel(NEWS_MAX);
        let mut file = Self {
            path,
            bounds,
            at_work: Err(Closed {
                try_again: Instant::now(),
                missing: 0,
                left: Left::Nothing,
            }),
            news,
        };
        file.at_work = file
            .begin()
            .map_err(|error| file.give_up(error, Left::Nothing));
        (file, told)
    }

    fn begin(&self) -> io::Result<Open> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::other("another process writes it"),
            TryLockError::Error(error) => error,
        })?;
        let bytes = file.metadata()?.len();
        Ok(Open { file, bytes })
    }

    /// Moves the file and its former selves on by one, and begins an empty one. Once they are moved, all that can be left is
    /// to begin: to move them again would lose the oldest.
    fn rotate(&self) -> Result<Open, (io::Error, Left)> {
        self.shift().map_err(|error| (error, Left::Rotation))?;
        self.begin().map_err(|error| (error, Left::Nothing))
    }

    fn shift(&self) -> io::Result<()> {
        for number in (0..self.bounds.keep).rev() {
            match rename(self.former(number), self.former(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.bounds.keep > 0 {
            return Ok(());
        }
        match remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Goes on after a line that may have no end.
    fn end_line(&self) -> io::Result<Open> {
        let mut open = self.begin()?;
        open.file.write_all(b"\n")?;
        open.bytes += 1;
        Ok(open)
    }

    fn former(&self, number: u32) -> PathBuf {
        if number == 0 {
            return self.path.clone();
        }
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }

    fn give_up(&self, error: io::Error, left: Left) -> Closed {
        // If nobody listens, or all of it was said already, it need not be said.
        let _unheard = self.news.try_send(News::Failed(error));
        Closed {
            try_again: Instant::now() + PAUSE,
            missing: 0,
            left,
        }
    }

    /// Writes a line; false if it is missing.
    fn add(&mut self, line: &[u8]) -> bool {
        if let Ok(open) = &self.at_work
            && open.bytes > 0
            && open.bytes + line.len() as u64 > self.bounds.bytes_max
        {
            self.at_work = self
                .rotate()
                .map_err(|(error, left)| self.give_up(error, left));
        }
        let Ok(open) = &mut self.at_work else {
            return false;
        };
        match open.file.write_all(line) {
            Ok(()) => {
                open.bytes += line.len() as u64;
                true
            }
            Err(error) => {
                self.at_work = Err(self.give_up(error, Left::LineEnd));
                false
            }
        }
    }

    /// Tries again if it is time to.
    fn recover(&mut self) {
        let Err(closed) = &self.at_work else { return };
        if Instant::now() < closed.try_again {
            return;
        }
        let missing = closed.missing;
        let begun = match closed.left {
            Left::Nothing => self.begin().map_err(|_| Left::Nothing),
            Left::Rotation => self.rotate().map_err(|(_, left)| left),
            Left::LineEnd => self.end_line().map_err(|_| Left::LineEnd),
        };
        match begun {
            Ok(open) => {
                self.at_work = Ok(open);
                let _unheard = self.news.try_send(News::Back(missing));
            }
            Err(left) => {
                if let Err(closed) = &mut self.at_work {
                    closed.try_again = Instant::now() + PAUSE;
                    closed.left = left;
                }
            }
        }
    }
}

impl Write for LogFile {
    /// Always succeeds: whoever logs has no use for errors of the log.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.recover();
        if !self.add(line)
            && let Err(closed) = &mut self.at_work
        {
            closed.missing += 1;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Logs what there is to say of a log file, for as long as there is one. Not where it happens: that is in the middle of
/// logging a line.
pub(crate) fn announce(path: &Path, told: &Receiver<News>) {
    let path = path.display();
    for news in told {
        match news {
            News::Failed(error) => error!(
                "`--log-file`: {path} cannot be written: {error}. Log lines are on stderr only until it can"
            ),
            News::Back(missing) => info!(missing, "`--log-file`: {path} is written again"),
        }
    }
}

/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(5);
/// What may be unsaid: more of the same says nothing new.
const NEWS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use std::fs::{self, create_dir, read_to_string};

    use tempfile::tempdir;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        bytes_max: 20,
        keep: 2,
    };

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_does_not_fit_begins_a_new_file_and_the_oldest_goes() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("log");
        let (mut file, told) = LogFile::open(path.clone(), BOUNDS);
        for number in 0..7 {
            file.write_all(format!("line {number}...\n").as_bytes())
                .unwrap();
            assert!(fs::metadata(&path).unwrap().len() <= BOUNDS.bytes_max);
        }
        assert_eq!(names(folder.path()), ["log", "log.1", "log.2"]);
        assert_eq!(read_to_string(&path).unwrap(), "line 6...\n");
        assert_eq!(
            read_to_string(folder.path().join("log.1")).unwrap(),
            "line 4...\nline 5...\n"
        );
        assert!(told.try_recv().is_err());
    }

    #[test]
    fn a_file_that_is_there_is_continued() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("log");
        for line in ["one\n", "two\n"] {
            let (mut file, _told) = LogFile::open(path.clone(), BOUNDS);
            file.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(read_to_string(&path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn nothing_is_kept_where_nothing_is_to_be_kept() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("log");
        let (mut file, _told) = LogFile::open(path.clone(), Bounds { keep: 0, ..BOUNDS });
        for line in ["a line of twenty b.\n", "next\n"] {
            file.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(names(folder.path()), ["log"]);
        assert_eq!(read_to_string(&path).unwrap(), "next\n");
    }

    #[test]
    fn a_line_that_is_too_long_is_written_all_the_same() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("log");
        let (mut file, _told) = LogFile::open(path.clone(), BOUNDS);
        let long = [b'x'; 100];
        file.write_all(&long).unwrap();
        assert_eq!(fs::read(&path).unwrap(), long);
    }

    #[test]
    fn what_cannot_be_written_is_said_once_and_tried_again() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("missing").join("log");
        let (mut file, told) = LogFile::open(path.clone(), BOUNDS);
        for _ in 0..3 {
            file.write_all(b"lost\n").unwrap();
        }
        assert!(matches!(told.try_recv().unwrap(), News::Failed(_)));
        assert!(told.try_recv().is_err());
        create_dir(folder.path().join("missing")).unwrap();
        file.at_work.as_mut().unwrap_err().try_again = Instant::now();
        file.write_all(b"kept\n").unwrap();
        assert!(matches!(told.try_recv().unwrap(), News::Back(3)));
        assert_eq!(read_to_string(&path).unwrap(), "kept\n");
    }

    #[test]
    fn a_disk_that_is_full_tears_no_later_line() {
        let (mut file, told) = LogFile::open("/dev/full".into(), BOUNDS);
        file.write_all(b"lost\n").unwrap();
        let News::Failed(error) = told.try_recv().unwrap() else {
            panic!("it cannot be written");
        };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        // Room again.
        let folder = tempdir().unwrap();
        file.path = folder.path().join("log");
        fs::write(&file.path, "half a li").unwrap();
        file.at_work.as_mut().unwrap_err().try_again = Instant::now();
        file.write_all(b"next\n").unwrap();
        assert_eq!(read_to_string(&file.path).unwrap(), "half a li\nnext\n");
    }

    #[test]
    fn files_that_were_moved_are_not_moved_again() {
        let folder = tempdir().unwrap();
        let [path, former] = ["log", "log.1"].map(|name| folder.path().join(name));
        let bounds = Bounds { keep: 1, ..BOUNDS };
        let (mut file, _told) = LogFile::open(path.clone(), bounds);
        file.write_all(b"a line of twenty b.\n").unwrap();
        // Two names of one file: the move succeeds and changes nothing (rename(2)), and the file is still locked.
        fs::hard_link(&path, &former).unwrap();
        file.write_all(b"lost\n").unwrap();
        assert_eq!(file.at_work.as_ref().unwrap_err().left, Left::Nothing);

        // The same while it is tried again: what was moved stays.
        remove_file(&former).unwrap();
        rename(&path, &former).unwrap();
        let (_taken, _told) = LogFile::open(path.clone(), bounds);
        for _ in 0..2 {
            file.at_work.as_mut().unwrap_err().try_again = Instant::now();
            file.write_all(b"lost\n").unwrap();
        }
        assert_eq!(read_to_string(&former).unwrap(), "a line of twenty b.\n");
    }

    #[test]
    fn a_file_has_one_writer() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("log");
        let (_first, told) = LogFile::open(path.clone(), BOUNDS);
        assert!(told.try_recv().is_err());
        let (_second, told) = LogFile::open(path, BOUNDS);
        let News::Failed(error) = told.try_recv().unwrap() else {
            panic!("it is taken");
        };
        assert!(error.to_string().contains("another process"), "{error}");
    }
}
