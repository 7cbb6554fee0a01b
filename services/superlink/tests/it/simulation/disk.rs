//! A storage on a disk that outlives its process, which is slow, fails at times, and has what was
//! written to it and nothing else.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use flwr_api::{ObjectId, RunId, UnixTime};
use flwr_state::link::LogSlice;
use flwr_state::rows::{Change, ObjectRow, Rows};
use flwr_state::storage::{Accepted, Beginning, Changes, Content, Position, Source};
use flwr_state::{Limit, Memory, Storage, StoreError, StoreResult};
use flwr_transport::Body;
use tokio::time::sleep;

use super::random::Random;

/// What is written.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// The last change of each row, by what says which row that is.
    rows: Mutex<BTreeMap<String, Change>>,
}

/// The storage of one process.
#[derive(Debug)]
pub(super) struct Faulty {
    disk: Arc<Disk>,
    random: Arc<Random>,
    /// What was recorded and is not written.
    pending: Mutex<Vec<Change>>,
    recorded: AtomicU64,
    written: AtomicU64,
    is_dead: Arc<AtomicBool>,
    /// Has what is on its way.
    memory: Memory,
}

impl Disk {
    pub(super) fn storage(
        self: &Arc<Self>,
        random: &Arc<Random>,
        is_dead: &Arc<AtomicBool>,
    ) -> Faulty {
        Faulty {
            disk: Arc::clone(self),
            random: Arc::clone(random),
            pending: Mutex::default(),
            recorded: AtomicU64::new(0),
            written: AtomicU64::new(0),
            is_dead: Arc::clone(is_dead),
            memory: Memory::default(),
        }
    }

    /// What a process finds that begins.
    pub(super) fn rows(&self) -> Rows {
        let mut rows = Rows::default();
        let mut contents = HashMap::new();
        let written = self.rows.lock().unwrap();
        for change in written.values().cloned() {
            match change {
                Change::Node(_, row) => rows.nodes.extend(row),
                Change::Run(_, row) => rows.runs.extend(row),
                Change::Token(_, row) => rows.tokens.extend(row),
                Change::Instruction(_, _, row) => rows.instructions.extend(row),
                Change::Reply(_, _, _, row) => rows.replies.extend(row),
                Change::Unwanted(run, root, true) => rows.unwanted.push((run, root)),
                Change::Abandoned(node, run, root, true) => rows.abandoned.push((node, run, root)),
                Change::Hold(run, object, true) => rows.holds.push((run, object)),
                Change::Object(id, Some(children)) => rows.objects.push(ObjectRow {
                    id,
                    children,
                    content: None,
                }),
                Change::Content(id, Some((len, _))) => {
                    contents.insert(id, len);
                }
                Change::Gone(number, Some(object)) => rows.gone.push((number, object)),
                Change::AsOf(now) => rows.as_of = Some(now),
                _ => {}
            }
        }
        for row in &mut rows.objects {
            row.content = contents.get(&row.id).map(|len| Content::Row(*len));
        }
        rows
    }

    fn write(&self, change: Change) {
        let mut rows = self.rows.lock().unwrap();
        if let Change::NoMessages(run) = change {
            rows.retain(|_, row| !is_message_of(run, row));
            return;
        }
        if let Change::Object(id, _) = change {
            rows.remove(&key(&Change::Content(id, None)));
        }
        rows.insert(key(&change), change);
    }

    fn content(&self, object: ObjectId) -> Option<Bytes> {
        let rows = self.rows.lock().unwrap();
        match rows.get(&key(&Change::Content(object, None)))? {
            Change::Content(_, Some((_, bytes))) => bytes.clone(),
            _ => None,
        }
    }
}

fn key(change: &Change) -> String {
    match change {
        Change::Node(id, _) => format!("node {id}"),
        Change::Run(id, _) => format!("run {id}"),
        Change::Token(token, _) => format!("token {}", token.expose()),
        Change::Instruction(run, name, _) => format!("instruction {run} {name}"),
        Change::Reply(run, name, of, _) => format!("reply {run} {name} {of:?}"),
        Change::Unwanted(run, root, _) => format!("unwanted {run} {root}"),
        Change::Abandoned(node, run, root, _) => format!("abandoned {node} {run} {root}"),
        Change::NoMessages(run) => format!("messages {run}"),
        Change::Object(id, _) => format!("object {id}"),
        Change::Content(id, _) => format!("content {id}"),
        Change::Hold(run, id, _) => format!("hold {run} {id}"),
        Change::Gone(number, _) => format!("gone {number}"),
        Change::AsOf(_) => "as of".to_owned(),
    }
}

fn is_message_of(run: RunId, row: &Change) -> bool {
    match row {
        Change::Instruction(of, ..)
        | Change::Reply(of, ..)
        | Change::Unwanted(of, ..)
        | Change::Abandoned(_, of, ..) => *of == run,
        _ => false,
    }
}

impl Faulty {
    fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Relaxed)
    }

    fn full() -> StoreError {
        StoreError::Full {
            folder: "simulated".into(),
            limit: Limit::Disk,
        }
    }
}

impl Storage for Faulty {
    const KEEPS_ROWS: bool = true;

    async fn admit(&self) -> StoreResult<()> {
        Ok(())
    }

    fn record(&self, changes: Changes) -> (Position, Option<Changes>) {
        if !changes.rows.is_empty() {
            self.pending.lock().unwrap().extend(changes.rows);
            self.recorded.fetch_add(1, Ordering::Relaxed);
        }
        (self.recorded.load(Ordering::Relaxed), None)
    }

    async fn settle(&self, position: Position) -> StoreResult<()> {
        if self.written.load(Ordering::Relaxed) >= position {
            return Ok(());
        }
        sleep(Duration::from_secs_f64(0.02 * self.random.fraction())).await;
        if self.is_dead() {
            return Err(StoreError::Stopped);
        }
        if self.random.fraction() < 0.05 {
            return Err(Self::full());
        }
        let pending = std::mem::take(&mut *self.pending.lock().unwrap());
        for change in pending {
            self.disk.write(change);
        }
        let recorded = self.recorded.load(Ordering::Relaxed);
        self.written.store(recorded, Ordering::Relaxed);
        Ok(())
    }

    async fn accept(
        &self,
        object: ObjectId,
        is_wanted: bool,
        begun: Option<Beginning>,
        body: Body,
    ) -> StoreResult<Accepted> {
        self.memory.accept(object, is_wanted, begun, body).await
    }

    async fn read(&self, object: ObjectId, source: Source) -> StoreResult<Option<Body>> {
        if self.is_dead() {
            return Err(StoreError::Stopped);
        }
        Ok(match source {
            Source::Here(bytes) => Some(Body::from_bytes(bytes)),
            Source::Row => self.disk.content(object).map(Body::from_bytes),
            Source::File => None,
        })
    }

    async fn append_log(&self, _run: RunId, _text: String, _now: UnixTime) -> StoreResult<()> {
        Ok(())
    }

    async fn log_after(&self, _run: RunId, _after: UnixTime) -> StoreResult<LogSlice> {
        Ok(LogSlice::default())
    }
}
