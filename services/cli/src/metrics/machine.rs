//! What a process is and stands on: its version, CPU and memory, the disks of its folders.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use metrics::gauge;
use metrics_process::Collector;
use tracing::warn;

use super::names::{BUILD, DATABASE, DISK_FREE, DISK_SIZE};

/// What is looked at when somebody asks. Reads files, so it blocks.
#[derive(Debug)]
pub(crate) struct Machine {
    /// What this process is, such as `superlink`.
    role: &'static str,
    /// Folders, by what is in them.
    folders: Vec<(&'static str, PathBuf)>,
    database: Option<PathBuf>,
    process: Collector,
    /// What was wrong when somebody last asked, by what it was wrong with.
    problems: Mutex<HashMap<&'static str, String>>,
}

impl Machine {
    /// A process of this role.
    pub(crate) fn new(role: &'static str) -> Self {
        Self {
            role,
            folders: Vec::new(),
            database: None,
            process: Collector::default(),
            problems: Mutex::default(),
        }
    }

    /// With a folder that is written to.
    #[must_use]
    pub(crate) fn folder(mut self, content: &'static str, folder: PathBuf) -> Self {
        self.folders.push((content, folder));
        self
    }

    /// With a database.
    #[must_use]
    pub(crate) fn database(self, file: PathBuf) -> Self {
        let folder = file.parent().map(Path::to_path_buf).unwrap_or_default();
        Self {
            database: Some(file),
            ..self.folder("database", folder)
        }
    }

    /// Says what the figures of the process mean. A recorder has to be installed.
    pub(super) fn describe(&self) {
        self.process.describe();
        gauge!(BUILD, "role" => self.role, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    }

    /// Brings the gauges up to date.
    pub(super) fn survey(&self) {
        self.process.collect();
        for (content, folder) in &self.folders {
            let measured = measure(folder).map(|(free, size)| {
                gauge!(DISK_FREE, "folder" => *content).set(free);
                gauge!(DISK_SIZE, "folder" => *content).set(size);
            });
            self.note(content, measured.map_err(|error| error.to_string()));
        }
        if let Some(database) = &self.database {
            gauge!(DATABASE).set(database_bytes(database));
        }
    }

    /// Logs what is wrong, once.
    fn note(&self, what: &'static str, outcome: Result<(), String>) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(()) => drop(problems.remove(what)),
            Err(why) if problems.get(what) == Some(&why) => {}
            Err(why) => {
                warn!("Metrics of `{what}` are not known: {why}");
                problems.insert(what, why);
            }
        }
    }
}

/// Free bytes and bytes in all of the disk where a folder is, or will be.
fn measure(folder: &Path) -> Result<(f64, f64), rustix::io::Errno> {
    let existing = folder.ancestors().find(|folder| folder.exists());
    // A relative path ends in nothing.
    let existing = existing.filter(|folder| !folder.as_os_str().is_empty());
    let disk = rustix::fs::statvfs(existing.unwrap_or_else(|| Path::new(".")))?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize) as f64;
    Ok((bytes(disk.f_bavail), bytes(disk.f_blocks)))
}

/// The size of a database and of its write-ahead log. What is not there has none.
fn database_bytes(database: &Path) -> f64 {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    let files = [database, Path::new(&log)];
    let bytes = files.map(|file| fs::metadata(file).map_or(0, |about| about.len()));
    bytes.iter().sum::<u64>() as f64
}
