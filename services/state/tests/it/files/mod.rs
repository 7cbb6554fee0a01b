//! Objects as files: real folders, and everything that can happen to them.

mod damage;
mod model;
mod opening;
mod room;
mod storing;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use flwr_api::ObjectId;
use flwr_state::StoreResult;
use flwr_state::files::{Config, ObjectFiles, PutFile};
use flwr_transport::{Body, BodyError};
use futures_util::stream;
use tempfile::TempDir;

/// Room for everything that a test stores.
const PLENTY: Config = Config {
    quota_bytes: 1 << 30,
    free_bytes_min: 0,
    durable: false,
};

/// Larger than one read and one write.
const LARGE: usize = (2 << 20) + 12_345;

fn quota(quota_bytes: u64) -> Config {
    Config {
        quota_bytes,
        ..PLENTY
    }
}

fn open(config: Config) -> (TempDir, ObjectFiles) {
    let folder = tempfile::tempdir().unwrap();
    let files = ObjectFiles::open(folder.path(), config).unwrap();
    (folder, files)
}

/// A chunk of `bytes` in all, different for each `fill`.
fn object(fill: u8, bytes: usize) -> (ObjectId, Bytes) {
    let head = |body: usize| format!("ArrayChunk  {body}\0").into_bytes();
    let mut body = bytes;
    while head(body).len() + body > bytes {
        body -= 1;
    }
    let mut object = head(body);
    assert_eq!(object.len() + body, bytes, "no chunk has this length");
    object.resize(bytes, fill);
    (ObjectId::of(&object), object.into())
}

/// A body that comes in pieces, whose length is announced or not.
fn pieces(bytes: &Bytes, piece_bytes: usize, announced: bool) -> Body {
    let len = announced.then_some(bytes.len() as u64);
    let pieces: Vec<_> = bytes
        .chunks(piece_bytes)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    Body::from_stream(len, stream::iter(pieces))
}

/// A body that breaks off after `bytes`.
fn interrupted(bytes: &Bytes, len: Option<u64>) -> Body {
    let pieces = [Ok(bytes.clone()), Err(BodyError::Interrupted)];
    Body::from_stream(len, stream::iter(pieces))
}

async fn put(files: &ObjectFiles, (id, bytes): &(ObjectId, Bytes)) -> StoreResult<PutFile> {
    files.put(*id, Body::from_bytes(bytes.clone())).await
}

async fn store(files: &ObjectFiles, object: &(ObjectId, Bytes)) {
    assert_eq!(put(files, object).await.unwrap(), PutFile::Stored);
}

/// What comes of reading an object: its bytes, or as many as came before it broke off.
async fn read(files: &ObjectFiles, id: ObjectId) -> Option<Result<Vec<u8>, usize>> {
    let mut body = files.get(id).await.unwrap()?;
    let mut bytes = Vec::new();
    while let Some(piece) = body.next().await {
        match piece {
            Ok(piece) => bytes.extend_from_slice(&piece),
            Err(error) => {
                assert_eq!(error, BodyError::Interrupted);
                assert_eq!(body.next().await, None);
                return Some(Err(bytes.len()));
            }
        }
    }
    Some(Ok(bytes))
}

async fn assert_reads(files: &ObjectFiles, (id, bytes): &(ObjectId, Bytes)) {
    let read = read(files, *id).await;
    assert!(read == Some(Ok(bytes.to_vec())), "{id} reads differently");
}

/// Where an object's file is.
fn path(folder: &Path, id: ObjectId) -> PathBuf {
    let id = id.to_string();
    folder.join("objects").join(&id[..2]).join(&id)
}

/// The names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
    entries
        .map(|entry| name(entry).into_string().unwrap())
        .collect()
}

/// Nothing is left of puts that did not succeed.
fn assert_clean(folder: &Path, files: &ObjectFiles) {
    assert_eq!(names(&folder.join("tmp")), [""; 0]);
    assert_eq!(files.totals().reserved_bytes, 0);
}

async fn wait_until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .expect("it happens in time");
}
