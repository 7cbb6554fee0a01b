//! Where app bundles are kept: one file each, named by hash.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use flwr_api::FabHash;

use crate::disk::{Temporary, blocking, create_folder, failed, sync_folder};
use crate::error::StoreResult;

/// A store of app bundles.
pub trait Fabs: Send + Sync + 'static {
    /// Stores a bundle under its hash; repeating it changes nothing.
    fn put_fab(
        &self,
        hash: FabHash,
        content: Bytes,
    ) -> impl Future<Output = StoreResult<()>> + Send;

    /// Fetches a bundle; nothing if it was never stored or its bytes no longer fit their hash.
    fn fab(&self, hash: FabHash) -> impl Future<Output = StoreResult<Option<Bytes>>> + Send;
}

/// Bundles in a folder, in the layout of Flower 1.22 (`supercore/ffs/disk_ffs.py`): `<hash>` holds
/// the bytes and `<hash>.META` an empty JSON object. Nothing is ever removed.
#[derive(Clone, Debug)]
pub struct DiskFabs {
    folder: PathBuf,
}

impl DiskFabs {
    /// Uses `folder`, which is created with the first bundle.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Fabs for DiskFabs {
    async fn put_fab(&self, hash: FabHash, content: Bytes) -> StoreResult<()> {
        let folder = self.folder.clone();
        blocking(move || {
            create_folder(&folder)?;
            let path = folder.join(hash.to_string());
            if std::fs::metadata(&path).is_ok_and(|data| data.len() == content.len() as u64) {
                return Ok(());
            }
            write_durably(&folder, &format!("{hash}.META"), b"{}")?;
            write_durably(&folder, &hash.to_string(), &content)
        })
        .await
    }

    async fn fab(&self, hash: FabHash) -> StoreResult<Option<Bytes>> {
        let path = self.folder.join(hash.to_string());
        blocking(move || match std::fs::read(&path) {
            Ok(content) if FabHash::of(&content) == hash => Ok(Some(content.into())),
            Ok(_) => {
                tracing::error!(path = %path.display(), "app bundle is damaged; submit the app again");
                Ok(None)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        })
        .await
    }
}

/// Writes a file so that it is there whole or not at all, also after a crash.
fn write_durably(folder: &Path, name: &str, content: &[u8]) -> StoreResult<()> {
    // Several writers may be at the same file, in this process and in others.
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let number = WRITES.fetch_add(1, Ordering::Relaxed);
    let temporary = folder.join(format!(".{name}.{}.{number}", std::process::id()));
    let mut file = Temporary::create(temporary)?;
    file.write(content)?;
    file.sync()?;
    file.keep_as(&folder.join(name))?;
    sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn one_bundle_can_be_stored_by_many_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let content = Bytes::from(vec![7; 1 << 20]);
        let hash = FabHash::of(&content);
        let mut writers = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let (fabs, content) = (DiskFabs::new(folder.path()), content.clone());
            writers.spawn(async move { fabs.put_fab(hash, content).await });
        }
        while let Some(written) = writers.join_next().await {
            written.unwrap().unwrap();
        }
        let files = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(files, 2, "nothing is left behind");
    }

    #[tokio::test]
    async fn bundles_survive_and_damage_is_not_served() {
        let folder = tempfile::tempdir().unwrap();
        let fabs = DiskFabs::new(folder.path().join("ffs"));
        let content = Bytes::from_static(b"bundle");
        let hash = FabHash::of(&content);
        assert_eq!(fabs.fab(hash).await.unwrap(), None);
        for _ in 0..2 {
            fabs.put_fab(hash, content.clone()).await.unwrap();
        }
        let again = DiskFabs::new(fabs.folder());
        assert_eq!(again.fab(hash).await.unwrap(), Some(content));
        let meta = std::fs::read(fabs.folder().join(format!("{hash}.META"))).unwrap();
        assert_eq!(meta, b"{}");
        std::fs::write(fabs.folder().join(hash.to_string()), b"dlunde").unwrap();
        assert_eq!(again.fab(hash).await.unwrap(), None);
    }
}
