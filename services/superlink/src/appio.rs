//! The AppIo service: ServerApps fetch their inputs, send instructions, fetch replies and report.

use std::collections::BTreeMap;

use bytes::Bytes;
use flwr_api::appio::{
    AppContext, AppInputs, AppIoService, AppStanding, ConfirmMessage, GetFab, GetFederationOptions,
    GetNodes, GetRun, GetRunStatus, Heartbeat, ListAppsToLaunch, PullInputs, PullMessages,
    PullObject, PushLogs, PushMessages, PushObject, PushOutputs, PushedAll, ReportAppExit,
    RequestToken, UpdateRunStatus, WatchApp,
};
use flwr_api::fleet::ObjectState;
use flwr_api::{
    Delivery, Fab, Launchers, Metadata, NodeId, Payload, Phase, Reason, Run, RunId, RunStatus,
    SubStatus, Token,
};
use flwr_state::{AppOutputs, Beat, Fabs, LinkState, StartedApp, Transition};
use flwr_transport::{Body, Context, Status};
use tracing::{debug, info, warn};

use crate::fleet::answer;
use crate::gate::{Gate, unknown_run};
use crate::superlink::{SuperLink, unavailable};
use crate::validate::{Direction, broken_rules};

/// Serves ServerApps and their launchers.
#[derive(Debug)]
pub struct AppIoApi<S, F> {
    link: SuperLink<S, F>,
    launchers: Launchers,
}

impl<S: LinkState, F: Fabs> AppIoApi<S, F> {
    pub(crate) fn new(link: SuperLink<S, F>, launchers: Launchers) -> Self {
        Self { link, launchers }
    }

    async fn require_running_as(&self, run: RunId, node: NodeId) -> Result<(), Status> {
        self.link.require_running(run).await?;
        if node == NodeId::SUPERLINK {
            return Ok(());
        }
        Err(Reason::NotSuperLinkNode.refuse("apps act as node 1"))
    }

    /// The run that the presented token was issued for.
    async fn run_of(&self, context: &Context) -> Result<RunId, Status> {
        let token = presented(context)?;
        let run = self.link.state().run_of_token(&token).await;
        run.map_err(unavailable)?.ok_or_else(invalid_token)
    }

    fn check_instructions(&self, call: &PushMessages) -> Result<(), Status> {
        let malformed = |why: String| Err(Reason::MessageMalformed.refuse(why));
        if call.messages.is_empty() {
            return malformed("there is no message".into());
        }
        let now = self.link.now();
        for message in &call.messages {
            let broken = broken_rules(message, Direction::Instruction, now);
            if !broken.is_empty() {
                return malformed(broken.join(", "));
            }
            if message.metadata.run != call.run {
                return malformed("`run_id` is not the request's".into());
            }
        }
        Ok(())
    }
}

impl<S: LinkState, F: Fabs> AppIoService for AppIoApi<S, F> {
    async fn list_apps_to_launch(
        &self,
        context: &Context,
        call: ListAppsToLaunch,
    ) -> Result<Vec<RunId>, Status> {
        self.launchers.admit(context)?;
        self.link.core.inbox.launches(context, call.wait).await
    }

    async fn request_token(
        &self,
        context: &Context,
        call: RequestToken,
    ) -> Result<Option<Token>, Status> {
        self.launchers.admit(context)?;
        let token = flwr_state::token(&*self.link.core.entropy);
        let state = self.link.state();
        let issued = state
            .issue_token(call.run, token.clone(), self.link.now())
            .await;
        if !issued.map_err(unavailable)? {
            return Ok(None);
        }
        debug!(run_id = call.run.0, "launch of the ServerApp claimed");
        Ok(Some(token))
    }

    async fn pull_inputs(&self, context: &Context, _call: PullInputs) -> Result<AppInputs, Status> {
        let token = presented(context)?;
        let started = self.link.state().start_app(&token, self.link.now()).await;
        let (run, context) = match started.map_err(unavailable)? {
            StartedApp::Started(run, context) => (run, context),
            StartedApp::InvalidToken => return Err(invalid_token()),
            StartedApp::NotPending(status) => {
                return Err(Reason::RunNotStartable.refuse(format!("the run is {status}")));
            }
        };
        let fab = self.link.app_bundle(run.fab.hash).await?;
        info!(run_id = run.id.0, fab = %run.fab.id, version = %run.fab.version, "run starting");
        Ok(AppInputs {
            context: context.map_or_else(AppContext::empty, AppContext::Kept),
            run: *run,
            fab,
        })
    }

