//! Who has to go when room is needed, and what is said when nobody can.

use std::path::Path;

use bytes::Bytes;
use flwr_api::ObjectId;
use flwr_state::files::{Config, ObjectFiles, PutFile, Totals};
use flwr_state::{Limit, StoreError, StoreResult};
use flwr_transport::{Body, Code};
use futures_util::{StreamExt, stream};

use super::{PLENTY, assert_clean, names, object, open, path, pieces, put, quota, read, store};

fn here(files: &ObjectFiles, objects: &[(ObjectId, Bytes)]) -> Vec<usize> {
    (0..objects.len())
        .filter(|at| files.has(objects[*at].0))
        .collect()
}

fn full(put: StoreResult<PutFile>) -> Limit {
    match put {
        Err(error @ StoreError::Full { limit, .. }) => {
            assert_eq!(error.code(), Code::ResourceExhausted);
            limit
        }
        other => panic!("{other:?}"),
    }
}

/// What the objects' files take.
fn bytes_on_disk(folder: &Path) -> u64 {
    let objects = folder.join("objects");
    let shards = names(&objects).into_iter().map(|name| objects.join(name));
    shards
        .flat_map(|shard| names(&shard).into_iter().map(move |name| shard.join(name)))
        .map(|path| path.metadata().unwrap().len())
        .sum()
}

#[tokio::test]
async fn the_least_recently_used_goes_first() {
    let (folder, files) = open(quota(300));
    let objects: Vec<_> = (0..6).map(|fill| object(fill, 100)).collect();
    for object in &objects[..3] {
        store(&files, object).await;
    }
    read(&files, objects[0].0).await;
    store(&files, &objects[3]).await;
    assert_eq!(here(&files, &objects), [0, 2, 3]);
    assert_eq!(put(&files, &objects[2]).await.unwrap(), PutFile::Present);
    store(&files, &objects[4]).await;
    assert_eq!(here(&files, &objects), [2, 3, 4]);
    // Asking is no use.
    assert!(files.has(objects[3].0));
    store(&files, &objects[5]).await;
    assert_eq!(here(&files, &objects), [2, 4, 5]);
    assert_eq!(bytes_on_disk(folder.path()), 300);
}

#[tokio::test]
async fn pinned_objects_stay_until_the_last_pin_is_dropped() {
    let (_folder, files) = open(quota(200));
    let objects: Vec<_> = (0..4).map(|fill| object(fill, 100)).collect();
    // Also before they are here, and more than once.
    let first = files.pin([objects[0].0, objects[0].0]);
    let again = files.pin([objects[0].0]);
    assert_eq!(first.ids(), [objects[0].0; 2]);
    store(&files, &objects[0]).await;
    store(&files, &objects[1]).await;
    store(&files, &objects[2]).await;
    assert_eq!(here(&files, &objects), [0, 2]);
    assert_eq!(files.totals().pinned_bytes, 100);
    drop(first);
    assert!(!files.remove(objects[0].0).await.unwrap());
    files.clear().await.unwrap();
    assert_eq!(here(&files, &objects), [0]);
    drop(again);
    // What was pinned until now was used until now.
    store(&files, &objects[1]).await;
    store(&files, &objects[2]).await;
    assert_eq!(here(&files, &objects), [1, 2]);
    files.clear().await.unwrap();
    assert_eq!(files.totals(), Totals::default());
}

#[tokio::test]
async fn a_full_quota_is_refused_and_costs_nobody_his_place() {
    let (folder, files) = open(quota(300));
    let objects: Vec<_> = (0..3).map(|fill| object(fill, 100)).collect();
    for object in &objects[..2] {
        store(&files, object).await;
    }
    let pin = files.pin([objects[1].0]);
    let limit = full(put(&files, &object(9, 201)).await);
    let expected = Limit::Quota {
        wanted: 201,
        held: 100,
        quota: 300,
    };
    assert_eq!(limit, expected);
    assert!(limit.to_string().ends_with("raise the quota"));
    let endless = Body::from_stream(Some(u64::MAX), stream::pending());
    let first = stream::iter([Ok(Bytes::from(vec![0; 1 << 20]))]).chain(endless.into_stream());
    let endless = Body::from_stream(Some(u64::MAX), first);
    full(files.put(objects[2].0, endless).await);
    assert_eq!(here(&files, &objects), [0, 1]);
    assert_clean(folder.path(), &files);
    drop(pin);
    store(&files, &object(9, 200)).await;
    assert_eq!(here(&files, &objects), [1]);
}

#[tokio::test]
async fn a_body_being_read_keeps_its_room() {
    let large = object(1, 1 << 20);
    let (_folder, files) = open(quota(large.1.len() as u64 + 99));
    store(&files, &large).await;
    let mut body = files.get(large.0).await.unwrap().unwrap();
    full(put(&files, &object(2, 100)).await);
    while body.next().await.transpose().unwrap().is_some() {}
    store(&files, &object(2, 100)).await;
    assert!(!files.has(large.0));
}

