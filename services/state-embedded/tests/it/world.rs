//! A state in a folder of its own, which is killed before each step or not.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use flwr_api::{
    Delivery, Message, MessageId, NodeId, ObjectId, ObjectTree, Run, RunId, RunStatus, Token,
    UnixTime,
};
use flwr_state::conformance::at;
use flwr_state::*;
use flwr_state_embedded::{Config, EmbeddedState, open};
use flwr_transport::{Body, PublicKey};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

/// Where a state is kept that belongs to a test.
pub(crate) fn config(folder: &Path) -> Config {
    Config {
        database: folder.join("state.db"),
        objects: folder.join("objects"),
        objects_quota_bytes: u64::MAX,
        free_bytes_min: 0,
    }
}

/// A state, with the folder that it is in.
pub(crate) struct World {
    state: Mutex<Option<(EmbeddedState, TempDir)>>,
    kills_left: AtomicU32,
    wakeups: Wakeups,
}

/// A state for one step. Where it is killed between steps, nobody else has it meanwhile.
pub(crate) struct Turn<'a> {
    state: EmbeddedState,
    _alone: Option<MutexGuard<'a, Option<(EmbeddedState, TempDir)>>>,
}

impl World {
    /// One that is killed before each of the first steps, and opened again as it was on the disk then.
    pub(crate) fn new(kills: u32) -> Self {
        Self {
            state: Mutex::default(),
            kills_left: AtomicU32::new(kills),
            wakeups: Wakeups::new(),
        }
    }

    pub(crate) async fn state(&self) -> Turn<'_> {
        let mut current = self.state.lock().await;
        let left = self.kills_left.load(Ordering::Relaxed);
        let (state, folder) = match current.take() {
            Some(current) if left == 0 => current,
            former => self.next(former).await,
        };
        self.kills_left
            .store(left.saturating_sub(1), Ordering::Relaxed);
        *current = Some((state.clone(), folder));
        let _alone = (left > 0).then_some(current);
        Turn { state, _alone }
    }

    async fn next(&self, former: Option<(EmbeddedState, TempDir)>) -> (EmbeddedState, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        if let Some((state, left)) = &former {
            // The time stands still, so that nothing is put off.
            state.checkpoint(at(0.0)).await.unwrap();
            copy(left.path(), folder.path());
        }
        drop(former);
        // Long ago, so that nothing is put off for having been away either.
        let then = at(-1000.0);
        let opened = open(config(folder.path()), self.wakeups.clone(), then).await;
        (opened.unwrap(), folder)
    }
}

impl Deref for Turn<'_> {
    type Target = EmbeddedState;

    fn deref(&self) -> &EmbeddedState {
        &self.state
    }
}

/// What a process leaves that is killed. The state is at rest while it is copied.
pub(crate) fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let (entry, name) = entry
            .map(|entry| (entry.path(), entry.file_name()))
            .unwrap();
        if entry.is_dir() {
            std::fs::create_dir(to.join(&name)).unwrap();
            copy(&entry, &to.join(name));
        } else if let Err(error) = std::fs::copy(&entry, to.join(name)) {
            // A file that is being removed.
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        }
    }
}

/// All files in a folder, with what they hold.
pub(crate) fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.append(&mut files(&path));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            found.insert(path, bytes);
        }
    }
    found
}

impl LinkState for World {
    fn wakeups(&self) -> &Wakeups {
        &self.wakeups
    }

    async fn checkpoint(&self, now: UnixTime) -> StoreResult<()> {
        self.state().await.checkpoint(now).await
    }

    async fn check(&self) -> StoreResult<()> {
        self.state().await.check().await
    }

    async fn census(&self, now: UnixTime) -> StoreResult<Census> {
        self.state().await.census(now).await
    }
}

impl Nodes for World {
    async fn create_node(&self, node: NewNode, now: UnixTime) -> StoreResult<NodeCreation> {
        self.state().await.create_node(node, now).await
    }

    async fn delete_node(&self, node: NodeId) -> StoreResult<bool> {
        self.state().await.delete_node(node).await
    }

    async fn beat_node(
        &self,
        node: NodeId,
        heartbeat_interval: f64,
        now: UnixTime,
    ) -> StoreResult<bool> {
        self.state()
            .await
            .beat_node(node, heartbeat_interval, now)
            .await
    }

    async fn node_of_key(&self, key: &PublicKey) -> StoreResult<Option<NodeId>> {
        self.state().await.node_of_key(key).await
    }

    async fn has_node(&self, node: NodeId) -> StoreResult<bool> {
        self.state().await.has_node(node).await
    }

    async fn nodes_online(&self, now: UnixTime) -> StoreResult<Vec<NodeId>> {
        self.state().await.nodes_online(now).await
    }

    async fn sweep_nodes(&self, offline_since: UnixTime) -> StoreResult<Vec<NodeId>> {
        self.state().await.sweep_nodes(offline_since).await
    }
}

