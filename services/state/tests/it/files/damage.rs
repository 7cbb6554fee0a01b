//! Files that are not as they were written.

use std::os::unix::fs::FileExt;
use std::path::Path;

use flwr_api::ObjectId;

use super::{LARGE, PLENTY, assert_reads, object, open, path, read, store};

type Damage = fn(&Path, u64);

const DAMAGES: [(&str, Damage); 5] = [
    ("first byte", |path, _| change(path, 0)),
    ("last byte", |path, bytes| change(path, bytes - 1)),
    ("cut short", |path, bytes| resize(path, bytes - 1)),
    ("longer", |path, bytes| resize(path, bytes + 1)),
    ("gone", |path, _| std::fs::remove_file(path).unwrap()),
];

pub(super) fn change(path: &Path, at: u64) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(b"\xff", at).unwrap();
}

fn resize(path: &Path, bytes: u64) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_len(bytes).unwrap();
}

fn damage(folder: &Path, id: ObjectId, bytes: usize, damage: Damage) {
    damage(&path(folder, id), bytes as u64);
}

#[tokio::test]
async fn a_damaged_object_is_never_read_whole_and_can_be_put_again() {
    let (folder, files) = open(PLENTY);
    for (what, how) in DAMAGES {
        for bytes in [100, LARGE] {
            let object = object(1, bytes);
            store(&files, &object).await;
            let pin = files.pin([object.0]);
            damage(folder.path(), object.0, bytes, how);
            match read(&files, object.0).await {
                None => {}
                Some(Err(came)) => assert!(came < bytes, "{what}"),
                Some(Ok(_)) => panic!("{what} is not noticed"),
            }
            assert!(!files.has(object.0), "{what}");
            assert!(!path(folder.path(), object.0).exists(), "{what}");
            assert_eq!(files.totals().bytes, 0);
            store(&files, &object).await;
            assert_eq!(files.totals().pinned_bytes, bytes as u64);
            assert_reads(&files, &object).await;
            drop(pin);
            assert!(files.remove(object.0).await.unwrap());
        }
    }
}

#[tokio::test]
async fn a_file_that_is_cut_short_while_it_is_read_ends_the_body() {
    let (folder, files) = open(PLENTY);
    let object = object(1, LARGE);
    store(&files, &object).await;
    let mut body = files.get(object.0).await.unwrap().unwrap();
    assert!(body.next().await.unwrap().is_ok());
    damage(folder.path(), object.0, LARGE / 2, resize);
    let mut broken = false;
    while let Some(piece) = body.next().await {
        broken = piece.is_err();
    }
    assert!(broken && !files.has(object.0));
}

#[tokio::test]
async fn a_late_reader_of_damage_leaves_the_next_object_alone() {
    let (folder, files) = open(PLENTY);
    let object = object(1, LARGE);
    store(&files, &object).await;
    damage(folder.path(), object.0, LARGE, |path, bytes| {
        change(path, bytes - 1);
    });
    let mut bodies = Vec::new();
    for _ in 0..2 {
        bodies.push(files.get(object.0).await.unwrap().unwrap());
    }
    let mut late = bodies.pop().unwrap();
    assert!(bodies.remove(0).collect(LARGE as u64).await.is_err());
    store(&files, &object).await;
    while late.next().await.is_some_and(|piece| piece.is_ok()) {}
    assert_reads(&files, &object).await;
}
