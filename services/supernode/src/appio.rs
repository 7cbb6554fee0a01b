//! The AppIo service of a SuperNode: ClientApps fetch their instruction and hand in their reply,
//! and launchers learn for which runs to start one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flwr_api::appio::{
    AppInputs, AppIoService, AppStanding, ConfirmMessage, GetFab, GetFederationOptions, GetNodes,
    GetRun, GetRunStatus, Heartbeat, ListAppsToLaunch, PullInputs, PullMessages, PullObject,
    PushLogs, PushMessages, PushObject, PushOutputs, PushedAll, ReportAppExit, RequestToken,
    UpdateRunStatus, WatchApp,
};
use flwr_api::fleet::ObjectState;
use flwr_api::{
    Delivery, Fab, Launchers, NodeId, Phase, Reason, Run, RunId, RunStatus, Token, UnixTime,
};
use flwr_state::{Fabs as _, PutFile, StoreError};
use flwr_transport::{Body, Code, Context, Status};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::desk::{Line, Readable};
use crate::fetch::describe;
use crate::metrics::count_launch;
use crate::node::Core;
use crate::runs;

/// How long a launch may take until its app asks for its inputs.
const LAUNCH_PATIENCE: Duration = Duration::from_secs(60);

/// Serves ClientApps and their launchers.
#[derive(Debug)]
pub struct AppIoApi {
    core: Arc<Core>,
    launchers: Launchers,
}

impl AppIoApi {
    pub(crate) fn new(core: Arc<Core>, launchers: Launchers) -> Self {
        Self { core, launchers }
    }

    /// Looks again after every change of the desk, until there is something, the caller's patience
    /// ends or the server drains.
    async fn held<T>(
        &self,
        context: &Context,
        wait: Duration,
        look: impl Fn() -> Option<T>,
    ) -> Option<T> {
        let end = (Instant::now() + wait).min(context.deadline);
        let mut changed = self.core.desk.watch();
        loop {
            changed.mark_unchanged();
            if let Some(found) = look() {
                return Some(found);
            }
            tokio::select! {
                biased;
                () = context.drain.requested() => return None,
                _ = changed.changed() => {}
                () = tokio::time::sleep_until(end) => return None,
            }
        }
    }

    /// The token that a call presents, which tells that its app lives.
    fn presented(&self, context: &Context) -> Result<Token, Status> {
        let token = presented(context)?;
        let line = Line {
            gone: context.gone.clone(),
            heard: Instant::now(),
        };
        self.core.desk.heard(&token, line);
        Ok(token)
    }

    /// The app has read its instruction, and what it writes now needs the room in memory.
    fn forget_instruction(&self, token: &Token) {
        if let Some(instruction) = self.core.desk.instruction(token) {
            let objects = self.core.objects.clone();
            tokio::spawn(async move { objects.leave_memory(instruction.tree.ids()).await });
        }
    }

    fn run_sheet(&self, run: RunId) -> Result<Arc<runs::Run>, Status> {
        let known = self.core.runs.get(run);
        known.ok_or_else(|| Reason::RunUnknown.refuse("this node has no message of the run"))
    }
}

impl AppIoService for AppIoApi {
    async fn list_apps_to_launch(
        &self,
        context: &Context,
        call: ListAppsToLaunch,
    ) -> Result<Vec<RunId>, Status> {
        self.launchers.admit(context)?;
        let launchable = || Some(self.core.desk.launchable()).filter(|runs| !runs.is_empty());
        let found = self.held(context, call.wait, launchable).await;
        Ok(found.unwrap_or_default())
    }

    async fn request_token(
        &self,
        context: &Context,
        call: RequestToken,
    ) -> Result<Option<Token>, Status> {
        self.launchers.admit(context)?;
        let token = flwr_state::token(&*self.core.entropy);
        let until = Instant::now() + LAUNCH_PATIENCE;
        let claimed = self.core.desk.claim(call.run, token.clone(), until);
        if claimed {
            debug!(run_id = call.run.0, "launch of a ClientApp claimed");
            count_launch();
        }
        Ok(claimed.then_some(token))
    }