impl Runs for World {
    async fn create_run(&self, run: NewRun, now: UnixTime) -> StoreResult<bool> {
        self.state().await.create_run(run, now).await
    }

    async fn run(&self, run: RunId, now: UnixTime) -> StoreResult<Option<Run>> {
        self.state().await.run(run, now).await
    }

    async fn runs(&self, now: UnixTime) -> StoreResult<Vec<Run>> {
        self.state().await.runs(now).await
    }

    async fn run_status(&self, run: RunId, now: UnixTime) -> StoreResult<Option<RunStatus>> {
        self.state().await.run_status(run, now).await
    }

    async fn move_run(&self, run: RunId, to: RunStatus, now: UnixTime) -> StoreResult<Transition> {
        self.state().await.move_run(run, to, now).await
    }

    async fn beat_run(
        &self,
        run: RunId,
        heartbeat_interval: f64,
        now: UnixTime,
    ) -> StoreResult<Beat> {
        self.state()
            .await
            .beat_run(run, heartbeat_interval, now)
            .await
    }

    async fn sweep_runs(
        &self,
        finished_before: UnixTime,
        latest_max: usize,
    ) -> StoreResult<Vec<RunId>> {
        self.state()
            .await
            .sweep_runs(finished_before, latest_max)
            .await
    }

    async fn launch_queue(&self, now: UnixTime) -> StoreResult<LaunchQueue> {
        self.state().await.launch_queue(now).await
    }

    async fn next_lease_end(&self) -> StoreResult<Option<UnixTime>> {
        self.state().await.next_lease_end().await
    }

    async fn federation_options(&self, run: RunId) -> StoreResult<Option<Bytes>> {
        self.state().await.federation_options(run).await
    }
}

impl Tokens for World {
    async fn issue_token(&self, run: RunId, token: Token, now: UnixTime) -> StoreResult<bool> {
        self.state().await.issue_token(run, token, now).await
    }

    async fn start_app(&self, token: &Token, now: UnixTime) -> StoreResult<StartedApp> {
        self.state().await.start_app(token, now).await
    }

    async fn run_of_token(&self, token: &Token) -> StoreResult<Option<RunId>> {
        self.state().await.run_of_token(token).await
    }

    async fn finish_app(
        &self,
        token: &Token,
        run: RunId,
        context: Bytes,
        now: UnixTime,
    ) -> StoreResult<AppOutputs> {
        self.state()
            .await
            .finish_app(token, run, context, now)
            .await
    }
}

impl Mailbox for World {
    async fn store_instructions(
        &self,
        run: RunId,
        messages: Vec<Message>,
        trees: Vec<ObjectTree>,
        now: UnixTime,
    ) -> StoreResult<(Vec<Option<MessageId>>, Vec<ObjectId>)> {
        self.state()
            .await
            .store_instructions(run, messages, trees, now)
            .await
    }

    async fn deliver(&self, node: NodeId, now: UnixTime) -> StoreResult<Option<Delivered>> {
        self.state().await.deliver(node, now).await
    }

    async fn announced(
        &self,
        node: NodeId,
        known: &[MessageId],
        now: UnixTime,
    ) -> StoreResult<Option<Delivery>> {
        self.state().await.announced(node, known, now).await
    }

    async fn store_reply(
        &self,
        reply: Message,
        trees: Vec<ObjectTree>,
        valid: Result<(), &'static str>,
        now: UnixTime,
    ) -> StoreResult<(ReplyOutcome, Vec<ObjectId>)> {
        self.state()
            .await
            .store_reply(reply, trees, valid, now)
            .await
    }

    async fn replies(
        &self,
        run: RunId,
        instructions: &[MessageId],
        now: UnixTime,
    ) -> StoreResult<Replies> {
        self.state().await.replies(run, instructions, now).await
    }

    async fn confirm(&self, run: RunId, message: ObjectId) -> StoreResult<()> {
        self.state().await.confirm(run, message).await
    }
}

impl Objects for World {
    async fn announce(&self, run: RunId, trees: &[ObjectTree]) -> StoreResult<Vec<ObjectId>> {
        self.state().await.announce(run, trees).await
    }

    async fn receive_object(
        &self,
        object: ObjectId,
        begun: Option<Beginning>,
        body: Body,
    ) -> StoreResult<Arrived> {
        let state = self.state().await;
        state.receive_object(object, begun, body).await
    }

    async fn object(&self, object: ObjectId) -> StoreResult<Object> {
        self.state().await.object(object).await
    }

    async fn object_totals(&self) -> StoreResult<(usize, u64)> {
        self.state().await.object_totals().await
    }
}

impl RunLogs for World {
    async fn append_log(&self, run: RunId, text: String, now: UnixTime) -> StoreResult<bool> {
        self.state().await.append_log(run, text, now).await
    }

    async fn log_after(&self, run: RunId, after: UnixTime) -> StoreResult<LogSlice> {
        self.state().await.log_after(run, after).await
    }
}
