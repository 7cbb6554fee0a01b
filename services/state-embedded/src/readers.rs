//! Reading while another thread writes.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use flwr_state::{StoreError, StoreResult};
use rusqlite::Connection;

use crate::opening::open_reader;

/// Connections that read, as many as are used at the same time.
#[derive(Debug)]
pub(crate) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            idle: Mutex::default(),
        }
    }

    /// Reads something. Blocks.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> StoreResult<T> {
        let idle = self.idle().pop();
        let result = idle
            .map_or_else(|| open_reader(&self.path), Ok)
            .and_then(|reader| {
                let result = work(&reader)?;
                let mut idle = self.idle();
                if idle.len() < IDLE_MAX {
                    idle.push(reader);
                }
                Ok(result)
            });
        result.map_err(|error| StoreError::Io {
            action: "read",
            path: self.path.clone(),
            source: std::io::Error::other(error),
        })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connections that are kept.
const IDLE_MAX: usize = 8;
