//! What a SuperLink remembers, and for how long: until it ends, or in a database.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use flwr_state::{Clock, StoreError, Wakeups};
use flwr_state_embedded::{Config, EmbeddedState, OpenError, open};

use crate::{
    args::superlink::SuperLinkOptions,
    exit::{Exit, sentence},
};

/// Where a SuperLink's state is.
#[derive(Debug)]
pub(crate) enum Backend {
    /// In memory only.
    Memory,
    /// In a database, with the objects in the storage folder.
    Embedded(EmbeddedState),
}

/// Takes the database into use that the flags name, if they name one.
pub(super) async fn backend(
    options: &SuperLinkOptions,
    storage_dir: &Path,
    clock: &Arc<dyn Clock>,
) -> Result<Backend, Exit> {
    let Some(database) = options.database_file() else {
        return Ok(Backend::Memory);
    };
    let config = Config {
        database: PathBuf::from(database),
        objects: storage_dir.to_path_buf(),
        objects_quota_bytes: options.storage_quota.unwrap_or(u64::MAX),
        free_bytes_min: FREE_BYTES_MIN,
    };
    let opened = open(config, Wakeups::new(), clock.now()).await;
    opened.map(Backend::Embedded).map_err(|error| {
        let flag = match error {
            OpenError::OtherObjects { .. }
            | OpenError::Store(StoreError::InUse { .. } | StoreError::Full { .. }) => {
                "--storage-dir"
            }
            _ => "--database",
        };
        Exit::Problem(format!("`{flag}`: {}.", sentence(&error)))
    })
}

/// Bytes of the disk that are left to others, and to the database.
const FREE_BYTES_MIN: u64 = 1 << 30;
