//! Folders that were in use before.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use flwr_api::ObjectId;
use flwr_state::StoreError;
use flwr_state::files::ObjectFiles;
use flwr_transport::Code;

use super::{PLENTY, assert_clean, assert_reads, names, object, open, path, quota, read, store};

fn set_used(folder: &Path, id: ObjectId, seconds: u64) {
    let file = File::options().write(true).open(path(folder, id)).unwrap();
    let used = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    file.set_modified(used).unwrap();
}

fn write(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

#[tokio::test]
async fn a_folder_belongs_to_one_at_a_time() {
    let (folder, files) = open(PLENTY);
    let refused = ObjectFiles::open(folder.path(), PLENTY).unwrap_err();
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused:?}");
    assert!(
        refused
            .to_string()
            .contains(folder.path().to_str().unwrap())
    );
    assert_eq!(refused.code(), Code::Unavailable);
    let pin = files.pin([]);
    drop(files);
    assert!(ObjectFiles::open(folder.path(), PLENTY).is_err());
    drop(pin);
    ObjectFiles::open(folder.path(), PLENTY).unwrap();
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let refused = ObjectFiles::open(file.path(), PLENTY).unwrap_err();
    assert!(refused.to_string().contains(file.path().to_str().unwrap()));
}

#[tokio::test]
async fn objects_and_their_order_of_use_are_there_again() {
    let folder = tempfile::tempdir().unwrap();
    let objects: Vec<_> = (0..4).map(|fill| object(fill, 100)).collect();
    let files = ObjectFiles::open(folder.path(), PLENTY).unwrap();
    for object in &objects {
        store(&files, object).await;
    }
    for (object, seconds) in objects.iter().zip([300, 100, 400, 200]) {
        set_used(folder.path(), object.0, seconds);
    }
    // Reading is a use, and the newest one.
    read(&files, objects[1].0).await;
    drop(files);

    let files = ObjectFiles::open(folder.path(), PLENTY).unwrap();
    assert_eq!((files.totals().objects, files.totals().bytes), (4, 400));
    for object in &objects {
        assert_reads(&files, object).await;
    }
    for (object, seconds) in objects.iter().zip([300, 500, 400, 200]) {
        set_used(folder.path(), object.0, seconds);
    }
    drop(files);

    // As many as fit, the last used.
    let files = ObjectFiles::open(folder.path(), quota(250)).unwrap();
    let here: Vec<_> = objects.iter().map(|(id, _)| files.has(*id)).collect();
    assert_eq!(here, [false, true, true, false]);
    assert_clean(folder.path(), &files);
}

#[tokio::test]
async fn leftovers_go_and_what_is_not_ours_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (good, bytes) = object(1, 100);
    let (other, _) = object(2, 100);
    assert_ne!(good.0[0], other.0[0]);
    let root = folder.path();
    let tmp = root.join("tmp");
    write(&path(root, good), &bytes);
    write(&path(root, other), b"");
    write(&tmp.join(format!("{good}.7")), b"half");
    write(&tmp.join(format!("{other}.18")), b"");
    let shard = path(root, good).parent().unwrap().to_path_buf();
    let foreign = [
        root.join("README"),
        tmp.join("notes.txt"),
        tmp.join(format!("{good}.txt")),
        root.join("objects/notes.txt"),
        shard.join("notes.txt"),
        shard.join(other.to_string()),
        shard.join(good.to_string().to_uppercase()),
        tmp.join(format!("{good}.8/file")),
    ];
    for path in &foreign {
        write(path, b"not ours");
    }
    let link = path(root, object(3, 100).0);
    std::fs::create_dir_all(link.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(root.join("README"), &link).unwrap();

    let files = ObjectFiles::open(root, PLENTY).unwrap();
    assert_eq!((files.totals().objects, files.totals().bytes), (1, 100));
    assert_reads(&files, &(good, bytes)).await;
    for path in &foreign {
        assert_eq!(std::fs::read(path).unwrap(), b"not ours", "{path:?}");
    }
    assert!(link.is_symlink());
    assert!(!path(root, other).exists(), "an empty object is none");
    assert_eq!(names(&tmp).len(), 3);
    // A put takes the place of what has its name.
    store(&files, &object(3, 100)).await;
    assert_reads(&files, &object(3, 100)).await;
    assert_eq!(std::fs::read(&foreign[0]).unwrap(), b"not ours");
}

#[tokio::test]
async fn other_users_cannot_look_into_the_folder() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, _files) = open(PLENTY);
    for name in ["objects", "tmp"] {
        let mode = folder
            .path()
            .join(name)
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
}
