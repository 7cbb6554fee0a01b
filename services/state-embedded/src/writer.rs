//! The one thread that writes the database.
//!
//! It takes all steps that have gathered while it wrote the ones before, and commits them together:
//! one sync for many steps. If the disk says no, it keeps them and tries again, and until that works
//! new steps are refused before they are done.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use flwr_api::{ObjectId, RunId, UnixTime};
use flwr_state::files::Removed;
use flwr_state::rows::Change;
use flwr_state::storage::{Changes, Position};
use flwr_state::{StoreError, StoreResult, logs};
use rusqlite::Connection;
use tokio::sync::watch;

use crate::error::Failure;
use crate::writing;

/// Hands steps to the thread. Dropping it writes what is left.
#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    /// Nothing once it was joined.
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
    progress: watch::Sender<Progress>,
}

#[derive(Debug, Default)]
struct Queue {
    steps: Vec<Step>,
    bytes: usize,
    recorded: Position,
    /// The time of the last entry of each log.
    log_ends: HashMap<RunId, UnixTime>,
    is_closed: bool,
}

/// How far the thread is.
#[derive(Clone, Debug, Default)]
struct Progress {
    written: Position,
    failure: Option<Failure>,
    /// The thread is gone, and with it what it had not written.
    has_ended: bool,
}

#[derive(Debug)]
enum Step {
    State(Changes),
    Log(RunId, UnixTime, Arc<str>),
}

impl Writer {
    /// Starts the thread. What it removes from the database goes to `removed`.
    ///
    /// # Errors
    /// There can be no more threads.
    pub(crate) fn start(
        database: Connection,
        log_ends: HashMap<RunId, UnixTime>,
        log_bytes: HashMap<RunId, usize>,
        removed: SyncSender<Removed>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                log_ends,
                ..Queue::default()
            }),
            arrived: Condvar::new(),
            progress: watch::Sender::default(),
        });
        let desk = Desk {
            database,
            log_bytes,
            removed,
            shared: Arc::clone(&shared),
        };
        let thread = std::thread::Builder::new()
            .name("state-writer".into())
            .spawn(move || desk.work())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Waits until there is room for one more step.
    pub(crate) async fn admit(&self) -> StoreResult<()> {
        let has_room = |progress: &Progress| {
            progress.check()?;
            Ok(self.shared.queue().bytes < QUEUE_BYTES_MAX)
        };
        self.wait(has_room).await
    }

    /// Queues a step.
    pub(crate) fn record(&self, changes: Changes) -> Position {
        let mut queue = self.shared.queue();
        if changes.rows.is_empty() && changes.removed.is_empty() {
            return queue.recorded;
        }
        for run in &changes.forgotten {
            queue.log_ends.remove(run);
        }
        let bytes = changes.rows.iter().map(cost).sum();
        self.push(&mut queue, Step::State(changes), bytes)
    }

    /// Queues an entry of a log.
    pub(crate) fn log(&self, run: RunId, text: Arc<str>, now: UnixTime) -> Position {
        let mut queue = self.shared.queue();
        let time = logs::time_after(queue.log_ends.get(&run).copied(), now);
        queue.log_ends.insert(run, time);
        let bytes = logs::cost(&text);
        self.push(&mut queue, Step::Log(run, time, text), bytes)
    }

    /// The position of the last step that was queued.
    pub(crate) fn position(&self) -> Position {
        self.shared.queue().recorded
    }

    /// Waits until the steps up to `position` are written.
    pub(crate) async fn settle(&self, position: Position) -> StoreResult<()> {
        let is_written = |progress: &Progress| {
            if progress.written >= position {
                return Ok(true);
            }
            progress.check().map(|()| false)
        };
        self.wait(is_written).await
    }

    fn push(&self, queue: &mut Queue, step: Step, bytes: usize) -> Position {
        queue.steps.push(step);
        queue.bytes += bytes;
        queue.recorded += 1;
        self.shared.arrived.notify_one();
        queue.recorded
    }

    /// Waits until the thread has come so far, which it mostly has.
    async fn wait(&self, is_enough: impl Fn(&Progress) -> StoreResult<bool>) -> StoreResult<()> {
        if is_enough(&self.shared.progress.borrow())? {
            return Ok(());
        }
        let mut progress = self.shared.progress.subscribe();
        while !is_enough(&progress.borrow_and_update())? {
            let moved = progress.changed().await;
            moved.map_err(|_| StoreError::Stopped)?;
        }
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.queue().is_closed = true;
        self.shared.arrived.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the database died");
        }
    }
}