#[tokio::test]
async fn the_part_of_the_disk_that_stays_free_stays_free() {
    let folder = tempfile::tempdir().unwrap();
    let old = object(1, 100);
    let files = ObjectFiles::open(folder.path(), PLENTY).unwrap();
    store(&files, &old).await;
    drop(files);
    let config = Config {
        free_bytes_min: u64::MAX,
        ..PLENTY
    };
    let files = ObjectFiles::open(folder.path(), config).unwrap();
    let limit = full(put(&files, &object(2, 101)).await);
    let expected = Limit::FreeSpace {
        wanted: 101,
        free: 0,
    };
    assert_eq!(limit, expected);
    assert!(files.has(old.0), "what does not help does not go");
    // The room of the old one is enough.
    store(&files, &object(2, 100)).await;
    assert!(!files.has(old.0));
    assert_clean(folder.path(), &files);
}

#[tokio::test]
async fn bodies_of_unknown_length_take_room_as_they_come() {
    let (folder, files) = open(quota(3 << 20));
    let old = object(1, 1 << 20);
    store(&files, &old).await;
    let grows = object(2, (2 << 20) + 500_000);
    let body = pieces(&grows.1, 64 << 10, false);
    assert_eq!(files.put(grows.0, body).await.unwrap(), PutFile::Stored);
    assert!(!files.has(old.0));
    let pin = files.pin([grows.0]);
    let too_large = object(3, 2 << 20);
    full(
        files
            .put(too_large.0, pieces(&too_large.1, 64 << 10, false))
            .await,
    );
    assert_eq!(files.totals().bytes, grows.1.len() as u64);
    assert_clean(folder.path(), &files);
    drop(pin);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_at_once_never_exceed_the_quota_and_never_mix_things_up() {
    const QUOTA: u64 = 10_000;
    let (folder, files) = open(quota(QUOTA));
    let objects: Vec<_> = (0..16).map(|fill| object(fill, 1500)).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8 {
        let (files, objects) = (files.clone(), objects.clone());
        tasks.spawn(async move {
            let mut done = 0;
            for number in 0..200 {
                let (id, bytes) = &objects[(7 * task + 5 * number) % objects.len()];
                let _pin = (number % 8 == 0).then(|| files.pin([*id]));
                match files.put(*id, pieces(bytes, 100, number % 2 == 0)).await {
                    Ok(_) => done += 1,
                    refused => drop(full(refused)),
                }
                let totals = files.totals();
                assert!(totals.bytes + totals.reserved_bytes <= QUOTA, "{totals:?}");
                let (id, bytes) = &objects[(3 * task + number) % objects.len()];
                if let Some(read) = read(&files, *id).await {
                    assert!(read == Ok(bytes.to_vec()), "{id} reads differently");
                }
                if number % 10 == 0 {
                    files.remove(*id).await.unwrap();
                }
            }
            done
        });
    }
    let done: usize = tasks.join_all().await.into_iter().sum();
    assert!(done > 800, "{done}");
    assert_clean(folder.path(), &files);
    assert_eq!(files.totals().pinned_bytes, 0);
    assert_eq!(files.totals().bytes, bytes_on_disk(folder.path()));
    for (id, _) in &objects {
        assert_eq!(files.has(*id), path(folder.path(), *id).exists());
    }
}

#[tokio::test]
async fn a_disk_that_fails_keeps_nothing_of_an_object() {
    let (folder, files) = open(PLENTY);
    let (id, bytes) = object(1, 100);
    // A name where the object's folder should be.
    let shard = path(folder.path(), id).parent().unwrap().to_path_buf();
    std::fs::write(&shard, b"").unwrap();
    let failed = put(&files, &(id, bytes.clone())).await.unwrap_err();
    assert!(matches!(failed, StoreError::Io { .. }), "{failed:?}");
    assert_eq!(failed.code(), Code::Unavailable);
    assert!(!files.has(id));
    assert_clean(folder.path(), &files);
    std::fs::remove_file(&shard).unwrap();
    store(&files, &(id, bytes)).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_disk_that_is_full_says_so_and_keeps_nothing_of_an_object() {
    let (folder, files) = open(PLENTY);
    let (id, bytes) = object(1, 3 << 20);
    // The first put's file.
    let file = folder.path().join("tmp").join(format!("{id}.0"));
    std::os::unix::fs::symlink("/dev/full", file).unwrap();
    let limit = full(files.put(id, pieces(&bytes, 64 << 10, true)).await);
    assert_eq!(limit, Limit::Disk);
    assert!(!files.has(id));
    assert_clean(folder.path(), &files);
    store(&files, &(id, bytes)).await;
}
