//! The Control service: users submit, watch and stop runs.

use bytes::Bytes;
use flwr_api::control::{
    AuthTokens, ControlService, GetAuthTokens, GetLoginDetails, ListRuns, LogChunk, LoginDetails,
    PullArtifacts, RunList, StartRun, StopRun, StreamLogs,
};
use flwr_api::{FabHash, FabInfo, Phase, Reason, RunId, RunStatus, SubStatus, UnixTime};
use flwr_fab::{Refusal, inspect};
use flwr_state::{Fabs, LinkState, NewRun, Subscription, Topic, Transition};
use flwr_transport::{Context, Drain, EventStream, Status};
use futures_util::stream::{self, StreamExt};
use tracing::{info, warn};

use crate::entropy;
use crate::superlink::{SuperLink, unavailable};

/// Serves users.
#[derive(Debug)]
pub struct ControlApi<S, F> {
    link: SuperLink<S, F>,
    runtime: Runtime,
}

/// What executes runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// ServerApps, and the ClientApps of the nodes that have joined.
    Deployment,
    /// Simulations, which have nodes of their own.
    Simulation,
}

impl<S: LinkState, F: Fabs> ControlApi<S, F> {
    pub(crate) fn new(link: SuperLink<S, F>, runtime: Runtime) -> Self {
        Self { link, runtime }
    }

    /// Whether the runtime can do with these options.
    fn has_options(&self, names: &[String]) -> bool {
        match self.runtime {
            Runtime::Deployment => true,
            Runtime::Simulation => names.iter().any(|name| name == NODE_COUNT),
        }
    }

    async fn create_run(&self, fab: FabInfo, call: StartRun) -> Result<RunId, Status> {
        let entropy = &*self.link.core.entropy;
        loop {
            let id = entropy::run_id(entropy);
            let run = NewRun {
                id,
                series: entropy::series(entropy),
                federation: call.federation.clone(),
                fab: fab.clone(),
                overrides: call.overrides.clone(),
                options: call.options.clone(),
            };
            let created = self.link.state().create_run(run, self.link.now()).await;
            if created.map_err(unavailable)? {
                return Ok(id);
            }
        }
    }

    async fn status_of(&self, run: RunId) -> Result<RunStatus, Status> {
        let status = self.link.state().run_status(run, self.link.now()).await;
        status.map_err(unavailable)?.ok_or_else(unknown_run)
    }
}

impl<S: LinkState, F: Fabs> ControlService for ControlApi<S, F> {
    async fn start_run(&self, context: &Context, call: StartRun) -> Result<Option<RunId>, Status> {
        if !self.has_options(&call.option_names) {
            warn!(
                peer = %context.peer.addr,
                "run refused: a simulation needs `options.{NODE_COUNT}` among the options of its federation"
            );
            return Ok(None);
        }
        let fab = match judge(call.fab.clone(), call.hash).await {
            Ok(fab) => fab,
            Err(refusal) => {
                warn!(
                    peer = %context.peer.addr,
                    cause = std::error::Error::source(&refusal).map(ToString::to_string),
                    "run refused: {refusal}"
                );
                return Ok(None);
            }
        };
        let stored = self
            .link
            .core
            .fabs
            .put_fab(fab.hash, call.fab.clone())
            .await;
        if let Err(error) = stored {
            // A client of Flower 1.22 shows nothing of a status here; the log has the cause.
            let _ = unavailable(error);
            return Ok(None);
        }
        let (name, version) = (fab.id.clone(), fab.version.clone());
        let run = self.create_run(fab, call).await?;
        info!(run_id = run.0, fab = %name, version = %version, "run submitted");
        Ok(Some(run))
    }