impl Shared {
    /// What it guards is changed in single steps, so it holds also after a panic.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    /// Whether anything more can be written at present.
    fn check(&self) -> StoreResult<()> {
        match &self.failure {
            Some(failure) => Err(failure.to_error()),
            None if self.has_ended => Err(StoreError::Stopped),
            None => Ok(()),
        }
    }
}

/// What the thread has.
struct Desk {
    database: Connection,
    /// What the log of each run takes.
    log_bytes: HashMap<RunId, usize>,
    removed: SyncSender<Removed>,
    shared: Arc<Shared>,
}

impl Desk {
    fn work(mut self) {
        while let Some((steps, until)) = self.next() {
            while let Err(error) = self.commit(&steps) {
                let failure = Failure::of(&error, &self.database);
                tracing::error!(
                    error = %failure.to_error(),
                    cause = %error,
                    steps = steps.len(),
                    "the database cannot be written; trying again"
                );
                self.shared
                    .progress
                    .send_modify(|progress| progress.failure = Some(failure));
                if self.pause() {
                    tracing::error!(steps = steps.len(), "these steps are lost");
                    return;
                }
            }
            self.shared.progress.send_modify(|progress| {
                if progress.failure.take().is_some() {
                    tracing::info!("the database can be written again");
                }
                progress.written = until;
            });
            self.pass_on(steps);
        }
    }

    /// The next steps, as soon as there are any; nothing once no more can come.
    fn next(&self) -> Option<(Vec<Step>, Position)> {
        let mut queue = self.shared.queue();
        while queue.steps.is_empty() {
            if queue.is_closed {
                return None;
            }
            queue = self
                .shared
                .arrived
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        queue.bytes = 0;
        Some((std::mem::take(&mut queue.steps), queue.recorded))
    }

    /// Waits before the next attempt; true if there shall be none.
    fn pause(&self) -> bool {
        let queue = self.shared.queue();
        let open = |queue: &mut Queue| !queue.is_closed;
        let waited = self.shared.arrived.wait_timeout_while(queue, RETRY, open);
        let (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        queue.is_closed
    }

    fn commit(&mut self, steps: &[Step]) -> rusqlite::Result<()> {
        let mut log_bytes = HashMap::new();
        let transaction = self
            .database
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        for step in steps {
            match step {
                Step::State(changes) => {
                    for change in &changes.rows {
                        writing::write(&transaction, change)?;
                    }
                    for run in &changes.forgotten {
                        writing::forget_log(&transaction, *run)?;
                        log_bytes.insert(*run, 0);
                    }
                }
                Step::Log(run, time, text) => {
                    writing::log(&transaction, *run, *time, text)?;
                    let bytes = log_bytes
                        .entry(*run)
                        .or_insert_with(|| self.log_bytes.get(run).copied().unwrap_or(0));
                    *bytes += logs::cost(text);
                    writing::trim_log(&transaction, *run, bytes)?;
                }
            }
        }
        transaction.commit()?;
        self.log_bytes.extend(log_bytes);
        self.log_bytes.retain(|_, bytes| *bytes > 0);
        Ok(())
    }

    /// Lets go of what the steps removed.
    fn pass_on(&self, steps: Vec<Step>) {
        let mut removed = Vec::new();
        for step in steps {
            if let Step::State(changes) = step {
                let contents = changes.removed.into_iter();
                removed.extend(contents.filter_map(|(id, content)| Some((id, content?))));
            }
        }
        if !removed.is_empty() {
            // Nobody takes them when the process ends; the next one removes the files.
            let _ = self.removed.send(removed);
        }
    }
}

impl Drop for Desk {
    /// Also after a panic, so that nobody waits for what will not be written.
    fn drop(&mut self) {
        let progress = &self.shared.progress;
        progress.send_modify(|progress| progress.has_ended = true);
    }
}

/// About what a change takes in memory and in the database.
fn cost(change: &Change) -> usize {
    ROW_BYTES
        + match change {
            Change::Content(_, Some((_, Some(content)))) => content.len(),
            Change::Object(_, Some(children)) => children.len() * size_of::<ObjectId>(),
            _ => 0,
        }
}

const ROW_BYTES: usize = 256;

/// Steps wait before they are done while more than this is waiting to be written.
const QUEUE_BYTES_MAX: usize = 32 << 20;

/// How long until what could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);
