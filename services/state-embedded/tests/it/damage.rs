//! Files that are torn or damaged: what is read is right, or it is refused, and nobody waits for what
//! is gone.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flwr_api::{ObjectTree, Payload, RunId, UnixTime};
use flwr_state::conformance::at;
use flwr_state::*;
use flwr_state_embedded::{EmbeddedState, OpenError, open};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::filled::{Facts, NODES, OVER, RUN, fill, new_run};
use crate::world::{config, copy, files};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_is_right_whatever_happens_to_the_files() {
    let filled = fill().await;
    let facts = Arc::new(filled.facts);
    let (mut opened, mut refused) = (0, 0);
    for seed in SEED..SEED + ROUNDS {
        let mut dice = Dice(seed);
        let left = [&filled.ended, &filled.killed][dice.below(2)];
        let folder = tempfile::tempdir().unwrap();
        copy(left.path(), folder.path());
        let what = damage(folder.path(), &mut dice);
        let context = format!("seed {seed}, {what:?}");
        let look = tokio::spawn(look(folder, what.is_object, facts.clone(), context.clone()));
        let looked = tokio::time::timeout(Duration::from_secs(60), look).await;
        let looked = looked.unwrap_or_else(|_| panic!("{context}: it hangs"));
        if looked.unwrap_or_else(|error| panic!("{context}: {error}")) {
            opened += 1;
        } else {
            refused += 1;
        }
    }
    assert!(
        opened > ROUNDS / 4 && refused > ROUNDS / 10,
        "{opened} {refused}"
    );
}

#[tokio::test]
async fn damaged_entries_of_a_log_are_left_out() {
    let filled = fill().await;
    let folder = filled.ended.path();
    let database = Connection::open(folder.join("state.db")).unwrap();
    // No text at all in the middle, and a last entry from the far future.
    database
        .execute_batch(
            "UPDATE logs SET text = CAST(x'ff00ff' AS TEXT) WHERE text = 'entry 3 of 11' || char(10);
             UPDATE logs SET time = 1e300 WHERE text = 'entry 4 of 11' || char(10)",
        )
        .unwrap();
    drop(database);
    let state = open(config(folder), Wakeups::new(), at(1.0)).await.unwrap();
    state
        .append_log(OVER, "new\n".into(), at(2.0))
        .await
        .unwrap();
    let log = state.log_after(OVER, UnixTime::default()).await.unwrap();
    let expected: String = filled.facts.logs[&OVER][..3].concat() + "new\n";
    assert_eq!(log.text, expected);
    assert_eq!(log.latest, Some(at(2.0)));
}

#[tokio::test]
async fn rows_that_do_not_fit_together_are_refused_and_no_file_is_removed() {
    let filled = fill().await;
    let folder = filled.ended.path();
    let database = Connection::open(folder.join("state.db")).unwrap();
    let removed = database.execute("DELETE FROM objects WHERE children = x''", []);
    assert!(removed.unwrap() > 0);
    drop(database);
    let before = files(&folder.join("objects"));
    let error = open(config(folder), Wakeups::new(), at(1.0))
        .await
        .unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert!(files(&folder.join("objects")) == before);
}

/// Whether it opens.
async fn look(folder: TempDir, is_object: bool, facts: Arc<Facts>, context: String) -> bool {
    let before = files(folder.path());
    let state = match open(config(folder.path()), Wakeups::new(), at(1.0)).await {
        Ok(state) => state,
        Err(error) => {
            assert!(!is_object, "{context}: {error}");
            check_refusal(&error, &context);
            let after = files(folder.path());
            let index = folder.path().join("state.db-shm");
            let changed: Vec<_> = before
                .iter()
                // SQLite makes its index of the write-ahead log anew.
                .filter(|(path, bytes)| after.get(*path) != Some(bytes) && **path != index)
                .map(|(path, bytes)| (path, bytes.len(), after.get(path).map(Vec::len)))
                .collect();
            assert!(
                changed.is_empty(),
                "{context}: {error}: {changed:?} changed"
            );
            return false;
        }
    };
    check_rows(&state, &facts, &context).await;
    check_objects(&state, &facts, &context).await;
    // By now everything that is lost was noticed.
    check_messages(&state, &facts, is_object, &context).await;
    check_logs(&state, &facts, &context).await;
    let created = state.create_run(new_run(RunId(99)), at(1.0)).await;
    assert!(created.unwrap(), "{context}");
    state.checkpoint(at(1.0)).await.unwrap();
    drop(state);
    let again = open(config(folder.path()), Wakeups::new(), at(1.0)).await;
    assert!(again.is_ok(), "{context}: {:?}", again.err());
    true
}

fn check_refusal(error: &OpenError, context: &str) {
    let says_what_to_do = error.to_string().contains("; ");
    assert!(says_what_to_do, "{context}: {error:?}");
}

async fn check_rows(state: &EmbeddedState, facts: &Facts, context: &str) {
    for run in state.runs(at(1.0)).await.unwrap() {
        assert!(facts.runs.contains(&run), "{context}: {run:?}");
        let options = state.federation_options(run.id).await.unwrap();
        assert_eq!(options.as_deref(), Some(&b"options"[..]), "{context}");
    }
    for node in state.nodes_online(at(1.0)).await.unwrap() {
        assert!(facts.nodes.contains(&node), "{context}: {node}");
    }
}

