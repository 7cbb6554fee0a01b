//! What is taken into use, and what is refused and left as it is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use flwr_state::conformance::at;
use flwr_state::*;
use flwr_state_embedded::{Config, EmbeddedState, OpenError, open};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::filled::{RUN, fill, new_run};
use crate::world::{config, copy, files};

async fn open_at(config: Config) -> Result<EmbeddedState, OpenError> {
    open(config, Wakeups::new(), at(0.0)).await
}

/// Expects a refusal that changes nothing.
async fn refusal(config: Config) -> OpenError {
    let folder = config.database.parent().unwrap().to_owned();
    let files = || {
        let mut files = files(&folder);
        files.retain(|path, _| !path.ends_with("state.db-lock") && !path.ends_with("state.db-shm"));
        files
    };
    let before = files();
    let error = open_at(config).await.unwrap_err();
    let after = files();
    assert!(before == after, "{error}: {:?}", after.keys());
    error
}

fn made_by(sql: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let database = Connection::open(folder.path().join("state.db")).unwrap();
    database.execute_batch(sql).unwrap();
    folder
}

#[tokio::test]
async fn databases_of_other_programs_are_refused() {
    let folder = made_by("CREATE TABLE customers (name TEXT); PRAGMA application_id = 77");
    let error = refusal(config(folder.path())).await;
    assert!(error.to_string().contains("another program"), "{error}");

    let folder = made_by("PRAGMA journal_mode = WAL; CREATE TABLE customers (name TEXT)");
    let error = refusal(config(folder.path())).await;
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");

    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("state.db"), "a letter to my mother").unwrap();
    let error = refusal(config(folder.path())).await;
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
}

#[tokio::test]
async fn a_database_of_flower_itself_is_refused_by_name() {
    let folder = made_by(
        "CREATE TABLE run (run_id INTEGER); CREATE TABLE message_ins (message_id TEXT);
         CREATE TABLE message_res (message_id TEXT)",
    );
    let error = refusal(config(folder.path())).await;
    assert!(error.to_string().contains("Flower's own"), "{error}");
}

/// Flower 1.22 begins with statements like this one (`server/superlink/linkstate/sqlite_linkstate.py`).
#[tokio::test]
async fn flower_itself_cannot_begin_with_a_database_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    drop(open_at(config(folder.path())).await.unwrap());
    let database = Connection::open(folder.path().join("state.db")).unwrap();
    let made = database.execute_batch("CREATE TABLE IF NOT EXISTS run(run_id INTEGER UNIQUE)");
    assert!(made.is_err());
}

#[tokio::test]
async fn a_database_of_a_later_release_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open_at(config(folder.path())).await.unwrap());
    let database = Connection::open(folder.path().join("state.db")).unwrap();
    database.pragma_update(None, "user_version", 1000).unwrap();
    database
        .pragma_update(None, "journal_mode", "DELETE")
        .unwrap();
    drop(database);
    let error = refusal(config(folder.path())).await;
    assert!(
        error.to_string().contains("form 1000 of a later release"),
        "{error}"
    );
}

#[tokio::test]
async fn a_database_is_used_once_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let state = open_at(config(folder.path())).await.unwrap();
    let other = Config {
        objects: folder.path().join("others"),
        ..config(folder.path())
    };
    let error = open_at(other).await.unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    drop(state);
    open_at(config(folder.path())).await.unwrap();
}

#[tokio::test]
async fn an_empty_file_is_a_new_database_and_private() {
    let folder = tempfile::tempdir().unwrap();
    for is_there in [false, true] {
        let folder = folder.path().join(is_there.to_string());
        fs::create_dir(&folder).unwrap();
        let path = folder.join("state.db");
        if is_there {
            fs::write(&path, "").unwrap();
        }
        let state = open_at(config(&folder)).await.unwrap();
        assert!(state.create_run(new_run(RUN), at(0.0)).await.unwrap());
        drop(state);
        let state = open_at(config(&folder)).await.unwrap();
        assert_eq!(state.runs(at(0.0)).await.unwrap().len(), 1);
        if !is_there {
            let mode = path.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}

#[tokio::test]
async fn objects_of_another_database_are_refused() {
    let filled = fill().await;
    let other = tempfile::tempdir().unwrap();
    drop(open_at(config(other.path())).await.unwrap());
    // One that is there, and one that is not.
    for database in [other.path().join("state.db"), other.path().join("new.db")] {
        let objects = filled.ended.path().join("objects");
        let before = (files(&objects), database.exists());
        let error = open_at(Config {
            objects: objects.clone(),
            database: database.clone(),
            ..config(other.path())
        });
        let error = error.await.unwrap_err();
        assert!(matches!(error, OpenError::OtherObjects { .. }), "{error}");
        assert!(before == (files(&objects), database.exists()), "{error}");
    }
}

#[tokio::test]
async fn a_database_that_was_emptied_is_not_taken_as_new() {
    let filled = fill().await;
    for (left, with_objects) in [
        (&filled.ended, true),
        (&filled.killed, true),
        (&filled.ended, false),
    ] {
        for is_there in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            copy(left.path(), folder.path());
            let path = folder.path().join("state.db");
            fs::write(&path, "").unwrap();
            if !with_objects {
                fs::remove_dir_all(folder.path().join("objects/objects")).unwrap();
            }
            if is_there {
                let error = refusal(config(folder.path())).await;
                assert!(error.to_string().contains("; "), "{error}");
            } else {
                fs::remove_file(&path).unwrap();
                let opened = open_at(config(folder.path())).await;
                assert_eq!(opened.is_err(), with_objects, "a database that was removed");
            }
        }
    }
}

/// What is there is needed, whatever it takes.
#[tokio::test]
async fn a_quota_that_became_smaller_removes_nothing() {
    let filled = fill().await;
    let folder = filled.killed.path();
    let objects = || objects_in(folder);
    let before = objects();
    assert!(before > 0);
    let config = Config {
        objects_quota_bytes: 1,
        ..config(folder)
    };
    let state = open_at(config).await.unwrap();
    assert_eq!(objects(), before);
    assert_eq!(
        state.replies(RUN, &[], at(0.0)).await.unwrap(),
        Replies::default()
    );
}

fn objects_in(folder: &Path) -> usize {
    files(&folder.join("objects/objects")).len()
}
