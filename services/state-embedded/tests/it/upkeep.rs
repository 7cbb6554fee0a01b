//! Checks, backups and the rest of what operators do with a state.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use flwr_api::{Phase, RunId, RunStatus, SubStatus};
use flwr_state::conformance::at;
use flwr_state::*;
use flwr_state_embedded::upkeep::{Place, Report, UpkeepError, backup, check, compact, restore};
use flwr_state_embedded::{Config, OpenError, open};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::filled::{Facts, NODES, RUN, fill, message_of, new_run, open_in};
use crate::world::{config, copy, files};

fn place(folder: &Path) -> Place {
    let Config {
        database, objects, ..
    } = config(folder);
    Place { database, objects }
}

fn whole(place: &Place) -> Report {
    let report = check(place).unwrap();
    assert!(report.findings.is_empty(), "{report:?}");
    report
}

fn large_objects(folder: &Path) -> Vec<PathBuf> {
    files(&folder.join("objects/objects")).into_keys().collect()
}

#[tokio::test]
async fn a_whole_state_is_checked_at_rest_and_in_use() {
    let filled = fill().await;
    for left in [&filled.ended, &filled.killed] {
        let before = files(left.path());
        let report = whole(&place(left.path()));
        assert_eq!((report.totals.runs, report.totals.nodes), (3, 2));
        assert_eq!(report.totals.bundles, 1);
        assert!(report.totals.messages >= 7 && report.totals.objects > 10);
        assert!(report.totals.object_bytes > 100_000 && report.totals.log_entries >= 45);
        for (path, bytes) in before {
            let is_index = path.ends_with("state.db-shm");
            assert!(is_index || fs::read(&path).unwrap() == bytes, "{path:?}");
        }
        let state = open_in(left).await;
        assert_eq!(whole(&place(left.path())).totals, report.totals);
        drop(state);
    }
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[1] ^= 1;
    fs::write(path, bytes).unwrap();
}

type Damage<'a> = Box<dyn Fn(&Path) + 'a>;

#[tokio::test]
async fn all_damage_is_found() {
    let filled = fill().await;
    let fab = flwr_api::FabHash::of(b"fab").to_string();
    let sql = |sql: &'static str| {
        move |folder: &Path| {
            let database = Connection::open(folder.join("state.db")).unwrap();
            database.execute_batch(sql).unwrap();
        }
    };
    let damages: [(&str, Damage<'_>); 10] = [
        (
            "is not as it was written (",
            Box::new(|folder| flip(&large_objects(folder)[0])),
        ),
        (
            "is missing (",
            Box::new(|folder| fs::remove_file(&large_objects(folder)[0]).unwrap()),
        ),
        (
            &fab,
            Box::new(|folder| flip(&folder.join("objects").join(&fab))),
        ),
        (
            &fab,
            Box::new(|folder| fs::remove_file(folder.join("objects").join(&fab)).unwrap()),
        ),
        (
            "of another database",
            Box::new(|folder| flip(&folder.join("objects/database-id"))),
        ),
        (
            "1 rows of its table nodes",
            Box::new(sql("UPDATE nodes SET used = 1 - used WHERE id = 5")),
        ),
        (
            "1 entries of logs",
            Box::new(sql(
                "UPDATE logs SET text = 'x' WHERE text LIKE 'entry 3 of 11%'",
            )),
        ),
        (
            "is not as it was written",
            Box::new(sql(
                "UPDATE contents SET content = x'00' WHERE content IS NOT NULL",
            )),
        ),
        (
            "of runs that are not there",
            Box::new(sql("DELETE FROM runs WHERE id = 12")),
        ),
        (
            "do not fit together",
            Box::new(sql("DELETE FROM objects WHERE children = x''")),
        ),
    ];
    for (expected, damage) in damages {
        let folder = tempfile::tempdir().unwrap();
        copy(filled.ended.path(), folder.path());
        damage(folder.path());
        let report = check(&place(folder.path())).unwrap();
        let found = report.findings.iter().any(|found| found.contains(expected));
        assert!(found, "{expected}: {:?}", report.findings);
        // Nothing of the kind gets into a backup.
        let target = tempfile::tempdir().unwrap();
        let refused = backup(&place(folder.path()), target.path());
        assert!(
            refused.is_err() || expected.contains("another database"),
            "{expected}"
        );
        let left = files(target.path()).len();
        assert_eq!(left == 0, refused.is_err(), "{expected}");
    }
    let nothing = check(&place(&filled.ended.path().join("nothing")));
    assert!(matches!(nothing, Err(OpenError::Missing { .. })));
}

