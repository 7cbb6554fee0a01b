//! A daemon that has runs to launch, and writes down what it hears.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use flwr_api::appio::{
    AppInputs, AppIoService, AppStanding, ConfirmMessage, GetFab, GetFederationOptions, GetNodes,
    GetRun, GetRunStatus, Heartbeat, ListAppsToLaunch, PullInputs, PullMessages, PullObject,
    PushLogs, PushMessages, PushObject, PushOutputs, PushedAll, ReportAppExit, RequestToken,
    UpdateRunStatus, WatchApp,
};
use flwr_api::fleet::ObjectState;
use flwr_api::{Delivery, Fab, NodeId, Reason, Run, RunId, RunStatus, Token};
use flwr_transport::{Body, Code, Context, Status};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

/// Cheap to clone: all clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Daemon {
    /// It neither holds calls nor knows ours, as Flower's own.
    pub(crate) is_stock: bool,
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

/// What a daemon knows and has heard.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) waiting: Vec<RunId>,
    /// When launches were asked for.
    pub(crate) asked: Vec<Instant>,
    /// Answers to the next questions for launches.
    pub(crate) failures: Vec<Status>,
    /// Runs that somebody else is always quicker to claim.
    pub(crate) taken: BTreeSet<RunId>,
    pub(crate) unwanted: BTreeSet<RunId>,
    /// Runs whose apps have done their work.
    pub(crate) done: BTreeSet<RunId>,
    pub(crate) statuses: BTreeMap<RunId, RunStatus>,
    pub(crate) exits: Vec<(RunId, String)>,
    pub(crate) updates: Vec<(RunId, RunStatus)>,
    /// Name, bearer and bytes of the calls that apps made.
    pub(crate) calls: Vec<(&'static str, Option<RunId>, usize)>,
}

impl Daemon {
    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_waiters();
    }

    pub(crate) fn submit(&self, runs: impl IntoIterator<Item = u64>) {
        self.change(|state| state.waiting.extend(runs.into_iter().map(RunId)));
    }

    /// Wants the app of this run no longer.
    pub(crate) fn dismiss(&self, run: u64) {
        self.change(|state| state.unwanted.extend([RunId(run)]));
    }

    pub(crate) fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.lock().unwrap())
    }

    /// Waits until the daemon has learned something.
    pub(crate) async fn until<T>(&self, what: &str, find: impl FnMut(&State) -> Option<T>) -> T {
        let found = timeout(Duration::from_secs(300), self.find(find)).await;
        found.unwrap_or_else(|_| panic!("{what}: {:?}", self.state.lock().unwrap()))
    }

    async fn find<T>(&self, mut find: impl FnMut(&State) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(found) = self.read(&mut find) {
                return found;
            }
            changed.await;
        }
    }

    /// How one app ended.
    pub(crate) async fn exit_of(&self, run: u64) -> String {
        let exit_of = |state: &State| {
            let exit = state.exits.iter().find(|(ended, _)| ended.0 == run);
            exit.map(|(_, how)| how.clone())
        };
        self.until("an exit", exit_of).await
    }

    fn heard(&self, name: &'static str, context: &Context, bytes: usize) {
        let run = bearer(context).ok();
        self.change(|state| state.calls.push((name, run, bytes)));
    }
}

pub(crate) fn token(run: u64) -> Token {
    Token::presented(format!("{run:0256}"))
}

/// The run that the presented token stands for.
fn bearer(context: &Context) -> Result<RunId, Status> {
    let invalid = || Reason::TokenInvalid.refuse("no such token");
    let bearer = context.bearer.as_ref().ok_or_else(invalid)?;
    let run = bearer.expose().parse().map_err(|_| invalid())?;
    Ok(RunId(run))
}

impl AppIoService for Daemon {
    async fn list_apps_to_launch(
        &self,
        _context: &Context,
        call: ListAppsToLaunch,
    ) -> Result<Vec<RunId>, Status> {
        let now = Instant::now();
        let mut failure = None;
        self.change(|state| {
            state.asked.push(now);
            failure = state.failures.pop();
        });
        if let Some(status) = failure {
            return Err(status);
        }
        let waiting = |state: &State| (!state.waiting.is_empty()).then(|| state.waiting.clone());
        if self.is_stock {
            return Ok(self.read(waiting).unwrap_or_default());
        }
        let found = timeout_at(now + call.wait, self.find(waiting)).await;
        Ok(found.unwrap_or_default())
    }