    async fn stop_run(&self, _context: &Context, call: StopRun) -> Result<(), Status> {
        let finished = |run: RunId| {
            Reason::RunAlreadyFinished.refuse(format!("run {run} is already finished"))
        };
        if self.status_of(call.run).await?.phase == Phase::Finished {
            return Err(finished(call.run));
        }
        let stopped = RunStatus::finished(SubStatus::Stopped, "");
        let moved = self
            .link
            .state()
            .move_run(call.run, stopped, self.link.now())
            .await;
        match moved.map_err(unavailable)? {
            Transition::Applied => {
                info!(run_id = call.run.0, "run stopped by a user");
                Ok(())
            }
            Transition::Refused(_) => Err(finished(call.run)),
            Transition::Unknown => Err(unknown_run()),
        }
    }

    async fn stream_logs(
        &self,
        context: &Context,
        call: StreamLogs,
    ) -> Result<((), EventStream<LogChunk>), Status> {
        self.status_of(call.run).await?;
        let tail = LogTail {
            link: self.link.clone(),
            run: call.run,
            after: call.after,
            changed: self.link.state().wakeups().subscribe(Topic::Log(call.run)),
            drain: context.drain.clone(),
        };
        Ok(((), stream::try_unfold(tail, LogTail::next).boxed()))
    }

    async fn list_runs(&self, _context: &Context, call: ListRuns) -> Result<RunList, Status> {
        let (state, now) = (self.link.state(), self.link.now());
        let runs = match call.run {
            Some(run) => {
                let run = state.run(run, now).await.map_err(unavailable)?;
                vec![run.ok_or_else(unknown_run)?]
            }
            None => state.runs(now).await.map_err(unavailable)?,
        };
        Ok(RunList { runs, now })
    }

    async fn login_details(
        &self,
        _context: &Context,
        _call: GetLoginDetails,
    ) -> Result<LoginDetails, Status> {
        Err(no_user_auth())
    }

    async fn auth_tokens(
        &self,
        _context: &Context,
        _call: GetAuthTokens,
    ) -> Result<AuthTokens, Status> {
        Err(no_user_auth())
    }

    async fn pull_artifacts(
        &self,
        _context: &Context,
        _call: PullArtifacts,
    ) -> Result<Option<String>, Status> {
        Err(Reason::NoArtifactProvider.refuse("no artifact provider is configured"))
    }
}

/// Follows a run's log.
struct LogTail<S, F> {
    link: SuperLink<S, F>,
    run: RunId,
    after: UnixTime,
    changed: Subscription,
    drain: Drain,
}

impl<S: LinkState, F: Fabs> LogTail<S, F> {
    /// The next piece; nothing once the run has finished and all of it was read.
    async fn next(mut self) -> Result<Option<(LogChunk, Self)>, Status> {
        let state = self.link.state();
        loop {
            // The status is read before the log: what is written before the end is never missed.
            let status = state.run_status(self.run, self.link.now()).await;
            let status = status.map_err(unavailable)?;
            let slice = state
                .log_after(self.run, self.after)
                .await
                .map_err(unavailable)?;
            if let Some(latest) = slice.latest {
                self.after = latest;
                let chunk = LogChunk {
                    text: slice.text,
                    latest,
                };
                return Ok(Some((chunk, self)));
            }
            if status.is_none_or(|status| status.phase == Phase::Finished) {
                return Ok(None);
            }
            tokio::select! {
                biased;
                () = self.drain.requested() => return Err(Context::draining()),
                () = self.changed.changed() => {}
            }
        }
    }
}

/// Hashes and opens the bundle, away from the threads that serve connections.
async fn judge(content: Bytes, claimed: Option<FabHash>) -> Result<FabInfo, Refusal> {
    let judged = tokio::task::spawn_blocking(move || {
        let fab = inspect(&content)?;
        match claimed {
            Some(hash) if hash != fab.hash => Err(Refusal::WrongHash),
            _ => Ok(fab),
        }
    });
    judged
        .await
        .unwrap_or_else(|_| Err(Refusal::Content("reading it failed".into())))
}

fn unknown_run() -> Status {
    Reason::RunUnknown.refuse("no such run")
}

fn no_user_auth() -> Status {
    Reason::NoUserAuth.refuse("no user authentication is configured")
}

/// The option that a simulation cannot do without.
const NODE_COUNT: &str = "num-supernodes";