    async fn push_outputs(&self, context: &Context, call: PushOutputs) -> Result<(), Status> {
        let token = presented(context)?;
        let state = self.link.state();
        let now = self.link.now();
        let stored = state.finish_app(&token, call.run, call.context, now).await;
        match stored.map_err(unavailable)? {
            AppOutputs::Stored => Ok(()),
            AppOutputs::InvalidToken => Err(invalid_token()),
            AppOutputs::NotRunning(status) => Err(Reason::run_not_running(&status)),
            AppOutputs::UnknownRun => Err(unknown_run()),
        }
    }

    async fn nodes(&self, _context: &Context, call: GetNodes) -> Result<Vec<NodeId>, Status> {
        self.link.require_running(call.run).await?;
        let nodes = self.link.state().nodes_online(self.link.now()).await;
        nodes.map_err(unavailable)
    }

    async fn push_messages(
        &self,
        _context: &Context,
        call: PushMessages,
    ) -> Result<PushedAll, Status> {
        self.link.require_running(call.run).await?;
        self.check_instructions(&call)?;
        let count = call.messages.len();
        let first = &call.messages[0].metadata;
        let (kind, group) = (first.message_type.clone(), first.group_id.clone());
        let sent: Vec<Metadata> = call.messages.iter().map(|m| m.metadata.clone()).collect();
        let (state, now) = (self.link.state(), self.link.now());
        let pushed = state
            .store_instructions(call.run, call.messages, call.trees, now)
            .await;
        let (stored, missing) = pushed.map_err(unavailable)?;
        for (instruction, _) in sent.iter().zip(&stored).filter(|(_, id)| id.is_some()) {
            self.link.core.progress.instructed(instruction);
        }
        let unknown = stored.iter().filter(|id| id.is_none()).count();
        info!(
            run_id = call.run.0,
            group = named(&group),
            kind,
            messages = count,
            objects = missing.len(),
            "instructions sent"
        );
        if unknown > 0 {
            warn!(
                run_id = call.run.0,
                messages = unknown,
                "instructions dropped: their nodes have never joined or have left"
            );
        }
        Ok(PushedAll { stored, missing })
    }

    async fn pull_messages(
        &self,
        context: &Context,
        call: PullMessages,
    ) -> Result<Vec<Delivery>, Status> {
        let gate = AppGate {
            api: self,
            run: call.run,
            node: NodeId::SUPERLINK,
        };
        let inbox = &self.link.core.inbox;
        let patience = (call.wait, call.linger);
        let replies = inbox
            .replies(context, call.run, &call.instructions, patience, &gate)
            .await?;
        if !replies.ready.is_empty() {
            self.link.core.progress.answered(call.run, &replies.ready);
            let failed = replies
                .ready
                .iter()
                .filter(|reply| matches!(reply.message.payload, Payload::Error(_)));
            info!(
                run_id = call.run.0,
                group = named(&replies.ready[0].message.metadata.group_id),
                replies = replies.ready.len(),
                failed = failed.count(),
                waiting = replies.waiting,
                "replies handed out"
            );
        }
        Ok(replies.ready)
    }

    async fn run(&self, _context: &Context, call: GetRun) -> Result<Option<Run>, Status> {
        let run = self.link.state().run(call.run, self.link.now()).await;
        run.map_err(unavailable)
    }

    async fn run_status(
        &self,
        _context: &Context,
        call: GetRunStatus,
    ) -> Result<BTreeMap<RunId, RunStatus>, Status> {
        let mut known = BTreeMap::new();
        for run in call.runs {
            let status = self.link.state().run_status(run, self.link.now()).await;
            if let Some(status) = status.map_err(unavailable)? {
                known.insert(run, status);
            }
        }
        Ok(known)
    }

    async fn update_run_status(
        &self,
        _context: &Context,
        call: UpdateRunStatus,
    ) -> Result<(), Status> {
        let (state, now) = (self.link.state(), self.link.now());
        let current = state.run_status(call.run, now).await.map_err(unavailable)?;
        match current {
            None => return Err(unknown_run()),
            Some(current) if current.phase == Phase::Finished => {
                return Err(Reason::run_not_running(&current));
            }
            Some(_) => {}
        }
        let Some(to) = call.status else {
            warn!(run_id = call.run.0, "status update ignored: no such status");
            return Ok(());
        };
        let moved = state.move_run(call.run, to.clone(), now).await;
        match moved.map_err(unavailable)? {
            Transition::Applied => {
                info!(
                    run_id = call.run.0,
                    details = named(&to.details),
                    "run {to}"
                );
                Ok(())
            }
            Transition::Refused(current) => {
                warn!(
                    run_id = call.run.0,
                    "status update ignored: a run that is {current} cannot become {to}"
                );
                Ok(())
            }
            Transition::Unknown => Err(unknown_run()),
        }
    }

