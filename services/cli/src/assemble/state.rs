//! What a SuperLink remembers, and for how long: until it ends, or in a database.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use flwr_state::{Clock, MemoryState, StoreError, Wakeups, files};
use flwr_state_embedded::{Config, EmbeddedState, OpenError, open};

use crate::{
    args::superlink::SuperLinkOptions,
    exit::{Exit, sentence},
    memory::Memory,
};

/// Where a SuperLink's state is.
#[derive(Debug)]
pub(crate) enum Backend {
    /// In memory, with objects beyond a bound in the storage folder.
    Memory(MemoryState),
    /// In a database, with the objects in the storage folder.
    Embedded(EmbeddedState),
}

/// Takes the database into use that the flags name, if they name one.
pub(super) async fn backend(
    options: &SuperLinkOptions,
    storage_dir: &Path,
    clock: &Arc<dyn Clock>,
    memory: Memory,
) -> Result<Backend, Exit> {
    let Some(database) = options.database_file() else {
        return in_memory(options, storage_dir, memory).await;
    };
    let config = Config {
        database: PathBuf::from(database),
        objects: storage_dir.to_path_buf(),
        objects_quota_bytes: options.storage_quota.unwrap_or(u64::MAX),
        free_bytes_min: options.storage_free,
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

/// Takes a folder into use for what has no room in memory.
async fn in_memory(
    options: &SuperLinkOptions,
    storage_dir: &Path,
    memory: Memory,
) -> Result<Backend, Exit> {
    let config = files::Config {
        quota_bytes: options.storage_quota.unwrap_or(u64::MAX),
        free_bytes_min: options.storage_free,
        durable: false,
    };
    let (bounds, folder) = (memory.of_objects(), storage_dir.to_path_buf());
    let opened = tokio::task::spawn_blocking(move || {
        flwr_state::Memory::overflowing(bounds, &folder, config)
    });
    let storage = opened
        .await
        .unwrap_or(Err(StoreError::Stopped))
        .map_err(|error| Exit::Problem(format!("`--storage-dir`: {}.", sentence(&error))))?;
    Ok(Backend::Memory(MemoryState::empty(storage)))
}