    async fn pull_inputs(&self, context: &Context, _call: PullInputs) -> Result<AppInputs, Status> {
        let token = self.presented(context)?;
        let run = self.core.desk.begin(&token).ok_or_else(invalid_token)?;
        let sheet = self.run_sheet(run)?;
        let hash = sheet.described.fab.hash;
        let content = self.core.fabs.fab(hash).await.map_err(unavailable)?;
        let content = content
            .ok_or_else(|| Reason::FabUnknown.refuse(format!("no app bundle with hash {hash}")))?;
        Ok(AppInputs {
            context: sheet.context(&self.core.config.node_config),
            run: described(&sheet),
            fab: Fab { hash, content },
        })
    }

    async fn push_outputs(&self, context: &Context, call: PushOutputs) -> Result<(), Status> {
        let token = self.presented(context)?;
        let run = self.core.desk.run_of(&token).ok_or_else(invalid_token)?;
        // A repeated call changes nothing: a later app may have left its own context since.
        if self.core.desk.standing(&token) == AppStanding::Wanted {
            if let Some(sheet) = self.core.runs.get(run) {
                let context = call.context;
                self.core.notes.keep_context(run, context.clone()).await;
                sheet.keep(context);
            }
            self.core.desk.finish(&token);
        }
        Ok(())
    }

    async fn pull_messages(
        &self,
        context: &Context,
        _call: PullMessages,
    ) -> Result<Vec<Delivery>, Status> {
        let token = self.presented(context)?;
        let instruction = self.core.desk.instruction(&token);
        Ok(vec![instruction.ok_or_else(invalid_token)?])
    }

    async fn push_messages(
        &self,
        context: &Context,
        call: PushMessages,
    ) -> Result<PushedAll, Status> {
        let token = self.presented(context)?;
        if self.core.desk.standing(&token) != AppStanding::Wanted {
            return Err(invalid_token());
        }
        let malformed = |why: &'static str| Reason::MessageMalformed.refuse(why);
        let message = call.messages.into_iter().next();
        let message = message.ok_or_else(|| malformed("there is no message"))?;
        let tree = call.trees.into_iter().next();
        let tree = tree.ok_or_else(|| malformed("there is no object tree"))?;
        let (run, id) = (message.metadata.run, message.metadata.id.clone());
        let ids = tree.ids();
        let pin = self.core.objects.pin(ids.iter().copied());
        let missing = self.core.objects.missing(&ids);
        let reply = Delivery { message, tree };
        let taken = self.core.desk.answer(&token, reply, &missing, pin);
        taken.map_err(|why| {
            warn!(run_id = run.0, message_id = %id, why, "the reply of a ClientApp is refused");
            malformed(why)
        })?;
        debug!(run_id = run.0, message_id = %id, objects = missing.len(), "reply announced");
        self.forget_instruction(&token);
        Ok(PushedAll {
            stored: vec![Some(id)],
            missing,
        })
    }

    async fn push_object(
        &self,
        _context: &Context,
        call: PushObject,
        body: Body,
    ) -> Result<bool, Status> {
        if !self.core.desk.expects(call.run, &call.object) {
            debug!(object_id = %call.object, "object refused: no reply announced it");
            return Ok(false);
        }
        let put = self.core.objects.put(call.object, body).await;
        match put.map_err(unavailable)? {
            PutFile::Stored | PutFile::Present => {
                self.core.desk.stored(&call.object);
                Ok(true)
            }
            PutFile::Malformed(why) => Err(Reason::ObjectMalformed.refuse(why.to_string())),
            PutFile::WrongHash => {
                warn!(object_id = %call.object, "object refused: its bytes do not hash to its id");
                Ok(false)
            }
            PutFile::Interrupted(error) => Err(Status::new(Code::Unavailable, error.to_string())),
        }
    }

    async fn pull_object(
        &self,
        context: &Context,
        call: PullObject,
    ) -> Result<(ObjectState, Option<Body>), Status> {
        let readable = || match self.core.desk.readable(call.run, &call.object) {
            Readable::Announced => None,
            decided => Some(decided),
        };
        match self.held(context, call.wait, readable).await {
            None | Some(Readable::Announced) => Ok((ObjectState::Pending, None)),
            Some(Readable::No) => Ok((ObjectState::Unknown, None)),
            Some(Readable::Here) => {
                let body = self.core.objects.get(call.object).await;
                Ok(match body.map_err(unavailable)? {
                    Some(body) => (ObjectState::Available, Some(body)),
                    None => (ObjectState::Unknown, None),
                })
            }
        }
    }