#[tokio::test]
async fn compacting_gives_back_what_is_not_needed() {
    let filled = fill().await;
    let folder = filled.killed.path();
    let state = open_in(&filled.killed).await;
    let refused = compact(&place(folder)).unwrap_err();
    assert!(matches!(refused, UpkeepError::InUse { .. }), "{refused}");
    drop(state);

    let left = &large_objects(folder)[0];
    let unknown = "ab".repeat(32);
    let shard = folder.join("objects/objects/ab");
    fs::create_dir_all(&shard).unwrap();
    fs::copy(left, shard.join(&unknown)).unwrap();
    let before = whole(&place(folder)).totals;
    let done = compact(&place(folder)).unwrap();
    assert_eq!(done.removed, 1);
    assert!(done.after < done.before, "{done:?}");
    assert!(!shard.join(&unknown).exists());
    assert_eq!(whole(&place(folder)).totals, before);
    let state = open_in(&filled.killed).await;
    assert_eq!(state.runs(at(1.0)).await.unwrap().len(), 3);

    let missing = compact(&place(&folder.join("nothing"))).unwrap_err();
    assert!(matches!(
        missing,
        UpkeepError::Open(OpenError::Missing { .. })
    ));
}

/// What is lost is for the next start to answer for, and nobody else's business.
#[tokio::test]
async fn compacting_does_not_hide_that_objects_are_lost() {
    let filled = fill().await;
    let folder = filled.ended.path();
    for object in large_objects(folder) {
        fs::remove_file(object).unwrap();
    }
    compact(&place(folder)).unwrap();
    for _ in 0..2 {
        let state = open_in(&filled.ended).await;
        let messages = &filled.facts.messages;
        let ids = messages.iter().map(|message| message.metadata.id.clone());
        let ids: Vec<_> = ids.collect();
        let replies = state.replies(RUN, &ids, at(1.0)).await.unwrap();
        let errors = replies.ready.iter().map(|ready| &ready.message.payload);
        let errors = errors.filter(|payload| format!("{payload:?}").contains("was lost"));
        let errors: Vec<_> = errors.collect();
        assert_eq!(errors.len(), NODES.len(), "{errors:?}");
    }
}

#[tokio::test]
async fn what_was_backed_up_in_use_can_be_restored_beside_it() {
    let filled = fill().await;
    let state = open_in(&filled.killed).await;
    let target = filled.ended.path().join("backups/first");
    let report = backup(&place(filled.killed.path()), &target).unwrap();
    assert_eq!(report, whole(&Place::of_backup(&target)));
    let before = files(&target);
    assert!(!before.keys().any(|path| path.ends_with("state.db-wal")));

    let again = backup(&place(filled.killed.path()), &target).unwrap_err();
    assert!(matches!(again, UpkeepError::NotEmpty { .. }), "{again}");

    let folder = tempfile::tempdir().unwrap();
    let restored = restore(&target, &place(folder.path())).unwrap();
    assert_eq!(restored, report);
    assert!(files(&target) == before, "the backup stays as it is");
    let again = restore(&target, &place(folder.path())).unwrap_err();
    assert!(matches!(again, UpkeepError::NotEmpty { .. }), "{again}");

    let other = open_in(&folder).await;
    assert_eq!(
        other.runs(at(1.0)).await.unwrap(),
        state.runs(at(1.0)).await.unwrap()
    );
    for (id, bytes) in &filled.facts.objects {
        let of = [
            state.object(*id).await.unwrap(),
            other.object(*id).await.unwrap(),
        ];
        if let [Object::Available(one), Object::Available(other)] = of {
            assert!(one.collect(u64::MAX).await.unwrap() == bytes);
            assert!(other.collect(u64::MAX).await.unwrap() == bytes);
        } else {
            assert!(
                !of.iter()
                    .any(|object| matches!(object, Object::Available(_))),
                "{of:?}"
            );
        }
    }
    // Neither is taken for the other.
    drop((state, other));
    let mixed = Config {
        objects: config(filled.killed.path()).objects,
        ..config(folder.path())
    };
    let mixed = open(mixed, Wakeups::new(), at(1.0)).await.unwrap_err();
    assert!(matches!(mixed, OpenError::OtherObjects { .. }), "{mixed}");
}