    async fn request_token(
        &self,
        _context: &Context,
        call: RequestToken,
    ) -> Result<Option<Token>, Status> {
        let mut is_given = false;
        self.change(|state| {
            is_given = state.waiting.contains(&call.run) && !state.taken.contains(&call.run);
            if is_given {
                state.waiting.retain(|run| *run != call.run);
            }
        });
        Ok(is_given.then(|| token(call.run.0)))
    }

    async fn pull_inputs(&self, context: &Context, _call: PullInputs) -> Result<AppInputs, Status> {
        self.heard("pull_inputs", context, 0);
        Err(Status::new(Code::Internal, "there are no inputs"))
    }

    async fn push_outputs(&self, context: &Context, _call: PushOutputs) -> Result<(), Status> {
        self.heard("push_outputs", context, 0);
        Ok(())
    }

    async fn nodes(&self, context: &Context, _call: GetNodes) -> Result<Vec<NodeId>, Status> {
        self.heard("nodes", context, 0);
        Ok(vec![NodeId(7)])
    }

    async fn push_messages(
        &self,
        context: &Context,
        _call: PushMessages,
    ) -> Result<PushedAll, Status> {
        self.heard("push_messages", context, 0);
        Ok(PushedAll {
            stored: Vec::new(),
            missing: Vec::new(),
        })
    }

    async fn pull_messages(
        &self,
        context: &Context,
        _call: PullMessages,
    ) -> Result<Vec<Delivery>, Status> {
        self.heard("pull_messages", context, 0);
        Ok(Vec::new())
    }

    async fn run(&self, context: &Context, _call: GetRun) -> Result<Option<Run>, Status> {
        self.heard("run", context, 0);
        Ok(None)
    }

    async fn run_status(
        &self,
        _context: &Context,
        call: GetRunStatus,
    ) -> Result<BTreeMap<RunId, RunStatus>, Status> {
        let mut known = self.read(|state| state.statuses.clone());
        known.retain(|run, _| call.runs.contains(run));
        Ok(known)
    }

    async fn update_run_status(
        &self,
        _context: &Context,
        call: UpdateRunStatus,
    ) -> Result<(), Status> {
        let status = call.status.expect("a status");
        self.change(|state| state.updates.push((call.run, status)));
        Ok(())
    }

    async fn fab(&self, _context: &Context, _call: GetFab) -> Result<Fab, Status> {
        Err(Status::unimplemented("fab"))
    }

    async fn push_logs(&self, context: &Context, call: PushLogs) -> Result<(), Status> {
        self.heard("push_logs", context, call.text.len());
        Ok(())
    }

    async fn heartbeat(&self, context: &Context, _call: Heartbeat) -> Result<bool, Status> {
        self.heard("heartbeat", context, 0);
        Ok(true)
    }

    async fn push_object(
        &self,
        context: &Context,
        _call: PushObject,
        mut body: Body,
    ) -> Result<bool, Status> {
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| Status::new(Code::Internal, error.to_string()))?;
            self.heard("push_object", context, piece.len());
        }
        Ok(true)
    }

    async fn pull_object(
        &self,
        context: &Context,
        _call: PullObject,
    ) -> Result<(ObjectState, Option<Body>), Status> {
        self.heard("pull_object", context, 0);
        let pieces = [b"one", b"two"].map(|piece| Ok(Bytes::from_static(piece)));
        let body = Body::from_stream(Some(6), futures_util::stream::iter(pieces));
        Ok((ObjectState::Available, Some(body)))
    }

    async fn confirm_message(
        &self,
        context: &Context,
        _call: ConfirmMessage,
    ) -> Result<(), Status> {
        self.heard("confirm_message", context, 0);
        Ok(())
    }

    async fn federation_options(
        &self,
        _context: &Context,
        _call: GetFederationOptions,
    ) -> Result<Bytes, Status> {
        Err(Status::unimplemented("federation_options"))
    }

    async fn watch_app(&self, context: &Context, call: WatchApp) -> Result<AppStanding, Status> {
        if self.is_stock {
            return Err(Status::unimplemented("watch_app"));
        }
        let run = bearer(context)?;
        let standing = |state: &State| {
            if state.done.contains(&run) {
                return Some(AppStanding::Done);
            }
            state
                .unwanted
                .contains(&run)
                .then_some(AppStanding::Unwanted)
        };
        let standing = timeout(call.wait, self.find(standing)).await;
        Ok(standing.unwrap_or(AppStanding::Wanted))
    }

    async fn report_app_exit(&self, context: &Context, call: ReportAppExit) -> Result<(), Status> {
        if self.is_stock {
            return Err(Status::unimplemented("report_app_exit"));
        }
        let run = bearer(context)?;
        self.change(|state| state.exits.push((run, call.how)));
        Ok(())
    }
}
