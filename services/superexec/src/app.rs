//! One app from its launch to its end: watched, ended when it is not wanted, reported when it is gone.

use std::time::Duration;

use flwr_api::appio::{AppIoClient, AppStanding, ReportAppExit, UpdateRunStatus, WatchApp};
use flwr_api::{Reason, RunId, RunStatus, SubStatus, Token};
use flwr_transport::{Code, Drain, Status};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use crate::config::Kind;
use crate::metrics::{End, Running};
use crate::process::Ended;
use crate::start::{Started, Starter};

/// An app whose launch was claimed.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) kind: Kind,
    pub(crate) run: RunId,
    pub(crate) token: Token,
    /// Presents the token.
    pub(crate) client: AppIoClient,
    pub(crate) drain: Drain,
    /// Its place among the apps that run at once, until its process has ended.
    pub(crate) slot: Option<OwnedSemaphorePermit>,
}

/// What became of its process.
enum Outcome {
    Ended(Ended),
    /// We ended it.
    NotWanted,
    Draining,
}

/// What a daemon says of an app that it does not watch any more.
enum Verdict {
    /// End it.
    NotWanted,
    /// Its work is done, or nobody knows it any more: it should end by itself soon.
    Done,
}

impl App {
    /// Starts a process for the app and stays with it until it is gone.
    pub(crate) async fn run(self, starter: &Starter) {
        if self.drain.is_requested() {
            End::NotStarted.count(self.kind);
            let how = Outcome::Draining.to_string();
            return self.report(&how, false).await;
        }
        match starter.start(self.run, &self.token).await {
            Ok(started) => self.supervise(started).await,
            Err(error) => {
                warn!(run_id = self.run.0, %error, "{} cannot be started", self.kind.program());
                End::NotStarted.count(self.kind);
                self.report(&format!("it could not be started: {error}"), false)
                    .await;
                // The next would hardly fare better.
                sleep(PAUSE).await;
            }
        }
    }

    /// Stays with the app's process until it is gone.
    pub(crate) async fn supervise(mut self, mut started: Started) {
        info!(run_id = self.run.0, pid = %started.process.pid(), "Launched {}", self.kind.program());
        let running = Running::begin(self.kind);
        let outcome = tokio::select! {
            biased;
            () = self.drain.requested() => Outcome::Draining,
            ended = started.process.ended() => Outcome::Ended(ended),
            () = self.no_longer_wanted() => Outcome::NotWanted,
        };
        match &outcome {
            Outcome::Ended(ended) if ended.is_success() => {
                debug!(run_id = self.run.0, "app ended");
            }
            Outcome::Ended(ended) => warn!(run_id = self.run.0, "app ended: {ended}"),
            Outcome::NotWanted => {
                info!(
                    run_id = self.run.0,
                    "ending an app that is not wanted any more"
                );
                started.process.end().await;
            }
            Outcome::Draining => {
                debug!(run_id = self.run.0, "ending the app");
                started.process.end().await;
            }
        }
        drop(running);
        outcome.end().count(self.kind);
        self.slot = None;
        let how = outcome.to_string();
        tokio::join!(started.close(), self.report(&how, outcome.is_regular()));
    }

    /// Completes when the daemon wants the app to be ended.
    async fn no_longer_wanted(&self) {
        match self.watch().await {
            Verdict::NotWanted => {}
            Verdict::Done => {
                sleep(LEAVING).await;
                warn!(
                    run_id = self.run.0,
                    "an app whose work is done does not end by itself"
                );
            }
        }
    }

    async fn watch(&self) -> Verdict {
        loop {
            let asked = Instant::now();
            let call = WatchApp { wait: WATCH };
            match self.client.watch_app(call, asked + WATCH + ANSWER).await {
                Ok(AppStanding::Wanted) => {}
                Ok(AppStanding::Done) => return Verdict::Done,
                Ok(AppStanding::Unwanted) => return Verdict::NotWanted,
                Err(status) if status.code == Code::Unimplemented => std::future::pending().await,
                Err(status) if is_token_invalid(&status) => return Verdict::Done,
                Err(status) => {
                    debug!(run_id = self.run.0, %status, "the app is not watched for a moment");
                }
            }
            sleep_until(asked + PAUSE).await;
        }
    }

    /// Tells the daemon how the app ended, for as long as that can help.
    async fn report(&self, how: &str, is_regular: bool) {
        let patience = if self.drain.is_requested() {
            LAST_REPORT
        } else {
            REPORT
        };
        let end = Instant::now() + patience;
        let mut pause = PAUSE;
        loop {
            let Err(status) = self.report_once(how, is_regular, end).await else {
                return;
            };
            // An app that has handed in its outputs has no token any more.
            if !status.code.is_retryable() || Instant::now() + pause > end {
                debug!(run_id = self.run.0, %status, "the end of the app was not reported");
                return;
            }
            tokio::select! {
                biased;
                () = self.drain.requested() => sleep(PAUSE.min(LAST_REPORT)).await,
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn report_once(&self, how: &str, is_regular: bool, end: Instant) -> Result<(), Status> {
        let call = ReportAppExit { how: how.into() };
        let deadline = end.min(Instant::now() + ANSWER);
        match self.client.report_app_exit(call, deadline).await {
            Err(status) if status.code == Code::Unimplemented => {
                self.report_to_stock(how, is_regular, deadline).await
            }
            reported => reported,
        }
    }

    /// A stock daemon knows of ends only what apps say themselves.
    async fn report_to_stock(
        &self,
        how: &str,
        is_regular: bool,
        deadline: Instant,
    ) -> Result<(), Status> {
        if is_regular || !self.kind.owns_its_run() {
            return Ok(());
        }
        let details = format!("The app's process ended before it had finished: {how}");
        let call = UpdateRunStatus {
            run: self.run,
            status: Some(RunStatus::finished(SubStatus::Failed, details)),
        };
        self.client.update_run_status(call, deadline).await
    }
}

impl Outcome {
    /// What it counts as.
    fn end(&self) -> End {
        match self {
            Self::Ended(ended) if ended.is_success() => End::Success,
            Self::Ended(_) => End::Died,
            Self::NotWanted => End::Unwanted,
            Self::Draining => End::Shutdown,
        }
    }

    /// Whether the app left by itself, and well.
    fn is_regular(&self) -> bool {
        self.end() == End::Success
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ended(ended) => ended.fmt(f),
            Self::NotWanted => f.write_str("ended because it was not wanted any more"),
            Self::Draining => f.write_str("ended because its launcher shuts down"),
        }
    }
}

fn is_token_invalid(status: &Status) -> bool {
    Reason::of(status) == Some(Reason::TokenInvalid)
}

/// How long a daemon is asked to wait for news of an app, as for launches.
const WATCH: Duration = Duration::from_secs(25);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// Between two questions at least, and between the first two reports.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long an app whose work is done may take to leave: uploads that run at exit take minutes.
const LEAVING: Duration = Duration::from_secs(300);
/// How long a report is repeated. A daemon that is gone longer has forgotten the app.
const REPORT: Duration = Duration::from_secs(120);
const LAST_REPORT: Duration = Duration::from_secs(2);
