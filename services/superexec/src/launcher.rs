//! Asks a daemon which apps wait, and launches them.

use std::sync::Arc;
use std::time::Duration;

use flwr_api::appio::{AppIoClient, ListAppsToLaunch, RequestToken};
use flwr_api::{RunId, Token};
use flwr_transport::{Bearer, Drain, Status};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::app::App;
use crate::config::{Config, Reach};
use crate::output::Output;
use crate::program::{NotInstalled, Program};
use crate::start::Starter;

/// Launches the apps of one daemon.
#[derive(Debug)]
pub struct Launcher {
    starter: Arc<Starter>,
    apps: TaskTracker,
    slots: Arc<Semaphore>,
}

/// How a question for work went.
#[derive(Clone, Copy)]
enum Asked {
    /// Something was launched.
    Launched,
    /// There was nothing to do.
    Nothing,
    /// The daemon could not be asked, or nothing could be started.
    Failed,
}

impl Launcher {
    /// A launcher for the daemon that `client` asks. What `client` presents is for the launcher's
    /// own questions; apps present their tokens.
    ///
    /// # Errors
    /// When the app's program is not installed.
    pub fn new(
        config: Config,
        reach: Reach,
        client: AppIoClient,
        output: Output,
    ) -> Result<Self, NotInstalled> {
        let program = Program::find(config.kind, &config.path, config.flwr_dir)?;
        Ok(Self {
            starter: Arc::new(Starter {
                kind: config.kind,
                program,
                reach,
                client,
                output,
            }),
            apps: TaskTracker::new(),
            slots: Arc::new(Semaphore::new(config.apps_max.max(1))),
        })
    }

    /// Launches apps until the drain is asked, then ends those that run. When this returns, no
    /// process is left.
    pub async fn run(self, drain: Drain) {
        let mut trouble = Trouble::default();
        let mut backoff = PAUSE;
        loop {
            let slot = tokio::select! {
                biased;
                () = drain.requested() => break,
                slot = Arc::clone(&self.slots).acquire_owned() => slot,
            };
            let slot = slot.expect("nobody closes the slots");
            let asked = Instant::now();
            let outcome = self.ask(slot, &drain, &mut trouble).await;
            let pause = match outcome {
                Asked::Launched => Duration::ZERO,
                Asked::Nothing => PAUSE,
                Asked::Failed => backoff,
            };
            backoff = match outcome {
                Asked::Failed => (backoff * 2).min(PAUSE_MAX),
                Asked::Launched | Asked::Nothing => PAUSE,
            };
            // Counted from the question: a daemon that holds it needs no pause.
            tokio::select! {
                biased;
                () = drain.requested() => break,
                () = sleep_until(asked + pause) => {}
            }
        }
        self.apps.close();
        self.apps.wait().await;
        self.starter.output.flush().await;
    }

    /// Asks for work once.
    async fn ask(&self, slot: OwnedSemaphorePermit, drain: &Drain, trouble: &mut Trouble) -> Asked {
        let call = ListAppsToLaunch { wait: WAIT };
        let runs = self
            .starter
            .client
            .list_apps_to_launch(call, Instant::now() + WAIT + ANSWER);
        let runs = tokio::select! {
            biased;
            () = drain.requested() => return Asked::Nothing,
            runs = runs => runs,
        };
        let runs = match runs {
            Ok(runs) => runs,
            Err(status) => {
                trouble.note(&status);
                return Asked::Failed;
            }
        };
        trouble.end();
        let mut asked = Asked::Nothing;
        let mut next_slot = Some(slot);
        for run in runs {
            let slot = next_slot
                .take()
                .or_else(|| Arc::clone(&self.slots).try_acquire_owned().ok());
            let Some(slot) = slot else { break };
            match self.claim(run).await {
                Ok(Some(token)) => {
                    let is_started = self.launch(run, &token, slot, drain);
                    asked = if is_started {
                        Asked::Launched
                    } else {
                        Asked::Failed
                    };
                }
                Ok(None) => next_slot = Some(slot),
                Err(status) => {
                    trouble.note(&status);
                    return Asked::Failed;
                }
            }
        }
        asked
    }

    /// Claims a launch. Not cut short by a drain: a claim that got lost would block the run.
    async fn claim(&self, run: RunId) -> Result<Option<Token>, Status> {
        let call = RequestToken { run };
        self.starter
            .client
            .request_token(call, Instant::now() + ANSWER)
            .await
    }

    /// Starts the app and leaves it to a task of its own; false if it could not be started.
    fn launch(&self, run: RunId, token: &Token, slot: OwnedSemaphorePermit, drain: &Drain) -> bool {
        let app = App {
            kind: self.starter.kind,
            run,
            client: self.starter.client.bearing(Bearer::new(token.expose())),
            drain: drain.clone(),
        };
        match self.starter.start(run, token) {
            Ok(started) => {
                info!(run_id = run.0, pid = %started.process.pid(), "Launched {}", app.kind.program());
                self.apps.spawn(async move {
                    app.supervise(started).await;
                    drop(slot);
                });
                true
            }
            Err(error) => {
                warn!(run_id = run.0, %error, "{} cannot be started", app.kind.program());
                self.apps
                    .spawn(async move { app.report_not_started(&error.to_string()).await });
                false
            }
        }
    }
}

/// Logs what goes wrong once, and that it is over.
#[derive(Debug, Default)]
struct Trouble(Option<Status>);

impl Trouble {
    fn note(&mut self, status: &Status) {
        if self.0.as_ref() == Some(status) {
            debug!(%status, "still no launches");
        } else {
            warn!(%status, "no launches for the moment");
            self.0 = Some(status.clone());
        }
    }

    fn end(&mut self) {
        if self.0.take().is_some() {
            info!("launches are possible again");
        }
    }
}

/// How long a daemon is asked to wait for work.
const WAIT: Duration = Duration::from_secs(25);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// Between two questions that brought nothing, as upstream.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(10);