#[tokio::test]
async fn a_backup_that_is_damaged_or_half_made_is_not_restored() {
    let filled = fill().await;
    let target = tempfile::tempdir().unwrap();
    backup(&place(filled.ended.path()), target.path()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let object = &files(&target.path().join("storage/objects"));
    let (object, bytes) = object.first_key_value().unwrap();
    // It may share its bytes with the state.
    fs::remove_file(object).unwrap();
    fs::write(object, &bytes[1..]).unwrap();
    let refused = restore(target.path(), &place(folder.path())).unwrap_err();
    assert!(
        matches!(refused, UpkeepError::Unsound { findings: 1, .. }),
        "{refused}"
    );
    fs::write(object, bytes).unwrap();
    fs::rename(
        target.path().join("state.db"),
        target.path().join("state.part"),
    )
    .unwrap();
    let refused = restore(target.path(), &place(folder.path())).unwrap_err();
    assert!(
        matches!(refused, UpkeepError::Open(OpenError::Missing { .. })),
        "{refused}"
    );
    assert!(files(folder.path()).is_empty());
}

/// Objects come and go all the time, and every copy has those that it speaks of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backups_and_checks_hold_while_objects_come_and_go() {
    let source = tempfile::tempdir().unwrap();
    copy(fill().await.ended.path(), source.path());
    let state = open_in(&source).await;
    let rounds = Arc::new(AtomicUsize::new(0));
    let churn = tokio::spawn({
        let (state, rounds) = (state.clone(), rounds.clone());
        async move {
            for round in 100.. {
                let run = RunId(round);
                state.create_run(new_run(run), at(1.0)).await.unwrap();
                let mut facts = Facts::default();
                for part in 0..4 {
                    let body = format!("{round} {part} ").repeat(20_000);
                    let root = message_of(&format!("{round} {part}"), &body);
                    facts.instruct(&state, run, NODES[0], &root).await;
                }
                let over = RunStatus::finished(SubStatus::Stopped, "");
                state.move_run(run, over, at(1.0)).await.unwrap();
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let mut copied = HashSet::new();
    // The same disk, and if there is one, another.
    let others = [None, Some("/dev/shm")].into_iter().cycle();
    for other in others.take_while(|_| rounds.load(Ordering::Relaxed) < 100) {
        let target = match other.filter(|other| Path::new(other).is_dir()) {
            Some(other) => TempDir::new_in(other).unwrap(),
            None => tempfile::tempdir().unwrap(),
        };
        let place = place(source.path());
        let done = spawn_blocking(move || {
            let report = backup(&place, target.path()).unwrap();
            assert_eq!(whole(&Place::of_backup(target.path())), report);
            let names = files(&target.path().join("storage/objects"));
            let named = names.len();
            let in_files = Connection::open(target.path().join("state.db")).unwrap();
            let spoken_of: usize = in_files
                .query_row(
                    "SELECT count(*) FROM contents WHERE content IS NULL",
                    [],
                    |row| row.get(0),
                )
                .unwrap();
            assert_eq!(named, spoken_of, "nothing but what is needed");
            whole(&place);
            let names = names
                .into_keys()
                .map(|path| path.file_name().map(ToOwned::to_owned));
            names.collect::<Vec<_>>()
        });
        copied.extend(done.await.unwrap());
    }
    churn.abort();
    let _ = churn.await;
    assert!(
        copied.len() > 10,
        "of those that come and go as well: {copied:?}"
    );
    let left = files(&source.path().join("objects/tmp"));
    assert!(
        left.keys()
            .all(|path| !path.to_string_lossy().contains(".184")),
        "{left:?}"
    );
    assert_eq!(
        state.run(RUN, at(1.0)).await.unwrap().unwrap().status.phase,
        Phase::Running
    );
}