    /// Nothing to do: objects are kept until the reply is delivered, because a ClientApp that is
    /// started again needs them again.
    async fn confirm_message(
        &self,
        _context: &Context,
        _call: ConfirmMessage,
    ) -> Result<(), Status> {
        Ok(())
    }

    async fn run(&self, _context: &Context, call: GetRun) -> Result<Option<Run>, Status> {
        Ok(self.core.runs.get(call.run).map(|sheet| described(&sheet)))
    }

    async fn watch_app(&self, context: &Context, call: WatchApp) -> Result<AppStanding, Status> {
        self.launchers.admit(context)?;
        let token = presented(context)?;
        let desk = &self.core.desk;
        let decided = || match desk.standing(&token) {
            AppStanding::Wanted => None,
            decided => Some(decided),
        };
        let decided = self.held(context, call.wait, decided).await;
        Ok(decided.unwrap_or(AppStanding::Wanted))
    }

    async fn report_app_exit(&self, context: &Context, call: ReportAppExit) -> Result<(), Status> {
        self.launchers.admit(context)?;
        let token = presented(context)?;
        if self.core.desk.standing(&token) == AppStanding::Wanted {
            info!(
                how = call.how,
                "a ClientApp has ended without handing in its outputs"
            );
            self.core.desk.exited(&token, &call.how);
        }
        Ok(())
    }

    async fn nodes(&self, _context: &Context, _call: GetNodes) -> Result<Vec<NodeId>, Status> {
        Err(for_the_superlink("GetNodes"))
    }

    async fn run_status(
        &self,
        _context: &Context,
        _call: GetRunStatus,
    ) -> Result<BTreeMap<RunId, RunStatus>, Status> {
        Err(for_the_superlink("GetRunStatus"))
    }

    async fn update_run_status(
        &self,
        _context: &Context,
        _call: UpdateRunStatus,
    ) -> Result<(), Status> {
        Err(for_the_superlink("UpdateRunStatus"))
    }

    async fn fab(&self, _context: &Context, _call: GetFab) -> Result<Fab, Status> {
        Err(for_the_superlink("GetFab"))
    }

    async fn push_logs(&self, _context: &Context, _call: PushLogs) -> Result<(), Status> {
        Err(for_the_superlink("PushLogs"))
    }

    async fn heartbeat(&self, _context: &Context, _call: Heartbeat) -> Result<bool, Status> {
        Err(for_the_superlink("SendAppHeartbeat"))
    }

    async fn federation_options(
        &self,
        _context: &Context,
        _call: GetFederationOptions,
    ) -> Result<Bytes, Status> {
        Err(for_the_superlink("GetFederationOptions"))
    }
}

/// A run as a SuperNode knows it: without status and times.
fn described(sheet: &runs::Run) -> Run {
    Run {
        id: sheet.described.id,
        series: sheet.described.series,
        federation: String::new(),
        fab: sheet.described.fab.clone(),
        overrides: sheet.described.overrides.clone(),
        status: RunStatus::of(Phase::Running),
        pending_at: UnixTime::default(),
        starting_at: None,
        running_at: None,
        finished_at: None,
    }
}

fn presented(context: &Context) -> Result<Token, Status> {
    let bearer = context.bearer.as_ref().ok_or_else(invalid_token)?;
    Ok(Token::presented(bearer.expose()))
}

fn invalid_token() -> Status {
    Reason::TokenInvalid.refuse("the app's token is not valid")
}

fn for_the_superlink(call: &'static str) -> Status {
    Status::unimplemented(call)
}

/// What an app is told when the store fails.
#[expect(clippy::needless_pass_by_value, reason = "used with map_err")]
fn unavailable(error: StoreError) -> Status {
    let why = describe(&error);
    tracing::error!("the object store fails: {why}");
    match error.code() {
        Code::ResourceExhausted => Status::new(Code::ResourceExhausted, why),
        code => Status::new(code, "the SuperNode's storage is unavailable"),
    }
}