    async fn fab(&self, _context: &Context, call: GetFab) -> Result<Fab, Status> {
        self.link.app_bundle(call.hash).await
    }

    async fn push_logs(&self, _context: &Context, call: PushLogs) -> Result<(), Status> {
        let known = self
            .link
            .state()
            .append_log(call.run, call.text, self.link.now())
            .await;
        if known.map_err(unavailable)? {
            return Ok(());
        }
        Err(Reason::RunUnknown.refuse("no such run"))
    }

    async fn heartbeat(&self, _context: &Context, call: Heartbeat) -> Result<bool, Status> {
        let (state, now) = (self.link.state(), self.link.now());
        let beat = state.beat_run(call.run, call.heartbeat_interval, now).await;
        Ok(match beat.map_err(unavailable)? {
            Beat::Alive => true,
            // An app of Flower 1.22 that is told "no" here hangs when it exits; its next gated call
            // tells it that the run is over.
            Beat::NotAlive(status) => status.phase == Phase::Finished,
            Beat::Unknown => false,
        })
    }

    async fn push_object(
        &self,
        context: &Context,
        call: PushObject,
        body: Body,
    ) -> Result<bool, Status> {
        self.require_running_as(call.run, call.node).await?;
        let object = (call.run, call.object);
        self.link.store_object(context, object, body).await
    }

    async fn pull_object(
        &self,
        context: &Context,
        call: PullObject,
    ) -> Result<(ObjectState, Option<Body>), Status> {
        let gate = AppGate {
            api: self,
            run: call.run,
            node: call.node,
        };
        let inbox = &self.link.core.inbox;
        let object = inbox.object(context, call.object, call.wait, &gate).await?;
        Ok(self.link.hand_out(context, call.run, answer(object)))
    }

    async fn confirm_message(
        &self,
        _context: &Context,
        call: ConfirmMessage,
    ) -> Result<(), Status> {
        self.link.require_running(call.run).await?;
        let confirmed = self.link.state().confirm(call.run, call.message).await;
        confirmed.map_err(unavailable)
    }

    async fn federation_options(
        &self,
        _context: &Context,
        call: GetFederationOptions,
    ) -> Result<Bytes, Status> {
        let options = self.link.state().federation_options(call.run).await;
        options.map_err(unavailable)?.ok_or_else(|| {
            Reason::NoFederationOptions.refuse("the run was submitted without federation options")
        })
    }

    async fn watch_app(&self, context: &Context, call: WatchApp) -> Result<AppStanding, Status> {
        self.launchers.admit(context)?;
        let run = self.run_of(context).await?;
        let inbox = &self.link.core.inbox;
        let ended = inbox.end_of_run(context, run, call.wait).await?;
        Ok(match ended {
            None => AppStanding::Wanted,
            Some(SubStatus::Completed | SubStatus::Failed | SubStatus::None) => AppStanding::Done,
            Some(SubStatus::Stopped) => AppStanding::Unwanted,
        })
    }

    async fn report_app_exit(&self, context: &Context, call: ReportAppExit) -> Result<(), Status> {
        self.launchers.admit(context)?;
        let run = self.run_of(context).await?;
        let (state, now) = (self.link.state(), self.link.now());
        let details = format!(
            "The app's process ended before it had finished: {}",
            call.how
        );
        let failed = RunStatus::finished(SubStatus::Failed, details.clone());
        let moved = state.move_run(run, failed, now).await;
        if moved.map_err(unavailable)? == Transition::Applied {
            warn!(
                run_id = run.0,
                how = call.how,
                "run failed: its app's process ended"
            );
            let logged = state.append_log(run, format!("{details}\n"), now).await;
            logged.map_err(unavailable)?;
        }
        Ok(())
    }
}

/// A log field that is left out where the app gave no name.
fn named(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

struct AppGate<'a, S, F> {
    api: &'a AppIoApi<S, F>,
    run: RunId,
    node: NodeId,
}

impl<S: LinkState, F: Fabs> Gate for AppGate<'_, S, F> {
    async fn check(&self) -> Result<(), Status> {
        self.api.require_running_as(self.run, self.node).await
    }
}

fn presented(context: &Context) -> Result<Token, Status> {
    let bearer = context.bearer.as_ref().ok_or_else(invalid_token)?;
    Ok(Token::presented(bearer.expose()))
}

fn invalid_token() -> Status {
    Reason::TokenInvalid.refuse("the app's token is not valid")
}