async fn check_objects(state: &EmbeddedState, facts: &Facts, context: &str) {
    for (id, bytes) in &facts.objects {
        for _ in 0..2 {
            if let Object::Available(body) = state.object(*id).await.unwrap()
                && let Ok(read) = body.collect(u64::MAX).await
            {
                assert!(read == bytes, "{context}: other bytes of {id}");
            }
        }
    }
}

async fn check_messages(state: &EmbeddedState, facts: &Facts, is_object: bool, context: &str) {
    let ids = facts
        .messages
        .iter()
        .map(|message| message.metadata.id.clone());
    let ids: Vec<_> = ids.collect();
    let replies = state.replies(RUN, &ids, at(1.0)).await.unwrap();
    let mut answered = Vec::new();
    for ready in replies.ready {
        answered.push(ready.message.metadata.reply_to.clone());
        if let Payload::Content(_) = &ready.message.payload {
            assert!(facts.messages.contains(&ready.message), "{context}");
            check_tree(state, &ready.tree, context).await;
        }
    }
    if is_object {
        for (id, objects) in &facts.waiting {
            for object in objects {
                let is_there = matches!(state.object(*object).await, Ok(Object::Available(_)));
                let is_answered = answered.contains(id);
                assert!(
                    is_there || is_answered,
                    "{context}: {id} waits for {object}"
                );
            }
        }
    }
    for node in NODES {
        for _ in 0..facts.messages.len() {
            let Some(delivered) = state.deliver(node, at(1.0)).await.unwrap() else {
                break;
            };
            let message = delivered.delivery.message;
            assert!(facts.messages.contains(&message), "{context}: {message:?}");
            check_tree(state, &delivered.delivery.tree, context).await;
            let root = message.metadata.id.root().unwrap();
            state.confirm(message.metadata.run, root).await.unwrap();
        }
    }
}

/// What is handed out can be fetched.
async fn check_tree(state: &EmbeddedState, tree: &ObjectTree, context: &str) {
    let object = state.object(tree.id).await.unwrap();
    let Object::Available(body) = object else {
        panic!("{context}: {} is {object:?}", tree.id);
    };
    body.collect(u64::MAX).await.unwrap();
    for child in &tree.children {
        Box::pin(check_tree(state, child, context)).await;
    }
}

/// Entries can be lost, and are in their order.
async fn check_logs(state: &EmbeddedState, facts: &Facts, context: &str) {
    for (run, entries) in &facts.logs {
        let log = state.log_after(*run, UnixTime::default()).await.unwrap();
        let mut written = entries.iter();
        for entry in log.text.split_inclusive('\n') {
            assert!(
                written.any(|written| written == entry),
                "{context}: {entry}"
            );
        }
        state
            .append_log(*run, "more\n".into(), at(2.0))
            .await
            .unwrap();
        let log = state.log_after(*run, UnixTime::default()).await.unwrap();
        let is_known = state.run(*run, at(1.0)).await.unwrap().is_some();
        assert_eq!(log.text.ends_with("more\n"), is_known, "{context}");
    }
}

#[derive(Debug)]
struct Damage {
    #[expect(dead_code, reason = "for whoever reads of a failure")]
    path: PathBuf,
    #[expect(dead_code, reason = "for whoever reads of a failure")]
    how: String,
    is_object: bool,
}

/// Damages one of the files.
fn damage(folder: &Path, dice: &mut Dice) -> Damage {
    let objects: Vec<PathBuf> = files(folder)
        .into_keys()
        .filter(|path| path.starts_with(folder.join("objects/objects")))
        .collect();
    let journal = folder.join("state.db-wal");
    let (path, is_object) = match dice.below(13) {
        0..4 => (objects[dice.below(objects.len())].clone(), true),
        4 => (folder.join("objects/database-id"), false),
        5..9 if journal.exists() => (journal, false),
        _ => (folder.join("state.db"), false),
    };
    let mut bytes = fs::read(&path).unwrap();
    let at = dice.below(bytes.len());
    let how = match dice.below(if is_object { 6 } else { 5 }) {
        0 => {
            bytes.truncate(at);
            format!("cut to {at}")
        }
        1 => {
            let end = bytes.len().min(at + 512);
            bytes[at..end].fill(0);
            format!("zeros from {at}")
        }
        2 => {
            let places: Vec<_> = (0..8).map(|_| dice.below(bytes.len())).collect();
            for place in &places {
                bytes[*place] = dice.next().to_le_bytes()[0];
            }
            format!("other bytes at {places:?}")
        }
        3 | 4 => {
            // Most of what matters is at the beginning of a page.
            let at = if dice.below(2) == 0 {
                at
            } else {
                at / 4096 * 4096 + at % 100
            };
            let (at, bit) = (at.min(bytes.len() - 1), dice.below(8));
            bytes[at] ^= 1 << bit;
            format!("bit {bit} of {at} flipped")
        }
        _ if dice.below(2) == 0 => {
            fs::remove_file(&path).unwrap();
            return Damage {
                path,
                how: "removed".into(),
                is_object,
            };
        }
        _ => {
            bytes = fs::read(&objects[dice.below(objects.len())]).unwrap();
            "the bytes of another".to_owned()
        }
    };
    fs::write(&path, bytes).unwrap();
    Damage {
        path,
        how,
        is_object,
    }
}

/// SplitMix64.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

const SEED: u64 = 1;
const ROUNDS: u64 = 300;
